/* One thing goes wrong, once: each completion of a short conversation with each of several errors, and
 * each allocation. It goes on or ends cleanly, nothing stays behind, and the runtime answers again. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/fault.h"
#include "tests/support/served.h"
#include "uring/completion.h"

#define CALLS 8
#define CALL_NS (200 * BEAM_MS)

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

/* --- a conversation of one runtime with itself ----------------------------------------------- */

struct talk {
    beam_runtime *runtime;
    char url[100];
    bool fds;
    beam_session *session;
    beam_channel *channel, *attached;
    atomic_uint asked, ended, twice, taken;
    atomic_bool closed, channel_over;
    unsigned ends[CALLS];
};

struct one_call {
    struct talk *talk;
    unsigned index;
};

static void answer(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *reply = beam_message_new();
    size_t len;
    const void *body = beam_message_body(message, &len);
    (void)arg;
    beam_message_set_body(reply, body, len);
    for (unsigned i = 0; i < beam_message_fd_count(message); i++) {
        int fd = beam_message_take_fd(message, i);
        beam_message_attach_fd(reply, &fd);
    }
    beam_reply(request, &reply);
}

static void count_message(beam_channel *channel, const beam_message *message, void *arg)
{
    (void)channel;
    (void)message;
    (void)arg;
}

static void end_request(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)channel;
    (void)status;
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers converse_handlers = {
    .on_message = count_message,
    .on_end = end_request,
};

static void converse(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    if (!beam_request_is_open(request))
        return;
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &converse_handlers, request);
    beam_message *hello = beam_message_new();
    beam_message_set_body(hello, "hello", 5);
    (void)beam_channel_send(beam_request_channel(request), &hello);
    beam_message_free(hello);
}

static void ask(struct talk *talk, unsigned index);

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct one_call *call = arg;
    (void)status;
    if (message && beam_message_fd_count(message) > 0) {
        int fd = beam_message_take_fd(message, 0);
        if (fd >= 0)
            close(fd);
    }
    if (call->talk->ends[call->index]++ > 0)
        atomic_fetch_add(&call->talk->twice, 1);
    if (call->index + 2 < CALLS) /* two chains of calls */
        ask(call->talk, call->index + 2);
    atomic_fetch_add(&call->talk->ended, 1);
    free(call);
}

static void ask(struct talk *talk, unsigned index)
{
    static const uint8_t large[200000];
    struct one_call *call = malloc(sizeof(*call));
    beam_message *message = beam_message_new();
    if (!call)
        abort();
    *call = (struct one_call){talk, index};
    beam_message_put_str(message, "what", "a call");
    beam_message_set_body(message, large, index == 3 ? sizeof(large) : index);
    if (talk->fds && index % 2) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        beam_message_attach_fd(message, &fd);
    }
    int r = beam_call(talk->session, index == 5 ? "nobody" : "answer", &message, on_reply, call,
                      &BEAM_CALL_OPTIONS(.timeout_ns = CALL_NS));
    if (r == 0)
        atomic_fetch_add(&talk->asked, 1);
    else
        free(call);
    beam_message_free(message);
}

static void on_channel_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct talk *talk = arg;
    (void)channel;
    (void)status;
    atomic_store(&talk->channel_over, true);
}

static const struct beam_channel_handlers talk_handlers = {
    .on_message = count_message,
    .on_end = on_channel_end,
};
static const struct beam_channel_handlers no_handlers;

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct talk *talk = arg;
    (void)session;
    (void)status;
    atomic_store(&talk->closed, true);
}

static void on_open(beam_session *session, void *arg)
{
    struct talk *talk = arg;
    ask(talk, 0);
    ask(talk, 1);
    beam_message *message = beam_message_new();
    talk->attached = beam_message_attach_channel(message);
    if (talk->attached)
        beam_channel_set_handlers(talk->attached, &no_handlers, NULL);
    int r = beam_open(session, "converse", &message, &talk_handlers, talk,
                      &BEAM_CALL_OPTIONS(.timeout_ns = CALL_NS), &talk->channel);
    beam_message_free(message);
    if (r == 0) {
        (void)beam_channel_send_body(talk->channel, "more", 4);
        beam_channel_end(talk->channel);
    } else {
        talk->channel = NULL;
        atomic_store(&talk->channel_over, true);
    }
    message = beam_message_new();
    beam_message_set_body(message, "event", 5);
    (void)beam_send_event(session, "converse", &message);
    beam_message_free(message);
}

