/* Fresh channels and streams that travel with messages. */
#include <stdlib.h>

#include "tests/support/flow.h"

struct end {
    _Atomic unsigned messages, ends, writables;
    _Atomic int code;
    _Atomic uint64_t bytes, wrong;
    char text[256];
};

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct end *end = arg;
    size_t len;
    const void *body = beam_message_body(message, &len);
    uint32_t n = UINT32_MAX;
    if (len == sizeof(n))
        memcpy(&n, body, sizeof(n));
    if (n != end->messages)
        end->wrong++;
    end->messages++;
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

static void on_writable(beam_channel *channel, void *arg)
{
    ((struct end *)arg)->writables++;
    flow_tick();
}

static const struct beam_channel_handlers handlers = {on_message, on_writable, on_end};

static int send_number(beam_channel *channel, uint32_t n)
{
    return beam_channel_send_body(channel, &n, sizeof(n));
}

/* --- channels -------------------------------------------------------------------------------- */

/* Takes channel 0 and answers each of its messages with one of the same number. */
static beam_channel *taken[BEAM_MESSAGE_CHANNELS_MAX];

static void echo_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    on_message(channel, message, arg);
    int r = beam_channel_send_body(channel, body, len);
    CHECK(r == 0 || r == -EPIPE); /* or we have ended our direction */
}

static void echo_on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    on_end(channel, status, arg);
    beam_channel_end(channel);
}

static const struct beam_channel_handlers echo_handlers = {echo_on_message, NULL, echo_on_end};

static void on_take(beam_request *request, const beam_message *message, void *arg)
{
    struct end *there = arg;
    CHECK_UINT(beam_message_channel_count(message), 1);
    CHECK_PTR(beam_message_take_stream(message, 0), NULL); /* it is of the other kind */
    taken[0] = beam_message_take_channel(message, 0);
    CHECK(taken[0] != NULL);
    if (!taken[0])
        return;
    CHECK_PTR(beam_message_take_channel(message, 0), NULL);
    CHECK_PTR(beam_message_take_channel(message, 1), NULL);
    beam_channel_set_handlers(taken[0], &echo_handlers, there);
    beam_reply(request, NULL);
}

static void free_taken(beam_request *request, void *arg)
{
    /* A stream is a channel in byte mode, and freed alike. */
    for (unsigned i = 0; i < BEAM_MESSAGE_CHANNELS_MAX; i++)
        taken[i] = beam_channel_free(taken[i]);
}

