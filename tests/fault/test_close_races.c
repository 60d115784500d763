/* Closing while others are at work: a runtime that stops under threads that call, post and connect; a
 * session over a ring that one end closes while both send. How far they have come by then is left to
 * chance, in a bounded number of rounds; what is checked are sums and orders. */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/served.h"

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

static void now_and_then_yield(struct test_random *random)
{
    if (test_random_below(random, 8) == 0)
        sched_yield();
}

/* --- a runtime stops under threads ------------------------------------------------------------- */

enum { ROUNDS = 24, CALLERS = 3 };

static struct {
    beam_runtime *runtime;
    char url[100];
    const char *to; /* what is connected to: the socket, or a ring */
    atomic_uint ran, posts_ran, calls, connects;
    beam_request *lingering[2]; /* each reactor's own */
} race;

static void echo(beam_request *request, const beam_message *message, void *arg)
{
    (void)arg;
    size_t len;
    beam_message *reply = beam_message_new();
    const void *body = beam_message_body(message, &len);
    beam_message_set_body(reply, body, len);
    atomic_fetch_add(&race.ran, 1);
    beam_reply(request, &reply);
}

static void linger_no_more(beam_request *request, void *arg)
{
    (void)arg;
    beam_request **mine = &race.lingering[beam_reactor_current()];
    if (*mine == request)
        *mine = NULL;
    beam_fail(request, BEAM_CANCELLED, NULL);
}

/* Each request is answered when the next one comes, so that some are under way at any time. */
static void linger(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request **mine = &race.lingering[beam_reactor_current()];
    atomic_fetch_add(&race.ran, 1);
    if (*mine)
        beam_reply(*mine, NULL);
    *mine = request;
    beam_request_keep(request);
    beam_request_on_cancel(request, linger_no_more, NULL);
}

struct caller {
    pthread_t thread;
    const char *service;
    struct test_random random;
    unsigned ok, unknown, unavailable, not_made, other;
};

static void *call_until_refused(void *arg)
{
    struct caller *me = arg;
    beam_session *session = NULL;
    int r = beam_connect_wait(race.runtime, race.to, NULL, &session);
    for (unsigned i = 0; r == 0; i++) {
        beam_message *message = beam_message_new(), *reply = NULL;
        beam_message_set_body(message, &i, sizeof(i));
        int code = beam_call_wait(session, me->service, &message, NULL, &reply);
        atomic_fetch_add(&race.calls, 1);
        if (code == 0) {
            size_t len = 0;
            const void *body = reply ? beam_message_body(reply, &len) : NULL;
            me->ok++;
            if (strcmp(me->service, "echo") == 0)
                me->other += len != sizeof(i) || memcmp(body, &i, sizeof(i)) != 0;
        } else if (code == BEAM_UNKNOWN) {
            me->unknown++;
        } else if (code == BEAM_UNAVAILABLE) {
            me->unavailable++;
        } else if (code == -ESHUTDOWN) {
            me->not_made++;
            r = code;
        } else {
            CHECK_INT(code, 0);
            me->other++;
            r = code;
        }
        beam_message_free(message);
        beam_message_free(reply);
        now_and_then_yield(&me->random);
    }
    CHECK(r == -ESHUTDOWN || r == -ECONNABORTED || r == -ECONNREFUSED);
    beam_session_free(session);
    return NULL;
}

static void count_post(void *arg)
{
    (void)arg;
    atomic_fetch_add(&race.posts_ran, 1);
}

static void *post_until_refused(void *arg)
{
    struct caller *me = arg;
    int r;
    do {
        unsigned reactor = (unsigned)test_random_below(&me->random, 2);
        r = beam_post(race.runtime, reactor, count_post, NULL);
        me->ok += r == 0;
        if (r == -EAGAIN)
            sched_yield();
        now_and_then_yield(&me->random);
    } while (r == 0 || r == -EAGAIN);
    CHECK_INT(r, -ESHUTDOWN);
    /* The other reactor may take posts for a little longer. */
    for (unsigned reactor = 0; reactor < 2; reactor++)
        while ((r = beam_post(race.runtime, reactor, count_post, NULL)) != -ESHUTDOWN) {
            me->ok += r == 0;
            sched_yield();
        }
    return NULL;
}

static void *connect_until_refused(void *arg)
{
    struct caller *me = arg;
    int r;
    do {
        beam_session *session = NULL;
        unsigned reactor = (unsigned)test_random_below(&me->random, 2);
        r = beam_connect_wait(race.runtime, race.to, &BEAM_CONNECT_OPTIONS(.reactor = reactor),
                              &session);
        atomic_fetch_add(&race.connects, 1);
        me->ok += r == 0;
        now_and_then_yield(&me->random);
        beam_session_free(session);
    } while (r == 0);
    CHECK(r == -ESHUTDOWN || r == -ECONNABORTED || r == -ECONNREFUSED);
    if (r != -ESHUTDOWN && r != -ECONNABORTED && r != -ECONNREFUSED)
        fprintf(stderr, "    connecting: %s\n", beam_error_name(r));
    return NULL;
}

