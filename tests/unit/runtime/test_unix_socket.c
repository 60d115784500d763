/* Unix sockets before there is a session: what URLs mean, who gets a socket file, and what an inherited
 * socket has to be. Connections here are plain socket calls. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <beam/error.h>

#include "runtime/unix_socket.h"
#include "tests/support/test.h"

/* Stands before the C library's. */
static int listen_errno;

int listen(int fd, int backlog)
{
    if (listen_errno) {
        errno = listen_errno;
        return -1;
    }
    return (int)syscall(SYS_listen, fd, backlog);
}

#define ADDRESS_OF(address) ((const struct sockaddr *)&(address)->sun)

static struct bm_unix_address parsed(const char *url)
{
    struct bm_unix_address address = {.inherited_fd = -2};
    REQUIRE_INT(bm_unix_address_parse(url, &address), 0);
    return address;
}

/* "unix:TMPDIR/name" */
static struct bm_unix_address in_tmpdir(const char *name)
{
    char url[200];
    snprintf(url, sizeof(url), "unix:%s/%s", test_tmpdir(), name);
    return parsed(url);
}

/* A name nobody else on the machine has. */
static struct bm_unix_address abstract(void)
{
    char url[64];
    struct test_random random = test_random(0);
    snprintf(url, sizeof(url), "unix:@beam-test-%d-%llx", getpid(),
             (unsigned long long)test_random_next(&random));
    return parsed(url);
}

static int listen_fd(struct bm_unix_address *address, unsigned mode)
{
    int fd = -1;
    bool listening = false;
    REQUIRE_INT(bm_unix_socket_listen(address, mode, false, &fd, &listening), 0);
    CHECK(listening);
    return fd;
}

static int listen_error(struct bm_unix_address *address)
{
    int fd = -7;
    bool listening = false;
    int r = bm_unix_socket_listen(address, 0600, false, &fd, &listening);
    if (r == 0)
        close(fd);
    else
        CHECK_INT(fd, -7);
    return r;
}

static int connect_to(const struct bm_unix_address *address, int *ret_fd)
{
    int fd;
    REQUIRE_INT(bm_unix_socket_new(false, &fd), 0);
    int r = connect(fd, ADDRESS_OF(address), address->len) < 0 ? -errno : 0;
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

static void check_reachable(const struct bm_unix_address *address)
{
    int fd = -1;
    CHECK_INT(connect_to(address, &fd), 0);
    close(fd);
}

static int option(int fd, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);
    CHECK_INT(getsockopt(fd, SOL_SOCKET, name, &value, &len), 0);
    return value;
}

static bool exists(const struct bm_unix_address *address)
{
    struct stat st;
    return lstat(address->sun.sun_path, &st) == 0;
}

static unsigned file_mode(const struct bm_unix_address *address)
{
    struct stat st;
    REQUIRE_INT(lstat(address->sun.sun_path, &st), 0);
    return st.st_mode & 07777;
}

TEST(unix_url_of_a_path)
{
    struct bm_unix_address a = parsed("unix:/run/beam.sock");
    CHECK_STR(a.sun.sun_path, "/run/beam.sock");
    CHECK_INT(a.sun.sun_family, AF_UNIX);
    CHECK_UINT(a.len, offsetof(struct sockaddr_un, sun_path) + 15);
    CHECK_INT(a.inherited_fd, -1);

    a = parsed("unix:beam.sock");
    CHECK_STR(a.sun.sun_path, "beam.sock");
    a = parsed("unix:./fd:3");
    CHECK_STR(a.sun.sun_path, "./fd:3");
    CHECK_INT(a.inherited_fd, -1);
}

TEST(unix_url_of_an_abstract_name)
{
    struct bm_unix_address a = parsed("unix:@beam");
    CHECK_MEM(a.sun.sun_path, 6, "\0beam\0", 6);
    CHECK_UINT(a.len, offsetof(struct sockaddr_un, sun_path) + 5);
    CHECK_INT(a.inherited_fd, -1);
}

TEST(unix_url_of_an_inherited_fd)
{
    CHECK_INT(parsed("unix:fd:0").inherited_fd, 0);
    CHECK_INT(parsed("unix:fd:3").inherited_fd, 3);
    CHECK_INT(parsed("unix:fd:2147483647").inherited_fd, INT_MAX);
}

