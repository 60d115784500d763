/* Provided buffers and the multishot receives that use them up. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tests/unit/uring/rig.h"
#include "uring/completion.h"
#include "uring/kernel.h"
#include "uring/reactor_inner.h"

enum { GROUP = 3, SIZE = 128, COUNT = 4 };

static struct rig rig;

/* Receives packets of one number each and keeps their buffers until told otherwise. */
struct receiver {
    struct bm_op op;
    struct bm_buffers_waiter waiter;
    struct bm_buffers *buffers;
    struct msghdr msg;
    bool keep;
    int kept[COUNT];
    int kept_len;
    int packets, wrong, enobufs, ended, waited;
    bool closed;
};

static void received(struct bm_op *op, int res, uint32_t flags)
{
    struct receiver *self = bm_container_of(op, struct receiver, op);
    int index = bm_op_buffer(flags);
    if (res > 0 && index >= 0) {
        struct io_uring_recvmsg_out out;
        const unsigned char *buffer = bm_buffers_at(self->buffers, index);
        int number;
        memcpy(&out, buffer, sizeof(out));
        if (out.payloadlen == 0) {
            self->closed = true;
        } else {
            memcpy(&number, buffer + sizeof(out), sizeof(number));
            self->wrong += out.payloadlen != sizeof(number) || number != self->packets;
            self->packets++;
        }
    }
    if (index >= 0) {
        if (self->keep && !self->closed)
            self->kept[self->kept_len++] = index;
        else
            bm_buffers_recycle(self->buffers, index);
    }
    if (bm_op_more(flags))
        return;
    self->ended++;
    if (res == -ENOBUFS) {
        self->enobufs++;
        bm_buffers_wait(self->buffers, &self->waiter);
    } else if (res != -ECANCELED && !self->closed) {
        bm_reactor_count_rearm(rig.reactor);
        bm_op_start(rig.reactor, op);
    }
}

static void room_again(struct bm_buffers_waiter *waiter)
{
    struct receiver *self = bm_container_of(waiter, struct receiver, waiter);
    CHECK(rig.reactor->in_turn);
    self->waited++;
    bm_reactor_count_rearm(rig.reactor);
    bm_op_start(rig.reactor, &self->op);
}

static void receiver_start(struct receiver *self, int fd, struct bm_buffers *buffers)
{
    *self = (struct receiver){.buffers = buffers, .waiter = {.fn = room_again}};
    bm_op_init(&self->op, BM_OP_RECVMSG_MULTISHOT, received);
    self->op.fd = fd;
    self->op.addr = &self->msg;
    self->op.group = GROUP;
    bm_op_start(rig.reactor, &self->op);
}

static void turns(int n)
{
    while (n-- > 0)
        bm_reactor_turn(rig.reactor);
}

static void until_packets(struct receiver *self, int packets)
{
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (self->packets < packets && bm_clock_now_ns() < end_ns)
        turns(1);
    CHECK_INT(self->packets, packets);
}

static void send_numbers(int fd, int from, int to)
{
    for (int i = from; i < to; i++)
        REQUIRE_INT(send(fd, &i, sizeof(i), MSG_DONTWAIT), sizeof(i));
}

TEST(buffers_multishot_delivers_every_packet_and_the_end)
{
    int fds[2];
    struct receiver receiver;
    struct bm_buffers *buffers = NULL;
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, COUNT, &buffers), 0);
    receiver_start(&receiver, fds[0], buffers);
    for (int i = 0; i < 100; i++) {
        send_numbers(fds[1], i, i + 1);
        until_packets(&receiver, i + 1);
    }
    CHECK_INT(receiver.wrong, 0);
    CHECK_INT(receiver.ended, 0);
    close(fds[1]);
    rig_settle(&rig);
    CHECK(receiver.closed);
    CHECK_INT(receiver.ended, 1);
    CHECK_PTR(bm_buffers_free(buffers), NULL);
    rig_close(&rig);
    close(fds[0]);
}

