/* Ten thousand calls under way, and then the end: of the session, of the runtime that asks, of the one that
 * is asked. Each call ends once: UNKNOWN if its service may have run, UNAVAILABLE if it surely has not; each
 * request that a service has kept is cancelled once; and nothing is left. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/served.h"

enum { MANY = 10000 };

enum how {
    CLOSE_SESSION, /* the caller closes its session */
    FREE_SESSION,  /* ... gives its handle back */
    FREE_CALLER,   /* ... its runtime ends */
    FREE_SERVER,   /* the runtime of the service ends */
    HOWS,
};
static const char *const hows[] = {"the session is closed", "the session is freed",
                                   "the caller's runtime ends", "the server's runtime ends"};

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

static struct {
    bool ring;
    beam_runtime *caller, *server; /* over a ring they are one */
    beam_session *session;
    /* The caller's reactor. */
    uint8_t ends[MANY];
    uint8_t codes[MANY];
    unsigned ended;
    uint64_t queued; /* bytes, when all had been asked */
    /* The server's. */
    beam_request *kept[MANY];
    unsigned kept_count;
    uint8_t runs[MANY];
    atomic_uint ran, cancels;
    atomic_bool stands, goes_on;
} all;

static void keep_or_end(beam_request *request, void *arg)
{
    uintptr_t place = (uintptr_t)arg;
    atomic_fetch_add(&all.cancels, 1);
    /* The others are ended when there is no runtime any more. */
    if (place % 2) {
        all.kept[place] = NULL;
        beam_fail(request, BEAM_CANCELLED, NULL);
    }
}

static void keep(beam_request *request, const beam_message *message, void *arg)
{
    int64_t nr = 0;
    (void)arg;
    CHECK_INT(beam_message_get_int(message, "nr", &nr), 0);
    all.runs[nr]++;
    uintptr_t place = all.kept_count++;
    all.kept[place] = request;
    beam_request_keep(request);
    beam_request_on_cancel(request, keep_or_end, (void *)place);
    atomic_fetch_add(&all.ran, 1);
}

/* Its reactor does nothing else meanwhile. */
static void stand_still(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    atomic_store(&all.stands, true);
    while (!atomic_load(&all.goes_on))
        served_nap();
    beam_reply(request, NULL);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    uintptr_t nr = (uintptr_t)arg;
    (void)message;
    all.ends[nr]++;
    all.codes[nr] = (uint8_t)status->code;
    all.ended++;
}

static void call_all(void *arg)
{
    (void)arg;
    for (uintptr_t i = 0; i < MANY; i++) {
        beam_message *message = beam_message_new();
        beam_message_put_int(message, "nr", (int64_t)i);
        REQUIRE_INT(beam_call(all.session, "keep", &message, on_reply, (void *)i, NULL), 0);
    }
    struct beam_session_stats stats;
    beam_session_stats(all.session, &stats);
    all.queued = stats.queue_len;
}

static void read_queue_len(void *arg)
{
    struct beam_session_stats stats;
    beam_session_stats(all.session, &stats);
    *(uint64_t *)arg = stats.queue_len;
}

/* Bytes that have not left yet. */
static uint64_t queue_len(void)
{
    uint64_t len;
    served_run(all.caller, 0, read_queue_len, &len);
    return len;
}

static void have_it_stand_still(void *arg)
{
    (void)arg;
    REQUIRE_INT(beam_send_event(all.session, "stand.still", &(beam_message *){beam_message_new()}),
                0);
}

static void close_session(void *arg)
{
    (void)arg;
    beam_session_close(all.session);
}

static void start(bool ring)
{
    char name[80], url[100];
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.transports = transports, .stop_timeout_ns = 20 * BEAM_MS,
                             .limits.channels_max = MANY + 1, .reactors = ring ? 2 : 1);
    served_need_io_uring();
    memset(&all, 0, sizeof(all));
    all.ring = ring;
    raw_name(name, sizeof(name));
    snprintf(url, sizeof(url), "unix:@%s", name);
    REQUIRE_INT(beam_runtime_new(&options, &all.server), 0);
    REQUIRE_INT(beam_serve(all.server, "keep", keep, NULL), 0);
    REQUIRE_INT(beam_serve(all.server, "stand.still", stand_still, NULL), 0);
    REQUIRE_INT(beam_listen(all.server, url, NULL), 0);
    REQUIRE_INT(beam_start(all.server), 0);
    all.caller = all.server;
    if (!ring) {
        REQUIRE_INT(beam_runtime_new(&options, &all.caller), 0);
        REQUIRE_INT(beam_start(all.caller), 0);
    }
    REQUIRE_INT(beam_connect_wait(all.caller, ring ? "ring:1" : url, NULL, &all.session), 0);
}

