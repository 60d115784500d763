/* Header fields of HTTP/2: what may be sent, and what nghttp2 lets pass that we do not (RFC 9113
 * section 8.2 and 8.3, RFC 9110 section 5). Pure functions. */
#ifndef BM_H2_FIELDS_H
#define BM_H2_FIELDS_H

#include <stdbool.h>

#include "net/proto/h2.h"

enum bm_h2_pseudo {
    BM_H2_METHOD,
    BM_H2_SCHEME,
    BM_H2_AUTHORITY,
    BM_H2_PATH,
    BM_H2_PROTOCOL,
    BM_H2_STATUS,
    BM_H2_PSEUDO_FIELDS,
};

/* Which one it is; -1: none. */
int bm_h2_pseudo_of(beam_str name);

/* What is to be sent: pseudo fields first. Borrows all of it. Stays where it is. */
struct bm_h2_list {
    struct bm_field fields[BM_H2_FIELDS_MAX + BM_H2_PSEUDO_FIELDS];
    size_t count;
    char status[3];
};

/* Fills a list. Names of fields are tokens in lower case, and none belongs to a connection; values
 * have no control characters but tabs, and no blanks around them; `te` says trailers and nothing
 * else. A method is a token, a path begins with '/' or is "*", and CONNECT without a protocol has
 * none. 0, or -EINVAL: something that may not be sent, or too much of it. */
int bm_h2_list_request(struct bm_h2_list *list, const struct bm_h2_request *request);
int bm_h2_list_response(struct bm_h2_list *list, unsigned status, const struct bm_field *fields,
                        size_t count);

/* Not empty, and without user information, which must not travel (RFC 9113 section 8.3.1). */
bool bm_h2_authority_ok(beam_str authority);

/* `host` and `:authority` name the same: a request where they differ is one that two readers can
 * take for two. */
bool bm_h2_authority_same(beam_str a, beam_str b);

#endif
