/* What is given back late, or by somebody else: messages and handles that outlive their runtime, threads
 * that meet its start and its end, and how long an end takes. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/served.h"

static const struct beam_transport *const transports[] = {&beam_unix, NULL};
static char url[100];

/* Starts nothing yet; `url` is one nobody uses. */
static beam_runtime *make(unsigned reactors)
{
    beam_runtime *runtime;
    char name[80];
    served_need_io_uring();
    raw_name(name, sizeof(name));
    snprintf(url, sizeof(url), "unix:@%s", name);
    REQUIRE_INT(
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = reactors, .transports = transports),
                         &runtime),
        0);
    return runtime;
}

static beam_session *connect_to(beam_runtime *runtime, const char *to)
{
    beam_session *session;
    REQUIRE_INT(beam_connect_wait(runtime, to, NULL, &session), 0);
    return session;
}

static void nothing(void *arg)
{
    (void)arg;
}

static void stop_and_wait(beam_runtime *runtime)
{
    beam_runtime_stop(runtime);
    WAIT_UNTIL(beam_post(runtime, 0, nothing, NULL) == -ESHUTDOWN);
}

/* --- what outlives its runtime --------------------------------------------------------------- */

#define KEPT 4
static beam_message *kept[KEPT];
static atomic_uint kept_count;
static beam_request *keeper;

static const struct beam_channel_handlers no_handlers = {0};

static void keep_more(beam_channel *channel, const beam_message *message, void *arg)
{
    (void)channel;
    (void)arg;
    kept[atomic_load(&kept_count)] = beam_message_keep(message);
    atomic_fetch_add(&kept_count, 1);
}

static const struct beam_channel_handlers keeping = {.on_message = keep_more};

static void keep(beam_request *request, const beam_message *message, void *arg)
{
    beam_channel_set_handlers(beam_request_channel(request), &keeping, NULL);
    beam_request_keep(request);
    keeper = request;
    keep_more(NULL, message, arg);
}

static beam_session *asking;
static beam_channel *asked, *attached;
static void ask(void *arg)
{
    (void)arg;
    beam_message *message = beam_message_new();
    int fd = dup(0);
    beam_message_attach_fd(message, &fd);
    attached = beam_message_attach_channel(message);
    REQUIRE_INT(beam_open(asking, "keep", &message, &no_handlers, NULL, NULL, &asked), 0);
    for (unsigned i = 1; i < KEPT; i++)
        CHECK_INT(beam_channel_send_body(asked, "more", 4), 0);
}

static void free_asked(void *arg)
{
    (void)arg;
    beam_reply(keeper, NULL);
    asked = beam_channel_free(asked);
    attached = beam_channel_free(attached);
}

/* KEPT messages of one channel, the first with an fd and a channel nobody took. */
static beam_runtime *with_kept_messages(void)
{
    beam_runtime *runtime = make(1);
    atomic_store(&kept_count, 0);
    beam_serve(runtime, "keep", keep, NULL);
    REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
    REQUIRE_INT(beam_start(runtime), 0);
    asking = connect_to(runtime, url);
    served_run(runtime, 0, ask, NULL);
    WAIT_UNTIL(atomic_load(&kept_count) == KEPT);
    served_run(runtime, 0, free_asked, NULL);
    return runtime;
}

static void *free_half(void *arg)
{
    for (unsigned i = *(unsigned *)arg; i < KEPT; i += 2)
        beam_message_free(kept[i]);
    return NULL;
}

static void free_kept_on_two_threads(void)
{
    pthread_t other;
    unsigned even = 0, odd = 1;
    REQUIRE_INT(pthread_create(&other, NULL, free_half, &even), 0);
    free_half(&odd);
    pthread_join(other, NULL);
}

TEST(messages_and_sessions_may_be_freed_after_their_runtime)
{
    beam_runtime *runtime = with_kept_messages();
    size_t len;
    beam_runtime_free(runtime);
    const void *body = beam_message_body(kept[1], &len);
    CHECK_MEM(body, len, "more", 4);
    free_kept_on_two_threads();
    asking = beam_session_free(asking);
}

