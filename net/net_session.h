/* A session over an exchange of HTTP (docs/spec/http.md sections 2 and 5): its frames are the two bodies, or
 * the messages of a WebSocket inside them. Both roles. All on its core's thread. */
#ifndef BM_NET_SESSION_H
#define BM_NET_SESSION_H

#include "net/exchange.h"
#include "net/frame_outbox.h"
#include "net/websocket_pipe.h"
#include "runtime/session.h"
#include "uring/timer.h"

#define BM_NET_SESSION_WINDOW (4u << 20) /* docs/spec/http.md S7 */
#define BM_NET_SESSION_PING_S 20u /* S6: what we ask for, and what is asked by who says nothing */
#define BM_NET_SESSION_PINGS_MISSED 3u   /* S6 */
#define BM_NET_SESSION_ID_LEN 22u        /* S2: 128 bits in base64url */
#define BM_NET_SESSION_OUTPUT_MAX 65536u /* ours: bytes that wait when no more frames are put */
#define BM_NET_SESSION_LINGER_NS (5 * BM_NS_PER_S) /* ours: from our end to the peer's */

struct bm_net_session;

/* Who looks for a way while there is none: the client. Each may be NULL. Called from an exchange's handlers,
 * in which it may not be detached. */
struct bm_net_session_owner {
    /* The answer to its request; called before any byte of the peer. 0: it is good, and frames flow. Else
     * the exchange is left alone from now on, and the owner goes on as after on_lost. */
    int (*on_answer)(struct bm_net_session *ns, unsigned status, const struct bm_field *fields,
                     size_t field_count, void *arg);
    /* The exchange has ended before the peer's HELLO has come. true: another way is tried; else the session
     * is lost. */
    bool (*on_lost)(struct bm_net_session *ns, int error, void *arg);
    /* The peer's HELLO is here: this way it is. */
    void (*on_open)(struct bm_net_session *ns, void *arg);
    /* Makes a request beside the session's, with a body and whatever its way asks for; path is what stands
     * behind the prefix. Errors as bm_connection_ask. NULL: there are none. */
    int (*ask)(struct bm_net_session *ns, const char *path, const struct bm_field *fields,
               size_t field_count, const struct bm_exchange_handlers *handlers, void *handlers_arg,
               struct bm_exchange **ret_exchange, void *arg);
    /* The session has ended, and its exchange is ending. The owner is not called again, and lets go of the
     * session (bm_session_unref) when it has put its own things away. */
    void (*on_over)(struct bm_net_session *ns, void *arg);
};

struct bm_net_session {
    beam_session session;
    struct bm_exchange *exchange; /* NULL: none yet, or it has closed */
    bool websocket;
    struct bm_websocket_pipe pipe;
    struct bm_frame_outbox out;

    bool answered;  /* bytes may flow: from the start, but for a client over WebSocket */
    bool full;      /* a frame found no room */
    bool shut;      /* what was put leaves, then our direction ends, and with it the session */
    bool farewell;  /* the session has failed: what was put leaves, its GOAWAY last */
    bool closing;   /* abort was called */
    bool said_end;  /* our direction has ended */
    bool heard_end; /* the peer's has */

    /* A frame that is not whole yet. */
    uint8_t cut_head[BM_FRAME_HEADER_LEN];
    uint8_t *cut; /* once its length is known; from the core's pool */
    uint32_t cut_cap, cut_total, cut_len;

    uint32_t peer_ping_s;       /* the peer wants to hear something so often */
    uint64_t said_ns, heard_ns; /* when something last left, and came */
    struct bm_timer life_timer;
    struct bm_timer linger_timer; /* the end takes too long */
    struct bm_timer memory_timer; /* there was no memory for a frame */

    const struct bm_net_session_owner *owner;
    void *owner_arg;

    /* Streams beside it: dedicated_stream.h. */
    char id[BM_NET_SESSION_ID_LEN + 1]; /* what the server calls it; "": not known */
    struct bm_list streams;             /* those that are not on their own yet */
    bool streams_refused;               /* client: the server, or the way to it, has none */
};

static inline struct bm_net_session *bm_net_session_of(beam_session *session)
{
    return bm_container_of(session, struct bm_net_session, session);
}

/* CONNECTING. -ENOMEM. */
int bm_net_session_new(struct bm_core *core, bool opener, struct bm_net_session **ret_ns);

/* A server's session of this core by its id, BM_NET_SESSION_ID_LEN bytes; NULL: there is none. */
struct bm_net_session *bm_net_session_find(struct bm_core *core, const char *id);

/* What an exchange that carries a session calls; its arg is the struct bm_net_session. */
extern const struct bm_exchange_handlers bm_net_session_handlers;

/* From now on its frames go over this exchange, whose handlers are those above: the session is up. A client
 * that has tried another exchange begins anew; the peer's HELLO has not come. From here on the exchange has a
 * reference to the session, until it is closed. -ENOMEM: it carries nothing, and is to be reset. */
int bm_net_session_attach(struct bm_net_session *ns, struct bm_exchange *exchange, bool websocket);
/* Lets go of an exchange over which no HELLO has come. */
void bm_net_session_detach(struct bm_net_session *ns);

#endif
