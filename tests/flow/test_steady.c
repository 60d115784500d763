/* What a message costs once everything is warm: no allocation, and over a ring between reactors that
 * are awake, no system call. */
#include "tests/support/flow.h"

static unsigned messages(void)
{
    return flow_many(10000, 300);
}

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message *answer = beam_message_new();
    beam_message_set_body(answer, body, len);
    beam_message_put_int(answer, "n", 7);
    beam_reply(request, &answer);
}

static struct {
    unsigned begun, ended, wanted, depth, wrong;
} run;

static void call_next(void);

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    run.wrong += status->code != BEAM_OK;
    run.ended++;
    if (run.begun < run.wanted && flow.session)
        call_next();
    else if (run.ended == run.wanted)
        flow_tick();
}

static void call_next(void)
{
    static const char body[100] = "all of it is copied";
    beam_message *question = beam_message_new();
    beam_message_set_body(question, body, sizeof(body));
    beam_message_put_int(question, "n", 7);
    run.begun++;
    int r = beam_call(flow.session, "echo", &question, on_reply, NULL,
                      &BEAM_CALL_OPTIONS(.timeout_ns = 60 * BEAM_SEC));
    if (r < 0) {
        CHECK_INT(r, 0);
        beam_message_free(question);
    }
}

static void call_many(unsigned count, unsigned depth)
{
    memset(&run, 0, sizeof(run));
    run.wanted = count;
    for (unsigned i = 0; i < depth; i++)
        call_next();
    FLOW_WAIT(run.ended == count);
    CHECK_UINT(run.wrong, 0);
}

/* Counters of the reactor this is called on; a struct beam_stats is larger than an atomic, hence the
 * two numbers that matter. */
struct cost {
    _Atomic uint64_t allocs, enters;
};

static void read_cost(struct cost *cost)
{
    struct beam_stats stats;
    CHECK_INT(beam_runtime_stats(flow_runtime_here(), (unsigned)beam_reactor_current(), &stats), 0);
    cost->allocs = stats.allocs;
    cost->enters = stats.enters;
}

static void read_cost_at_server(beam_request *request, void *arg)
{
    read_cost(arg);
}

/* Warm is who has had as many messages under way at once as there will ever be. That is bounded but a
 * matter of luck between threads, and so is the round that brings it; one that costs something for
 * each message, or each hundredth, never has a round without. */
#define ROUNDS 8

static void check_rounds(void (*work)(unsigned count), struct cost *there)
{
    uint64_t most = flow_allocs_max(messages());
    uint64_t here_allocs = most + 1, there_allocs = most + 1;
    for (unsigned i = 0; i < ROUNDS && (here_allocs > most || there_allocs > most); i++) {
        struct cost before, after;
        flow_at_server(read_cost_at_server, &there[0]);
        read_cost(&before);
        work(messages());
        read_cost(&after);
        flow_at_server(read_cost_at_server, &there[1]);
        here_allocs = after.allocs - before.allocs;
        there_allocs = there[1].allocs - there[0].allocs;
    }
    CHECK(here_allocs <= most);
    CHECK(there_allocs <= most);
}

static void check_no_allocs(void (*work)(unsigned count))
{
    struct cost *there = flow_share(2 * sizeof(*there));
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    work(messages());
    check_rounds(work, there);
}

static void call_one_by_one(unsigned count)
{
    call_many(count, 1);
}

static void call_sixty_four_deep(unsigned count)
{
    call_many(count, 64);
}

FLOW_TEST(requests_one_by_one_allocate_nothing)
{
    check_no_allocs(call_one_by_one);
}

FLOW_TEST(requests_in_bulk_allocate_nothing)
{
    check_no_allocs(call_sixty_four_deep);
}

/* --- channel messages ------------------------------------------------------------------------ */

static beam_channel *channel;
static unsigned echoed;

static void on_echoed(beam_channel *c, const beam_message *message, void *arg)
{
    if (++echoed == run.wanted)
        flow_tick();
}

static const struct beam_channel_handlers handlers = {.on_message = on_echoed};

static void back_on_message(beam_channel *c, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    CHECK_INT(beam_channel_send_body(c, body, len), 0);
}

static const struct beam_channel_handlers back_handlers = {.on_message = back_on_message};

static void end_back(beam_request *request, void *arg)
{
    beam_reply(request, NULL);
}

static void on_back(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &back_handlers, NULL);
    beam_request_on_cancel(request, end_back, NULL);
}

static void send_many(unsigned count)
{
    static const char body[150] = "a body";
    echoed = 0;
    run.wanted = count;
    for (unsigned sent = 0; sent < count;) {
        /* A few at a time, so that the other end, which answers each, has credit for its answers. */
        size_t len = sent % 2 ? 30 : sizeof(body);
        int r = sent - echoed < 64 ? beam_channel_send_body(channel, body, len) : -EAGAIN;
        if (r == 0) {
            sent++;
            continue;
        }
        REQUIRE_INT(r, -EAGAIN);
        unsigned before = echoed;
        FLOW_WAIT(echoed > before);
    }
    FLOW_WAIT(echoed == count);
}

static void open_back(void)
{
    REQUIRE_INT(beam_open(flow.session, "back", NULL, &handlers, NULL, NULL, &channel), 0);
    flow_settle();
}

FLOW_TEST(channel_messages_allocate_nothing)
{
    struct cost *there = flow_share(2 * sizeof(*there));
    flow_serve("back", on_back, NULL);
    flow_start(NULL);
    open_back();
    send_many(messages());
    check_rounds(send_many, there);
    channel = beam_channel_free(channel);
    flow_settle();
}

/* --- system calls ---------------------------------------------------------------------------- */

static void check_no_enters(void)
{
    struct cost *there = flow_share(2 * sizeof(*there));
    struct cost before, after;
    flow_serve("echo", on_echo, NULL);
    flow_start(&(struct flow_options){.spin = BEAM_SPIN_FOREVER});
    call_many(100, 1);
    flow_at_server(read_cost_at_server, &there[0]);
    read_cost(&before);
    call_many(messages(), 1);
    read_cost(&after);
    flow_at_server(read_cost_at_server, &there[1]);
    /* A few belong to the fixture, which turns the reactor anew each millisecond. */
    CHECK_UINT((after.enters - before.enters) / (messages() / 50), 0);
    CHECK_UINT((there[1].enters - there[0].enters) / (messages() / 50), 0);
}

TEST(ring_messages_between_awake_reactors_need_no_system_call)
{
    flow_run(FLOW_SELF, check_no_enters);
    flow_run(FLOW_RING, check_no_enters);
}
