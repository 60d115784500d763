/* One more than the limit: nesting, attachments, channels, sessions of another user. And sessions that are
 * closed at a moment when something is under way. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/core.h"
#include "runtime/session.h"
#include "uring/reactor.h"
#include "tests/support/asker.h"
#include "tests/support/served.h"

static struct raw_peer bad;
static struct raw_packet packet;
static struct asker asker;

TEST(a_request_nested_deeper_than_16_is_refused)
{
    struct served *served = served_start(NULL);
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned depth = 15; depth < 19; depth++) {
        struct bm_message_head head = {.open = true, .name = {"echo", 4}, .depth = (uint8_t)depth};
        uint64_t id = 1 + 2 * depth;
        test_note("depth %u", depth);
        raw_put_head(&packet, id, BM_MSG_OPEN | BM_MSG_END, 0, &head, NULL);
        raw_send(&bad, &packet);
        do
            REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
        while (bad.frame.channel != id || bad.frame.kind == BM_FRAME_CREDIT);
        CHECK_INT(raw_end_code(&bad), depth > 16 ? BEAM_RESOURCE_EXHAUSTED : BEAM_OK);
    }
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* Each asks the next, on and on. */
struct nest {
    beam_runtime *runtime;
    beam_session *session;
    atomic_uint deepest;
    atomic_int error;
    atomic_int code;
};

static void nest_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_request *request = arg;
    (void)message;
    if (status->code == BEAM_OK)
        beam_reply(request, NULL);
    else
        beam_fail(request, status->code, "below: %.*s", BEAM_STR(status->message));
}

static void nest_handler(beam_request *request, const beam_message *message, void *arg)
{
    struct nest *nest = arg;
    beam_message *down = beam_message_new();
    (void)message;
    atomic_store(&nest->deepest, beam_request_depth(request));
    beam_request_keep(request);
    int r = beam_call(nest->session, "nest", &down, nest_reply, request,
                      &BEAM_CALL_OPTIONS(.parent = request));
    beam_message_free(down);
    if (r < 0) {
        atomic_store(&nest->error, r);
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "%s", beam_error_name(r));
    }
}

static void nest_end(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)message;
    atomic_store(&((struct nest *)arg)->code, (int)status->code);
}

static void nest_open(beam_session *session, void *arg)
{
    beam_message *message = beam_message_new();
    CHECK_INT(beam_call(session, "nest", &message, nest_end, arg, NULL), 0);
    beam_message_free(message);
}

static void nest_start(void *arg)
{
    static const struct beam_session_handlers handlers = {.on_open = nest_open};
    struct nest *nest = arg;
    REQUIRE_INT(beam_connect(nest->runtime, "ring:0",
                             &BEAM_CONNECT_OPTIONS(.handlers = &handlers, .arg = nest),
                             &nest->session),
                0);
}

static void nest_free(void *arg)
{
    struct nest *nest = arg;
    nest->session = beam_session_free(nest->session);
}

TEST(a_call_that_would_nest_deeper_than_16_is_not_made)
{
    struct nest nest = {0};
    served_need_io_uring();
    atomic_store(&nest.code, ASKER_PENDING);
    REQUIRE_INT(
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.stop_timeout_ns = 50 * BEAM_MS), &nest.runtime), 0);
    REQUIRE_INT(beam_serve(nest.runtime, "nest", nest_handler, &nest), 0);
    REQUIRE_INT(beam_start(nest.runtime), 0);
    served_run(nest.runtime, 0, nest_start, &nest);
    WAIT_UNTIL(atomic_load(&nest.code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&nest.code), BEAM_RESOURCE_EXHAUSTED);
    CHECK_UINT(atomic_load(&nest.deepest), 16);
    CHECK_INT(atomic_load(&nest.error), -ELOOP);
    served_run(nest.runtime, 0, nest_free, &nest);
    nest.runtime = beam_runtime_free(nest.runtime);
}

