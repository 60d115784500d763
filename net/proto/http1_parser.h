/* The parser of HTTP/1, which is llhttp: what of a head is what, and how much of a body's bytes is
 * content. One message at a time; heads come in one piece, bodies in any. */
#ifndef BM_HTTP1_PARSER_H
#define BM_HTTP1_PARSER_H

#include "net/proto/http1_head.h"

struct bm_http1_parser;

/* Of answers, or of requests. 0 or -ENOMEM. */
int bm_http1_parser_new(struct bm_account *account, bool answers,
                        struct bm_http1_parser **ret_parser);
struct bm_http1_parser *bm_http1_parser_free(struct bm_http1_parser *parser);

/* Begins a message with its whole head, up to the empty line: fills in the method and the target,
 * or the status, the version, and the fields, all of them spans of `bytes`, with the names in lower
 * case. 0, or the status for a peer that sent no head. */
int bm_http1_parser_head(struct bm_http1_parser *parser, uint8_t *bytes, size_t len,
                         struct bm_http1_head *head);
/* Whether it sees the length of the body as the judge does. */
bool bm_http1_parser_agrees(const struct bm_http1_parser *parser, const struct bm_http1_head *head);

/* The next bytes behind the head. Whether they are good; *ret_content of them belong to the body
 * itself. */
bool bm_http1_parser_body(struct bm_http1_parser *parser, const uint8_t *bytes, size_t len,
                          size_t *ret_content);
/* The length of the chunk whose line it has just had. */
uint64_t bm_http1_parser_chunk_len(const struct bm_http1_parser *parser);
bool bm_http1_parser_whole(const struct bm_http1_parser *parser); /* the message */

#endif
