/* A session: one link to one peer, owned by one core. What it knows is the same on every carrier;
 * how frames travel is the carrier's.
 *
 * Way out: channels with something to say stand in `ready`; bm_outgoing_flush() walks them and hands
 * frames to the carrier until that is full. Way in: the carrier takes its bytes or slots apart and
 * calls the bm_incoming_* functions. */
#ifndef BM_SESSION_H
#define BM_SESSION_H

#include <stdatomic.h>

#include <beam/beam.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/list.h"
#include "runtime/frame.h"
#include "runtime/hello.h"
#include "runtime/table.h"
#include "uring/reactor.h"

struct bm_core;
struct bm_service;

#define BM_LARGE_SENDING_MAX 2u /* docs/spec/session.md W5 */
#define BM_DETAILS_LEN_MAX 320u /* of an END we write: a text of 255 bytes in a kv map */

enum bm_session_state {
    BM_SESSION_CONNECTING, /* carrier not up yet */
    BM_SESSION_OPEN,       /* frames flow; the peer's HELLO may still be missing */
    BM_SESSION_CLOSED,     /* no frame will pass any more */
};

/* A carrier takes frames and delivers them. All on the session's core. put_* return false when there
 * is no room now; the carrier then calls bm_session_flush() once there is. */
struct bm_carrier {
    const char *name;
    bool immediate; /* an idle session's message is put at once, not at the end of the turn */
    /* May frames be put now? Called first in every flush. */
    bool (*begin)(beam_session *session);
    bool (*put_hello)(beam_session *session);
    /* One message, or the next frame of a large one; consumed when it has gone whole.
     * BM_PUT_FULL: nothing done; BM_PUT_PART: a frame went, more are to come; BM_PUT_DONE: gone,
     * the message is the carrier's. */
    int (*put_message)(beam_session *session, beam_channel *channel, beam_message *message);
    bool (*put_end)(beam_session *session, uint64_t id, uint8_t flags,
                    const struct bm_frame_end *end);
    bool (*put_u64)(beam_session *session, enum bm_frame_kind kind, uint8_t flags, uint64_t id,
                    uint64_t value);
    bool (*put_goaway)(beam_session *session, const struct bm_frame_goaway *goaway);
    /* Puts a body without metadata at once, when nothing is queued; NULL where that gains nothing. */
    bool (*put_body)(beam_session *session, beam_channel *channel, const void *body, size_t len);
    /* Sends what was put. */
    void (*commit)(beam_session *session);
    /* The session has failed: one last GOAWAY goes if it can go at once. */
    void (*farewell)(beam_session *session);
    /* Nothing more will be put: let what was put leave, then end the link. */
    void (*shut)(beam_session *session);
    /* End the link now. Both end with bm_session_unref() once no op and no peer knows the session. */
    void (*abort)(beam_session *session);
    void (*free)(beam_session *session);           /* the carrier's own memory, and the session's */
    size_t (*memory)(const beam_session *session); /* how much that is just now */
};

enum { BM_PUT_FULL, BM_PUT_PART, BM_PUT_DONE };

struct beam_session {
    struct bm_core *core;
    const struct bm_carrier *carrier;
    struct bm_list node; /* the core's sessions */
    struct bm_account account;
    unsigned refs; /* the carrier's, the handle's, and each dispatch under way */
    uint8_t state;
    bool opener;
    bool inner; /* between two cores, for services of one: who asks was limited where he came in */
    bool hello_sent, hello_received;
    bool draining;         /* we have asked for the end */
    bool peer_draining;    /* the peer has */
    uint64_t peer_last_id; /* ... and serves ours up to here: the highest there was of them */
    bool handle;           /* somebody holds the result of beam_connect */
    bool want_writable;
    bool want_channels; /* a message was refused for the channels attached to it */
    uint16_t wanted_fds, wanted_channels; /* the least that a refused call needs */
    bool writable_due;
    bool unblock_due;
    bool open_due;
    bool closed_due;
    bool goaway_due, goaway_sent;
    bool shut;
    _Atomic bool
        orphan; /* its core has ended, only the handle's memory is left; release, acquire */

    /* Channels. */
    struct bm_table table;
    struct bm_list channels;
    uint64_t next_id;      /* the next one we give */
    uint64_t last_peer_id; /* the highest the peer has given */
    uint32_t opened_here;  /* ours that are not gone; the peer's limit */
    uint32_t opened_there; /* the peer's; our limit */
    struct bm_list events; /* our event channels, by name */

