/* Channels opened by name: messages both ways, how each direction ends, credit. */
#include <stdlib.h>

#include "tests/support/flow.h"

/* One end as its callbacks see it. */
struct end {
    _Atomic unsigned messages, writables, ends;
    _Atomic int code;
    _Atomic unsigned out_of_order, after_end;
    char text[256];
};

/* Bodies are numbered from 0. */
static void count_message(struct end *end, const beam_message *message)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    uint32_t n = UINT32_MAX;
    if (len >= sizeof(n))
        memcpy(&n, body, sizeof(n));
    if (n != end->messages)
        end->out_of_order++;
    if (end->ends > 0)
        end->after_end++;
    end->messages++;
    flow_tick();
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    count_message(arg, message);
}

static void on_writable(beam_channel *channel, void *arg)
{
    ((struct end *)arg)->writables++;
    flow_tick();
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct end *end = arg;
    end->code = (int)status->code;
    flow_copy_text(end->text, sizeof(end->text), status->message);
    end->ends++;
    flow_tick();
}

static const struct beam_channel_handlers handlers = {on_message, on_writable, on_end};

static int send_number(beam_channel *channel, uint32_t n)
{
    return beam_channel_send_body(channel, &n, sizeof(n));
}

/* --- a service that is driven from the case -------------------------------------------------- */

/* The server's end of the channel under test: its copy, used there alone. */
static beam_request *served;

struct both {
    struct end here, there;
    _Atomic unsigned opened, cancelled;
};

static void on_cancelled(beam_request *request, void *arg)
{
    struct both *both = arg;
    both->cancelled++;
    flow_tick();
}

static void on_talk(beam_request *request, const beam_message *message, void *arg)
{
    struct both *both = arg;
    beam_request_keep(request);
    CHECK(beam_request_is_open(request));
    beam_request_on_cancel(request, on_cancelled, both);
    beam_channel_set_handlers(beam_request_channel(request), &handlers, &both->there);
    served = request;
    both->opened++;
    flow_tick();
}

static struct both *start_talk(const struct flow_options *options)
{
    struct both *both = flow_share(sizeof(*both));
    served = NULL;
    flow_serve("talk", on_talk, both);
    flow_start(options);
    return both;
}

static beam_channel *open_talk(struct both *both)
{
    beam_channel *channel = NULL;
    int r = beam_open(flow.session, "talk", NULL, &handlers, &both->here, NULL, &channel);
    REQUIRE_INT(r, 0);
    FLOW_WAIT(both->opened == 1);
    return channel;
}

static void serve_send_ten(beam_request *request, void *arg)
{
    for (uint32_t n = 0; n < 10; n++)
        CHECK_INT(send_number(beam_request_channel(served), n), 0);
}

static void serve_reply(beam_request *request, void *arg)
{
    CHECK(!beam_request_is_event(served));
    beam_reply(served, NULL);
    served = NULL;
}

static void serve_fail(beam_request *request, void *arg)
{
    beam_fail(served, BEAM_OUT_OF_RANGE, "too far");
    served = NULL;
}

static void serve_closed(beam_request *request, void *arg)
{
    CHECK(!beam_request_is_open(served));
    CHECK(!beam_request_is_cancelled(served));
}

FLOW_TEST(messages_go_both_ways_until_each_side_ends)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    for (uint32_t n = 0; n < 10; n++)
        CHECK_INT(send_number(channel, n), 0);
    flow_at_server(serve_send_ten, NULL);
    FLOW_WAIT(both->there.messages == 10 && both->here.messages == 10);
    CHECK_UINT(both->there.out_of_order, 0);
    CHECK_UINT(both->here.out_of_order, 0);

    /* We end first: they hear it once, behind the last message, and may go on. */
    beam_channel_end(channel);
    beam_channel_end(channel);
    CHECK_INT(send_number(channel, 10), -EPIPE);
    FLOW_WAIT(both->there.ends == 1);
    CHECK_INT(both->there.code, BEAM_OK);
    flow_at_server(serve_closed, NULL);
    CHECK_UINT(both->here.ends, 0);
    flow_at_server(serve_reply, NULL);
    FLOW_WAIT(both->here.ends == 1);
    CHECK_INT(both->here.code, BEAM_OK);
    flow_settle();
    CHECK_UINT(both->here.ends, 1);
    CHECK_UINT(both->there.ends, 1);
    CHECK_UINT(both->cancelled, 0);
    CHECK_UINT(both->here.after_end + both->there.after_end, 0);
    CHECK_PTR(beam_channel_free(channel), NULL);
}

