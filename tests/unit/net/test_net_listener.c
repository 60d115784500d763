/* Listeners of networks, with all that stands above them: who comes to which reactor, who is turned away,
 * and how it begins and ends. Clients are plain sockets that speak HTTP/1.1. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <beam/beam.h>
#include <beam/net.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "net/proto/certificate.h"
#include "net/resolve.h"
#include "net/server.h"
#include "net/stream_socket.h"
#include "net/url.h"
#include "runtime/transport.h"
#include "tests/support/served.h"
#include "tests/support/test.h"

/* --- the server ------------------------------------------------------------------------------ */

static const struct beam_transport *const transports[] = {&beam_http_unix, &beam_http, &beam_https,
                                                          &beam_ws,        &beam_wss,  NULL};
static beam_runtime *runtime;
static char log_text[4000];
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_log(enum beam_log_level level, const char *text, void *arg)
{
    (void)level, (void)arg;
    pthread_mutex_lock(&log_lock);
    size_t len = strlen(log_text);
    snprintf(log_text + len, sizeof(log_text) - len, "%s\n", text);
    pthread_mutex_unlock(&log_lock);
}

static bool logged(const char *text)
{
    pthread_mutex_lock(&log_lock);
    bool found = strstr(log_text, text) != NULL;
    pthread_mutex_unlock(&log_lock);
    return found;
}

/* The application's: says on which reactor. */
static void on_request(beam_http_request *request, void *arg)
{
    char digit = (char)('0' + beam_reactor_current());
    (void)arg;
    CHECK_INT(beam_http_respond(request, 200, NULL, 0, &digit, 1), 0);
}

static const struct beam_net_listen plain = {
    .size = sizeof(plain),
    .on_request = on_request,
    .connections_address_max = 10000,
    .connections_address_per_s = 10000,
};

static void make(unsigned reactors)
{
    served_need_io_uring();
    log_text[0] = '\0';
    REQUIRE_INT(
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = reactors, .transports = transports,
                                               .log = on_log, .stop_timeout_ns = 100 * BEAM_MS),
                         &runtime),
        0);
}

static int listen_at(const char *url, const struct beam_net_listen *net)
{
    return beam_listen(runtime, url, &BEAM_LISTEN_OPTIONS(.net = net));
}

static void start(void)
{
    REQUIRE_INT(beam_start(runtime), 0);
}

static void finish(void)
{
    runtime = beam_runtime_free(runtime);
}

static struct bm_socket_address address_of(const char *url)
{
    struct bm_url parsed;
    struct bm_socket_address address;
    char real[400];
    REQUIRE_INT(beam_listen_url(runtime, url, real, sizeof(real)), 0);
    REQUIRE_INT(bm_url_parse(real, &parsed, NULL), 0);
    REQUIRE_INT(bm_resolve_wait(&parsed, &address), 0);
    return address;
}

/* --- clients --------------------------------------------------------------------------------- */