TEST(messages_and_sessions_may_be_freed_when_their_reactor_has_ended)
{
    beam_runtime *runtime = with_kept_messages();
    stop_and_wait(runtime);
    free_kept_on_two_threads();
    asking = beam_session_free(asking);
    beam_runtime_free(runtime);
}

TEST(sessions_may_be_freed_while_their_reactor_ends)
{
    for (unsigned i = 0; i < 100; i++) {
        beam_runtime *runtime = make(1);
        REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
        REQUIRE_INT(beam_start(runtime), 0);
        beam_session *session = connect_to(runtime, url);
        beam_runtime_stop(runtime);
        beam_session_free(session);
        beam_runtime_free(runtime);
    }
    CHECK(true);
}

TEST(a_child_that_frees_its_parents_runtime_leaves_the_socket_alone)
{
    char path[200];
    struct stat st;
    beam_runtime *runtime = make(1);
    snprintf(path, sizeof(path), "unix:%s/socket", test_tmpdir());
    REQUIRE_INT(beam_listen(runtime, path, NULL), 0);
    REQUIRE_INT(beam_start(runtime), 0);
    beam_session *session = connect_to(runtime, path);
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        bool refused = beam_serve(runtime, "child", keep, NULL) == -BEAM_EFORKED &&
                       beam_unserve(runtime, "child") == -BEAM_EFORKED;
        beam_runtime_free(runtime);
        beam_session_free(session);
        _exit(refused ? 0 : 1);
    }
    int status;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK_INT(stat(path + strlen("unix:"), &st), 0);
    beam_session_free(session);
    session = connect_to(runtime, path);
    beam_session_free(session);
    beam_runtime_free(runtime);
}

#define REQUESTS 4
static beam_request *requests[REQUESTS];
static atomic_uint request_count, cancel_count;

static void on_cancel(beam_request *request, void *arg)
{
    (void)request;
    (void)arg;
    atomic_fetch_add(&cancel_count, 1);
}

static void keep_request(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    if (!beam_request_is_event(request))
        beam_request_on_cancel(request, on_cancel, NULL);
    requests[atomic_load(&request_count)] = request;
    atomic_fetch_add(&request_count, 1);
}

static atomic_uint reply_count;
static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    CHECK(status->code != BEAM_OK);
    atomic_fetch_add(&reply_count, 1);
}

static void ask_and_tell(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < REQUESTS; i++) {
        beam_message *message = beam_message_new();
        beam_message_put_int(message, "i", i);
        if (i % 2)
            CHECK_INT(beam_send_event(asking, "keep.request", &message), 0);
        else
            CHECK_INT(beam_call(asking, "keep.request", &message, on_reply, NULL,
                                &BEAM_CALL_OPTIONS(.timeout_ns = 3600 * BEAM_SEC)),
                      0);
    }
}

static void end_requests(void)
{
    for (unsigned i = 0; i < REQUESTS; i++) {
        beam_message *message = beam_message_new();
        beam_message_put_int(message, "late", 1);
        if (i < 2)
            beam_reply(requests[i], &message);
        else
            beam_fail(requests[i], BEAM_UNAVAILABLE, "the runtime has ended");
        beam_message_free(message);
    }
}

TEST(requests_may_be_ended_after_their_runtime)
{
    for (unsigned ring = 0; ring < 2; ring++) {
        test_note("%s", ring ? "ring" : "unix");
        beam_runtime *runtime = make(2);
        atomic_store(&request_count, 0);
        atomic_store(&cancel_count, 0);
        atomic_store(&reply_count, 0);
        beam_serve(runtime, "keep.request", keep_request, NULL);
        REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
        REQUIRE_INT(beam_start(runtime), 0);
        asking = connect_to(runtime, ring ? "ring:1" : url);
        served_run(runtime, 0, ask_and_tell, NULL);
        WAIT_UNTIL(atomic_load(&request_count) == REQUESTS);
        asking = beam_session_free(asking);
        beam_runtime_free(runtime);
        CHECK_UINT(atomic_load(&cancel_count), REQUESTS / 2);
        CHECK_UINT(atomic_load(&reply_count), REQUESTS / 2);
        end_requests();
    }
}

