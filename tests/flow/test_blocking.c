/* Threads that are no reactors: blocking calls, posts, timers, the start and the stop. Over rings and
 * over a unix socket, through the public headers alone. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/flow.h"

#define THREADS 4
#define CALLS 200

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

/* One server, and one client when they are not the same. */
static beam_runtime *server, *client;
static char url[80];

static void random_url(void)
{
    uint64_t random;
    REQUIRE_INT(getrandom(&random, sizeof(random), 0), sizeof(random));
    snprintf(url, sizeof(url), "unix:@beam-blocking-%d-%016llx", getpid(),
             (unsigned long long)random);
}

static void open_both_limited(bool unix_socket, const struct beam_limits *limits, const char *name,
                              beam_handler *handler, void *arg)
{
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.reactors = 2, .transports = transports, .limits = *limits);
    REQUIRE_INT(beam_runtime_new(&options, &server), 0);
    REQUIRE_INT(beam_serve(server, name, handler, arg), 0);
    client = server;
    if (unix_socket) {
        random_url();
        REQUIRE_INT(beam_listen(server, url, NULL), 0);
        REQUIRE_INT(beam_runtime_new(&options, &client), 0);
        REQUIRE_INT(beam_start(client), 0);
    } else {
        snprintf(url, sizeof(url), "ring:1");
    }
    REQUIRE_INT(beam_start(server), 0);
}

static void open_both(bool unix_socket, const char *name, beam_handler *handler, void *arg)
{
    static const struct beam_limits by_default;
    open_both_limited(unix_socket, &by_default, name, handler, arg);
}

static void close_both(void)
{
    if (client != server)
        beam_runtime_free(client);
    beam_runtime_free(server);
}

#define BOTH(name_)                                                                                \
    static void both_##name_(bool unix_socket);                                                    \
    TEST(name_##_over_ring)                                                                        \
    {                                                                                              \
        both_##name_(false);                                                                       \
    }                                                                                              \
    TEST(name_##_over_unix)                                                                        \
    {                                                                                              \
        both_##name_(true);                                                                        \
    }                                                                                              \
    static void both_##name_(bool unix_socket)

/* --- calls ----------------------------------------------------------------------------------- */

static void on_add_one(beam_request *request, const beam_message *message, void *arg)
{
    int64_t n = -1;
    (void)beam_message_get_int(message, "n", &n);
    if (n < 0) {
        beam_fail(request, BEAM_OUT_OF_RANGE, "negative");
        return;
    }
    beam_message *answer = beam_message_new();
    beam_message_put_int(answer, "n", n + 1);
    beam_reply(request, &answer);
}

static beam_session *shared_session;

static void call_add_one(beam_session *session, int64_t n)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    int64_t got = 0;
    beam_message_put_int(question, "n", n);
    int r = beam_call_wait(session, "add.one", &question, NULL, &answer);
    if (r == 0 && answer)
        r = beam_message_get_int(answer, "n", &got);
    if (r != 0 || got != n + 1 || question)
        CHECK_INT(r, 0), CHECK_INT(got, n + 1);
}

static void *call_many(void *arg)
{
    for (int64_t i = 0; i < CALLS; i++)
        call_add_one(shared_session, (intptr_t)arg * CALLS + i);
    return NULL;
}

static void *call_many_on_own_session(void *arg)
{
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    int r = beam_connect_wait(client, url, &BEAM_CONNECT_OPTIONS(.reactor = (uintptr_t)arg % 2),
                              &session);
    CHECK_INT(r, 0);
    for (int64_t i = 0; r == 0 && i < CALLS; i++)
        call_add_one(session, i);
    return NULL;
}

static void run_threads(void *(*fn)(void *))
{
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        REQUIRE_INT(pthread_create(&threads[i], NULL, fn, (void *)i), 0);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

BOTH(threads_call_on_one_session)
{
    open_both(unix_socket, "add.one", on_add_one, NULL);
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &shared_session), 0);
    run_threads(call_many);
    CHECK(beam_session_is_open(shared_session));
    shared_session = beam_session_free(shared_session);
    close_both();
}