FLOW_TEST(server_ends_first_and_the_caller_ends_with_it)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    flow_at_server(serve_reply, NULL);
    FLOW_WAIT(both->here.ends == 1);
    CHECK_INT(both->here.code, BEAM_OK);
    CHECK_INT(send_number(channel, 0), -EPIPE); /* C3: the request is over */
    flow_settle();
    CHECK_UINT(both->here.ends, 1);
    CHECK_UINT(both->cancelled, 0);
    beam_channel_free(channel);
}

FLOW_TEST(server_fails_and_the_caller_hears_why)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    CHECK_INT(send_number(channel, 0), 0);
    FLOW_WAIT(both->there.messages == 1);
    flow_at_server(serve_fail, NULL);
    FLOW_WAIT(both->here.ends == 1);
    CHECK_INT(both->here.code, BEAM_OUT_OF_RANGE);
    CHECK_STR(both->here.text, "too far");
    CHECK_INT(send_number(channel, 1), -EPIPE);
    beam_channel_reset(channel, BEAM_ABORTED, "too late to have an effect");
    flow_settle();
    CHECK_UINT(both->here.ends, 1);
    beam_channel_free(channel);
}

FLOW_TEST(caller_resets_and_the_server_hears_why)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    for (uint32_t n = 0; n < 3; n++)
        CHECK_INT(send_number(channel, n), 0);
    beam_channel_reset(channel, BEAM_DATA_LOSS, "lost it");
    beam_channel_reset(channel, BEAM_ABORTED, "again");
    CHECK_INT(send_number(channel, 3), -EPIPE);
    FLOW_WAIT(both->there.ends == 1 && both->cancelled == 1);
    CHECK_INT(both->there.code, BEAM_DATA_LOSS);
    CHECK_STR(both->there.text, "lost it");
    flow_at_server(serve_reply, NULL); /* to nobody */
    flow_settle();
    CHECK_UINT(both->here.ends, 0); /* our own reset is not told to us */
    CHECK_UINT(both->there.ends, 1);
    CHECK_UINT(both->cancelled, 1);
    beam_channel_free(channel);
}

FLOW_TEST(freeing_a_channel_cancels_it)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    beam_channel_free(channel);
    FLOW_WAIT(both->there.ends == 1 && both->cancelled == 1);
    CHECK_INT(both->there.code, BEAM_CANCELLED);
    flow_at_server(serve_reply, NULL);
    flow_settle();
    CHECK_UINT(both->here.ends + both->here.messages, 0);
}

FLOW_TEST(channel_to_no_service_ends_not_found)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = NULL;
    REQUIRE_INT(beam_open(flow.session, "nobody", NULL, &handlers, &both->here, NULL, &channel), 0);
    CHECK_INT(send_number(channel, 0), 0);
    FLOW_WAIT(both->here.ends == 1);
    CHECK_INT(both->here.code, BEAM_NOT_FOUND);
    CHECK_INT(send_number(channel, 1), -EPIPE);
    flow_settle();
    CHECK_UINT(both->here.ends, 1);
    beam_channel_free(channel);
}

FLOW_TEST(losing_the_session_ends_a_channel_and_never_with_success)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    beam_channel_end(channel);
    FLOW_WAIT(both->there.ends == 1);
    beam_session_close(flow.session);
    FLOW_WAIT(both->here.ends == 1 && both->cancelled == 1);
    CHECK_INT(both->here.code, BEAM_UNKNOWN);
    CHECK_INT(send_number(channel, 1), -EPIPE);
    flow.session = beam_session_free(flow.session);
    flow.session = flow_connect(NULL, NULL);
    flow_at_server(serve_reply, NULL);
    CHECK_UINT(both->here.ends, 1);
    beam_channel_free(channel);
}

FLOW_TEST(last_message_brings_the_end_with_it)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    for (uint32_t n = 0; n < 5; n++)
        CHECK_INT(send_number(channel, n), 0);
    beam_message *last = beam_message_new();
    uint32_t n = 5;
    beam_message_set_body(last, &n, sizeof(n));
    CHECK_INT(beam_channel_send_last(channel, &last), 0);
    CHECK_PTR(last, NULL);
    CHECK_INT(send_number(channel, 6), -EPIPE);
    FLOW_WAIT(both->there.ends == 1);
    CHECK_UINT(both->there.messages, 6);
    CHECK_INT(both->there.code, BEAM_OK);
    CHECK_UINT(both->there.out_of_order + both->there.after_end, 0);
    flow_at_server(serve_reply, NULL);
    FLOW_WAIT(both->here.ends == 1);
    beam_channel_free(channel);
}

