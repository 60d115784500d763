#include <beam/beam.h>

#include <poll.h>
#include <stdio.h>
#include <unistd.h>

#include "runtime/core.h"
#include "runtime/frame.h"
#include "runtime/pool.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

#define BLOCKS 64u
#define TURNS_MAX 1000u

static beam_runtime *runtime;

static bool turn_until(const bool *done)
{
    for (unsigned i = 0; i < TURNS_MAX && !*done; i++) {
        struct pollfd pfd = {.fd = beam_runtime_fd(runtime), .events = POLLIN};
        if (poll(&pfd, 1, 1000) == 0)
            return false; /* nothing will come any more */
        CHECK_INT(beam_runtime_turn(runtime), 0);
    }
    return *done;
}

static void on_open(beam_session *session, void *arg)
{
    *(bool *)arg = true;
}

static void on_greet(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    CHECK_INT(status->code, BEAM_OK);
    *(bool *)arg = true;
}

TEST(packet_that_found_no_memory_is_packed_when_there_is_some)
{
    static const struct beam_session_handlers handlers = {.on_open = on_open};
    beam_session *session = NULL;
    bool opened = false;
    bool answered = false;
    char url[64];
    snprintf(url, sizeof(url), "unix:@packet-%d", getpid());
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.embedded = true, .transports = BEAM_TRANSPORTS(&beam_unix));
    REQUIRE_INT(beam_runtime_new(&options, &runtime), 0);
    REQUIRE_INT(beam_serve(runtime, "greet", on_greet, NULL), 0);
    REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
    REQUIRE_INT(beam_connect(runtime, url,
                             &BEAM_CONNECT_OPTIONS(.handlers = &handlers, .arg = &opened),
                             &session),
                0);
    CHECK(turn_until(&opened));

    beam_message *message = beam_message_new();
    REQUIRE_INT(beam_call(session, "greet", &message, on_reply, &answered, NULL), 0);
    /* What the pool has of blocks for packets is taken, and there are no more. */
    struct bm_pool *pool = &bm_core_current()->pool;
    void *blocks[BLOCKS];
    uint32_t caps[BLOCKS];
    unsigned taken = 0;
    scarce_begin(0);
    while (taken < BLOCKS &&
           (blocks[taken] = bm_pool_get(pool, BM_FRAME_LEN_MAX, &caps[taken])) != NULL)
        taken++;
    CHECK_INT(beam_runtime_turn(runtime), 0);
    CHECK(!answered);
    scarce_end();
    while (taken > 0) {
        taken--;
        bm_pool_put(pool, blocks[taken], caps[taken]);
    }
    CHECK(turn_until(&answered));

    beam_session_free(session);
    runtime = beam_runtime_free(runtime);
}