TEST(unix_url_that_is_none_is_refused)
{
    static const char *const urls[] = {
        "",
        "unix",
        "unix:",
        "unix:@",
        "UNIX:/x",
        "/x",
        "ring:0",
        "http://x",
        " unix:/x",
        "unix:fd:",
        "unix:fd:x",
        "unix:fd:-1",
        "unix:fd:+1",
        "unix:fd: 1",
        "unix:fd:1 ",
        "unix:fd:0x1",
        "unix:fd:2147483648",
        "unix:fd:99999999999999999999",
    };
    for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
        struct bm_unix_address address = {.inherited_fd = -2};
        test_note("\"%s\"", urls[i]);
        CHECK_INT(bm_unix_address_parse(urls[i], &address), -BEAM_EURL);
        CHECK_INT(address.inherited_fd, -2);
    }
}

TEST(unix_url_takes_107_bytes_and_no_more)
{
    char url[200] = "unix:/", abstract_url[200] = "unix:@";
    struct bm_unix_address a;

    memset(url + 6, 'p', 106);
    memset(abstract_url + 6, 'p', 106);
    CHECK_INT(bm_unix_address_parse(url, &a), 0);
    CHECK_UINT(strlen(a.sun.sun_path), 107);
    CHECK_UINT(a.len, sizeof(a.sun));
    CHECK_INT(bm_unix_address_parse(abstract_url, &a), 0);
    CHECK_UINT(a.len, sizeof(a.sun) - 1);
    url[112] = abstract_url[112] = 'p';
    CHECK_INT(bm_unix_address_parse(url, &a), -ENAMETOOLONG);
    CHECK_INT(bm_unix_address_parse(abstract_url, &a), -ENAMETOOLONG);
}

TEST(unix_socket_is_new_with_all_its_options)
{
    int fd;
    REQUIRE_INT(bm_unix_socket_new(false, &fd), 0);
    CHECK_INT(option(fd, SO_DOMAIN), AF_UNIX);
    CHECK_INT(option(fd, SO_TYPE), SOCK_SEQPACKET);
    CHECK_INT(option(fd, SO_PASSCRED), 1);
    CHECK_INT(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

TEST(unix_socket_that_refuses_fds_makes_the_kernel_refuse_them)
{
    const int passrights = 83; /* SO_PASSRIGHTS, Linux 6.16 */
    int fds[2], value;
    socklen_t len = sizeof(value);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    bool known = getsockopt(fds[0], SOL_SOCKET, passrights, &value, &len) == 0;

    CHECK_INT(bm_unix_socket_prepare(fds[0], true), 0); /* also where it is not known */
    CHECK_INT(bm_unix_socket_prepare(fds[1], false), 0);
    if (known) {
        char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
        struct iovec iov = {(char[]){'x'}, 1};
        struct msghdr msg = {
            .msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof(control),
        };
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(cmsg), &fds[0], sizeof(int));
        CHECK_INT(sendmsg(fds[1], &msg, MSG_NOSIGNAL), -1);
        CHECK_INT(errno, EPERM);
        CHECK_INT(sendmsg(fds[0], &msg, MSG_NOSIGNAL), 1);
    }
    close(fds[0]);
    close(fds[1]);
}

TEST(unix_listener_is_reachable_and_gives_its_options_to_connections)
{
    struct bm_unix_address address = in_tmpdir("s");
    int listener = listen_fd(&address, 0600), client = -1;
    CHECK_INT(connect_to(&address, &client), 0);
    int server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    REQUIRE(server >= 0);
    CHECK_INT(option(server, SO_PASSCRED), 1);
    CHECK_INT(fcntl(listener, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_INT(fcntl(listener, F_GETFD), FD_CLOEXEC);
    close(server);
    close(client);
    close(listener);
}

TEST(unix_listener_file_has_exactly_its_mode)
{
    static const unsigned modes[] = {0600, 0660, 0666, 0777, 0000};
    static const unsigned umasks[] = {0, 022, 077, 0777};
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        for (size_t j = 0; j < sizeof(umasks) / sizeof(umasks[0]); j++) {
            struct bm_unix_address address = in_tmpdir("s");
            mode_t before = umask(umasks[j]);
            int fd = listen_fd(&address, modes[i]);
            umask(before);
            test_note("mode %o under umask %o", modes[i], umasks[j]);
            CHECK_UINT(file_mode(&address), modes[i]);
            bm_unix_socket_unlink(&address);
            close(fd);
        }
    }
}

TEST(unix_listener_replaces_the_file_of_a_dead_one)
{
    struct bm_unix_address address = in_tmpdir("s");
    close(listen_fd(&address, 0600));
    CHECK(exists(&address));
    int client = -1;
    CHECK_INT(connect_to(&address, &client), -ECONNREFUSED);

    int fd = listen_fd(&address, 0640);
    CHECK_UINT(file_mode(&address), 0640);
    check_reachable(&address);
    close(fd);
}

TEST(unix_listener_leaves_a_live_one_alone)
{
    struct bm_unix_address address = in_tmpdir("s"), second = address;
    int fd = listen_fd(&address, 0600);
    CHECK_INT(listen_error(&second), -EADDRINUSE);
    CHECK_UINT(second.file_ino, 0);
    check_reachable(&address);
    close(fd);
}

/* Connecting would fail with EAGAIN there, which must not read as dead. */
TEST(unix_listener_with_a_full_backlog_is_a_live_one)
{
    struct bm_unix_address address = in_tmpdir("s"), second = address;
    int fd, clients[8], count = 0, r;
    REQUIRE_INT(bm_unix_socket_new(false, &fd), 0);
    REQUIRE_INT(bind(fd, ADDRESS_OF(&address), address.len), 0);
    REQUIRE_INT(listen(fd, 0), 0);
    while ((r = connect_to(&address, &clients[count])) == 0 && count < 7)
        count++;
    CHECK_INT(r, -EAGAIN);
    CHECK_INT(listen_error(&second), -EADDRINUSE);
    while (count > 0)
        close(clients[--count]);
    close(fd);
}

TEST(unix_listener_leaves_a_live_socket_of_another_type_alone)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM};
    for (int i = 0; i < 2; i++) {
        struct bm_unix_address address = in_tmpdir(i ? "dgram" : "stream"), second = address;
        int fd = socket(AF_UNIX, types[i] | SOCK_CLOEXEC, 0);
        REQUIRE_INT(bind(fd, ADDRESS_OF(&address), address.len), 0);
        CHECK_INT(listen_error(&second), -EADDRINUSE);
        CHECK(exists(&address));
        close(fd);
        /* Dead, it is as good as any. */
        fd = listen_fd(&second, 0600);
        check_reachable(&second);
        close(fd);
    }
}

