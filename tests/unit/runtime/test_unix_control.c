/* Control messages over real socket pairs, and made by hand where the kernel would not make them. That
 * every descriptor is either handed over or closed is checked by the harness around each case. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/unix_control.h"
#include "tests/support/test.h"

#define PASSPIDFD 76 /* SO_PASSPIDFD, asm-generic/socket.h since Linux 6.5 */
#define TYPE_PIDFD 4 /* SCM_PIDFD */

struct control_room {
    _Alignas(struct cmsghdr) char bytes[BM_UNIX_CONTROL_LEN];
};

struct received {
    struct bm_unix_control control;
    struct control_room raw;
    size_t raw_len;
    int flags;
};

static void open_pair(int fds[2])
{
    int on = 1;
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    REQUIRE_INT(setsockopt(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
}

static void close_pair(const int fds[2])
{
    close(fds[0]);
    close(fds[1]);
}

static void close_all(const int *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        close(fds[i]);
}

/* One packet through pair[0], with fds. */
static void send_fds(const int pair[2], const int *fds, unsigned count)
{
    struct control_room room;
    struct iovec iov = {(char[]){'x'}, 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room.bytes};
    memset(room.bytes, 0xa5, sizeof(room.bytes));
    msg.msg_controllen = bm_unix_control_write_fds(fds, count, room.bytes);
    REQUIRE_INT(sendmsg(pair[0], &msg, MSG_NOSIGNAL), 1);
}

static void receive(const int pair[2], struct received *r)
{
    char byte;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = r->raw.bytes,
        .msg_controllen = sizeof(r->raw.bytes),
    };
    REQUIRE_INT(recvmsg(pair[1], &msg, MSG_CMSG_CLOEXEC), 1);
    r->raw_len = msg.msg_controllen;
    r->flags = msg.msg_flags;
    bm_unix_control_parse(r->raw.bytes, r->raw_len, &r->control);
}

static bool same_file(int a, int b)
{
    struct stat sa, sb;
    return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
           sa.st_ino == sb.st_ino;
}

static void check_credentials(const struct bm_unix_control *control)
{
    CHECK(control->has_credentials);
    CHECK_INT(control->credentials.pid, getpid());
    CHECK_UINT(control->credentials.uid, getuid());
    CHECK_UINT(control->credentials.gid, getgid());
}

TEST(control_carries_fds_in_their_order)
{
    int pair[2], pipes[4][2];
    struct received r;

    open_pair(pair);
    for (int i = 0; i < 4; i++)
        REQUIRE_INT(pipe(pipes[i]), 0);
    for (unsigned count = 1; count <= 4; count++) {
        int sent[4];
        for (unsigned i = 0; i < count; i++)
            sent[i] = pipes[i][i % 2];
        test_note("%u fds", count);
        send_fds(pair, sent, count);
        receive(pair, &r);
        CHECK_INT(r.flags & MSG_CTRUNC, 0);
        REQUIRE_UINT(r.control.fd_count, count);
        for (unsigned i = 0; i < count; i++) {
            CHECK(r.control.fds[i] != sent[i]);
            CHECK(same_file(r.control.fds[i], sent[i]));
            CHECK_INT(fcntl(r.control.fds[i], F_GETFD), FD_CLOEXEC);
        }
        check_credentials(&r.control);
        close_all(r.control.fds, count);
    }
    for (int i = 0; i < 4; i++)
        close_pair(pipes[i]);
    close_pair(pair);
}

static void check_full_packet(bool pidfd)
{
    int pair[2], on = 1, sent[BM_PACKET_FDS_MAX];
    struct received r;

    open_pair(pair);
    if (pidfd)
        CHECK_INT(setsockopt(pair[1], SOL_SOCKET, PASSPIDFD, &on, sizeof(on)), 0);
    for (unsigned i = 0; i < BM_PACKET_FDS_MAX; i++)
        sent[i] = pair[i % 2];
    send_fds(pair, sent, BM_PACKET_FDS_MAX);
    receive(pair, &r);
    CHECK_INT(r.flags & MSG_CTRUNC, 0);
    REQUIRE_UINT(r.control.fd_count, BM_PACKET_FDS_MAX);
    for (unsigned i = 0; i < BM_PACKET_FDS_MAX; i++)
        CHECK(same_file(r.control.fds[i], sent[i]));
    check_credentials(&r.control);
    close_all(r.control.fds, r.control.fd_count);
    close_pair(pair);
}

TEST(control_carries_253_fds_and_the_credentials)
{
    check_full_packet(false);
}

/* The kernel's own limit is where ours says it comes from. */
TEST(control_of_254_fds_is_refused_by_the_kernel)
{
    int pair[2], sent[BM_PACKET_FDS_MAX + 1];
    char room[CMSG_SPACE(sizeof(sent))] __attribute__((aligned(8))) = {0};
    struct iovec iov = {(char[]){'x'}, 1};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = room,
        .msg_controllen = sizeof(room),
    };
    struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
    open_pair(pair);
    for (unsigned i = 0; i < BM_PACKET_FDS_MAX + 1; i++)
        sent[i] = pair[0];
    header->cmsg_len = CMSG_LEN(sizeof(sent));
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    memcpy(CMSG_DATA(header), sent, sizeof(sent));
    CHECK_INT(sendmsg(pair[0], &msg, MSG_NOSIGNAL), -1);
    CHECK_INT(errno, EINVAL);
    close_pair(pair);
}

