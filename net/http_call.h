/* A call without a session: one request of HTTP and the channel to a service that it opens
 * (docs/spec/http.md section 7). What its parts share; all of it on the core's thread.
 *
 *     the request -> call_question.c -> a message -> call_exchange.c -> a channel to the service
 *     what comes on it -> call_answer.c, or call_events.c -> the answer
 */
#ifndef BM_HTTP_CALL_H
#define BM_HTTP_CALL_H

#include "net/collected.h"
#include "net/media.h"
#include "net/server.h"
#include "runtime/crossing.h"
#include "runtime/message_queue.h"
#include "runtime/service.h"
#include "uring/timer.h"

#define BM_CALL_TARGET_LEN_MAX 8192u          /* as of HTTP/1.1, section 10; else 414 */
#define BM_CALL_METADATA_FIELD_LEN_MAX 8192u  /* ours: half of what a head may have */
#define BM_CALL_COMMENT_NS (15 * BM_NS_PER_S) /* Q5 */

/* Why a request is refused. */
struct bm_refusal {
    unsigned status;
    enum beam_code code;
    beam_str text;
    const void *details; /* a kv document, or NULL */
    size_t details_len;
    const struct bm_field *fields; /* besides those of the body */
    size_t field_count;
};
void bm_exchange_refuse_with(struct bm_exchange *exchange, const struct bm_refusal *refusal);

struct bm_call {
    struct bm_crossing crossing;
    struct bm_exchange *exchange; /* held */
    struct bm_server *server;
    struct bm_core *core;
    const struct bm_service *service;
    beam_channel *channel; /* NULL: not open yet, or over */
    uint64_t deadline_ns;
    bool closed;   /* the exchange's on_close has come */
    bool whole;    /* the request's body is, or is not wanted */
    bool answered; /* bm_exchange_answer was called */

    /* The question. */
    beam_message *question;         /* until it has left */
    const struct beam_codec *asked; /* its body's; NULL: none */
    bool merges;                    /* its body becomes metadata, */
    bool form;                      /* ... and is a form */
    struct bm_collected body;

    /* The answer. */
    struct bm_media_choice choice;
    beam_message *answer;   /* kept: the first that came, or the one that is being sent */
    beam_buffer converted;  /* ... in another form */
    const uint8_t *sending; /* what `read` gives, */
    size_t sending_len, sent;

    /* The answer as events. */
    bool events;
    bool ended;                    /* the last event stands in `text`, or will behind the queue */
    struct bm_message_queue queue; /* not yet events: they hold their credit */
    beam_buffer text;              /* events, of which `sent` bytes have gone */
    beam_buffer last;              /* the event `end` */
    struct bm_timer comment_timer;

    struct bm_peer asker;
};

/* --- call_question.c: rules Q1, Q2, Q6 --- */

/* From the head of a request: service, deadline, codecs, and the message as far as it is known then. false:
 * refused, with *ret; what was made is the call's all the same. */
bool bm_question_begin(struct bm_call *call, const struct bm_exchange_request *request,
                       beam_str rest, struct bm_refusal *ret);
/* The body is there: completes the message. false: refused. */
bool bm_question_finish(struct bm_call *call, struct bm_refusal *ret);

/* --- call_answer.c: Q3, Q4 --- */

/* Answers with OK. message is borrowed, may be NULL. */
void bm_answer_message(struct bm_call *call, const beam_message *message);
/* Answers with how it has ended. */
void bm_answer_status(struct bm_call *call, const struct beam_status *status);
void bm_answer_refusal(struct bm_call *call, const struct bm_refusal *refusal);
/* So many bytes of an answer may lie here until they are sent; false: refused with 429, and what there was
 * of the answer is freed. */
bool bm_answer_reserve(struct bm_call *call, size_t len);
/* What the body of a message is in; NULL: nothing that is known. */
const struct beam_codec *bm_answer_codec(const struct bm_call *call, const beam_message *message);
/* `read` of an answer. */
ssize_t bm_answer_read(struct bm_call *call, uint8_t *buf, size_t len, bool *ret_end);

/* --- call_events.c: Q5 --- */

void bm_events_begin(struct bm_call *call);
void bm_events_message(struct bm_call *call, const beam_message *message);
void bm_events_end(struct bm_call *call, const struct beam_status *status);
ssize_t bm_events_read(struct bm_call *call, uint8_t *buf, size_t len, bool *ret_end);
void bm_events_deinit(struct bm_call *call);

#endif
