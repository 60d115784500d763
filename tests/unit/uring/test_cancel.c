/* Cancelling in every state of an op: the callback comes exactly once, whatever the kernel answers. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/uring/rig.h"
#include "uring/kernel.h"
#include "uring/reactor_inner.h"

static struct rig rig;
static char inbox[64];

static void recv_init(struct probe *probe, int fd)
{
    probe_init(probe, BM_OP_RECV);
    probe->op.fd = fd;
    probe->op.addr = inbox;
    probe->op.len = sizeof(inbox);
}

TEST(cancel_of_an_idle_op_does_nothing)
{
    struct probe probe;
    rig_open(&rig);
    probe_init(&probe, BM_OP_NOP);
    bm_op_cancel(rig.reactor, &probe.op);
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(probe.calls, 0);
    CHECK(bm_op_idle(&probe.op));
    rig_close(&rig);
}

TEST(cancel_in_line_ends_the_op_without_the_kernel)
{
    int fds[2];
    struct probe probe;
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    bm_reactor_turn(rig.reactor);
    uint64_t sqes = bm_reactor_stats(rig.reactor)->sqes;
    recv_init(&probe, fds[0]);
    bm_op_start(rig.reactor, &probe.op);
    CHECK_INT(probe.op.state, BM_OP_QUEUED);
    bm_op_cancel(rig.reactor, &probe.op);
    bm_op_cancel(rig.reactor, &probe.op);
    CHECK_INT(probe.calls, 0);
    rig_settle(&rig);
    CHECK_INT(probe.calls, 1);
    CHECK_INT(probe.res, -ECANCELED);
    CHECK_UINT(bm_reactor_stats(rig.reactor)->sqes, sqes);
    rig_close(&rig);
    close_pair(fds);
}

TEST(cancel_in_flight_ends_the_op_once)
{
    int fds[2];
    struct probe probe;
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    recv_init(&probe, fds[0]);
    bm_op_start(rig.reactor, &probe.op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(probe.op.state, BM_OP_INFLIGHT);
    bm_op_cancel(rig.reactor, &probe.op);
    bm_op_cancel(rig.reactor, &probe.op);
    CHECK_INT(probe.op.state, BM_OP_CANCELLING);
    rig_settle(&rig);
    CHECK_INT(probe.calls, 1);
    CHECK_INT(probe.res, -ECANCELED);
    rig_close(&rig);
    close_pair(fds);
}

TEST(cancel_after_completion_but_before_dispatch_gives_the_true_result)
{
    struct probe probe;
    rig_open(&rig);
    probe_init(&probe, BM_OP_NOP);
    bm_op_start(rig.reactor, &probe.op);
    bm_reactor_turn(rig.reactor); /* submits; the completion is in the ring, not dispatched */
    CHECK_INT(probe.calls, 0);
    REQUIRE(bm_kernel_pending(rig.reactor->kernel) & BM_PENDING_CQE);
    bm_op_cancel(rig.reactor, &probe.op);
    rig_settle(&rig);
    CHECK_INT(probe.calls, 1);
    CHECK_INT(probe.res, 0);
    CHECK(!bm_list_linked(&probe.op.node));
    for (int i = 0; i < 3; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(probe.calls, 1);
    rig_close(&rig);
}

/* The op is freed by its callback while its cancellation stands in the line. */
static void free_op(struct bm_op *op, int res, uint32_t flags)
{
    (void)res;
    (void)flags;
    bm_free(NULL, op, sizeof(*op));
}

TEST(cancel_in_line_for_an_op_that_completes_leaves_nothing_behind)
{
    rig_open(&rig);
    struct bm_op *op = bm_alloc(NULL, sizeof(*op));
    bm_op_init(op, BM_OP_NOP, free_op);
    bm_op_start(rig.reactor, op);
    bm_reactor_turn(rig.reactor);
    bm_op_cancel(rig.reactor, op);
    rig_settle(&rig);
    rig_close(&rig);
}

static struct probe victim;

static void cancel_victim(struct bm_op *op, int res, uint32_t flags)
{
    (void)op;
    (void)res;
    (void)flags;
    bm_op_cancel(rig.reactor, &victim.op);
}

