/* A peer that sends its own end of the socket and dies: as long as that is open here, the kernel sees no end of
 * the connection. The session notices by the peer's silence; one whose peer answers, or that holds nothing of
 * the peer's, goes on (P4). Minutes pass when the test says so. */
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "runtime/core.h"
#include "runtime/unix_session.h"
#include "tests/support/raw_peer.h"
#include "tests/support/served.h"
#include "tests/support/test.h"
#include "uring/reactor_inner.h"

#define MINUTE_NS (60 * BM_NS_PER_S)

static uint64_t passed_ns; /* added to the time of the machine */
static beam_runtime *runtime;
static struct raw_peer peer;
static struct raw_packet packet;
static beam_request *kept_request;
static beam_message *kept_message;
static unsigned cancels;

static uint64_t read_clock(void *arg)
{
    struct timespec now;
    (void)arg;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return passed_ns + (uint64_t)now.tv_sec * BM_NS_PER_S + (uint64_t)now.tv_nsec;
}

static void no_random(void *buf, size_t len, void *arg)
{
    (void)arg;
    memset(buf, 0x5a, len);
}

static void echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_keep(message);
    (void)arg;
    beam_reply(request, &answer);
    beam_message_free(answer);
}

static void let_go(void)
{
    beam_request *request = kept_request;
    kept_request = NULL;
    kept_message = beam_message_free(kept_message);
    if (request)
        beam_reply(request, NULL);
}

static void on_cancel(beam_request *request, void *arg)
{
    (void)request;
    (void)arg;
    cancels++;
    let_go();
}

static void keep(beam_request *request, const beam_message *message, void *arg)
{
    (void)arg;
    kept_request = request;
    kept_message = beam_message_keep(message);
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, NULL);
}

/* What there is to do, as far as time allows. */
static void settle(void)
{
    struct pollfd pfd = {.fd = beam_runtime_fd(runtime), .events = POLLIN};
    for (unsigned i = 0; i < 1000 && (i <= 2 * BM_TURNS_UNCLOCKED || poll(&pfd, 1, 0) > 0); i++)
        REQUIRE_INT(beam_runtime_turn(runtime), 0);
}

/* The wheel is coarse: a little more than a minute. */
static void pass_a_minute(void)
{
    passed_ns += MINUTE_NS + BM_NS_PER_S;
    settle();
}

static unsigned sessions(void)
{
    struct beam_stats stats;
    REQUIRE_INT(beam_runtime_stats(runtime, 0, &stats), 0);
    return (unsigned)stats.sessions;
}

static void send_packet(void)
{
    raw_send(&peer, &packet);
    settle();
}

static void begin(void)
{
    static const struct bm_clock clock = {.now_ns = read_clock, .random = no_random};
    struct bm_unix_session *us;
    int fds[2], on = 1;
    served_need_io_uring();
    passed_ns = 0;
    bm_clock_set(&clock);
    cancels = 0;
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true,
                                                       .transports = BEAM_TRANSPORTS(&beam_unix)),
                                 &runtime),
                0);
    REQUIRE_INT(beam_serve(runtime, "echo", echo, NULL), 0);
    REQUIRE_INT(beam_serve(runtime, "keep", keep, NULL), 0);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    REQUIRE_INT(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    REQUIRE_INT(bm_unix_session_new(bm_core_current(), &fds[0], false, &us), 0);
    bm_unix_session_up(us);
    raw_wrap(&peer, fds[1]);
    raw_clear(&packet);
    /* No fd credit for us: an answer with fds waits. */
    raw_put_hello_of(&packet, &(struct bm_hello){.version = BM_PROTOCOL_VERSION,
                                                 .opener = true,
                                                 .window = 65536,
                                                 .channels_max = 16,
                                                 .message_len_max = 1 << 20});
    send_packet();
    CHECK_UINT(sessions(), 1);
}