    /* Way out. */
    struct bm_list ready; /* channels with frames to send */
    struct bm_list
        large_waiting; /* channels whose next message is large, while two are under way */
    unsigned large_sending;
    uint64_t queue_len; /* bytes of messages accepted and not yet put */
    uint64_t early_len; /* bytes accepted before the peer's HELLO */
    struct bm_task flush_task;
    struct bm_list blocked; /* channels that were refused and wait for the queue or fd credit */
    uint64_t pong_token;
    bool pong_due;
    uint64_t ping_sent_ns; /* 0: none under way */
    bool ping_due;
    void (*ping_fn)(uint64_t ns, void *arg);
    void *ping_arg;
    struct bm_frame_goaway goaway;

    /* fds. */
    int64_t fd_credit;       /* how many the peer takes from us now */
    bool fds_refused;        /* ... none, ever */
    uint32_t fds_granted;    /* how many the peer may have under way to us: our HELLO's */
    int64_t fds_recv_credit; /* of those, not used */
    uint32_t fds_owed;       /* to be given back with CREDIT on channel 0 */
    uint32_t fds_reserved;   /* share of the process's budget */

    /* Way in. */
    struct bm_list holders; /* channels with messages that hold something of ours */
    uint64_t large_held;    /* large messages the application is not done with */
    uint64_t early_held;    /* memory of messages that wait for somebody to take their channel */
    struct bm_list held;    /* requests not yet delivered because the queue out is over its limit */
    double abort_tokens;
    uint64_t abort_refill_ns;

    char peer_name[256];
    uint32_t peer_window, peer_channels_max, peer_message_len_max, peer_fds_max;
    struct beam_peer peer;
    struct beam_limits limits;

    struct bm_timer hello_timer;
    struct bm_timer fds_timer; /* the grant is less than it may be */
    const struct beam_session_handlers *handlers;
    void *arg;
    struct bm_list notify_node;
    enum beam_code close_code;
    int error;         /* the session error that ended it, or 0 */
    int connect_error; /* -errno of a connection that failed */
    char close_text[256];
};

/* Fills in what is common to all carriers; the carrier has one reference afterwards. */
void bm_session_init(beam_session *session, struct bm_core *core, const struct bm_carrier *carrier,
                     bool opener);
static inline beam_session *bm_session_ref(beam_session *session)
{
    session->refs++;
    return session;
}
/* The last reference is gone. */
void bm_session_dispose(beam_session *session);
/* Of a closed session nothing is left but the handle, for which a stop does not wait. */
void bm_session_is_handle_alone(beam_session *session);
static inline void bm_session_unref(beam_session *session)
{
    bm_assert(session->refs > 0);
    if (--session->refs == 0)
        bm_session_dispose(session);
    else if (session->refs == 1 && session->handle && session->state == BM_SESSION_CLOSED)
        bm_session_is_handle_alone(session);
}

/* The carrier is up: HELLO may go. */
void bm_session_up(beam_session *session);

/* Whether a flush would find anything to put. */
bool bm_session_has_output(const beam_session *session);
/* There is something to send: flush later in this turn. */
void bm_session_want_flush(beam_session *session);

/* The carrier is gone, or we end it: every channel ends, handlers hear of it. Idempotent. */
void bm_session_lost(beam_session *session, enum beam_code code, const char *text);

/* A session error: GOAWAY with its name, then the end. docs/spec/session.md F4. */
void bm_session_fail(beam_session *session, int error);

/* Ends the carrier when draining and nothing is left. */
void bm_session_check_drained(beam_session *session);

/* Whether the session can take a message, or bytes of a stream, of this length: 0, -EAGAIN, -EMSGSIZE
 * (over the peer's limit), -EPERM (it takes no fds), -EPIPE. Credit of the channel is not looked at. */
int bm_session_may_take(const beam_session *session, uint64_t len, unsigned fds, bool stream);

/* Bytes left the queue, or an fd credit came: whoever was refused may try again. */
void bm_session_unblock(beam_session *session);
/* The same, once for all frames of this turn: it looks at everybody who was refused. */
void bm_session_unblock_later(beam_session *session);
/* The session's own on_writable, if a call of its was refused. */
void bm_session_writable(beam_session *session);
/* Runs the callbacks that are due; from the core's notify task, whose reference it drops. */
void bm_session_run_due(beam_session *session);
static inline bool bm_session_is_orphan(const beam_session *session)
{
    return atomic_load_explicit(&session->orphan, memory_order_acquire);
}
/* Its core ends: what is left is a handle, to be given back on any thread. */
void bm_session_orphan(beam_session *session);
/* The peer's HELLO has come. */
void bm_session_opened(beam_session *session);
void bm_session_block(beam_session *session, beam_channel *channel, unsigned fds,
                      unsigned channels);
