/* Connections without memory and with failing operations: each allocation, and each completion, of a
 * conversation fails once. Whatever that does to it, both ends are told once, nothing is left, and what
 * was said to be whole is. */
#include "tests/support/fault.h"
#include "tests/unit/net/connection_rig.h"

static void serve_scarce(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    struct rig_echo *echo = calloc(1, sizeof(*echo));
    (void)request;
    rig_echoes++;
    bm_exchange_take(exchange, &rig_echo_handlers, echo);
    if (bm_exchange_answer(exchange, 200, NULL, 0, NULL, -1) < 0)
        bm_exchange_reset(exchange);
}

static bool is_over(const struct rig_talk *talk)
{
    return talk->closes > 0 || rig.client.closed > 0 || !rig.client.connection;
}

static void wait_a_little(unsigned n)
{
    rig_turn(n < 100 ? 1 : 0);
    if (n >= 100)
        rig_later_ns += BM_NS_PER_S;
}

/* Until everything has ended that can; time passes, since a peer may wait for what was lost. */
static void converse(struct rig_talk *talk)
{
    int fds[2];
    rig_sockets(fds);
    if (rig_try_accept(&fds[0]) < 0 || rig_try_connect(&fds[1]) < 0) {
        for (int i = 0; i < 2; i++)
            if (fds[i] >= 0)
                close(fds[i]);
    }
    for (unsigned n = 0; n < 3000 && rig.client.opened == 0 && !is_over(talk); n++)
        wait_a_little(n);
    if (rig.client.connection && rig.client.opened > 0)
        (void)rig_ask(talk, "POST", "/", true);
    for (unsigned n = 0; n < 3000 && talk->exchange && !is_over(talk); n++)
        wait_a_little(n);
    CHECK(!talk->exchange || is_over(talk));
}

/* Returns whether the fault was there at all. */
static bool suffer(struct rig_way way, enum fault_kind kind, unsigned at)
{
    struct rig_talk talk = {.send_len = 40000};
    struct fault fault = {.kind = kind, .variant = at % FAULT_VARIANTS};
    rig_open_runtime(way);
    test_note("%s, fault %d at %u", way.name, (int)kind, at);
    rig.serve = serve_scarce;
    fault.at = at;
    fault_set(&fault, 0);
    converse(&talk);
    bool struck = atomic_load(&fault.struck);
    bool served = rig.server.closed > 0, asked = rig.client.closed > 0;
    atomic_store(&fault.lifted, true);
    if (talk.closes > 0 && talk.error == 0 && talk.status == 200) {
        CHECK_UINT(talk.got, talk.send_len);
        CHECK(!talk.wrong);
    }
    CHECK(!served || rig.server.closed == 1);
    CHECK(!asked || rig.client.closed == 1);
    rig_close_runtime();
    fault_unset();
    CHECK(rig.server.closed <= 1 && rig.client.closed <= 1 && talk.closes <= 1);
    return struck;
}

static void suffer_all(enum fault_kind kind, unsigned step)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        unsigned at = 1;
        while (at < 20000 && suffer(rig_ways[i], kind, at))
            at += rig_ways[i].tls && at > 40 ? 7 * step : step;
        CHECK(at > 3);
    }
}

TEST(connection_survives_each_allocation_that_fails)
{
    suffer_all(FAULT_ALLOCATION, 1);
}

TEST(connection_survives_each_completion_that_fails)
{
    suffer_all(FAULT_COMPLETION, 1);
}
