/* Ends that cross what is on its way: what a peer said before it closed still counts, what it says of the
 * end is believed as far as it goes, and what it has read is over for it before we hear that it left. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/asker.h"
#include "tests/support/memory.h"
#include "tests/support/served.h"

static struct raw_peer bad;
static struct raw_packet packet;
static struct asker asker;

/* --- a peer that has closed ------------------------------------------------------------------ */

/* Asks for something in the turn in which the peer says its last words and closes: the packet with the
 * call finds nobody, and the words lie unread. */
struct crossing {
    struct asked *late; /* NULL: nothing is asked */
    bool shut_only;     /* the peer only ceases to read */
};

static void on_late(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct asked *late = arg;
    (void)message;
    atomic_fetch_add(&late->replies, 1);
    atomic_store(&late->code, (int)status->code);
}

static void cross(void *arg)
{
    struct crossing *c = arg;
    beam_message *message = beam_message_new();
    ssize_t n = send(asker.peer.fd, packet.bytes, packet.len, MSG_NOSIGNAL);
    CHECK_INT(n, packet.len);
    if (c->shut_only)
        CHECK_INT(shutdown(asker.peer.fd, SHUT_RD), 0);
    else
        raw_close(&asker.peer);
    if (c->late) {
        atomic_store(&c->late->code, ASKER_PENDING);
        c->late->result = beam_call(asker.session, "late", &message, on_late, c->late, NULL);
        CHECK_INT(c->late->result, 0);
    }
    beam_message_free(message);
}

/* Two calls that the peer has read, with the ids 1 and 3. */
static void begin(struct asked asked[2])
{
    struct bm_message_head head;
    asker_start(&asker, true);
    for (unsigned i = 0; i < 2; i++) {
        asked[i] = (struct asked){.service = "x"};
        asker_ask(&asker, &asked[i]);
        REQUIRE(asker_next(&asker, &head));
        REQUIRE_UINT(asker.peer.frame.channel, 1 + 2 * i);
    }
    raw_clear(&packet);
}

/* The late call surely did not leave. */
static void finish(struct asked *late)
{
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    WAIT_UNTIL(atomic_load(&late->code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&late->code), BEAM_UNAVAILABLE);
    CHECK_UINT(atomic_load(&late->replies), 1);
    asker_stop(&asker);
}

TEST(answers_that_lie_unread_when_their_peer_has_gone_are_read_first)
{
    struct asked asked[2], late = {.service = "late"};
    begin(asked);
    raw_put_message(&packet, 1, BM_MSG_END, "an answer", 9);
    served_run(asker.runtime, 0, cross, &(struct crossing){&late, false});
    WAIT_UNTIL(atomic_load(&asked[0].code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asked[0].code), BEAM_OK);
    WAIT_UNTIL(atomic_load(&asked[1].code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asked[1].code), BEAM_UNKNOWN);
    finish(&late);
    CHECK_INT(atomic_load(&asker.closed), BEAM_UNAVAILABLE);
}

TEST(a_goaway_that_lies_unread_when_its_peer_has_gone_says_what_was_not_run)
{
    struct asked asked[2], late = {.service = "late"};
    begin(asked);
    raw_put_message(&packet, 1, BM_MSG_END, "an answer", 9);
    raw_put_goaway(&packet, 1, BEAM_OK);
    served_run(asker.runtime, 0, cross, &(struct crossing){&late, false});
    for (unsigned i = 0; i < 2; i++) {
        test_note("call %u", i);
        WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
        CHECK_INT(atomic_load(&asked[i].code), i == 0 ? BEAM_OK : BEAM_UNAVAILABLE);
    }
    finish(&late);
}

TEST(a_peer_that_stays_and_reads_no_more_is_given_up)
{
    struct asked asked[2], late = {.service = "late"};
    begin(asked);
    raw_put_message(&packet, 1, BM_MSG_END, "an answer", 9);
    served_run(asker.runtime, 0, cross, &(struct crossing){&late, true});
    WAIT_UNTIL(atomic_load(&asked[0].code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asked[0].code), BEAM_OK);
    WAIT_UNTIL(atomic_load(&asked[1].code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asked[1].code), BEAM_UNKNOWN);
    finish(&late);
}

