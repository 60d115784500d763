/* Signals while there is work: handlers without SA_RESTART interrupt each system call of a reactor's
 * thread and of one that waits for an answer. (SIGPIPE, whose default is to end the process, comes of no
 * SOCK_SEQPACKET socket; for others tests/unit/uring/test_op.c has it.) */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/served.h"

enum { CALLS = 1500, STORMED = 300 };

static atomic_uint signals;

static void on_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals, 1);
}

static struct sigaction old_action;
static pthread_t thrower;
static pthread_t targets[4];
static unsigned target_count;
static atomic_bool calm;

/* One signal a millisecond to each of the threads. */
static void *throw_signals(void *arg)
{
    (void)arg;
    while (!atomic_load(&calm)) {
        for (unsigned i = 0; i < target_count; i++)
            pthread_kill(targets[i], SIGPROF);
        served_nap();
    }
    return NULL;
}

static void note_self(void *arg)
{
    (void)arg;
    targets[target_count++] = pthread_self();
}

/* Over this thread, and all of the runtime's unless that is NULL. */
static void storm_over(beam_runtime *runtime)
{
    struct sigaction action = {.sa_handler = on_signal}; /* without SA_RESTART */
    atomic_store(&signals, 0);
    REQUIRE_INT(sigaction(SIGPROF, &action, &old_action), 0);
    target_count = 0;
    targets[target_count++] = pthread_self();
    for (unsigned i = 0; runtime && i < beam_reactor_count(runtime); i++)
        served_run(runtime, i, note_self, NULL);
    atomic_store(&calm, false);
    REQUIRE_INT(pthread_create(&thrower, NULL, throw_signals, NULL), 0);
}

static void end_storm(void)
{
    atomic_store(&calm, true);
    pthread_join(thrower, NULL);
    sigaction(SIGPROF, &old_action, NULL);
    CHECK(atomic_load(&signals) > 0);
}

static void call_many(struct served *served, const char *url)
{
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect_wait(served->runtime, url, NULL, &session), 0);
    for (unsigned i = 0; i < CALLS || atomic_load(&signals) < STORMED; i++) {
        beam_message *message = beam_message_new(), *reply = NULL;
        size_t len = 0;
        int fd = i % 10 ? -1 : dup(0);
        beam_message_set_body(message, &i, sizeof(i));
        if (fd >= 0)
            beam_message_attach_fd(message, &fd);
        REQUIRE_INT(beam_call_wait(session, "echo", &message, NULL, &reply), 0);
        const void *body = beam_message_body(reply, &len);
        CHECK_MEM(body, len, &i, sizeof(i));
        CHECK_UINT(beam_message_fd_count(reply), i % 10 ? 0 : 1);
        beam_message_free(reply);
    }
    beam_session_free(session);
}

TEST(a_busy_conversation_goes_on_through_a_storm_of_signals)
{
    struct served *served = served_start(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .name = "served"));
    static const char *const ways[] = {NULL, "ring:1"};
    for (unsigned w = 0; w < 2; w++) {
        test_note("%s", ways[w] ? ways[w] : "unix");
        storm_over(served->runtime);
        call_many(served, ways[w] ? ways[w] : served->url);
        end_storm();
    }
    served_check_clean(served);
    served_stop(served);
}

/* Signals enough, then the answer. */
struct answer_when {
    struct served *served;
    unsigned signals;
};

static void *answer_after_the_storm(void *arg)
{
    const struct answer_when *when = arg;
    WAIT_UNTIL(atomic_load(&when->served->held) == 1);
    WAIT_UNTIL(atomic_load(&signals) >= when->signals);
    served_release(when->served);
    return NULL;
}

TEST(waiting_for_an_answer_is_not_ended_by_signals)
{
    pthread_t thread;
    struct served *served = served_start(NULL);
    beam_session *session = NULL;
    beam_message *message = beam_message_new();
    REQUIRE_INT(beam_connect_wait(served->runtime, served->url, NULL, &session), 0);
    storm_over(served->runtime);
    struct answer_when when = {served, STORMED};
    REQUIRE_INT(pthread_create(&thread, NULL, answer_after_the_storm, &when), 0);
    CHECK_INT(beam_call_wait(session, "hold", &message, NULL, NULL), 0);
    CHECK(atomic_load(&signals) >= STORMED);
    pthread_join(thread, NULL);
    end_storm();
    beam_session_free(session);
    served_check_clean(served);
    served_stop(served);
}

TEST(times_are_kept_through_a_storm_of_signals)
{
    struct served *served = served_start(NULL);
    beam_session *session = NULL, *none = NULL;
    char name[80], url[100];
    raw_name(name, sizeof(name));
    snprintf(url, sizeof(url), "unix:@%s", name);
    int listener = raw_listen(name, 4); /* nobody accepts there */
    REQUIRE_INT(beam_connect_wait(served->runtime, served->url, NULL, &session), 0);
    storm_over(served->runtime);

    uint64_t begin = beam_now_ns();
    CHECK_INT(beam_connect_wait(served->runtime, url,
                                &BEAM_CONNECT_OPTIONS(.timeout_ns = 200 * BEAM_MS), &none),
              -ETIMEDOUT);
    CHECK(beam_now_ns() - begin >= 200 * BEAM_MS);

    beam_message *message = beam_message_new();
    begin = beam_now_ns();
    CHECK_INT(beam_call_wait(session, "hold", &message,
                             &BEAM_CALL_OPTIONS(.timeout_ns = 200 * BEAM_MS), NULL),
              BEAM_DEADLINE_EXCEEDED);
    CHECK(beam_now_ns() - begin >= 200 * BEAM_MS);

    end_storm();
    close(listener);
    beam_session_free(session);
    WAIT_UNTIL(atomic_load(&served->cancels) == 1);
    served_check_clean(served);
    served_stop(served);
}

TEST(runtimes_start_and_stop_through_a_storm_of_signals)
{
    struct served *served = served_start(NULL);
    storm_over(NULL); /* this thread does the starting */
    for (unsigned i = 0; i < 20 || atomic_load(&signals) < STORMED / 3; i++) {
        beam_runtime *runtime;
        beam_session *session = NULL;
        REQUIRE_INT(
            beam_runtime_new(
                &BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix), .reactors = 2),
                &runtime),
            0);
        REQUIRE_INT(beam_start(runtime), 0);
        REQUIRE_INT(beam_connect_wait(runtime, served->url, NULL, &session), 0);
        if (i % 2)
            session = beam_session_free(session);
        beam_runtime_free(runtime);
        beam_session_free(session);
    }
    end_storm();
    served_check_clean(served);
    served_stop(served);
}
