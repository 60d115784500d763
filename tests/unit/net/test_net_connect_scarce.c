/* Sessions without memory and with failing operations: each allocation, and each completion, from a URL to
 * an orderly end fails once. Whatever that does, a session is open or closed, a call has one answer, and
 * nothing is left. */
#include "tests/support/fault.h"
#include "tests/unit/net/dial_rig.h"

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
