/* Sessions without memory and with failing operations: each allocation, and each completion, from a URL to
 * an orderly end fails once. Whatever that does, a session is open or closed, a call has one answer, and
 * nothing is left. */
#include "tests/support/fault.h"
#include "tests/unit/net/dial_rig.h"

#include <fcntl.h>

static void careful_echo(beam_request *request, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message *answer = beam_message_new();
    (void)arg;
    if (!answer) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory");
        return;
    }
    beam_message_set_body(answer, body, len);
    beam_reply(request, &answer);
}

/* Time passes when nothing has happened for long: somebody may wait for what was lost. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        for (unsigned n_ = 0; n_ < 1000 && !(condition); n_++) {                                   \
            rig_turn(n_ < 60 ? 1 : 0);                                                             \
            if (n_ >= 60)                                                                          \
                rig.skipped_ns += BM_NS_PER_S;                                                     \
        }                                                                                          \
        CHECK(condition);                                                                          \
    } while (0)

static void converse(bool tls, enum beam_net_way way)
{
    char url[64];
    struct rig_answer answer = {0};
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = way, .token = "secret");
    if (tls)
        net.ca = (struct beam_pem){.data = rig.ca.pem, .len = strlen(rig.ca.pem)};
    snprintf(url, sizeof(url), "%s://localhost:%u", tls ? "https" : "http", rig.port);
    int r = rig_connect_to(url, &net);
    if (r < 0) {
        CHECK_INT(r, -ENOMEM);
        return;
    }
    beam_message *message = beam_message_new();
    if (message)
        beam_message_set_body(message, "hello", 5);
    bool asked =
        message && beam_call(rig.session, "careful", &message, rig_on_reply, &answer, NULL) == 0;
    beam_message_free(message);
    UNTIL(rig.opens > 0 || rig.closes > 0);
    UNTIL(!asked || answer.count > 0);
    CHECK_UINT(answer.count, asked);
    CHECK(!asked || answer.code != BEAM_OK || answer.len == 5);
    beam_session_drain(rig.session);
    UNTIL(rig.closes > 0);
}

/* Whether the fault was there at all. */
static bool suffer(bool tls, enum beam_net_way way, enum fault_kind kind, unsigned at)
{
    struct fault fault = {.kind = kind, .variant = at % FAULT_VARIANTS, .at = at};
    test_note("TLS %u, way %d, fault %d at %u", tls, (int)way, (int)kind, at);
    rig_begin(tls);
    REQUIRE_INT(beam_serve(rig.runtime, "careful", careful_echo, NULL), 0);
    rig.scarce = true;
    fault_set(&fault, 0);
    converse(tls, way);
    bool struck = atomic_load(&fault.struck);
    atomic_store(&fault.lifted, true);
    CHECK(rig.opens <= 1 && rig.closes <= 1);
    rig_end();
    fault_unset();
    return struck;
}

static void suffer_all(enum fault_kind kind)
{
    for (unsigned tls = 0; tls < 2; tls++)
        for (enum beam_net_way way = BEAM_NET_HTTP2; way <= BEAM_NET_UPGRADE; way++) {
            unsigned at = 1;
            while (at < 20000 && suffer(tls, way, kind, at))
                at += tls && at > 40 ? 7 : 1;
            CHECK(at > 3);
        }
}

TEST(a_session_survives_each_allocation_that_fails)
{
    suffer_all(FAULT_ALLOCATION);
}

TEST(a_session_survives_each_completion_that_fails)
{
    suffer_all(FAULT_COMPLETION);
}

TEST(a_session_survives_all_allocations_that_fail)
{
    suffer_all(FAULT_ALLOCATIONS);
}

/* --- descriptors --- */

static int taken_fd;

static void take(beam_request *request, const beam_message *message, void *arg)
{
    (void)arg;
    taken_fd = beam_message_take_fd(message, 0);
    beam_reply(request, NULL);
}

/* How what was sent reads to its end: 0, or -errno. */
static bool read_taken(size_t *len, int *ret_error)
{
    char buf[64];
    ssize_t n = recv(taken_fd, buf, sizeof(buf), MSG_DONTWAIT);
    *len += n > 0 ? (size_t)n : 0;
    *ret_error = n < 0 ? -errno : 0;
    return n == 0 || (n < 0 && *ret_error != -EAGAIN);
}

/* What was sent arrives whole, or is seen to be broken. */
static void give_descriptor(void)
{
    struct rig_answer answer = {0};
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    REQUIRE_INT(write(fds[1], "hello", 5), 5);
    close(fds[1]);
    taken_fd = -1;
    beam_message *message = beam_message_new();
    if (message)
        beam_message_attach_fd(message, &fds[0]);
    bool asked =
        message && beam_call(rig.session, "take", &message, rig_on_reply, &answer, NULL) == 0;
    beam_message_free(message);
    if (fds[0] >= 0)
        close(fds[0]);
    UNTIL(!asked || answer.count > 0);
    CHECK_UINT(answer.count, asked);
    if (taken_fd >= 0) {
        size_t len = 0;
        int error = 0;
        bool over = false;
        UNTIL(over || (over = read_taken(&len, &error)));
        CHECK(error < 0 || len == 5);
        close(taken_fd);
    }
}

static bool suffer_with_descriptors(enum beam_net_way way, enum fault_kind kind, unsigned at)
{
    struct fault fault = {.kind = kind, .variant = at % FAULT_VARIANTS, .at = at};
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = way);
    test_note("way %d, fault %d at %u", (int)way, (int)kind, at);
    rig_begin(false);
    REQUIRE_INT(beam_serve(rig.runtime, "take", take, NULL), 0);
    rig_connect("http", &net);
    RIG_UNTIL(rig.opens > 0);
    fault_set(&fault, 0);
    give_descriptor();
    bool struck = atomic_load(&fault.struck);
    atomic_store(&fault.lifted, true);
    beam_session_drain(rig.session);
    UNTIL(rig.closes > 0);
    rig_end();
    fault_unset();
    return struck;
}

TEST(descriptors_survive_each_allocation_and_each_completion_that_fails)
{
    for (enum fault_kind kind = FAULT_ALLOCATION; kind < FAULT_KINDS; kind++)
        for (enum beam_net_way way = BEAM_NET_HTTP2; way <= BEAM_NET_UPGRADE; way++) {
            unsigned at = 1;
            while (at < 1000 && suffer_with_descriptors(way, kind, at))
                at++;
            CHECK(at > 3);
        }
}
