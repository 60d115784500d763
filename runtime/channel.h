/* The channel: state, credit and life. docs/spec/session.md section 5 and 6.
 *
 *   unbound   attached to a message that has not left: sends queue up
 *   opening   opened by name, the opening frame has not left
 *   open      has an id, stands in the session's table
 *   gone      out of the table; nothing passes any more
 *
 * References: the session's (until gone), the handle's (until freed), one for each kept message that
 * owes credit, one for each callback under way. The last one frees the memory. */
#ifndef BM_CHANNEL_H
#define BM_CHANNEL_H

#include <beam/beam.h>

#include "base/assert.h"
#include "base/list.h"
#include "runtime/frame.h"
#include "uring/timer.h"

struct bm_core;
struct bm_service;
struct hop;

/* What kind of conversation it is for its owner here. */
enum bm_channel_kind {
    BM_CHANNEL_PLAIN,   /* attached, taken or opened by beam_open */
    BM_CHANNEL_CALL,    /* our end of beam_call */
    BM_CHANNEL_REQUEST, /* the serving end of a request */
    BM_CHANNEL_EVENTS,  /* our end of an event channel */
    BM_CHANNEL_SINK,    /* the serving end of one */
};

/* Callbacks that are due from the core's notify task, because their cause was a call of the
 * application's or lies outside a dispatch. */
enum {
    BM_DUE_WRITABLE = 1,
    BM_DUE_END = 2,
    BM_DUE_EARLY = 4,
};

struct beam_channel {
    uint64_t id;              /* 0 until given */
    beam_session *session;    /* NULL while unbound and once gone */
    struct bm_core *core;     /* NULL: it has ended, only memory is left */
    struct bm_list core_node; /* core->channels */
    uint32_t refs;
    uint8_t kind; /* enum bm_channel_kind */
    uint8_t mode; /* enum bm_channel_mode */
    uint8_t depth;
    uint8_t due;
    uint8_t wanted_fds;      /* blocked: the fd credit it waits for */
    uint8_t wanted_channels; /* ... and the room for channels attached to its message */
    bool unbound : 1;
    bool opening : 1;
    bool in_table : 1;
    bool gone : 1;
    bool handle : 1; /* the application holds it */
    bool oneway : 1;
    bool ours : 1;         /* we gave its id */
    bool local_ended : 1;  /* nothing more may be sent */
    bool end_due : 1;      /* END still to be put */
    bool abort_due : 1;    /* END ABORT still to be put */
    bool remote_ended : 1; /* the peer's direction is over */
    bool end_waits : 1;    /* the end came before the channel was taken */
    bool end_told : 1;     /* on_end, on_reply or on_cancel has run or is due */
    bool never_left : 1;   /* its opening frame surely never left */
    bool blocked : 1;      /* refused a send; wants on_writable */
    bool held_back : 1;    /* unix: has a retained frame in the packet under way */
    bool uncounted : 1;    /* the peer's: over for all it can see, so no longer in opened_there */
    bool kept : 1;         /* request: outlives its handler */
    bool answered : 1;     /* request: reply or fail was called */
    bool in_handler : 1;
    bool hold_bytes : 1;    /* beam_stream_hold was called in this on_data */
    bool large_sending : 1; /* counted in the session's two */
    bool expired : 1;       /* its deadline has passed */
    bool handed_over : 1;   /* request: its first message has gone to the handler, or into line */
    bool cancelled : 1;     /* request: nobody waits for the answer any more */

    /* Flow. */
    int64_t send_credit;
    int64_t recv_credit; /* what the peer has left, as we see it */
    int64_t owed;        /* to be given back */

    /* Way out. */
    beam_message *out_head, **out_tail;
    struct bm_list session_node; /* session->channels */
    struct bm_list ready_node;   /* session->ready or large_waiting */
    struct bm_list blocked_node; /* session->blocked */
    struct bm_list notify_node;  /* core->notify */
    struct bm_list held_node;    /* session->held: a request that waits for its handler */
    uint32_t kept_events;        /* events of this channel that the application keeps */

    /* What its messages hold of the session's (fd credit, the budget for large ones) goes back there
     * when the application is done with them, be the channel gone or not. */
    beam_session *holds_of;    /* NULL: nothing held, or the session is lost */
    uint32_t holds;            /* messages that do, and those that wait for a taker */
    struct bm_list holds_node; /* session->holders */
    struct bm_timer fd_timer;  /* retry after ETOOMANYREFS */
    uint64_t fd_retry_ns, fd_give_up_ns;

    /* A large message on its way in. */
    beam_message *incoming;
    uint64_t incoming_left;
    uint8_t *incoming_pos;

    /* What came on an attached channel before it was taken out of its message; within its credit. */
    beam_message *early_head, **early_tail;

    /* The end we send, and the end we were told. */
    uint32_t end_code;
    uint32_t told_code;
    char *end_text; /* pool block of 256, or NULL */
    char *told_text;
    uint32_t end_text_cap, told_text_cap;

    /* Application. */
    const void *handlers; /* struct beam_channel_handlers or beam_stream_handlers */
    void *arg;

    /* Opened by name (both ends). */
    char name_inline[48];
    char *name; /* name_inline, or a block of name_cap */
    uint32_t name_cap;
    uint8_t name_len;
    const struct bm_service *service;
    uint64_t deadline_ns; /* absolute, UINT64_MAX: none */
    struct bm_timer deadline_timer;
    struct bm_list children; /* calls made on this request's behalf */
    struct bm_list child_node;

    /* Call. */
    beam_reply_fn *on_reply;
    beam_message *reply; /* the last message, when the status comes apart */

    struct hop *hop; /* events that are served on another core: forward.c's */

