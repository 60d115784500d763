/* Packing and unpacking over a carrier that knows nothing but bytes: two sessions of one core, whose frames
 * lie in buffers that grow and are moved in pieces of any length. */
#include "runtime/packing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/channel.h"
#include "runtime/message.h"
#include "runtime/unpacking.h"
#include "tests/unit/runtime/on_core.h"

enum { ROOM = 150000, IN_MAX = 2 * BM_FRAME_LEN_MAX, LARGE = 400000 };

struct end {
    beam_session session;
    struct end *other;
    uint8_t *out; /* [ROOM]; what was put and has not been moved */
    size_t out_len;
    _Alignas(8) uint8_t in[IN_MAX]; /* a frame, as far as it has come */
    size_t in_len;
    unsigned greeted, no_room;
    bool closed;
};

static struct test_random luck;

static struct end *end_of(beam_session *session)
{
    return bm_container_of(session, struct end, session);
}

static bool end_begin(beam_session *session)
{
    return !end_of(session)->closed;
}

static uint8_t *end_room(beam_session *session, uint32_t len)
{
    struct end *end = end_of(session);
    CHECK_UINT(len % 8, 0);
    if (len > ROOM - end->out_len) {
        end->no_room++;
        return NULL;
    }
    end->out_len += len;
    return end->out + end->out_len - len;
}

static int end_put_message(beam_session *session, beam_channel *channel, beam_message *message)
{
    struct bm_packing packing;
    uint64_t next_id = session->next_id;
    bm_packing_plan(channel, message, &packing);
    CHECK_UINT(session->next_id, next_id); /* a plan is no more than that */
    CHECK(packing.len <= BM_FRAME_LEN_MAX);
    uint8_t *at = end_room(session, packing.len);
    if (!at)
        return BM_PUT_FULL;
    bm_packing_write(&packing, at);
    return bm_packing_left(&packing);
}

static void end_commit(beam_session *session)
{
    (void)session;
}

static void end_farewell(beam_session *session)
{
    struct end *end = end_of(session);
    if (end->out_len + BM_PACKING_FAREWELL_LEN <= ROOM)
        end->out_len += bm_packing_farewell(session, end->out + end->out_len);
}

static void end_shut(beam_session *session)
{
    bm_session_lost(session, BEAM_OK, "closed");
}

static void end_abort(beam_session *session)
{
    struct end *end = end_of(session);
    if (end->closed)
        return;
    end->closed = true;
    bm_session_unref(session);
}

static void end_free(beam_session *session)
{
    struct end *end = end_of(session);
    free(end->out);
    free(end);
}

static size_t end_memory(const beam_session *session)
{
    (void)session;
    return 0;
}

static const struct bm_carrier carrier = {
    .begin = end_begin,
    .room = end_room,
    .put_hello = bm_packing_put_hello,
    .put_message = end_put_message,
    .put_end = bm_packing_put_end,
    .put_u64 = bm_packing_put_u64,
    .put_goaway = bm_packing_put_goaway,
    .commit = end_commit,
    .farewell = end_farewell,
    .shut = end_shut,
    .abort = end_abort,
    .free = end_free,
    .memory = end_memory,
};

static bool greet(beam_session *session, const struct bm_hello *hello, void *arg)
{
    struct end *end = arg;
    CHECK_PTR(session, &end->session);
    CHECK(hello->opener != session->opener);
    end->greeted++;
    return true;
}

static const struct bm_unpacking unpacking = {.on_hello = greet};

static struct end *end_new(bool opener)
{
    struct end *end = calloc(1, sizeof(*end));
    REQUIRE(end != NULL);
    end->out = malloc(ROOM);
    REQUIRE(end->out != NULL);
    bm_session_init(&end->session, bm_core_current(), &carrier, opener);
    bm_peer_set_net(&end->session.peer, NULL);
    bm_session_ref(&end->session); /* the test's */
    return end;
}

static void end_drop(struct end *end)
{
    bm_session_lost(&end->session, BEAM_CANCELLED, "the end of the test");
    bm_session_unref(&end->session);
}

/* Takes what has come apart, frame by frame. */
static void take_frames(struct end *end)
{
    while (end->session.state == BM_SESSION_OPEN && end->in_len >= BM_FRAME_HEADER_LEN) {
        size_t len = BM_FRAME_HEADER_LEN + bm_round_up8(bm_get_u32(end->in + 8));
        struct bm_frame frame;
        if (end->in_len < len)
            return;
        struct bm_bytes bytes = bm_bytes(end->in, len);
        int r = bm_frame_next(&bytes, &frame);
        if (r < 0)
            bm_session_fail(&end->session, r);
        else
            (void)bm_unpacking_frame(&end->session, &unpacking, end, &frame, r == 1);
        end->in_len -= len;
        memmove(end->in, end->in + len, end->in_len);
    }
}

