/* A channel's own stream: a request of HTTP/2 beside its session's, whose two bodies are the channel's bytes
 * in chunks (docs/spec/http.md section 4). Both roles. All on the session's core. */
#ifndef BM_DEDICATED_STREAM_H
#define BM_DEDICATED_STREAM_H

#include "base/clock.h"
#include "net/base64url.h"
#include "net/chunk.h"
#include "net/net_session.h"
#include "runtime/attached_about.h"
#include "runtime/dedicated.h"
#include "uring/reactor.h"

#define BM_DEDICATED_STREAMS_MAX 64u                    /* D7, of a session */
#define BM_DEDICATED_ANSWER_NS (3 * BM_NS_PER_S)        /* D6 */
#define BM_DEDICATED_GO_NS (10 * BM_NS_PER_S)           /* D6 */
#define BM_DEDICATED_ALIVE_NS (20 * BM_NS_PER_S)        /* D7 */
#define BM_DEDICATED_LINGER_NS BM_NET_SESSION_LINGER_NS /* from its last word to its end */

enum bm_dedicated_stream_state {
    BM_DEDICATED_OFFERED, /* there is a token, and no request */
    BM_DEDICATED_PARKED, /* server: a request has overtaken the message that attaches its channel */
    BM_DEDICATED_ASKED,  /* client: no answer yet */
    BM_DEDICATED_ANSWERED, /* server: 200, and no GO yet */
    BM_DEDICATED_GONE,     /* GO: it flows */
    BM_DEDICATED_LEFT,     /* no channel any more; the exchange ends */
};

struct bm_dedicated_stream {
    struct bm_dedicated way;
    struct bm_core *core;
    struct bm_net_session *ns; /* NULL: LEFT */
    struct bm_list node;       /* ns->streams */
    uint8_t state;             /* enum bm_dedicated_stream_state */
    bool go_due, alive_due;
    bool ending;              /* our last chunk is in `waiting` */
    bool said_end, heard_end; /* ... and was given to the exchange; the peer's END has come */
    bool give_up;             /* LEFT: our body ends without a word */
    uint64_t id;              /* of the channel */
    uint8_t token[BM_TOKEN_LEN];
    char asked[BM_BASE64URL_128_LEN + 1]; /* PARKED: the token of the request */
    struct bm_exchange *exchange;         /* NULL: none yet, or it has closed */
    size_t held;                          /* bytes that the application has and is not done with */
    uint64_t said_ns;
    struct bm_chunk_reader reader;
    uint8_t waiting[32]; /* what stood before less room than it needs */
    uint8_t waiting_len, waiting_at;
    struct bm_timer timer; /* what for, the state says */
    struct bm_task task;   /* client: OFFERED */
};

/* The slots of struct bm_carrier. */
bool bm_dedicated_stream_can(const beam_session *session);
bool bm_dedicated_stream_begin(beam_session *session, beam_channel *channel, const uint8_t *token);

/* The session has ended, its channels with it: what is left of its streams ends too. */
void bm_dedicated_stream_session_over(struct bm_net_session *ns);

#endif
