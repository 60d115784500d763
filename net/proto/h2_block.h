/* The header block that is coming in: there is one at a time on a connection (RFC 9113 section
 * 4.3). Its names and values are copied, up to the limits of h2.h; what is over is counted and not
 * kept. */
#ifndef BM_H2_BLOCK_H
#define BM_H2_BLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"
#include "net/proto/h2.h"
#include "net/proto/h2_fields.h"

struct bm_h2_block {
    struct bm_account *account;
    char *bytes; /* BM_H2_FIELDS_LEN_MAX, or NULL; behind the fields, in their block */
    size_t bytes_len;
    beam_str pseudo[BM_H2_PSEUDO_FIELDS];
    struct bm_field *fields; /* BM_H2_FIELDS_MAX, or NULL */
    size_t count;            /* of fields that came, pseudo fields not among them */
    size_t len;              /* of names and values that came */
};

void bm_h2_block_init(struct bm_h2_block *block, struct bm_account *account);

/* Gives its memory back, and is empty. */
void bm_h2_block_deinit(struct bm_h2_block *block);

/* A new block begins. */
void bm_h2_block_clear(struct bm_h2_block *block);

/* Copies a field, if it fits. 0, -ENOMEM, or -EMSGSIZE: so much is no mistake any more. */
int bm_h2_block_add(struct bm_h2_block *block, beam_str name, beam_str value, bool secret);

/* More came than may. */
bool bm_h2_block_too_large(const struct bm_h2_block *block);

/* The request that it is, borrowed until the next change; authority is that of `host` where there
 * is no other. False: there is none, it has user information, or there are two that differ. */
bool bm_h2_block_request(const struct bm_h2_block *block, struct bm_h2_request *ret_request);

/* The status of a response, 0 to 999; -1: it has none, which trailers have not. */
int bm_h2_block_status(const struct bm_h2_block *block);

#endif
