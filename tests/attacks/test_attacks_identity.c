/* One who is known, and takes more than his share. docs/attacks.md. */
#include "tests/attacks/attack_frames.h"

static int authenticate(beam_str token, char *ret_name, size_t size, void *arg)
{
    (void)arg;
    snprintf(ret_name, size, "%.*s", BEAM_STR(token));
    return 0;
}

/* Asks for a session; the answer has come. True: 200. */
static bool open_session(struct attacker *attacker, const char *authorization)
{
    uint8_t block[512];
    attacker_open(attacker, false, true);
    frames_greet(0, 0);
    size_t len = block_post(block, "/beam/v1");
    len += field_put(block + len, "content-type", "application/x-beam");
    len += field_put(block + len, "beam-version", "1");
    len += field_put(block + len, "authorization", authorization);
    frames_add(F_HEADERS, F_END_HEADERS, 1, block, len);
    REQUIRE(frames_send(attacker));
    ATTACKER_UNTIL(attacker, attacker->answers == 1);
    return attacker->oks == 1;
}

TEST(attack_sessions_of_one_identity)
{
    enum { MAX = 5 };
    static struct attacker his[MAX], others, again;
    site_open(&(struct beam_net_listen){
        .size = sizeof(struct beam_net_listen),
        .authenticate = authenticate,
        .connections_address_max = 1000,
        .connections_address_per_s = 1000,
        .sessions_identity_max = MAX,
        .sessions_identity_per_s = 100,
    });
    for (unsigned i = 0; i < MAX; i++)
        CHECK(open_session(&his[i], "Bearer ada"));
    CHECK(!open_session(&again, "Bearer ada"));
    attacker_close(&again);
    CHECK(open_session(&others, "Bearer bob"));
    attacker_close(&others);
    /* One ends, and there is room for one: when the server has seen it. */
    attacker_close(&his[0]);
    bool opened = false;
    for (unsigned i = 0; i < 1000 && !opened; i++) {
        opened = open_session(&his[0], "Bearer ada");
        if (!opened)
            attacker_close(&his[0]);
    }
    REQUIRE(opened);
    CHECK(!open_session(&again, "Bearer ada"));
    attacker_close(&again);
    for (unsigned i = 0; i < MAX; i++)
        attacker_close(&his[i]);
    site_close();
}

TEST(attack_sessions_of_one_identity_one_after_the_other)
{
    struct attacker attacker;
    unsigned count = 0;
    site_open(&(struct beam_net_listen){
        .size = sizeof(struct beam_net_listen),
        .authenticate = authenticate,
        .connections_address_max = 1000,
        .connections_address_per_s = 1000,
        .sessions_identity_per_s = 5,
    });
    for (bool ok = true; ok && count < 1000; count += ok) {
        ok = open_session(&attacker, "Bearer ada");
        attacker_close(&attacker);
    }
    CHECK(count >= 10 && count < 100); /* two seconds' worth, and what time gave meanwhile */
    attack_pass(2 * BM_NS_PER_S);
    CHECK(open_session(&attacker, "Bearer ada"));
    attacker_close(&attacker);
    site_close();
}