TEST(control_without_fds_has_credentials)
{
    int pair[2];
    struct received r;
    open_pair(pair);
    send_fds(pair, NULL, 0);
    receive(pair, &r);
    CHECK_UINT(r.control.fd_count, 0);
    check_credentials(&r.control);
    close_pair(pair);
}

TEST(control_of_nobody_who_asked_is_empty)
{
    int pair[2], off = 0;
    struct received r;
    r.control.has_credentials = true;
    r.control.fd_count = 9;
    open_pair(pair);
    REQUIRE_INT(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &off, sizeof(off)), 0);
    send_fds(pair, NULL, 0);
    receive(pair, &r);
    CHECK_UINT(r.raw_len, 0);
    CHECK_UINT(r.control.fd_count, 0);
    CHECK(!r.control.has_credentials);
    close_pair(pair);
}

/* Numbers below limit that are not in use. */
static unsigned count_free(unsigned limit)
{
    unsigned count = 0;
    for (unsigned fd = 0; fd < limit; fd++)
        count += fcntl((int)fd, F_GETFD) < 0;
    return count;
}

static void receive_with_full_table(void)
{
    enum { SENT = 5 };
    int pair[2], pipes[SENT][2], sent[SENT];
    struct received r;
    struct rlimit before;

    open_pair(pair);
    for (unsigned i = 0; i < SENT; i++) {
        REQUIRE_INT(pipe(pipes[i]), 0);
        sent[i] = pipes[i][0];
    }
    REQUIRE_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
    unsigned highest = (unsigned)pipes[SENT - 1][1];
    for (unsigned room = 0; room <= SENT; room++) {
        struct rlimit low = before;
        unsigned limit = highest + 1;
        while (count_free(limit) < room)
            limit++;
        unsigned fit = count_free(limit);
        if (fit > SENT)
            fit = SENT; /* gaps that somebody left below */
        low.rlim_cur = limit;
        send_fds(pair, sent, SENT);
        REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
        receive(pair, &r);
        REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &before), 0);

        test_note("room for %u fds", fit);
        CHECK_INT(!!(r.flags & MSG_CTRUNC), fit < SENT);
        REQUIRE_UINT(r.control.fd_count, fit);
        for (unsigned i = 0; i < fit; i++)
            CHECK(same_file(r.control.fds[i], sent[i]));
        check_credentials(&r.control);
        close_all(r.control.fds, r.control.fd_count);
    }
    for (unsigned i = 0; i < SENT; i++)
        close_pair(pipes[i]);
    close_pair(pair);
}