static const struct beam_session_handlers session_handlers = {
    .on_open = on_open,
    .on_close = on_close,
};

static void say(void *arg)
{
    struct talk *talk = arg;
    int r = beam_connect(
        talk->runtime, talk->url,
        &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers, .arg = talk, .timeout_ns = CALL_NS),
        &talk->session);
    if (r < 0) {
        atomic_store(&talk->closed, true);
        talk->session = NULL;
    }
}

static void hang_up(void *arg)
{
    struct talk *talk = arg;
    talk->attached = beam_channel_free(talk->attached);
    talk->channel = beam_channel_free(talk->channel);
    talk->session = beam_session_free(talk->session);
}

static bool is_over(struct talk *talk)
{
    return atomic_load(&talk->ended) == atomic_load(&talk->asked) &&
           (atomic_load(&talk->channel_over) || atomic_load(&talk->closed));
}

/* Says it all and waits for the end. */
static void have(struct talk *talk)
{
    atomic_store(&talk->asked, 0);
    atomic_store(&talk->ended, 0);
    atomic_store(&talk->closed, false);
    atomic_store(&talk->channel_over, false);
    memset(talk->ends, 0, sizeof(talk->ends));
    /* A post to a runtime that has only just started may need memory of its own. */
    int r = beam_post(talk->runtime, 0, say, talk);
    if (r == -ENOMEM)
        r = beam_post(talk->runtime, 0, say, talk);
    REQUIRE_INT(r, 0);
    WAIT_UNTIL(is_over(talk));
    CHECK_UINT(atomic_load(&talk->ended), atomic_load(&talk->asked));
    CHECK_UINT(atomic_load(&talk->twice), 0);
    served_run(talk->runtime, 0, hang_up, talk);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* 0, or the error of the step that failed; then nothing is left of it. */
static int begin(struct talk *talk, bool ring, bool fds)
{
    memset(talk, 0, sizeof(*talk));
    talk->fds = fds;
    int r =
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports, .reactors = ring ? 2 : 1,
                                               .stop_timeout_ns = 50 * BEAM_MS),
                         &talk->runtime);
    if (r < 0)
        return r;
    r = beam_serve(talk->runtime, "answer", answer, talk);
    if (r == 0)
        r = beam_serve(talk->runtime, "converse", converse, talk);
    if (ring) {
        snprintf(talk->url, sizeof(talk->url), "ring:1");
    } else {
        char name[80];
        raw_name(name, sizeof(name));
        snprintf(talk->url, sizeof(talk->url), "unix:@%s", name);
        if (r == 0)
            r = beam_listen(talk->runtime, talk->url, NULL);
    }
    if (r == 0)
        r = beam_start(talk->runtime);
    if (r < 0)
        talk->runtime = beam_runtime_free(talk->runtime);
    return r;
}

static void end(struct talk *talk)
{
    talk->runtime = beam_runtime_free(talk->runtime);
}

/* Everything worked: it is served as if nothing had happened. */
static void check_well(struct talk *talk)
{
    have(talk);
    CHECK_UINT(atomic_load(&talk->asked), CALLS);
    CHECK(atomic_load(&talk->channel_over));
}

/* --- completions ----------------------------------------------------------------------------- */

static struct fault fault;

/* The n-th from now on, counted from 1. */
static void arm(enum fault_kind kind, unsigned n)
{
    atomic_store(&fault.allocations[0], 0);
    atomic_store(&fault.completions[0], 0);
    atomic_store(&fault.struck, false);
    fault.kind = kind;
    atomic_store(&fault.at, n);
    atomic_store(&fault.lifted, false);
}

/* Whether it has happened. */
static bool disarm(void)
{
    atomic_store(&fault.lifted, true);
    return atomic_load(&fault.struck);
}

static void sweep_completions(bool fds)
{
    static const int errors[] = {-EINTR, -EAGAIN, -ECANCELED,   -ENOBUFS,
                                 -EPIPE, -EMFILE, -ETOOMANYREFS};
    static struct talk talk;
    served_need_io_uring();
    unsigned total = 0;
    for (size_t e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
        for (unsigned k = 1; k < 500; k++) {
            /* What hides a success makes it happen twice when the op is repeated: a packet is then
             * sent again, which the receiver rightly refuses. Still one clean end. */
            test_note("completion %u fails with %s", k, beam_error_name(errors[e]));
            struct bm_alloc_totals before = bm_alloc_totals();
            disarm();
            fault.wanted = errors[e];
            fault_set(&fault, 0);
            REQUIRE_INT(begin(&talk, false, fds), 0);
            arm(FAULT_COMPLETION, k);
            have(&talk);
            bool failed = disarm();
            check_well(&talk);
            end(&talk);
            fault_unset();
            CHECK_UINT(bm_alloc_totals().live_bytes, before.live_bytes);
            total++;
            if (!failed)
                break;
        }
    }
    fprintf(stderr, "    %u conversations\n", total);
    CHECK(total > 60);
}