static void end(void)
{
    let_go();
    runtime = beam_runtime_free(runtime);
    bm_clock_set(NULL);
}

/* A request with one fd; total > 0: of a message of which this is not all. */
static void put_with_fd(const char *service, int fd, uint64_t total)
{
    struct bm_message_head head = {
        .open = true, .name = {service, strlen(service)}, .large = total > 0, .body_total = total};
    raw_put_head(&packet, 1, total > 0 ? BM_MSG_OPEN | BM_MSG_MORE : BM_MSG_OPEN | BM_MSG_END, 1,
                 &head, NULL);
    raw_add_fd(&packet, fd);
}

/* PINGs that have come since the last look; each is answered if wanted. */
static unsigned take_pings(bool answer)
{
    unsigned pings = 0;
    while (raw_next(&peer, 0) == 1) {
        if (peer.frame.kind != BM_FRAME_PING || peer.frame.flags & BM_PING_ACK)
            continue;
        uint64_t token = bm_frame_parse_u64(&peer.frame);
        uint8_t *out = packet.bytes + packet.len;
        packet.len =
            (size_t)(bm_frame_put_u64(out, BM_FRAME_PING, BM_PING_ACK, 0, token) - packet.bytes);
        pings++;
    }
    if (answer && pings > 0)
        send_packet();
    raw_clear(&packet);
    return pings;
}

TEST(a_peer_that_died_and_left_its_own_end_here_is_noticed)
{
    static const struct {
        const char *where, *service;
        uint64_t total;
    } cases[] = {
        {"a message that never becomes whole", "echo", 100000},
        {"an answer that finds no credit", "echo", 0},
        {"a message that the application keeps", "keep", 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        test_note("in %s", cases[i].where);
        begin();
        put_with_fd(cases[i].service, peer.fd, cases[i].total);
        send_packet();
        raw_close(&peer);
        settle();
        CHECK_UINT(sessions(), 1);
        pass_a_minute();
        CHECK_UINT(sessions(), 1);
        pass_a_minute();
        CHECK_UINT(sessions(), 0);
        CHECK_UINT(cancels, i == 2);
        end();
    }
}

TEST(a_peer_that_answers_keeps_its_session_however_long_its_fds_are_kept)
{
    begin();
    put_with_fd("keep", peer.fd, 0);
    send_packet();
    for (unsigned minute = 0; minute < 10; minute++) {
        pass_a_minute();
        CHECK_UINT(take_pings(true), 1);
    }
    CHECK_UINT(sessions(), 1);
    CHECK_UINT(cancels, 0);
    let_go();
    settle();
    pass_a_minute(); /* the last look, which finds nothing */
    CHECK_UINT(take_pings(false), 0);
    raw_close(&peer);
    settle();
    CHECK_UINT(sessions(), 0);
    end();
}

TEST(a_silent_peer_of_which_no_fds_are_here_is_left_alone)
{
    begin();
    raw_put_open(&packet, 1, BM_MSG_END, "keep", NULL, 0);
    send_packet();
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    /* One that the application takes is its own from then on. */
    for (unsigned taken = 0; taken < 2; taken++) {
        test_note(taken ? "taken" : "none");
        for (unsigned minute = 0; minute < 10; minute++) {
            pass_a_minute();
            CHECK_UINT(take_pings(false), 0);
        }
        CHECK_UINT(sessions(), 1);
        if (taken)
            break;
        let_go();
        struct bm_message_head head = {.open = true, .name = {"keep", 4}};
        raw_put_head(&packet, 3, BM_MSG_OPEN | BM_MSG_END, 1, &head, NULL);
        raw_add_fd(&packet, fd);
        send_packet();
        int ours = beam_message_take_fd(kept_message, 0);
        CHECK(ours >= 0);
        close(ours);
    }
    close(fd);
    raw_close(&peer);
    settle();
    CHECK_UINT(sessions(), 0);
    end();
}
