/* A reactor for a test, with a watchdog: what hangs ends after WATCHDOG_NS and fails. */
#ifndef TEST_RIG_H
#define TEST_RIG_H

#include <errno.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/support/test.h"
#include "uring/reactor.h"

#define WATCHDOG_NS (20 * BM_NS_PER_S)

struct rig {
    struct bm_reactor *reactor;
    struct bm_timer watchdog;
    bool timed_out;
};

static inline void rig_watchdog(struct bm_timer *timer)
{
    struct rig *rig = bm_container_of(timer, struct rig, watchdog);
    rig->timed_out = true;
    bm_reactor_stop(rig->reactor);
}

static inline void rig_open_with(struct rig *rig, struct bm_reactor_options options)
{
    *rig = (struct rig){0};
    REQUIRE_INT(bm_reactor_new(&options, &rig->reactor), 0);
    bm_timer_init(&rig->watchdog, rig_watchdog);
}

static inline void rig_open(struct rig *rig)
{
    rig_open_with(rig, (struct bm_reactor_options){.spin = BM_SPIN_NEVER});
}

/* Until somebody stops the reactor. */
static inline void rig_run(struct rig *rig)
{
    bm_timer_arm(rig->reactor, &rig->watchdog, bm_clock_now_ns() + WATCHDOG_NS);
    CHECK_INT(bm_reactor_run(rig->reactor), 0);
    bm_timer_cancel(rig->reactor, &rig->watchdog);
    CHECK(!rig->timed_out);
}

/* Until no op is in flight. */
static inline void rig_settle(struct rig *rig)
{
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (bm_reactor_inflight(rig->reactor) > 0 && bm_clock_now_ns() < end_ns)
        bm_reactor_turn(rig->reactor);
    CHECK_INT(bm_reactor_inflight(rig->reactor), 0);
}

static inline void rig_close(struct rig *rig)
{
    CHECK_PTR(bm_reactor_free(rig->reactor), NULL);
}

/* An op that remembers how it ended. */
struct probe {
    struct bm_op op;
    struct rig *rig; /* stopped by the last callback, unless NULL */
    int calls;
    int res;
    uint32_t flags;
};

static inline void probe_done(struct bm_op *op, int res, uint32_t flags)
{
    struct probe *probe = bm_container_of(op, struct probe, op);
    probe->calls++;
    probe->res = res;
    probe->flags = flags;
    if (probe->rig && !bm_op_more(flags))
        bm_reactor_stop(probe->rig->reactor);
}

static inline void probe_init(struct probe *probe, enum bm_op_kind kind)
{
    *probe = (struct probe){0};
    bm_op_init(&probe->op, kind, probe_done);
}

/* Starts it, checks that nothing was called from inside, runs until it ended, returns the result. */
static inline int probe_run(struct rig *rig, struct probe *probe)
{
    int calls = probe->calls;
    bm_op_start(rig->reactor, &probe->op);
    CHECK_INT(probe->calls, calls);
    CHECK(!bm_op_idle(&probe->op));
    probe->rig = rig;
    rig_run(rig);
    probe->rig = NULL;
    CHECK_INT(probe->calls, calls + 1);
    CHECK(bm_op_idle(&probe->op));
    return probe->res;
}

/* A connected pair; both ends are the caller's to close. */
static inline void socket_pair(int type, int fds[2])
{
    REQUIRE_INT(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), 0);
}

static inline void close_pair(int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

#endif
