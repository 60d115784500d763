/* Who a peer of a network is: the block of its texts, and its way to the handlers on every reactor. The
 * network is played: sessions of unix sockets are given an identity. */
#include "runtime/peer.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/channel.h"
#include "runtime/core.h"
#include "runtime/session.h"
#include "tests/support/served.h"
#include "tests/support/test.h"

static beam_str str(const char *text)
{
    return (beam_str){text, strlen(text)};
}

static bool equals(beam_str a, const char *text)
{
    return a.len == strlen(text) && memcmp(a.ptr, text, a.len) == 0 && a.ptr[a.len] == '\0';
}

TEST(peer_identity_is_copied_and_lives_as_long_as_anybody_refers_to_it)
{
    struct bm_peer peer = {0}, other = {0};
    struct bm_peer_texts *identity = NULL;
    char name[] = "uri:spiffe://a/b", address[] = "192.0.2.7:4711";
    REQUIRE_INT(bm_peer_texts_new(str(name), str(address), &identity), 0);
    memset(name, 'x', sizeof(name) - 1);
    bm_peer_set_net(&peer, identity);
    CHECK_INT(peer.shown.kind, BEAM_PEER_NET);
    CHECK_UINT(peer.shown.uid, UINT32_MAX);
    CHECK_UINT(peer.shown.gid, UINT32_MAX);
    CHECK_INT(peer.shown.pid, -1);
    bm_peer_copy(&other, &peer);
    bm_peer_clear(&peer);
    CHECK_INT(peer.shown.kind, 0);
    CHECK(equals(other.shown.identity, "uri:spiffe://a/b"));
    CHECK(equals(other.shown.address, "192.0.2.7:4711"));
    bm_peer_clear(&other);
    bm_peer_clear(&other);

    REQUIRE_INT(bm_peer_texts_new((beam_str){0}, str("[2001:db8::7]:80"), &identity), 0);
    bm_peer_set_net(&peer, identity);
    CHECK(equals(peer.shown.identity, ""));
    CHECK(equals(peer.shown.address, "[2001:db8::7]:80"));
    bm_peer_set_net(&peer, NULL); /* the old one goes */
    CHECK_INT(peer.shown.kind, BEAM_PEER_NET);
    CHECK_UINT(peer.shown.identity.len + peer.shown.address.len, 0);
    CHECK_PTR(bm_peer_texts_unref(NULL), NULL);
    CHECK_PTR(bm_peer_texts_ref(NULL), NULL);
}

enum { THREADS = 3, ROUNDS = 20000 };

static void *come_and_go(void *arg)
{
    struct bm_peer *mine = arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct bm_peer copy = {0};
        bm_peer_copy(&copy, mine);
        if (i % 64 == 0)
            sched_yield();
        bm_peer_clear(&copy);
    }
    bm_peer_clear(mine);
    return NULL;
}

TEST(peer_identity_is_shared_by_threads)
{
    pthread_t threads[THREADS];
    struct bm_peer peer = {0}, peers[THREADS] = {0};
    struct bm_peer_texts *identity;
    REQUIRE_INT(bm_peer_texts_new(str("cn:x"), str("192.0.2.7:1"), &identity), 0);
    bm_peer_set_net(&peer, identity);
    for (unsigned i = 0; i < THREADS; i++)
        bm_peer_copy(&peers[i], &peer);
    for (unsigned i = 0; i < THREADS; i++)
        REQUIRE_INT(pthread_create(&threads[i], NULL, come_and_go, &peers[i]), 0);
    bm_peer_clear(&peer);
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK_INT(peer.shown.kind, 0);
}

/* --- over a session, and over a hop -------------------------------------------------------------- */

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

#define IDENTITY "uri:spiffe://example.org/app"
#define ADDRESS "192.0.2.7:4711"

static struct {
    beam_runtime *server, *client;
    beam_session *session;
    char url[80];
    beam_request *held;
    atomic_uint asked, cancelled, right, reactor;
} all;

