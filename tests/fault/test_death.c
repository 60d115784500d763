/* The other process dies, or was never there; and what a process may do to itself: fork, signals. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/asker.h"
#include "tests/support/served.h"

/* The thread sanitizer's runtime asks: children here make threads after a fork of many. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

/* Lent to each runtime for its life. */
static const struct beam_transport *const transports[] = {&beam_unix, NULL};

/* A child that runs fn; the parent goes on when fn has written a byte to the fd it was given. */
static pid_t start_child(void (*fn)(const char *name, int ready_fd), const char *name)
{
    int fds[2];
    char byte;
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        close(fds[0]);
        alarm(60);
        fn(name, fds[1]);
        _exit(0);
    }
    close(fds[1]);
    struct pollfd pfd = {.fd = fds[0], .events = POLLIN};
    REQUIRE_INT(poll(&pfd, 1, RAW_TIMEOUT_MS), 1);
    ssize_t n = read(fds[0], &byte, 1);
    close(fds[0]);
    CHECK_INT(n, 1);
    return pid;
}

static void kill_child(pid_t pid)
{
    int status = 0;
    kill(pid, SIGKILL);
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* --- the server dies ------------------------------------------------------------------------- */

static void child_hold(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
}

static void child_echo(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_reply(request, NULL);
}

static void run_server(const char *name, int ready_fd)
{
    beam_runtime *runtime;
    char url[120];
    snprintf(url, sizeof(url), "unix:@%s", name);
    if (beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &runtime) < 0 ||
        beam_serve(runtime, "hold", child_hold, NULL) < 0 ||
        beam_serve(runtime, "echo", child_echo, NULL) < 0 || beam_listen(runtime, url, NULL) < 0 ||
        beam_start(runtime) < 0)
        _exit(1);
    if (write(ready_fd, "r", 1) == 1)
        for (;;)
            pause();
}

/* C4 */
TEST(calls_a_killed_server_had_received_end_unknown)
{
    struct asker asker;
    struct asked asked[20], last = {.service = "echo"};
    char name[80];
    raw_name(name, sizeof(name));
    served_need_io_uring();
    pid_t pid = start_child(run_server, name);
    asker_start_at(&asker, NULL, name);
    for (unsigned i = 0; i < 20; i++) {
        asked[i] = (struct asked){.service = "hold", .open = i % 2, .channel_count = i % 3};
        asker_ask(&asker, &asked[i]);
        REQUIRE_INT(asked[i].result, 0);
    }
    asker_ask(&asker, &last);
    WAIT_UNTIL(atomic_load(&last.code) == BEAM_OK);
    kill_child(pid);
    for (unsigned i = 0; i < 20; i++) {
        WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
        CHECK_INT(atomic_load(&asked[i].code), BEAM_UNKNOWN);
        CHECK_UINT(atomic_load(&asked[i].replies), 1);
        for (unsigned k = 0; k < asked[i].channel_count; k++)
            WAIT_UNTIL(atomic_load(&asked[i].channel_codes[k]) != ASKER_PENDING);
        asker_free_channels(&asked[i]);
        asker_free_channel(&asked[i]);
    }
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    asker_ask(&asker, &last);
    CHECK_INT(last.result, -ESHUTDOWN);
    asker_stop(&asker);
}

