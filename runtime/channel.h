/* The channel: state, credit and life. docs/spec/session.md sections 5 and 6.
 *
 * Life. It begins in one of three ways, and ends in one:
 *
 *   unbound   our end of an attached channel, whose message has not left: sends queue up here
 *   opening   opened by name, and its first message has not left
 *   open      it has an id and stands in the session's table (in_table); a channel that the peer
 *             opens begins like this
 *   gone      out of the table: no frame passes any more, only references are left
 *
 * A frame with fds may have to be taken back out of a packet (unix_carrier.c), and its channels
 * with it: then an open channel is opening or unbound once more.
 *
 * Endings. Each direction ends by itself (local_ended, remote_ended), both at once by an abort.
 * What the peer must hear of ours is *due* until the carrier has taken it (end_due, abort_due).
 * What our application must hear is *told* once (end_told); it waits (end_waits) while nobody can
 * hear it yet. A channel goes when both directions have ended and nothing is due.
 *
 * References: the session's (until gone), the handle's (until freed), one for each received message
 * that has not given its credit back, one for each callback under way or due. The last one frees
 * the memory.
 *
 * Everything here is called on the core's thread, if it does not say otherwise. */
#ifndef BM_CHANNEL_H
#define BM_CHANNEL_H

#include <beam/beam.h>

#include "base/assert.h"
#include "base/list.h"
#include "runtime/frame.h"
#include "runtime/message_queue.h"
#include "runtime/peer.h"
#include "uring/timer.h"

struct bm_core;
struct bm_service;
struct bm_dedicated;
struct bm_hop;

/* What kind of conversation it is for its owner here. */
enum bm_channel_kind {
    BM_CHANNEL_PLAIN,   /* attached, taken or opened by beam_open */
    BM_CHANNEL_CALL,    /* our end of beam_call */
    BM_CHANNEL_REQUEST, /* the serving end of a request */
    BM_CHANNEL_EVENTS,  /* our end of an event channel */
    BM_CHANNEL_SINK,    /* the serving end of one */
};

/* Callbacks that the core's notify task will make (beam_channel.due). They cannot be made at once
 * when their cause is a call of the application, which must not be called back from inside it. */
enum {
    BM_DUE_WRITABLE = 1,
    BM_DUE_END = 2,   /* with told_code and told_text */
    BM_DUE_EARLY = 4, /* what came before the channel was taken: early.c */
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
    uint8_t dedicated_state; /* enum bm_dedicated_state */
    uint8_t due;             /* BM_DUE_… */
    uint8_t wanted_fds;      /* blocked: the fd credit it waits for */
    uint8_t wanted_channels; /* ... and the room for channels attached to its message */

    /* Life: see above. */
    bool unbound : 1;
    bool opening : 1;
    bool in_table : 1;
    bool gone : 1;
    bool ours : 1;       /* we gave its id, or will */
    bool oneway : 1;     /* of events: nothing comes back */
    bool handle : 1;     /* the application holds it, and is told what happens */
    bool never_left : 1; /* its opening frame surely never left: its loss is UNAVAILABLE */
    bool expired : 1;    /* its deadline has passed */
    bool uncounted : 1;  /* the peer's: over for all it can see, so no longer in opened_there */

    /* Endings: see above. */
    bool local_ended : 1;  /* the application may send nothing more */
    bool end_due : 1;      /* END still to be put, behind what is queued */
    bool abort_due : 1;    /* END ABORT still to be put */
    bool remote_ended : 1; /* the peer sends nothing more */
    bool end_waits : 1;    /* it came before the channel was taken: told behind what is early */
    bool end_told : 1;     /* the application has heard of the end, or never shall */