TEST(a_message_with_more_than_16_fds_is_refused_and_they_are_closed)
{
    struct served *served = served_start(NULL);
    raw_open_session(&bad, served->name);
    for (unsigned count = 16; count < 18; count++) {
        struct bm_message_head head = {.open = true, .name = {"take", 4}};
        uint64_t id = 1 + 2 * count;
        raw_clear(&packet);
        raw_put_head(&packet, id, BM_MSG_OPEN | BM_MSG_END, (uint8_t)count, &head, NULL);
        for (unsigned i = 0; i < count; i++)
            raw_add_fd(&packet, 0);
        raw_send(&bad, &packet);
        do
            REQUIRE_INT(raw_next(&bad, RAW_TIMEOUT_MS), 1);
        while (bad.frame.channel != id || bad.frame.kind == BM_FRAME_CREDIT);
        CHECK_INT(raw_end_code(&bad), count > 16 ? BEAM_RESOURCE_EXHAUSTED : BEAM_OK);
    }
    CHECK_UINT(atomic_load(&served->fds), 16);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

TEST(sixty_four_channels_may_be_attached_and_no_more)
{
    struct served *served = served_start(NULL);
    for (unsigned count = 64; count < 66; count++) {
        struct bm_attached attached[65];
        struct bm_message_head head = {
            .open = true, .name = {"chat", 4}, .attached = (uint8_t)count};
        for (unsigned i = 0; i < count; i++)
            attached[i] = (struct bm_attached){.id = 3 + 2 * i, .mode = BM_MODE_MESSAGES};
        raw_open_session(&bad, served->name);
        raw_clear(&packet);
        raw_put_head(&packet, 1, BM_MSG_OPEN | BM_MSG_END, 0, &head, attached);
        raw_send(&bad, &packet);
        if (count == 64) {
            raw_sync(&bad);
            CHECK_UINT(atomic_load(&served->channels), 64);
        } else {
            raw_expect_goaway(&bad, "FRAME_ATTACHMENT");
        }
        raw_close(&bad);
        WAIT_UNTIL(atomic_load(&served->channels) == 0);
    }
    served_check_clean(served);
    served_stop(served);
}

/* --- what may be sent before the peer's HELLO ------------------------------------------------- */

static void note_credit(void *arg)
{
    struct asked *asked = arg;
    asked->result = (int)beam_channel_credit(asked->channel);
}

TEST(a_channel_opened_before_hello_gets_the_rest_of_its_window)
{
    struct asked asked = {.service = "x", .open = true};
    const struct bm_hello hello = {
        .version = BM_PROTOCOL_VERSION,
        .window = 50000,
        .channels_max = 16,
        .message_len_max = 100000,
    };
    asker_start(&asker, false);
    asker_ask(&asker, &asked);
    served_run(asker.runtime, 0, note_credit, &asked);
    CHECK_INT(asked.result, BM_WINDOW_MIN - 64);
    asker_greet(&asker, &hello);
    served_run(asker.runtime, 0, note_credit, &asked);
    CHECK_INT(asked.result, 50000 - 64);
    asker_free_channel(&asked);
    asker_stop(&asker);
}

static void attach_too_much(void *arg)
{
    struct asker *a = arg;
    beam_message *message = beam_message_new();
    for (unsigned i = 0; i < 17; i++) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        beam_message_attach_fd(message, &fd);
        CHECK_INT(fd, -1);
    }
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    CHECK_INT(beam_call(a->session, "x", &message, NULL, NULL, NULL), -EMSGSIZE);
    CHECK(message != NULL);
    beam_message_free(message);

    message = beam_message_new();
    beam_channel *channels[65];
    for (unsigned i = 0; i < 65; i++) {
        channels[i] = beam_message_attach_channel(message);
        CHECK_INT(channels[i] != NULL, i < 64);
    }
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    beam_message_free(message);
    for (unsigned i = 0; i < 65; i++)
        beam_channel_free(channels[i]);
}

TEST(a_sender_is_told_of_too_many_attachments_before_they_leave)
{
    asker_start(&asker, true);
    served_run(asker.runtime, 0, attach_too_much, &asker);
    asker_stop(&asker);
}

TEST(a_caller_stays_within_the_channels_its_peer_grants)
{
    static struct asked asked[21];
    struct bm_hello hello = {
        .version = 1, .window = 65536, .channels_max = 20, .message_len_max = 65536, .fds_max = 4};
    struct bm_message_head head;
    asker_start_with(&asker, NULL, &hello);
    for (unsigned i = 0; i < 21; i++) {
        asked[i] = (struct asked){.service = "x"};
        asker_ask(&asker, &asked[i]);
        CHECK_INT(asked[i].result, i < 20 ? 0 : -EAGAIN);
    }
    for (unsigned i = 0; i < 20; i++)
        REQUIRE(asker_next(&asker, &head));
    CHECK_UINT(atomic_load(&asker.writable), 0);
    asker_answer(&asker, asker.peer.frame.channel);
    WAIT_UNTIL(atomic_load(&asker.writable) == 1);
    asker_ask(&asker, &asked[20]);
    CHECK_INT(asked[20].result, 0);
    asker_stop(&asker);
}