FLOW_TEST(attached_channel_is_used_before_and_after_its_message_leaves)
{
    struct end *there = flow_share(sizeof(*there));
    struct end here = {0};
    flow_serve("take", on_take, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    CHECK_PTR(beam_message_take_channel(message, 0), NULL); /* the peer's to take, not ours */
    beam_channel_set_handlers(channel, &handlers, &here);
    for (uint32_t n = 0; n < 20; n++)
        CHECK_INT(send_number(channel, n), 0);
    struct flow_answer answer = flow_ask("take", message);
    CHECK_INT(answer.code, BEAM_OK);
    for (uint32_t n = 20; n < 40; n++)
        CHECK_INT(send_number(channel, n), 0);
    FLOW_WAIT(here.messages == 40);
    CHECK_UINT(there->messages, 40);
    CHECK_UINT(there->wrong + here.wrong, 0);

    beam_channel_end(channel);
    FLOW_WAIT(here.ends == 1);
    CHECK_INT(here.code, BEAM_OK);
    CHECK_INT(there->code, BEAM_OK);
    CHECK_UINT(there->ends, 1);
    beam_channel_free(channel);
    flow_at_server(free_taken, NULL);
    flow_settle();
    CHECK_UINT(here.ends, 1);
    flow_answer_clear(&answer);
}

FLOW_TEST(attached_channel_ended_before_its_message_leaves_ends_behind_its_data)
{
    struct end *there = flow_share(sizeof(*there));
    struct end here = {0};
    flow_serve("take", on_take, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    beam_channel_set_handlers(channel, &handlers, &here);
    for (uint32_t n = 0; n < 5; n++)
        CHECK_INT(send_number(channel, n), 0);
    beam_channel_end(channel);
    struct flow_answer answer = flow_ask("take", message);
    FLOW_WAIT(here.ends == 1);
    CHECK_UINT(there->messages, 5);
    CHECK_UINT(here.messages, 5);
    CHECK_INT(here.code, BEAM_OK);
    beam_channel_free(channel);
    flow_at_server(free_taken, NULL);
    flow_answer_clear(&answer);
}

static void end_taken(beam_request *request, void *arg)
{
    beam_channel_end(taken[0]);
}

static void reset_taken(beam_request *request, void *arg)
{
    beam_channel_reset(taken[0], BEAM_ABORTED, "after its end");
}

FLOW_TEST(reset_behind_an_end_is_not_told_as_another)
{
    struct end *there = flow_share(sizeof(*there));
    struct end here = {0};
    flow_serve("take", on_take, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    beam_channel_set_handlers(channel, &handlers, &here);
    struct flow_answer answer = flow_ask("take", message);
    REQUIRE_INT(answer.code, BEAM_OK);
    flow_at_server(end_taken, NULL);
    FLOW_WAIT(here.ends == 1);
    CHECK_INT(here.code, BEAM_OK);
    CHECK_INT(send_number(channel, 0), 0); /* our own direction goes on */
    FLOW_WAIT(there->messages == 1);
    flow_at_server(reset_taken, NULL);
    FLOW_WAIT(send_number(channel, 1) == -EPIPE);
    flow_settle();
    CHECK_UINT(here.ends, 1);
    CHECK_INT(here.code, BEAM_OK);
    CHECK_UINT(there->ends, 0);
    beam_channel_free(channel);
    flow_at_server(free_taken, NULL);
    flow_answer_clear(&answer);
}

static void on_ignore(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

FLOW_TEST(attached_channel_that_nobody_takes_is_reset)
{
    struct end here = {0};
    flow_serve("ignore", on_ignore, NULL);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    beam_channel_set_handlers(channel, &handlers, &here);
    CHECK_INT(send_number(channel, 0), 0);
    struct flow_answer answer = flow_ask("ignore", message);
    CHECK_INT(answer.code, BEAM_OK);
    FLOW_WAIT(here.ends == 1);
    CHECK_INT(here.code, BEAM_CANCELLED);
    CHECK_INT(send_number(channel, 1), -EPIPE);
    beam_channel_free(channel);
    flow_answer_clear(&answer);
}

FLOW_TEST(attached_channel_to_a_missing_service_is_reset)
{
    struct end here = {0};
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    beam_channel_set_handlers(channel, &handlers, &here);
    struct flow_answer answer = flow_ask("nobody", message);
    CHECK_INT(answer.code, BEAM_NOT_FOUND);
    FLOW_WAIT(here.ends == 1);
    CHECK_INT(here.code, BEAM_CANCELLED);
    beam_channel_free(channel);
    flow_answer_clear(&answer);
}

FLOW_TEST(attached_channel_of_a_message_freed_unsent_is_cancelled)
{
    struct end here = {0};
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    beam_stream *stream = beam_message_attach_stream(message);
    REQUIRE(channel && stream);
    beam_channel_set_handlers(channel, &handlers, &here);
    CHECK_INT(send_number(channel, 0), 0);
    beam_message_free(message);
    CHECK_UINT(here.ends, 0); /* told from the loop, not from inside the call */
    FLOW_WAIT(here.ends == 1);
    CHECK_INT(here.code, BEAM_CANCELLED);
    CHECK_INT(send_number(channel, 1), -EPIPE);
    CHECK_INT(beam_stream_write(stream, "x", 1), -EPIPE);
    beam_channel_free(channel);
    beam_stream_free(stream);
}

FLOW_TEST(attached_channel_freed_before_its_message_leaves_is_reset)
{
    struct end *there = flow_share(sizeof(*there));
    flow_serve("take", on_take, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    beam_channel_free(channel);
    struct flow_answer answer = flow_ask("take", message);
    FLOW_WAIT(there->ends == 1);
    CHECK_INT(there->code, BEAM_CANCELLED);
    flow_at_server(free_taken, NULL);
    flow_answer_clear(&answer);
}

static void on_take_all(beam_request *request, const beam_message *message, void *arg)
{
    struct end *there = arg;
    unsigned count = beam_message_channel_count(message);
    CHECK_UINT(count, BEAM_MESSAGE_CHANNELS_MAX);
    for (unsigned i = 0; i < count; i++) {
        taken[i] = beam_message_take_channel(message, i);
        REQUIRE(taken[i] != NULL);
        beam_channel_set_handlers(taken[i], &handlers, &there[i]);
        CHECK_INT(send_number(taken[i], 0), 0);
    }
    beam_reply(request, NULL);
}

FLOW_TEST(sixty_four_channels_travel_with_one_message_and_one_more_sticks)
{
    enum { N = BEAM_MESSAGE_CHANNELS_MAX };
    struct end *there = flow_share(N * sizeof(*there));
    struct end *here = calloc(N, sizeof(*here));
    beam_channel *channels[N];
    flow_serve("take", on_take_all, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    for (unsigned i = 0; i < N; i++) {
        channels[i] = beam_message_attach_channel(message);
        REQUIRE(channels[i] != NULL);
        beam_channel_set_handlers(channels[i], &handlers, &here[i]);
    }
    CHECK_UINT(beam_message_channel_count(message), N);
    struct flow_answer answer = flow_ask("take", message);
    CHECK_INT(answer.code, BEAM_OK);
    for (unsigned i = 0; i < N; i++)
        CHECK_INT(send_number(channels[i], 0), 0);
    for (unsigned i = 0; i < N; i++) {
        test_note("channel %u", i);
        FLOW_WAIT(here[i].messages == 1 && there[i].messages == 1);
        CHECK_UINT(here[i].wrong + there[i].wrong, 0);
        beam_channel_free(channels[i]);
        FLOW_WAIT(there[i].ends == 1);
        CHECK_INT(there[i].code, BEAM_CANCELLED);
    }
    flow_at_server(free_taken, NULL);
    flow_answer_clear(&answer);

    message = beam_message_new();
    for (unsigned i = 0; i < N; i++) {
        channels[i] = beam_message_attach_channel(message);
        REQUIRE(channels[i] != NULL);
    }
    CHECK_PTR(beam_message_attach_channel(message), NULL);
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    struct flow_answer none = {0};
    CHECK_INT(beam_call(flow.session, "take", &message, flow_on_reply, &none, NULL), -EMSGSIZE);
    beam_message_free(message);
    for (unsigned i = 0; i < N; i++)
        beam_channel_free(channels[i]);
    free(here);
}

static void on_offer(beam_request *request, const beam_message *message, void *arg)
{
    struct end *there = arg;
    beam_message *answer = beam_message_new();
    taken[0] = beam_message_attach_channel(answer);
    CHECK(taken[0] != NULL);
    if (!taken[0]) {
        beam_message_free(answer);
        return;
    }
    beam_channel_set_handlers(taken[0], &echo_handlers, there);
    beam_reply(request, &answer);
}

FLOW_TEST(answer_brings_a_channel_that_outlives_its_request)
{
    struct end *there = flow_share(sizeof(*there));
    struct end here = {0};
    flow_serve("offer", on_offer, there);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("offer", NULL);
    REQUIRE(answer.message != NULL);
    beam_channel *channel = beam_message_take_channel(answer.message, 0);
    REQUIRE(channel != NULL);
    flow_answer_clear(&answer);
    beam_channel_set_handlers(channel, &handlers, &here);
    for (uint32_t n = 0; n < 10; n++)
        CHECK_INT(send_number(channel, n), 0);
    FLOW_WAIT(here.messages == 10);
    CHECK_UINT(here.wrong + there->wrong, 0);
    beam_channel_free(channel);
    FLOW_WAIT(there->ends == 1);
    flow_at_server(free_taken, NULL);
}

static void on_offer_both(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(answer);
    beam_stream *stream = beam_message_attach_stream(answer);
    CHECK(channel && stream);
    if (!channel || !stream) {
        beam_channel_free(channel);
        beam_stream_free(stream);
        beam_message_free(answer);
        return;
    }
    beam_reply(request, &answer);
    for (uint32_t n = 0; n < 10; n++)
        CHECK_INT(send_number(channel, n), 0);
    CHECK_INT(beam_stream_write(stream, "0123456789", 10), 10);
    beam_channel_end(channel);
    beam_stream_end(stream);
    taken[0] = channel;
    taken[1] = (beam_channel *)stream;
}

static void on_digits(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct end *end = arg;
    if (memcmp(data, &"0123456789"[end->bytes], len) != 0)
        end->wrong++;
    end->bytes += len;
    flow_tick();
}

static void on_digits_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    on_end(NULL, status, arg);
}

static const struct beam_stream_handlers digit_handlers = {on_digits, NULL, on_digits_end};

FLOW_TEST(what_comes_before_a_channel_is_taken_waits_for_it)
{
    struct end here = {0}, stream_end = {0};
    flow_serve("offer", on_offer_both, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("offer", NULL);
    REQUIRE(answer.message != NULL);
    flow_settle();
    beam_channel *channel = beam_message_take_channel(answer.message, 0);
    beam_stream *stream = beam_message_take_stream(answer.message, 1);
    REQUIRE(channel && stream);
    beam_channel_set_handlers(channel, &handlers, &here);
    beam_stream_set_handlers(stream, &digit_handlers, &stream_end);
    CHECK_UINT(here.messages, 0);
    FLOW_WAIT(here.ends == 1 && stream_end.ends == 1);
    CHECK_UINT(here.messages, 10);
    CHECK_UINT(here.wrong + stream_end.wrong, 0);
    CHECK_INT(here.code, BEAM_OK);
    CHECK_UINT(stream_end.bytes, 10);
    CHECK_INT(stream_end.code, BEAM_OK);
    beam_channel_free(channel);
    beam_stream_free(stream);
    flow_at_server(free_taken, NULL);
    flow_answer_clear(&answer);

    /* And what nobody takes in the end is done with. */
    answer = flow_ask("offer", NULL);
    flow_settle();
    flow_answer_clear(&answer);
    flow_at_server(free_taken, NULL);
    answer = flow_ask("offer", NULL);
    REQUIRE(answer.message != NULL);
    channel = beam_message_take_channel(answer.message, 0);
    REQUIRE(channel != NULL);
    beam_channel_free(channel);
    flow_answer_clear(&answer);
    flow_at_server(free_taken, NULL);
}

FLOW_TEST(message_with_an_untaken_channel_cannot_be_passed_on)
{
    struct end *there = flow_share(sizeof(*there));
    flow_serve("offer", on_offer, there);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("offer", NULL);
    REQUIRE(answer.message != NULL);
    struct flow_answer none = {0};
    CHECK_INT(beam_call(flow.session, "offer", &answer.message, flow_on_reply, &none, NULL),
              -EINVAL);
    REQUIRE(answer.message != NULL);
    flow_answer_clear(&answer);
    FLOW_WAIT(there->ends == 1);
    CHECK_INT(there->code, BEAM_CANCELLED);
    flow_at_server(free_taken, NULL);
}

FLOW_TEST(attached_channels_count_against_the_limit_of_channels)
{
    struct end *there = flow_share(sizeof(*there));
    flow_serve("take", on_take, there);
    flow_start(&(struct flow_options){.server = {.channels_max = 8}});
    beam_message *message = beam_message_new();
    beam_channel *channels[8];
    for (unsigned i = 0; i < 8; i++) {
        channels[i] = beam_message_attach_channel(message);
        REQUIRE(channels[i] != NULL);
    }
    struct flow_answer none = {0};
    /* With its own it would be nine. */
    CHECK_INT(beam_call(flow.session, "take", &message, flow_on_reply, &none, NULL), -EAGAIN);
    CHECK(message != NULL);
    beam_message_free(message);
    for (unsigned i = 0; i < 8; i++)
        beam_channel_free(channels[i]);
    message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel != NULL);
    struct flow_answer answer = flow_ask("take", message);
    CHECK_INT(answer.code, BEAM_OK);
    beam_channel_free(channel);
    FLOW_WAIT(there->ends == 1);
    flow_at_server(free_taken, NULL);
    flow_answer_clear(&answer);
}

/* --- streams --------------------------------------------------------------------------------- */

#define STREAM_LEN ((uint64_t)10 << 20)

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 13 + (i >> 12));
}

static void check_bytes(struct end *end, const void *data, size_t len)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < len; i++)
        if (p[i] != byte_at(end->bytes + i))
            end->wrong++;
    end->bytes += len;
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    check_bytes(arg, data, len);
    flow_tick();
}

static void on_stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    on_end(NULL, status, arg);
}

