/* Stream sockets before there is a connection: what is set on them, and who gets a port. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/stream_socket.h"
#include "net/url.h"
#include "tests/support/test.h"

/* Stands before the C library's: the listen of this number fails. */
static int listens, listen_fails_at;

int listen(int fd, int backlog)
{
    if (++listens == listen_fails_at) {
        errno = ENOBUFS;
        return -1;
    }
    return (int)syscall(SYS_listen, fd, backlog);
}

static struct bm_socket_address address_of(const char *text)
{
    struct bm_url url;
    struct bm_socket_address address = {.len = 0};
    REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
    REQUIRE_INT(bm_socket_address_of(&url, &address), 0);
    return address;
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);
    CHECK_INT(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void close_all(int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

static bool have_ipv6(void)
{
    struct bm_socket_address address = address_of("http://[::1]:0");
    int fd;
    if (bm_socket_listen(&address, 1, &fd) < 0)
        return false;
    close(fd);
    return true;
}

/* A blocking client's. */
static int connect_to(const struct bm_socket_address *address)
{
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    REQUIRE_INT(connect(fd, &address->any, address->len), 0);
    return fd;
}

static int accept_from(int listener)
{
    struct pollfd pfd = {.fd = listener, .events = POLLIN};
    REQUIRE_INT(poll(&pfd, 1, 10000), 1);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    REQUIRE(fd >= 0);
    return fd;
}

TEST(socket_addresses_come_from_urls_and_go_into_texts)
{
    static const struct {
        const char *url, *text;
    } rows[] = {
        {"https://192.0.2.7", "192.0.2.7:443"},
        {"http://127.0.0.1:8080", "127.0.0.1:8080"},
        {"https://[2001:db8::1]:80", "[2001:db8::1]:80"},
        {"https://[::ffff:192.0.2.7]:1", "192.0.2.7:1"},
        {"https://[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
         "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
        {"http+unix:/run/a", "unix"},
        {"http+unix:@a", "unix"},
    };
    for (size_t i = 0; i < BM_ARRAY_LEN(rows); i++) {
        char text[BM_SOCKET_TEXT_LEN];
        struct bm_socket_address address = address_of(rows[i].url);
        bm_socket_text(&address, text);
        CHECK_STR(text, rows[i].text);
    }
    struct bm_url url;
    struct bm_socket_address address = {.len = 77};
    REQUIRE_INT(bm_url_parse("http://localhost", &url, NULL), 0);
    CHECK_INT(bm_socket_address_of(&url, &address), 1);
    CHECK_UINT(address.len, 77);
}

static void check_options(int fd)
{
    CHECK_INT(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    CHECK_INT(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), BM_SOCKET_USER_TIMEOUT_MS);
    CHECK_INT(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    CHECK_INT(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), BM_SOCKET_KEEPALIVE_IDLE_S);
    CHECK_INT(option(fd, IPPROTO_TCP, TCP_KEEPINTVL), BM_SOCKET_KEEPALIVE_INTERVAL_S);
    CHECK_INT(option(fd, IPPROTO_TCP, TCP_KEEPCNT), BM_SOCKET_KEEPALIVE_COUNT);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
}

TEST(socket_options_are_those_of_what_connects_and_of_what_is_accepted)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int fd, listeners[2];
    REQUIRE_INT(bm_socket_new(&address, &fd), 0);
    check_options(fd);
    close(fd);
    REQUIRE_INT(bm_socket_listen(&address, 1, listeners), 0);
    int client = connect_to(&address);
    int server = accept_from(listeners[0]);
    check_options(server);
    close(server);
    close(client);
    close(listeners[0]);

    struct bm_socket_address un = address_of("http+unix:@unused");
    REQUIRE_INT(bm_socket_new(&un, &fd), 0);
    CHECK_INT(option(fd, SOL_SOCKET, SO_DOMAIN), AF_UNIX);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    close(fd);
}

TEST(socket_listen_gives_all_reactors_the_port_that_the_first_got)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int fds[4];
    REQUIRE_INT(bm_socket_listen(&address, 4, fds), 0);
    CHECK(bm_socket_port(&address) != 0);
    for (unsigned i = 0; i < 4; i++) {
        struct bm_socket_address bound = {.len = sizeof(struct sockaddr_in)};
        REQUIRE_INT(getsockname(fds[i], &bound.any, &bound.len), 0);
        CHECK_INT(bm_socket_port(&bound), bm_socket_port(&address));
        CHECK_INT(option(fds[i], SOL_SOCKET, SO_ACCEPTCONN), 1);
        CHECK_INT(option(fds[i], SOL_SOCKET, SO_REUSEPORT), 1);
    }
    close_all(fds, 4);
}

/* What the kernel makes of sockets that share a port: connections go to all of them. */
TEST(socket_listen_shares_out_connections)
{
    enum { CLIENTS = 64 };
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int fds[2], clients[CLIENTS], counts[2] = {0, 0};
    REQUIRE_INT(bm_socket_listen(&address, 2, fds), 0);
    for (unsigned i = 0; i < CLIENTS; i++)
        clients[i] = connect_to(&address);
    for (unsigned k = 0; k < 2; k++)
        for (int fd; (fd = accept4(fds[k], NULL, NULL, SOCK_CLOEXEC)) >= 0; counts[k]++)
            close(fd);
    printf("     of %d connections %d and %d\n", CLIENTS, counts[0], counts[1]);
    CHECK_INT(counts[0] + counts[1], CLIENTS);
    CHECK(counts[0] > 0); /* 2^-63 that chance makes this red */
    CHECK(counts[1] > 0);
    close_all(clients, CLIENTS);
    close_all(fds, 2);
}

/* Somebody else's, with options of his own. */
static int stranger(struct bm_socket_address *address, bool share_address, bool share_port,
                    bool listens_too)
{
    int on = 1;
    int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    REQUIRE(fd >= 0);
    if (share_address)
        REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    if (share_port)
        REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    REQUIRE_INT(bind(fd, &address->any, address->len), 0);
    struct bm_socket_address bound = {.len = sizeof(struct sockaddr_in6)};
    REQUIRE_INT(getsockname(fd, &bound.any, &bound.len), 0);
    bm_socket_set_port(address, bm_socket_port(&bound));
    if (listens_too)
        REQUIRE_INT((int)syscall(SYS_listen, fd, 16), 0);
    return fd;
}

TEST(socket_listen_does_not_join_a_live_listener)
{
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned count = 1; count <= 2; count++) {
            struct bm_socket_address address = address_of("http://127.0.0.1:0");
            int fds[2] = {-7, -7};
            test_note("options %u, %u sockets", i, count);
            int fd = stranger(&address, i & 1, i & 2, true);
            CHECK_INT(bm_socket_listen(&address, count, fds), -EADDRINUSE);
            close(fd);
            CHECK_INT(bm_socket_listen(&address, count, fds), 0);
            close_all(fds, count);
        }
    }
}

