/* Small frames that could each cost a walk over everything a session has: a flood of them must not keep
 * the reactor from the others. */
#include <errno.h>

#include "runtime/channel.h"
#include "runtime/session.h"
#include "tests/support/served.h"

/* A walk would make a frame cost a thousand times as much with all channels as with a few. */
enum { CHANNELS = 8000, FEW = 8, PACKETS = 400, RATIO_MAX = 10 };

static struct raw_peer bad;
static struct raw_packet packet;
static beam_channel *first;

static void greet(const struct served *served, const struct bm_hello *hello)
{
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    raw_put_hello_of(&packet, hello);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_HELLO, 0));
    raw_clear(&packet);
}

static struct served *attacked(void)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.channels_max = CHANNELS + 1, .name = "served"));
    struct bm_hello hello = {
        .version = BM_PROTOCOL_VERSION,
        .opener = true,
        .window = 65536,
        .channels_max = 1,
        .message_len_max = 1 << 20,
        .fds_max = 1,
    };
    greet(served, &hello);
    return served;
}

static void open_channels(const char *service, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, service, NULL, 0);
        if (packet.len > BM_FRAME_LEN_MAX - 64)
            raw_send(&bad, &packet);
    }
    raw_send(&bad, &packet);
    raw_sync(&bad);
}

/* How long it takes until the good peer is answered, and the bad one too. */
static uint64_t flood(struct served *served, void (*fill)(void))
{
    uint64_t since_ns = beam_now_ns();
    for (unsigned i = 0; i < PACKETS; i++) {
        fill();
        raw_send(&bad, &packet);
    }
    served_check(served);
    raw_sync(&bad);
    return beam_now_ns() - since_ns;
}

/* The same flood over a few channels, and over all. */
static void check_is_no_walk(struct served *served, const char *service, void (*fill)(void))
{
    open_channels(service, 0, FEW);
    uint64_t few_ns = flood(served, fill);
    open_channels(service, FEW, CHANNELS);
    uint64_t all_ns = flood(served, fill);
    test_note("%u ms over few channels, %u over all", (unsigned)(few_ns / BEAM_MS),
              (unsigned)(all_ns / BEAM_MS));
    CHECK(all_ns <= RATIO_MAX * few_ns);
    test_note("%s", "");
}

static void finish(struct served *served)
{
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
}

/* --- those who wait --------------------------------------------------------------------------- */

static void on_cancel(beam_request *request, void *arg)
{
    (void)arg;
    beam_fail(request, BEAM_CANCELLED, NULL);
}

/* Wants to send a message with a channel attached; the peer takes one of those in all. */
static void want(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *more = beam_message_new();
    beam_channel *attached = beam_message_attach_channel(more);
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, NULL);
    int r = beam_channel_send(beam_request_channel(request), &more);
    CHECK_INT(r, first ? -EAGAIN : 0);
    beam_message_free(more);
    if (first)
        beam_channel_free(attached);
    else
        first = attached;
}

static void free_first(void *arg)
{
    (void)arg;
    first = beam_channel_free(first);
}

static void fill_with_credit(void)
{
    while (packet.len + BM_FRAME_U64_LEN <= BM_FRAME_LEN_MAX)
        raw_put_credit(&packet, 0, 0);
}

TEST(a_flood_of_fd_credit_is_no_walk_each_over_all_who_wait)
{
    struct served *served = attacked();
    first = NULL;
    REQUIRE_INT(beam_serve(served->runtime, "want", want, NULL), 0);
    check_is_no_walk(served, "want", fill_with_credit);
    served_run(served->runtime, 0, free_first, NULL);
    finish(served);
}

/* --- those who wait for their own credit -------------------------------------------------------- */

enum { SPEAKERS = 500, WINDOW = 16384 };

static beam_request *speakers[SPEAKERS];
static unsigned speaker_count;
static atomic_uint speakers_writable;

static void on_writable(beam_channel *channel, void *arg)
{
    (void)channel;
    (void)arg;
    atomic_fetch_add(&speakers_writable, 1);
}

