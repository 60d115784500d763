/* A runtime inside somebody else's loop: here one of epoll(7), asleep between events. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <unistd.h>

#include "tests/support/flow.h"

#define TIMEOUT_MS 10000 /* a wake that is lost ends here */

static const struct beam_transport *const transports[] = {&beam_unix, NULL};
static beam_runtime *runtimes[2];
static int epoll;

static beam_runtime *open_runtime(unsigned i)
{
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.embedded = true, .transports = transports);
    REQUIRE_INT(beam_runtime_new(&options, &runtimes[i]), 0);
    int fd = beam_runtime_fd(runtimes[i]);
    REQUIRE(fd >= 0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
    REQUIRE_INT(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
    return runtimes[i];
}

static void open_loop(void)
{
    runtimes[0] = runtimes[1] = NULL;
    epoll = epoll_create1(EPOLL_CLOEXEC);
    REQUIRE(epoll >= 0);
}

static void close_loop(void)
{
    beam_runtime_free(runtimes[0]);
    beam_runtime_free(runtimes[1]);
    close(epoll);
}

/* The host's loop: it looks at nothing but its descriptors. */
static void loop_until(const unsigned *count, unsigned wanted)
{
    while (*count < wanted) {
        struct epoll_event events[2];
        int n = epoll_wait(epoll, events, 2, TIMEOUT_MS);
        if (n < 0 && errno == EINTR)
            continue; /* as any host must; task work of the ring may interrupt the wait */
        REQUIRE(n > 0);
        for (int i = 0; i < n; i++)
            REQUIRE_INT(beam_runtime_turn(runtimes[events[i].data.u32]), 0);
    }
}

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *kept = beam_message_keep(message);
    beam_reply(request, &kept);
}

static unsigned replies;

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    CHECK_INT(status->code, BEAM_OK);
    CHECK(flow_body_is_right(message, (uintptr_t)arg, 1));
    replies++;
}

static void call_all(beam_session *session)
{
    static const size_t lens[] = {0, 40, 1000, 65536, 1000000};
    replies = 0;
    for (unsigned i = 0; i < 5; i++) {
        beam_message *question = flow_message_of(lens[i], 1);
        CHECK_INT(beam_call(session, "echo", &question, on_reply, (void *)lens[i], NULL), 0);
        loop_until(&replies, i + 1);
    }
}

TEST(embedded_client_and_server_share_one_loop)
{
    char url[80];
    uint64_t random;
    REQUIRE_INT(getrandom(&random, sizeof(random), 0), sizeof(random));
    snprintf(url, sizeof(url), "unix:@beam-embedded-%016llx", (unsigned long long)random);
    open_loop();
    beam_runtime *server = open_runtime(0);
    REQUIRE_INT(beam_serve(server, "echo", on_echo, NULL), 0);
    REQUIRE_INT(beam_listen(server, url, NULL), 0);
    beam_runtime *client = open_runtime(1);

    /* Both runtimes live on this thread; the current one is the one being turned, so what is asked of
     * the client is asked from its own reactor. */
    beam_session *session = NULL;
    int r = beam_connect(client, url, NULL, &session);
    CHECK_INT(r, 0);
    if (r == 0)
        call_all(session);
    beam_session_free(session);
    close_loop();
}

static unsigned fired;

static void on_timer(void *arg)
{
    fired++;
}

TEST(embedded_timer_wakes_a_sleeping_host)
{
    beam_timer *timer, *periodic;
    open_loop();
    beam_runtime *runtime = open_runtime(0);
    fired = 0;
    uint64_t before = beam_now_ns();
    REQUIRE_INT(beam_timer_new(runtime, 20 * BEAM_MS, 0, on_timer, NULL, &timer), 0);
    loop_until(&fired, 1);
    CHECK(beam_now_ns() - before >= 20 * BEAM_MS);
    REQUIRE_INT(beam_timer_new(runtime, BEAM_MS, BEAM_MS, on_timer, NULL, &periodic), 0);
    loop_until(&fired, 6);
    beam_timer_free(periodic);
    beam_timer_free(timer);
    close_loop();
}

TEST(embedded_runtime_talks_to_itself_over_a_ring)
{
    open_loop();
    beam_runtime *runtime = open_runtime(0);
    REQUIRE_INT(beam_serve(runtime, "echo", on_echo, NULL), 0);
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect(runtime, "ring:0", NULL, &session), 0);
    call_all(session);
    beam_session_free(session);
    close_loop();
}

static unsigned posted;

static void on_post(void *arg)
{
    posted++;
}

TEST(embedded_runtime_is_no_place_for_threads_and_blocking)
{
    beam_runtime *none = NULL;
    struct beam_runtime_options options = BEAM_RUNTIME_OPTIONS(.embedded = true, .reactors = 2);
    CHECK_INT(beam_runtime_new(&options, &none), -EINVAL);
    open_loop();
    beam_runtime *runtime = open_runtime(0);
    CHECK_INT(beam_start(runtime), -EINVAL);
    CHECK_INT(beam_run(runtime), -EINVAL);
    beam_session *session = NULL;
    CHECK_INT(beam_connect_wait(runtime, "ring:0", NULL, &session), -EDEADLK);
    posted = 0;
    CHECK_INT(beam_post(runtime, 0, on_post, NULL), 0);
    CHECK_UINT(posted, 0);
    loop_until(&posted, 1);
    close_loop();
}