/* --- sessions of another user ---------------------------------------------------------------- */

static char crowd_name[80];

static void crowd(void)
{
    static struct raw_peer peers[4];
    for (unsigned i = 0; i < 3; i++)
        raw_open_session(&peers[i], crowd_name);
    raw_connect(&peers[3], crowd_name);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    (void)raw_try_send(&peers[3], &packet, RAW_TIMEOUT_MS); /* it may be closed already */
    raw_clear(&packet);
    raw_expect_end(&peers[3]);
    for (unsigned i = 0; i < 3; i++)
        CHECK(raw_echo(&peers[i], 1, "in", 2));
    /* Room again, once one has left. */
    raw_close(&peers[0]);
    raw_close(&peers[3]);
    bool in = false;
    for (unsigned tries = 0; tries < 1000 && !in; tries++) {
        raw_connect(&peers[0], crowd_name);
        raw_put_hello(&packet, true);
        (void)raw_try_send(&peers[0], &packet, RAW_TIMEOUT_MS); /* it may be closed already */
        raw_clear(&packet);
        raw_put_ping(&packet, 1);
        (void)raw_try_send(&peers[0], &packet, RAW_TIMEOUT_MS);
        raw_clear(&packet);
        in = raw_find(&peers[0], BM_FRAME_PING, 0);
        if (!in) {
            raw_close(&peers[0]);
            served_nap();
        }
    }
    CHECK(in);
    for (unsigned i = 0; i < 3; i++)
        raw_close(&peers[i]);
}

TEST(another_user_has_so_many_sessions_and_no_more)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.sessions_uid_max = 3, .name = "served"));
    snprintf(crowd_name, sizeof(crowd_name), "%s", served->name);
    test_run_as_nobody(crowd);
    served_check_clean(served);
    served_stop(served);
}

/* --- a budget of fds that is too small for all ------------------------------------------------- */

enum { MANY = 8, FEW_FILES = 256 }; /* a quarter of them is what all sessions share */

static struct raw_peer many[MANY];

static struct served *served_short_of_fds(unsigned reactors, struct rlimit *before)
{
    REQUIRE_INT(getrlimit(RLIMIT_NOFILE, before), 0);
    struct rlimit low = {FEW_FILES, before->rlim_max};
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    /* There is enough for those who stay in the end, but not for all. */
    struct served *served = served_start(
        &BEAM_RUNTIME_OPTIONS(.reactors = reactors, .limits.fds_max = 16, .name = "served"));
    for (unsigned i = 0; i < MANY; i++)
        raw_open_session(&many[i], served->name);
    for (unsigned i = 0; i < MANY; i++)
        raw_sync(&many[i]);
    return served;
}

static void count_timers(void *arg)
{
    *(uint64_t *)arg = bm_reactor_stats(bm_core_current()->reactor)->timers;
}

