/* The end of a reactor that has ten thousand things under way, of every kind and in every state: each is
 * called back once, with what became of it, and what came meanwhile is nobody's loss. And how long it
 * waits: for a disk as long as that takes. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "tests/unit/uring/rig.h"
#include "uring/completion.h"
#include "uring/kernel.h"
#include "uring/reactor_inner.h"

enum {
    MANY = 10000,
    TIMERS = 1000,
    CLIENTS = 150,  /* connect while the end comes */
    BUFFERS = 16,   /* of the multishots, fewer than packets come */
    PACKETS = 60,   /* ... which these are */
    TEXT_LEN = 100, /* of what is sent */
    WRITES = 40,    /* to the pipe and the eventfd */
    GROUP = 7,      /* the first; each kind that uses buffers has its own */
    GROUPS = 3,
};

enum what {
    RECEIVES,         /* on a socket that says nothing */
    MULTISHOT,        /* on one that does */
    STREAM_MULTISHOT, /* the same of a stream, */
    SELECTS,          /* ... and those that take one buffer of another */
    POLLS,
    ACCEPTS,
    PIPE_READS,
    EVENT_READS,
    QUIET_SENDS,   /* as many as the socket has room for go */
    PASSING_SENDS, /* the same, each with an fd that is closed behind it */
    WAITING_SENDS, /* there is no room for them */
    NOPS,
    WHATS,
};

struct thing {
    struct bm_op op;
    struct msghdr msg;
    struct iovec iov;
    _Alignas(8) char control[CMSG_SPACE(sizeof(int))];
    int fd; /* that is passed on */
    enum what what;
    unsigned ends, more; /* callbacks that ended it, and others */
    int res;
    uint64_t value; /* where reads go */
    char text[TEXT_LEN];
};

static struct rig rig;
static struct thing *things;
static unsigned ended_of[WHATS], done_of[WHATS], accepted, received, read_of_pipe;
static unsigned streamed, selected; /* bytes */
static uint64_t value_of_event;
static struct bm_buffers *buffers[GROUPS];

static void thing_done(struct bm_op *op, int res, uint32_t flags)
{
    struct thing *thing = bm_container_of(op, struct thing, op);
    int buffer = bm_op_buffer(flags);
    if (buffer >= 0 && buffers[op->group - GROUP])
        bm_buffers_recycle(buffers[op->group - GROUP], buffer);
    received += thing->what == MULTISHOT && res > 0;
    if (thing->what == STREAM_MULTISHOT && res > 0)
        streamed += (unsigned)res;
    if (thing->what == SELECTS && res > 0)
        selected += (unsigned)res;
    if (bm_op_more(flags)) {
        thing->more++;
        return;
    }
    CHECK(bm_op_idle(op));
    thing->ends++;
    thing->res = res;
    ended_of[thing->what]++;
    done_of[thing->what] += res >= 0;
    if (thing->what == ACCEPTS && res >= 0) {
        accepted++;
        close(res);
    }
    if (thing->what == PIPE_READS && res > 0)
        read_of_pipe += (unsigned)res;
    if (thing->what == EVENT_READS && res > 0)
        value_of_event += thing->value;
    if (thing->what == PASSING_SENDS && !(res > 0 && op->closes_linked))
        close(thing->fd);
}

static struct {
    int silent[2], talking[2], stream[2], other[2], quiet[2], passing[2], full[2], pipe[2];
    int event, listener;
    struct sockaddr_storage addr;
    socklen_t addr_len;
} all;

static void send_init(struct thing *thing, int fd, bool quiet)
{
    thing->iov = (struct iovec){thing->text, TEXT_LEN};
    thing->msg = (struct msghdr){.msg_iov = &thing->iov, .msg_iovlen = 1};
    thing->op.kind = BM_OP_SENDMSG;
    thing->op.fd = fd;
    thing->op.addr = &thing->msg;
    thing->op.len = TEXT_LEN;
    thing->op.quiet = quiet;
}

static void pass_init(struct thing *thing)
{
    send_init(thing, all.passing[0], true);
    thing->fd = fcntl(all.event, F_DUPFD_CLOEXEC, 0);
    REQUIRE(thing->fd >= 0);
    thing->msg.msg_control = thing->control;
    thing->msg.msg_controllen = sizeof(thing->control);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&thing->msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &thing->fd, sizeof(int));
    thing->op.close_fds = &thing->fd;
    thing->op.close_count = 1;
}

