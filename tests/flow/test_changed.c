/* Messages that were received, kept and built upon: what their sender is owed is what they cost when they
 * came, not what they were made into. */
#include "tests/support/flow.h"

#define WINDOW 65536
#define ROUNDS 100 /* a window is 65 536 bytes, and a message 1000 */

/* What the server makes of each message before it goes back, and how much came back. */
struct change {
    size_t to;     /* length of the new body */
    bool metadata; /* and a map of metadata is put */
    bool free;     /* it does not go back at all */
    _Atomic unsigned there, here, ends;
};

static void on_there(beam_channel *channel, const beam_message *message, void *arg)
{
    struct change *change = arg;
    beam_message *kept = beam_message_keep(message);
    void *room = kept ? beam_message_reserve_body(kept, change->to) : NULL;
    CHECK(room != NULL);
    if (!room) {
        beam_message_free(kept);
        return;
    }
    memset(room, 'x', change->to);
    if (change->metadata)
        beam_message_put_str(kept, "note", "a text that was not there when it came");
    change->there++;
    if (!change->free)
        CHECK_INT(beam_channel_send(channel, &kept), 0);
    beam_message_free(kept);
    flow_tick();
}

static void on_there_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    ((struct change *)arg)->ends++;
    flow_tick();
}

static const struct beam_channel_handlers there_handlers = {
    .on_message = on_there,
    .on_end = on_there_end,
};

static beam_request *served;

static void on_change(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &there_handlers, arg);
    served = request;
}

static void serve_reply(beam_request *request, void *arg)
{
    beam_reply(served, NULL);
}

static void on_here(beam_channel *channel, const beam_message *message, void *arg)
{
    ((struct change *)arg)->here++;
    flow_tick();
}

static const struct beam_channel_handlers here_handlers = {.on_message = on_here};

/* One message of `len` at a time; their credit is what it was when all are done with. */
static void go_round(const struct change *how, size_t len, const struct flow_options *options)
{
    struct change *change = flow_share(sizeof(*change));
    beam_channel *channel;
    *change = *how;
    flow_serve("change", on_change, change);
    flow_start(options);
    REQUIRE_INT(beam_open(flow.session, "change", NULL, &here_handlers, change, NULL, &channel), 0);
    flow_settle();
    for (unsigned i = 0; i < ROUNDS; i++) {
        test_note("message %u, credit %lld", i, (long long)beam_channel_credit(channel));
        beam_message *message = flow_message_of(len, i);
        REQUIRE_INT(beam_channel_send(channel, &message), 0);
        FLOW_WAIT(change->there == i + 1 && (how->free || change->here == i + 1));
        FLOW_WAIT(beam_channel_credit(channel) > 0);
        REQUIRE(beam_channel_credit(channel) <= WINDOW);
    }
    beam_channel_end(channel);
    FLOW_WAIT(change->ends == 1);
    flow_at_server(serve_reply, NULL);
    flow_settle();
    beam_channel_free(channel);
}

FLOW_TEST(credit_of_a_message_that_was_shortened_is_what_it_came_with)
{
    go_round(&(struct change){.to = 1}, 1000, NULL);
}

FLOW_TEST(credit_of_a_message_that_has_grown_is_what_it_came_with)
{
    go_round(&(struct change){.to = 3000, .metadata = true}, 1000, NULL);
}

/* One that crosses a ring as a view of itself, and is not the view's any more once it is kept. */
FLOW_TEST(credit_of_a_small_message_that_has_grown_is_what_it_came_with)
{
    go_round(&(struct change){.to = 3000}, 100, NULL);
}

FLOW_TEST(credit_of_a_message_that_was_changed_and_freed_is_what_it_came_with)
{
    go_round(&(struct change){.to = 0, .metadata = true, .free = true}, 1000, NULL);
}

/* The budget for large messages, too: a few of them fit at once. */
FLOW_TEST_UNIX(large_messages_that_were_changed_leave_the_budget_as_it_was)
{
    struct flow_options options = {
        .server = {.message_len_max = 1u << 19, .large_len_max = 1u << 20}};
    go_round(&(struct change){.to = 1, .free = true}, 200000, &options);
}

FLOW_TEST_UNIX(large_messages_that_have_grown_leave_the_budget_as_it_was)
{
    struct flow_options options = {
        .server = {.message_len_max = 1u << 19, .large_len_max = 1u << 20}};
    go_round(&(struct change){.to = 200008, .free = true}, 200000, &options);
}