/* One message takes the whole credit; another is refused. */
static void speak(beam_request *request, const beam_message *message, void *arg)
{
    static const struct beam_channel_handlers handlers = {.on_writable = on_writable};
    static const char body[WINDOW];
    beam_channel *channel = beam_request_channel(request);
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_channel_set_handlers(channel, &handlers, NULL);
    CHECK_INT(beam_channel_send_body(channel, body, sizeof(body)), 0);
    CHECK(beam_channel_credit(channel) < 0);
    CHECK_INT(beam_channel_send_body(channel, body, 1), -EAGAIN);
    speakers[speaker_count++] = request;
}

static struct served *spoken_to(uint32_t queue_len_max, unsigned count)
{
    struct served *served = served_start(
        &BEAM_RUNTIME_OPTIONS(.limits.queue_len_max = queue_len_max, .name = "served"));
    struct bm_hello hello = {
        .version = BM_PROTOCOL_VERSION,
        .opener = true,
        .window = WINDOW,
        .channels_max = 1,
        .message_len_max = 1 << 20,
    };
    speaker_count = 0;
    atomic_store(&speakers_writable, 0);
    REQUIRE_INT(beam_serve(served->runtime, "speak", speak, NULL), 0);
    greet(served, &hello);
    for (unsigned i = 0; i < count; i++)
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, "speak", NULL, 0);
    return served;
}

static void answer_speakers(void *arg)
{
    (void)arg;
    while (speaker_count > 0)
        beam_reply(speakers[--speaker_count], NULL);
}

/* How many every flush of their session looks at. */
static void count_walked(void *arg)
{
    unsigned *count = arg;
    const beam_session *session = beam_request_session(speakers[0]);
    *count = 0;
    for (struct bm_list *n = session->blocked.next; n != &session->blocked; n = n->next)
        ++*count;
}

TEST(channels_that_lack_credit_of_their_own_are_walked_by_no_flush)
{
    struct served *served = spoken_to(64 << 20, SPEAKERS);
    unsigned walked = SPEAKERS;
    raw_send(&bad, &packet);
    raw_sync(&bad);
    served_run(served->runtime, 0, count_walked, &walked);
    CHECK_UINT(speaker_count, SPEAKERS);
    CHECK_UINT(walked, 0);

    /* CREDIT alone makes each go on. */
    for (unsigned i = 0; i < SPEAKERS; i++)
        raw_put_credit(&packet, 1 + 2 * i, WINDOW);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    WAIT_UNTIL(atomic_load(&speakers_writable) == SPEAKERS);
    served_run(served->runtime, 0, answer_speakers, NULL);
    raw_sync(&bad);
    finish(served);
}

TEST(a_channel_whose_credit_comes_while_the_queue_is_full_goes_on_when_that_is_not)
{
    enum { MANY = 40 }; /* of 16 KiB: more than the socket and the queue hold */
    struct served *served = spoken_to(8 * WINDOW, MANY);
    raw_put_credit(&packet, 1, WINDOW);
    raw_send(&bad, &packet);
    raw_sync(&bad);
    WAIT_UNTIL(atomic_load(&speakers_writable) == 1);
    raw_close(&bad);
    WAIT_UNTIL(served_stats(served, 0).sessions == 1);
    served_run(served->runtime, 0, answer_speakers, NULL);
    served_check_clean(served);
    served_stop(served);
}

static uint64_t last_id;

static void fill_with_goaway(void)
{
    while (packet.len + 40 <= BM_FRAME_LEN_MAX)
        raw_put_goaway(&packet, last_id--, 0);
}

TEST(a_flood_of_goaway_is_no_walk_each_over_all_channels)
{
    struct served *served = attacked();
    last_id = UINT64_MAX;
    check_is_no_walk(served, "hold", fill_with_goaway);
    CHECK_UINT(atomic_load(&served->held), CHANNELS);
    finish(served);
}