TEST(socket_listen_does_not_join_its_own_like)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int fds[2], others[2];
    REQUIRE_INT(bm_socket_listen(&address, 2, fds), 0);
    CHECK_INT(bm_socket_listen(&address, 2, others), -EADDRINUSE);
    CHECK_INT(bm_socket_listen(&address, 1, others), -EADDRINUSE);
    close_all(fds, 2);
    CHECK_INT(bm_socket_listen(&address, 2, others), 0);
    close_all(others, 2);
}

TEST(socket_listen_alone_lets_nobody_join)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int on = 1, alone;
    REQUIRE_INT(bm_socket_listen(&address, 1, &alone), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)), 0);
    REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
    CHECK_INT(bind(fd, &address.any, address.len), -1);
    CHECK_INT(errno, EADDRINUSE);
    close(fd);
    close(alone);
}

/* Also against one who is between bind and listen: whoever listens second is refused. */
TEST(socket_listen_gives_a_port_to_one_of_two_at_the_same_time)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int fds[2];
    int fd = stranger(&address, true, false, false); /* bound, as we are before we listen */
    REQUIRE_INT(bm_socket_listen(&address, 2, fds), 0);
    CHECK_INT((int)syscall(SYS_listen, fd, 16), -1);
    CHECK_INT(errno, EADDRINUSE);
    close(fd);
    close_all(fds, 2);
}