FLOW_TEST(end_comes_behind_all_that_waits_to_be_sent)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = NULL;
    /* All at once, before the opening message has left: the end is queued behind the rest. */
    REQUIRE_INT(beam_open(flow.session, "talk", NULL, &handlers, &both->here, NULL, &channel), 0);
    for (uint32_t n = 0; n < 100; n++)
        CHECK_INT(send_number(channel, n), 0);
    beam_channel_end(channel);
    FLOW_WAIT(both->there.ends == 1);
    CHECK_UINT(both->there.messages, 100);
    CHECK_UINT(both->there.out_of_order + both->there.after_end, 0);
    flow_at_server(serve_reply, NULL);
    FLOW_WAIT(both->here.ends == 1);
    beam_channel_free(channel);
}

FLOW_TEST(bodies_of_all_small_sizes_keep_their_order)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    uint8_t body[200] = {0};
    /* Below and above what a slot of a ring holds, mixed. */
    for (uint32_t n = 0; n < 300; n++) {
        memcpy(body, &n, sizeof(n));
        int r = beam_channel_send_body(channel, body, 4 + (n * 7) % 190);
        if (r == -EAGAIN) {
            unsigned before = both->here.writables;
            FLOW_WAIT(both->here.writables > before);
            r = beam_channel_send_body(channel, body, 4 + (n * 7) % 190);
        }
        CHECK_INT(r, 0);
    }
    FLOW_WAIT(both->there.messages == 300);
    CHECK_UINT(both->there.out_of_order, 0);
    beam_channel_free(channel);
    FLOW_WAIT(both->cancelled == 1);
    flow_at_server(serve_reply, NULL);
}

/* --- callbacks that end their channel -------------------------------------------------------- */

enum ending { FREE_IN_MESSAGE, RESET_IN_MESSAGE, FREE_IN_END, FREE_IN_WRITABLE };

static struct {
    enum ending ending;
    unsigned messages, ends, writables;
    beam_channel *channel; /* until a callback frees it */
} ender;

static void ender_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    ender.messages++;
    if (ender.ending == FREE_IN_MESSAGE)
        beam_channel_free(channel);
    else if (ender.ending == RESET_IN_MESSAGE)
        beam_channel_reset(channel, BEAM_ABORTED, "enough");
    beam_message_body(message, &len); /* borrowed until we return, whatever we did */
    CHECK_UINT(len, sizeof(uint32_t));
}

static void ender_on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    ender.ends++;
    if (ender.ending == FREE_IN_END)
        beam_channel_free(channel);
}

static void ender_on_writable(beam_channel *channel, void *arg)
{
    ender.writables++;
    if (ender.ending == FREE_IN_WRITABLE)
        beam_channel_free(channel);
}

static const struct beam_channel_handlers ender_handlers = {ender_on_message, ender_on_writable,
                                                            ender_on_end};

static void ask_to_end(enum ending ending)
{
    memset(&ender, 0, sizeof(ender));
    ender.ending = ending;
}

static beam_channel *open_ender(struct both *both)
{
    beam_channel *channel = NULL;
    REQUIRE_INT(beam_open(flow.session, "talk", NULL, &ender_handlers, NULL, NULL, &channel), 0);
    ender.channel = channel;
    FLOW_WAIT(both->opened == 1);
    return channel;
}

FLOW_TEST(channel_may_be_freed_in_on_message)
{
    struct both *both = start_talk(NULL);
    ask_to_end(FREE_IN_MESSAGE);
    open_ender(both);
    flow_at_server(serve_send_ten, NULL);
    FLOW_WAIT(both->cancelled == 1);
    CHECK_INT(both->there.code, BEAM_CANCELLED);
    flow_settle();
    CHECK_UINT(ender.messages, 1);
    CHECK_UINT(ender.ends, 0);
    flow_at_server(serve_reply, NULL);
}

FLOW_TEST(channel_may_be_reset_in_on_message)
{
    struct both *both = start_talk(NULL);
    ask_to_end(RESET_IN_MESSAGE);
    beam_channel *channel = open_ender(both);
    flow_at_server(serve_send_ten, NULL);
    FLOW_WAIT(both->cancelled == 1);
    CHECK_INT(both->there.code, BEAM_ABORTED);
    flow_settle();
    CHECK_UINT(ender.messages, 1);
    CHECK_UINT(ender.ends, 0);
    flow_at_server(serve_reply, NULL);
    beam_channel_free(channel);
}