/* Writes what it can, up to STREAM_LEN in all, then ends its direction. */
struct pump {
    struct end end;
    _Atomic uint64_t written;
    _Atomic unsigned refusals;
};

static void pump(beam_stream *stream, struct pump *pump)
{
    uint8_t chunk[50000];
    while (pump->written < STREAM_LEN) {
        size_t len = STREAM_LEN - pump->written < sizeof(chunk)
                         ? (size_t)(STREAM_LEN - pump->written)
                         : sizeof(chunk);
        for (size_t i = 0; i < len; i++)
            chunk[i] = byte_at(pump->written + i);
        ssize_t n = beam_stream_write(stream, chunk, len);
        if (n == -EAGAIN) {
            pump->refusals++;
            return;
        }
        CHECK(n > 0 && n <= (ssize_t)len);
        if (n <= 0)
            return;
        pump->written += (uint64_t)n;
    }
    beam_stream_end(stream);
}

static void pump_on_writable(beam_stream *stream, void *arg)
{
    pump(stream, arg);
}

static const struct beam_stream_handlers pump_handlers = {on_data, pump_on_writable, on_stream_end};

static beam_stream *streamed;

static void on_stream(beam_request *request, const beam_message *message, void *arg)
{
    CHECK_PTR(beam_message_take_channel(message, 0), NULL);
    streamed = beam_message_take_stream(message, 0);
    REQUIRE(streamed != NULL);
    beam_stream_set_handlers(streamed, &pump_handlers, arg);
    beam_reply(request, NULL);
    pump(streamed, arg);
}

