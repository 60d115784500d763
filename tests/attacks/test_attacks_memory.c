/* Many peers that each keep to all limits: what they cost together is bounded. docs/attacks.md. */
#include "net/memory_budget.h"
#include "tests/attacks/attack_frames.h"

enum { PEERS = 64 };

static const struct beam_net_listen scarce = {
    .size = sizeof(scarce),
    .insecure_anonymous = true,
    .on_request = attack_application,
    .connections_address_max = 65536,
    .connections_address_per_s = 65536,
    .memory_max = 4u << 20,
};

#define LARGE (256u << 10)
#define CALL_HOLD                                                                                  \
    "POST /beam/call/hold HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n"                     \
    "content-length: 262144\r\n\r\n"
#define CALL_ECHO                                                                                  \
    "POST /beam/call/echo HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n"                     \
    "content-length: 1\r\n\r\nx"
#define HEALTH "GET /beam/health HTTP/1.1\r\nhost: a\r\n\r\n"

static void ask(struct attacker *attacker, const char *text, const char *answer)
{
    attacker->text_len = 0;
    attacker->text[0] = '\0';
    REQUIRE(attacker_send(attacker, text, strlen(text)));
    ATTACKER_UNTIL(attacker, strstr(attacker->text, answer));
    test_note("'%.200s'", attacker->text);
}

/* Calls that a service works for hold their bodies: from some number on the next ones are told to come back,
 * whatever HTTP they speak; what is told about the server is told; and when they are over all is as before. */
TEST(attack_bodies_of_many_peers)
{
    static const char body[LARGE];
    static struct attacker peers[PEERS], other;
    unsigned held = 0;
    site_open(&scarce);
    for (unsigned i = 0; i < PEERS; i++) {
        attacker_open(&peers[i], false, false);
        REQUIRE(attacker_send(&peers[i], CALL_HOLD, sizeof(CALL_HOLD) - 1));
        (void)attacker_send(&peers[i], body, LARGE); /* it may be refused before */
        WAIT_UNTIL(atomic_load(&site.held) > held || attacker_turn(&peers[i], 1) ||
                   peers[i].closed);
        if (peers[i].closed || peers[i].text_len > 0)
            break;
        held = atomic_load(&site.held);
    }
    CHECK(held >= 8 && held <= 20); /* some 16 of a quarter of a mebibyte */
    CHECK(strstr(peers[held].text, "HTTP/1.1 503") != NULL);
    CHECK(strstr(peers[held].text, "retry-after: ") != NULL);
    CHECK(bm_memory_total() < scarce.memory_max + scarce.memory_max / 2);

    attacker_open(&other, false, false);
    ask(&other, HEALTH, "{\"status\":\"ok\"}");
    ask(&other, CALL_ECHO, "HTTP/1.1 503");
    ask(&other, "GET /mine HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 503");
    attacker_close(&other);
    attacker_open(&other, false, true);
    frames_greet(0, 0);
    frames_post_with(1, "/beam/v1", 0, "content-type", "application/x-beam");
    REQUIRE(frames_send(&other));
    ATTACKER_UNTIL(&other, other.answers == 1);
    CHECK_UINT(other.oks, 0);
    attacker_close(&other);

    for (unsigned i = 0; i <= held; i++) {
        const struct linger at_once = {.l_onoff = 1}; /* reset: an end alone cancels no call */
        CHECK_INT(setsockopt(peers[i].fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)), 0);
        attacker_close(&peers[i]);
    }
    WAIT_UNTIL(atomic_load(&site.cancels) == held);
    attacker_open(&other, false, false);
    attack_pass(BM_MEMORY_COUNT_NS);
    ask(&other, CALL_ECHO, "HTTP/1.1 200");
    attacker_close(&other);
    site_close();
    CHECK_UINT(bm_memory_total(), 0);
}

/* Connections that do nothing make room for one that does something. */
TEST(attack_idle_connections_of_many_peers)
{
    enum { IDLE = 400 };
    static struct attacker idle[IDLE], other;
    unsigned closed = 0, refused = 0;
    site_open(&scarce);
    for (unsigned i = 0; i < IDLE; i++) {
        attacker_open_with(&idle[i], true, false, NULL, "localhost");
        refused += !bm_tls_is_open(idle[i].tls);
        if (!bm_tls_is_open(idle[i].tls))
            continue;
        size_t len = sizeof(HEALTH) - 1;
        if (attacker_send(&idle[i], HEALTH, len))
            while (!strstr(idle[i].text, "ok") && attacker_turn(&idle[i], ATTACK_CLOSED_MS))
                ;
        if (i % 20 == 19)
            attack_pass(BM_MEMORY_IDLE_NS / 2);
    }
    CHECK(bm_memory_total() < scarce.memory_max + scarce.memory_max / 2);
    for (unsigned i = 0; i < IDLE; i++) {
        while (attacker_turn(&idle[i], 0))
            ;
        closed += idle[i].closed;
    }
    printf("     of %d idle connections %u were closed, %u of them at once\n", IDLE, closed,
           refused);
    CHECK(closed > 0 && closed < IDLE);
    /* Somebody new, when those had their time. */
    attack_pass(2 * BM_MEMORY_IDLE_NS);
    bool served = false;
    for (unsigned i = 0; i < 40 && !served; i++) {
        attacker_open(&other, false, false);
        (void)attacker_send(&other, CALL_ECHO, sizeof(CALL_ECHO) - 1);
        while (other.text_len == 0 && attacker_turn(&other, ATTACK_CLOSED_MS))
            ; /* refused, if it is not closed at once */
        served = strstr(other.text, "HTTP/1.1 200") != NULL;
        attacker_close(&other);
        attack_pass(BM_MEMORY_COUNT_NS);
    }
    CHECK(served);
    for (unsigned i = 0; i < IDLE; i++)
        attacker_close(&idle[i]);
    site_close();
    CHECK_UINT(bm_memory_total(), 0);
}
