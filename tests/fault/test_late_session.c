/* A runtime stops while one of its reactors, which has not heard of it yet, makes a session to another
 * that has stopped already: it is refused, and nothing is left of it. */
#include <sched.h>

#include "runtime/path.h"
#include "runtime/runtime.h"
#include "tests/support/served.h"
#include "uring/spsc.h"

static struct {
    beam_session *here, *late;
    unsigned closes;
    int connected;
} all;

static void on_late_close(beam_session *session, const struct beam_status *status, void *arg)
{
    (void)session;
    (void)arg;
    CHECK_INT(status->code, BEAM_UNAVAILABLE);
    all.closes++;
}

/* On reactor 0, in the middle of its look at what has come in: it sees the stop in its next turn, and the
 * answer of reactor 1 in this one. */
static void stop_and_connect(beam_request *request, const beam_message *message, void *arg)
{
    static const struct beam_session_handlers handlers = {.on_close = on_late_close};
    beam_runtime *runtime = arg;
    (void)message;
    beam_runtime_stop(runtime);
    while (atomic_load(&runtime->quiet_count) == 0)
        sched_yield();
    all.connected =
        beam_connect(runtime, "ring:1", &BEAM_CONNECT_OPTIONS(.handlers = &handlers), &all.late);
    while (all.connected == 0 && !bm_spsc_peek(&bm_path_between(runtime, 1, 0)->ring))
        sched_yield();
    beam_reply(request, NULL);
}

static void nothing(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)status;
    (void)message;
    (void)arg;
}

static void begin(void *arg)
{
    beam_message *message = beam_message_new();
    CHECK_INT(beam_connect(arg, "ring:0", NULL, &all.here), 0);
    CHECK_INT(beam_call(all.here, "late", &message, nothing, NULL, NULL), 0);
    beam_message_free(message);
}

TEST(a_session_to_a_reactor_that_has_stopped_is_refused_and_leaves_nothing)
{
    beam_runtime *runtime;
    served_need_io_uring();
    all.closes = 0;
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2), &runtime), 0);
    REQUIRE_INT(beam_serve_on(runtime, 0, "late", stop_and_connect, runtime), 0);
    REQUIRE_INT(beam_post(runtime, 0, begin, runtime), 0);
    REQUIRE_INT(beam_run(runtime), 0);
    CHECK_INT(all.connected, 0);
    CHECK_UINT(all.closes, 1);
    beam_session_free(all.here);
    beam_session_free(all.late);
    beam_runtime_free(runtime);
}