/* Some of what lies in `from` goes over. false: there is nothing. */
static bool move_some(struct end *from)
{
    struct end *to = from->other;
    if (from->out_len == 0)
        return false;
    size_t most = IN_MAX - to->in_len < from->out_len ? IN_MAX - to->in_len : from->out_len;
    size_t len =
        1 + test_random_below(&luck, test_random_below(&luck, 4) == 0 ? 20 : (uint32_t)most);
    if (len > most)
        len = most;
    memcpy(to->in + to->in_len, from->out, len);
    to->in_len += len;
    from->out_len -= len;
    memmove(from->out, from->out + len, from->out_len);
    take_frames(to);
    bm_session_want_flush(&from->session);
    return true;
}

static void run(struct end *a, struct end *b)
{
    for (unsigned idle = 0; idle < 5; idle++) {
        CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
        bool moved = move_some(a);
        moved = move_some(b) || moved;
        if (moved)
            idle = 0;
    }
}

static struct end *opener, *acceptor;

static void begin(void)
{
    luck = test_random(0);
    core_begin();
    opener = end_new(true);
    acceptor = end_new(false);
    opener->other = acceptor;
    acceptor->other = opener;
    bm_session_up(&opener->session);
    bm_session_up(&acceptor->session);
    run(opener, acceptor);
    REQUIRE_UINT(opener->greeted + acceptor->greeted, 2);
}

static void finish(void)
{
    end_drop(opener);
    end_drop(acceptor);
    core_end();
}

static unsigned answered;
static size_t wrong;

static uint8_t byte_at(size_t place)
{
    return (uint8_t)(place * 31 + place / 255);
}

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    (void)arg;
    CHECK_INT(beam_request_peer(request)->kind, BEAM_PEER_NET);
    beam_message *kept = beam_message_keep(message);
    REQUIRE(kept != NULL);
    beam_reply(request, &kept);
}

static void on_answer(const struct beam_status *status, const beam_message *message, void *arg)
{
    size_t len;
    const uint8_t *body = beam_message_body(message, &len);
    answered++;
    CHECK_INT(status->code, BEAM_OK);
    CHECK_UINT(len, *(const uint32_t *)arg);
    for (size_t i = 0; i < len; i++)
        wrong += body[i] != byte_at(i);
}

TEST(packing_carries_messages_of_any_length_over_bytes_that_are_cut_anywhere)
{
    static const uint32_t lens[] = {0, 1, 7, 8, 40, 65000, 65536 - 40, 65536, 65537, LARGE};
    uint8_t *bytes = malloc(LARGE);
    REQUIRE(bytes != NULL);
    for (size_t i = 0; i < LARGE; i++)
        bytes[i] = byte_at(i);
    begin();
    REQUIRE_INT(beam_serve(on_core_runtime, "echo", on_echo, NULL), 0);
    answered = 0;
    wrong = 0;
    for (unsigned i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
        beam_message *message = beam_message_new();
        REQUIRE(message != NULL);
        beam_message_set_body(message, bytes, lens[i]);
        test_note("%u bytes", lens[i]);
        REQUIRE_INT(
            beam_call(&opener->session, "echo", &message, on_answer, (void *)&lens[i], NULL), 0);
        if (i % 2)
            run(opener, acceptor);
    }
    run(opener, acceptor);
    CHECK_UINT(answered, sizeof(lens) / sizeof(lens[0]));
    CHECK_UINT(wrong, 0);
    CHECK(opener->no_room > 0); /* and nothing was lost by that */
    CHECK(bm_list_empty(&opener->session.channels));
    CHECK(bm_list_empty(&acceptor->session.channels));
    finish();
    free(bytes);
}

/* --- what is refused ------------------------------------------------------------------------------ */

static void say(const void *frame, size_t len)
{
    memcpy(acceptor->in + acceptor->in_len, frame, len);
    acceptor->in_len += len;
    take_frames(acceptor);
}

TEST(unpacking_refuses_descriptors_where_there_are_none)
{
    static const uint8_t kinds[] = {BM_FRAME_MSG, BM_FRAME_KIND_IGNORED};
    for (unsigned i = 0; i < 2; i++) {
        _Alignas(8) uint8_t frame[BM_FRAME_HEADER_LEN] = {1};
        frame[12] = kinds[i];
        frame[14] = 1; /* fds */
        begin();
        say(frame, sizeof(frame));
        CHECK_INT(acceptor->session.error, -BEAM_EFRAME_FDS);
        CHECK(acceptor->closed);
        run(opener, acceptor); /* the farewell comes over */
        CHECK_INT(opener->session.state, BM_SESSION_CLOSED);
        CHECK_STR(opener->session.close_text, beam_strerror(-BEAM_EFRAME_FDS));
        finish();
    }
}

TEST(unpacking_wants_hello_first)
{
    _Alignas(8) uint8_t frame[BM_FRAME_U64_LEN];
    core_begin();
    acceptor = end_new(false);
    opener = end_new(true);
    acceptor->other = opener;
    opener->other = acceptor;
    bm_session_up(&opener->session);
    bm_session_up(&acceptor->session);
    bm_frame_put_u64(frame, BM_FRAME_PING, 0, 0, 1);
    say(frame, sizeof(frame));
    CHECK_INT(acceptor->session.error, -BEAM_EHELLO_MISSING);
    CHECK_UINT(acceptor->greeted, 0);
    finish();
}
