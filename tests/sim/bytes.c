/* A sender sends with every kind of send, a receiver receives with both kinds of provided buffers; either is
 * cancelled now and then. Each counts what it was told; at the end the counts are equal. */
#include "tests/sim/bytes.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/sim/sim.h"
#include "uring/buffers.h"
#include "uring/reactor.h"

enum { ALL = 200000, GROUP = 3, SIZE = 700, COUNT = 4, TURNS_MAX = 200000 };

static struct {
    struct bm_reactor *reactor;
    struct bm_buffers *buffers;
    struct bm_op sending, receiving;
    size_t sent, got;
    bool ended, shut, rest; /* rest: of a quiet send, which is not to be quiet */
    int fds[2];
    unsigned char bytes[ALL];
} all;

static void on_sent(struct bm_op *op, int res, uint32_t flags)
{
    (void)flags;
    if (res > (int)op->len)
        sim_fail("more bytes were sent than there were");
    all.rest = op->quiet && res < (int)op->len;
    if (res > 0)
        all.sent += (size_t)res;
    else if (res != -EAGAIN && res != -ECANCELED && res != -ENOMEM && res != -ENOBUFS &&
             res != -EINTR)
        sim_fail("a send fails: %d", res);
}

static void on_received(struct bm_op *op, int res, uint32_t flags)
{
    int index = bm_op_buffer(flags);
    if (res > 0) {
        const unsigned char *bytes = bm_buffers_at(all.buffers, index);
        if (op->len > 0 && res > (int)op->len)
            sim_fail("more bytes came than were asked for");
        if (memcmp(bytes, all.bytes + all.got, (size_t)res) != 0)
            sim_fail("other bytes came");
        all.got += (size_t)res;
    } else if (res == 0) {
        if (bm_op_more(flags))
            sim_fail("more is to come behind the end");
        all.ended = true;
    }
    if (index >= 0)
        bm_buffers_recycle(all.buffers, index);
}

static void send_some(void)
{
    size_t left = ALL - all.sent;
    size_t len = 1 + sim_below(sim_below(2) == 0 ? 300 : 60000);
    bm_op_init(&all.sending, BM_OP_SEND, on_sent);
    all.sending.fd = all.fds[1];
    all.sending.addr = all.bytes + all.sent;
    all.sending.len = (uint32_t)(len < left ? len : left);
    all.sending.flags = sim_below(2) == 0 ? MSG_WAITALL : 0;
    all.sending.quiet = !all.rest && sim_below(2) == 0;
    bm_op_start(all.reactor, &all.sending);
    if (all.sending.quiet)
        bm_op_hurry(all.reactor, &all.sending);
}

static void receive_some(void)
{
    bool once = sim_below(2) == 0;
    bm_op_init(&all.receiving, once ? BM_OP_RECV_SELECT : BM_OP_RECV_MULTISHOT, on_received);
    all.receiving.fd = all.fds[0];
    all.receiving.group = GROUP;
    all.receiving.len = once ? (uint32_t)sim_below(SIZE) : 0;
    bm_op_start(all.reactor, &all.receiving);
}

static unsigned odds_of(unsigned most)
{
    return sim_below(2) == 0 ? (unsigned)sim_below(most) + 1 : 0;
}

static void pass_time(void)
{
    if (sim_next_ns() != SIM_NEVER)
        sim_advance(sim_next_ns());
}

void bytes_run(uint64_t seed)
{
    memset(&all, 0, sizeof(all));
    sim_start(seed, false);
    for (size_t i = 0; i < ALL; i++)
        all.bytes[i] = (unsigned char)sim_below(256);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, all.fds) < 0 ||
        bm_reactor_new(&(struct bm_reactor_options){.spin = BM_SPIN_NEVER}, &all.reactor) < 0 ||
        bm_buffers_new(all.reactor, GROUP, SIZE, COUNT, &all.buffers) < 0)
        sim_fail("no reactor");
    sim.odds = (struct sim_odds){
        .late = odds_of(5000),
        .refused = odds_of(1000),
        .no_buffer = odds_of(1000),
        .ends_early = odds_of(3000),
        .enter = odds_of(1000),
        .reorder = odds_of(10000),
        .cancel_race = odds_of(10000),
        .short_send = odds_of(5000),
        .short_recv = odds_of(5000),
        .small_ring = sim_below(4) == 0,
    };
    unsigned cancels = odds_of(500);
    for (unsigned turns = 0; !all.ended; turns++) {
        if (turns == TURNS_MAX)
            sim_fail("no end: %zu sent, %zu got", all.sent, all.got);
        if (bm_op_idle(&all.sending) && all.sent < ALL)
            send_some();
        if (bm_op_idle(&all.sending) && all.sent == ALL && !all.shut)
            all.shut = shutdown(all.fds[1], SHUT_WR) == 0;
        if (bm_op_idle(&all.receiving))
            receive_some();
        if (sim_chance(cancels))
            bm_op_cancel(all.reactor, &all.sending);
        if (sim_chance(cancels))
            bm_op_cancel(all.reactor, &all.receiving);
        if (bm_reactor_turn(all.reactor) < 0)
            sim_fail("a turn fails");
        sim_notice();
        if (sim_below(4) == 0)
            pass_time();
    }
    if (all.sent != ALL || all.got != ALL)
        sim_fail("%zu bytes were sent, and %zu came", all.sent, all.got);
    sim.odds = (struct sim_odds){0};
    while (bm_reactor_inflight(all.reactor) > 0) {
        bm_reactor_turn(all.reactor);
        pass_time();
    }
    all.buffers = bm_buffers_free(all.buffers);
    all.reactor = bm_reactor_free(all.reactor);
    close(all.fds[0]);
    close(all.fds[1]);
    sim_stop();
}