TEST(cancel_from_another_callback_before_during_and_after)
{
    for (int delay = 0; delay < 6; delay++) {
        int fds[2];
        struct bm_op killer;
        test_note("delay %d", delay);
        socket_pair(SOCK_STREAM, fds);
        rig_open(&rig);
        recv_init(&victim, fds[0]);
        bm_op_init(&killer, BM_OP_NOP, cancel_victim);
        if (delay < 3)
            bm_op_start(rig.reactor, &victim.op);
        for (int i = 0; i < delay % 3; i++)
            bm_reactor_turn(rig.reactor);
        bm_op_start(rig.reactor, &killer);
        if (delay >= 3)
            bm_op_start(rig.reactor, &victim.op);
        CHECK_INT(send(fds[1], "data", 4, 0), 4);
        rig_settle(&rig);
        CHECK_INT(victim.calls, 1);
        CHECK(victim.res == 4 || victim.res == -ECANCELED);
        if (victim.res < 0) /* nothing was lost: the bytes are still in the socket */
            CHECK_INT(recv(fds[0], inbox, sizeof(inbox), MSG_DONTWAIT), 4);
        rig_close(&rig);
        close_pair(fds);
    }
}

TEST(cancel_of_an_accept_that_won_still_delivers_its_descriptor)
{
    /* Many rounds of the race: either the descriptor is delivered, or the connection stays queued. */
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sa_family_t family = AF_UNIX;
    REQUIRE_INT(bind(listener, (struct sockaddr *)&family, sizeof(family)), 0); /* autobind */
    REQUIRE_INT(listen(listener, 16), 0);
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    REQUIRE_INT(getsockname(listener, (struct sockaddr *)&addr, &len), 0);

    rig_open(&rig);
    int won = 0, lost = 0;
    for (int i = 0; i < 200; i++) {
        struct probe accepting;
        probe_init(&accepting, BM_OP_ACCEPT);
        accepting.op.fd = listener;
        bm_op_start(rig.reactor, &accepting.op);
        bm_reactor_turn(rig.reactor);
        if (i % 2)
            bm_op_cancel(rig.reactor, &accepting.op);
        if (i % 3 == 0)
            bm_reactor_turn(rig.reactor);
        int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE_INT(connect(client, (struct sockaddr *)&addr, len), 0);
        bm_op_cancel(rig.reactor, &accepting.op);
        rig_settle(&rig);
        CHECK_INT(accepting.calls, 1);
        if (accepting.res >= 0) {
            won++;
            close(accepting.res);
        } else {
            lost++;
            CHECK_INT(accepting.res, -ECANCELED);
            int queued = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            CHECK(queued >= 0);
            close(queued);
        }
        close(client);
    }
    CHECK_INT(won + lost, 200);
    rig_close(&rig);
    close(listener);
}

#define MANY 10000

TEST(cancel_of_ten_thousand_ops_in_flight_at_shutdown)
{
    static struct probe probes[MANY];
    int fds[2];
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    for (int i = 0; i < MANY; i++) {
        recv_init(&probes[i], fds[0]);
        bm_op_start(rig.reactor, &probes[i].op);
    }
    while (probes[MANY - 1].op.state != BM_OP_INFLIGHT)
        bm_reactor_turn(rig.reactor);
    bm_reactor_turn(rig.reactor);
    uint64_t start_ns = bm_clock_now_ns();
    rig_close(&rig);
    uint64_t took_ns = bm_clock_now_ns() - start_ns;
    int once = 0;
    for (int i = 0; i < MANY; i++)
        once += probes[i].calls == 1 && probes[i].res == -ECANCELED;
    CHECK_INT(once, MANY);
    CHECK(took_ns < 5 * BM_NS_PER_S); /* 0.1 s unloaded; the figure belongs to the benchmarks */
    close_pair(fds);
}

TEST(cancel_of_ten_thousand_ops_one_by_one)
{
    static struct probe probes[MANY];
    int fds[2];
    socket_pair(SOCK_STREAM, fds);
    rig_open(&rig);
    for (int i = 0; i < MANY; i++) {
        recv_init(&probes[i], fds[0]);
        bm_op_start(rig.reactor, &probes[i].op);
    }
    for (int i = 0; i < 20; i++) /* half are in flight, half in line */
        bm_reactor_turn(rig.reactor);
    for (int i = MANY - 1; i >= 0; i--)
        bm_op_cancel(rig.reactor, &probes[i].op);
    rig_settle(&rig);
    int once = 0;
    for (int i = 0; i < MANY; i++)
        once += probes[i].calls == 1 && probes[i].res == -ECANCELED;
    CHECK_INT(once, MANY);
    rig_close(&rig);
    close_pair(fds);
}
