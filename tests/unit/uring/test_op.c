/* Every kind of op against real kernel objects. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "tests/unit/uring/rig.h"

static struct rig rig;

static bool is_cloexec(int fd)
{
    return fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

TEST(op_nop_completes_with_zero)
{
    struct probe nop;
    rig_open(&rig);
    probe_init(&nop, BM_OP_NOP);
    CHECK_INT(probe_run(&rig, &nop), 0);
    CHECK_INT(bm_op_buffer(nop.flags), -1);
    rig_close(&rig);
}

TEST(op_accept_and_connect_meet)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/s", test_tmpdir());
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int client = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    REQUIRE_INT(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
    REQUIRE_INT(listen(listener, 1), 0);

    struct probe accepting, connecting;
    rig_open(&rig);
    probe_init(&accepting, BM_OP_ACCEPT);
    accepting.op.fd = listener;
    bm_op_start(rig.reactor, &accepting.op);
    probe_init(&connecting, BM_OP_CONNECT);
    connecting.op.fd = client;
    connecting.op.addr = &addr;
    connecting.op.len = sizeof(addr);
    CHECK_INT(probe_run(&rig, &connecting), 0);
    rig_settle(&rig);

    CHECK_INT(accepting.calls, 1);
    REQUIRE(accepting.res >= 0);
    CHECK(is_cloexec(accepting.res));
    CHECK(fcntl(accepting.res, F_GETFL) & O_NONBLOCK);
    CHECK_INT(send(client, "x", 1, 0), 1);
    char got;
    CHECK_INT(recv(accepting.res, &got, 1, 0), 1);
    close(accepting.res);
    close(client);
    close(listener);
    rig_close(&rig);
}

TEST(op_connect_to_nothing_is_refused)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s/nobody", test_tmpdir());
    int client = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct probe connecting;
    rig_open(&rig);
    probe_init(&connecting, BM_OP_CONNECT);
    connecting.op.fd = client;
    connecting.op.addr = &addr;
    connecting.op.len = sizeof(addr);
    CHECK_INT(probe_run(&rig, &connecting), -ENOENT);
    close(client);
    rig_close(&rig);
}

TEST(op_sendmsg_and_recvmsg_carry_a_descriptor_that_is_cloexec)
{
    int fds[2], file = open("/dev/null", O_RDONLY);
    socket_pair(SOCK_SEQPACKET, fds);

    char out[] = "with fd", in[32];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } sent = {0}, got = {0};
    struct iovec out_part = {out, sizeof(out)}, in_part = {in, sizeof(in)};
    struct msghdr out_msg = {.msg_iov = &out_part,
                             .msg_iovlen = 1,
                             .msg_control = sent.bytes,
                             .msg_controllen = sizeof(sent.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&out_msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &file, sizeof(file));
    struct msghdr in_msg = {.msg_iov = &in_part,
                            .msg_iovlen = 1,
                            .msg_control = got.bytes,
                            .msg_controllen = sizeof(got.bytes)};

    struct probe sending, receiving;
    rig_open(&rig);
    probe_init(&sending, BM_OP_SENDMSG);
    sending.op.fd = fds[0];
    sending.op.addr = &out_msg;
    CHECK_INT(probe_run(&rig, &sending), sizeof(out));
    probe_init(&receiving, BM_OP_RECVMSG);
    receiving.op.fd = fds[1];
    receiving.op.addr = &in_msg;
    CHECK_INT(probe_run(&rig, &receiving), sizeof(out));
    CHECK_MEM(in, sizeof(out), out, sizeof(out));

    c = CMSG_FIRSTHDR(&in_msg);
    REQUIRE(c != NULL);
    CHECK_INT(c->cmsg_type, SCM_RIGHTS);
    int arrived;
    memcpy(&arrived, CMSG_DATA(c), sizeof(arrived));
    CHECK(is_cloexec(arrived));
    close(arrived);
    close(file);
    close_pair(fds);
    rig_close(&rig);
}

TEST(op_send_and_recv_carry_bytes)
{
    int fds[2];
    char in[16] = {0};
    socket_pair(SOCK_STREAM, fds);
    struct probe sending, receiving;
    rig_open(&rig);
    probe_init(&receiving, BM_OP_RECV);
    receiving.op.fd = fds[1];
    receiving.op.addr = in;
    receiving.op.len = sizeof(in);
    bm_op_start(rig.reactor, &receiving.op);
    probe_init(&sending, BM_OP_SEND);
    sending.op.fd = fds[0];
    sending.op.addr = "hello";
    sending.op.len = 5;
    CHECK_INT(probe_run(&rig, &sending), 5);
    rig_settle(&rig);
    CHECK_INT(receiving.res, 5);
    CHECK_MEM(in, 5, "hello", 5);
    close_pair(fds);
    rig_close(&rig);
}

TEST(op_send_to_a_closed_peer_is_an_error_and_no_signal)
{
    int fds[2];
    socket_pair(SOCK_STREAM, fds);
    close(fds[1]);
    struct probe sending;
    rig_open(&rig);
    probe_init(&sending, BM_OP_SEND);
    sending.op.fd = fds[0];
    sending.op.addr = "x";
    sending.op.len = 1;
    CHECK_INT(probe_run(&rig, &sending), -EPIPE);
    struct iovec part = {(char[]){"x"}, 1};
    struct msghdr msg = {.msg_iov = &part, .msg_iovlen = 1};
    probe_init(&sending, BM_OP_SENDMSG);
    sending.op.fd = fds[0];
    sending.op.addr = &msg;
    CHECK_INT(probe_run(&rig, &sending), -EPIPE);
    close(fds[0]);
    rig_close(&rig);
}

TEST(op_write_and_read_a_file_at_offsets)
{
    char path[256], in[8] = {0};
    snprintf(path, sizeof(path), "%s/file", test_tmpdir());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct probe writing, reading, syncing;
    rig_open(&rig);
    probe_init(&writing, BM_OP_WRITE);
    writing.op.fd = fd;
    writing.op.addr = "0123456789";
    writing.op.len = 10;
    writing.op.offset = 100;
    CHECK_INT(probe_run(&rig, &writing), 10);
    for (uint32_t data_only = 0; data_only < 2; data_only++) {
        probe_init(&syncing, BM_OP_FSYNC);
        syncing.op.fd = fd;
        syncing.op.flags = data_only;
        CHECK_INT(probe_run(&rig, &syncing), 0);
    }
    probe_init(&reading, BM_OP_READ);
    reading.op.fd = fd;
    reading.op.addr = in;
    reading.op.len = sizeof(in);
    reading.op.offset = 104;
    CHECK_INT(probe_run(&rig, &reading), 6);
    CHECK_MEM(in, 6, "456789", 6);
    struct stat st;
    fstat(fd, &st);
    CHECK_INT(st.st_size, 110);
    close(fd);
    rig_close(&rig);
}

/* Starts both, the second linked behind the first, and runs until both have ended. */
static void run_linked(struct probe *first, struct probe *second)
{
    first->op.linked = true;
    bm_op_start(rig.reactor, &first->op);
    bm_op_start(rig.reactor, &second->op);
    rig_settle(&rig);
    CHECK_INT(first->calls, 1);
    CHECK_INT(second->calls, 1);
}