TEST(calls_that_never_left_for_a_killed_server_end_unavailable)
{
    enum { MAX = 300, BODY = 30000 };
    static uint8_t body[BODY];
    static struct asked asked[MAX];
    struct asker asker;
    char name[80];
    raw_name(name, sizeof(name));
    served_need_io_uring();
    pid_t pid = start_child(run_server, name);
    asker_start_at(&asker, NULL, name);
    kill(pid, SIGSTOP);
    REQUIRE_INT(waitpid(pid, NULL, WUNTRACED), pid); /* until then it goes on */
    unsigned count = 0;
    int r = 0;
    while (count < MAX && r == 0) {
        asked[count] = (struct asked){.service = "echo", .body = body, .body_len = BODY};
        asker_ask(&asker, &asked[count]);
        r = asked[count].result;
        count += r == 0;
    }
    CHECK_INT(r, -EAGAIN);
    kill_child(pid);
    unsigned unknown = 0, unavailable = 0;
    for (unsigned i = 0; i < count; i++) {
        WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
        CHECK_UINT(atomic_load(&asked[i].replies), 1);
        unknown += atomic_load(&asked[i].code) == BEAM_UNKNOWN;
        unavailable += atomic_load(&asked[i].code) == BEAM_UNAVAILABLE;
        /* What left, left in order. */
        if (atomic_load(&asked[i].code) == BEAM_UNKNOWN)
            CHECK_UINT(unavailable, 0);
    }
    CHECK_UINT(unknown + unavailable, count);
    CHECK(unknown > 0 && unknown < 40);
    CHECK(unavailable > 60);
    asker_stop(&asker);
}

/* --- the client dies ------------------------------------------------------------------------- */

static void ignore_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)status;
    (void)message;
    (void)arg;
}

struct child_client {
    beam_session *session;
    beam_runtime *runtime;
    const char *url;
    int ready_fd;
};

static void ready_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct child_client *c = arg;
    (void)message;
    if (status->code != BEAM_OK || write(c->ready_fd, "r", 1) != 1)
        _exit(1);
}

static void child_calls(beam_session *session, void *arg)
{
    struct child_client *c = arg;
    for (unsigned i = 0; i < 30; i++) {
        beam_message *message = beam_message_new();
        beam_channel *channel;
        int fd = i % 3 == 0 ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
        if (fd >= 0)
            beam_message_attach_fd(message, &fd);
        if (i % 4 == 0)
            (void)beam_message_attach_channel(message);
        int r = i % 2 == 0 ? beam_call(session, "hold", &message, ignore_reply, NULL, NULL)
                           : beam_open(session, "talk", &message, NULL, NULL, NULL, &channel);
        if (r < 0)
            _exit(1);
    }
    beam_message *message = beam_message_new();
    if (beam_call(session, "echo", &message, ready_reply, c, NULL) < 0)
        _exit(1);
}

static void child_connect(void *arg)
{
    static const struct beam_session_handlers handlers = {.on_open = child_calls};
    struct child_client *c = arg;
    if (beam_connect(c->runtime, c->url, &BEAM_CONNECT_OPTIONS(.handlers = &handlers, .arg = c),
                     &c->session) < 0)
        _exit(1);
}

static void run_client(const char *name, int ready_fd)
{
    static struct child_client c;
    static char url[120];
    snprintf(url, sizeof(url), "unix:@%s", name);
    c.url = url;
    c.ready_fd = ready_fd;
    if (beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &c.runtime) < 0 ||
        beam_start(c.runtime) < 0 || beam_post(c.runtime, 0, child_connect, &c) < 0)
        _exit(1);
    for (;;)
        pause();
}

TEST(a_killed_clients_requests_are_cancelled_and_leave_nothing)
{
    struct served *served = served_start(NULL);
    pid_t pid = start_child(run_client, served->name);
    unsigned held = atomic_load(&served->held);
    CHECK_UINT(held, 30);
    kill_child(pid);
    WAIT_UNTIL(atomic_load(&served->cancels) + atomic_load(&served->ends) == held);
    served_check_clean(served);
    served_stop(served);
}

/* --- nobody there ---------------------------------------------------------------------------- */

static int connect_result(beam_runtime *runtime, const char *url, uint64_t timeout_ns)
{
    beam_session *session = NULL;
    int r =
        beam_connect_wait(runtime, url, &BEAM_CONNECT_OPTIONS(.timeout_ns = timeout_ns), &session);
    beam_session_free(session);
    return r;
}

static beam_runtime *client_runtime(void)
{
    beam_runtime *runtime = NULL;
    served_need_io_uring();
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports,
                                                       .stop_timeout_ns = 100 * BEAM_MS),
                                 &runtime),
                0);
    REQUIRE_INT(beam_start(runtime), 0);
    return runtime;
}