BOTH(threads_call_on_sessions_of_their_own)
{
    open_both(unix_socket, "add.one", on_add_one, NULL);
    run_threads(call_many_on_own_session);
    run_threads(call_many_on_own_session);
    close_both();
    CHECK(true);
}

BOTH(blocking_call_returns_code_and_details)
{
    open_both(unix_socket, "add.one", on_add_one, NULL);
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &session), 0);
    beam_message *question = beam_message_new(), *answer = NULL;
    beam_message_put_int(question, "n", -5);
    CHECK_INT(beam_call_wait(session, "add.one", &question, NULL, &answer), BEAM_OUT_OF_RANGE);
    CHECK_PTR(question, NULL);
    REQUIRE(answer != NULL);
    beam_str text;
    CHECK_INT(beam_message_get_str(answer, "message", &text), 0);
    CHECK_MEM(text.ptr, text.len, "negative", 8);
    answer = beam_message_free(answer);
    question = beam_message_new();
    CHECK_INT(beam_call_wait(session, "nobody", &question, NULL, NULL), BEAM_NOT_FOUND);
    question = beam_message_new();
    CHECK_INT(beam_call_wait(session, "", &question, NULL, &answer), -EINVAL);
    CHECK(question != NULL);
    CHECK_PTR(answer, NULL);
    static char endless[10000];
    CHECK_INT(beam_call_wait(session, "add.one", &question, &(struct beam_call_options){0}, NULL),
              -EINVAL);
    beam_session *second = NULL;
    CHECK_INT(beam_connect_wait(client, url, &(struct beam_connect_options){0}, &second), -EINVAL);
    memset(endless, 'a', sizeof(endless) - 1);
    CHECK_INT(beam_call_wait(session, endless, &question, NULL, &answer), -EINVAL);
    CHECK(question != NULL);
    beam_message_put_int(question, "n", 1);
    beam_message_put_int(question, "n", 1);
    int r = beam_call_wait(session, "add.one", &question, NULL, &answer);
    CHECK_INT(r, -EEXIST);
    beam_message_free(question);
    beam_session_free(session);
    close_both();
}

static sem_t asked, may_answer;
static beam_request *slow;

static void answer_slow(void *arg)
{
    beam_message *answer = beam_message_new();
    beam_message_put_str(answer, "text", "too late");
    beam_reply(slow, &answer);
    sem_post(&may_answer);
}

static unsigned slow_reactor;

static void on_slow(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    slow = request;
    slow_reactor = (unsigned)beam_reactor_current();
    sem_post(&asked);
}

static void wait_for(sem_t *sem)
{
    while (sem_wait(sem) < 0)
        ;
}

BOTH(blocking_call_that_times_out_leaves_at_once)
{
    sem_init(&asked, 0, 0);
    sem_init(&may_answer, 0, 0);
    open_both(unix_socket, "slow", on_slow, NULL);
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &session), 0);
    for (unsigned i = 0; i < 3; i++) {
        beam_message *question = beam_message_new(), *answer = NULL;
        uint64_t before = beam_now_ns();
        int r = beam_call_wait(session, "slow", &question,
                               &BEAM_CALL_OPTIONS(.timeout_ns = 30 * BEAM_MS), &answer);
        uint64_t took = beam_now_ns() - before;
        CHECK_INT(r, BEAM_DEADLINE_EXCEEDED);
        CHECK(took >= 30 * BEAM_MS && took < 5 * BEAM_SEC);
        CHECK_PTR(question, NULL);
        beam_message_free(answer);
        wait_for(&asked);
        /* The late answer is dropped. */
        CHECK_INT(beam_post(server, slow_reactor, answer_slow, NULL), 0);
        wait_for(&may_answer);
    }
    beam_session_free(session);
    close_both();
    sem_destroy(&asked);
    sem_destroy(&may_answer);
}