static void thing_start(struct thing *thing, enum what what)
{
    *thing = (struct thing){.what = what, .fd = -1};
    bm_op_init(&thing->op, BM_OP_NOP, thing_done);
    struct bm_op *op = &thing->op;
    switch (what) {
    case RECEIVES:
        op->kind = BM_OP_RECV;
        op->fd = all.silent[0];
        op->addr = thing->text;
        op->len = TEXT_LEN;
        break;
    case MULTISHOT:
        op->kind = BM_OP_RECVMSG_MULTISHOT;
        op->fd = all.talking[0];
        op->addr = &thing->msg;
        op->group = GROUP;
        break;
    case STREAM_MULTISHOT:
    case SELECTS:
        op->kind = what == SELECTS ? BM_OP_RECV_SELECT : BM_OP_RECV_MULTISHOT;
        op->fd = what == SELECTS ? all.other[0] : all.stream[0];
        op->group = what == SELECTS ? GROUP + 2 : GROUP + 1;
        break;
    case POLLS:
        op->kind = BM_OP_POLL;
        op->fd = all.silent[0];
        op->flags = 1; /* POLLIN */
        break;
    case ACCEPTS:
        op->kind = BM_OP_ACCEPT;
        op->fd = all.listener;
        break;
    case PIPE_READS:
    case EVENT_READS:
        op->kind = BM_OP_READ;
        op->fd = what == PIPE_READS ? all.pipe[0] : all.event;
        op->addr = &thing->value;
        op->len = sizeof(thing->value);
        op->offset = UINT64_MAX;
        break;
    case QUIET_SENDS:
        send_init(thing, all.quiet[0], true);
        break;
    case PASSING_SENDS:
        pass_init(thing);
        break;
    case WAITING_SENDS:
        send_init(thing, all.full[0], false);
        break;
    default:
        break;
    }
    bm_op_start(rig.reactor, op);
}

static void open_sockets(void)
{
    sa_family_t family = AF_UNIX;
    char text[TEXT_LEN] = {0};
    socket_pair(SOCK_STREAM, all.silent);
    socket_pair(SOCK_SEQPACKET, all.talking);
    socket_pair(SOCK_STREAM, all.stream);
    socket_pair(SOCK_STREAM, all.other);
    socket_pair(SOCK_SEQPACKET, all.quiet);
    socket_pair(SOCK_SEQPACKET, all.passing);
    socket_pair(SOCK_SEQPACKET, all.full);
    while (send(all.full[0], text, TEXT_LEN, MSG_DONTWAIT) > 0)
        ;
    REQUIRE_INT(pipe2(all.pipe, O_CLOEXEC), 0);
    all.event = eventfd(0, EFD_CLOEXEC);
    all.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_INT(bind(all.listener, (struct sockaddr *)&family, sizeof(family)), 0); /* autobind */
    REQUIRE_INT(listen(all.listener, CLIENTS), 0);
    all.addr_len = sizeof(all.addr);
    REQUIRE_INT(getsockname(all.listener, (struct sockaddr *)&all.addr, &all.addr_len), 0);
}

/* Bytes that can be read; an eventfd does not tell. */
static unsigned left_in(int fd)
{
    int n = 0;
    return ioctl(fd, FIONREAD, &n) == 0 ? (unsigned)n : 0;
}

static void close_sockets(void)
{
    close_pair(all.silent);
    close_pair(all.talking);
    close_pair(all.stream);
    close_pair(all.other);
    close_pair(all.quiet);
    close_pair(all.passing);
    close_pair(all.full);
    close_pair(all.pipe);
    close(all.event);
    close(all.listener);
}