FLOW_TEST(channel_may_be_freed_in_on_end)
{
    struct both *both = start_talk(NULL);
    ask_to_end(FREE_IN_END);
    open_ender(both);
    flow_at_server(serve_reply, NULL);
    FLOW_WAIT(ender.ends == 1);
    flow_settle();
    CHECK_UINT(ender.ends, 1);
    CHECK_UINT(both->cancelled, 0);
}

static beam_message *hoard[4096];
static unsigned hoarded;

static void hoard_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    REQUIRE(hoarded < 4096);
    count_message(arg, message);
    hoard[hoarded++] = beam_message_keep(message);
}

static const struct beam_channel_handlers hoard_handlers = {hoard_on_message, on_writable, on_end};

static void on_hoard(beam_request *request, const beam_message *message, void *arg)
{
    struct both *both = arg;
    on_talk(request, message, arg);
    beam_channel_set_handlers(beam_request_channel(request), &hoard_handlers, &both->there);
}

static void free_hoard(beam_request *request, void *arg)
{
    while (hoarded > 0)
        beam_message_free(hoard[--hoarded]);
}

/* Sends numbered bodies of 100 bytes until refused; how many. */
static unsigned fill(beam_channel *channel, unsigned from)
{
    uint8_t body[100] = {0};
    for (uint32_t n = from; n < from + 4000; n++) {
        memcpy(body, &n, sizeof(n));
        int r = beam_channel_send_body(channel, body, sizeof(body));
        if (r < 0) {
            CHECK_INT(r, -EAGAIN);
            return n - from;
        }
    }
    CHECK_STR("never refused", "-EAGAIN");
    return 4000;
}

static struct both *start_hoard(void)
{
    struct both *both = flow_share(sizeof(*both));
    served = NULL;
    hoarded = 0;
    flow_serve("talk", on_hoard, both);
    flow_start(NULL);
    return both;
}

FLOW_TEST(channel_may_be_freed_in_on_writable)
{
    struct both *both = start_hoard();
    ask_to_end(FREE_IN_WRITABLE);
    beam_channel *channel = open_ender(both);
    fill(channel, 0);
    flow_settle();
    CHECK_UINT(ender.writables, 0);
    flow_at_server(free_hoard, NULL);
    FLOW_WAIT(ender.writables == 1);
    FLOW_WAIT(both->cancelled == 1);
    flow_settle();
    flow_at_server(free_hoard, NULL);
    flow_at_server(serve_reply, NULL);
}

/* --- credit ---------------------------------------------------------------------------------- */

FLOW_TEST(credit_returns_only_when_kept_messages_are_freed)
{
    struct both *both = start_hoard();
    beam_channel *channel = open_talk(both);
    unsigned sent = fill(channel, 0);
    /* The start rule: while credit is above 0, and the last one may overdraw it. */
    CHECK_UINT(sent, (65536 + 163) / 164);
    CHECK(beam_channel_credit(channel) <= 0);
    FLOW_WAIT(both->there.messages == sent);
    flow_settle();
    CHECK_UINT(both->here.writables, 0);
    CHECK(beam_channel_credit(channel) <= 0);

    flow_at_server(free_hoard, NULL);
    FLOW_WAIT(both->here.writables == 1);
    CHECK(beam_channel_credit(channel) > 65536 / 2);
    unsigned more = fill(channel, sent);
    CHECK(more > 100);
    FLOW_WAIT(both->there.messages == sent + more);
    CHECK_UINT(both->there.out_of_order, 0);
    flow_settle();
    CHECK_UINT(both->here.writables, 1);
    flow_at_server(free_hoard, NULL);
    FLOW_WAIT(both->here.writables == 2);
    beam_channel_free(channel);
    FLOW_WAIT(both->cancelled == 1);
    flow_at_server(serve_reply, NULL);
}

FLOW_TEST(order_is_kept_through_many_refusals)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    uint32_t n = 0;
    while (n < 20000) {
        unsigned writables = both->here.writables;
        int r = send_number(channel, n);
        if (r == 0) {
            n++;
            continue;
        }
        REQUIRE_INT(r, -EAGAIN);
        FLOW_WAIT(both->here.writables == writables + 1);
    }
    FLOW_WAIT(both->there.messages == n);
    CHECK_UINT(both->there.out_of_order, 0);
    CHECK(both->here.writables > 0);
    beam_channel_free(channel);
    FLOW_WAIT(both->cancelled == 1);
    flow_at_server(serve_reply, NULL);
}

static void serve_fill(beam_request *request, void *arg)
{
    _Atomic unsigned *sent = arg;
    *sent = fill(beam_request_channel(served), *sent);
}

