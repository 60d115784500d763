/* Bytes over stream sockets: receives into provided buffers, and sends that take a part. Each case runs
 * over a pair of unix sockets and over TCP. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "tests/unit/uring/rig.h"
#include "uring/kernel.h"
#include "uring/reactor_inner.h"

enum { GROUP = 5, SIZE = 64, COUNT = 4, MUCH = 16 << 20 };

static struct rig rig;
static struct bm_buffers *buffers;
static int pair[2]; /* [0] is the reactor's */

static void connect_over_tcp(int fds[2])
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_INT(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    REQUIRE_INT(listen(listener, 1), 0);
    REQUIRE_INT(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_INT(connect(fds[1], (struct sockaddr *)&addr, len), 0);
    /* As the accepted ones are in a reactor. */
    fds[0] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    REQUIRE(fds[0] >= 0);
    close(listener);
}

static void open_all(bool tcp)
{
    test_note(tcp ? "over TCP" : "over unix sockets");
    rig_open(&rig);
    if (tcp)
        connect_over_tcp(pair);
    else
        socket_pair(SOCK_STREAM, pair);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, COUNT, &buffers), 0);
    bm_reactor_turn(rig.reactor);
}

static void close_all(void)
{
    buffers = bm_buffers_free(buffers);
    rig_close(&rig);
    close(pair[0]);
    if (pair[1] >= 0)
        close(pair[1]);
}

#define OVER_BOTH(tcp) for (int tcp = 0; tcp < 2; tcp++)

/* The byte at this place of a stream. */
static char byte_at(size_t place)
{
    return (char)(place * 7 + place / 251);
}

static void send_bytes(size_t from, size_t to)
{
    char bytes[1024];
    REQUIRE(to - from <= sizeof(bytes));
    for (size_t i = from; i < to; i++)
        bytes[i - from] = byte_at(i);
    REQUIRE_INT(send(pair[1], bytes, to - from, 0), to - from);
}

/* Takes the bytes of a stream, and keeps their buffers if told to. */
struct receiver {
    struct bm_op op;
    size_t got, wrong;
    bool keep;
    int kept[COUNT], kept_len;
    int ends, last;
    unsigned longest;
};

static void received(struct bm_op *op, int res, uint32_t flags)
{
    struct receiver *self = bm_container_of(op, struct receiver, op);
    int index = bm_op_buffer(flags);
    if (res > 0) {
        REQUIRE(index >= 0);
        const char *bytes = bm_buffers_at(buffers, index);
        for (int i = 0; i < res; i++)
            self->wrong += bytes[i] != byte_at(self->got++);
        if ((unsigned)res > self->longest)
            self->longest = (unsigned)res;
    }
    if (index >= 0 && self->keep && res > 0)
        self->kept[self->kept_len++] = index;
    else if (index >= 0)
        bm_buffers_recycle(buffers, index);
    if (!bm_op_more(flags)) {
        CHECK(bm_op_idle(op));
        self->ends++;
        self->last = res;
    }
}

static void receiver_init(struct receiver *self, enum bm_op_kind kind)
{
    *self = (struct receiver){.last = 1};
    bm_op_init(&self->op, kind, received);
    self->op.fd = pair[0];
    self->op.group = GROUP;
}

static void turns(int n)
{
    while (n-- > 0)
        bm_reactor_turn(rig.reactor);
}

/* Until so many bytes have come; a receive that has ended is started again. */
static void until_got(struct receiver *self, size_t len)
{
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (self->got < len && bm_clock_now_ns() < end_ns) {
        if (bm_op_idle(&self->op))
            bm_op_start(rig.reactor, &self->op);
        turns(1);
    }
    CHECK_UINT(self->got, len);
}

static void until_ended(struct receiver *self, int ends)
{
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (self->ends < ends && bm_clock_now_ns() < end_ns)
        turns(1);
    CHECK_INT(self->ends, ends);
}

static void gives_all_bytes_and_the_end(enum bm_op_kind kind)
{
    enum { STEP = 150, STEPS = 60 }; /* more than two buffers */
    struct receiver receiver;
    receiver_init(&receiver, kind);
    bm_op_start(rig.reactor, &receiver.op);
    turns(2);
    for (unsigned i = 0; i < STEPS; i++) {
        send_bytes(i * STEP, (i + 1) * STEP);
        until_got(&receiver, (i + 1) * STEP);
    }
    send_bytes(STEPS * STEP, STEPS * STEP + 10);
    shutdown(pair[1], SHUT_WR); /* the end comes together with bytes */
    until_got(&receiver, STEPS * STEP + 10);
    if (bm_op_idle(&receiver.op))
        bm_op_start(rig.reactor, &receiver.op);
    rig_settle(&rig);
    CHECK_INT(receiver.last, 0);
    CHECK_UINT(receiver.wrong, 0);
    CHECK(receiver.longest <= SIZE);
    int ends = receiver.ends;
    bm_op_start(rig.reactor, &receiver.op); /* and is told to whoever asks again */
    until_ended(&receiver, ends + 1);
    CHECK_INT(receiver.last, 0);
}

