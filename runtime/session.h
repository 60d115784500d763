/* A session: one link to one peer, owned by one core. What it knows is the same on every carrier;
 * how frames travel is the carrier's.
 *
 * The way of a message out: beam_channel_send (channel.c) -> bm_outgoing_send, which queues it at
 * its channel -> the channel stands in `ready` -> bm_outgoing_flush, later in the turn, hands
 * frames to the carrier until that is full -> the carrier's commit sends them.
 *
 * The way in: the carrier takes its packets (unix_receive.c, unpacking.c) or slots (ring.c) apart ->
 * bm_incoming_* looks up channel, credit and limits -> bm_channel_deliver -> the handler.
 *
 * All of it on the core's thread. */
#ifndef BM_SESSION_H
#define BM_SESSION_H

#include <stdatomic.h>

#include <beam/beam.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/list.h"
#include "runtime/frame.h"
#include "runtime/hello.h"
#include "runtime/peer.h"
#include "runtime/table.h"
#include "uring/reactor.h"

struct bm_core;
struct bm_service;

#define BM_LARGE_SENDING_MAX 2u /* messages of several frames under way; docs/spec/session.md W5 */
#define BM_DETAILS_LEN_MAX 320u /* of an END we write: a text of 255 bytes in a kv map */

enum bm_session_state {
    BM_SESSION_CONNECTING, /* carrier not up yet */
    BM_SESSION_OPEN,       /* frames flow; the peer's HELLO may still be missing */
    BM_SESSION_CLOSED,     /* no frame will pass any more */
};

/* A carrier takes frames and delivers them. All on the session's core, and in every state in which
 * the session has not been freed, but for begin and put_*, which need it OPEN. put_* return false
 * when there is no room now, or no memory; the carrier then has the session flushed once there is.
 * What they are given is borrowed, if they do not say otherwise. */
struct bm_carrier {
    /* A message of a session with nothing in line is put when it is sent, not at the end of the
     * turn; and no message is too large for one put_message. */
    bool immediate;
    /* Passes no descriptors: they go as channels (pumped_fds.h), and frames say more of those. */
    bool pumps_fds;
    /* May frames be put now? Called first in every flush. */
    bool (*begin)(beam_session *session);
    /* For a carrier of bytes, whose other slots are those of packing.h: `len` bytes (a multiple of 8) behind
     * what was put, 8-aligned, which are written at once. NULL: there is no room. */
    uint8_t *(*room)(beam_session *session, uint32_t len);
    bool (*put_hello)(beam_session *session);
    /* One message, or the next frame of a large one. BM_PUT_FULL: nothing done. BM_PUT_PART: a frame
     * went, the message stays the channel's and is put again. BM_PUT_DONE: it has gone whole, and
     * is the carrier's. */
    int (*put_message)(beam_session *session, beam_channel *channel, beam_message *message);
    bool (*put_end)(beam_session *session, uint64_t id, uint8_t flags,
                    const struct bm_frame_end *end);
    /* CREDIT or PING. */
    bool (*put_u64)(beam_session *session, enum bm_frame_kind kind, uint8_t flags, uint64_t id,
                    uint64_t value);
    bool (*put_goaway)(beam_session *session, const struct bm_frame_goaway *goaway);
    /* A message that is a body alone, copied. false also when it is too long for this way. The slot
     * is NULL where it would gain nothing. */
    bool (*put_body)(beam_session *session, beam_channel *channel, const void *body, size_t len);
    /* Channels of bytes may have streams of their own (dedicated.h); NULL: never. Now? */
    bool (*dedicates)(const beam_session *session);
    /* One that is undecided has a token, borrowed for the call. true: it is looked after, until a stream
     * joins it or is declined, or it is over. false: there will be none. NULL as that. */
    bool (*dedicate)(beam_session *session, beam_channel *channel, const uint8_t *token);
    /* Sends what was put. */
    void (*commit)(beam_session *session);
    /* The session has failed, and abort follows: its GOAWAY goes if it can go at once. */
    void (*farewell)(beam_session *session);
    /* Nothing more will be put: what was put leaves, then the session is lost with OK. */
    void (*shut)(beam_session *session);
    /* Before the channels of a session that ends hear of it: marks those (never_left) whose opening frame
     * was put and has surely not left, and drops what has not. NULL: the carrier sees to it itself. */
    void (*unsent)(beam_session *session);
    /* The session is CLOSED: ends the link. Gives up the carrier's reference once no op and no peer
     * knows the session. */
    void (*abort)(beam_session *session);
    /* The last reference is gone: frees the carrier's memory, and with it the session's. Any thread
     * when the session is an orphan. */
    void (*free)(beam_session *session);
    /* How many bytes that is just now. */
    size_t (*memory)(const beam_session *session);
    /* beam_session_peer_pidfd; NULL: -ENOTSUP. */
    int (*peer_pidfd)(const beam_session *session);
};