static void fork_and_free(void *arg)
{
    int *status = arg;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        for (unsigned i = 0; i < KEPT; i++)
            beam_message_free(kept[i]);
        beam_session_free(asking);
        _exit(0);
    }
    CHECK_INT(waitpid(pid, status, 0), pid);
}

TEST(a_child_that_a_handler_forks_may_free_what_it_has)
{
    beam_runtime *runtime = with_kept_messages();
    int status = -1;
    served_run(runtime, 0, fork_and_free, &status);
    CHECK_INT(status, 0);
    free_kept_on_two_threads();
    asking = beam_session_free(asking);
    beam_runtime_free(runtime);
}

/* --- threads that meet the start and the end ------------------------------------------------- */

static void *connect_while_starting(void *arg)
{
    beam_session *session = NULL;
    int r;
    do
        r = beam_connect_wait(arg, url, NULL, &session);
    while (r == -ESHUTDOWN); /* not started yet */
    CHECK_INT(r, 0);
    beam_session_free(session);
    beam_runtime_stop(arg);
    return NULL;
}

TEST(connecting_waits_for_a_start_under_way)
{
    for (unsigned i = 0; i < 50; i++) {
        pthread_t thread;
        beam_runtime *runtime = make(2);
        REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
        REQUIRE_INT(pthread_create(&thread, NULL, connect_while_starting, runtime), 0);
        CHECK_INT(beam_run(runtime), 0);
        pthread_join(thread, NULL);
        beam_runtime_free(runtime);
    }
}

TEST(connecting_to_what_was_not_started_is_refused)
{
    beam_runtime *runtime = make(1);
    beam_session *session;
    CHECK_INT(beam_connect_wait(runtime, url, NULL, &session), -ESHUTDOWN);
    REQUIRE_INT(beam_start(runtime), 0);
    stop_and_wait(runtime);
    CHECK_INT(beam_connect_wait(runtime, url, NULL, &session), -ESHUTDOWN);
    beam_runtime_free(runtime);
}

struct listening {
    beam_runtime *runtime;
    char url[120];
};

static void *listen_and_unlisten(void *arg)
{
    struct listening *mine = arg;
    for (unsigned i = 0; i < 500; i++) {
        CHECK_INT(beam_listen(mine->runtime, mine->url, NULL), 0);
        CHECK_INT(beam_unlisten(mine->runtime, mine->url), 0);
    }
    return NULL;
}