static void free_streamed(beam_request *request, void *arg)
{
    streamed = beam_stream_free(streamed);
}

static void carry_stream(const struct flow_options *options)
{
    struct pump *there = flow_share(sizeof(*there));
    struct pump here = {0};
    flow_serve("stream", on_stream, there);
    flow_start(options);
    beam_message *message = beam_message_new();
    beam_stream *stream = beam_message_attach_stream(message);
    REQUIRE(stream != NULL);
    beam_stream_set_handlers(stream, &pump_handlers, &here);
    pump(stream, &here); /* what fits, before the message has left */
    CHECK(here.written > 0 && here.written < STREAM_LEN);
    struct flow_answer answer = flow_ask("stream", message);
    CHECK_INT(answer.code, BEAM_OK);
    FLOW_WAIT(here.end.ends == 1 && there->end.ends == 1);
    CHECK_INT(here.end.code, BEAM_OK);
    CHECK_INT(there->end.code, BEAM_OK);
    CHECK_UINT(here.end.bytes, STREAM_LEN);
    CHECK_UINT(there->end.bytes, STREAM_LEN);
    CHECK_UINT(here.end.wrong + there->end.wrong, 0);
    CHECK(here.refusals > 0 && there->refusals > 0);
    CHECK_INT(beam_stream_write(stream, "x", 1), -EPIPE);
    beam_stream_free(stream);
    flow_at_server(free_streamed, NULL);
    flow_answer_clear(&answer);
}