    /* Sending and receiving. */
    bool blocked : 1;       /* a send was refused: on_writable is owed */
    bool held_back : 1;     /* unix: has a frame in the packet under way that may be taken back */
    bool large_sending : 1; /* counted in session->large_sending */
    bool hold_bytes : 1;    /* beam_stream_hold was called in this on_data */
    bool transcodes : 1;    /* a request whose service has a codec: transcode.c */
    bool withdrawn : 1;     /* who asked waits no more: bm_channel_withdraw() */
    bool dedicate : 1;      /* it may have a stream of its own, where there are such: dedicated.h */

    /* Of a request, at the serving end: here, where each of its messages asks for it. */
    bool handed_over : 1; /* its first message is with the handler, or in session->held */

    /* Flow, in bytes; W1 to W4. */
    int64_t send_credit;
    int64_t recv_credit; /* what the peer has left, as we count it */
    int64_t owed;        /* the application is done with it, CREDIT has not gone yet */

    /* Way out. */
    struct bm_message_queue out; /* taken from the application and not put yet */
    struct bm_list session_node; /* session->channels */
    struct bm_list ready_node;   /* session->ready or large_waiting */
    struct bm_list blocked_node; /* session->blocked; on none while it lacks credit */
    struct bm_list notify_node;  /* core->notify */
    struct bm_list held_node;    /* session->held: a request that waits for its handler */

    /* Received messages that occupy fd credit of the session, or its budget for large ones, give
     * that back when the application is done with them; and the early ones count in early_held until
     * they are told. By then the channel may be gone. */
    beam_session *holds_of;    /* whose it is; NULL: none does, or the session is lost */
    uint32_t holds;            /* how many such messages there are */
    struct bm_list holds_node; /* session->holders */

    /* ETOOMANYREFS: the next try, how long it is waited for, and when to give up (0: no wait). */
    struct bm_timer fd_timer;
    uint64_t fd_retry_ns, fd_give_up_ns;

    /* A message of several frames on its way in; NULL: none. */
    beam_message *incoming;
    uint64_t incoming_left; /* bytes that are to come */
    uint8_t *incoming_pos;  /* where they go */

    /* What came on an attached channel before it was taken out of its message; within its credit. */
    struct bm_message_queue early;

    /* The end we send, and the end the application is told. Texts: blocks of the pool, or NULL. */
    uint32_t end_code, told_code;
    char *end_text, *told_text;
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
    struct bm_list child_node; /* beam_request.children */

    /* Call: the answer, should its status come behind it. Request in session->held: its message. */
    beam_message *reply;
    beam_reply_fn *on_reply;

    struct bm_dedicated *dedicated; /* its stream, undecided or flowing; or NULL */

    struct bm_hop *hop; /* events that are served on another core: forward.c's */

    /* Request: who asks. */
    struct bm_peer peer; /* a copy, which outlives the session */

    /* The end we send, when more than a text is to be said: a map, or NULL. A block of the pool. */
    uint8_t *end_details;
    uint32_t end_details_len, end_details_cap;
};

/* A request, or the events of one name, at the serving end: request.c's. It is its channel, and each
 * channel's block is one; the type of its own keeps the two apart in the application's hands. */
struct beam_request {
    struct beam_channel channel;

    bool in_handler : 1;     /* its handler is running */
    bool event_ended : 1;    /* ... and has ended the event it was called for */
    bool kept : 1;           /* beam_request_keep was called */
    bool answered : 1;       /* beam_reply or beam_fail was called */
    bool cancelled : 1;      /* nobody waits for the answer any more */
    uint32_t kept_events;    /* events of this channel that the application keeps */
    struct bm_list children; /* calls made on its behalf */
    void (*on_cancel)(beam_request *request, void *arg);
    void *on_cancel_arg;