TEST(connecting_to_nobody_says_why)
{
    char url[200], path[160], name[80];
    beam_runtime *runtime = client_runtime();
    snprintf(url, sizeof(url), "unix:%s/nothing", test_tmpdir());
    CHECK_INT(connect_result(runtime, url, 0), -ENOENT);
    raw_name(name, sizeof(name));
    snprintf(url, sizeof(url), "unix:@%s", name);
    CHECK_INT(connect_result(runtime, url, 0), -ECONNREFUSED);

    snprintf(path, sizeof(path), "%s/stale", test_tmpdir());
    close(raw_listen(path, 1));
    snprintf(url, sizeof(url), "unix:%s", path);
    CHECK_INT(connect_result(runtime, url, 0), -ECONNREFUSED);

    CHECK_INT(connect_result(runtime, "unix:", 0), -BEAM_EURL);
    CHECK_INT(connect_result(runtime, "tcp:x", 0), -BEAM_EURL);
    CHECK_INT(connect_result(runtime, "unix:fd:x", 0), -BEAM_EURL);
    CHECK_INT(connect_result(runtime, "ring:1", 0), -BEAM_EURL);
    runtime = beam_runtime_free(runtime);
}

TEST(connecting_to_a_socket_of_another_type_says_so)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    char url[200];
    beam_runtime *runtime = client_runtime();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/stream", test_tmpdir());
    REQUIRE_INT(bind(fd, (const struct sockaddr *)&sun, sizeof(sun)), 0);
    REQUIRE_INT(listen(fd, 1), 0);
    snprintf(url, sizeof(url), "unix:%s", sun.sun_path);
    CHECK_INT(connect_result(runtime, url, 0), -EPROTOTYPE);
    close(fd);
    runtime = beam_runtime_free(runtime);
}

TEST(a_peer_that_never_says_hello_is_given_up)
{
    char name[80], url[100];
    beam_runtime *runtime = client_runtime();
    raw_name(name, sizeof(name));
    snprintf(url, sizeof(url), "unix:@%s", name);
    int listener = raw_listen(name, 4);
    CHECK_INT(connect_result(runtime, url, 50 * BEAM_MS), -ETIMEDOUT);
    close(listener);
    runtime = beam_runtime_free(runtime);
}

TEST(a_peer_that_says_something_else_is_no_refused_connection)
{
    static struct raw_peer peer;
    static struct raw_packet packet;
    char url[40];
    int fds[2];
    beam_runtime *runtime = client_runtime();
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    raw_wrap(&peer, fds[0]);
    raw_clear(&packet);
    raw_put_hello(&packet, true); /* as if it had connected */
    raw_send(&peer, &packet);
    snprintf(url, sizeof(url), "unix:fd:%d", fds[1]);
    CHECK_INT(connect_result(runtime, url, 0), -BEAM_EHELLO_ROLE);
    raw_close(&peer);
    runtime = beam_runtime_free(runtime);
}

TEST(a_call_to_a_peer_that_never_says_hello_ends_with_the_session)
{
    struct asked asked = {.service = "x"};
    struct asker asker;
    asker_start(&asker, false);
    asker_ask(&asker, &asked);
    CHECK_INT(asked.result, 0);
    raw_close(&asker.peer);
    WAIT_UNTIL(atomic_load(&asked.code) != ASKER_PENDING);
    CHECK_UINT(atomic_load(&asked.replies), 1);
    CHECK(atomic_load(&asked.code) == BEAM_UNKNOWN || atomic_load(&asked.code) == BEAM_UNAVAILABLE);
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    asker_stop(&asker);
}

