/* See pump.h. One read and one write are under way at a time, each with a buffer of its own, which is
 * frozen until its completion; what comes on the stream meanwhile is collected in a second one, within
 * the stream's window. A descriptor may be non-blocking or not, and is somebody else's too (its flags
 * are shared): -EAGAIN is waited for with poll, and a pipe is written on a thread of the kernel's, where
 * nobody minds SIGPIPE and nobody waits.
 *
 * Invariants: of the two directions each is over once, and then stays so; the pump is freed when both
 * are, or it is broken, and no op is under way. */
#include "runtime/pump.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/socket_pair.h"
#include "uring/op.h"

#define ON_ANOTHER_THREAD 1u /* of BM_OP_WRITE */

/* Bytes of the stream on their way to the descriptor. */
struct bytes {
    uint8_t *data;
    size_t len, cap;
};

struct bm_pump {
    struct bm_dependent dependent;
    struct bm_core *core;
    beam_stream *stream; /* NULL: given back */
    int fd;
    struct bm_pump_options options;
    uint64_t left; /* to be read */
    uint64_t came; /* on the stream */

    struct bm_op read_op, write_op, shutdown_op;
    uint8_t *chunk; /* what was read; BM_PUMP_CHUNK_LEN, while there is something in it */
    uint32_t chunk_len, chunk_sent;
    struct bytes writing, next; /* frozen; collected meanwhile */
    size_t written;             /* of `writing` */

    bool read_over;          /* nothing more is read, and our direction has its end */
    bool peer_ended;         /* nothing more comes on the stream */
    bool write_over;         /* ... and all of it has been written, and told */
    bool broken;             /* one of both has failed: what is under way is being cancelled */
    struct bm_task end_task; /* frees it, should nothing else come to an end */
    bool in_step;            /* a step runs, and frees the pump at its end if that is due */
};

static void read_on(struct bm_pump *pump);
static void write_on(struct bm_pump *pump);

/* --- endings --------------------------------------------------------------------------------- */

static struct bm_account *account_of(const struct bm_pump *pump)
{
    return bm_reactor_account(pump->core->reactor);
}

static void free_bytes(struct bm_pump *pump, struct bytes *bytes)
{
    bm_free(account_of(pump), bytes->data, bytes->cap);
    *bytes = (struct bytes){0};
}

static void cancel_ops(struct bm_pump *pump)
{
    bm_op_cancel(pump->core->reactor, &pump->read_op);
    bm_op_cancel(pump->core->reactor, &pump->write_op);
    bm_op_cancel(pump->core->reactor, &pump->shutdown_op);
}

