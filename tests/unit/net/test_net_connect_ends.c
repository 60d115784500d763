/* The runtime, or the session, ends after each turn of what leads to a session and of what it carries: a
 * name is resolved, a socket connects, TLS shakes hands, a request is asked, HELLO is on its way, a
 * descriptor and a large message are under way, the session drains. Each is told once, and nothing is left. */
#include "tests/unit/net/dial_rig.h"

#include <fcntl.h>

enum end {
    BY_RUNTIME,  /* which has the session still */
    BY_SESSION,  /* freed, and the runtime behind it */
    BY_CLOSE,    /* closed, and turned on until it has gone */
    BY_DRAINING, /* as BY_RUNTIME, of a session that was to drain */
    ENDS,
};

static int taken_fd;

static void take(beam_request *request, const beam_message *message, void *arg)
{
    (void)arg;
    taken_fd = beam_message_take_fd(message, 0);
    beam_reply(request, NULL);
}

static struct rig_answer large, given;

static void ask(void)
{
    int fds[2];
    rig_call(300000, &large);
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    REQUIRE_INT(write(fds[1], "hello", 5), 5);
    close(fds[1]);
    beam_message *message = beam_message_new();
    beam_message_attach_fd(message, &fds[0]);
    given = (struct rig_answer){0};
    REQUIRE_INT(beam_call(rig.session, "take", &message, rig_on_reply, &given, NULL), 0);
}

/* Whether there were so many turns before all was done. */
static bool end_after(bool tls, enum beam_net_way way, enum end end, unsigned turns)
{
    struct beam_net_connect net = BEAM_NET_CONNECT_OPTIONS(.way = way);
    bool asked = false, done = false;
    test_note("TLS %u, way %d, end %d after %u turns", tls, (int)way, (int)end, turns);
    taken_fd = -1;
    rig_begin(tls);
    REQUIRE_INT(beam_serve(rig.runtime, "take", take, NULL), 0);
    rig_connect(tls ? "https" : "http", &net);
    for (unsigned i = 0; i < turns && !done; i++) {
        if (rig.opens > 0 && !asked) {
            asked = true;
            ask();
        }
        rig_turn(20);
        done = asked && large.count > 0 && given.count > 0;
    }
    if (end == BY_SESSION) {
        rig.session = beam_session_free(rig.session);
    } else if (end == BY_CLOSE) {
        beam_session_close(rig.session);
        RIG_UNTIL(rig.closes > 0 && rig.connections == 0);
    } else if (end == BY_DRAINING) {
        beam_session_drain(rig.session);
        rig_turn(0);
    }
    beam_session *orphan = rig.session;
    rig.session = NULL;
    rig_end();
    beam_session_free(orphan);
    CHECK(rig.opens <= 1 && rig.closes <= 1);
    CHECK(!orphan || rig.closes == 1);
    CHECK(!asked || (large.count == 1 && given.count == 1));
    if (taken_fd >= 0)
        close(taken_fd);
    return !done;
}

TEST(a_session_may_end_after_every_turn)
{
    for (unsigned tls = 0; tls < 2; tls++)
        for (enum beam_net_way way = BEAM_NET_HTTP2; way <= BEAM_NET_UPGRADE; way++)
            for (enum end end = BY_RUNTIME; end < ENDS; end++)
                for (unsigned turns = 0; turns < 200 && end_after(tls, way, end, turns);)
                    turns += tls && turns > 20 ? 3 : 1;
}