static int try_connect(const struct bm_socket_address *address, int *ret_fd)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    if (connect(fd, &address->any, address->len) < 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

static int connect_to(const struct bm_socket_address *address)
{
    int fd = -1;
    REQUIRE_INT(try_connect(address, &fd), 0);
    return fd;
}

static void say(int fd, const char *text)
{
    CHECK_INT(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* Reads until the text has come: 0; -ECONNRESET: the connection ended before. */
static int hear(int fd, const char *text)
{
    char got[4096] = "";
    size_t len = 0;
    for (;;) {
        struct pollfd pfd = {.fd = fd, .events = POLLIN};
        if (poll(&pfd, 1, 20000) != 1)
            return -ETIMEDOUT;
        ssize_t n = recv(fd, got + len, sizeof(got) - 1 - len, 0);
        if (n <= 0)
            return -ECONNRESET;
        len += (size_t)n;
        got[len] = '\0';
        if (strstr(got, text))
            return 0;
    }
}

static int ask_health(int fd)
{
    if (send(fd, "GET /beam/health HTTP/1.1\r\nhost: h\r\n\r\n", 38, MSG_NOSIGNAL) < 0)
        return -errno;
    return hear(fd, "{\"status\":\"ok\"}");
}

/* On which reactor the other end is. */
static int ask_where(int fd)
{
    char got[2048];
    size_t len = 0;
    say(fd, "GET /where HTTP/1.1\r\nhost: h\r\n\r\n");
    for (;;) {
        ssize_t n = recv(fd, got + len, sizeof(got) - 1 - len, 0);
        REQUIRE(n > 0);
        len += (size_t)n;
        got[len] = '\0';
        const char *end = strstr(got, "\r\n\r\n");
        if (end && end[4])
            return end[4] - '0';
    }
}

/* --- distribution ---------------------------------------------------------------------------- */

enum { CLIENTS = 64 };

static void count_reactors(const struct bm_socket_address *address, int counts[2])
{
    int clients[CLIENTS];
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = connect_to(address);
    for (unsigned i = 0; i < CLIENTS; i++) {
        int where = ask_where(clients[i]);
        REQUIRE(where == 0 || where == 1);
        counts[where]++;
        close(clients[i]);
    }
    printf("     of %d connections %d and %d\n", CLIENTS, counts[0], counts[1]);
}

TEST(net_listener_has_connections_on_all_reactors)
{
    int counts[2] = {0, 0};
    make(2);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
    start();
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    count_reactors(&address, counts);
    CHECK(counts[0] > 0); /* 2^-63 that chance makes this red */
    CHECK(counts[1] > 0);
    finish();
}

TEST(net_listener_at_a_socket_file_deals_connections_out)
{
    int counts[2] = {0, 0};
    char url[200];
    struct stat st;
    snprintf(url, sizeof(url), "http+unix:%s/s", test_tmpdir());
    make(2);
    REQUIRE_INT(listen_at(url, &plain), 0);
    CHECK_INT(stat(url + 10, &st), 0);
    CHECK_INT(st.st_mode & 0777, 0600);
    CHECK_INT(listen_at(url, &plain), -EADDRINUSE);
    start();
    struct bm_socket_address address = address_of(url);
    count_reactors(&address, counts);
    CHECK(counts[0] >= CLIENTS / 2 - 1); /* the first may come before the other reactor is known */
    CHECK(counts[1] >= CLIENTS / 2 - 1);
    finish();
    CHECK_INT(stat(url + 10, &st), -1);
}

TEST(net_listeners_of_all_schemes_answer_health)
{
    char name[100], file[200];
    raw_name(name, sizeof(name));
    snprintf(file, sizeof(file), "http+unix:@%s", name);
    const char *urls[] = {"http://127.0.0.1:0", "ws://127.0.0.1:0", "http://localhost:0/p", file};
    make(1);
    for (unsigned i = 0; i < BM_ARRAY_LEN(urls); i++)
        CHECK_INT(listen_at(urls[i], NULL), 0);
    start();
    for (unsigned i = 0; i < BM_ARRAY_LEN(urls); i++) {
        struct bm_socket_address address = address_of(urls[i]);
        int fd = connect_to(&address);
        test_note("%s", urls[i]);
        if (i == 2) {
            say(fd, "GET /p/health HTTP/1.1\r\nhost: h\r\n\r\n");
            CHECK_INT(hear(fd, "{\"status\":\"ok\"}"), 0);
        } else {
            CHECK_INT(ask_health(fd), 0);
            say(fd, "GET /beam/stats HTTP/1.1\r\nhost: h\r\n\r\n");
            CHECK_INT(hear(fd, i == 3 ? " 200 " : " 401 "), 0); /* nobody that it does not know */
        }
        close(fd);
    }
    finish();
}

TEST(net_transports_are_told_apart_by_the_whole_scheme)
{
    static const struct {
        const char *url;
        const struct beam_transport *transport;
    } rows[] = {
        {"https://h", &beam_https},
        {"http://h", &beam_http},
        {"wss://h", &beam_wss},
        {"ws://h", &beam_ws},
        {"http+unix:/h", &beam_http_unix},
        {"http+unix", NULL},
        {"httpsx://h", NULL},
        {"h", NULL},
    };
    for (unsigned turn = 0; turn < 5; turn++) { /* in any order */
        const struct beam_transport *some[] = {
            transports[turn % 5],       transports[(turn + 1) % 5], transports[(turn + 2) % 5],
            transports[(turn + 3) % 5], transports[(turn + 4) % 5], NULL};
        REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = some), &runtime), 0);
        for (unsigned i = 0; i < BM_ARRAY_LEN(rows); i++)
            CHECK_PTR(bm_transport_find(runtime, rows[i].url), rows[i].transport);
        finish();
    }
}

/* --- beginning ------------------------------------------------------------------------------- */

TEST(net_listener_tells_its_real_url)
{
    char real[400], small[24];
    make(2);
    REQUIRE_INT(listen_at("http://127.0.0.1:0/api", &plain), 0);
    CHECK_INT(beam_listen_url(runtime, "http://127.0.0.1:0/api", real, sizeof(real)), 0);
    CHECK_INT(strncmp(real, "http://127.0.0.1:", 17), 0);
    CHECK(atoi(real + 17) > 0);
    CHECK_STR(strchr(real + 17, '/'), "/api");
    CHECK_INT(beam_listen_url(runtime, "http://127.0.0.1:0/api", small, sizeof(small)), -ENOSPC);
    CHECK_INT(beam_listen_url(runtime, "http://127.0.0.1:1", real, sizeof(real)), -ENOENT);
    CHECK_INT(beam_listen_url(runtime, NULL, real, sizeof(real)), -EINVAL);
    start();
    char again[400];
    CHECK_INT(beam_listen_url(runtime, "http://127.0.0.1:0/api", again, sizeof(again)), 0);
    CHECK_STR(again, real);
    /* And under it somebody listens. */
    CHECK_INT(listen_at(real, &plain), -EADDRINUSE);
    finish();
}