/* Whether what it was refused for is there now. */
bool bm_session_can_go_on(const beam_session *session, const beam_channel *channel);
/* A call or an open was refused: on_writable follows when there is room, and credit for its fds. */
void bm_session_wants_writable(beam_session *session, unsigned fds, unsigned channels);

/* What we may send: W and limits of the peer, or the early ones until its HELLO has come. */
static inline int64_t bm_session_send_window(const beam_session *session)
{
    return session->hello_received ? session->peer_window : BM_WINDOW_MIN;
}

/* fds of a message that was taken and never left: its fd credit is ours again. */
void bm_session_take_back_fds(beam_session *session, unsigned count);
/* fd credits the application has given back. */
void bm_session_return_fds(beam_session *session, unsigned count);

/* Whether what is owed should go to the peer now: it could run dry otherwise. */
bool bm_session_fds_are_due(const beam_session *session);
/* The details of the GOAWAY that is due; its length. */
uint32_t bm_session_goaway_details(const beam_session *session, void *out, size_t cap);

/* The HELLO we send. */
void bm_session_hello(const beam_session *session, struct bm_hello *ret_hello);

/* Options of sessions made by this runtime. */
void bm_session_set_handlers(beam_session *session, const struct beam_session_handlers *handlers,
                             void *arg);

/* --- way out: outgoing.c --- */
void bm_outgoing_flush(beam_session *session);
/* Whether the channels attached to a message may be opened; they join the session. -EAGAIN, -ENOMEM. */
int bm_outgoing_admit(beam_channel *channel, beam_message *message);
/* Takes an admitted message: straight to an idle carrier that can, else into the channel's queue. */
void bm_outgoing_send(beam_channel *channel, beam_message *message);
/* A body alone, straight to the carrier; false when it must go the other way. */
bool bm_outgoing_send_body(beam_channel *channel, const void *body, size_t len);
/* For carriers, once a message surely goes: ids for its channel and the attached ones. */
void bm_outgoing_bind(beam_session *session, beam_channel *channel, beam_message *message);
/* One of the large messages under way has gone. */
void bm_outgoing_large_gone(beam_session *session);

/* --- way in: incoming.c. The carrier holds a reference during these calls. false: the session has
 * ended, look at nothing more. --- */
bool bm_incoming_hello(beam_session *session, const struct bm_hello *hello);
/* First (or only) frame of a message. message has metadata, the first part of its body, fds and
 * attached entries (ids, modes). open: name, depth, deadline. For a large one, total is its whole
 * body length and message is a view. */
struct bm_incoming_message {
    uint64_t id;
    uint8_t flags;
    bool open;
    uint8_t depth;
    bool large;
    uint64_t total;
    beam_str name;
    const struct bm_service *service; /* ring: resolved by the sender; else NULL */
    bool service_known;
    const struct beam_peer *asker; /* ring: on whose behalf, when a hop passes it on; or NULL */
    uint64_t deadline_ns;          /* absolute; UINT64_MAX: none */
    bool fds_missing;              /* MSG_CTRUNC took some of its fds */
};
bool bm_incoming_message(beam_session *session, const struct bm_incoming_message *in,
                         beam_message *message);
/* A message that is a body alone, on a carrier that marks those: the short way. */
bool bm_incoming_body(beam_session *session, uint64_t id, const void *body, uint32_t len);
/* A later frame of a large message, or bytes of a byte-mode channel. */
bool bm_incoming_bytes(beam_session *session, beam_channel *channel, uint8_t flags,
                       const uint8_t *bytes, uint32_t len);
bool bm_incoming_end(beam_session *session, uint64_t id, uint8_t flags,
                     const struct bm_frame_end *end);
bool bm_incoming_credit(beam_session *session, uint64_t id, uint64_t amount);
bool bm_incoming_ping(beam_session *session, uint8_t flags, uint64_t token);
bool bm_incoming_goaway(beam_session *session, const struct bm_frame_goaway *goaway);

/* The queue out has room again: requests that were held back are served. */
void bm_incoming_release_held(beam_session *session);
/* Whether the next MSG on this channel carries bytes alone (byte mode, or a message under way). */
beam_channel *bm_incoming_find(beam_session *session, uint64_t id);
bool bm_incoming_expects_bytes(const beam_channel *channel);
/* An id that stands or stood for a channel: what comes for it is dropped, not an error. */
bool bm_incoming_was_given(const beam_session *session, uint64_t id);

#endif