static void stop_under_threads(bool over_ring, unsigned round, struct test_random *random)
{
    static struct caller callers[CALLERS + 2];
    char name[80];
    test_note("%s, round %u", over_ring ? "ring" : "unix", round);
    memset(&race, 0, sizeof(race));
    memset(callers, 0, sizeof(callers));
    raw_name(name, sizeof(name));
    snprintf(race.url, sizeof(race.url), "unix:@%s", name);
    race.to = over_ring ? "ring:1" : race.url;
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .transports = transports,
                                                       .stop_timeout_ns = 20 * BEAM_MS),
                                 &race.runtime),
                0);
    REQUIRE_INT(beam_serve(race.runtime, "echo", echo, NULL), 0);
    REQUIRE_INT(beam_serve(race.runtime, "linger", linger, NULL), 0);
    REQUIRE_INT(beam_listen(race.runtime, race.url, NULL), 0);
    REQUIRE_INT(beam_start(race.runtime), 0);

    void *(*const work[])(void *) = {call_until_refused, call_until_refused, call_until_refused,
                                     post_until_refused, connect_until_refused};
    for (unsigned i = 0; i < CALLERS + 2; i++) {
        callers[i].service = i < 2 ? "linger" : "echo";
        callers[i].random = test_random(test_random_next(random));
        REQUIRE_INT(pthread_create(&callers[i].thread, NULL, work[i], &callers[i]), 0);
    }
    unsigned calls = (unsigned)test_random_below(random, 300);
    unsigned connects = (unsigned)test_random_below(random, 4);
    while (atomic_load(&race.calls) < calls || atomic_load(&race.connects) < connects)
        sched_yield();
    beam_runtime_stop(race.runtime);
    for (unsigned i = 0; i < CALLERS + 2; i++)
        pthread_join(callers[i].thread, NULL);
    beam_runtime_free(race.runtime);

    struct caller sum = {0};
    for (unsigned i = 0; i < CALLERS; i++) {
        sum.ok += callers[i].ok;
        sum.unknown += callers[i].unknown;
        sum.other += callers[i].other;
    }
    unsigned ran = atomic_load(&race.ran);
    CHECK_UINT(sum.other, 0);
    CHECK(ran >= sum.ok);
    CHECK(ran <= sum.ok + sum.unknown);
    if (ran < sum.ok || ran > sum.ok + sum.unknown)
        fprintf(stderr, "    %u ran, %u ok, %u unknown\n", ran, sum.ok, sum.unknown);
    CHECK_UINT(atomic_load(&race.posts_ran), callers[CALLERS].ok);
}

TEST(a_runtime_may_stop_under_threads_that_call_post_and_connect)
{
    served_need_io_uring();
    struct test_random random = test_random(0);
    for (unsigned round = 0; round < ROUNDS; round++)
        stop_under_threads(round % 2, round, &random);
}

/* --- a session over a ring, closed while both ends send ---------------------------------------- */

enum { RING_ROUNDS = 60, FLYING = 8 };

/* One end of the channel; its reactor's alone while that runs. */
struct end {
    beam_channel *channel;
    uint32_t sent, got, disorder, ends, code;
    uint32_t close_at; /* this end closes its session when it has got so many; 0: never */
    struct test_random random;
};

static struct {
    beam_runtime *runtime;
    beam_session *session;     /* the client's */
    beam_session *peer;        /* the server's, until it is lost */
    beam_request *request;     /* whose channel the server's end is */
    struct end client, server; /* reactors 0 and 1 */
    unsigned asked, answered, answered_ok, not_run;
    atomic_uint asked_ran;
    atomic_uint over; /* ends that have heard the end of the channel */
    bool drain;
} duel;

static void pump(struct end *end)
{
    uint8_t body[200] = {0};
    for (unsigned i = 0; i < 64; i++) {
        /* Those that fit a slot and those that do not. */
        size_t len =
            test_random_below(&end->random, 2) ? 4 : 4 + test_random_below(&end->random, 190);
        memcpy(body, &end->sent, sizeof(end->sent));
        if (!end->channel || beam_channel_send_body(end->channel, body, len) < 0)
            return;
        end->sent++;
    }
}

static void on_duel_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct end *end = arg;
    size_t len;
    uint32_t number = UINT32_MAX;
    const void *body = beam_message_body(message, &len);
    (void)channel;
    if (len >= sizeof(number))
        memcpy(&number, body, sizeof(number));
    end->disorder += number != end->got;
    end->got++;
    if (end->got == end->close_at) {
        beam_session *session = end == &duel.client ? duel.session : duel.peer;
        if (session && duel.drain)
            beam_session_drain(session);
        if (session)
            beam_session_close(session);
        return;
    }
    pump(end);
}