BOTH(stop_ends_blocking_calls)
{
    sem_init(&asked, 0, 0);
    open_both(unix_socket, "slow", on_slow, NULL);
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &session), 0);
    beam_message *question = beam_message_new();
    /* The one that serves it stops; nobody ever answers. */
    CHECK_INT(
        beam_call_wait(session, "slow", &question, &BEAM_CALL_OPTIONS(.timeout_ns = BEAM_MS), NULL),
        BEAM_DEADLINE_EXCEEDED);
    wait_for(&asked);
    CHECK_INT(beam_post(server, slow_reactor, answer_slow, NULL), 0);
    beam_runtime_stop(server);
    beam_runtime_stop(client);
    int r;
    do {
        question = beam_message_new();
        r = beam_call_wait(session, "add.one", &question, NULL, NULL);
        beam_message_free(question);
    } while (r == BEAM_NOT_FOUND);
    CHECK(r == -ESHUTDOWN || r == BEAM_UNAVAILABLE || r == BEAM_UNKNOWN);
    beam_session_free(session);
    close_both();
    sem_destroy(&asked);
}

/* --- no room ---------------------------------------------------------------------------------- */

static const struct beam_limits one_channel = {.channels_max = 1};

BOTH(blocking_calls_wait_for_room)
{
    open_both_limited(unix_socket, &one_channel, "add.one", on_add_one, NULL);
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &shared_session), 0);
    run_threads(call_many);
    shared_session = beam_session_free(shared_session);
    close_both();
}

static void *ask_slowly(void *arg)
{
    int *result = arg;
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    *result = beam_call_wait(shared_session, "slow", &question, NULL, NULL);
    return NULL;
}

BOTH(blocking_call_that_found_no_room_in_time_has_surely_not_run)
{
    sem_init(&asked, 0, 0);
    sem_init(&may_answer, 0, 0);
    open_both_limited(unix_socket, &one_channel, "slow", on_slow, NULL);
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &shared_session), 0);
    pthread_t thread;
    int result = -1;
    REQUIRE_INT(pthread_create(&thread, NULL, ask_slowly, &result), 0);
    wait_for(&asked);
    beam_message *question = beam_message_new();
    for (unsigned i = 0; i < 5; i++) {
        uint64_t before = beam_now_ns();
        CHECK_INT(beam_call_wait(shared_session, "slow", &question,
                                 &BEAM_CALL_OPTIONS(.timeout_ns = 20 * BEAM_MS), NULL),
                  -ETIMEDOUT);
        CHECK(beam_now_ns() - before >= 20 * BEAM_MS);
        REQUIRE(question != NULL);
    }
    CHECK_INT(beam_post(server, slow_reactor, answer_slow, NULL), 0);
    wait_for(&may_answer);
    pthread_join(thread, NULL);
    CHECK_INT(result, 0);
    CHECK_INT(sem_trywait(&asked), -1);

    /* The room is there again, for one. */
    REQUIRE_INT(pthread_create(&thread, NULL, ask_slowly, &result), 0);
    wait_for(&asked);
    CHECK_INT(beam_post(server, slow_reactor, answer_slow, NULL), 0);
    pthread_join(thread, NULL);
    CHECK_INT(result, 0);
    beam_message_free(question);
    shared_session = beam_session_free(shared_session);
    close_both();
    sem_destroy(&asked);
    sem_destroy(&may_answer);
}

BOTH(blocking_calls_that_wait_for_room_end_with_their_session)
{
    sem_init(&asked, 0, 0);
    sem_init(&may_answer, 0, 0);
    open_both_limited(unix_socket, &one_channel, "slow", on_slow, NULL);
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &shared_session), 0);
    pthread_t threads[THREADS];
    int results[THREADS];
    REQUIRE_INT(pthread_create(&threads[0], NULL, ask_slowly, &results[0]), 0);
    wait_for(&asked);
    for (unsigned i = 1; i < THREADS; i++)
        REQUIRE_INT(pthread_create(&threads[i], NULL, ask_slowly, &results[i]), 0);
    beam_runtime_stop(client);
    for (unsigned i = 1; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        CHECK_INT(results[i], -ESHUTDOWN);
    }
    CHECK_INT(beam_post(server, slow_reactor, answer_slow, NULL), 0);
    pthread_join(threads[0], NULL);
    CHECK_INT(results[0], 0);
    shared_session = beam_session_free(shared_session);
    close_both();
    sem_destroy(&asked);
    sem_destroy(&may_answer);
}