TEST(op_that_is_linked_runs_when_the_one_before_has_succeeded_whole)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/file", test_tmpdir());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), pipe_fds[2];
    struct probe first, syncing;
    rig_open(&rig);
    probe_init(&first, BM_OP_WRITE);
    first.op.fd = fd;
    first.op.addr = "0123456789";
    first.op.len = 10;
    probe_init(&syncing, BM_OP_FSYNC);
    syncing.op.fd = fd;
    run_linked(&first, &syncing);
    CHECK_INT(first.res, 10);
    CHECK_INT(syncing.res, 0);

    probe_init(&first, BM_OP_WRITE);
    first.op.fd = 1 << 20; /* not open */
    first.op.addr = "0123456789";
    first.op.len = 10;
    probe_init(&syncing, BM_OP_FSYNC);
    syncing.op.fd = fd;
    run_linked(&first, &syncing);
    CHECK_INT(first.res, -EBADF);
    CHECK_INT(syncing.res, -ECANCELED);

    /* a pipe takes less than this at once, when nobody reads */
    static char much[1 << 20];
    REQUIRE_INT(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    probe_init(&first, BM_OP_WRITE);
    first.op.fd = pipe_fds[1];
    first.op.addr = much;
    first.op.len = sizeof(much);
    first.op.offset = UINT64_MAX;
    probe_init(&syncing, BM_OP_FSYNC);
    syncing.op.fd = fd;
    run_linked(&first, &syncing);
    CHECK(first.res > 0 && first.res < (int)sizeof(much));
    CHECK_INT(syncing.res, -ECANCELED);
    close_pair(pipe_fds);
    close(fd);
    rig_close(&rig);
}