TEST(threads_listen_and_unlisten_before_the_start)
{
    struct listening each[4];
    pthread_t threads[4];
    beam_runtime *runtime = make(1);
    for (unsigned i = 0; i < 4; i++) {
        each[i].runtime = runtime;
        snprintf(each[i].url, sizeof(each[i].url), "%s-%u", url, i);
        REQUIRE_INT(pthread_create(&threads[i], NULL, listen_and_unlisten, &each[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    beam_runtime_free(runtime);
}

TEST(a_stop_does_not_wait_for_handles_of_closed_sessions)
{
    beam_runtime *server = make(1);
    REQUIRE_INT(beam_listen(server, url, NULL), 0);
    REQUIRE_INT(beam_start(server), 0);
    char to[sizeof(url)];
    memcpy(to, url, sizeof(to));
    for (unsigned ring = 0; ring < 2; ring++) {
        beam_runtime *runtime = make(2);
        test_note("%s", ring ? "ring" : "unix");
        REQUIRE_INT(beam_start(runtime), 0);
        beam_session *session = connect_to(runtime, ring ? "ring:1" : to);
        uint64_t begin = beam_now_ns();
        stop_and_wait(runtime);
        uint64_t took = beam_now_ns() - begin;
        CHECK(took < 800 * BEAM_MS); /* of the second that a stop may take */
        beam_runtime_free(runtime);
        beam_session_free(session);
    }
    beam_runtime_free(server);
}

static atomic_bool freed;
static void *free_runtime(void *arg)
{
    beam_runtime_free(arg);
    atomic_store(&freed, true);
    return NULL;
}

/* The session drains for as long as a stop may take, and is then ended while nothing else moves. */
TEST(a_stop_does_not_wait_for_the_handle_of_a_session_that_it_has_ended)
{
    pthread_t thread;
    beam_runtime *server = make(1), *client;
    atomic_store(&kept_count, 0);
    atomic_store(&freed, false);
    beam_serve(server, "keep", keep, NULL);
    REQUIRE_INT(beam_listen(server, url, NULL), 0);
    REQUIRE_INT(beam_start(server), 0);
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports,
                                                       .stop_timeout_ns = 50 * BEAM_MS),
                                 &client),
                0);
    REQUIRE_INT(beam_start(client), 0);
    asking = connect_to(client, url);
    served_run(client, 0, ask, NULL);
    WAIT_UNTIL(atomic_load(&kept_count) == KEPT);
    REQUIRE_INT(pthread_create(&thread, NULL, free_runtime, client), 0);
    for (unsigned i = 0; i < 3000 && !atomic_load(&freed); i++)
        served_nap();
    CHECK(atomic_load(&freed));
    if (!atomic_load(&freed))
        (void)beam_post(client, 0, nothing, NULL); /* whatever wakes it lets it end */
    pthread_join(thread, NULL);
    asking = beam_session_free(asking);
    asked = beam_channel_free(asked);
    attached = beam_channel_free(attached);
    for (unsigned i = 0; i < KEPT; i++)
        beam_message_free(kept[i]);
    beam_runtime_free(server);
    beam_reply(keeper, NULL);
}

static void on_pong(uint64_t ns, void *arg)
{
    (void)ns;
    atomic_fetch_add((atomic_uint *)arg, 1);
}

static atomic_uint pongs;
static void ping_and_free(void *arg)
{
    (void)arg;
    CHECK_INT(beam_session_ping(asking, on_pong, &pongs), 0);
    asking = beam_session_free(asking);
}

TEST(a_ping_is_forgotten_with_its_session)
{
    beam_runtime *runtime = make(1);
    atomic_store(&pongs, 0);
    REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
    REQUIRE_INT(beam_start(runtime), 0);
    asking = connect_to(runtime, url);
    served_run(runtime, 0, ping_and_free, NULL);
    beam_runtime_free(runtime);
    CHECK_UINT(atomic_load(&pongs), 0);
}

TEST(a_runtime_with_too_many_transports_is_refused_and_leaves_nothing)
{
    const struct beam_transport *const nine[] = {&beam_unix, &beam_unix, &beam_unix, &beam_unix,
                                                 &beam_unix, &beam_unix, &beam_unix, &beam_unix,
                                                 &beam_unix, NULL};
    beam_runtime *runtime = make(1);
    beam_runtime_free(runtime);
    runtime = NULL;
    CHECK_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = nine), &runtime), -EINVAL);
    CHECK_PTR(runtime, NULL);
    CHECK_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = nine + 1), &runtime), 0);
    beam_runtime_free(runtime);
}

TEST(limits_are_numbers_of_31_bits)
{
    struct beam_limits all = {.size = sizeof(all),
                              .window = UINT32_MAX,
                              .channels_max = UINT32_MAX,
                              .message_len_max = UINT32_MAX,
                              .fds_max = UINT32_MAX};
    beam_runtime *runtime = make(1);
    beam_runtime_free(runtime);
    REQUIRE_INT(
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports, .limits = all), &runtime),
        0);
    REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
    REQUIRE_INT(beam_start(runtime), 0);
    /* A HELLO with more would be refused, and beam_connect_wait with it. */
    beam_session_free(connect_to(runtime, url));
    beam_runtime_free(runtime);
}

/* --- the last mail of a reactor ----------------------------------------------------------------- */

static void on_timer(void *arg)
{
    (void)arg;
}

static beam_timer *last_timer;