TEST(buffers_go_round_beyond_the_end_of_their_counter)
{
    enum { STEP = COUNT - 1, PACKETS = 35000 * STEP }; /* the ring's tail has 16 bits */
    int fds[2];
    struct receiver receiver;
    struct bm_buffers *buffers = NULL;
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, COUNT, &buffers), 0);
    receiver_start(&receiver, fds[0], buffers);
    for (int i = 0; i < PACKETS && receiver.packets == i; i += STEP) {
        send_numbers(fds[1], i, i + STEP);
        until_packets(&receiver, i + STEP);
    }
    CHECK_INT(receiver.packets, PACKETS);
    CHECK_INT(receiver.wrong, 0);
    CHECK_INT(receiver.enobufs, 0);
    receiver.keep = true; /* both sides still agree on how many there are */
    send_numbers(fds[1], PACKETS, PACKETS + COUNT + 2);
    until_packets(&receiver, PACKETS + COUNT);
    turns(5);
    CHECK_INT(receiver.packets, PACKETS + COUNT);
    CHECK_INT(receiver.enobufs, 1);
    bm_op_cancel(rig.reactor, &receiver.op);
    rig_settle(&rig);
    bm_buffers_unwait(buffers, &receiver.waiter);
    bm_buffers_free(buffers);
    rig_close(&rig);
    close_pair(fds);
}

TEST(buffers_used_up_end_the_multishot_and_a_returned_one_starts_it_again)
{
    int fds[2];
    struct receiver receiver;
    struct bm_buffers *buffers = NULL;
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, COUNT, &buffers), 0);
    receiver_start(&receiver, fds[0], buffers);
    receiver.keep = true;
    turns(2);
    send_numbers(fds[1], 0, 20);
    until_packets(&receiver, COUNT);
    turns(20);
    CHECK_INT(receiver.packets, COUNT);
    CHECK_INT(receiver.enobufs, 1); /* and not retried while there is none */
    CHECK_UINT(bm_reactor_stats(rig.reactor)->enobufs, 1);
    CHECK(bm_op_idle(&receiver.op));
    CHECK_INT(receiver.waited, 0);

    receiver.keep = false;
    bm_buffers_recycle(buffers, receiver.kept[0]);
    CHECK_INT(receiver.waited, 0); /* from the loop, not from inside */
    until_packets(&receiver, 20);
    CHECK_INT(receiver.wrong, 0);
    CHECK(receiver.waited >= 1);
    CHECK(bm_reactor_stats(rig.reactor)->rearms >= 1);

    bm_op_cancel(rig.reactor, &receiver.op);
    rig_settle(&rig);
    bm_buffers_unwait(buffers, &receiver.waiter);
    bm_buffers_free(buffers);
    rig_close(&rig);
    close_pair(fds);
}

TEST(buffers_waiting_while_some_are_at_home_is_called_at_once)
{
    struct receiver receiver = {.waiter = {.fn = room_again}};
    struct bm_buffers *buffers = NULL;
    int fds[2];
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, COUNT, &buffers), 0);
    receiver.buffers = buffers;
    bm_op_init(&receiver.op, BM_OP_RECVMSG_MULTISHOT, received);
    receiver.op.fd = fds[0];
    receiver.op.addr = &receiver.msg;
    receiver.op.group = GROUP;
    bm_buffers_wait(buffers, &receiver.waiter);
    bm_buffers_wait(buffers, &receiver.waiter); /* once is enough */
    CHECK_INT(receiver.waited, 0);
    turns(1);
    CHECK_INT(receiver.waited, 1);
    bm_op_cancel(rig.reactor, &receiver.op);
    rig_settle(&rig);
    bm_buffers_free(buffers);
    rig_close(&rig);
    close_pair(fds);
}