TEST(control_cut_by_a_full_table_has_the_first_fds)
{
    receive_with_full_table();
}

TEST(control_cut_by_a_full_table_has_the_first_fds_for_nobody_too)
{
    test_run_as_nobody(receive_with_full_table);
}

static bool has_pidfd(const struct received *r)
{
    struct msghdr msg = {
        .msg_control = (void *)(uintptr_t)r->raw.bytes,
        .msg_controllen = r->raw_len,
    };
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&msg); h; h = CMSG_NXTHDR(&msg, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == TYPE_PIDFD)
            return true;
    return false;
}

TEST(control_pidfd_is_closed)
{
    int pair[2], on = 1;
    struct received r;
    open_pair(pair);
    if (setsockopt(pair[1], SOL_SOCKET, PASSPIDFD, &on, sizeof(on)) < 0) {
        close_pair(pair);
        SKIP("this kernel has no SO_PASSPIDFD (Linux 6.5)");
    }
    send_fds(pair, pair, 1);
    receive(pair, &r);
    CHECK(has_pidfd(&r));
    CHECK_UINT(r.control.fd_count, 1);
    check_credentials(&r.control);
    close_all(r.control.fds, r.control.fd_count);
    close_pair(pair);
    check_full_packet(true);
}

/* Control messages by hand. */
struct made {
    _Alignas(struct cmsghdr) uint8_t bytes[4096];
    size_t len;
};

static void make(struct made *m, int level, int type, const void *data, size_t len)
{
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(len), .cmsg_level = level, .cmsg_type = type};
    REQUIRE(m->len + CMSG_SPACE(len) <= sizeof(m->bytes));
    memset(m->bytes + m->len, 0, CMSG_SPACE(len));
    memcpy(m->bytes + m->len, &header, sizeof(header));
    memcpy(m->bytes + m->len + CMSG_LEN(0), data, len);
    m->len += CMSG_SPACE(len);
}

static int open_null(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    return fd;
}

TEST(control_with_more_than_253_fds_closes_the_rest)
{
    enum { FIRST = 200, SECOND = 60 };
    struct made m = {.len = 0};
    struct bm_unix_control control;
    int fds[FIRST + SECOND];

    for (unsigned i = 0; i < FIRST + SECOND; i++)
        fds[i] = open_null();
    make(&m, SOL_SOCKET, SCM_RIGHTS, fds, FIRST * sizeof(int));
    make(&m, SOL_SOCKET, SCM_RIGHTS, fds + FIRST, SECOND * sizeof(int));
    bm_unix_control_parse(m.bytes, m.len, &control);
    CHECK_UINT(control.fd_count, BM_PACKET_FDS_MAX);
    CHECK_MEM(control.fds, BM_PACKET_FDS_MAX * sizeof(int), fds, BM_PACKET_FDS_MAX * sizeof(int));
    for (unsigned i = 0; i < FIRST + SECOND; i++)
        CHECK_INT(fcntl(fds[i], F_GETFD) >= 0, i < BM_PACKET_FDS_MAX);
    close_all(control.fds, control.fd_count);
}

