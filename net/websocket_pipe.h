/* The pipe of WebSocket between an exchange and the frames of a session: whole frames go out in binary
 * messages of at most BM_WEBSOCKET_PIPE_MESSAGE_MAX bytes, and those of the peer come in as bytes with
 * the end of each message. docs/spec/http.md B2, B3. On its core's thread. */
#ifndef BM_WEBSOCKET_PIPE_H
#define BM_WEBSOCKET_PIPE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/proto/websocket.h"
#include "uring/timer.h"

struct bm_core;
struct bm_frame_outbox;

#define BM_WEBSOCKET_PIPE_MESSAGE_MAX 65536u /* docs/spec/http.md B2 */

/* Called from bm_websocket_pipe_receive, but for on_broken, which comes from the loop. */
struct bm_websocket_pipe_handlers {
    void (*on_data)(const uint8_t *bytes, size_t len, bool end, void *arg);
    void (*on_close)(uint16_t code, const char *reason, size_t len, void *arg);
    /* There is something to be read, or an end. */
    void (*on_output)(void *arg);
    /* The peer did not answer a close, or takes nothing. */
    void (*on_broken)(int error, void *arg);
};

struct bm_websocket_pipe {
    struct bm_core *core;
    struct bm_websocket *websocket;
    struct bm_frame_outbox *frames; /* what is to go out */
    const struct bm_websocket_pipe_handlers *handlers;
    void *arg;
    struct bm_timer timer;
    uint16_t close_code; /* to be said behind the last frame; 0: not yet */
};

/* frames outlives it. -ENOMEM. */
int bm_websocket_pipe_init(struct bm_websocket_pipe *pipe, struct bm_core *core, bool client,
                           struct bm_account *account, struct bm_frame_outbox *frames,
                           const struct bm_websocket_pipe_handlers *handlers, void *arg);
/* A zeroed one is fine. */
void bm_websocket_pipe_deinit(struct bm_websocket_pipe *pipe);

/* As `read` of an exchange (exchange.h): frames that wait, and what the protocol itself has to say. */
ssize_t bm_websocket_pipe_read(struct bm_websocket_pipe *pipe, uint8_t *buf, size_t len,
                               bool *ret_end);
/* As bm_websocket_receive, and bm_websocket_receive_end. */
int bm_websocket_pipe_receive(struct bm_websocket_pipe *pipe, const uint8_t *bytes, size_t len);
int bm_websocket_pipe_receive_end(struct bm_websocket_pipe *pipe);
/* A close frame with this code behind the frames that wait. */
void bm_websocket_pipe_close(struct bm_websocket_pipe *pipe, uint16_t code);

#endif