TEST(socket_listen_takes_a_port_whose_last_connections_linger)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int listener;
    REQUIRE_INT(bm_socket_listen(&address, 1, &listener), 0);
    int client = connect_to(&address);
    int server = accept_from(listener);
    close(server); /* first: TIME_WAIT is ours */
    close(client);
    close(listener);
    CHECK_INT(bm_socket_listen(&address, 1, &listener), 0);
    close(listener);
}

TEST(socket_listen_on_all_addresses_takes_both_families)
{
    struct bm_socket_address address = address_of("http://[::]:0");
    struct bm_socket_address four = address_of("http://127.0.0.1:0");
    struct bm_socket_address six = address_of("http://[::1]:0");
    char text[BM_SOCKET_TEXT_LEN];
    int fds[2];
    if (!have_ipv6())
        SKIP("no IPv6 here");
    REQUIRE_INT(bm_socket_listen(&address, 1, fds), 0);
    bm_socket_set_port(&four, bm_socket_port(&address));
    bm_socket_set_port(&six, bm_socket_port(&address));
    int client = connect_to(&four);
    int server = accept_from(fds[0]);
    struct bm_socket_address peer;
    CHECK_INT(bm_socket_peer(server, &peer), 0);
    bm_socket_text(&peer, text);
    CHECK_INT(strncmp(text, "127.0.0.1:", 10), 0);
    close(server);
    close(client);
    client = connect_to(&six);
    server = accept_from(fds[0]);
    close(server);
    close(client);
    close(fds[0]);

    REQUIRE_INT(bm_socket_listen(&six, 1, fds), 0);
    CHECK_INT(option(fds[0], IPPROTO_IPV6, IPV6_V6ONLY), 1);
    close(fds[0]);
}

TEST(socket_listen_gives_all_or_none)
{
    for (int at = 1; at <= 3; at++) {
        struct bm_socket_address address = address_of("http://127.0.0.1:0");
        int fds[3];
        listens = 0;
        listen_fails_at = at;
        CHECK_INT(bm_socket_listen(&address, 3, fds), -ENOBUFS); /* fds: counted by the harness */
        CHECK_INT(bm_socket_port(&address), 0);
    }
    listen_fails_at = 0;
    struct bm_socket_address nowhere = address_of("http://192.0.2.7:0");
    int fd;
    CHECK_INT(bm_socket_listen(&nowhere, 1, &fd), -EADDRNOTAVAIL);
}

static void low_port(void)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:1");
    int fd;
    CHECK_INT(bm_socket_listen(&address, 1, &fd), -EACCES);
}

TEST(socket_listen_on_a_low_port_needs_a_right)
{
    FILE *file = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
    int first = 1024;
    if (file) {
        if (fscanf(file, "%d", &first) != 1)
            first = 1024;
        fclose(file);
    }
    if (first <= 1)
        SKIP("ports are nobody's privilege here");
    test_run_as_nobody(low_port);
}

TEST(socket_adopt_takes_connected_streams_alone)
{
    struct bm_socket_address address = address_of("http://127.0.0.1:0");
    int listener, pair[2], pipes[2];
    REQUIRE_INT(bm_socket_listen(&address, 1, &listener), 0);
    CHECK_INT(bm_socket_adopt(listener), -ENOTCONN);
    int client = connect_to(&address);
    int server = accept_from(listener);
    CHECK_INT(bm_socket_adopt(client), 0);
    check_options(client);
    close(server);
    close(client);
    close(listener);

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK_INT(bm_socket_adopt(fd), -ENOTCONN);
    close(fd);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    CHECK_INT(bm_socket_adopt(pair[0]), 0);
    CHECK(fcntl(pair[0], F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(pair[0], F_GETFL) & O_NONBLOCK);
    close_all(pair, 2);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    CHECK_INT(bm_socket_adopt(pair[0]), -EPROTOTYPE);
    close_all(pair, 2);
    REQUIRE_INT(pipe(pipes), 0);
    CHECK_INT(bm_socket_adopt(pipes[0]), -ENOTSOCK);
    close_all(pipes, 2);
    CHECK_INT(bm_socket_adopt(-1), -EBADF);
}
