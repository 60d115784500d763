/* The ring between reactors where it is hardest to see: no memory for a session while it is full, and a
 * session that ends while it begins. */
#include <string.h>
#include <sys/resource.h>

#include "tests/support/test.h"
#include "tests/unit/runtime/on_core.h"
#include "tests/unit/runtime/scarce.h"

static struct {
    unsigned opens, closes, messages;
    enum beam_code code;
    char text[100];
} seen;

static void on_open(beam_session *session, void *arg)
{
    (void)session;
    (void)arg;
    seen.opens++;
}

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    (void)session;
    (void)arg;
    seen.closes++;
    seen.code = status->code;
    snprintf(seen.text, sizeof(seen.text), "%.*s", BEAM_STR(status->message));
}

static const struct beam_session_handlers session_handlers = {.on_open = on_open,
                                                              .on_close = on_close};

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    (void)channel;
    (void)message;
    (void)arg;
    seen.messages++;
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)channel;
    (void)status;
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers sink_handlers = {.on_message = on_message,
                                                           .on_end = on_end};
static const struct beam_channel_handlers no_handlers;

static void on_sink(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &sink_handlers, request);
}

static void turn(unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
}

static beam_session *connect_here(uint64_t timeout_ns)
{
    beam_session *session = NULL;
    REQUIRE_INT(
        beam_connect(on_core_runtime, "ring:0",
                     &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers, .timeout_ns = timeout_ns),
                     &session),
        0);
    return session;
}

TEST(ring_session_that_finds_no_memory_behind_a_full_ring_hears_of_it)
{
    enum { SLOTS = 1024 };
    memset(&seen, 0, sizeof(seen));
    core_begin();
    REQUIRE_INT(beam_serve(on_core_runtime, "sink", on_sink, NULL), 0);
    beam_session *first = connect_here(0);
    turn(10);
    REQUIRE_UINT(seen.opens, 1);
    beam_channel *channels[2];
    for (unsigned i = 0; i < 2; i++)
        REQUIRE_INT(beam_open(first, "sink", NULL, &no_handlers, NULL, NULL, &channels[i]), 0);
    turn(10);

    /* Its CONNECT is the first of a ring of slots. */
    beam_session *second = connect_here(0);
    for (unsigned i = 0; i < SLOTS - 1; i++)
        CHECK_INT(beam_channel_send_body(channels[i % 2], "x", 1), 0);
    scarce_begin(0);
    turn(1);
    scarce_end();
    turn(100);
    CHECK_UINT(seen.messages, SLOTS - 1);
    CHECK_UINT(seen.opens, 1);
    CHECK_UINT(seen.closes, 1);
    CHECK_INT(seen.code, BEAM_UNAVAILABLE);
    CHECK_STR(seen.text, "the other reactor has no memory");
    beam_session_free(second);
    for (unsigned i = 0; i < 2; i++)
        beam_channel_free(channels[i]);
    beam_session_free(first);
    if (seen.closes > 0) /* else it would wait for ever */
        core_end();
}

/* Both ends want more fds than the process has to grant, and ask again from time to time. */
TEST(ring_session_may_end_before_the_hello_that_is_under_way)
{
    struct rlimit whole, little;
    REQUIRE_INT(getrlimit(RLIMIT_NOFILE, &whole), 0);
    little = (struct rlimit){.rlim_cur = 64, .rlim_max = whole.rlim_max};
    for (unsigned turns = 0; turns < 8; turns++) {
        test_note("ended after %u turns", turns);
        REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &little), 0);
        REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true, .stop_timeout_ns = 1),
                                     &on_core_runtime),
                    0);
        memset(&seen, 0, sizeof(seen));
        beam_session *session = connect_here(0);
        turn(turns);
        on_core_runtime = beam_runtime_free(on_core_runtime);
        CHECK_UINT(seen.closes, 1);
        beam_session_free(session);
        REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &whole), 0);
    }
}