TEST(stream_multishot_gives_all_bytes_and_the_end)
{
    OVER_BOTH(tcp)
    {
        open_all(tcp);
        gives_all_bytes_and_the_end(BM_OP_RECV_MULTISHOT);
        close_all();
    }
}

TEST(stream_select_gives_all_bytes_and_the_end)
{
    OVER_BOTH(tcp)
    {
        open_all(tcp);
        gives_all_bytes_and_the_end(BM_OP_RECV_SELECT);
        close_all();
    }
}

TEST(stream_multishot_goes_on_by_itself)
{
    OVER_BOTH(tcp)
    {
        struct receiver receiver;
        open_all(tcp);
        receiver_init(&receiver, BM_OP_RECV_MULTISHOT);
        bm_op_start(rig.reactor, &receiver.op);
        for (unsigned i = 0; i < 20; i++) {
            send_bytes(i, i + 1);
            until_got(&receiver, i + 1);
        }
        CHECK_INT(receiver.ends, 0);
        bm_op_cancel(rig.reactor, &receiver.op);
        rig_settle(&rig);
        CHECK_INT(receiver.ends, 1);
        CHECK_INT(receiver.last, -ECANCELED);
        close_all();
    }
}

TEST(stream_select_takes_one_buffer_and_no_more_than_it_asks_for)
{
    OVER_BOTH(tcp)
    {
        struct receiver receiver;
        open_all(tcp);
        send_bytes(0, 500);
        receiver_init(&receiver, BM_OP_RECV_SELECT);
        bm_op_start(rig.reactor, &receiver.op);
        rig_settle(&rig);
        CHECK_INT(receiver.ends, 1);
        CHECK_UINT(receiver.got, SIZE);
        receiver.op.len = 10;
        bm_op_start(rig.reactor, &receiver.op);
        rig_settle(&rig);
        CHECK_UINT(receiver.got, SIZE + 10);
        receiver.op.len = SIZE + 1;
        bm_op_start(rig.reactor, &receiver.op);
        rig_settle(&rig);
        CHECK_UINT(receiver.got, 2 * SIZE + 10);
        CHECK_UINT(receiver.wrong, 0);
        close_all();
    }
}

static void no_buffer_loses_nothing(enum bm_op_kind kind)
{
    struct receiver receiver;
    receiver_init(&receiver, kind);
    receiver.keep = true;
    send_bytes(0, 1000);
    until_got(&receiver, COUNT * SIZE);
    if (bm_op_idle(&receiver.op))
        bm_op_start(rig.reactor, &receiver.op);
    rig_settle(&rig);
    CHECK_INT(receiver.last, -ENOBUFS);
    CHECK_UINT(receiver.got, COUNT * SIZE);
    receiver.keep = false;
    while (receiver.kept_len > 0)
        bm_buffers_recycle(buffers, receiver.kept[--receiver.kept_len]);
    until_got(&receiver, 1000);
    CHECK_UINT(receiver.wrong, 0);
    bm_op_cancel(rig.reactor, &receiver.op);
    rig_settle(&rig);
}

TEST(stream_receive_without_a_buffer_ends_and_loses_nothing)
{
    OVER_BOTH(tcp)
    {
        open_all(tcp);
        no_buffer_loses_nothing(BM_OP_RECV_MULTISHOT);
        close_all();
        open_all(tcp);
        no_buffer_loses_nothing(BM_OP_RECV_SELECT);
        close_all();
    }
}

TEST(stream_receive_is_told_of_a_reset)
{
    static const enum bm_op_kind kinds[] = {BM_OP_RECV_MULTISHOT, BM_OP_RECV_SELECT};
    OVER_BOTH(tcp)
    {
        for (unsigned i = 0; i < 2; i++) {
            struct receiver receiver;
            struct linger linger = {.l_onoff = 1};
            open_all(tcp);
            receiver_init(&receiver, kinds[i]);
            bm_op_start(rig.reactor, &receiver.op);
            turns(2);
            /* What lies unread makes it a reset over a unix socket, the option over TCP. */
            CHECK_INT(send(pair[0], "x", 1, 0), 1);
            setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
            close(pair[1]);
            pair[1] = -1;
            rig_settle(&rig);
            CHECK_INT(receiver.ends, 1);
            CHECK_INT(receiver.last, -ECONNRESET);
            close_all();
        }
    }
}