/* --- where it is not allowed ----------------------------------------------------------------- */

struct attempt {
    sem_t done;
    int call, connect, current;
};

static void try_blocking(void *arg)
{
    struct attempt *attempt = arg;
    beam_session *session = NULL;
    beam_message *message = beam_message_new();
    attempt->connect = beam_connect_wait(client, url, NULL, &session);
    attempt->call = beam_call_wait(shared_session, "add.one", &message, NULL, NULL);
    attempt->current = beam_reactor_current();
    beam_message_free(message);
    sem_post(&attempt->done);
}

BOTH(blocking_calls_are_refused_on_a_reactor)
{
    struct attempt attempt = {0};
    sem_init(&attempt.done, 0, 0);
    open_both(unix_socket, "add.one", on_add_one, NULL);
    REQUIRE_INT(beam_connect_wait(client, url, NULL, &shared_session), 0);
    CHECK_INT(beam_reactor_current(), -1);
    for (unsigned i = 0; i < 2; i++) {
        REQUIRE_INT(beam_post(client, i, try_blocking, &attempt), 0);
        wait_for(&attempt.done);
        CHECK_INT(attempt.call, -EDEADLK);
        CHECK_INT(attempt.connect, -EDEADLK);
        CHECK_INT(attempt.current, i);
    }
    beam_session *session = NULL;
    beam_timer *timer = NULL;
    CHECK_INT(beam_connect(client, url, NULL, &session), -EPERM);
    CHECK_INT(beam_timer_new(client, 0, 0, try_blocking, NULL, &timer), -EPERM);
    shared_session = beam_session_free(shared_session);
    close_both();
    sem_destroy(&attempt.done);
}

/* --- connecting ------------------------------------------------------------------------------ */

TEST(connecting_tells_what_the_socket_said)
{
    open_both(true, "add.one", on_add_one, NULL);
    beam_session *session = NULL;
    char path[200];
    snprintf(path, sizeof(path), "unix:%s/missing", test_tmpdir());
    CHECK_INT(beam_connect_wait(client, path, NULL, &session), -ENOENT);
    CHECK_INT(beam_connect_wait(client, "unix:@beam-nobody-listens-here", NULL, &session),
              -ECONNREFUSED);
    CHECK_INT(beam_connect_wait(client, "nonsense", NULL, &session), -BEAM_EURL);
    CHECK_INT(beam_connect_wait(client, NULL, NULL, &session), -EINVAL);
    char *endless = malloc(10000);
    memset(endless, 'a', 9999);
    endless[9999] = '\0';
    memcpy(endless, "unix:/", 6);
    CHECK_INT(beam_connect_wait(client, endless, NULL, &session), -BEAM_EURL);
    free(endless);
    CHECK_INT(beam_connect_wait(client, url, &BEAM_CONNECT_OPTIONS(.reactor = 2), &session),
              -EINVAL);
    CHECK_PTR(session, NULL);
    close_both();
}

TEST(connecting_to_one_who_never_answers_times_out)
{
    open_both(true, "add.one", on_add_one, NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t random;
    REQUIRE_INT(getrandom(&random, sizeof(random), 0), sizeof(random));
    int len = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "beam-mute-%016llx",
                       (unsigned long long)random);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    REQUIRE_INT(bind(fd, (struct sockaddr *)&address,
                     (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len)),
                0);
    REQUIRE_INT(listen(fd, 8), 0);
    char mute[120];
    snprintf(mute, sizeof(mute), "unix:@%s", address.sun_path + 1);
    beam_session *session = NULL;
    uint64_t before = beam_now_ns();
    CHECK_INT(beam_connect_wait(client, mute, &BEAM_CONNECT_OPTIONS(.timeout_ns = 50 * BEAM_MS),
                                &session),
              -ETIMEDOUT);
    CHECK(beam_now_ns() - before >= 50 * BEAM_MS);
    CHECK(beam_now_ns() - before < 5 * BEAM_SEC);
    CHECK_PTR(session, NULL);
    close(fd);
    close_both();
}

