/* Dialers: a session again and again. Each case has servers of its own that come and go. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/flow.h"

struct dialled {
    unsigned ups, downs, writables;
    uint64_t retries[16];
    enum beam_code code;
    beam_session *session;
    bool frees_when_up, frees_when_down;
    beam_dialer *dialer;
};

static void on_up(beam_dialer *dialer, beam_session *session, void *arg)
{
    struct dialled *d = arg;
    d->ups++;
    d->session = session;
    CHECK_PTR(beam_dialer_session(dialer), session);
    if (d->frees_when_up)
        d->dialer = beam_dialer_free(dialer);
    flow_tick();
}

static void on_down(beam_dialer *dialer, const struct beam_status *status, uint64_t retry_ns,
                    void *arg)
{
    struct dialled *d = arg;
    if (d->downs < 16)
        d->retries[d->downs] = retry_ns;
    d->downs++;
    d->code = status->code;
    d->session = NULL;
    CHECK_PTR(beam_dialer_session(dialer), NULL);
    if (d->frees_when_down)
        d->dialer = beam_dialer_free(dialer);
    flow_tick();
}

static const struct beam_dialer_handlers handlers = {.on_up = on_up, .on_down = on_down};

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

static beam_runtime *serve(const char *url)
{
    beam_runtime *runtime;
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                                 &runtime),
                0);
    REQUIRE_INT(beam_serve(runtime, "echo", on_echo, NULL), 0);
    REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
    REQUIRE_INT(beam_start(runtime), 0);
    return runtime;
}

static void url_for(char *url, size_t size, const char *name)
{
    snprintf(url, size, "unix:%s/%s", test_tmpdir(), name);
}

static void begin(struct dialled *d, const char *url)
{
    flow_start(&(struct flow_options){.unconnected = true});
    REQUIRE_INT(beam_dialer_new(flow.runtime, url, NULL, &handlers, d, &d->dialer), 0);
}

FLOW_TEST_UNIX(a_server_that_comes_back_is_found_again)
{
    char url[200];
    struct dialled d = {0};
    url_for(url, sizeof(url), "s");
    beam_runtime *server = serve(url);
    begin(&d, url);
    FLOW_WAIT(d.ups == 1);
    server = beam_runtime_free(server);
    FLOW_WAIT(d.downs >= 1);
    server = serve(url);
    FLOW_WAIT(d.ups == 2);
    struct flow_answer answer = {0};
    beam_message *message = beam_message_new();
    REQUIRE_INT(beam_call(d.session, "echo", &message, flow_on_reply, &answer, NULL), 0);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_OK);
    d.dialer = beam_dialer_free(d.dialer);
    beam_runtime_free(server);
}

FLOW_TEST_UNIX(attempts_that_fail_come_later_and_later)
{
    char url[200];
    struct dialled d = {0};
    url_for(url, sizeof(url), "nobody");
    begin(&d, url);
    FLOW_WAIT(d.downs == 4);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t most = BEAM_DIALER_RETRY_FIRST_NS << i;
        CHECK(d.retries[i] >= most / 2 && d.retries[i] <= most);
    }
    CHECK_UINT(d.ups, 0);
    CHECK_INT(d.code, BEAM_UNAVAILABLE);
    beam_dialer_free(d.dialer);
}

FLOW_TEST_UNIX(a_session_that_is_closed_here_is_followed_by_another)
{
    char url[200];
    struct dialled d = {0};
    url_for(url, sizeof(url), "s");
    beam_runtime *server = serve(url);
    begin(&d, url);
    FLOW_WAIT(d.ups == 1);
    beam_session_close(d.session);
    FLOW_WAIT(d.ups == 2);
    CHECK_UINT(d.downs, 1);
    beam_dialer_free(d.dialer);
    beam_runtime_free(server);
}

static _Atomic unsigned held_count;

static void on_cancel(beam_request *request, void *arg)
{
    beam_fail(request, BEAM_CANCELLED, "nobody waits");
}

static void on_hold(beam_request *request, const beam_message *message, void *arg)
{
    /* Never answers: its caller's deadline ends it. */
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, NULL);
    atomic_fetch_add(&held_count, 1);
}

/* The old server finishes what it has; the new one is asked meanwhile. */
FLOW_TEST_UNIX(what_is_under_way_with_a_peer_that_drains_finishes)
{
    char url[200];
    struct dialled d = {0};
    struct flow_answer answer = {0};
    url_for(url, sizeof(url), "s");
    flow_start(&(struct flow_options){.unconnected = true});
    beam_runtime *server;
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix),
                                                       .stop_timeout_ns = 20 * BEAM_SEC),
                                 &server),
                0);
    atomic_store(&held_count, 0);
    REQUIRE_INT(beam_serve(server, "hold", on_hold, NULL), 0);
    REQUIRE_INT(beam_listen(server, url, NULL), 0);
    REQUIRE_INT(beam_start(server), 0);
    REQUIRE_INT(beam_dialer_new(flow.runtime, url, NULL, &handlers, &d, &d.dialer), 0);
    FLOW_WAIT(d.ups == 1);
    beam_message *message = beam_message_new();
    REQUIRE_INT(beam_call(d.session, "hold", &message, flow_on_reply, &answer,
                          &BEAM_CALL_OPTIONS(.timeout_ns = 300 * BEAM_MS)),
                0);
    FLOW_WAIT(atomic_load(&held_count) == 1);
    beam_runtime_stop(server);
    FLOW_WAIT(d.downs >= 1);
    CHECK_UINT(answer.count, 0);
    FLOW_WAIT(answer.count == 1); /* its deadline: the session was alive until then */
    CHECK_INT(answer.code, BEAM_DEADLINE_EXCEEDED);
    beam_runtime_free(server);
    beam_runtime *next = serve(url);
    FLOW_WAIT(d.ups == 2);
    beam_dialer_free(d.dialer);
    beam_runtime_free(next);
}

FLOW_TEST_UNIX(a_handler_may_free_the_dialer)
{
    char url[200];
    struct dialled up = {.frees_when_up = true}, down = {.frees_when_down = true};
    url_for(url, sizeof(url), "s");
    beam_runtime *server = serve(url);
    begin(&up, url);
    url_for(url, sizeof(url), "nobody");
    REQUIRE_INT(beam_dialer_new(flow.runtime, url, NULL, &handlers, &down, &down.dialer), 0);
    FLOW_WAIT(up.ups == 1 && down.downs == 1);
    CHECK_PTR(up.dialer, NULL);
    CHECK_PTR(down.dialer, NULL);
    beam_runtime_free(server);
}

FLOW_TEST_UNIX(what_no_time_can_mend_is_told_at_once)
{
    struct dialled d = {0};
    flow_start(&(struct flow_options){.unconnected = true});
    CHECK_INT(beam_dialer_new(flow.runtime, "door:x", NULL, &handlers, &d, &d.dialer), -BEAM_EURL);
    CHECK_INT(beam_dialer_new(flow.runtime, NULL, NULL, &handlers, &d, &d.dialer), -EINVAL);
    CHECK_PTR(beam_dialer_free(NULL), NULL);
}

/* One that nobody frees goes with its runtime. */
FLOW_TEST_UNIX(a_dialer_that_is_left_goes_with_its_runtime)
{
    char url[200];
    struct dialled d = {0};
    url_for(url, sizeof(url), "nobody");
    begin(&d, url);
    FLOW_WAIT(d.downs == 1);
}