static bool is_right(const struct beam_peer *peer)
{
    return peer->kind == BEAM_PEER_NET && peer->uid == UINT32_MAX && peer->pid == -1 &&
           equals(peer->identity, IDENTITY) && equals(peer->address, ADDRESS);
}

static void on_cancel(beam_request *request, void *arg)
{
    (void)arg;
    all.right += is_right(beam_request_peer(request));
    all.cancelled++;
}

static void on_hold(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    all.right += is_right(beam_request_peer(request));
    all.reactor = (unsigned)beam_reactor_current();
    all.held = request;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, NULL);
    all.asked++;
}

static void on_event(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    all.right += is_right(beam_request_peer(request));
    all.asked++;
}

/* As a carrier of a network does when it knows who is there. */
static void identify(void *arg)
{
    struct bm_core *core = bm_core_current();
    unsigned *count = arg;
    for (struct bm_list *n = core->sessions.next; n != &core->sessions; n = n->next) {
        beam_session *session = bm_list_entry(n, beam_session, node);
        struct bm_peer_texts *identity;
        if (session->peer.shown.kind != BEAM_PEER_UNIX || !session->hello_received)
            continue;
        REQUIRE_INT(bm_peer_texts_new(str(IDENTITY), str(ADDRESS), &identity), 0);
        bm_peer_set_net(&session->peer, identity);
        CHECK(is_right(beam_session_peer(session)));
        ++*count;
    }
}

static void ask(void *arg)
{
    beam_message *message = beam_message_new();
    REQUIRE(message != NULL);
    REQUIRE_INT(beam_call(all.session, arg, &message, NULL, NULL, NULL), 0);
}

static void tell(void *arg)
{
    beam_message *message = beam_message_new();
    REQUIRE(message != NULL);
    REQUIRE_INT(beam_send_event(all.session, arg, &message), 0);
}

static void count_sessions(void *arg)
{
    struct bm_core *core = bm_core_current();
    unsigned n = 0;
    for (struct bm_list *node = core->sessions.next; node != &core->sessions; node = node->next)
        n += bm_list_entry(node, beam_session, node)->peer.shown.kind == BEAM_PEER_NET;
    *(unsigned *)arg = n;
}

static unsigned sessions_left(void)
{
    unsigned n = 0;
    served_run(all.server, 0, count_sessions, &n);
    return n;
}

static void look_and_end(void *arg)
{
    (void)arg;
    all.right += is_right(beam_request_peer(all.held));
    beam_fail(all.held, BEAM_CANCELLED, "seen");
}

static void begin(void)
{
    unsigned count = 0;
    served_need_io_uring();
    memset(&all, 0, sizeof(all));
    snprintf(all.url, sizeof(all.url), "unix:@beam-test-peer-%d", (int)getpid());
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .transports = transports),
                                 &all.server),
                0);
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &all.client), 0);
    for (unsigned reactor = 0; reactor < 2; reactor++) {
        REQUIRE_INT(beam_serve_on(all.server, reactor, reactor ? "far" : "near", on_hold, NULL), 0);
        REQUIRE_INT(beam_serve_on(all.server, reactor, reactor ? "far.event" : "near.event",
                                  on_event, NULL),
                    0);
    }
    REQUIRE_INT(beam_listen(all.server, all.url, NULL), 0);
    REQUIRE_INT(beam_start(all.server), 0);
    REQUIRE_INT(beam_start(all.client), 0);
    REQUIRE_INT(beam_connect_wait(all.client, all.url, NULL, &all.session), 0);
    /* The first is reactor 0's. Its HELLO, with who it is, may still be under way. */
    WAIT_UNTIL((served_run(all.server, 0, identify, &count), count > 0));
    REQUIRE_UINT(count, 1);
}

static void end(void)
{
    all.session = beam_session_free(all.session);
    all.client = beam_runtime_free(all.client);
    all.server = beam_runtime_free(all.server);
}