TEST(a_full_backlog_is_waited_for)
{
    enum { EXTRA = 3 };
    char name[80], url[100];
    struct raw_peer *fill = calloc(EXTRA, sizeof(*fill));
    REQUIRE(fill != NULL);
    served_need_io_uring();
    raw_name(name, sizeof(name));
    snprintf(url, sizeof(url), "unix:@%s", name);
    int listener = raw_listen(name, 0);
    unsigned filled = 0;
    for (; filled < EXTRA; filled++) {
        raw_socket(&fill[filled]);
        REQUIRE_INT(fcntl(fill[filled].fd, F_SETFL, O_NONBLOCK), 0);
        if (raw_try_connect_on(&fill[filled], name) < 0)
            break;
    }
    REQUIRE(filled < EXTRA); /* the last one found it full */
    struct asker asker = {.listener = -1};
    asker_start_towards(&asker, NULL, name);
    struct asked asked = {.service = "x"};
    asker_ask(&asker, &asked);
    CHECK_INT(asked.result, 0);

    for (unsigned i = 0; i < filled; i++) {
        struct raw_peer one;
        raw_accept(&one, listener);
        raw_close(&one);
    }
    raw_accept(&asker.peer, listener);
    struct bm_hello hello = {
        .version = 1, .window = 65536, .channels_max = 16, .message_len_max = 65536, .fds_max = 4};
    asker_greet(&asker, &hello);
    struct bm_message_head head;
    REQUIRE(asker_next(&asker, &head));
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&asked.code) == BEAM_OK);
    asker_stop(&asker);
    close(listener);
    for (unsigned i = 0; i <= filled; i++)
        raw_close(&fill[i]);
    free(fill);
}

TEST(inherited_sockets_are_looked_at_first)
{
    char url[40];
    int pair[2], pipe_fds[2];
    beam_runtime *runtime = client_runtime();
    REQUIRE_INT(pipe2(pipe_fds, O_CLOEXEC), 0);
    snprintf(url, sizeof(url), "unix:fd:%d", pipe_fds[0]);
    CHECK_INT(connect_result(runtime, url, 0), -ENOTSOCK);
    CHECK_INT(beam_listen(runtime, url, NULL), -ENOTSOCK);
    CHECK_INT(fcntl(pipe_fds[0], F_GETFD) >= 0, 1); /* still the caller's */
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    CHECK_INT(connect_result(runtime, "unix:fd:9999", 0), -EBADF);
    CHECK_INT(beam_listen(runtime, "unix:fd:9999", NULL), -EBADF);

    REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    snprintf(url, sizeof(url), "unix:fd:%d", pair[0]);
    CHECK_INT(connect_result(runtime, url, 0), -EPROTOTYPE);
    close(pair[0]);
    close(pair[1]);
    runtime = beam_runtime_free(runtime);
}

TEST(an_inherited_connected_socket_serves_one_session)
{
    static struct raw_peer peer;
    static struct raw_packet packet;
    struct served *served = served_start(NULL);
    char url[40];
    int pair[2], on = 1;
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    REQUIRE_INT(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    snprintf(url, sizeof(url), "unix:fd:%d", pair[0]);
    CHECK_INT(beam_listen(served->runtime, url, NULL), 0);
    raw_wrap(&peer, pair[1]);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    raw_send(&peer, &packet);
    CHECK(raw_echo(&peer, 1, "hi", 2));
    raw_close(&peer);
    served_check_clean(served);
    served_stop(served);
}

TEST(an_inherited_listening_socket_is_accepted_on)
{
    static struct raw_peer peer;
    struct served *served = served_start(NULL);
    char url[40], name[80];
    raw_name(name, sizeof(name));
    int listener = raw_listen(name, 4);
    snprintf(url, sizeof(url), "unix:fd:%d", listener);
    CHECK_INT(beam_listen(served->runtime, url, NULL), 0);
    raw_open_session(&peer, name);
    CHECK(raw_echo(&peer, 1, "hi", 2));
    raw_close(&peer);
    CHECK_INT(beam_unlisten(served->runtime, url), 0);
    served_check_clean(served);
    served_stop(served);
}

/* --- fork and signals ------------------------------------------------------------------------ */

static void nothing(void *arg)
{
    (void)arg;
}

static bool refused_here(const char *what, int r)
{
    if (r != -BEAM_EFORKED)
        fprintf(stderr, "    %s in the child: %d (%s)\n", what, r, beam_error_name(r));
    return r == -BEAM_EFORKED;
}

TEST(a_runtime_is_of_no_use_in_a_forked_child)
{
    struct served *served = served_start(NULL);
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect_wait(served->runtime, served->url, NULL, &session), 0);
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        beam_session *other = NULL;
        beam_message *message = beam_message_new();
        alarm(20); /* waiting for ever is the failure */
        unsigned wrong = 0;
        wrong += !refused_here("beam_post", beam_post(served->runtime, 0, nothing, NULL));
        wrong += !refused_here("beam_connect_wait",
                               beam_connect_wait(served->runtime, served->url, NULL, &other));
        wrong +=
            !refused_here("beam_call_wait", beam_call_wait(session, "echo", &message, NULL, NULL));
        wrong += !refused_here("beam_listen", beam_listen(served->runtime, "unix:@x", NULL));
        wrong += !refused_here("beam_start", beam_start(served->runtime));
        wrong += !refused_here("beam_run", beam_run(served->runtime));
        beam_message_free(message);
        beam_session_free(session);
        beam_runtime_free(served->runtime);
        _exit(wrong > 0 ? 1 : 0);
    }
    int status = 0;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    served_check(served);
    session = beam_session_free(session);
    served_stop(served);
}

