/* A ring that is full: who waits for room on it gets it in turn, and whoever could make room is woken. */
#include <sched.h>

#include "tests/support/flow.h"
#include "tests/support/served.h"

static struct {
    beam_runtime *runtime;
    beam_session *sessions[2];
    beam_channel *channels[2];
    atomic_uint opened, sinks, busy;
    atomic_bool go;
    atomic_uint got, got_before_other; /* of the first session */
    atomic_bool other_came;
} full;

static void make(enum beam_spin_policy spin)
{
    served_need_io_uring();
    memset(&full, 0, sizeof(full));
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .spin = spin,
                                                       .limits.window = 4 << 20,
                                                       .stop_timeout_ns = 100 * BEAM_MS),
                                 &full.runtime),
                0);
}

/* --- in turn --------------------------------------------------------------------------------- */

static void on_sink_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const char *body = beam_message_body(message, &len);
    if (body[0] == '0') {
        atomic_fetch_add(&full.got, 1);
        return;
    }
    atomic_store(&full.got_before_other, atomic_load(&full.got));
    atomic_store(&full.other_came, true);
}

static void on_sink_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers sink_handlers = {
    .on_message = on_sink_message,
    .on_end = on_sink_end,
};

static void on_sink(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &sink_handlers, request);
    atomic_fetch_add(&full.sinks, 1);
}

static void on_open(beam_session *session, void *arg)
{
    atomic_fetch_add(&full.opened, 1);
}

static const struct beam_session_handlers session_handlers = {.on_open = on_open};
static const struct beam_channel_handlers no_handlers;

static void connect_two(void *arg)
{
    for (unsigned i = 0; i < 2; i++)
        CHECK_INT(beam_connect(full.runtime, "ring:1",
                               &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers),
                               &full.sessions[i]),
                  0);
}

static void open_two(void *arg)
{
    for (unsigned i = 0; i < 2; i++)
        CHECK_INT(
            beam_open(full.sessions[i], "sink", NULL, &no_handlers, NULL, NULL, &full.channels[i]),
            0);
}

static void be_busy(void *arg)
{
    atomic_store(&full.busy, 1);
    while (!atomic_load(&full.go))
        sched_yield();
}

enum { MUCH = 20000 };

static void send_much_and_little(void *arg)
{
    for (unsigned i = 0; i < MUCH; i++)
        CHECK_INT(beam_channel_send_body(full.channels[0], "0", 1), 0);
    CHECK_INT(beam_channel_send_body(full.channels[1], "1", 1), 0);
}

static void free_two(void *arg)
{
    for (unsigned i = 0; i < 2; i++) {
        full.channels[i] = beam_channel_free(full.channels[i]);
        full.sessions[i] = beam_session_free(full.sessions[i]);
    }
}

TEST(sessions_that_wait_for_a_full_ring_go_on_in_turn)
{
    make(BEAM_SPIN_AUTO);
    REQUIRE_INT(beam_serve(full.runtime, "sink", on_sink, NULL), 0);
    REQUIRE_INT(beam_start(full.runtime), 0);
    served_run(full.runtime, 0, connect_two, NULL);
    WAIT_UNTIL(atomic_load(&full.opened) == 2);
    served_run(full.runtime, 0, open_two, NULL);
    WAIT_UNTIL(atomic_load(&full.sinks) == 2);

    REQUIRE_INT(beam_post(full.runtime, 1, be_busy, NULL), 0);
    WAIT_UNTIL(atomic_load(&full.busy) == 1);
    served_run(full.runtime, 0, send_much_and_little, NULL);
    atomic_store(&full.go, true);
    WAIT_UNTIL(atomic_load(&full.got) == MUCH && atomic_load(&full.other_came));
    /* Behind what was in the ring, and one turn of the other. */
    CHECK(atomic_load(&full.got_before_other) < 4 * 1024);
    served_run(full.runtime, 0, free_two, NULL);
    full.runtime = beam_runtime_free(full.runtime);
}

/* --- full of what nobody was woken for -------------------------------------------------------- */

enum { MESSAGES = 8000 }; /* more than go home in a ring: six to a slot */

static beam_message *messages[MESSAGES];

static void make_messages(void *arg)
{
    for (unsigned i = 0; i < MESSAGES; i++)
        messages[i] = beam_message_new();
}

static void free_messages(void *arg)
{
    for (unsigned i = 0; i < MESSAGES; i++)
        beam_message_free(messages[i]);
}

TEST(a_ring_full_of_messages_on_their_way_home_leads_to_a_sleeper_who_is_woken)
{
    make(BEAM_SPIN_OFF);
    REQUIRE_INT(beam_start(full.runtime), 0);
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect_wait(full.runtime, "ring:1", NULL, &session), 0);
    session = beam_session_free(session);
    served_run(full.runtime, 1, make_messages, NULL);
    for (unsigned i = 0; i < 20; i++) /* until it sleeps */
        served_nap();
    served_run(full.runtime, 0, free_messages, NULL);
    CHECK_INT(beam_connect_wait(full.runtime, "ring:1",
                                &BEAM_CONNECT_OPTIONS(.timeout_ns = 3 * BEAM_SEC), &session),
              0);
    beam_session_free(session);
    full.runtime = beam_runtime_free(full.runtime);
}
