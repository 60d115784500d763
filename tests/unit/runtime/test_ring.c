/* The ring between reactors where it is hardest to see: no memory for a session while it is full, and a
 * session that ends while it begins. */
#include <sched.h>
#include <string.h>
#include <sys/resource.h>

#include "runtime/path.h"
#include "tests/support/served.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/on_core.h"
#include "tests/unit/runtime/scarce.h"
#include "uring/reactor_inner.h"

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

/* --- a question that was answered too early ------------------------------------------------------ */

/* The reader publishes its head and then looks whether room is wanted. In between the writer may have
 * filled what was just given back, and asked: that question is taken as if it were for the room that the
 * writer has had, and the writer finds none when it looks. It has to ask again before it sleeps. */

enum { SENT = 3000 }; /* three rings full */

static struct {
    beam_runtime *runtime;
    beam_session *session;
    beam_channel *channel;
    struct bm_task task;
    struct bm_source source;
    atomic_uint received, disorder;
    atomic_bool stands, goes_on, taken;
} early;

static void count_in_order(beam_channel *channel, const beam_message *message, void *arg)
{
    uint32_t number = UINT32_MAX;
    size_t len;
    const void *body = beam_message_body(message, &len);
    (void)channel;
    (void)arg;
    if (len == sizeof(number))
        memcpy(&number, body, len);
    if (number != atomic_fetch_add(&early.received, 1))
        atomic_fetch_add(&early.disorder, 1);
}

static void end_of_count(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)channel;
    (void)status;
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers counting = {.on_message = count_in_order,
                                                      .on_end = end_of_count};
static const struct beam_channel_handlers silent = {0};

static void stand_and_count(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &counting, request);
    atomic_store(&early.stands, true);
    while (!atomic_load(&early.goes_on))
        sched_yield();
}

/* As the reader does, for the head that it has published before. */
static void take_question(void)
{
    struct bm_path *path = bm_path_between(early.runtime, 0, 1);
    if (atomic_load(&early.goes_on))
        return;
    CHECK_PTR(bm_spsc_reserve(&path->ring), NULL);
    atomic_exchange(&path->want_room, 0);
    atomic_store(&early.taken, true);
}

/* Behind the flush of the turn that fills the ring, and behind whatever looks at it in later ones. */
static void take_in_task(struct bm_task *task)
{
    (void)task;
    take_question();
}

static bool never_ready(struct bm_source *source)
{
    (void)source;
    return false;
}

static unsigned take_in_drain(struct bm_source *source, unsigned budget)
{
    (void)source;
    (void)budget;
    take_question();
    return 0;
}

static void fill_the_ring(void *arg)
{
    (void)arg;
    for (uint32_t i = 0; i < SENT; i++)
        REQUIRE_INT(beam_channel_send_body(early.channel, &i, sizeof(i)), 0);
    early.task.fn = take_in_task;
    bm_task_queue(bm_core_current()->reactor, &early.task);
    early.source.ready = never_ready;
    early.source.drain = take_in_drain;
    bm_source_add(bm_core_current()->reactor, &early.source);
}

static void open_channel(void *arg)
{
    (void)arg;
    REQUIRE_INT(beam_open(early.session, "count", NULL, &silent, NULL, NULL, &early.channel), 0);
}

static void free_channel(void *arg)
{
    (void)arg;
    bm_source_remove(bm_core_current()->reactor, &early.source);
    early.channel = beam_channel_free(early.channel);
}

TEST(ring_writer_whose_question_was_taken_for_older_room_is_woken_all_the_same)
{
    served_need_io_uring();
    memset(&early, 0, sizeof(early));
    /* No credit comes back that would wake the writer: the window is never half used. */
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .spin = BEAM_SPIN_OFF,
                                                       .limits.window = 16u << 20),
                                 &early.runtime),
                0);
    REQUIRE_INT(beam_serve(early.runtime, "count", stand_and_count, NULL), 0);
    REQUIRE_INT(beam_start(early.runtime), 0);
    REQUIRE_INT(beam_connect_wait(early.runtime, "ring:1", NULL, &early.session), 0);
    served_run(early.runtime, 0, open_channel, NULL);
    WAIT_UNTIL(atomic_load(&early.stands));
    REQUIRE_INT(beam_post(early.runtime, 0, fill_the_ring, NULL), 0);
    WAIT_UNTIL(atomic_load(&early.taken));
    struct bm_reactor *writer = early.runtime->cores[0].reactor;
    for (unsigned asleep = 0; asleep < 20; asleep++) {
        served_nap();
        if (!atomic_load(&writer->sleeping))
            asleep = 0; /* it looks again */
    }
    atomic_store(&early.goes_on, true);
    WAIT_UNTIL(atomic_load(&early.received) == SENT);
    CHECK_UINT(atomic_load(&early.disorder), 0);
    served_run(early.runtime, 0, free_channel, NULL);
    beam_session_free(early.session);
    beam_runtime_free(early.runtime);
}
