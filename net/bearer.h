/* The bearer token of a request (RFC 6750): of the field authorization, or, from browsers, which cannot
 * set that for a WebSocket, of a subprotocol "beam.token.TOKEN" in base64url (docs/spec/http.md B1). */
#ifndef BM_BEARER_H
#define BM_BEARER_H

#include <beam/kv.h>

#include "net/proto/field.h"

#define BM_BEARER_TOKEN_MAX                                                                        \
    8192u /* ours: half of a header list; tokens that list groups have 4 KiB */

struct bm_bearer {
    beam_str token; /* a view into the fields or into decoded */
    char *decoded;  /* or NULL; a secret */
    size_t decoded_len;
};

/* 1: there is one; 0: none, or authorization by another scheme; -EBADMSG: more than one, or no token;
 * -EMSGSIZE: over BM_BEARER_TOKEN_MAX; -ENOMEM. To be ended with bm_bearer_deinit, always. */
int bm_bearer_find(struct bm_bearer *ret_bearer, const struct bm_field *fields, size_t count);
void bm_bearer_deinit(struct bm_bearer *bearer);

#endif