TEST(op_links_of_more_than_a_queue_of_submissions_all_hold)
{
    enum { PAIRS = 500 };
    static struct probe first[PAIRS], second[PAIRS];
    rig_open(&rig);
    for (int i = 0; i < PAIRS; i++) {
        probe_init(&first[i], i % 2 ? BM_OP_NOP : BM_OP_FSYNC);
        first[i].op.fd = 1 << 20; /* not open: the even ones fail */
        first[i].op.linked = true;
        probe_init(&second[i], BM_OP_NOP);
        bm_op_start(rig.reactor, &first[i].op);
        bm_op_start(rig.reactor, &second[i].op);
    }
    rig_settle(&rig);
    for (int i = 0; i < PAIRS; i++) {
        test_note("pair %d", i);
        CHECK_INT(first[i].res, i % 2 ? 0 : -EBADF);
        CHECK_INT(second[i].res, i % 2 ? 0 : -ECANCELED);
    }
    rig_close(&rig);
}

TEST(op_rename_puts_a_file_in_the_place_of_another)
{
    char path[256], in[8] = {0};
    const char *dir = test_tmpdir();
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = openat(dir_fd, "new", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK_INT(write(fd, "new", 3), 3);
    close(fd);
    close(openat(dir_fd, "old", O_RDWR | O_CREAT | O_CLOEXEC, 0600));

    struct probe renaming;
    rig_open(&rig);
    probe_init(&renaming, BM_OP_RENAME);
    renaming.op.fd = dir_fd;
    renaming.op.addr = "new";
    renaming.op.offset = (uint64_t)(uintptr_t) "old";
    CHECK_INT(probe_run(&rig, &renaming), 0);
    CHECK_INT(probe_run(&rig, &renaming), -ENOENT);
    snprintf(path, sizeof(path), "%s/old", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_INT(read(fd, in, sizeof(in)), 3);
    close(fd);
    close(dir_fd);
    rig_close(&rig);
}

TEST(op_fallocate_sets_room_aside_and_a_close_may_be_somebody_elses_work)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/file", test_tmpdir());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct probe probe;
    struct stat st;
    rig_open(&rig);
    probe_init(&probe, BM_OP_FALLOCATE);
    probe.op.fd = fd;
    probe.op.offset = 8192;
    probe.op.len = 12288;
    CHECK_INT(probe_run(&rig, &probe), 0);
    REQUIRE_INT(fstat(fd, &st), 0);
    CHECK_INT(st.st_size, 8192 + 12288);
    CHECK(st.st_blocks * 512 >= 12288);
    probe_init(&probe, BM_OP_CLOSE);
    probe.op.fd = fd;
    probe.op.flags = 1;
    CHECK_INT(probe_run(&rig, &probe), 0);
    CHECK_INT(fcntl(fd, F_GETFD), -1);
    rig_close(&rig);
}

TEST(op_read_from_a_pipe_waits_at_the_current_position)
{
    int fds[2];
    char in[8];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    struct probe reading, writing;
    rig_open(&rig);
    probe_init(&reading, BM_OP_READ);
    reading.op.fd = fds[0];
    reading.op.addr = in;
    reading.op.len = sizeof(in);
    reading.op.offset = UINT64_MAX;
    bm_op_start(rig.reactor, &reading.op);
    bm_reactor_turn(rig.reactor);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(reading.calls, 0);
    probe_init(&writing, BM_OP_WRITE);
    writing.op.fd = fds[1];
    writing.op.addr = "pipe";
    writing.op.len = 4;
    writing.op.offset = UINT64_MAX;
    CHECK_INT(probe_run(&rig, &writing), 4);
    rig_settle(&rig);
    CHECK_INT(reading.res, 4);
    CHECK_MEM(in, 4, "pipe", 4);
    close_pair(fds);
    rig_close(&rig);
}

TEST(op_poll_reports_readiness_once)
{
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    struct probe polling;
    rig_open(&rig);
    probe_init(&polling, BM_OP_POLL);
    polling.op.fd = fds[0];
    polling.op.flags = POLLIN;
    bm_op_start(rig.reactor, &polling.op);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(polling.calls, 0);
    CHECK_INT(write(fds[1], "x", 1), 1);
    rig_settle(&rig);
    CHECK_INT(polling.res, POLLIN);
    CHECK_INT(polling.calls, 1);
    close_pair(fds);
    rig_close(&rig);
}

TEST(op_shutdown_ends_the_peer_and_close_closes)
{
    int fds[2];
    char in;
    socket_pair(SOCK_STREAM, fds);
    struct probe shutting, closing;
    rig_open(&rig);
    probe_init(&shutting, BM_OP_SHUTDOWN);
    shutting.op.fd = fds[0];
    shutting.op.flags = SHUT_WR;
    CHECK_INT(probe_run(&rig, &shutting), 0);
    CHECK_INT(recv(fds[1], &in, 1, 0), 0);
    probe_init(&closing, BM_OP_CLOSE);
    closing.op.fd = fds[0];
    CHECK_INT(probe_run(&rig, &closing), 0);
    CHECK_INT(fcntl(fds[0], F_GETFD), -1);
    close(fds[1]);
    rig_close(&rig);
}

TEST(op_that_the_kernel_refuses_comes_back_through_the_callback)
{
    static const enum bm_op_kind kinds[] = {
        BM_OP_ACCEPT, BM_OP_CONNECT,        BM_OP_READ,        BM_OP_WRITE, BM_OP_SEND,
        BM_OP_RECV,   BM_OP_RECV_MULTISHOT, BM_OP_RECV_SELECT, BM_OP_POLL,  BM_OP_CLOSE,
        BM_OP_FSYNC,  BM_OP_SHUTDOWN,       BM_OP_FALLOCATE};
    char bytes[8] = {0};
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    rig_open(&rig);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct probe probe;
        test_note("kind %d", kinds[i]);
        probe_init(&probe, kinds[i]);
        probe.op.fd = 1 << 20; /* not open */
        probe.op.addr = kinds[i] == BM_OP_CONNECT ? (void *)&addr : bytes;
        probe.op.len = kinds[i] == BM_OP_CONNECT ? sizeof(addr) : sizeof(bytes);
        CHECK_INT(probe_run(&rig, &probe), -EBADF);
    }
    rig_close(&rig);
}