FLOW_TEST(server_is_refused_and_hears_when_it_may_go_on)
{
    _Atomic unsigned *sent = flow_share(sizeof(*sent));
    struct both *both = start_talk(NULL);
    beam_channel *channel = NULL;
    hoarded = 0;
    REQUIRE_INT(beam_open(flow.session, "talk", NULL, &hoard_handlers, &both->here, NULL, &channel),
                0);
    FLOW_WAIT(both->opened == 1);
    flow_at_server(serve_fill, sent);
    FLOW_WAIT(both->here.messages == *sent);
    flow_settle();
    CHECK_UINT(both->there.writables, 0);
    free_hoard(NULL, NULL);
    FLOW_WAIT(both->there.writables == 1);
    flow_settle();
    CHECK_UINT(both->there.writables, 1);
    flow_at_server(serve_reply, NULL);
    FLOW_WAIT(both->here.ends == 1);
    CHECK_INT(both->here.code, BEAM_OK);
    beam_channel_free(channel);
}

FLOW_TEST(one_message_larger_than_the_window_goes_and_overdraws)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = open_talk(both);
    for (uint32_t n = 0; n < 5; n++) {
        beam_message *message = flow_message_of(300000, 0);
        REQUIRE_INT(beam_message_error(message), 0);
        size_t len;
        memcpy((void *)(uintptr_t)beam_message_body(message, &len), &n, sizeof(n));
        int r = beam_channel_send(channel, &message);
        if (r == -EAGAIN) {
            CHECK(beam_channel_credit(channel) <= 0);
            unsigned before = both->here.writables;
            FLOW_WAIT(both->here.writables > before);
            r = beam_channel_send(channel, &message);
        }
        CHECK_INT(r, 0);
    }
    FLOW_WAIT(both->there.messages == 5);
    CHECK_UINT(both->there.out_of_order, 0);
    beam_channel_free(channel);
    FLOW_WAIT(both->cancelled == 1);
    flow_at_server(serve_reply, NULL);
}

static void serve_answer(beam_request *request, void *arg)
{
    _Atomic unsigned *sent = arg;
    uint32_t n = *sent;
    beam_message *answer = beam_message_new();
    beam_message_set_body(answer, &n, sizeof(n));
    beam_reply(served, &answer);
    served = NULL;
}

FLOW_TEST(answer_needs_no_credit_of_the_application)
{
    struct both *both = start_talk(NULL);
    beam_channel *channel = NULL;
    _Atomic unsigned *sent = &both->opened;
    hoarded = 0;
    REQUIRE_INT(beam_open(flow.session, "talk", NULL, &hoard_handlers, &both->here, NULL, &channel),
                0);
    FLOW_WAIT(both->opened == 1);
    *sent = 0;
    flow_at_server(serve_fill, sent);
    flow_at_server(serve_answer,
                   sent); /* taken; it goes out behind the rest, when there is credit */
    FLOW_WAIT(both->here.messages == *sent);
    flow_settle();
    CHECK_UINT(both->here.messages, *sent);
    free_hoard(NULL, NULL);
    FLOW_WAIT(both->here.ends == 1);
    CHECK_UINT(both->here.messages, *sent + 1);
    free_hoard(NULL, NULL);
    CHECK_INT(both->here.code, BEAM_OK);
    CHECK_UINT(both->here.out_of_order + both->here.after_end, 0);
    beam_channel_free(channel);
}

FLOW_TEST(queue_of_a_session_is_bounded)
{
    struct both *both = start_talk(&(struct flow_options){.client = {.queue_len_max = 100000},
                                                          .server = {.queue_len_max = 100000}});
    beam_channel *channels[64] = {0};
    struct end *ends = calloc(64, sizeof(*ends));
    unsigned refused = 64;
    /* Nothing leaves before the reactor turns: what is accepted is bounded by the queue. */
    beam_session *session = flow_connect(NULL, NULL);
    FLOW_WAIT(beam_session_is_open(session));
    for (unsigned i = 0; i < 64 && refused == 64; i++) {
        beam_message *message = flow_message_of(20000, i);
        int r = beam_open(session, "nobody", &message, &handlers, &ends[i], NULL, &channels[i]);
        if (r == -EAGAIN)
            refused = i;
        else
            REQUIRE_INT(r, 0);
        beam_message_free(message);
    }
    CHECK(refused >= 4 && refused <= 6);
    for (unsigned i = 0; i < refused; i++) {
        FLOW_WAIT(ends[i].ends == 1);
        CHECK_INT(ends[i].code, BEAM_NOT_FOUND);
        beam_channel_free(channels[i]);
    }
    CHECK_UINT(both->opened, 0);
    beam_session_free(session);
    free(ends);
}