/* All completions of one kind fail, as often as they are asked for. The hook is there before the reactor
 * and as long; what it does begins and ends while the reactor runs. */
#define NO_KIND UINT8_MAX

static struct {
    atomic_uint kind;
    atomic_int error;
    atomic_uint count;
} storm;

static enum bm_completion_verdict storm_hook(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)flags;
    (void)arg;
    if (op->kind == atomic_load(&storm.kind) && *res != -ECANCELED) {
        atomic_fetch_add(&storm.count, 1);
        *res = atomic_load(&storm.error);
    }
    return BM_COMPLETION_PASS;
}

static void await_storm(void)
{
    atomic_store(&storm.kind, NO_KIND);
    bm_completion_hook.fn = storm_hook;
}

static void begin_storm(uint8_t kind, int error)
{
    atomic_store(&storm.count, 0);
    atomic_store(&storm.error, error);
    atomic_store(&storm.kind, kind);
}

/* What the peer with this fd is sent it takes, so that its full buffer is not what makes for calm. */
static void check_calm(int fd)
{
    static char buf[65536];
    WAIT_UNTIL(atomic_load(&storm.count) > 1);
    unsigned before = atomic_load(&storm.count);
    for (unsigned i = 0; i < 100; i++) {
        while (fd >= 0 && recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
            ;
        served_nap();
    }
    unsigned count = atomic_load(&storm.count) - before;
    test_note("%u times in 100 naps", count);
    CHECK(count <= 50); /* ten milliseconds apart */
    test_note("%s", "");
}

TEST(a_listener_that_never_accepts_again_keeps_nobody_busy)
{
    char name[80], url[40];
    beam_runtime *runtime;
    served_need_io_uring();
    raw_name(name, sizeof(name));
    int fd = raw_listen(name, 4);
    int ours = dup(fd);
    snprintf(url, sizeof(url), "unix:fd:%d", fd);
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &runtime), 0);
    REQUIRE_INT(beam_listen(runtime, url, NULL), 0);
    await_storm();
    REQUIRE_INT(beam_start(runtime), 0);
    begin_storm(BM_OP_ACCEPT, -EINVAL);
    shutdown(ours, SHUT_RDWR); /* accept says EINVAL from now on */
    check_calm(-1);
    beam_runtime_free(runtime);
    bm_completion_hook.fn = NULL;
    close(ours);
}

static struct served *crowded;
static atomic_bool refuse_next;

/* Two peers at once, of which the first finds no fd. */
static void connect_both(void *arg)
{
    struct raw_peer *peers = arg;
    for (unsigned i = 0; i < 2; i++)
        CHECK_INT(raw_try_connect_on(&peers[i], crowded->name), 0);
    refuse_next = true;
}

static enum bm_completion_verdict no_fd_once(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)flags;
    (void)arg;
    if (op->kind == BM_OP_ACCEPT && *res >= 0 && refuse_next) {
        refuse_next = false;
        close(*res);
        *res = -EMFILE;
    }
    return BM_COMPLETION_PASS;
}

TEST(a_peer_is_not_turned_away_when_there_are_fds_again)
{
    static struct raw_peer peers[2];
    refuse_next = false;
    bm_completion_hook.fn = no_fd_once;
    crowded = served_start(NULL);
    for (unsigned i = 0; i < 2; i++)
        raw_socket(&peers[i]);
    served_run(crowded->runtime, 0, connect_both, peers);
    CHECK_INT(raw_next(&peers[0], RAW_TIMEOUT_MS), 0);
    REQUIRE_INT(raw_next(&peers[1], RAW_TIMEOUT_MS), 1);
    CHECK_INT(peers[1].frame.kind, BM_FRAME_HELLO);
    CHECK(!refuse_next);
    for (unsigned i = 0; i < 2; i++)
        raw_close(&peers[i]);
    served_check_clean(crowded);
    served_stop(crowded);
    bm_completion_hook.fn = NULL;
}