/* The stream is over, and not in order: the descriptor's other end must see that. */
static void break_fd(struct bm_pump *pump)
{
    const struct linger reset = {.l_onoff = 1, .l_linger = 0};
    if (pump->options.kind == BM_PUMP_SOCKET)
        (void)setsockopt(pump->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
}

static void fail_stream(struct bm_pump *pump, enum beam_code code, const char *text)
{
    if (pump->broken)
        return;
    pump->broken = true;
    beam_stream_reset(pump->stream, code, text);
    break_fd(pump);
    cancel_ops(pump);
}

/* false: not yet. */
static bool free_if_over(struct bm_pump *pump)
{
    bool done = pump->broken || (pump->read_over && pump->peer_ended && pump->write_over);
    if (!done || pump->in_step || !bm_op_idle(&pump->read_op) || !bm_op_idle(&pump->write_op) ||
        !bm_op_idle(&pump->shutdown_op))
        return false;
    pump->stream = beam_stream_free(pump->stream);
    bm_reactor_close_fd(pump->core->reactor, &pump->fd);
    bm_free(account_of(pump), pump->chunk, BM_PUMP_CHUNK_LEN);
    free_bytes(pump, &pump->writing);
    free_bytes(pump, &pump->next);
    bm_list_unlink(&pump->dependent.node);
    bm_task_cancel(&pump->end_task);
    bm_free(account_of(pump), pump, sizeof(*pump));
    return true;
}

static void check_over(struct bm_pump *pump)
{
    struct bm_core *core = pump->core;
    if (free_if_over(pump))
        bm_core_check_quiet(core);
}

/* --- the descriptor's bytes to the stream ---------------------------------------------------- */

static void start_poll(struct bm_pump *pump, struct bm_op *op, unsigned events)
{
    op->kind = BM_OP_POLL;
    op->fd = pump->fd;
    op->flags = events;
    bm_op_start(pump->core->reactor, op);
}

static void end_of_file(struct bm_pump *pump)
{
    pump->read_over = true;
    pump->chunk = bm_free(account_of(pump), pump->chunk, BM_PUMP_CHUNK_LEN);
    if (!pump->options.reads) {
        /* Whoever had the other end for reading has closed it. */
        if (!pump->peer_ended || !pump->write_over)
            fail_stream(pump, BEAM_CANCELLED, "the receiver has closed the descriptor");
        return;
    }
    if (pump->options.read_len != BM_PUMP_TO_END && pump->left > 0)
        fail_stream(pump, BEAM_DATA_LOSS, "the file has become shorter while it was read");
    else
        beam_stream_end(pump->stream);
}

/* Gives the stream what was read, as far as it takes it. */
static void send_chunk(struct bm_pump *pump)
{
    while (pump->chunk_sent < pump->chunk_len) {
        ssize_t n = beam_stream_write(pump->stream, pump->chunk + pump->chunk_sent,
                                      pump->chunk_len - pump->chunk_sent);
        if (n == -EAGAIN)
            return; /* on_writable */
        if (n == -EPIPE && !pump->peer_ended)
            return; /* on_end tells why */
        if (n < 0) {
            /* The peer had ended its own direction before it broke off ours: nothing else tells. */
            fail_stream(pump, BEAM_CANCELLED, beam_strerror((int)n));
            return;
        }
        pump->chunk_sent += (uint32_t)n;
    }
    pump->chunk_len = pump->chunk_sent = 0;
    read_on(pump);
}

static void read_on(struct bm_pump *pump)
{
    /* Where nothing is to be read, a socket is listened to for its end all the same. */
    bool wanted = pump->options.reads || pump->options.kind == BM_PUMP_SOCKET;
    if (!wanted || pump->read_over || pump->broken || pump->chunk_len > 0 ||
        !bm_op_idle(&pump->read_op))
        return;
    if (pump->left == 0) {
        end_of_file(pump);
        return;
    }
    if (!pump->chunk)
        pump->chunk = bm_alloc(account_of(pump), BM_PUMP_CHUNK_LEN);
    if (!pump->chunk) {
        fail_stream(pump, BEAM_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    pump->read_op.kind = BM_OP_READ;
    pump->read_op.fd = pump->fd;
    pump->read_op.addr = pump->chunk;
    pump->read_op.len = pump->left < BM_PUMP_CHUNK_LEN ? (uint32_t)pump->left : BM_PUMP_CHUNK_LEN;
    pump->read_op.offset = UINT64_MAX; /* where the descriptor stands */
    pump->read_op.flags = 0;
    bm_op_start(pump->core->reactor, &pump->read_op);
}

static void on_read(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_pump *pump = bm_container_of(op, struct bm_pump, read_op);
    bool polled = op->kind == BM_OP_POLL;
    (void)flags;
    pump->in_step = true;
    if (pump->broken || pump->read_over) {
        /* What came too late is nobody's. */
    } else if (res == -EINTR || (polled && res >= 0)) {
        read_on(pump);
    } else if (res == -EAGAIN && !polled) {
        start_poll(pump, op, POLLIN);
    } else if (res > 0 && !pump->options.reads) {
        read_on(pump); /* it was not to write */
    } else if (res > 0) {
        pump->chunk_len = (uint32_t)res;
        pump->chunk_sent = 0;
        if (pump->left != BM_PUMP_TO_END)
            pump->left -= (uint32_t)res;
        send_chunk(pump);
    } else if (res == 0) {
        end_of_file(pump);
    } else {
        fail_stream(pump, res == -ECONNRESET ? BEAM_CANCELLED : BEAM_UNKNOWN, beam_strerror(res));
    }
    pump->in_step = false;
    check_over(pump);
}

/* --- the stream's bytes to the descriptor ---------------------------------------------------- */

static void on_written_out(struct bm_pump *pump)
{
    if (pump->write_over || !pump->peer_ended || pump->broken)
        return;
    pump->write_over = true;
    if (pump->options.kind == BM_PUMP_SOCKET) {
        pump->shutdown_op.fd = pump->fd;
        pump->shutdown_op.flags = SHUT_WR;
        bm_op_start(pump->core->reactor, &pump->shutdown_op);
        if (!pump->options.reads && !pump->read_over) {
            pump->read_over = true;
            bm_op_cancel(pump->core->reactor, &pump->read_op);
        }
    }
}

static void write_on(struct bm_pump *pump)
{
    struct bm_op *op = &pump->write_op;
    if (pump->broken || !bm_op_idle(op))
        return;
    if (pump->written == pump->writing.len) {
        struct bytes empty = pump->writing;
        empty.len = pump->written = 0;
        pump->writing = pump->next;
        pump->next = empty;
    }
    if (pump->writing.len == 0) {
        free_bytes(pump, &pump->writing);
        free_bytes(pump, &pump->next);
        on_written_out(pump);
        return;
    }
    op->kind = pump->options.kind == BM_PUMP_SOCKET ? BM_OP_SEND : BM_OP_WRITE;
    op->fd = pump->fd;
    op->addr = pump->writing.data + pump->written;
    op->len = (uint32_t)(pump->writing.len - pump->written);
    op->offset = UINT64_MAX;
    op->flags = pump->options.kind == BM_PUMP_PIPE ? ON_ANOTHER_THREAD : 0;
    bm_op_start(pump->core->reactor, op);
}

static void on_write(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_pump *pump = bm_container_of(op, struct bm_pump, write_op);
    bool polled = op->kind == BM_OP_POLL;
    (void)flags;
    pump->in_step = true;
    if (pump->broken) {
        /* Nobody hears of it. */
    } else if (res == -EINTR || (polled && res >= 0)) {
        write_on(pump);
    } else if (res == -EAGAIN && !polled) {
        start_poll(pump, op, POLLOUT);
    } else if (res > 0) {
        pump->written += (uint32_t)res;
        beam_stream_release(pump->stream, (uint32_t)res);
        write_on(pump);
    } else {
        bool gone = res == -EPIPE || res == -ECONNRESET;
        fail_stream(pump, gone ? BEAM_CANCELLED : BEAM_UNKNOWN,
                    gone ? "the receiver has closed the descriptor" : beam_strerror(res));
    }
    pump->in_step = false;
    check_over(pump);
}

static void on_shutdown(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_pump *pump = bm_container_of(op, struct bm_pump, shutdown_op);
    (void)res, (void)flags;
    check_over(pump);
}

/* --- the stream ------------------------------------------------------------------------------ */

static bool collect(struct bm_pump *pump, const void *data, size_t len)
{
    struct bytes *next = &pump->next;
    if (next->cap - next->len < len) {
        size_t cap = next->cap > 0 ? next->cap : 4096;
        while (cap - next->len < len)
            cap *= 2;
        uint8_t *grown = bm_realloc(account_of(pump), next->data, next->cap, cap);
        if (!grown)
            return false;
        next->data = grown;
        next->cap = cap;
    }
    memcpy(next->data + next->len, data, len);
    next->len += len;
    return true;
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct bm_pump *pump = arg;
    if (pump->broken || !pump->options.writes)
        return;
    pump->in_step = true;
    pump->came += len;
    beam_stream_hold(stream);
    if (collect(pump, data, len))
        write_on(pump);
    else
        fail_stream(pump, BEAM_RESOURCE_EXHAUSTED, "no memory");
    pump->in_step = false;
    check_over(pump);
}

static void on_writable(beam_stream *stream, void *arg)
{
    struct bm_pump *pump = arg;
    (void)stream;
    if (pump->broken)
        return;
    pump->in_step = true;
    send_chunk(pump);
    pump->in_step = false;
    check_over(pump);
}

static void on_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    struct bm_pump *pump = arg;
    (void)stream;
    pump->in_step = true;
    pump->peer_ended = true;
    if (status->code == BEAM_OK && pump->options.writes &&
        pump->options.write_len != BM_PUMP_TO_END && pump->came != pump->options.write_len) {
        fail_stream(pump, BEAM_DATA_LOSS, "not as many bytes as were announced");
    } else if (status->code == BEAM_OK) {
        write_on(pump);
    } else if (!pump->broken) {
        pump->broken = true;
        break_fd(pump);
        cancel_ops(pump);
    }
    pump->in_step = false;
    check_over(pump);
}

static const struct beam_stream_handlers stream_handlers = {
    .on_data = on_data,
    .on_writable = on_writable,
    .on_end = on_end,
};

/* --- life ------------------------------------------------------------------------------------ */

static void on_end_task(struct bm_task *task)
{
    check_over(bm_container_of(task, struct bm_pump, end_task));
}

/* The runtime drains: a stream that no session has will not be sent any more. */
static void on_drain(struct bm_dependent *dependent)
{
    struct bm_pump *pump = bm_container_of(dependent, struct bm_pump, dependent);
    if (((const beam_channel *)pump->stream)->session)
        return;
    fail_stream(pump, BEAM_UNAVAILABLE, "the runtime ends");
    bm_task_queue(pump->core->reactor, &pump->end_task);
}

static void on_stop(struct bm_dependent *dependent)
{
    struct bm_pump *pump = bm_container_of(dependent, struct bm_pump, dependent);
    fail_stream(pump, BEAM_UNAVAILABLE, "the runtime ends");
    bm_task_queue(pump->core->reactor, &pump->end_task);
}

static const struct bm_dependent_calls calls = {.drain = on_drain, .end = on_stop};

struct bm_pump *bm_pump_new(struct bm_core *core)
{
    struct bm_pump *pump = bm_alloc_zero(bm_reactor_account(core->reactor), sizeof(*pump));
    if (!pump)
        return NULL;
    pump->core = core;
    pump->fd = -1;
    pump->dependent.calls = &calls;
    pump->end_task.fn = on_end_task;
    bm_op_init(&pump->read_op, BM_OP_READ, on_read);
    bm_op_init(&pump->write_op, BM_OP_WRITE, on_write);
    bm_op_init(&pump->shutdown_op, BM_OP_SHUTDOWN, on_shutdown);
    return pump;
}

struct bm_pump *bm_pump_free(struct bm_pump *pump)
{
    if (pump)
        bm_free(account_of(pump), pump, sizeof(*pump));
    return NULL;
}

void bm_pump_start(struct bm_pump *pump, const struct bm_pump_options *options, beam_stream *stream,
                   int *fd)
{
    pump->options = *options;
    pump->left = options->reads ? options->read_len : BM_PUMP_TO_END;
    pump->stream = stream;
    pump->fd = bm_take_fd(fd);
    bm_list_push_back(&pump->core->dependents, &pump->dependent.node);
    beam_stream_set_handlers(stream, &stream_handlers, pump);
    pump->in_step = true;
    if (!options->reads) {
        beam_stream_end(stream);
        if (options->kind != BM_PUMP_SOCKET)
            pump->read_over = true;
    }
    read_on(pump);
    pump->in_step = false;
    if (pump->broken) /* no memory to read with: nothing comes that would free it */
        bm_task_queue(pump->core->reactor, &pump->end_task);
}

int beam_stream_to_fd(beam_stream **stream, int *ret_fd)
{
    const struct bm_pump_options options = {.kind = BM_PUMP_SOCKET,
                                            .reads = true,
                                            .writes = true,
                                            .read_len = BM_PUMP_TO_END,
                                            .write_len = BM_PUMP_TO_END};
    const beam_channel *channel = (const beam_channel *)*stream;
    int fds[2];
    if (channel->gone)
        return -EPIPE;
    struct bm_pump *pump = bm_pump_new(channel->core);
    int r = pump ? bm_socket_pair_new(fds) : -ENOMEM;
    if (r < 0) {
        bm_pump_free(pump);
        return r;
    }
    bm_pump_start(pump, &options, *stream, &fds[0]);
    *stream = NULL;
    *ret_fd = fds[1];
    return 0;
}

/* Shared memory that somebody can still write to is no sequence of bytes (fcntl(2), file sealing). */
static bool is_shared_memory(int fd)
{
    int seals = fcntl(fd, F_GET_SEALS);
    return seals >= 0 && !(seals & (F_SEAL_SEAL | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
}

static int judge_file(int fd, const struct stat *status, struct bm_pump_options *options)
{
    if (is_shared_memory(fd))
        return -ENOTSUP;
    options->kind = BM_PUMP_FILE;
    if (!options->reads)
        return 0;
    options->writes = false; /* a copy of what there is; nothing flows back into it */
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0)
        return -errno;
    options->read_len = status->st_size > at ? (uint64_t)(status->st_size - at) : 0;
    return 0;
}

static int judge_socket(int fd, struct bm_pump_options *options)
{
    int type = 0, listening = 0;
    socklen_t len = sizeof(int);
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) < 0)
        return -errno;
    options->kind = BM_PUMP_SOCKET;
    return type == SOCK_STREAM && !listening ? 0 : -ENOTSUP;
}

int bm_pump_judge(int fd, struct bm_pump_options *ret_options)
{
    struct bm_pump_options options = {
        .kind = BM_PUMP_PIPE, .read_len = BM_PUMP_TO_END, .write_len = BM_PUMP_TO_END};
    struct stat status;
    int mode = fcntl(fd, F_GETFL);
    if (mode < 0 || fstat(fd, &status) < 0)
        return -errno;
    if (mode & O_PATH)
        return -ENOTSUP;
    options.reads = (mode & O_ACCMODE) != O_WRONLY;
    options.writes = (mode & O_ACCMODE) != O_RDONLY;
    int r = 0;
    if (S_ISREG(status.st_mode))
        r = judge_file(fd, &status, &options);
    else if (S_ISSOCK(status.st_mode))
        r = judge_socket(fd, &options);
    else if (!S_ISFIFO(status.st_mode) && !S_ISCHR(status.st_mode))
        r = -ENOTSUP;
    if (r == 0)
        *ret_options = options;
    return r;
}