/* The session ends before the request does, and what the request shows stays. */
static void outlives_the_session(const char *service, unsigned reactor)
{
    begin();
    served_run(all.client, 0, ask, (void *)service);
    WAIT_UNTIL(all.asked == 1);
    CHECK_UINT(all.reactor, reactor);
    CHECK_UINT(all.right, 1);
    all.session = beam_session_free(all.session);
    WAIT_UNTIL(all.cancelled == 1);
    WAIT_UNTIL(sessions_left() == 0);
    served_run(all.server, reactor, look_and_end, NULL);
    CHECK_UINT(all.right, 3);
    end();
}

TEST(peer_of_a_request_outlives_the_session)
{
    outlives_the_session("near", 0);
}

TEST(peer_of_a_request_goes_with_it_to_another_reactor)
{
    outlives_the_session("far", 1);
}

TEST(peer_of_an_event_goes_with_it_to_another_reactor)
{
    begin();
    served_run(all.client, 0, tell, (void *)"near.event");
    served_run(all.client, 0, tell, (void *)"far.event");
    WAIT_UNTIL(all.asked == 2);
    CHECK_UINT(all.right, 2);
    end();
}

/* Waits, and then breaks the sessions from the other reactors. */
static void hold_up_and_break(void *arg)
{
    atomic_uint *go_on = arg;
    struct bm_core *core = bm_core_current();
    while (!atomic_load(go_on))
        sched_yield();
    struct bm_list *node = core->sessions.next;
    while (node != &core->sessions) {
        beam_session *session = bm_list_entry(node, beam_session, node);
        node = node->next;
        bm_session_ref(session);
        bm_session_lost(session, BEAM_UNAVAILABLE, "a test");
        bm_session_unref(session);
    }
}

/* What opens a request lies in a ring when the session at its end has gone. */
TEST(peer_of_a_request_that_comes_to_a_session_that_has_ended_is_given_back)
{
    static atomic_uint go_on;
    atomic_store(&go_on, 0);
    begin();
    served_run(all.client, 0, ask, (void *)"far"); /* there is a session between the reactors */
    WAIT_UNTIL(all.asked == 1);
    served_run(all.server, 1, look_and_end, NULL);
    REQUIRE_INT(beam_post(all.server, 1, hold_up_and_break, &go_on), 0);
    unsigned before = all.asked;
    for (unsigned i = 0; i < 10; i++)
        served_run(all.client, 0, ask, (void *)"far");
    served_run(all.client, 0, tell, (void *)"near.event"); /* behind them */
    WAIT_UNTIL(all.asked == before + 1);
    atomic_store(&go_on, 1);
    end();
    CHECK_UINT(all.asked, before + 1);
}

/* --- options ------------------------------------------------------------------------------------- */

TEST(peer_options_of_a_network_are_refused_where_there_is_none)
{
    const struct beam_net_connect *connect = (const void *)&all;
    const struct beam_net_listen *listen = (const void *)&all;
    served_need_io_uring();
    beam_runtime *runtime;
    beam_session *session = NULL;
    snprintf(all.url, sizeof(all.url), "unix:@beam-test-peer-%d", (int)getpid());
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true, .transports = transports),
                                 &runtime),
                0);
    CHECK_INT(beam_listen(runtime, all.url, &BEAM_LISTEN_OPTIONS(.net = listen)), -EINVAL);
    CHECK_INT(beam_connect(runtime, all.url, &BEAM_CONNECT_OPTIONS(.net = connect), &session),
              -EINVAL);
    CHECK_INT(beam_connect(runtime, "ring:0", &BEAM_CONNECT_OPTIONS(.net = connect), &session),
              -EINVAL);
    /* Whoever was compiled before there was such a thing has none. */
    struct beam_listen_options older = BEAM_LISTEN_OPTIONS(.net = listen);
    older.size = offsetof(struct beam_listen_options, net);
    CHECK_INT(beam_listen(runtime, all.url, &older), 0);
    CHECK_PTR(beam_runtime_free(runtime), NULL);
}