    /* Request. */
    void (*on_cancel)(beam_request *request, void *arg);
    void *on_cancel_arg;
    struct beam_peer peer;
};

struct beam_request {
    struct beam_channel channel;
};

static inline beam_request *bm_channel_request(beam_channel *channel)
{
    return (beam_request *)channel;
}

static inline beam_channel *bm_request_channel(beam_request *request)
{
    return (beam_channel *)request;
}

/* --- life --- */

/* A channel of this core, bound to nothing; one reference, the caller's. NULL without memory. */
beam_channel *bm_channel_new(struct bm_core *core, enum bm_channel_mode mode);
static inline beam_channel *bm_channel_ref(beam_channel *channel)
{
    channel->refs++;
    return channel;
}
/* The last reference is gone. */
void bm_channel_dispose(beam_channel *channel);
static inline void bm_channel_unref(beam_channel *channel)
{
    bm_assert(channel->refs > 0);
    if (--channel->refs == 0)
        bm_channel_dispose(channel);
}
struct bm_core *bm_channel_core(const beam_channel *channel);

/* Becomes the handle of an attached end, not yet sent. */
void bm_channel_attached(beam_channel *channel);
/* The receiver took it: the message's reference becomes the handle's. */
void bm_channel_taken(beam_channel *channel);
/* The message it was attached to is freed: unsent, its handle hears CANCELLED; received and not taken,
 * it is reset. */
void bm_channel_attachment_dropped(beam_channel *channel);

/* Into the session's table, with an id and its credits. The table has room (bm_table_reserve). */
void bm_channel_bind(beam_channel *channel, beam_session *session, uint64_t id, bool ours);
/* Undo, for a frame that did not leave after all. */
void bm_channel_unbind(beam_channel *channel);
/* An attached channel joins a session before it has an id. */
void bm_channel_join(beam_channel *channel, beam_session *session);

/* Out of the table; drops the session's reference. */
void bm_channel_gone(beam_channel *channel);
/* Gone if nothing is left to be sent or to come. */
void bm_channel_check_gone(beam_channel *channel);
/* Its last frame did not leave after all: it counts again. */
void bm_channel_count_again(beam_channel *channel);
/* Its core has ended: who still refers to it only frees it. */
void bm_channel_orphan(beam_channel *channel);
/* The session is lost. */
void bm_channel_lost(beam_channel *channel, enum beam_code code, const char *text);

/* --- flow --- */

/* Whether a message of this cost could be taken now; 0, or the error for the sender. */
int bm_channel_may_send(beam_channel *channel, uint64_t len, unsigned fds);
/* Takes a sealed message into the queue without asking for credit. */
void bm_channel_enqueue(beam_channel *channel, beam_message *message);
/* Frees what is queued and not yet put. */
void bm_channel_drop_out(beam_channel *channel);
/* Has the session's flush look at this channel. */
void bm_channel_make_ready(beam_channel *channel);
/* The application is done with a message, or with some bytes. */
void bm_channel_message_done(beam_message *message);
/* A received message with fds, or a large one: see holds. Its payer is set. */
void bm_channel_message_holds(beam_message *message, beam_session *session);
/* One thing more, or less, of the session's that outlives the channel in it. */
void bm_channel_hold(beam_channel *channel, beam_session *session);
void bm_channel_let_go(beam_channel *channel);
void bm_channel_return_credit(beam_channel *channel, int64_t amount);
void bm_channel_fd_done(beam_message *message, unsigned count);

/* --- endings --- */

/* Our direction ends, behind what is queued. text may be NULL. */
void bm_channel_end(beam_channel *channel, uint32_t code, const char *text);
/* Both directions end now. */
void bm_channel_abort(beam_channel *channel, uint32_t code, const char *text);
/* The peer's direction has ended; tells the application (from within a dispatch). */
void bm_channel_remote_end(beam_channel *channel, bool abort, uint32_t code, beam_str text,
                           const void *details, uint32_t details_len);
/* The same, told later by the notify task. */
void bm_channel_end_later(beam_channel *channel, uint32_t code, const char *text);
void bm_channel_notify(beam_channel *channel, unsigned due);
/* Runs the callbacks that are due; called by the core's notify task. */
void bm_channel_run_due(beam_channel *channel);

/* A text of at most 255 bytes, cut between characters, into a block of the pool. */
void bm_channel_set_text(struct bm_core *core, char **to, uint32_t *cap, const char *text);

/* Writes {"message": text} into out (BM_DETAILS_LEN_MAX bytes); its length, 0 for no text. */
uint32_t bm_details_write(const char *text, void *out);

/* --- dispatch to what the channel is for --- */
void bm_channel_deliver(beam_channel *channel, uint8_t flags, beam_message *message);
void bm_channel_tell_end(beam_channel *channel, const struct beam_status *status);

/* call.c */
/* An event channel of its own, with handlers and a handle. Errors as beam_call. */
int bm_open_events(beam_session *session, const char *service, beam_message **message,
                   const struct beam_channel_handlers *handlers, void *arg,
                   beam_channel **ret_channel);
void bm_call_deliver(beam_channel *channel, bool last, beam_message *message);
void bm_call_end(beam_channel *channel, const struct beam_status *status);
/* request.c */
void bm_request_run(beam_channel *channel, beam_message *message);
void bm_request_peer_end(beam_channel *channel, const struct beam_status *status);
void bm_request_cancel_children(beam_channel *channel);

void bm_channel_arm_deadline(beam_channel *channel, uint64_t deadline_ns);
/* The name of the service it is opened towards, copied; -ENOMEM. */
int bm_channel_set_name(beam_channel *channel, const char *name, size_t len);

#endif