TEST(a_forked_child_may_make_a_runtime_of_its_own)
{
    struct served *served = served_start(NULL);
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        alarm(20);
        beam_runtime *runtime = client_runtime();
        beam_session *session = NULL;
        beam_message *message = beam_message_new();
        int r = beam_connect_wait(runtime, served->url, NULL, &session);
        if (r == 0)
            r = beam_call_wait(session, "echo", &message, NULL, NULL);
        beam_session_free(session);
        beam_runtime_free(runtime);
        _exit(r == 0 ? 0 : 1);
    }
    int status = 0;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    served_check_clean(served);
    served_stop(served);
}

static void on_signal(int signal)
{
    (void)signal;
}

TEST(a_storm_of_signals_disturbs_nothing)
{
    struct sigaction action = {.sa_handler = on_signal}, old; /* without SA_RESTART */
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec every = {{0, 100000}, {0, 100000}};
    timer_t timer;
    struct served *served = served_start(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .name = "served"));
    beam_session *session = NULL;
    REQUIRE_INT(sigaction(SIGUSR1, &action, &old), 0);
    REQUIRE_INT(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    REQUIRE_INT(timer_settime(timer, 0, &every, NULL), 0);
    for (unsigned i = 0; i < 20; i++) {
        REQUIRE_INT(beam_connect_wait(served->runtime, served->url, NULL, &session), 0);
        for (unsigned k = 0; k < 100; k++) {
            beam_message *message = beam_message_new(), *reply = NULL;
            beam_message_set_body(message, &k, sizeof(k));
            REQUIRE_INT(beam_call_wait(session, "echo", &message, NULL, &reply), 0);
            size_t len;
            const void *body = beam_message_body(reply, &len);
            CHECK_MEM(body, len, &k, sizeof(k));
            beam_message_free(reply);
        }
        session = beam_session_free(session);
        served_check(served);
    }
    timer_delete(timer);
    sigaction(SIGUSR1, &old, NULL);
    served_check_clean(served);
    served_stop(served);
}

TEST(sigpipe_does_not_kill_who_writes_to_the_dead)
{
    static struct raw_peer peer;
    static struct raw_packet packet;
    static uint8_t body[30000];
    struct sigaction action = {.sa_handler = SIG_DFL}, old;
    struct served *served = served_start(NULL);
    REQUIRE_INT(sigaction(SIGPIPE, &action, &old), 0);
    for (unsigned i = 0; i < 100; i++) {
        raw_connect(&peer, served->name);
        raw_clear(&packet);
        raw_put_hello(&packet, true);
        raw_send(&peer, &packet);
        for (unsigned k = 0; k < 20; k++) {
            raw_put_open(&packet, 1 + 2 * k, BM_MSG_END, "echo", body, sizeof(body));
            raw_send(&peer, &packet);
        }
        raw_close(&peer);
        served_check(served);
    }
    sigaction(SIGPIPE, &old, NULL);
    served_check_clean(served);
    served_stop(served);
}
