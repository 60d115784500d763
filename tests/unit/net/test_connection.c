/* Connections: one behaviour after the other, over each kind of socket and each version of HTTP. */
#include "tests/unit/net/connection_rig.h"

TEST(connection_asks_and_is_answered)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {0};
        rig_open(rig_ways[i]);
        rig.serve = rig_serve_hello;
        REQUIRE_INT(rig_ask(&talk, "GET", "/", false), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_INT(talk.error, 0);
        CHECK_UINT(talk.status, 200);
        CHECK_STR(talk.text, "hello");
        CHECK_UINT(talk.ends, 1);
        CHECK_UINT(talk.answers, 1);
        rig_close();
    }
}

TEST(connection_carries_a_body_both_ways)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 1000000};
        rig_open(rig_ways[i]);
        REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_INT(talk.error, 0);
        CHECK_UINT(talk.got, talk.send_len);
        CHECK(!talk.wrong);
        CHECK_UINT(talk.ends, 1);
        CHECK_STR(talk.server, "text/plain");
        RIG_UNTIL(rig_echoes == 0);
        CHECK_INT(rig_echo_error, 0);
        rig_close();
    }
}

TEST(connection_is_used_again)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        rig_open(rig_ways[i]);
        for (unsigned n = 0; n < 20; n++) {
            struct rig_talk talk = {.send_len = n * 100};
            REQUIRE_INT(rig_ask(&talk, "POST", "/echo", true), 0);
            RIG_UNTIL(talk.closes > 0);
            CHECK_INT(talk.error, 0);
            CHECK_UINT(talk.got, talk.send_len);
            CHECK(!talk.wrong);
        }
        CHECK_UINT(rig.server.requests, 20);
        rig_close();
    }
}

static bool all_closed(const struct rig_talk *talks, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (talks[i].closes == 0)
            return false;
    return true;
}

TEST(connection_carries_eight_bodies_both_ways_at_once)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talks[8] = {0};
        if (!rig_ways[i].http2)
            continue;
        rig_open(rig_ways[i]);
        for (unsigned n = 0; n < 8; n++) {
            talks[n].send_len = 1 << 20;
            REQUIRE_INT(rig_ask(&talks[n], "POST", "/echo", true), 0);
        }
        RIG_UNTIL(all_closed(talks, 8));
        for (unsigned n = 0; n < 8; n++) {
            CHECK_INT(talks[n].error, 0);
            CHECK_UINT(talks[n].got, 1 << 20);
            CHECK(!talks[n].wrong);
        }
        rig_close();
    }
}