TEST(a_packet_without_memory_in_the_kernel_keeps_nobody_busy)
{
    static struct raw_peer peer;
    static struct raw_packet packet;
    static uint8_t body[60000];
    await_storm();
    struct served *served = served_start(NULL);
    raw_open_session(&peer, served->name);
    begin_storm(BM_OP_SEND, -ENOMEM);
    /* Answers of more than one packet: the end of the first is waited for. */
    for (uint64_t id = 1; id < 6; id += 2) {
        raw_clear(&packet);
        raw_put_open(&packet, id, BM_MSG_END, "echo", body, sizeof(body));
        raw_send(&peer, &packet);
    }
    check_calm(peer.fd);
    atomic_store(&storm.kind, NO_KIND);
    raw_close(&peer);
    served_stop(served);
    bm_completion_hook.fn = NULL;
}

static void receives_are_calm_while_they_fail(int error)
{
    static struct raw_peer peer;
    await_storm();
    struct served *served = served_start(NULL);
    raw_open_session(&peer, served->name);
    begin_storm(BM_OP_RECVMSG_MULTISHOT, error);
    raw_close(&peer); /* from now on each receive ends at once */
    check_calm(-1);
    atomic_store(&storm.kind, NO_KIND);
    /* What was there to be received is, in the end. */
    served_check_clean(served);
    served_stop(served);
    bm_completion_hook.fn = NULL;
}

TEST(a_receive_without_memory_in_the_kernel_keeps_nobody_busy)
{
    receives_are_calm_while_they_fail(-ENOMEM);
}

TEST(a_receive_that_is_put_off_by_the_kernel_keeps_nobody_busy)
{
    receives_are_calm_while_they_fail(-EAGAIN);
}

TEST(a_session_may_be_closed_while_its_receive_waits)
{
    static struct raw_peer peer;
    await_storm();
    struct served *served = served_start(NULL);
    raw_open_session(&peer, served->name);
    begin_storm(BM_OP_RECVMSG_MULTISHOT, -ENOMEM);
    raw_close(&peer);
    WAIT_UNTIL(atomic_load(&storm.count) > 1);
    beam_runtime_stop(served->runtime);
    atomic_store(&storm.kind, NO_KIND);
    raw_close(&served->good);
    served->runtime = beam_runtime_free(served->runtime);
    bm_completion_hook.fn = NULL;
    CHECK(true);
}

TEST(any_completion_may_fail_once)
{
    sweep_completions(false);
}

TEST(any_completion_may_fail_once_while_fds_pass)
{
    sweep_completions(true);
}

/* --- allocations ----------------------------------------------------------------------------- */

/* before: the beginning is part of it; else only the conversation. */
static void sweep_allocations(bool ring, bool before, bool for_good)
{
    enum fault_kind kind = for_good ? FAULT_ALLOCATIONS : FAULT_ALLOCATION;
    static struct talk talk;
    served_need_io_uring();
    disarm();
    fault_set(&fault, 0);
    unsigned k = 0;
    for (bool failed = true; failed && k < 3000; k++) {
        test_note("allocation %u fails%s", k, for_good ? " and all after it" : "");
        struct bm_alloc_totals live = bm_alloc_totals();
        if (before)
            arm(kind, k + 1);
        int r = begin(&talk, ring, true);
        if (r == 0) {
            if (!before) {
                served_run(talk.runtime, 0, nothing, NULL); /* it turns */
                arm(kind, k + 1);
            }
            have(&talk);
            failed = disarm();
            check_well(&talk);
            end(&talk);
        } else {
            CHECK_INT(r, -ENOMEM);
            failed = disarm();
            CHECK(failed);
        }
        CHECK_UINT(bm_alloc_totals().live_bytes, live.live_bytes);
    }
    fault_unset();
    fprintf(stderr, "    %u allocations\n", k - 1);
    CHECK(k > 10 && k < 3000);
}

TEST(any_allocation_may_fail_on_a_unix_session)
{
    sweep_allocations(false, false, false);
}

TEST(any_allocation_may_fail_on_a_ring_session)
{
    sweep_allocations(true, false, false);
}

TEST(any_allocation_may_fail_from_the_start_with_unix)
{
    sweep_allocations(false, true, false);
}

TEST(any_allocation_may_fail_from_the_start_with_rings)
{
    sweep_allocations(true, true, false);
}

TEST(all_memory_may_run_out_on_a_unix_session)
{
    sweep_allocations(false, false, true);
}

TEST(all_memory_may_run_out_on_a_ring_session)
{
    sweep_allocations(true, false, true);
}