/* Packets that lie in a socket; an fd that came with one is closed. */
static unsigned packets_in(int fd)
{
    unsigned n = 0;
    for (;;) {
        char text[TEXT_LEN];
        _Alignas(8) char control[CMSG_SPACE(sizeof(int))];
        struct iovec iov = {text, sizeof(text)};
        struct msghdr msg = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
        if (recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
            return n;
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        if (cmsg) {
            int passed;
            memcpy(&passed, CMSG_DATA(cmsg), sizeof(int));
            close(passed);
        }
        n++;
    }
}

/* What some of them wait for comes: the rest is still under way when the end does. */
static void let_some_end(int *clients)
{
    const uint64_t one = 1;
    char text[TEXT_LEN] = {0};
    for (unsigned i = 0; i < WRITES; i++) {
        CHECK_INT(write(all.pipe[1], &one, sizeof(one)), sizeof(one));
        CHECK_INT(write(all.event, &one, sizeof(one)), sizeof(one));
    }
    for (unsigned i = 0; i < PACKETS; i++) {
        CHECK_INT(send(all.talking[1], text, TEXT_LEN, MSG_DONTWAIT), TEXT_LEN);
        CHECK_INT(send(all.stream[1], text, TEXT_LEN, MSG_DONTWAIT), TEXT_LEN);
        CHECK_INT(send(all.other[1], text, TEXT_LEN, MSG_DONTWAIT), TEXT_LEN);
    }
    for (unsigned i = 0; i < CLIENTS; i++) {
        clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE_INT(connect(clients[i], (struct sockaddr *)&all.addr, all.addr_len), 0);
    }
}

static unsigned left_in_backlog(void)
{
    unsigned n = 0;
    fcntl(all.listener, F_SETFL, O_NONBLOCK);
    for (int fd; (fd = accept4(all.listener, NULL, NULL, SOCK_CLOEXEC)) >= 0; n++)
        close(fd);
    return n;
}

static bool uses_buffers(enum what what)
{
    return what == MULTISHOT || what == STREAM_MULTISHOT || what == SELECTS;
}

/* Buffers go before their reactor does, and what uses them before that. */
static void end_multishots(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (uses_buffers(things[i].what))
            bm_op_cancel(rig.reactor, &things[i].op);
    for (unsigned i = 0; i < count; i++)
        while (uses_buffers(things[i].what) && things[i].ends == 0)
            bm_reactor_turn(rig.reactor);
    for (unsigned i = 0; i < GROUPS; i++)
        buffers[i] = bm_buffers_free(buffers[i]);
}

static void never(struct bm_timer *timer)
{
    (void)timer;
    CHECK(false);
}

/* One quarter has long been in flight, one has been given to the kernel just now, one is still in line,
 * and one is being cancelled. */
static void end_with_everything_under_way(struct test_random *random, bool some_end)
{
    static struct bm_timer timers[TIMERS];
    int clients[CLIENTS];
    things = calloc(MANY, sizeof(*things));
    REQUIRE(things != NULL);
    memset(ended_of, 0, sizeof(ended_of));
    memset(done_of, 0, sizeof(done_of));
    accepted = received = read_of_pipe = streamed = selected = 0;
    value_of_event = 0;
    open_sockets();
    rig_open(&rig);
    for (unsigned i = 0; i < GROUPS; i++)
        REQUIRE_INT(bm_buffers_new(rig.reactor, (uint16_t)(GROUP + i), 512, BUFFERS, &buffers[i]),
                    0);
    for (unsigned i = 0; i < TIMERS; i++) {
        bm_timer_init(&timers[i], never);
        bm_timer_arm(rig.reactor, &timers[i], bm_clock_now_ns() + 3600 * BM_NS_PER_S + i);
    }

    unsigned i = 0;
    for (; i < MANY / 2; i++)
        thing_start(&things[i], (enum what)test_random_below(random, WHATS));
    while (!bm_list_empty(&rig.reactor->queued))
        bm_reactor_turn(rig.reactor);
    if (some_end) {
        let_some_end(clients);
        bm_reactor_turn(rig.reactor);
    }
    for (; i < MANY * 3 / 4; i++)
        thing_start(&things[i], (enum what)test_random_below(random, WHATS));
    for (unsigned turn = 0; turn < 4; turn++)
        bm_reactor_turn(rig.reactor);
    end_multishots(i);
    for (; i < MANY; i++) {
        enum what what = (enum what)test_random_below(random, WHATS);
        thing_start(&things[i], uses_buffers(what) ? RECEIVES : what);
    }
    for (unsigned k = 0; k < MANY / 4; k++)
        bm_op_cancel(rig.reactor, &things[test_random_below(random, MANY)].op);
    unsigned under_way = bm_reactor_inflight(rig.reactor);
    CHECK(under_way > MANY / 2);

    rig_close(&rig);

    unsigned once = 0;
    for (i = 0; i < MANY; i++) {
        once += things[i].ends == 1;
        CHECK(things[i].ends == 1 || things[i].ends == 0);
        if (things[i].res < 0 && things[i].res != -ECANCELED && things[i].res != -EAGAIN &&
            things[i].res != -ENOBUFS)
            CHECK_INT(things[i].res, -ECANCELED);
    }
    CHECK_UINT(once, MANY);
    for (i = 0; i < TIMERS; i++)
        CHECK(!bm_timer_armed(&timers[i]));

    /* Sums: what was said to have gone has gone, what came has come once. */
    CHECK_UINT(packets_in(all.quiet[1]), done_of[QUIET_SENDS]);
    CHECK_UINT(packets_in(all.passing[1]), done_of[PASSING_SENDS]);
    CHECK_UINT(done_of[WAITING_SENDS] + done_of[RECEIVES] + done_of[POLLS], 0);
    CHECK_UINT(packets_in(all.talking[0]) + received, some_end ? PACKETS : 0);
    CHECK_UINT(left_in(all.stream[0]) + streamed, some_end ? PACKETS * TEXT_LEN : 0);
    CHECK_UINT(left_in(all.other[0]) + selected, some_end ? PACKETS * TEXT_LEN : 0);
    CHECK(!some_end || (received > 0 && streamed > 0 && selected > 0));
    CHECK_UINT(accepted + left_in_backlog(), some_end ? CLIENTS : 0);
    CHECK_UINT(read_of_pipe + left_in(all.pipe[0]), some_end ? WRITES * sizeof(uint64_t) : 0);
    uint64_t value = 0;
    fcntl(all.event, F_SETFL, O_NONBLOCK);
    CHECK(read(all.event, &value, sizeof(value)) == sizeof(value) || errno == EAGAIN);
    CHECK_UINT(value_of_event + value, some_end ? WRITES : 0);
    for (i = 0; some_end && i < CLIENTS; i++)
        close(clients[i]);
    close_sockets();
    free(things);
}

TEST(a_reactor_ends_with_ten_thousand_things_under_way)
{
    struct test_random random = test_random(0);
    end_with_everything_under_way(&random, false);
}

TEST(a_reactor_ends_with_ten_thousand_things_of_which_some_are_just_done)
{
    struct test_random random = test_random(0);
    for (unsigned round = 0; round < 3; round++)
        end_with_everything_under_way(&random, true);
}

/* --- how long it waits --------------------------------------------------------------------------- */

#define LONG_NS (60 * BM_NS_PER_S)
#define LOOK_NS                                                                                    \
    (100 * BM_NS_PER_MS) /* so much simulated time goes by with each look at the clock */

static uint64_t looked_ns;

static uint64_t look_at_clock(void *arg)
{
    (void)arg;
    return looked_ns += LOOK_NS;
}

static void no_luck(void *buf, size_t len, void *arg)
{
    (void)arg;
    memset(buf, 0, len);
}

/* The kernel takes its time. */
static enum bm_completion_verdict hold_long(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)op, (void)res, (void)flags, (void)arg;
    return looked_ns < LONG_NS ? BM_COMPLETION_HOLD : BM_COMPLETION_PASS;
}