TEST(unix_listener_never_replaces_what_is_no_socket)
{
    struct bm_unix_address file = in_tmpdir("file"), dir = in_tmpdir("dir"),
                           link = in_tmpdir("link"), target = in_tmpdir("target");
    int fd = open(file.sun.sun_path, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    close(fd);
    REQUIRE_INT(mkdir(dir.sun.sun_path, 0700), 0);
    close(listen_fd(&target, 0600));
    REQUIRE_INT(symlink("target", link.sun.sun_path), 0);

    CHECK_INT(listen_error(&file), -EEXIST);
    CHECK_INT(listen_error(&dir), -EEXIST);
    CHECK_INT(listen_error(&link), -EEXIST);
    CHECK(exists(&file));
    CHECK(exists(&dir));
    CHECK(exists(&link));
    CHECK(exists(&target));
}

TEST(unix_listener_says_what_the_path_lacks)
{
    struct bm_unix_address address = in_tmpdir("absent/s");
    CHECK_INT(listen_error(&address), -ENOENT);
    CHECK_UINT(address.file_ino, 0);
}

/* The lock that keeps starting servers apart is not one that keeps them from starting. */
TEST(unix_listener_starts_although_somebody_keeps_the_directory_locked)
{
    struct bm_unix_address address = in_tmpdir("s");
    int lock = open(test_tmpdir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    REQUIRE_INT(flock(lock, LOCK_EX), 0);
    int fd = listen_fd(&address, 0600);
    check_reachable(&address);
    close(fd);
    close(lock);
}

struct contender {
    struct bm_unix_address address;
    pthread_barrier_t *start;
    int r, fd;
};

static void *contend(void *arg)
{
    struct contender *c = arg;
    bool listening;
    pthread_barrier_wait(c->start);
    c->r = bm_unix_socket_listen(&c->address, 0600, false, &c->fd, &listening);
    return NULL;
}

/* However many come at once over a stale file, one gets it, and the file stays that one's. */
TEST(unix_listeners_that_start_together_over_a_stale_file_leave_one)
{
    enum { CONTENDERS = 4, ROUNDS = 15 };
    for (int round = 0; round < ROUNDS; round++) {
        struct bm_unix_address address = in_tmpdir("s");
        struct contender contenders[CONTENDERS];
        pthread_t threads[CONTENDERS];
        pthread_barrier_t start;
        struct stat st;
        int won = 0;

        test_note("round %d", round);
        if (!exists(&address))
            close(listen_fd(&address, 0600));
        REQUIRE_INT(pthread_barrier_init(&start, NULL, CONTENDERS), 0);
        for (int i = 0; i < CONTENDERS; i++) {
            contenders[i] = (struct contender){.address = address, .start = &start, .fd = -1};
            REQUIRE_INT(pthread_create(&threads[i], NULL, contend, &contenders[i]), 0);
        }
        for (int i = 0; i < CONTENDERS; i++)
            pthread_join(threads[i], NULL);
        REQUIRE_INT(lstat(address.sun.sun_path, &st), 0);
        for (int i = 0; i < CONTENDERS; i++) {
            if (contenders[i].r != 0) {
                CHECK_INT(contenders[i].r, -EADDRINUSE);
                continue;
            }
            won++;
            CHECK_UINT(contenders[i].address.file_ino, st.st_ino);
        }
        CHECK_INT(won, 1);
        check_reachable(&address);
        for (int i = 0; i < CONTENDERS; i++)
            if (contenders[i].fd >= 0)
                close(contenders[i].fd); /* and its file is stale in the next round */
        pthread_barrier_destroy(&start);
    }
}

TEST(unix_listener_that_fails_in_the_end_leaves_no_file)
{
    struct bm_unix_address address = in_tmpdir("s");
    listen_errno = ENOBUFS;
    CHECK_INT(listen_error(&address), -ENOBUFS);
    listen_errno = 0;
    CHECK(!exists(&address));
    CHECK_UINT(address.file_ino, 0);
}

TEST(unix_listener_on_an_abstract_name_leaves_no_file)
{
    struct bm_unix_address address = abstract(), second = address;
    int fd = listen_fd(&address, 0600);
    check_reachable(&address);
    CHECK_INT(listen_error(&second), -EADDRINUSE);
    bm_unix_socket_unlink(&address);
    check_reachable(&address);
    close(fd);
    fd = listen_fd(&second, 0600); /* gone with its socket */
    close(fd);
}

TEST(unix_unlink_removes_the_file_of_its_listener)
{
    struct bm_unix_address address = in_tmpdir("s");
    int fd = listen_fd(&address, 0600);
    bm_unix_socket_unlink(&address);
    CHECK(!exists(&address));
    bm_unix_socket_unlink(&address); /* again: nothing there */
    close(fd);
}

TEST(unix_unlink_leaves_what_is_not_its_listeners)
{
    struct bm_unix_address first = in_tmpdir("s"), second = first, never = first;
    int first_fd = listen_fd(&first, 0600);
    REQUIRE_INT(unlink(first.sun.sun_path), 0);
    int second_fd = listen_fd(&second, 0600);

    bm_unix_socket_unlink(&first);
    CHECK(exists(&second));
    bm_unix_socket_unlink(&never);
    CHECK(exists(&second));
    check_reachable(&second);
    bm_unix_socket_unlink(&second);
    CHECK(!exists(&second));
    close(first_fd);
    close(second_fd);
}

static int inherit(int fd, bool *ret_listening)
{
    int listened_fd = -7;
    struct bm_unix_address address = {.inherited_fd = fd};
    int r = bm_unix_socket_listen(&address, 0600, false, &listened_fd, ret_listening);
    CHECK_INT(listened_fd, r == 0 ? fd : -7);
    bm_unix_socket_unlink(&address);
    return r;
}

static void check_ready(int fd)
{
    CHECK_INT(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
    CHECK_INT(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_INT(option(fd, SO_PASSCRED), 1);
}

TEST(unix_inherited_listener_listens)
{
    struct bm_unix_address address = abstract();
    bool listening = false;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    REQUIRE_INT(bind(fd, ADDRESS_OF(&address), address.len), 0);
    REQUIRE_INT(listen(fd, 8), 0);
    CHECK_INT(inherit(fd, &listening), 0);
    CHECK(listening);
    check_ready(fd);
    check_reachable(&address);
    close(fd);
}

TEST(unix_inherited_end_of_a_pair_is_connected)
{
    bool listening = true;
    int fds[2];
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds), 0);
    CHECK_INT(inherit(fds[0], &listening), 0);
    CHECK(!listening);
    check_ready(fds[0]);
    close(fds[0]);
    close(fds[1]);
}

TEST(unix_inherited_fd_of_another_kind_is_refused_and_left_open)
{
    bool listening;
    int pipe_fds[2], stream[2];
    int unconnected = socket(AF_UNIX, SOCK_SEQPACKET, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
    int vsock = socket(AF_VSOCK, SOCK_SEQPACKET, 0); /* where the kernel has it */
    REQUIRE_INT(pipe(pipe_fds), 0);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, stream), 0);

    CHECK_INT(inherit(pipe_fds[0], &listening), -ENOTSOCK);
    CHECK_INT(inherit(stream[0], &listening), -EPROTOTYPE);
    CHECK_INT(inherit(tcp, &listening), -EPROTOTYPE);
    if (vsock >= 0)
        CHECK_INT(inherit(vsock, &listening), -EPROTOTYPE);
    CHECK_INT(inherit(unconnected, &listening), -ENOTCONN);
    CHECK_INT(inherit(INT_MAX, &listening), -EBADF);
    CHECK_INT(fcntl(stream[0], F_GETFL) & O_NONBLOCK, 0);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    close(stream[0]);
    close(stream[1]);
    if (vsock >= 0)
        close(vsock);
    close(unconnected);
    close(tcp);
}

/* Root may do everything, so who may do what is asked as somebody else. */
static struct bm_unix_address closed_address, open_address, stale_address, shared_address;

static void use_as_nobody(void)
{
    int fd = -1;
    CHECK_INT(connect_to(&closed_address, &fd), -EACCES);
    check_reachable(&open_address);
    /* What may not be connected to cannot be told from a live one, and stays. */
    CHECK_INT(listen_error(&closed_address), -EACCES);
    CHECK_INT(listen_error(&stale_address), -EACCES);
    CHECK(exists(&stale_address));
    /* A directory that can be written and not read cannot be locked. */
    fd = listen_fd(&shared_address, 0600);
    CHECK_UINT(file_mode(&shared_address), 0600);
    check_reachable(&shared_address);
    bm_unix_socket_unlink(&shared_address);
    CHECK(!exists(&shared_address));
    close(fd);
}

TEST(unix_listener_file_mode_decides_who_may_connect)
{
    if (geteuid() != 0)
        SKIP("needs root, to become another user");
    closed_address = in_tmpdir("closed");
    open_address = in_tmpdir("open");
    stale_address = in_tmpdir("stale");
    shared_address = in_tmpdir("shared");
    REQUIRE_INT(chmod(test_tmpdir(), 0733), 0);
    int closed_fd = listen_fd(&closed_address, 0600), open_fd = listen_fd(&open_address, 0666);
    close(listen_fd(&stale_address, 0600));
    test_run_as_nobody(use_as_nobody);
    close(closed_fd);
    close(open_fd);
}

static int stream_at(struct bm_unix_address *address, int *ret_fd)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    REQUIRE(fd >= 0);
    int r = bm_unix_socket_listen_on(fd, address, 0640);
    if (r < 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

/* Of both types in each direction: a file that one server has left is replaced by the other. */
TEST(unix_listener_may_be_a_stream)
{
    struct bm_unix_address address = in_tmpdir("stream");
    struct stat st;
    int fd, other;
    REQUIRE_INT(stream_at(&address, &fd), 0);
    CHECK_INT(lstat(address.sun.sun_path, &st), 0);
    CHECK_INT(st.st_mode & 0777, 0640);
    CHECK_INT(stream_at(&address, &other), -EADDRINUSE);
    CHECK_INT(listen_error(&address), -EADDRINUSE);
    close(fd);
    fd = listen_fd(&address, 0600);
    CHECK_INT(stream_at(&address, &other), -EADDRINUSE);
    close(fd);
    REQUIRE_INT(stream_at(&address, &fd), 0);
    bm_unix_socket_unlink(&address);
    CHECK_INT(lstat(address.sun.sun_path, &st), -1);
    close(fd);

    struct bm_unix_address name = abstract();
    REQUIRE_INT(stream_at(&name, &fd), 0);
    CHECK_INT(stream_at(&name, &other), -EADDRINUSE);
    close(fd);
}