static void look(void *arg)
{
    *(unsigned *)arg = all.ended;
}

static bool all_ended(void)
{
    unsigned ended;
    served_run(all.caller, 0, look, &ended);
    return ended >= MANY;
}

static void end_caller(void)
{
    beam_runtime_free(all.caller);
    if (all.server == all.caller)
        all.server = NULL;
    all.caller = NULL;
}

static void end_by(enum how how)
{
    switch (how) {
    case CLOSE_SESSION:
        served_run(all.caller, 0, close_session, NULL);
        break;
    case FREE_SESSION:
        all.session = beam_session_free(all.session);
        break;
    case FREE_SERVER:
        if (!all.ring) {
            all.server = beam_runtime_free(all.server);
            break;
        }
        __attribute__((fallthrough));
    default:
        end_caller();
        break;
    }
}

/* What is left of the runtimes, then of the handles, and what came out. */
static void finish(void)
{
    if (all.caller)
        WAIT_UNTIL(all_ended());
    if (all.server)
        WAIT_UNTIL(atomic_load(&all.cancels) == atomic_load(&all.ran));
    if (all.caller)
        end_caller();
    if (all.server)
        beam_runtime_free(all.server);
    beam_session_free(all.session);
    for (unsigned i = 0; i < all.kept_count; i++)
        if (all.kept[i])
            beam_fail(all.kept[i], BEAM_CANCELLED, "too late");

    unsigned once = 0;
    for (unsigned i = 0; i < MANY; i++)
        once += all.ends[i] == 1;
    CHECK_UINT(once, MANY);
    CHECK_UINT(all.ended, MANY);
    CHECK_UINT(atomic_load(&all.cancels), atomic_load(&all.ran));
}

TEST(ten_thousand_kept_requests_end_unknown_and_once)
{
    for (unsigned ring = 0; ring < 2; ring++) {
        for (enum how how = 0; how < HOWS; how++) {
            test_note("%s: %s", ring ? "ring" : "unix", hows[how]);
            start(ring);
            served_run(all.caller, 0, call_all, NULL);
            WAIT_UNTIL(atomic_load(&all.ran) == MANY);
            end_by(how);
            finish();
            unsigned unknown = 0;
            for (unsigned i = 0; i < MANY; i++)
                unknown += all.codes[i] == BEAM_UNKNOWN;
            CHECK_UINT(unknown, MANY);
        }
    }
}

TEST(ten_thousand_calls_to_one_who_does_not_look_are_told_apart)
{
    for (unsigned ring = 0; ring < 2; ring++) {
        for (enum how how = 0; how < HOWS; how++) {
            if (how == FREE_SERVER || (ring && how == FREE_CALLER))
                continue; /* it would have to look */
            test_note("%s: %s", ring ? "ring" : "unix", hows[how]);
            start(ring);
            served_run(all.caller, 0, have_it_stand_still, NULL);
            WAIT_UNTIL(atomic_load(&all.stands));
            served_run(all.caller, 0, call_all, NULL);
            WAIT_UNTIL(queue_len() < all.queued);
            end_by(how);
            if (all.caller)
                WAIT_UNTIL(all_ended());
            atomic_store(&all.goes_on, true);
            finish();

            unsigned unavailable = 0, unknown = 0, wrong = 0;
            for (unsigned i = 0; i < MANY; i++) {
                unavailable += all.codes[i] == BEAM_UNAVAILABLE;
                unknown += all.codes[i] == BEAM_UNKNOWN;
                /* They leave in their order, and what has surely not run has not. */
                wrong +=
                    i > 0 && all.codes[i] == BEAM_UNKNOWN && all.codes[i - 1] == BEAM_UNAVAILABLE;
                wrong += all.runs[i] > (all.codes[i] == BEAM_UNKNOWN);
            }
            CHECK_UINT(unavailable + unknown, MANY);
            CHECK(unavailable > 0);
            CHECK(unknown > 0);
            CHECK_UINT(wrong, 0);
        }
    }
}