enum { BM_PUT_FULL, BM_PUT_PART, BM_PUT_DONE };

struct beam_session {
    struct bm_core *core;
    const struct bm_carrier *carrier;
    struct bm_list node; /* the core's sessions */
    struct bm_account account;
    unsigned refs; /* the carrier's, the handle's, and one for each dispatch and each notice */
    uint8_t state; /* enum bm_session_state */
    bool opener;   /* else the acceptor */
    bool inner; /* between two cores, for services of one: who asks was limited where he came in */
    bool hello_sent, hello_received;
    bool draining;         /* we have asked for the end */
    bool peer_draining;    /* the peer has */
    uint64_t peer_last_id; /* ... and serves ours up to here: the highest there was of them */
    bool goaway_due, goaway_sent;
    bool shut;   /* the carrier's shut was called */
    bool handle; /* the application holds the session, and is told what happens */
    /* Its core has ended, and only the memory is left for the handle to free; release, acquire. */
    _Atomic bool orphan;

    /* What the notify task is to tell the application. */
    bool writable_due;
    bool unblock_due; /* not told: bm_session_unblock is to run */
    bool open_due;
    bool draining_due;
    bool closed_due;
    struct bm_list notify_node; /* core->notify_sessions */

    /* Those who were refused (-EAGAIN). Messages on a channel wait as that channel: in `blocked`, which
     * every flush walks, or on no list while the channel lacks credit of its own, which CREDIT alone
     * can bring. Calls and opens have no channel yet: they want the session's on_writable. */
    struct bm_list callers;               /* calls of foreign threads that wait for it: wait.c */
    struct bm_list blocked;               /* channels that wait for the queue, fds or channels */
    bool want_channels;                   /* one of them waits for room for attached channels */
    bool want_writable;                   /* a call or an open waits */
    uint16_t wanted_fds, wanted_channels; /* ... the least that one of them needs */

    /* Channels. */
    struct bm_table table;   /* by id: those that are open */
    struct bm_list channels; /* all that belong to the session */
    uint64_t next_id;        /* the next one we give */
    uint64_t last_peer_id;   /* the highest the peer has given */
    uint32_t opened_here;    /* ours that are not gone; at most peer_channels_max */
    uint32_t opened_there;   /* the peer's; at most limits.channels_max, or the early ones */
    struct bm_list events;   /* our event channels, by name */

    /* Way out. */
    struct bm_list ready; /* channels with frames to send */
    struct bm_list
        large_waiting;      /* ... whose next message is large, while too many are under way */
    unsigned large_sending; /* large messages under way; BM_LARGE_SENDING_MAX */
    uint64_t queue_len;     /* cost of the messages accepted and not yet put, bytes */
    uint64_t early_len;     /* length of those accepted before the peer's HELLO, bytes */
    struct bm_task flush_task;
    bool pong_due;
    uint64_t pong_token;
    bool ping_due;
    uint64_t ping_sent_ns;                   /* also the token of our PING */
    void (*ping_fn)(uint64_t ns, void *arg); /* NULL: none under way */
    void *ping_arg;
    struct bm_frame_goaway goaway; /* when goaway_due; its details are made when it is put */

    /* fds to the peer. */
    int64_t fd_credit; /* how many it takes from us now */
    bool fds_refused;  /* ... none, ever */

    /* fds to us. fds_granted = under way or with the application + fds_owed + fds_recv_credit. */
    uint32_t fds_granted;    /* how many the peer may have in all: at first our HELLO's */
    int64_t fds_recv_credit; /* how many more it may send */
    uint32_t fds_owed;       /* the application is done with them, CREDIT has not gone yet */
    uint32_t fds_reserved;   /* our share of the process's budget: fd_budget.c */
    uint64_t fds_turn;       /* ... in which it last got something of the rest: fd_budget.h */
    struct bm_list fds_node; /* core->fds_waiting, while that is less than limits.fds_max */