TEST(buffers_multishot_ended_by_an_overflowing_ring_is_started_again)
{
    int fds[2];
    struct receiver receiver;
    struct bm_buffers *buffers = NULL;
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 64, &buffers), 0);
    receiver_start(&receiver, fds[0], buffers);
    turns(2);

    /* Fill the completion ring behind the reactor's back, then let packets arrive. */
    unsigned cq_len = 0;
    while (!(bm_kernel_pending(rig.reactor->kernel) & BM_PENDING_OVERFLOW)) {
        struct io_uring_sqe *sqe = bm_kernel_sqe(rig.reactor->kernel);
        if (!sqe) {
            REQUIRE(bm_kernel_submit(rig.reactor->kernel) > 0);
            continue;
        }
        sqe->opcode = IORING_OP_NOP;
        sqe->user_data = BM_TAG_IGNORE;
        REQUIRE(++cq_len < 10 * BM_CQ_LEN);
    }
    send_numbers(fds[1], 0, 40);
    bm_kernel_poll(rig.reactor->kernel);
    until_packets(&receiver, 40);
    CHECK_INT(receiver.wrong, 0);
    CHECK(receiver.ended >= 1);
    CHECK(bm_reactor_stats(rig.reactor)->overflows >= 1);
    CHECK(bm_reactor_stats(rig.reactor)->rearms >= 1);
    send_numbers(fds[1], 40, 50);
    until_packets(&receiver, 50);

    bm_op_cancel(rig.reactor, &receiver.op);
    rig_settle(&rig);
    bm_buffers_free(buffers);
    rig_close(&rig);
    close_pair(fds);
}

/* A receive that the kernel has more for than it takes at once is neither waiting nor done. */
TEST(buffers_multishot_cancelled_between_two_of_its_states_ends)
{
    enum { MANY = 128, PACKETS = 100 };
    for (int turns_before = 0; turns_before < 3; turns_before++) {
        int fds[2];
        struct receiver receiver;
        struct bm_buffers *buffers = NULL;
        test_note("%d turns before", turns_before);
        socket_pair(SOCK_SEQPACKET, fds);
        rig_open(&rig);
        REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, MANY, &buffers), 0);
        turns(2);
        send_numbers(fds[1], 0, PACKETS);
        receiver_start(&receiver, fds[0], buffers);
        if (turns_before == 0)
            bm_ops_submit(rig.reactor); /* it goes together with its cancellation */
        turns(turns_before);
        bm_op_cancel(rig.reactor, &receiver.op);
        rig_settle(&rig);
        CHECK_INT(receiver.ended, 1);
        CHECK_INT(receiver.wrong, 0);
        bm_buffers_free(buffers);
        rig_close(&rig);
        close_pair(fds);
    }
}

static enum bm_completion_verdict hold_some(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    int *asked = arg;
    (void)op;
    (void)res;
    (void)flags;
    return ++*asked % 3 == 1 ? BM_COMPLETION_HOLD : BM_COMPLETION_PASS;
}

TEST(buffers_packets_held_back_by_a_test_stay_in_order)
{
    int fds[2], asked = 0;
    struct receiver receiver;
    struct bm_buffers *buffers = NULL;
    socket_pair(SOCK_SEQPACKET, fds);
    rig_open(&rig);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 64, &buffers), 0);
    receiver_start(&receiver, fds[0], buffers);
    bm_completion_hook = (struct bm_completion_hook){hold_some, &asked};
    send_numbers(fds[1], 0, 50);
    until_packets(&receiver, 50);
    CHECK_INT(receiver.wrong, 0);
    CHECK(asked > 50);
    bm_completion_hook = (struct bm_completion_hook){NULL, NULL};
    bm_op_cancel(rig.reactor, &receiver.op);
    rig_settle(&rig);
    bm_buffers_free(buffers);
    rig_close(&rig);
    close_pair(fds);
}

TEST(buffers_of_an_impossible_size_or_a_used_group_are_refused)
{
    struct bm_buffers *buffers = NULL, *again = NULL;
    rig_open(&rig);
    CHECK_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 0, &buffers), -EINVAL);
    CHECK_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 3, &buffers), -EINVAL);
    CHECK_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 65536, &buffers), -EINVAL);
    CHECK_INT(bm_buffers_new(rig.reactor, GROUP, 0, 4, &buffers), -EINVAL);
    CHECK_PTR(buffers, NULL);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 4, &buffers), 0);
    CHECK_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 4, &again), -EEXIST);
    CHECK_PTR(again, NULL);
    bm_buffers_free(buffers);
    CHECK_PTR(bm_buffers_free(NULL), NULL);
    REQUIRE_INT(bm_buffers_new(rig.reactor, GROUP, SIZE, 4, &buffers), 0);
    bm_buffers_free(buffers);
    rig_close(&rig);
}
