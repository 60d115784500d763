/* A peer's packet meets no memory: each allocation that it makes us try is refused in turn. The peer hears
 * of a refusal that it can understand, and nothing it said in good faith is held against it. */
#include <string.h>

#include "base/alloc.h"
#include "tests/support/memory.h"
#include "tests/support/served.h"

static struct raw_peer bad;
static struct raw_packet packet;

/* --- memory that runs out once --------------------------------------------------------------- */

static atomic_int refuse_at; /* allocations until the refused one; below 0: none is */

static void *scarce_realloc(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    (void)arg;
    if (new_len > 0 && atomic_load(&refuse_at) >= 0 && atomic_fetch_sub(&refuse_at, 1) == 0)
        return NULL;
    return test_memory_realloc(ptr, old_len, new_len);
}

/* What every allocation of a packet must survive: `fill` makes the packet, and `settle` looks at what
 * came of it. Until one run has refused nothing. */
static void refuse_each(void (*fill)(struct served *), void (*settle)(struct served *))
{
    bool refused = true;
    unsigned runs = 0;
    bm_alloc_set(&(struct bm_allocator){.realloc = scarce_realloc});
    atomic_store(&refuse_at, -1);
    for (int k = 0; refused && k < 100; k++, runs++) {
        test_note("allocation %d is refused", k);
        struct served *served = served_start(NULL);
        raw_open_session(&bad, served->name);
        raw_sync(&bad);
        raw_clear(&packet);
        fill(served);
        atomic_store(&refuse_at, k);
        raw_send(&bad, &packet);
        settle(served);
        refused = atomic_exchange(&refuse_at, -1) < 0;
        raw_close(&bad);
        served_drop(served);
        served_check_clean(served);
        served_stop(served);
    }
    CHECK(!refused);
    CHECK(runs > 1);
    bm_alloc_set(NULL);
}

/* Reads up to the answer of a PING that was sent last; a session that ends meanwhile must say that it had
 * no memory. Returns whether it goes on. */
static bool goes_on(void)
{
    raw_put_ping(&packet, 77);
    if (raw_try_send(&bad, &packet, RAW_TIMEOUT_MS) == 0) {
        while (raw_next(&bad, RAW_TIMEOUT_MS) == 1) {
            if (bad.frame.kind == BM_FRAME_PING)
                return true;
            if (bad.frame.kind != BM_FRAME_GOAWAY)
                continue;
            struct bm_frame_goaway goaway;
            bm_frame_parse_goaway(&bad.frame, &goaway);
            CHECK_UINT(goaway.why.code, BEAM_RESOURCE_EXHAUSTED);
            return false;
        }
    }
    return false;
}

/* --- a request with channels, and what is said on them --------------------------------------- */

#define STREAM 5u

static void fill_gift(struct served *served)
{
    (void)served;
    static const struct bm_attached attached[] = {{.id = 3, .mode = BM_MODE_MESSAGES},
                                                  {.id = STREAM, .mode = BM_MODE_BYTES}};
    const struct bm_message_head head = {
        .open = true,
        .name = {"chat", 4},
        .attached = 2,
        .body = (const uint8_t *)"hello",
        .body_len = 5,
    };
    uint8_t bytes[500];
    memset(bytes, 0xff, sizeof(bytes)); /* no message would look so */
    raw_put_head(&packet, 1, BM_MSG_OPEN | BM_MSG_END, 0, &head, attached);
    raw_put_bytes(&packet, STREAM, 0, bytes, sizeof(bytes));
}

/* The stream is read, or its peer is told that nobody will. */
static void settle_gift(struct served *served)
{
    (void)served;
    (void)goes_on();
}

TEST(a_request_with_channels_may_meet_no_memory_anywhere)
{
    refuse_each(fill_gift, settle_gift);
}

/* --- what comes on channels whose message is not here whole ---------------------------------- */

/* What the service below was told, on the reactor; read when the peer has gone. */
static struct {
    size_t bytes, messages;
    int stream_code, channel_code; /* -1: no end yet */
} heard;

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    (void)stream;
    (void)data;
    (void)arg;
    heard.bytes += len;
}

static void on_stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    (void)arg;
    heard.stream_code = (int)status->code;
    beam_stream_free(stream);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    (void)channel;
    (void)message;
    (void)arg;
    heard.messages++;
}

static void on_channel_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)arg;
    heard.channel_code = (int)status->code;
    beam_channel_free(channel);
}

static void on_count(beam_request *request, const beam_message *message, void *arg)
{
    static const struct beam_channel_handlers handlers = {.on_message = on_message,
                                                          .on_end = on_channel_end};
    static const struct beam_stream_handlers stream_handlers = {.on_data = on_data,
                                                                .on_end = on_stream_end};
    (void)arg;
    beam_channel *channel = beam_message_take_channel(message, 0);
    beam_stream *stream = beam_message_take_stream(message, 1);
    if (channel)
        beam_channel_set_handlers(channel, &handlers, NULL);
    if (stream)
        beam_stream_set_handlers(stream, &stream_handlers, NULL);
    beam_reply(request, NULL);
}

static void fill_early(struct served *served)
{
    static const struct bm_attached attached[] = {{.id = 3, .mode = BM_MODE_MESSAGES},
                                                  {.id = STREAM, .mode = BM_MODE_BYTES}};
    static const uint8_t body[200];
    const struct bm_message_head head = {
        .open = true,
        .name = {"count", 5},
        .attached = 2,
        .large = true,
        .body_total = sizeof(body),
        .body = body,
        .body_len = 100,
    };
    heard.bytes = heard.messages = 0;
    heard.stream_code = heard.channel_code = -1;
    REQUIRE_INT(beam_serve(served->runtime, "count", on_count, NULL), 0);
    raw_put_head(&packet, 1, BM_MSG_OPEN | BM_MSG_MORE, 0, &head, attached);
    raw_put_bytes(&packet, STREAM, 0, body, 200);
    raw_put_bytes(&packet, STREAM, BM_MSG_END, body, 50);
    raw_put_message(&packet, 3, 0, body, 10);
    raw_put_message(&packet, 3, BM_MSG_END, body, 10);
    raw_put_bytes(&packet, 1, BM_MSG_END, body, 100);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* An end with OK is told only behind all that was sent. */
static void settle_early(struct served *served)
{
    (void)goes_on();
    served_run(served->runtime, 0, nothing, NULL);
    served_run(served->runtime, 0, nothing, NULL); /* the ends that the turn before has caused */
    if (heard.stream_code == BEAM_OK)
        CHECK_UINT(heard.bytes, 250);
    if (heard.channel_code == BEAM_OK)
        CHECK_UINT(heard.messages, 2);
}

TEST(what_got_no_memory_is_never_told_as_an_orderly_end)
{
    refuse_each(fill_early, settle_early);
}
