/* Frames of a session into binary messages. Frames wait in the session's outbox, not here: a message is
 * made of them when the exchange asks for bytes and the engine has none left, so that what the network does
 * not take stays where the session's limits see it.
 *
 * Invariants: a message holds whole frames and is within its limit; a close frame of ours comes behind the
 * last frame; once the engine takes no more messages, frames that wait are dropped. What frames mean is the
 * session's. */
#include "net/websocket_pipe.h"

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "net/frame_outbox.h"
#include "runtime/core.h"
#include "uring/reactor.h"

static uint64_t now_ns(const struct bm_websocket_pipe *pipe)
{
    return bm_reactor_now_ns(pipe->core->reactor);
}

static void arm(struct bm_websocket_pipe *pipe)
{
    uint64_t next = bm_websocket_next_ns(pipe->websocket);
    if (next == UINT64_MAX)
        bm_timer_cancel(pipe->core->reactor, &pipe->timer);
    else
        bm_timer_arm(pipe->core->reactor, &pipe->timer, next);
}

static void on_timer(struct bm_timer *timer)
{
    struct bm_websocket_pipe *pipe = bm_container_of(timer, struct bm_websocket_pipe, timer);
    int r = bm_websocket_tick(pipe->websocket, now_ns(pipe));
    if (r < 0)
        pipe->handlers->on_broken(r, pipe->arg);
    else
        arm(pipe);
}

static void on_data(struct bm_websocket *websocket, const uint8_t *bytes, size_t len, bool end,
                    void *arg)
{
    struct bm_websocket_pipe *pipe = arg;
    (void)websocket;
    pipe->handlers->on_data(bytes, len, end, pipe->arg);
}

static void on_close(struct bm_websocket *websocket, uint16_t code, const char *reason, size_t len,
                     void *arg)
{
    struct bm_websocket_pipe *pipe = arg;
    (void)websocket;
    pipe->handlers->on_close(code, reason, len, pipe->arg);
}

int bm_websocket_pipe_init(struct bm_websocket_pipe *pipe, struct bm_core *core, bool client,
                           struct bm_account *account, struct bm_frame_outbox *frames,
                           const struct bm_websocket_pipe_handlers *handlers, void *arg)
{
    static const struct bm_websocket_handlers engine_handlers = {on_data, on_close};
    *pipe = (struct bm_websocket_pipe){
        .core = core,
        .frames = frames,
        .handlers = handlers,
        .arg = arg,
    };
    bm_timer_init(&pipe->timer, on_timer);
    return bm_websocket_new(
        &(struct bm_websocket_options){
            .client = client,
            .account = account,
            .handlers = &engine_handlers,
            .arg = pipe,
            .message_len_max = BM_WEBSOCKET_PIPE_MESSAGE_MAX,
            .now_ns = now_ns(pipe),
        },
        &pipe->websocket);
}

void bm_websocket_pipe_deinit(struct bm_websocket_pipe *pipe)
{
    if (!pipe->websocket)
        return;
    bm_timer_cancel(pipe->core->reactor, &pipe->timer);
    pipe->websocket = bm_websocket_free(pipe->websocket);
}

/* 1: there is output again; 0: there is nothing to say. */
static int next_message(struct bm_websocket_pipe *pipe)
{
    size_t len;
    const uint8_t *frames = bm_frame_outbox_output(pipe->frames, &len);
    if (frames) {
        bm_assert(len <= BM_WEBSOCKET_PIPE_MESSAGE_MAX);
        int r = bm_websocket_send(pipe->websocket, &(struct bm_bytes){frames, frames + len}, 1);
        if (r == 0)
            bm_frame_outbox_given(pipe->frames, len);
        else if (r == -EPIPE)
            (void)bm_frame_outbox_drop(pipe->frames);
        return r == 0 ? 1 : r == -EPIPE ? 0 : r;
    }
    if (pipe->close_code == 0)
        return 0;
    int r = bm_websocket_close(pipe->websocket, pipe->close_code, "", now_ns(pipe));
    pipe->close_code = 0;
    return r == 0 ? 1 : r == -EPIPE ? 0 : r;
}

ssize_t bm_websocket_pipe_read(struct bm_websocket_pipe *pipe, uint8_t *buf, size_t len,
                               bool *ret_end)
{
    size_t done = 0;
    while (done < len) {
        size_t have;
        const uint8_t *bytes = bm_websocket_output(pipe->websocket, &have);
        if (!bytes) {
            int r = next_message(pipe);
            if (r < 0 && done == 0)
                return r;
            if (r <= 0)
                break;
            continue;
        }
        size_t part = have < len - done ? have : len - done;
        memcpy(buf + done, bytes, part);
        bm_websocket_output_ack(pipe->websocket, part);
        done += part;
    }
    if (bm_websocket_over(pipe->websocket) == 1)
        *ret_end = true;
    arm(pipe);
    return (ssize_t)done;
}

int bm_websocket_pipe_receive(struct bm_websocket_pipe *pipe, const uint8_t *bytes, size_t len)
{
    size_t waits;
    int r = bm_websocket_receive(pipe->websocket, bytes, len, now_ns(pipe));
    arm(pipe);
    if (bm_websocket_output(pipe->websocket, &waits) || bm_websocket_over(pipe->websocket) == 1)
        pipe->handlers->on_output(pipe->arg);
    return r;
}

int bm_websocket_pipe_receive_end(struct bm_websocket_pipe *pipe)
{
    int r = bm_websocket_receive_end(pipe->websocket);
    arm(pipe);
    pipe->handlers->on_output(pipe->arg);
    return r;
}

void bm_websocket_pipe_close(struct bm_websocket_pipe *pipe, uint16_t code)
{
    pipe->close_code = code;
    pipe->handlers->on_output(pipe->arg);
}