FLOW_TEST(stream_carries_ten_mebibytes_each_way_and_ends_each_way)
{
    carry_stream(NULL);
}

FLOW_TEST(stream_knows_no_limit_for_messages)
{
    const struct beam_limits short_messages = {.message_len_max = 1000};
    carry_stream(&(struct flow_options){.client = short_messages, .server = short_messages});
}

struct held {
    struct end end;
    _Atomic uint64_t held;
};

static void hold_on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct held *held = arg;
    beam_stream_hold(stream);
    held->held += len;
    check_bytes(&held->end, data, len);
    flow_tick();
}

static void hold_on_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    on_end(NULL, status, &((struct held *)arg)->end);
}

static const struct beam_stream_handlers hold_handlers = {hold_on_data, NULL, hold_on_end};

static void on_hold_stream(beam_request *request, const beam_message *message, void *arg)
{
    streamed = beam_message_take_stream(message, 0);
    REQUIRE(streamed != NULL);
    beam_stream_set_handlers(streamed, &hold_handlers, arg);
    beam_reply(request, NULL);
}

/* Its numbers are those of credit, of which a stream of its own knows nothing. */
#ifndef WITHOUT_CREDIT
static void release_held(beam_request *request, void *arg)
{
    struct held *held = arg;
    size_t len = (size_t)held->held;
    held->held = 0;
    beam_stream_release(streamed, len);
}