TEST(control_of_unknown_type_or_level_is_passed_over)
{
    struct made m = {.len = 0};
    struct bm_unix_control control = {.fds = {[1] = 1234}};
    int fd = open_null(), number = 77;
    const struct ucred ucred = {1, 2, 3};

    make(&m, SOL_SOCKET, 77, &number, sizeof(number));
    make(&m, SOL_SOCKET + 1, SCM_RIGHTS, &fd, sizeof(fd));
    make(&m, SOL_SOCKET, SCM_CREDENTIALS, &ucred, sizeof(ucred) - 4); /* not one */
    make(&m, SOL_SOCKET, TYPE_PIDFD, (int[]){-ESRCH}, sizeof(int));   /* the kernel made none */
    make(&m, SOL_SOCKET, 0, "", 0);
    bm_unix_control_parse(m.bytes, m.len, &control);
    CHECK_UINT(control.fd_count, 0);
    CHECK(!control.has_credentials);

    make(&m, SOL_SOCKET, SCM_RIGHTS, &fd, sizeof(fd));
    make(&m, SOL_SOCKET, SCM_CREDENTIALS, &ucred, sizeof(ucred));
    bm_unix_control_parse(m.bytes, m.len, &control);
    CHECK_UINT(control.fd_count, 1);
    CHECK_INT(control.fds[0], fd);
    CHECK_INT(control.fds[1], 1234); /* the rest is not written */
    CHECK_MEM(&control.credentials, sizeof(ucred), &ucred, sizeof(ucred));
    close(fd);
}

static void parse_exact(const uint8_t *bytes, size_t len, struct bm_unix_control *ret_control)
{
    uint8_t *copy = malloc(len ? len : 1);
    memcpy(copy, bytes, len);
    bm_unix_control_parse(copy, len, ret_control);
    free(copy);
}

TEST(control_cut_anywhere_is_read_only_as_far_as_it_goes)
{
    struct made m = {.len = 0};
    struct bm_unix_control control;
    const struct ucred ucred = {1, 2, 3};
    int fd = open_null();

    make(&m, SOL_SOCKET, SCM_CREDENTIALS, &ucred, sizeof(ucred));
    make(&m, SOL_SOCKET, SCM_RIGHTS, &fd, sizeof(fd));
    for (size_t len = 0; len <= m.len; len++) {
        test_note("cut at %zu", len);
        parse_exact(m.bytes, len, &control);
        CHECK_INT(control.has_credentials, len >= CMSG_LEN(sizeof(ucred)));
        CHECK_UINT(control.fd_count, len >= CMSG_SPACE(sizeof(ucred)) + CMSG_LEN(sizeof(fd)));
    }
    close(fd);
}

TEST(control_with_a_length_that_cannot_be_ends_there)
{
    static const size_t lengths[] = {0, 1, CMSG_LEN(0) - 1, 200, SIZE_MAX, SIZE_MAX - 7};
    const struct ucred ucred = {1, 2, 3};
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        struct made m = {.len = 0};
        struct bm_unix_control control;
        make(&m, SOL_SOCKET, SCM_CREDENTIALS, &ucred, sizeof(ucred));
        size_t second = m.len;
        make(&m, SOL_SOCKET, SCM_RIGHTS, (int[]){0}, sizeof(int));
        memcpy(m.bytes + second, &lengths[i], sizeof(lengths[i]));
        test_note("length %zu", lengths[i]);
        parse_exact(m.bytes, m.len, &control);
        CHECK(control.has_credentials);
        CHECK_UINT(control.fd_count, 0);
    }
}

TEST(control_is_written_with_its_padding)
{
    static const int fds[] = {10, 11, 12, 13};
    for (unsigned count = 0; count <= 4; count++) {
        struct control_room room;
        struct made m = {.len = 0};
        memset(room.bytes, 0xa5, sizeof(room.bytes));
        size_t len = bm_unix_control_write_fds(fds, count, room.bytes);
        if (count > 0)
            make(&m, SOL_SOCKET, SCM_RIGHTS, fds, count * sizeof(int));
        CHECK_MEM(room.bytes, len, m.bytes, m.len);
        CHECK_INT((uint8_t)room.bytes[len], 0xa5);
    }
    CHECK(bm_unix_control_write_fds((int[BM_PACKET_FDS_MAX]){0}, BM_PACKET_FDS_MAX,
                                    (struct control_room){{0}}.bytes) <= BM_UNIX_CONTROL_LEN);
}