static void on_duel_writable(beam_channel *channel, void *arg)
{
    (void)channel;
    pump(arg);
}

static void on_duel_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct end *end = arg;
    (void)channel;
    end->ends++;
    end->code = status->code;
    end->channel = NULL;
    if (end == &duel.server) {
        beam_fail(duel.request, BEAM_CANCELLED, NULL);
        duel.peer = NULL;
    }
    atomic_fetch_add(&duel.over, 1);
}

static const struct beam_channel_handlers duel_handlers = {
    .on_message = on_duel_message,
    .on_writable = on_duel_writable,
    .on_end = on_duel_end,
};

static void serve_duel(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    duel.request = request;
    duel.peer = beam_request_session(request);
    duel.server.channel = beam_request_channel(request);
    beam_request_keep(request);
    beam_channel_set_handlers(duel.server.channel, &duel_handlers, &duel.server);
    pump(&duel.server);
}

static void answer_duel(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    atomic_fetch_add(&duel.asked_ran, 1);
    beam_reply(request, NULL);
}

static void ask_duel(void);

static void on_duel_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    duel.answered++;
    duel.answered_ok += status->code == BEAM_OK;
    duel.not_run += status->code == BEAM_UNAVAILABLE;
    if (status->code == BEAM_OK)
        ask_duel();
    else
        CHECK(status->code == BEAM_UNAVAILABLE || status->code == BEAM_UNKNOWN);
}

static void ask_duel(void)
{
    beam_message *message = beam_message_new();
    duel.asked += beam_call(duel.session, "answer", &message, on_duel_reply, NULL, NULL) == 0;
    beam_message_free(message);
}

static beam_channel *duel_handle;

static void begin_duel(void *arg)
{
    (void)arg;
    REQUIRE_INT(beam_connect(duel.runtime, "ring:1", NULL, &duel.session), 0);
    REQUIRE_INT(
        beam_open(duel.session, "duel", NULL, &duel_handlers, &duel.client, NULL, &duel_handle), 0);
    duel.client.channel = duel_handle;
    for (unsigned i = 0; i < FLYING; i++)
        ask_duel();
    pump(&duel.client);
}

static void end_duel(void *arg)
{
    (void)arg;
    duel_handle = beam_channel_free(duel_handle);
    duel.session = beam_session_free(duel.session);
}

static void is_all_answered(void *arg)
{
    *(bool *)arg = duel.answered == duel.asked;
}

static bool all_answered(void)
{
    bool all = false;
    served_run(duel.runtime, 0, is_all_answered, &all);
    return all;
}

static void check_end(const struct end *end, const struct end *other)
{
    CHECK_UINT(end->ends, 1);
    CHECK(end->code != BEAM_OK);
    CHECK_UINT(end->disorder, 0);
    CHECK(end->got <= other->sent);
}

static void duel_once(unsigned round, struct test_random *random)
{
    test_note("round %u", round);
    memset(&duel, 0, sizeof(duel));
    duel.client.random = test_random(test_random_next(random));
    duel.server.random = test_random(test_random_next(random));
    /* Far enough, at times, for the ring to have been full. */
    struct end *who = round % 2 ? &duel.client : &duel.server;
    who->close_at = 1 + (uint32_t)test_random_below(random, round % 3 ? 100 : 5000);
    duel.drain = round % 4 == 1;
    static const enum beam_spin_policy spins[] = {BEAM_SPIN_OFF, BEAM_SPIN_AUTO};
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .spin = spins[round / 2 % 2],
                                                       .stop_timeout_ns = 20 * BEAM_MS),
                                 &duel.runtime),
                0);
    REQUIRE_INT(beam_serve(duel.runtime, "duel", serve_duel, NULL), 0);
    REQUIRE_INT(beam_serve(duel.runtime, "answer", answer_duel, NULL), 0);
    REQUIRE_INT(beam_start(duel.runtime), 0);
    served_run(duel.runtime, 0, begin_duel, NULL);
    WAIT_UNTIL(atomic_load(&duel.over) == 2);
    WAIT_UNTIL(all_answered());
    served_run(duel.runtime, 0, end_duel, NULL);
    beam_runtime_free(duel.runtime);
    check_end(&duel.client, &duel.server);
    check_end(&duel.server, &duel.client);
    CHECK_UINT(duel.answered, duel.asked);
    unsigned ran = atomic_load(&duel.asked_ran);
    CHECK(ran >= duel.answered_ok);
    CHECK(ran <= duel.asked - duel.not_run);
}

TEST(a_session_over_a_ring_may_be_closed_while_both_ends_send)
{
    served_need_io_uring();
    struct test_random random = test_random(0);
    for (unsigned round = 0; round < RING_ROUNDS; round++)
        duel_once(round, &random);
}