/* Until no post is taken any more: the last one runs when the reactor has all but ended. */
static void make_timer(void *arg)
{
    beam_timer_free(last_timer);
    CHECK_INT(beam_timer_new(arg, 3600 * BEAM_SEC, 0, on_timer, NULL, &last_timer), 0);
    int r = beam_post(arg, 0, make_timer, arg);
    CHECK(r == 0 || r == -ESHUTDOWN);
}

TEST(timers_made_by_the_last_mail_of_a_reactor_end_with_it)
{
    beam_runtime *runtime = make(1);
    last_timer = NULL;
    REQUIRE_INT(beam_start(runtime), 0);
    REQUIRE_INT(beam_post(runtime, 0, make_timer, runtime), 0);
    beam_runtime_free(runtime);
}

enum { SLOW_MAILS = 900 };
static atomic_bool is_shut, is_freed;

static void slow_mail(void *arg)
{
    if (atomic_load(&is_shut) || beam_post(arg, 0, nothing, NULL) != -ESHUTDOWN)
        return;
    atomic_store(&is_shut, true);
    for (unsigned i = 0; i < 50 && !atomic_load(&is_freed); i++)
        served_nap();
}

static void check_not_freed(void *arg)
{
    (void)arg;
    CHECK(!atomic_load(&is_freed));
}

static void hold_until_2(void *arg);
static atomic_uint stage;

/* A call that nobody waits for any more may be the very last mail: its session is there until then. */
TEST(sessions_outlive_the_last_call_that_was_posted_on_them)
{
    beam_runtime *runtime = make(1);
    atomic_store(&stage, 0);
    atomic_store(&is_shut, false);
    atomic_store(&is_freed, false);
    REQUIRE_INT(beam_start(runtime), 0);
    beam_session *session = connect_to(runtime, "ring:0");
    REQUIRE_INT(beam_post(runtime, 0, hold_until_2, NULL), 0);
    WAIT_UNTIL(atomic_load(&stage) == 1);
    for (unsigned i = 0; i < SLOW_MAILS; i++)
        REQUIRE_INT(beam_post(runtime, 0, slow_mail, runtime), 0);
    beam_message *question = beam_message_new();
    CHECK_INT(beam_call_wait(session, "nobody", &question,
                             &BEAM_CALL_OPTIONS(.timeout_ns = BEAM_MS), NULL),
              BEAM_DEADLINE_EXCEEDED);
    REQUIRE_INT(beam_post(runtime, 0, check_not_freed, NULL), 0);
    beam_runtime_stop(runtime);
    atomic_store(&stage, 2);
    WAIT_UNTIL(atomic_load(&is_shut));
    beam_session_free(session);
    atomic_store(&is_freed, true);
    beam_runtime_free(runtime);
}

/* --- messages on their way home -------------------------------------------------------------- */

#define MANY 200
static beam_message *many[MANY];

static void make_many(void *arg)
{
    (void)arg;
    for (unsigned i = 0; i < MANY; i++)
        many[i] = beam_message_new();
}

static void hold_until_2(void *arg)
{
    (void)arg;
    atomic_store(&stage, 1);
    while (atomic_load(&stage) < 2)
        served_nap();
}

static void free_one(void *arg)
{
    beam_message_free(arg);
}

TEST(messages_freed_by_the_last_mail_of_a_reactor_are_not_lost)
{
    beam_runtime *runtime = make(2);
    atomic_store(&stage, 0);
    REQUIRE_INT(beam_start(runtime), 0);
    /* The ring on which they would go home. */
    beam_session *session = connect_to(runtime, "ring:1");
    served_run(runtime, 1, make_many, NULL);
    beam_session_free(session);
    beam_post(runtime, 0, hold_until_2, NULL);
    WAIT_UNTIL(atomic_load(&stage) == 1);
    for (unsigned i = 0; i < MANY; i++)
        REQUIRE_INT(beam_post(runtime, 0, free_one, many[i]), 0);
    beam_runtime_stop(runtime);
    for (unsigned i = 0; i < 50; i++) /* for the other reactor to be done */
        served_nap();
    atomic_store(&stage, 2);
    beam_runtime_free(runtime);
    CHECK(true);
}