FLOW_TEST(held_bytes_stop_the_sender_until_they_are_released)
{
    struct held *there = flow_share(sizeof(*there));
    struct pump here = {0};
    flow_serve("stream", on_hold_stream, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_stream *stream = beam_message_attach_stream(message);
    REQUIRE(stream != NULL);
    beam_stream_set_handlers(stream, &pump_handlers, &here);
    struct flow_answer answer = flow_ask("stream", message);
    pump(stream, &here);
    FLOW_WAIT(here.refusals > 0 && there->held == here.written);
    flow_settle();
    FLOW_WAIT(there->held == here.written);
    uint64_t stopped_at = here.written;
    CHECK(stopped_at >= 65536 - 64 && stopped_at < 65536 + 2 * 32768 + 4096);
    flow_settle();
    CHECK_UINT(here.written, stopped_at);

    flow_at_server(release_held, there);
    FLOW_WAIT(here.written > stopped_at);
    while (here.end.ends == 0 && there->end.ends == 0 && here.written < STREAM_LEN) {
        uint64_t before = here.written;
        flow_at_server(release_held, there);
        FLOW_WAIT(here.written > before || there->held > 0);
    }
    FLOW_WAIT(there->end.bytes == STREAM_LEN || there->held > 0);
    flow_at_server(release_held, there);
    FLOW_WAIT(there->end.ends == 1);
    CHECK_UINT(there->end.bytes, STREAM_LEN);
    CHECK_UINT(there->end.wrong, 0);
    beam_stream_free(stream);
    flow_at_server(free_streamed, NULL);
    flow_answer_clear(&answer);
}
#endif

static void reset_streamed(beam_request *request, void *arg)
{
    beam_stream_reset(streamed, BEAM_DATA_LOSS, "torn");
    streamed = beam_stream_free(streamed);
}

FLOW_TEST(reset_of_a_stream_is_never_an_orderly_end)
{
    struct held *there = flow_share(sizeof(*there));
    struct pump here = {0};
    flow_serve("stream", on_hold_stream, there);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    beam_stream *stream = beam_message_attach_stream(message);
    REQUIRE(stream != NULL);
    beam_stream_set_handlers(stream, &pump_handlers, &here);
    struct flow_answer answer = flow_ask("stream", message);
    REQUIRE_INT(answer.code, BEAM_OK);
    pump(stream, &here);
    flow_at_server(reset_streamed, NULL);
    FLOW_WAIT(here.end.ends == 1);
    CHECK_INT(here.end.code, BEAM_DATA_LOSS);
    CHECK_STR(here.end.text, "torn");
    CHECK_INT(beam_stream_write(stream, "x", 1), -EPIPE);
    beam_stream_free(stream);
    flow_answer_clear(&answer);
}