/* A callback may start its own op again, or free the memory it is in. */
struct heap_op {
    struct bm_op op;
    int left;
};

static void again_then_free(struct bm_op *op, int res, uint32_t flags)
{
    struct heap_op *heap = bm_container_of(op, struct heap_op, op);
    (void)flags;
    CHECK_INT(res, 0);
    if (heap->left-- > 0)
        bm_op_start(rig.reactor, op);
    else
        bm_free(NULL, heap, sizeof(*heap));
}

TEST(op_callback_may_restart_and_free_its_op)
{
    rig_open(&rig);
    struct heap_op *heap = bm_alloc(NULL, sizeof(*heap));
    bm_op_init(&heap->op, BM_OP_NOP, again_then_free);
    heap->left = 10;
    bm_op_start(rig.reactor, &heap->op);
    rig_settle(&rig);
    rig_close(&rig);
}

static int order_next;

struct numbered {
    struct bm_op op;
    int number;
};

static void in_order(struct bm_op *op, int res, uint32_t flags)
{
    (void)flags;
    if (res != 0 || bm_container_of(op, struct numbered, op)->number != order_next++)
        order_next = -1000000;
}

#define MANY 10000

TEST(op_ten_thousand_starts_in_one_turn_all_complete_in_order)
{
    static struct numbered nops[MANY];
    rig_open(&rig);
    order_next = 0;
    for (int i = 0; i < MANY; i++) {
        bm_op_init(&nops[i].op, BM_OP_NOP, in_order);
        nops[i].number = i;
        bm_op_start(rig.reactor, &nops[i].op);
    }
    CHECK_INT(bm_reactor_inflight(rig.reactor), MANY);
    rig_settle(&rig);
    CHECK_INT(order_next, MANY);
    CHECK_INT(bm_reactor_stats(rig.reactor)->overflows, 0);
    rig_close(&rig);
}