/* --- posts ----------------------------------------------------------------------------------- */

struct sequence {
    sem_t done;
    unsigned next, wrong, count;
};

struct post {
    struct sequence *sequence;
    unsigned number;
};

static void on_post(void *arg)
{
    struct post *post = arg;
    struct sequence *s = post->sequence;
    if (post->number != s->next)
        s->wrong++;
    if (++s->next == s->count)
        sem_post(&s->done);
}

TEST(posts_of_one_thread_run_in_order)
{
    enum { N = 5000 };
    struct sequence s = {.count = N};
    struct post *posts = calloc(N, sizeof(*posts));
    sem_init(&s.done, 0, 0);
    open_both(false, "add.one", on_add_one, NULL);
    for (unsigned i = 0; i < N; i++) {
        int r;
        posts[i] = (struct post){&s, i};
        while ((r = beam_post(server, 1, on_post, &posts[i])) == -EAGAIN)
            sched_yield();
        if (r != 0)
            CHECK_INT(r, 0);
    }
    wait_for(&s.done);
    CHECK_UINT(s.wrong, 0);
    CHECK_INT(beam_post(server, 2, on_post, NULL), -EINVAL);
    CHECK_INT(beam_post(server, 0, NULL, NULL), -EINVAL);
    close_both();
    sem_destroy(&s.done);
    free(posts);
}

static sem_t gate, at_gate;

static void on_gate(void *arg)
{
    sem_post(&at_gate);
    wait_for(&gate);
}

static void count_post(void *arg)
{
    if (++*(unsigned *)arg == 1024)
        sem_post(&at_gate);
}

TEST(mailbox_that_is_full_refuses_and_loses_nothing)
{
    unsigned ran = 0, taken = 0;
    sem_init(&gate, 0, 0);
    sem_init(&at_gate, 0, 0);
    open_both(false, "add.one", on_add_one, NULL);
    REQUIRE_INT(beam_post(server, 0, on_gate, NULL), 0);
    wait_for(&at_gate); /* the reactor stands still */
    int r = 0;
    while (taken < 4096 && (r = beam_post(server, 0, count_post, &ran)) == 0)
        taken++;
    CHECK_INT(r, -EAGAIN);
    CHECK(taken >= 1023 && taken <= 1024);
    sem_post(&gate);
    while (taken < 1024) {
        if (beam_post(server, 0, count_post, &ran) == 0)
            taken++;
    }
    wait_for(&at_gate);
    CHECK_UINT(ran, 1024);
    close_both();
    sem_destroy(&gate);
    sem_destroy(&at_gate);
}

static void note_first(void *arg)
{
    CHECK_INT(beam_reactor_current(), 1);
    sem_post(arg);
}

TEST(posts_before_the_start_run_when_it_has_begun)
{
    beam_runtime *runtime = NULL;
    beam_session *session = NULL;
    unsigned ran = 0;
    sem_t done;
    sem_init(&done, 0, 0);
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2), &runtime), 0);
    CHECK_INT(beam_post(runtime, 1, note_first, &done), 0);
    CHECK_INT(beam_connect_wait(runtime, "ring:0", NULL, &session), -ESHUTDOWN);
    REQUIRE_INT(beam_start(runtime), 0);
    wait_for(&done);
    CHECK_INT(beam_start(runtime), -EALREADY);
    CHECK_INT(beam_runtime_fd(runtime), -EINVAL);
    CHECK_INT(beam_runtime_turn(runtime), -EINVAL);
    beam_runtime_free(runtime);

    REQUIRE_INT(beam_runtime_new(NULL, &runtime), 0);
    for (unsigned i = 0; i < 1024; i++)
        REQUIRE_INT(beam_post(runtime, 0, count_post, &ran), 0);
    CHECK_INT(beam_post(runtime, 0, count_post, &ran), -EAGAIN);
    CHECK_INT(beam_post(runtime, 1, count_post, &ran), -EINVAL);
    beam_runtime_free(runtime);
    CHECK_UINT(ran, 0);
    sem_destroy(&done);
}

