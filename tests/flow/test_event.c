/* Events: one by one, in order, bounded by the credit of whoever listens. */
#include "tests/support/flow.h"

struct seen {
    _Atomic unsigned count, wrong, as_event;
    _Atomic int64_t last;
};

static void on_tick(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    int64_t n = -1;
    beam_message_get_int(message, "n", &n);
    if (n != (int64_t)seen->count)
        seen->wrong++;
    if (beam_request_is_event(request) && !beam_request_is_open(request))
        seen->as_event++;
    seen->last = n;
    seen->count++;
    /* Neither has an effect on an event. */
    beam_message *answer = beam_message_new();
    beam_reply(request, &answer);
    CHECK_PTR(answer, NULL);
    beam_fail(request, BEAM_INTERNAL, "no");
}

static int send_tick(unsigned n)
{
    beam_message *event = beam_message_new();
    beam_message_put_uint(event, "n", n);
    int r = beam_send_event(flow.session, "tick", &event);
    CHECK((r == 0) == (event == NULL));
    beam_message_free(event);
    return r;
}

/* Sends all, waiting for the session's on_writable when it is refused. */
static unsigned send_ticks(unsigned count)
{
    unsigned refusals = 0;
    for (unsigned n = 0; n < count;) {
        unsigned writables = flow.writables;
        int r = send_tick(n);
        if (r == 0) {
            n++;
            continue;
        }
        REQUIRE_INT(r, -EAGAIN);
        refusals++;
        FLOW_WAIT(flow.writables == writables + 1);
    }
    return refusals;
}

FLOW_TEST(events_arrive_one_by_one_and_in_order)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve("tick", on_tick, seen);
    flow_start(NULL);
    send_ticks(5000);
    FLOW_WAIT(seen->count == 5000);
    CHECK_UINT(seen->wrong, 0);
    CHECK_UINT(seen->as_event, 5000);
    CHECK_UINT(seen->last, 4999);
}

/* --- a slow consumer ------------------------------------------------------------------------- */

static beam_message *hoard[4096];
static unsigned hoarded;

static void on_hoard(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    REQUIRE(hoarded < 4096);
    hoard[hoarded++] = beam_message_keep(message);
    on_tick(request, message, seen);
}

static void free_hoard(beam_request *request, void *arg)
{
    while (hoarded > 0)
        beam_message_free(hoard[--hoarded]);
}

FLOW_TEST(slow_consumer_of_events_stops_the_sender_and_nothing_is_lost)
{
    struct seen *seen = flow_share(sizeof(*seen));
    hoarded = 0;
    flow_serve("tick", on_hoard, seen);
    flow_start(NULL);
    unsigned sent = 0;
    int r = 0;
    while (sent < 4000 && (r = send_tick(sent)) == 0)
        sent++;
    REQUIRE_INT(r, -EAGAIN);
    CHECK(sent > 100); /* a window of 65 536, with some 96 bytes each */
    FLOW_WAIT(seen->count == sent);
    flow_settle();
    CHECK_INT(send_tick(sent), -EAGAIN);
    CHECK_UINT(flow.writables, 0);

    flow_at_server(free_hoard, NULL);
    FLOW_WAIT(flow.writables == 1);
    CHECK_INT(send_tick(sent), 0);
    FLOW_WAIT(seen->count == sent + 1);
    CHECK_UINT(seen->wrong, 0);
    flow_settle();
    CHECK_UINT(flow.writables, 1);
    flow_at_server(free_hoard, NULL);
}

FLOW_TEST(events_of_one_name_do_not_wait_for_those_of_another)
{
    struct seen *slow = flow_share(sizeof(*slow));
    struct seen *seen = flow_share(sizeof(*seen));
    hoarded = 0;
    flow_serve("slow", on_hoard, slow);
    flow_serve("tick", on_tick, seen);
    flow_start(NULL);
    int r = 0;
    for (unsigned i = 0; r == 0 && i < 4000; i++) {
        beam_message *event = beam_message_new();
        beam_message_put_uint(event, "n", i);
        r = beam_send_event(flow.session, "slow", &event);
        beam_message_free(event);
    }
    REQUIRE_INT(r, -EAGAIN);
    CHECK_INT(send_tick(0), 0);
    FLOW_WAIT(seen->count == 1);
    FLOW_WAIT(slow->count > 0);
    flow_settle();
    flow_at_server(free_hoard, NULL);
}

static void serve_tick(beam_request *request, void *arg)
{
    CHECK_INT(beam_serve(flow_runtime_here(), "tick", on_tick, arg), 0);
}

FLOW_TEST(events_for_nobody_are_dropped_until_somebody_serves_them)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_start(NULL);
    CHECK_INT(send_tick(7), 0);
    flow_settle();
    CHECK_INT(send_tick(8), 0);
    flow_settle();
    flow_at_server(serve_tick, seen);
    CHECK_INT(send_tick(0), 0);
    FLOW_WAIT(seen->count == 1);
    CHECK_UINT(seen->wrong, 0);
    flow_settle();
    CHECK_UINT(flow.closes, 0);
}

FLOW_TEST(sender_that_waits_for_credit_hears_that_there_is_no_service)
{
    flow_start(&(struct flow_options){.unawaited = true});
    unsigned sent = 0;
    int r;
    while ((r = send_tick(sent)) == 0 && sent < 4000)
        sent++;
    REQUIRE_INT(r, -EAGAIN);
    FLOW_WAIT(flow.writables == 1);
    FLOW_WAIT(flow.opens == 1);
    flow_settle();
    CHECK_INT(send_tick(0), 0);
}

/* --- the other way --------------------------------------------------------------------------- */

static void on_subscribe(beam_request *request, const beam_message *message, void *arg)
{
    for (unsigned n = 0; n < 50; n++) {
        beam_message *event = beam_message_new();
        beam_message_put_uint(event, "n", n);
        CHECK_INT(beam_send_event(beam_request_session(request), "tick", &event), 0);
        beam_message_free(event);
    }
    beam_reply(request, NULL);
}

FLOW_TEST(events_flow_from_server_to_client)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve("subscribe", on_subscribe, NULL);
    flow_serve("tick", on_tick, seen);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("subscribe", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    FLOW_WAIT(seen->count == 50);
    CHECK_UINT(seen->wrong, 0);
    flow_answer_clear(&answer);
}

FLOW_TEST(event_larger_than_a_frame_arrives_whole)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve("tick", on_tick, seen);
    flow_start(NULL);
    for (unsigned n = 0; n < 4; n++) {
        beam_message *event = flow_message_of(200000, n);
        beam_message_put_uint(event, "n", n);
        int r = beam_send_event(flow.session, "tick", &event);
        while (r == -EAGAIN) {
            unsigned writables = flow.writables;
            FLOW_WAIT(flow.writables > writables);
            r = beam_send_event(flow.session, "tick", &event);
        }
        REQUIRE_INT(r, 0);
    }
    FLOW_WAIT(seen->count == 4);
    CHECK_UINT(seen->wrong, 0);
}