/* U5: something of ours lies unread at the peer when it closes, and the kernel says so first. */
TEST(answers_and_goaway_lie_behind_a_reset)
{
    struct asked asked[2], unread = {.service = "unread"};
    begin(asked);
    asker_ask(&asker, &unread);
    raw_put_message(&packet, 1, BM_MSG_END, "an answer", 9);
    raw_put_goaway(&packet, 3, BEAM_OK);
    served_run(asker.runtime, 0, cross, &(struct crossing){NULL, false});
    WAIT_UNTIL(atomic_load(&asker.closed) != ASKER_PENDING);
    for (unsigned i = 0; i < 2; i++)
        WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&asked[0].code), BEAM_OK);
    CHECK_INT(atomic_load(&asked[1].code), BEAM_UNKNOWN);
    WAIT_UNTIL(atomic_load(&unread.code) != ASKER_PENDING);
    CHECK_INT(atomic_load(&unread.code), BEAM_UNAVAILABLE);
    asker_stop(&asker);
}

/* P3: a session that fails says how far it got. */
TEST(a_session_error_tells_which_calls_were_not_looked_at)
{
    struct asked asked[2];
    begin(asked);
    raw_put_goaway(&packet, 1, BEAM_INVALID_ARGUMENT);
    raw_send(&asker.peer, &packet);
    for (unsigned i = 0; i < 2; i++) {
        test_note("call %u", i);
        WAIT_UNTIL(atomic_load(&asked[i].code) != ASKER_PENDING);
        CHECK_INT(atomic_load(&asked[i].code), i == 0 ? BEAM_UNKNOWN : BEAM_UNAVAILABLE);
        CHECK_UINT(atomic_load(&asked[i].replies), 1);
    }
    WAIT_UNTIL(atomic_load(&asker.closed) == BEAM_INVALID_ARGUMENT);
    asker_stop(&asker);
}

/* --- answers that have left ------------------------------------------------------------------ */

/* W6: a channel is gone for the peer when it has read the last frame, and another may take its place
 * before we have heard that the packet left. */
TEST(a_peer_at_its_limit_may_open_a_channel_for_each_that_is_answered_with_an_fd)
{
    enum { LIMIT = 20, ROUNDS = 200 };
    uint64_t id = 1;
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.channels_max = LIMIT, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (; id < 2 * LIMIT - 1; id += 2)
        raw_put_open(&packet, id, BM_MSG_END, "hold", NULL, 0);
    raw_send(&bad, &packet);
    for (unsigned i = 0; i < ROUNDS; i++, id += 2) {
        struct bm_message_head head = {.open = true, .name = {"echo", 4}};
        test_note("round %u", i);
        raw_put_head(&packet, id, BM_MSG_OPEN | BM_MSG_END, 1, &head, NULL);
        raw_add_fd(&packet, 0);
        raw_send(&bad, &packet);
        REQUIRE(raw_find(&bad, BM_FRAME_MSG, id));
        CHECK_UINT(bad.fd_count, 1);
        while (bad.fd_count > 0)
            close(bad.fds[--bad.fd_count]);
        raw_put_credit(&packet, 0, 1);
    }
    raw_clear(&packet);
    WAIT_UNTIL(served_stats(served, 0).channels == LIMIT - 1);
    /* It is a limit all the same. */
    raw_put_open(&packet, id, BM_MSG_END, "hold", NULL, 0);
    raw_put_open(&packet, id + 2, BM_MSG_END, "hold", NULL, 0);
    raw_send(&bad, &packet);
    raw_expect_goaway(&bad, "TOO_MANY_CHANNELS");
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* --- no memory ------------------------------------------------------------------------------- */

/* Blocks for packets are refused so many times. */
static atomic_int refusals;

static void *scarce_realloc(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)arg;
    if (old_len == 0 && new_len == BM_FRAME_LEN_MAX && atomic_fetch_sub(&refusals, 1) > 0)
        return NULL;
    return test_memory_realloc(ptr, old_len, new_len);
}

TEST(what_found_no_memory_for_its_packet_goes_when_there_is_some)
{
    static const struct bm_allocator allocator = {.realloc = scarce_realloc};
    served_need_io_uring();
    bm_alloc_set(&allocator);
    atomic_store(&refusals, 3);
    asker_start(&asker, false);
    /* HELLO is the first thing that wants one, and nothing comes in that would bring it about. */
    REQUIRE_INT(raw_next(&asker.peer, 2000), 1);
    CHECK_INT(asker.peer.frame.kind, BM_FRAME_HELLO);
    CHECK(atomic_load(&refusals) <= 0);
    asker_stop(&asker);
    bm_alloc_set(NULL);
}