TEST(net_listener_does_not_take_a_port_that_is_taken)
{
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        struct bm_socket_address address = {.len = 0};
        char url[100], text[BM_SOCKET_TEXT_LEN];
        int on = 1;
        address.in = (struct sockaddr_in){.sin_family = AF_INET};
        address.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.len = sizeof(address.in);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
        REQUIRE_INT(bind(fd, &address.any, address.len), 0);
        REQUIRE_INT(listen(fd, 1), 0);
        REQUIRE_INT(getsockname(fd, &address.any, &address.len), 0);
        bm_socket_text(&address, text);
        snprintf(url, sizeof(url), "http://%s", text);
        make(reactors);
        CHECK_INT(listen_at(url, &plain), -EADDRINUSE);
        close(fd);
        CHECK_INT(listen_at(url, &plain), 0);
        CHECK_INT(listen_at(url, &plain), -EADDRINUSE);
        finish(); /* never started */
    }
}

TEST(net_listener_says_what_is_wrong)
{
    static const char junk[] = "this is no certificate";
    const struct beam_pem pem = {.data = junk, .len = sizeof(junk) - 1};
    const struct beam_pem nowhere = {.path = "/nonexistent/certificate.pem"};
    const struct {
        const char *url;
        struct beam_net_listen net;
        int error;
        const char *why;
    } rows[] = {
        {"https://127.0.0.1:0", BEAM_NET_LISTEN(.tls12 = false), -EINVAL, "certificate"},
        {"wss://127.0.0.1:0", BEAM_NET_LISTEN(.certificate = pem), -EINVAL, "certificate"},
        {"http://127.0.0.1:0", BEAM_NET_LISTEN(.certificate = pem), -EINVAL, "https:"},
        {"http://127.0.0.1:0", BEAM_NET_LISTEN(.client_ca = pem), -EINVAL, "https:"},
        {"https://127.0.0.1:0", BEAM_NET_LISTEN(.certificate = pem, .key = pem),
         -BEAM_ETLS_CONFIGURATION, "https://127.0.0.1:0: "},
        {"https://127.0.0.1:0", BEAM_NET_LISTEN(.certificate = nowhere, .key = pem), -ENOENT,
         "/nonexistent"},
        {"http://127.0.0.1:0", BEAM_NET_LISTEN(.connections_address_max = 70000), -EINVAL, "65536"},
        {"http://b\xc3\xbc.example:0", BEAM_NET_LISTEN(.tls12 = false), -BEAM_EURL, "ASCII"},
        {"http://192.0.2.7:0", BEAM_NET_LISTEN(.tls12 = false), -EADDRNOTAVAIL, ""},
        {"http+unix:relative", BEAM_NET_LISTEN(.tls12 = false), -BEAM_EURL, "@name"},
        {"http+unix:/nonexistent/x", BEAM_NET_LISTEN(.tls12 = false), -ENOENT, ""},
    };
    make(2);
    for (unsigned i = 0; i < BM_ARRAY_LEN(rows); i++) {
        log_text[0] = '\0';
        test_note("%u: %s", i, rows[i].url);
        CHECK_INT(listen_at(rows[i].url, &rows[i].net), rows[i].error);
        CHECK(logged(rows[i].why));
    }
    finish();
}

/* --- limits ---------------------------------------------------------------------------------- */

TEST(net_listener_limits_the_connections_of_an_address)
{
    struct beam_net_listen net = plain;
    int fds[4];
    net.connections_address_max = 3;
    make(2);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &net), 0);
    start();
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    for (unsigned i = 0; i < 3; i++) {
        fds[i] = connect_to(&address);
        CHECK_INT(ask_health(fds[i]), 0);
    }
    fds[3] = connect_to(&address);
    CHECK(ask_health(fds[3]) < 0); /* closed as soon as it is accepted */
    close(fds[3]);
    WAIT_UNTIL(logged("too many connections from one address (127.0.0.1:"));
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(ask_health(fds[i]), 0);
    close(fds[0]);
    bool back = false;
    for (unsigned i = 0; i < 1000 && !back; i++) { /* until the server has seen it go */
        fds[3] = connect_to(&address);
        back = ask_health(fds[3]) == 0;
        if (!back) {
            close(fds[3]);
            served_nap();
        }
    }
    CHECK(back);
    for (unsigned i = 1; i < 4; i++)
        close(fds[i]);
    finish();
}

TEST(net_listener_limits_how_fast_an_address_connects)
{
    struct beam_net_listen net = plain;
    char name[100], url[200];
    net.connections_address_per_s = 1;
    raw_name(name, sizeof(name));
    snprintf(url, sizeof(url), "http+unix:@%s", name); /* of a user there */
    make(1);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &net), 0);
    REQUIRE_INT(listen_at(url, &net), 0);
    start();
    for (unsigned k = 0; k < 2; k++) {
        struct bm_socket_address address = address_of(k == 0 ? "http://127.0.0.1:0" : url);
        unsigned served = 0;
        for (unsigned i = 0; i < 50; i++) {
            int fd = connect_to(&address);
            served += ask_health(fd) == 0;
            close(fd);
        }
        CHECK(served >= 2);
        CHECK(served < 50); /* unless the fifty take 48 s */
    }
    finish();
}