    /* Way in. */
    struct bm_list held;      /* requests that wait for their handler, as the queue out is full */
    struct bm_list holders;   /* channels of messages that hold fd credit or a large body */
    uint64_t large_held;      /* bytes of large messages the application is not done with */
    uint64_t answers_held;    /* memory of answers that wait for something, as a disk: request.c */
    uint64_t early_held;      /* memory of messages that wait for somebody to take their channel */
    double abort_tokens;      /* C6: a bucket, filled with limits.aborts_per_s */
    uint64_t abort_refill_ns; /* when that was last done */

    /* The peer. What it has told in HELLO; the early limits (H3) before. */
    struct bm_peer peer;
    bool user_counted; /* we count as a session of this user, until we are closed */
    uint32_t user;
    char peer_name[256];
    uint32_t peer_window, peer_channels_max, peer_message_len_max, peer_fds_max;

    struct beam_limits limits;   /* ours */
    uint16_t ping_s;             /* our HELLO asks for a sign of life so often; 0: not */
    struct bm_timer hello_timer; /* until the peer's HELLO has come */
    const struct beam_session_handlers *handlers;
    void *arg;

    /* How it ended. */
    enum beam_code close_code;
    char close_text[256];
    int error;         /* the session error, or 0 */
    int connect_error; /* -errno of a connection that failed, or 0 */
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

/* --- room: for those who send --- */

/* Whether the session can take a message, or bytes of a stream, of this length with so many fds: 0,
 * -EAGAIN, -EMSGSIZE (a message longer than the peer ever takes), -EPERM (it takes no fds), -EPIPE (the
 * session has ended). The credit of the channel is not looked at. */
int bm_session_may_take(const beam_session *session, uint64_t len, unsigned fds, bool stream);

/* A message was refused (-EAGAIN) for what it needs, credit of its channel included: the channel's
 * on_writable follows when that is there. */
void bm_session_block(beam_session *session, beam_channel *channel, unsigned fds,
                      unsigned channels);
/* The channel's credit has grown: what it waits with goes on, or waits in `blocked` for the rest. */
void bm_session_credited(beam_session *session, beam_channel *channel);
/* A call or an open was refused: the session's on_writable follows when there is room for what it
 * needs. */
void bm_session_wants_writable(beam_session *session, unsigned fds, unsigned channels);
/* There may be room: the queue has become shorter, credit has come, a channel has gone. All who
 * were refused and can go on now are told, later. */
void bm_session_unblock(beam_session *session);
/* The same, once for all frames of this turn: it looks at everybody who was refused. */
void bm_session_unblock_later(beam_session *session);
/* Has the session's on_writable run, later, if a call or an open waits for it. */
void bm_session_writable(beam_session *session);

/* There may be room, or there will be none any more: the blocking calls of foreign threads that wait for
 * it go on, or end. Runs nothing of the application. wait.c */
void bm_callers_go_on(beam_session *session);

/* --- what the application is told --- */

/* The peer's HELLO has come. */
void bm_session_opened(beam_session *session);
/* The peer has said that it takes no more requests. */
void bm_session_peer_drains(beam_session *session);
/* Runs the callbacks that are due; from the core's notify task, whose reference it drops. */
void bm_session_run_due(beam_session *session);

/* Its core ends: what is left is a handle, to be given back on any thread. */
void bm_session_orphan(beam_session *session);
static inline bool bm_session_is_orphan(const beam_session *session)
{
    return atomic_load_explicit(&session->orphan, memory_order_acquire);
}

/* --- credit and frames of the session itself --- */

/* The credit that a channel of ours starts with, in bytes. */
static inline int64_t bm_session_send_window(const beam_session *session)
{
    return session->hello_received ? session->peer_window : BM_WINDOW_MIN;
}

/* fds of a message that was taken and never left: its fd credit is ours again. */
void bm_session_take_back_fds(beam_session *session, unsigned count);
/* fds of the peer that the application has taken or closed, or that were refused: their credit goes
 * back to it. */
void bm_session_return_fds(beam_session *session, unsigned count);

/* Something of the process's budget of fds has come back: of a core's sessions that were granted too few
 * one gets of it, and the line goes on. */
void bm_session_share_fds(struct bm_core *core);

/* Whether what is owed should go to the peer now, which could run dry otherwise. */
bool bm_session_fds_are_due(const beam_session *session);
/* Gives a GOAWAY its details, which are written into out (BM_DETAILS_LEN_MAX bytes, 8-aligned): the name
 * of the error if the session has failed, else none. */
void bm_session_explain(const beam_session *session, struct bm_frame_goaway *goaway, void *out);

/* The HELLO we send. */
void bm_session_hello(const beam_session *session, struct bm_hello *ret_hello);

void bm_session_set_handlers(beam_session *session, const struct beam_session_handlers *handlers,
                             void *arg);

/* --- way out: outgoing.c --- */

/* Hands what is to be sent to the carrier, until nothing is left or that is full. */
void bm_outgoing_flush(beam_session *session);
/* Readies a sealed message for sending on a channel: what it holds from having been received is
 * given back, and the channels attached to it join the session. -EAGAIN: no room for those,
 * on_writable follows;
 * -EMSGSIZE: more than the peer ever takes; -EINVAL, as bm_message_make_ours(); -ENOMEM. */
int bm_outgoing_admit(beam_channel *channel, beam_message *message);
/* Takes an admitted message: straight to an idle carrier that can, else into the channel's
 * queue. */
void bm_outgoing_send(beam_channel *channel, beam_message *message);
/* A body alone, straight to the carrier; false when it must go the other way. */
bool bm_outgoing_send_body(beam_channel *channel, const void *body, size_t len);
/* For carriers, once a message surely goes: ids for its channel and the attached ones. */
void bm_outgoing_bind(beam_session *session, beam_channel *channel, beam_message *message);
/* One of the large messages under way has gone. */
void bm_outgoing_large_gone(beam_session *session);

/* --- way in: incoming.c. Called by the carrier, which holds a reference to the session. false: the
 * session has ended, and what lies behind is not to be looked at. --- */

bool bm_incoming_hello(beam_session *session, const struct bm_hello *hello);

/* What the first (or only) frame of a message says besides the message. */
struct bm_incoming_message {
    uint64_t id;      /* of the channel */
    uint8_t flags;    /* BM_MSG_… */
    bool fds_missing; /* MSG_CTRUNC took some of its fds, or there was no memory for them */
    bool large;       /* more frames follow */
    uint64_t total;   /* large: length of the whole body, as the peer says */
    /* If it opens the channel: */
    bool open;
    bool service_known; /* ring: the sender has looked `service` up (NULL: there is none) */
    const struct bm_service *service;
    beam_str name; /* else: to be looked up */
    uint8_t depth;
    uint64_t deadline_ns;        /* absolute; UINT64_MAX: none, also if it opens nothing */
    const struct bm_peer *asker; /* ring: on whose behalf, when a hop passes it on; or NULL */
};

/* message has metadata, the body or its first part, fds, and attached channels with id and mode
 * alone. A view (a large one always is) or a whole message; consumed either way. */
bool bm_incoming_message(beam_session *session, const struct bm_incoming_message *in,
                         beam_message *message);
/* A message without attachments that neither opens nor ends anything, on a carrier that can tell: the
 * short way. Consumed. */
bool bm_incoming_plain(beam_session *session, uint64_t id, beam_message *view);
/* A later frame of a large message, or bytes of a byte-mode channel. */
bool bm_incoming_bytes(beam_session *session, beam_channel *channel, uint8_t flags,
                       const uint8_t *bytes, uint32_t len);
bool bm_incoming_end(beam_session *session, uint64_t id, uint8_t flags,
                     const struct bm_frame_end *end);
bool bm_incoming_credit(beam_session *session, uint64_t id, uint64_t amount);
bool bm_incoming_ping(beam_session *session, uint8_t flags, uint64_t token);
bool bm_incoming_goaway(beam_session *session, const struct bm_frame_goaway *goaway);

/* If the queue out has room again, the requests in session->held are served. From the notify
 * task. */
void bm_incoming_release_held(beam_session *session);

/* For carriers, to know what a frame is: the open channel of an id, or NULL. */
beam_channel *bm_incoming_find(beam_session *session, uint64_t id);
/* Whether the next MSG on this channel carries bytes alone (byte mode, or a message under way). */
bool bm_incoming_expects_bytes(const beam_channel *channel);
/* An id that stands or stood for a channel: what comes for it is dropped, not an error. */
bool bm_incoming_was_given(const beam_session *session, uint64_t id);

#endif