/* Whenever it is cancelled: what it was given and what lies in the socket is all that was sent. */
TEST(stream_multishot_that_is_cancelled_loses_no_bytes)
{
    OVER_BOTH(tcp)
    {
        for (int turns_before = 0; turns_before < 4; turns_before++) {
            struct receiver receiver;
            int left = 0;
            open_all(tcp);
            receiver_init(&receiver, BM_OP_RECV_MULTISHOT);
            bm_op_start(rig.reactor, &receiver.op);
            send_bytes(0, 800);
            if (turns_before == 0)
                bm_ops_submit(rig.reactor);
            turns(turns_before);
            bm_op_cancel(rig.reactor, &receiver.op);
            rig_settle(&rig);
            CHECK_INT(receiver.ends, 1);
            CHECK_INT(ioctl(pair[0], FIONREAD, &left), 0);
            CHECK_UINT(receiver.got + (size_t)left, 800);
            CHECK_UINT(receiver.wrong, 0);
            close_all();
        }
    }
}

/* --- sends --------------------------------------------------------------------------------------- */

static char *much;

static void much_init(struct probe *probe)
{
    much = calloc(1, MUCH);
    REQUIRE(much != NULL);
    probe_init(probe, BM_OP_SEND);
    probe->op.fd = pair[0];
    probe->op.addr = much;
    probe->op.len = MUCH;
}

/* Reads all that has been sent so far, and says how much that was. */
static size_t read_out(void)
{
    static char bytes[1 << 16];
    size_t sum = 0;
    for (;;) {
        ssize_t n = recv(pair[1], bytes, sizeof(bytes), MSG_DONTWAIT);
        if (n <= 0)
            return sum;
        sum += (size_t)n;
    }
}

TEST(stream_send_to_all_goes_on_as_there_is_room)
{
    OVER_BOTH(tcp)
    {
        struct probe sending;
        size_t got = 0;
        uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
        open_all(tcp);
        much_init(&sending);
        sending.op.flags = MSG_WAITALL;
        bm_op_start(rig.reactor, &sending.op);
        turns(2);
        CHECK_INT(sending.calls, 0); /* no socket has so much room */
        while (got < MUCH && bm_clock_now_ns() < end_ns) {
            got += read_out();
            turns(1);
        }
        rig_settle(&rig);
        CHECK_UINT(got, MUCH);
        CHECK_INT(sending.calls, 1);
        CHECK_INT(sending.res, MUCH);
        free(much);
        close_all();
    }
}

/* Silent about a part it would lose the rest: nobody could know how much is missing. */
TEST(stream_send_that_is_quiet_tells_of_a_part_and_of_no_room)
{
    OVER_BOTH(tcp)
    {
        struct probe sending;
        size_t got = 0;
        uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
        open_all(tcp);
        much_init(&sending);
        sending.op.quiet = true;
        bm_op_start(rig.reactor, &sending.op);
        turns(3);
        CHECK_INT(sending.calls, 1);
        REQUIRE(sending.res > 0);
        REQUIRE(sending.res < MUCH);
        size_t part = (size_t)sending.res;

        bm_op_start(rig.reactor, &sending.op);
        turns(3);
        CHECK_INT(sending.calls, 2);
        if (!tcp) /* there, what is under way may have made room since */
            CHECK_INT(sending.res, -EAGAIN);
        part += sending.res > 0 ? (size_t)sending.res : 0;

        while (got < part && bm_clock_now_ns() < end_ns)
            got += read_out();
        CHECK_UINT(got, part);

        sending.op.len = 100; /* and is silent about what goes whole */
        uint64_t cqes = bm_reactor_stats(rig.reactor)->cqes;
        bm_op_start(rig.reactor, &sending.op);
        turns(2);
        bm_op_hurry(rig.reactor, &sending.op);
        rig_settle(&rig);
        CHECK_INT(sending.calls, 3);
        CHECK_INT(sending.res, 100);
        CHECK_UINT(bm_reactor_stats(rig.reactor)->cqes, cqes);
        free(much);
        close_all();
    }
}

TEST(stream_send_whose_peer_goes_tells_what_went)
{
    OVER_BOTH(tcp)
    {
        struct probe sending;
        open_all(tcp);
        much_init(&sending);
        sending.op.flags = MSG_WAITALL;
        bm_op_start(rig.reactor, &sending.op);
        turns(2);
        CHECK_INT(sending.calls, 0);
        close(pair[1]);
        pair[1] = -1;
        rig_settle(&rig);
        CHECK_INT(sending.calls, 1);
        CHECK(sending.res > 0);
        CHECK(sending.res < MUCH);
        CHECK(probe_run(&rig, &sending) < 0); /* and then why */
        free(much);
        close_all();
    }
}