/* Ends a reactor on which something is under way that takes a simulated minute. */
static void end_slowly(void)
{
    (void)bm_reactor_turn(rig.reactor);
    looked_ns = 0;
    bm_clock_set(&(struct bm_clock){.now_ns = look_at_clock, .random = no_luck});
    bm_completion_hook.fn = hold_long;
    bm_reactor_close(rig.reactor);
    bm_completion_hook.fn = NULL;
    bm_clock_set(NULL);
    CHECK(looked_ns >= LONG_NS);
    rig_close(&rig);
}

/* What is done to a file cannot be cancelled, and a disk that hangs is no bug of ours. */
TEST(a_reactor_that_ends_waits_for_files_however_long_they_take)
{
    static const enum bm_op_kind kinds[] = {BM_OP_WRITE, BM_OP_FSYNC, BM_OP_RENAME, BM_OP_CLOSE};
    struct probe probes[BM_ARRAY_LEN(kinds)];
    char path[600], to[600];
    snprintf(path, sizeof(path), "%s/file", test_tmpdir());
    snprintf(to, sizeof(to), "%s/to", test_tmpdir());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int closing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0 && closing >= 0);
    rig_open(&rig);
    for (size_t i = 0; i < BM_ARRAY_LEN(kinds); i++) {
        struct bm_op *op = &probes[i].op;
        probe_init(&probes[i], kinds[i]);
        op->fd = kinds[i] == BM_OP_RENAME ? AT_FDCWD : kinds[i] == BM_OP_CLOSE ? closing : fd;
        op->addr = path;
        op->len = 4;
        op->offset = kinds[i] == BM_OP_RENAME ? (uint64_t)(uintptr_t)to : 0;
        bm_op_start(rig.reactor, op);
    }
    end_slowly();
    for (size_t i = 0; i < BM_ARRAY_LEN(kinds); i++) {
        test_note("kind %d", kinds[i]);
        CHECK_INT(probes[i].calls, 1);
        CHECK(probes[i].res >= 0 || probes[i].res == -ECANCELED);
    }
    CHECK(probes[BM_ARRAY_LEN(kinds) - 1].res == 0); /* a close is never cancelled */
    close(fd);
}

/* A socket lets go when it is told to; if one does not, the kernel may still write to what is about to be
 * freed, and the process ends. */
TEST(a_reactor_that_ends_does_not_wait_for_a_socket_for_ever)
{
    pid_t child = fork();
    if (child == 0) {
        struct rlimit none = {0, 0};
        struct probe probe;
        char byte;
        int fds[2];
        int nothing = open("/dev/null", O_WRONLY | O_CLOEXEC);
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(nothing, STDERR_FILENO);
        socket_pair(SOCK_STREAM, fds);
        rig_open(&rig);
        probe_init(&probe, BM_OP_RECV);
        probe.op.fd = fds[0];
        probe.op.addr = &byte;
        probe.op.len = 1;
        bm_op_start(rig.reactor, &probe.op);
        end_slowly();
        _exit(0);
    }
    int status = 0;
    REQUIRE_INT(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status));
    CHECK_INT(WTERMSIG(status), SIGABRT);
}