    /* channel.transcodes: what its caller speaks, and the application's handlers of the channel. */
    const struct beam_codec *caller_codec;
    const struct beam_channel_handlers *handlers;
    void *handlers_arg;
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

/* A fresh channel was attached to a message of ours: it is unbound, and has two references, the
 * handle's and the message's. */
void bm_channel_attached(beam_channel *channel);
/* The receiver of a message took it: the message's reference becomes the handle's. */
void bm_channel_taken(beam_channel *channel);
/* The message it is attached to is freed, and its reference with it. Unsent: the handle hears
 * CANCELLED. Received and not taken: the channel is reset. */
void bm_channel_attachment_dropped(beam_channel *channel);

/* Joins a session, which counts it among its channels and refers to it; still without an id. */
void bm_channel_join(beam_channel *channel, beam_session *session);
/* Gets its id, and its place in the session's table, which has room (bm_table_reserve); joins the
 * session if that is still to do. */
void bm_channel_bind(beam_channel *channel, beam_session *session, uint64_t id, bool ours);
/* Takes id and place away again: the frame that opens it did not leave after all. */
void bm_channel_unbind(beam_channel *channel);

/* The end of its life in the session: out of the table, everything queued is dropped, and the
 * session's reference with it. Tells the application nothing. No effect when it is gone. */
void bm_channel_gone(beam_channel *channel);
/* The same if both directions have ended and nothing is left to be put. */
void bm_channel_check_gone(beam_channel *channel);
/* It is gone in the books of the peer, which may open another in its place from now on. One that may have to
 * be taken back out of the packet under way stays until that has left, and only counts no more. */
void bm_channel_gone_for_peer(beam_channel *channel);
/* Its last frame did not leave after all: it counts among the session's channels again. */
void bm_channel_count_again(beam_channel *channel);
/* Its core has ended: whoever still refers to it can only free it. Any thread, once no core
 * runs. */
void bm_channel_orphan(beam_channel *channel);
/* The session is lost: gone, and the application hears it later with this code, or with UNAVAILABLE
 * if the channel surely never reached the peer. */
void bm_channel_lost(beam_channel *channel, enum beam_code code, const char *text);

/* --- flow --- */

/* Whether a message of len bytes with so many fds could be taken now: 0, or the error for its
 * sender (beam_channel_send). After -EAGAIN on_writable follows. */
int bm_channel_may_send(beam_channel *channel, uint64_t len, unsigned fds);
/* Takes a sealed message into the queue and charges its cost to the credit, which was looked at
 * before (an UNPAID one is charged when it goes). */
void bm_channel_enqueue(beam_channel *channel, beam_message *message);
/* Frees what is queued and not yet put. */
void bm_channel_drop_out(beam_channel *channel);
/* Has the session's flush look at this channel. */
void bm_channel_make_ready(beam_channel *channel);

/* Credit goes back to the peer: so many bytes; so many fds that were taken out of a message or
 * closed; all that a message occupies, as the application is done with it. */
void bm_channel_return_credit(beam_channel *channel, int64_t amount);
void bm_channel_fd_done(beam_message *message, unsigned count);
void bm_channel_message_done(beam_message *message);
/* A received message with fds, or a large one, is counted among those that hold something of the
 * session. Its payer is set. */
void bm_channel_message_holds(beam_message *message, beam_session *session);
/* One thing more, or less, of the session's that outlives the channel in it. */
void bm_channel_hold(beam_channel *channel, beam_session *session);
void bm_channel_let_go(beam_channel *channel);

/* --- endings --- */

/* Our direction ends, behind what is queued. text may be NULL. */
void bm_channel_end(beam_channel *channel, uint32_t code, const char *text);
/* Both directions end now, and what is queued is dropped; the peer hears it, unless the channel was
 * never opened. Tells the application nothing. */
void bm_channel_abort(beam_channel *channel, uint32_t code, const char *text);
/* The same with details, a kv map, beside the text. What is none, or too long, is left out. */
void bm_channel_abort_with(beam_channel *channel, uint32_t code, const char *text,
                           const void *details, size_t details_len);
/* Who asks waits for no answer any more, on a session between cores (crossing.h). The service is told as
 * of a cancel, and can send nothing; but the channel stays until it is done with the request, however,
 * which on_end tells. So whoever counts what is asked of a service counts what it works for. Before the
 * first message has left: on_end follows at once, and nothing runs. No effect once it has ended. */
void bm_channel_withdraw(beam_channel *channel);
/* The serving end hears of it. */
void bm_channel_withdrawn(beam_channel *channel);
/* The peer's direction has ended; tells the application (from within a dispatch). */
void bm_channel_remote_end(beam_channel *channel, bool abort, uint32_t code, beam_str text,
                           const void *details, uint32_t details_len);
/* Has the application told of an end later, by the notify task; changes nothing else. */
void bm_channel_end_later(beam_channel *channel, uint32_t code, const char *text);
/* Has the notify task make these callbacks (BM_DUE_…). */
void bm_channel_notify(beam_channel *channel, unsigned due);
/* The notify task's: makes them. */
void bm_channel_run_due(beam_channel *channel);

/* Copies a text, cut to 255 bytes between characters, into a block of the pool that is made when
 * *to is NULL. Without memory, and for no text, *to stays as it is. */
void bm_channel_set_text(struct bm_core *core, char **to, uint32_t *cap, const char *text);

/* --- to whom it belongs: by its kind, to the application or on to call.c and request.c --- */

/* A whole message of the peer, from within a dispatch. Lent, and returned if nobody keeps it.
 * flags: BM_MSG_END when it is the last. */
void bm_channel_deliver(beam_channel *channel, uint8_t flags, beam_message *message);

/* --- call.c --- */
/* An event channel of its own, with handlers and a handle. Errors as beam_call. */
int bm_open_events(beam_session *session, const char *service, beam_message **message,
                   const struct beam_channel_handlers *handlers, void *arg,
                   beam_channel **ret_channel);
/* What somebody without a session here asks for: a visitor. */
struct bm_ask {
    const char *service;
    const struct bm_peer *asker; /* borrowed for the call */
    uint64_t deadline_ns;        /* absolute; UINT64_MAX: none */
};
/* beam_open over a session between cores (crossing.h), on behalf of a visitor and with our direction ended
 * behind the message. Errors as beam_call. */
int bm_open_for(beam_session *session, const struct bm_ask *ask, beam_message **message,
                const struct beam_channel_handlers *handlers, void *arg,
                beam_channel **ret_channel);
/* An answer has come; last: and with it the end, OK. */
void bm_call_deliver(beam_channel *channel, bool last, beam_message *message);
/* The end has come by itself: on_reply runs. */
void bm_call_end(beam_channel *channel, const struct beam_status *status);

/* --- request.c --- */
/* Runs the handler of a request or an event, or hands it on to the core that serves it. The message
 * is lent. */
void bm_request_run(beam_channel *channel, beam_message *message);
/* The last step of it: the message is in the service's codec, and the handler runs here. */
void bm_request_run_handler(beam_channel *channel, beam_message *message);
/* The caller's direction has ended (code OK), or nobody waits for the answer any more. */
void bm_request_peer_end(beam_channel *channel, const struct beam_status *status);
/* The sender of events has aborted their channel, or is lost: those that are kept hear of it. */
void bm_request_events_lost(beam_channel *channel);
/* The answer of a kept request has to wait for something here, and takes so many bytes meanwhile: they count
 * among those of the answers that wait in its session, until the wait is over, however. -ENOBUFS: too many
 * wait. -EPIPE: nobody does for this one. */
int bm_request_wait(beam_request *request, uint64_t len);
void bm_request_wait_over(beam_request *request, uint64_t len);

/* --- deadline and name --- */
/* Absolute, on bm_reactor_now_ns(); UINT64_MAX: none. When it passes, the channel is aborted with
 * DEADLINE_EXCEEDED and the application told. */
void bm_channel_arm_deadline(beam_channel *channel, uint64_t deadline_ns);
/* The name of the service it is opened towards, copied; -ENOMEM. */
int bm_channel_set_name(beam_channel *channel, const char *name, size_t len);

#endif