TEST(embedded_runtimes_of_one_thread_end_one_by_one)
{
    open_loop();
    beam_runtime *first = open_runtime(0);
    beam_session *of_first = NULL, *of_second = NULL;
    REQUIRE_INT(beam_connect(first, "ring:0", NULL, &of_first), 0);
    beam_runtime *second = open_runtime(1);
    beam_session_free(of_first); /* from its thread, which runs on the other just now */
    runtimes[0] = beam_runtime_free(first);
    CHECK_INT(beam_reactor_current(), 0);
    CHECK_INT(beam_connect(second, "ring:0", NULL, &of_second), 0);
    beam_session_free(of_second);
    close_loop();
}

static const struct beam_channel_handlers no_handlers;

TEST(embedded_runtimes_of_one_thread_are_told_apart_by_their_name)
{
    beam_session *session = NULL;
    beam_timer *timer = NULL;
    open_loop();
    beam_runtime *first = open_runtime(0);
    REQUIRE_INT(beam_serve(first, "echo", on_echo, NULL), 0);
    open_runtime(1);

    /* The second was made last; what is asked of the first is the first's. */
    CHECK_INT(beam_connect(first, "ring:0", NULL, &session), 0);
    REQUIRE(session);
    call_all(session);
    REQUIRE_INT(beam_runtime_turn(runtimes[1]), 0);
    fired = 0;
    CHECK_INT(beam_timer_new(first, BEAM_MS, 0, on_timer, NULL, &timer), 0);
    loop_until(&fired, 1);

    /* A message has no runtime: the channel is of the one turned last, and only that can send it. */
    REQUIRE_INT(beam_runtime_turn(runtimes[1]), 0);
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    REQUIRE(channel);
    beam_channel_set_handlers(channel, &no_handlers, NULL);
    CHECK_INT(beam_call(session, "echo", &message, on_reply, NULL, NULL), -EXDEV);
    beam_message_free(message);
    beam_channel_free(channel);
    beam_timer_free(timer);
    beam_session_free(session);
    close_loop();
}

/* --- threads beside the loop ------------------------------------------------------------------ */

struct beside {
    beam_runtime *runtime;
    beam_session *session;
    char url[80];
    atomic_bool connected, freeing, done;
};

static void turn_until(const atomic_bool *flag)
{
    uint64_t until = beam_now_ns() + TIMEOUT_MS * BEAM_MS;
    while (!atomic_load(flag) && beam_now_ns() < until) {
        struct epoll_event event;
        if (epoll_wait(epoll, &event, 1, 10) == 1)
            REQUIRE_INT(beam_runtime_turn(runtimes[event.data.u32]), 0);
    }
    REQUIRE(atomic_load(flag));
}

static void *connect_and_free(void *arg)
{
    struct beside *beside = arg;
    CHECK_INT(beam_connect_wait(beside->runtime, "ring:0", NULL, &beside->session), 0);
    atomic_store(&beside->connected, true);
    while (!atomic_load(&beside->freeing))
        usleep(100);
    beside->session = beam_session_free(beside->session);
    atomic_store(&beside->done, true);
    return NULL;
}

TEST(embedded_runtime_frees_a_session_in_its_turn_when_another_thread_wants_it)
{
    open_loop();
    struct beside beside = {.runtime = open_runtime(0)};
    pthread_t thread;
    REQUIRE_INT(pthread_create(&thread, NULL, connect_and_free, &beside), 0);
    turn_until(&beside.connected);
    atomic_store(&beside.freeing, true);
    usleep(50000);
    CHECK(!atomic_load(&beside.done)); /* what the host owns is not touched beside it */
    turn_until(&beside.done);
    pthread_join(thread, NULL);
    close_loop();
}

static void *use_it_all(void *arg)
{
    struct beside *beside = arg;
    for (unsigned i = 0; i < 50; i++) {
        beam_session *session = NULL;
        beam_message *question = flow_message_of(100, i), *answer = NULL;
        char url[100]; /* its own each time: the name is in use until the last accept has ended */
        snprintf(url, sizeof(url), "%s-%u", beside->url, i);
        CHECK_INT(beam_listen(beside->runtime, url, NULL), 0);
        CHECK_INT(beam_connect_wait(beside->runtime, i % 2 ? url : "ring:0", NULL, &session), 0);
        if (session)
            CHECK_INT(beam_call_wait(session, "echo", &question, NULL, &answer), 0);
        CHECK(flow_body_is_right(answer, 100, i));
        beam_message_free(question);
        beam_message_free(answer);
        beam_session_free(session);
        CHECK_INT(beam_unlisten(beside->runtime, url), 0);
    }
    atomic_store(&beside->done, true);
    return NULL;
}

TEST(threads_use_an_embedded_runtime_while_its_host_turns_it)
{
    enum { USERS = 3 };
    static struct beside users[USERS];
    pthread_t threads[USERS];
    uint64_t random;
    REQUIRE_INT(getrandom(&random, sizeof(random), 0), sizeof(random));
    open_loop();
    beam_runtime *runtime = open_runtime(0);
    REQUIRE_INT(beam_serve(runtime, "echo", on_echo, NULL), 0);
    memset(users, 0, sizeof(users));
    for (unsigned i = 0; i < USERS; i++) {
        users[i].runtime = runtime;
        snprintf(users[i].url, sizeof(users[i].url), "unix:@beam-beside-%016llx-%u",
                 (unsigned long long)random, i);
        REQUIRE_INT(pthread_create(&threads[i], NULL, use_it_all, &users[i]), 0);
    }
    for (unsigned i = 0; i < USERS; i++)
        turn_until(&users[i].done);
    for (unsigned i = 0; i < USERS; i++)
        pthread_join(threads[i], NULL);
    close_loop();
}