/* --- no more descriptors --------------------------------------------------------------------- */

static void no_more_fds(void)
{
    struct rlimit before, low;
    int fds[256];
    unsigned count = 0;
    make(1);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
    start();
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int first = connect_to(&address);
    CHECK_INT(ask_health(first), 0);
    int second = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int late = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    low = before;
    low.rlim_cur = 128;
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    /* The accept under way has the old limit; the next one that of its beginning. */
    CHECK_INT(connect(second, &address.any, address.len), 0);
    CHECK_INT(ask_health(second), 0);
    int fd;
    while (count < 256 && (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        fds[count++] = fd;
    CHECK_INT(connect(late, &address.any, address.len), 0);
    CHECK(hear(late, "x") == -ECONNRESET); /* told, and not left to hang */
    CHECK_INT(ask_health(first), 0);
    while (count > 0)
        close(fds[--count]);
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
    close(late);
    close(second);
    CHECK(logged("cannot accept"));
    late = connect_to(&address);
    CHECK_INT(ask_health(late), 0);
    close(late);
    close(first);
    finish();
}

TEST(net_listener_without_descriptors_turns_peers_away)
{
    no_more_fds();
}

TEST(net_listener_without_descriptors_turns_peers_away_unprivileged)
{
    test_run_as_nobody(no_more_fds);
}

/* --- end ------------------------------------------------------------------------------------- */

TEST(net_unlisten_refuses_new_peers_and_leaves_the_others)
{
    for (unsigned reactors = 1; reactors <= 2; reactors++) {
        char real[400];
        int fd, fds[8];
        make(reactors);
        REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
        start();
        struct bm_socket_address address = address_of("http://127.0.0.1:0");
        REQUIRE_INT(beam_listen_url(runtime, "http://127.0.0.1:0", real, sizeof(real)), 0);
        for (unsigned i = 0; i < 8; i++) {
            fds[i] = connect_to(&address);
            CHECK_INT(ask_health(fds[i]), 0);
        }
        CHECK_INT(beam_unlisten(runtime, "http://127.0.0.1:0"), 0);
        CHECK_INT(try_connect(&address, &fd), -ECONNREFUSED);
        CHECK_INT(beam_unlisten(runtime, "http://127.0.0.1:0"), -ENOENT);
        for (unsigned i = 0; i < 8; i++) {
            say(fds[i], "GET /beam/health HTTP/1.1\r\nhost: h\r\n\r\n");
            CHECK_INT(hear(fds[i], "{\"status\":\"draining\"}"), 0);
            ask_where(fds[i]);
        }
        CHECK_INT(listen_at(real, &plain), 0); /* the port is free at once */
        fd = connect_to(&address);
        CHECK_INT(ask_health(fd), 0);
        close(fd);
        for (unsigned i = 0; i < 8; i++)
            close(fds[i]);
        finish();
    }
}

static sem_t busy_begins, busy_ends;

static void be_busy(void *arg)
{
    (void)arg;
    sem_post(&busy_begins);
    while (sem_wait(&busy_ends) < 0)
        ;
}

/* A reactor that has no time to hear of it accepts nobody any more all the same. */
TEST(net_unlisten_refuses_peers_on_reactors_that_are_busy)
{
    make(2);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
    start();
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int where = 0;
    while (where == 0) { /* both listen */
        int fd = connect_to(&address);
        where = ask_where(fd);
        close(fd);
    }
    sem_init(&busy_begins, 0, 0);
    sem_init(&busy_ends, 0, 0);
    REQUIRE_INT(beam_post(runtime, 1, be_busy, NULL), 0);
    while (sem_wait(&busy_begins) < 0)
        ;
    CHECK_INT(beam_unlisten(runtime, "http://127.0.0.1:0"), 0);
    for (unsigned i = 0; i < 16; i++) {
        int fd = -1;
        CHECK_INT(try_connect(&address, &fd), -ECONNREFUSED);
        if (fd >= 0)
            close(fd);
    }
    sem_post(&busy_ends);
    finish();
    CHECK(!logged("cannot accept"));
}

static atomic_bool enough;

static void *keep_connecting(void *arg)
{
    const struct bm_socket_address *address = arg;
    while (!atomic_load(&enough)) {
        int fd;
        if (try_connect(address, &fd) < 0)
            continue;
        (void)ask_health(fd);
        close(fd);
    }
    return NULL;
}

/* Whatever of it is under way. */
TEST(net_listener_ends_while_peers_come)
{
    for (unsigned i = 0; i < 20; i++) {
        pthread_t threads[2];
        make(2);
        REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
        start();
        struct bm_socket_address address = address_of("http://127.0.0.1:0");
        atomic_store(&enough, false);
        for (unsigned k = 0; k < 2; k++)
            REQUIRE_INT(pthread_create(&threads[k], NULL, keep_connecting, &address), 0);
        int fd = connect_to(&address);
        (void)ask_where(fd);
        close(fd);
        if (i % 2 == 0) {
            CHECK_INT(beam_unlisten(runtime, "http://127.0.0.1:0"), 0);
        }
        finish();
        atomic_store(&enough, true);
        for (unsigned k = 0; k < 2; k++)
            pthread_join(threads[k], NULL);
    }
}

TEST(net_listener_may_end_at_once)
{
    for (unsigned i = 0; i < 30; i++) {
        make(2);
        REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
        if (i % 3 > 0)
            start();
        if (i % 3 > 1)
            CHECK_INT(beam_unlisten(runtime, "http://127.0.0.1:0"), 0);
        finish();
    }
}

/* Listening, stopping and starting before the other reactor has heard of it. */
TEST(net_unlisten_right_behind_listen)
{
    make(2);
    start();
    for (unsigned i = 0; i < 50; i++) {
        CHECK_INT(listen_at("http://127.0.0.1:0", &plain), 0);
        CHECK_INT(beam_unlisten(runtime, "http://127.0.0.1:0"), 0);
    }
    finish();
}

TEST(net_listener_of_a_parent_is_not_its_childs)
{
    char file[200];
    snprintf(file, sizeof(file), "http+unix:%s/f", test_tmpdir());
    make(2);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
    REQUIRE_INT(listen_at(file, &plain), 0);
    start();
    pid_t pid = fork();
    if (pid == 0) {
        int r = beam_unlisten(runtime, file);
        beam_runtime_free(runtime);
        _exit(r == -BEAM_EFORKED ? 0 : 1);
    }
    int status;
    REQUIRE_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    struct bm_socket_address address = address_of(file);
    int fd = connect_to(&address);
    CHECK_INT(ask_health(fd), 0);
    close(fd);
    address = address_of("http://127.0.0.1:0");
    fd = connect_to(&address);
    CHECK_INT(ask_health(fd), 0);
    close(fd);
    finish();
}

/* --- adopt ----------------------------------------------------------------------------------- */

TEST(net_adopt_serves_a_socket_that_somebody_else_has_accepted)
{
    static const char begin[] = "GET /beam/health HTTP/1.1\r\nho";
    int pair[2], counts[2] = {0, 0};
    make(2);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:0", &pair[0], NULL, 0), -ESHUTDOWN);
    start();
    int fd = pair[0];
    CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:0", &pair[0], begin, sizeof(begin) - 1), 0);
    CHECK_INT(pair[0], -1);
    (void)fd;
    say(pair[1], "st: h\r\n\r\n");
    CHECK_INT(hear(pair[1], "{\"status\":\"ok\"}"), 0);
    close(pair[1]);

    int ends[8];
    for (unsigned i = 0; i < 8; i++) { /* in turn */
        REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:0", &pair[0], NULL, 0), 0);
        ends[i] = pair[1];
        counts[ask_where(pair[1]) & 1]++;
    }
    CHECK_INT(counts[0], 4);
    CHECK_INT(counts[1], 4);
    for (unsigned i = 0; i < 8; i++)
        close(ends[i]);
    finish();
}

TEST(net_adopt_refuses_what_it_cannot_serve)
{
    static char much[(64 << 10) + 1];
    int pair[2], none = -1;
    make(1);
    REQUIRE_INT(listen_at("http://127.0.0.1:0", &plain), 0);
    start();
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:1", &pair[0], NULL, 0), -ENOENT);
    CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:0", &pair[0], much, sizeof(much)),
              -EMSGSIZE);
    CHECK_INT(beam_net_adopt(runtime, NULL, &pair[0], NULL, 0), -EINVAL);
    CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:0", &pair[0], NULL, 1), -EINVAL);
    CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:0", &none, NULL, 0), -EBADF);
    CHECK(pair[0] >= 0); /* still ours */
    close(pair[0]);
    close(pair[1]);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
    CHECK_INT(beam_net_adopt(runtime, "http://127.0.0.1:0", &pair[0], NULL, 0), -EPROTOTYPE);
    close(pair[0]);
    close(pair[1]);
    finish();
}

/* --- TLS ------------------------------------------------------------------------------------- */

static struct bm_certificate certificate_for(enum bm_certificate_use use, const char *name,
                                             const struct bm_certificate *issuer)
{
    const char *names[] = {name, NULL};
    struct bm_certificate made;
    REQUIRE_INT(bm_certificate_make(&made,
                                    &(struct bm_certificate_options){
                                        .size = sizeof(struct bm_certificate_options),
                                        .use = use,
                                        .common_name = "test",
                                        .names = use == BM_CERTIFICATE_CA ? NULL : names,
                                        .issuer = issuer,
                                    }),
                0);
    return made;
}

static struct beam_net_listen secure(const struct bm_certificate *certificate)
{
    struct beam_net_listen net = plain;
    net.certificate = (struct beam_pem){.data = certificate->pem, .len = strlen(certificate->pem)};
    net.key = (struct beam_pem){.data = certificate->key, .len = strlen(certificate->key)};
    return net;
}

/* A client of TLS over a blocking socket, for one request at a time. */
struct secure_client {
    int fd;
    struct bm_tls *tls;
    uint8_t bytes[16384];
    char got[4096];
    size_t got_len;
};

static void client_flush(struct secure_client *client)
{
    size_t len;
    const uint8_t *bytes;
    while ((bytes = bm_tls_output(client->tls, &len)) && len > 0) {
        ssize_t n = send(client->fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            return;
        bm_tls_output_ack(client->tls, (size_t)n);
    }
}

/* What the server has sent; the TLS error, or -ECONNRESET. */
static int client_turn(struct secure_client *client)
{
    struct pollfd pfd = {.fd = client->fd, .events = POLLIN};
    client_flush(client);
    if (poll(&pfd, 1, 20000) != 1)
        return -ETIMEDOUT;
    ssize_t n = recv(client->fd, client->bytes, sizeof(client->bytes), 0);
    if (n <= 0)
        return -ECONNRESET;
    int r = bm_tls_receive(client->tls, client->bytes, (size_t)n, bm_clock_now_ns());
    while (r >= 0) {
        size_t len = 0;
        r = bm_tls_read(client->tls, client->got + client->got_len,
                        sizeof(client->got) - 1 - client->got_len, &len);
        client->got_len += len;
        client->got[client->got_len] = '\0';
        if (r != 0)
            break;
    }
    client_flush(client);
    return r < 0 ? r : 0;
}

static int client_open(struct secure_client *client, const struct bm_socket_address *address,
                       struct bm_tls_context *context, const char *host, const uint8_t *resume,
                       size_t resume_len)
{
    int r = 0;
    *client = (struct secure_client){.fd = connect_to(address)};
    const struct bm_tls_start begin = {.size = sizeof(begin),
                                       .host = host,
                                       .port = 443,
                                       .resume = resume,
                                       .resume_len = resume_len};
    REQUIRE_INT(bm_tls_new(&client->tls, context, &begin), 0);
    while (r == 0 && !bm_tls_is_open(client->tls))
        r = client_turn(client);
    return r;
}

static void client_close(struct secure_client *client)
{
    client->tls = bm_tls_free(client->tls);
    close(client->fd);
}

static int client_ask(struct secure_client *client, const char *request, const char *answer)
{
    size_t taken;
    int r = 0;
    client->got_len = 0;
    client->got[0] = '\0';
    CHECK_INT(bm_tls_write(client->tls, request, strlen(request), &taken), 0);
    CHECK_UINT(taken, strlen(request));
    while (r == 0 && !strstr(client->got, answer))
        r = client_turn(client);
    return r;
}

static struct bm_tls_context *client_context(const struct bm_certificate *ca)
{
    static const char *const alpn[] = {"http/1.1", NULL};
    const struct bm_tls_options options = {
        .size = sizeof(options),
        .role = BM_TLS_CLIENT,
        .ca = {.data = ca->pem, .len = strlen(ca->pem)},
        .alpn = alpn,
    };
    struct bm_tls_context *context = NULL;
    REQUIRE_INT(bm_tls_context_new(&context, &options, NULL), 0);
    return context;
}

#define HEALTH "GET /beam/health HTTP/1.1\r\nhost: h\r\n\r\n"
#define HEALTHY "{\"status\":\"ok\"}"

TEST(net_reload_is_for_connections_to_come)
{
    struct bm_certificate ca = certificate_for(BM_CERTIFICATE_CA, "ca", NULL);
    struct bm_certificate old = certificate_for(BM_CERTIFICATE_SERVER, "dns:old.example", &ca);
    struct bm_certificate new = certificate_for(BM_CERTIFICATE_SERVER, "dns:new.example", &ca);
    struct beam_net_listen net = secure(&old);
    struct bm_tls_context *context = client_context(&ca);
    static struct secure_client first, client;
    make(2);
    REQUIRE_INT(listen_at("https://127.0.0.1:0", &net), 0);
    REQUIRE_INT(listen_at("wss://127.0.0.1:0", &net), 0);
    start();
    struct bm_socket_address address = address_of("https://127.0.0.1:0");
    struct bm_socket_address other = address_of("wss://127.0.0.1:0");
    REQUIRE_INT(client_open(&first, &address, context, "old.example", NULL, 0), 0);
    CHECK_INT(client_ask(&first, HEALTH, HEALTHY), 0);
    CHECK_INT(client_open(&client, &address, context, "new.example", NULL, 0),
              -BEAM_ETLS_CERTIFICATE);
    client_close(&client);

    net = secure(&new);
    CHECK_INT(beam_net_reload(runtime, "https://127.0.0.1:0", &net), 0);
    for (unsigned i = 0; i < 16; i++) { /* on both reactors */
        CHECK_INT(client_open(&client, &address, context, "new.example", NULL, 0), 0);
        CHECK_INT(client_ask(&client, HEALTH, HEALTHY), 0);
        client_close(&client);
    }
    CHECK_INT(client_ask(&first, HEALTH, HEALTHY), 0);
    client_close(&first);
    REQUIRE_INT(client_open(&client, &other, context, "old.example", NULL, 0),
                0); /* not of this listener */
    client_close(&client);

    /* What is wrong leaves all as it was. */
    CHECK_INT(beam_net_reload(runtime, "https://127.0.0.1:1", &net), -ENOENT);
    CHECK_INT(beam_net_reload(runtime, "http://127.0.0.1:0", &net), -EINVAL);
    CHECK_INT(beam_net_reload(runtime, "https://127.0.0.1:0", NULL), -EINVAL);
    net.key = (struct beam_pem){.data = old.key, .len = strlen(old.key)};
    CHECK_INT(beam_net_reload(runtime, "https://127.0.0.1:0", &net), -BEAM_ETLS_CONFIGURATION);
    CHECK_INT(client_open(&client, &address, context, "new.example", NULL, 0), 0);
    client_close(&client);
    finish();
    bm_tls_context_unref(context);
}

TEST(net_reload_before_the_start)
{
    struct bm_certificate ca = certificate_for(BM_CERTIFICATE_CA, "ca", NULL);
    struct bm_certificate old = certificate_for(BM_CERTIFICATE_SERVER, "dns:old.example", &ca);
    struct bm_certificate new = certificate_for(BM_CERTIFICATE_SERVER, "dns:new.example", &ca);
    struct beam_net_listen net = secure(&old);
    struct bm_tls_context *context = client_context(&ca);
    static struct secure_client client;
    make(2);
    REQUIRE_INT(listen_at("https://127.0.0.1:0", &net), 0);
    net = secure(&new);
    CHECK_INT(beam_net_reload(runtime, "https://127.0.0.1:0", &net), 0);
    start();
    struct bm_socket_address address = address_of("https://127.0.0.1:0");
    for (unsigned i = 0; i < 8; i++) {
        CHECK_INT(client_open(&client, &address, context, "new.example", NULL, 0), 0);
        client_close(&client);
    }
    finish();
    bm_tls_context_unref(context);
}

/* A ticket of one reactor is good on the other, and after new certificates too. */
TEST(net_tickets_are_good_on_all_reactors)
{
    struct bm_certificate ca = certificate_for(BM_CERTIFICATE_CA, "ca", NULL);
    struct bm_certificate own = certificate_for(BM_CERTIFICATE_SERVER, "dns:own.example", &ca);
    struct beam_net_listen net = secure(&own);
    struct bm_tls_context *context = client_context(&ca);
    static struct secure_client client;
    static uint8_t ticket[BM_TLS_SESSION_MAX];
    size_t ticket_len = 0;
    unsigned resumed[2] = {0, 0};
    make(2);
    REQUIRE_INT(listen_at("https://127.0.0.1:0", &net), 0);
    start();
    struct bm_socket_address address = address_of("https://127.0.0.1:0");
    for (unsigned i = 0; i < 40; i++) {
        struct bm_tls_facts facts;
        if (i == 20)
            CHECK_INT(beam_net_reload(runtime, "https://127.0.0.1:0", &net), 0);
        REQUIRE_INT(
            client_open(&client, &address, context, "own.example", i ? ticket : NULL, ticket_len),
            0);
        CHECK_INT(client_ask(&client, "GET /where HTTP/1.1\r\nhost: h\r\n\r\n", "\r\n\r\n"), 0);
        bm_tls_facts(client.tls, &facts);
        CHECK_INT(facts.resumed, i > 0);
        const char *body = strstr(client.got, "\r\n\r\n");
        while (!body[4] && client_turn(&client) == 0)
            ;
        if (facts.resumed)
            resumed[body[4] == '1']++;
        REQUIRE_INT(bm_tls_session(client.tls, ticket, sizeof(ticket), &ticket_len), 0);
        client_close(&client);
    }
    CHECK(resumed[0] > 0);
    CHECK(resumed[1] > 0);
    finish();
    bm_tls_context_unref(context);
}

static _Atomic uint64_t ahead_ns; /* of the real clock */

static uint64_t later(void *arg)
{
    struct timespec now;
    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BM_NS_PER_S + (uint64_t)now.tv_nsec + atomic_load(&ahead_ns);
}

static void fill(void *buf, size_t len, void *arg)
{
    (void)arg;
    REQUIRE_INT(getrandom(buf, len, 0), (ssize_t)len);
}

static void nothing(void *arg)
{
    (void)arg;
}

static void an_hour_passes(void)
{
    atomic_fetch_add(&ahead_ns, 3600 * BM_NS_PER_S);
    for (unsigned i = 0; i < 3; i++) /* a turn that has seen the time, and one behind it */
        served_run(runtime, 0, nothing, NULL);
    served_run(runtime, 1, nothing, NULL); /* behind what the first has told the other */
}

/* How many of some connections are resumed with the ticket; if there is none yet, one connection gets it. */
static unsigned resumptions(struct bm_tls_context *context, uint8_t *ticket, size_t *ticket_len)
{
    struct bm_socket_address address = address_of("https://127.0.0.1:0");
    static struct secure_client client;
    bool first = *ticket_len == 0;
    unsigned count = 0;
    for (unsigned i = 0; i < (first ? 1 : 12); i++) {
        struct bm_tls_facts facts;
        REQUIRE_INT(client_open(&client, &address, context, "own.example", first ? NULL : ticket,
                                *ticket_len),
                    0);
        CHECK_INT(client_ask(&client, HEALTH, HEALTHY), 0);
        bm_tls_facts(client.tls, &facts);
        count += facts.resumed;
        if (first)
            REQUIRE_INT(bm_tls_session(client.tls, ticket, BM_TLS_SESSION_MAX, ticket_len), 0);
        client_close(&client);
    }
    return count;
}

TEST(net_tickets_are_good_for_two_hours_at_most)
{
    struct bm_certificate ca = certificate_for(BM_CERTIFICATE_CA, "ca", NULL);
    struct bm_certificate own = certificate_for(BM_CERTIFICATE_SERVER, "dns:own.example", &ca);
    struct beam_net_listen net = secure(&own);
    struct bm_tls_context *context = client_context(&ca);
    static uint8_t first[BM_TLS_SESSION_MAX], second[BM_TLS_SESSION_MAX];
    size_t first_len = 0, second_len = 0;
    atomic_store(&ahead_ns, 0);
    bm_clock_set(&(struct bm_clock){.now_ns = later, .random = fill});
    make(2);
    REQUIRE_INT(listen_at("https://127.0.0.1:0", &net), 0);
    start();
    CHECK_UINT(resumptions(context, first, &first_len), 0);
    CHECK_UINT(resumptions(context, first, &first_len), 12);
    an_hour_passes();
    CHECK_UINT(resumptions(context, first, &first_len), 12); /* on whatever reactor */
    CHECK_UINT(resumptions(context, second, &second_len), 0);
    an_hour_passes();
    CHECK_UINT(resumptions(context, first, &first_len), 0);
    CHECK_UINT(resumptions(context, second, &second_len), 12);
    finish();
    bm_clock_set(NULL);
    bm_tls_context_unref(context);
}

/* --- all of it at once ----------------------------------------------------------------------- */

#define BUSY_URL "https://127.0.0.1:0"

static struct bm_certificate busy_certificate;
static atomic_uint reloads, adoptions;

static void *keep_reloading(void *arg)
{
    const struct beam_net_listen net = secure(&busy_certificate);
    (void)arg;
    while (!atomic_load(&enough)) {
        int r = beam_net_reload(runtime, BUSY_URL, &net);
        CHECK(r == 0 || r == -ENOENT);
        atomic_fetch_add(&reloads, 1);
    }
    return NULL;
}

static void *keep_adopting(void *arg)
{
    (void)arg;
    while (!atomic_load(&enough)) {
        int pair[2];
        REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        int r = beam_net_adopt(runtime, BUSY_URL, &pair[0], "\x16\x03", 2);
        CHECK(r == 0 || r == -ENOENT || r == -ESHUTDOWN);
        CHECK((pair[0] < 0) == (r == 0));
        if (pair[0] >= 0)
            close(pair[0]);
        close(pair[1]);
        atomic_fetch_add(&adoptions, 1);
    }
    return NULL;
}

static void await_more(void)
{
    unsigned reloads_before = atomic_load(&reloads), before = atomic_load(&adoptions);
    while (atomic_load(&reloads) < reloads_before + 3 || atomic_load(&adoptions) < before + 3)
        (void)sched_yield();
}

TEST(net_listener_ends_while_it_is_reloaded_and_given_sockets)
{
    busy_certificate = certificate_for(BM_CERTIFICATE_SERVER, "dns:localhost", NULL);
    const struct beam_net_listen net = secure(&busy_certificate);
    for (unsigned i = 0; i < 6; i++) {
        pthread_t threads[3];
        make(2);
        REQUIRE_INT(listen_at(BUSY_URL, &net), 0);
        start();
        struct bm_socket_address address = address_of(BUSY_URL);
        atomic_store(&enough, false);
        REQUIRE_INT(pthread_create(&threads[0], NULL, keep_reloading, NULL), 0);
        REQUIRE_INT(pthread_create(&threads[1], NULL, keep_adopting, NULL), 0);
        REQUIRE_INT(pthread_create(&threads[2], NULL, keep_connecting, &address), 0);
        await_more();
        if (i % 2 == 0) {
            CHECK_INT(beam_unlisten(runtime, BUSY_URL), 0);
        } else {
            beam_runtime_stop(runtime);
        }
        await_more();
        atomic_store(&enough, true);
        for (unsigned k = 0; k < 3; k++)
            pthread_join(threads[k], NULL);
        finish();
    }
}
