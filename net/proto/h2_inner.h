/* A connection and its streams as the files of the engine share them:
 *
 *   h2.c         what is said to nghttp2 and what it says; nobody else calls it h2_stream.c  a
 *   stream: what it may still do, and its end h2_life.c    the connection's course: its deadlines,
 *   its draining, its end
 *
 * Invariants.
 *  - nghttp2's user data of a stream is our stream, or NULL once that is closed; a closed one is
 *    never found again.
 *  - on_close is called by bm_h2_stream_close and nowhere else, and that unlinks first.
 *  - Once `error` is set nothing is received, no stream is open, and none can be opened.
 *  - Once `broken` is set, or memory was refused, nghttp2's session is not called any more.
 *  - Handlers run while `busy` is above 0, and only then. */
#ifndef BM_H2_INNER_H
#define BM_H2_INNER_H

#include "base/list.h"
#include "net/proto/h2.h"
#include "net/proto/h2_block.h"
#include "net/proto/h2_guard.h"
#include "net/proto/h2_memory.h"
#include "net/proto/outbox.h"

#define BM_H2_CHUNK_LEN_MAX (16384u + 9u + 1u) /* of nghttp2: a frame and a pad length */
#define BM_H2_LAST_LEN 17u                     /* a GOAWAY of our own making */

struct nghttp2_session;

struct bm_h2_stream {
    struct bm_list node; /* of the connection's open streams */
    struct bm_h2 *h2;
    void *arg;
    bm_h2_source *source;
    uint64_t progress_ns; /* when something of it last went out, or its source was resumed */
    int32_t id;
    uint32_t unconsumed; /* bytes that on_data brought and that are not given back */
    uint32_t window;     /* wanted before the request was sent; 0: nothing said */
    uint32_t holds;
    uint32_t reset_code;
    bool shown;    /* the user knows of it */
    bool answered; /* server: the response is submitted */
    bool sent;     /* client: the request is in the output */
    bool paused;   /* the source has nothing now */
    bool again;    /* ... and was resumed while it said so */
    bool ended_in, ended_out;
    bool stopped; /* no more of the body is wanted */
    bool reset;   /* by us, with reset_code: only on_close may follow */
    bool closed;
};

enum bm_h2_drain { BM_H2_DRAIN_NONE, BM_H2_DRAIN_NOTICE, BM_H2_DRAIN_FINAL };

struct bm_h2 {
    struct bm_account *account;
    struct nghttp2_session *session;
    const struct bm_h2_handlers *handlers;
    void *arg;
    uint64_t now_ns, start_ns;
    bool server;
    bool torn;          /* the output lacks something: nothing may follow */
    bool broken;        /* nghttp2 had a fatal error, or was given one */
    bool again;         /* some stream has `again` */
    bool verdict;       /* nghttp2 has ended the connection for an error: `code` */
    bool goaway;        /* the peer's has come */
    bool sourcing;      /* a source runs */
    unsigned busy;      /* calls that run handlers */
    int error;          /* below 0: over */
    uint32_t code;      /* of the last GOAWAY sent */
    uint32_t condemned; /* the code for which a callback of ours ended nghttp2's work */

    struct bm_list streams; /* open */
    uint32_t open;          /* of them */
    uint32_t held;          /* closed, and held */
    uint32_t streams_max, streams_total, streams_total_max;

    enum bm_h2_drain drain;
    bool settings_out, settings_acked, ping_busy;
    uint64_t drain_ns;         /* when the notice was given */
    uint64_t settings_sent_ns; /* UINT64_MAX: not yet, or acknowledged */
    uint64_t ping_token, ping_sent_ns, rtt_ns;

    struct bm_h2_guard guard;
    struct bm_budget fields_budget;
    struct bm_h2_memory memory;
    struct bm_h2_block block;
    struct bm_outbox out;
    uint8_t *data; /* room in it for a DATA frame, whose payload a source has written; or NULL */
    bool data_put; /* the frame is there */
    uint64_t
        out_ns; /* when something of it was last acknowledged, or came when there was nothing */
};

/* nghttp2 may be called. */
static inline bool bm_h2_callable(const struct bm_h2 *h2)
{
    return !h2->broken && !h2->memory.refused;
}

static inline bool bm_h2_usable(const struct bm_h2 *h2)
{
    return bm_h2_callable(h2) && h2->error == 0;
}

/* h2.c. All do nothing when nghttp2 may not be called. */

void bm_h2_wire_consume(struct bm_h2 *h2, int32_t id, size_t len);
void bm_h2_wire_raise(struct bm_h2 *h2, int32_t id, uint32_t window);
void bm_h2_wire_reset(struct bm_h2 *h2, int32_t id, uint32_t code);
void bm_h2_wire_resume(struct bm_h2 *h2, int32_t id);
void bm_h2_wire_forget(struct bm_h2 *h2, int32_t id); /* the user data of the stream */
void bm_h2_wire_ping(struct bm_h2 *h2, uint64_t token);
void bm_h2_wire_notice(struct bm_h2 *h2); /* that a GOAWAY will come */
void bm_h2_wire_goaway(struct bm_h2 *h2);
void bm_h2_wire_terminate(struct bm_h2 *h2, uint32_t code);
uint32_t bm_h2_wire_last_id(const struct bm_h2 *h2); /* of the peer's streams, of those taken */
bool bm_h2_wire_wants_read(const struct bm_h2 *h2);
bool bm_h2_wire_wants_write(const struct bm_h2 *h2);

/* Room of at least len bytes in the output, and behind them for a GOAWAY of our own making. NULL: no
 * memory. all: in a piece with what else the output may hold. */
uint8_t *bm_h2_out_room(struct bm_h2 *h2, size_t len, bool all);

/* So many bytes have been written there. */
void bm_h2_out_commit(struct bm_h2 *h2, size_t len);

/* Fills the output. control: with no more than frames that wait to be sent and are no bodies. */
void bm_h2_pull(struct bm_h2 *h2, bool control);

/* h2_stream.c */

struct bm_h2_stream *bm_h2_stream_new(struct bm_h2 *h2, void *arg);
struct bm_h2_stream *bm_h2_stream_free(struct bm_h2_stream *stream); /* one that was not linked */
void bm_h2_stream_link(struct bm_h2_stream *stream);
void bm_h2_stream_close(struct bm_h2_stream *stream, uint32_t code);
void bm_h2_stream_end_in(struct bm_h2_stream *stream);
void bm_h2_stream_end_out(struct bm_h2_stream *stream);

/* Asks its source; -EAGAIN: it has nothing now. */
ssize_t bm_h2_stream_read(struct bm_h2_stream *stream, uint8_t *buf, size_t cap, bool *ret_end);

/* Resumes streams that were resumed while their source said that there is nothing. */
void bm_h2_streams_resume(struct bm_h2 *h2);

/* h2_life.c */

int bm_h2_error_of(uint32_t code);

/* Closes all streams; nothing more comes in. Only the first counts. */
void bm_h2_finish(struct bm_h2 *h2, uint32_t code, int error);

/* The same where nghttp2 cannot go on: the GOAWAY is written by hand. */
void bm_h2_break_off(struct bm_h2 *h2, uint32_t code, int error);

/* The same for a connection for which nghttp2 was refused memory, and for no other. */
void bm_h2_settle(struct bm_h2 *h2);

/* The same through nghttp2. */
void bm_h2_end_with(struct bm_h2 *h2, uint32_t code, int error);

void bm_h2_pong(struct bm_h2 *h2, uint64_t token);

#endif