TEST(sessions_short_of_fd_credit_cost_an_idle_reactor_no_timer)
{
    struct rlimit before;
    struct served *served = served_short_of_fds(1, &before);
    uint64_t timers_before, timers_after;
    served_run(served->runtime, 0, count_timers, &timers_before);
    /* One timer is the request's own: how long nothing else happens. */
    struct bm_message_head head = {
        .open = true, .name = {"hold", 4}, .deadline_ns = 1500 * (uint64_t)BEAM_MS};
    raw_clear(&packet);
    raw_put_head(&packet, 1, BM_MSG_OPEN | BM_MSG_END, 0, &head, NULL);
    raw_send(&many[0], &packet);
    CHECK(raw_find(&many[0], BM_FRAME_END, 1));
    served_run(served->runtime, 0, count_timers, &timers_after);
    CHECK_UINT(timers_after - timers_before, 1);
    for (unsigned i = 0; i < MANY; i++)
        raw_close(&many[i]);
    served_check_clean(served);
    served_stop(served);
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void find_least_grant(void *arg)
{
    const struct bm_list *all = &bm_core_current()->sessions;
    unsigned *least = arg;
    *least = UINT_MAX;
    for (struct bm_list *n = all->next; n != all; n = n->next) {
        const beam_session *session = bm_list_entry(n, beam_session, node);
        if (session->fds_granted < *least)
            *least = session->fds_granted;
    }
}

static unsigned least_grant(const struct served *served, unsigned reactor)
{
    unsigned least;
    served_run(served->runtime, reactor, find_least_grant, &least);
    return least;
}

static void fd_credit_goes_round(unsigned reactors)
{
    struct rlimit before;
    struct served *served = served_short_of_fds(reactors, &before);
    /* Those who were the last to come have found nothing; they stay. */
    for (unsigned i = 0; i < reactors; i++)
        CHECK_UINT(least_grant(served, i), 0);
    for (unsigned i = 0; i < MANY - 2; i++)
        raw_close(&many[i]);
    for (unsigned i = 0; i < reactors; i++)
        WAIT_UNTIL(least_grant(served, i) > 0);
    for (unsigned i = MANY - 2; i < MANY; i++)
        raw_close(&many[i]);
    served_check_clean(served);
    served_stop(served);
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(what_an_ended_session_gives_back_of_fds_goes_to_those_who_wait)
{
    fd_credit_goes_round(1);
}

TEST(what_an_ended_session_gives_back_of_fds_goes_to_those_on_another_reactor)
{
    fd_credit_goes_round(2);
}

/* --- closed while something is under way ----------------------------------------------------- */

static void free_session(void *arg)
{
    struct asker *a = arg;
    a->session = beam_session_free(a->session);
}

TEST(a_session_may_be_freed_while_it_connects)
{
    char name[80];
    served_need_io_uring();
    raw_name(name, sizeof(name));
    int listener = raw_listen(name, 0);
    struct raw_peer fill[2];
    for (unsigned i = 0; i < 2; i++) {
        raw_socket(&fill[i]);
        REQUIRE_INT(fcntl(fill[i].fd, F_SETFL, O_NONBLOCK), 0);
        (void)raw_try_connect_on(&fill[i], name);
    }
    for (unsigned i = 0; i < 20; i++) {
        struct asked asked = {.service = "x"};
        asker.listener = -1;
        asker_start_towards(&asker, NULL, name); /* the backlog is full: it tries again and again */
        asker_ask(&asker, &asked);
        CHECK_INT(asked.result, 0);
        for (unsigned k = 0; k < i % 5; k++)
            served_nap();
        served_run(asker.runtime, 0, free_session, &asker);
        WAIT_UNTIL(atomic_load(&asked.code) == BEAM_UNAVAILABLE);
        asker_stop(&asker);
    }
    for (unsigned i = 0; i < 2; i++)
        raw_close(&fill[i]);
    close(listener);
}

TEST(a_session_may_be_freed_while_its_packet_waits_for_room)
{
    static uint8_t body[60000];
    static struct asked asked[40];
    for (unsigned fds = 0; fds < 2; fds++) {
        asker_start(&asker, true);
        unsigned count = 0;
        for (; count < 40; count++) {
            asked[count] = (struct asked){
                .service = "x", .body = body, .body_len = sizeof(body), .fd_count = fds};
            if (fds)
                asked[count].fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            asker_ask(&asker, &asked[count]);
            REQUIRE_INT(asked[count].result, 0);
        }
        struct bm_message_head head;
        REQUIRE(asker_next(&asker, &head)); /* one has left, and so has what the socket holds */
        served_run(asker.runtime, 0, free_session, &asker);
        for (unsigned i = 0; i < count; i++) {
            WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
            CHECK_UINT(atomic_load(&asked[i].replies), 1);
        }
        CHECK_INT(atomic_load(&asked[0].code), BEAM_UNKNOWN);
        CHECK_INT(atomic_load(&asked[39].code), BEAM_UNAVAILABLE);
        asker_stop(&asker);
    }
}

TEST(a_listener_may_go_while_it_accepts)
{
    char url[100], name[80];
    struct served *served = served_start(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .name = "served"));
    for (unsigned i = 0; i < 30; i++) {
        raw_name(name, sizeof(name));
        snprintf(url, sizeof(url), "unix:@%s", name);
        REQUIRE_INT(beam_listen(served->runtime, url, NULL), 0);
        struct raw_peer peers[3];
        for (unsigned k = 0; k < i % 4; k++)
            raw_connect(&peers[k], name);
        CHECK_INT(beam_unlisten(served->runtime, url), 0);
        for (unsigned k = 0; k < i % 4; k++)
            raw_close(&peers[k]);
    }
    served_check_clean(served);
    served_stop(served);
}