static void *read_platform(void *arg)
{
    const struct beam_platform *platform = beam_platform();
    CHECK(platform->io_uring && platform->version && platform->kernel[0] != '\0');
    return arg;
}

TEST(platform_is_read_by_any_thread)
{
    run_threads(read_platform);
    CHECK_STR(beam_runtime_why(), "");
}

/* --- timers ---------------------------------------------------------------------------------- */

struct ticker {
    sem_t done;
    beam_timer *timer, *once;
    unsigned ticks, onces;
    uint64_t begin_ns, tenth_ns;
    int r;
};

static void on_tick(void *arg)
{
    struct ticker *t = arg;
    if (++t->ticks == 10) {
        t->tenth_ns = beam_now_ns();
        t->timer = beam_timer_free(t->timer); /* from its own callback */
        sem_post(&t->done);
    }
}

static void on_once(void *arg)
{
    ((struct ticker *)arg)->onces++;
}

static void start_ticker(void *arg)
{
    struct ticker *t = arg;
    beam_timer *never = NULL;
    t->begin_ns = beam_now_ns();
    t->r = beam_timer_new(server, 5 * BEAM_MS, 5 * BEAM_MS, on_tick, t, &t->timer);
    if (t->r == 0)
        t->r = beam_timer_new(server, 3 * BEAM_MS, 0, on_once, t, &t->once);
    if (t->r == 0)
        t->r = beam_timer_new(server, BEAM_MS, 0, on_once, t, &never);
    beam_timer_free(never);
    /* The end of the runtime frees this one. */
    if (t->r == 0)
        t->r = beam_timer_new(server, 3600 * BEAM_SEC, 0, on_once, t, &never);
}

TEST(timers_fire_at_their_rate_until_freed)
{
    struct ticker t = {0};
    sem_init(&t.done, 0, 0);
    open_both(false, "add.one", on_add_one, NULL);
    REQUIRE_INT(beam_post(server, 1, start_ticker, &t), 0);
    wait_for(&t.done);
    CHECK_INT(t.r, 0);
    close_both();
    CHECK_UINT(t.ticks, 10);
    CHECK_UINT(t.onces, 1);
    CHECK(t.tenth_ns - t.begin_ns >= 50 * BEAM_MS);
    CHECK_PTR(beam_timer_free(NULL), NULL);
    sem_destroy(&t.done);
}

/* --- sessions are dealt out ------------------------------------------------------------------ */

static void on_where(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    beam_message_put_int(answer, "n", beam_reactor_current());
    beam_reply(request, &answer);
}

TEST(listener_deals_sessions_out_over_the_reactors)
{
    open_both(true, "where", on_where, NULL);
    unsigned on[2] = {0};
    beam_session *sessions[6] = {0};
    for (unsigned i = 0; i < 6; i++) {
        beam_message *question = beam_message_new(), *answer = NULL;
        int64_t n = -1;
        REQUIRE_INT(beam_connect_wait(client, url, NULL, &sessions[i]), 0);
        CHECK_INT(beam_call_wait(sessions[i], "where", &question, NULL, &answer), 0);
        CHECK_INT(beam_message_get_int(answer, "n", &n), 0);
        REQUIRE(n == 0 || n == 1);
        on[n]++;
        beam_message_free(answer);
    }
    CHECK_UINT(on[0], 3);
    CHECK_UINT(on[1], 3);
    for (unsigned i = 0; i < 6; i++)
        beam_session_free(sessions[i]);
    CHECK_INT(beam_unlisten(server, url), 0);
    CHECK_INT(beam_unlisten(server, url), -ENOENT);
    CHECK_INT(beam_connect_wait(client, url, NULL, &sessions[0]), -ECONNREFUSED);
    close_both();
}

/* --- messages on foreign threads ------------------------------------------------------------- */

TEST(messages_live_on_threads_that_are_no_reactors)
{
    beam_message *m = beam_message_new();
    beam_message_put_str(m, "a", "b");
    beam_message_set_body(m, "0123456789", 10);
    CHECK_PTR(beam_message_attach_channel(m), NULL);
    CHECK_INT(beam_message_error(m), -EPERM);
    beam_message_free(m);
}
