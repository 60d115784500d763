/* HELLO: what each side says of itself first. docs/spec/session.md section 3. */
#ifndef BM_HELLO_H
#define BM_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <beam/kv.h>

#define BM_PROTOCOL_VERSION 1
#define BM_HELLO_LEN_MAX 1024u /* ours, when writing: eight keys and a name of 255 bytes fit */

#define BM_PING_MAX_S 3600u /* docs/spec/session.md H1 */

struct bm_hello {
    uint32_t version;
    bool opener;
    beam_str name; /* a view into the document, or empty */
    uint32_t window;
    uint32_t channels_max;
    uint32_t message_len_max;
    uint32_t fds_max;
    bool fds_refused; /* key absent */
    uint32_t ping_s;  /* 0: key absent */
};

/* Absent keys get the values of H1. -BEAM_EHELLO_MALFORMED, also when it is no document. */
int bm_hello_parse(const void *document, size_t len, struct bm_hello *ret_hello);

/* Writes the document; returns its length. out has BM_HELLO_LEN_MAX bytes; a longer name is cut. */
size_t bm_hello_write(const struct bm_hello *hello, void *out);

#endif
