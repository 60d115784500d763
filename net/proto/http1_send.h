/* What goes out on a connection of HTTP/1: heads, and bodies from where they come. */
#ifndef BM_HTTP1_SEND_H
#define BM_HTTP1_SEND_H

#include "net/proto/http1.h"
#include "net/proto/http1_head.h"
#include "net/proto/outbox.h"

/* Zeroed but for the outbox's account it sends nothing. */
struct bm_http1_send {
    struct bm_outbox outbox;
    const struct bm_http1_source *source; /* of the body under way, or NULL */
    void *arg;
    int64_t left; /* of it; -1: not known */
    bool chunked;
    bool asleep; /* the source had nothing */
};

/* Puts the head and the bytes of the body into the outbox, or notes its source. `close`: say so.
 * *ret_until_end: the body ends with the connection. Errors as those of bm_http1_answer and
 * bm_http1_ask that concern what is sent. */
int bm_http1_send_answer(struct bm_http1_send *send, const struct bm_http1_answer *answer,
                         const struct bm_http1_head *request, bool close, bool *ret_until_end);
int bm_http1_send_ask(struct bm_http1_send *send, const struct bm_http1_ask *ask);
/* An answer of the engine's own, that the connection ends after. 0 or -ENOMEM. */
int bm_http1_send_refusal(struct bm_http1_send *send, int status, bool to_head);

/* Asks the source until it has nothing, the body ends, or the outbox holds BM_HTTP1_OUTPUT_MAX. 0;
 * 1: the body has ended; the source's error, -EPROTO when it ended before its length, or
 * -ENOMEM. */
int bm_http1_send_pull(struct bm_http1_send *send);

#endif
