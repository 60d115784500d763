/* Small frames that could each cost a walk over everything a session has: a flood of them must not keep
 * the reactor from the others. */
#include <errno.h>

#include "tests/support/served.h"

enum { CHANNELS = 8000, PACKETS = 400, IN_TIME_MS = 5000 };

static struct raw_peer bad;
static struct raw_packet packet;
static beam_channel *first;

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
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    raw_put_hello_of(&packet, &hello);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_HELLO, 0));
    raw_clear(&packet);
    return served;
}

static void open_all(const char *service)
{
    for (unsigned i = 0; i < CHANNELS; i++) {
        raw_put_open(&packet, 1 + 2 * i, BM_MSG_END, service, NULL, 0);
        if (packet.len > BM_FRAME_LEN_MAX - 64)
            raw_send(&bad, &packet);
    }
    raw_send(&bad, &packet);
    raw_sync(&bad);
}

/* The good peer is answered before long, and so is the bad one. */
static void check_in_time(struct served *served, uint64_t since_ns)
{
    served_check(served);
    raw_sync(&bad);
    uint64_t ms = (beam_now_ns() - since_ns) / BEAM_MS;
    test_note("%u packets took %u ms", PACKETS, (unsigned)ms);
    CHECK(ms < IN_TIME_MS);
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

TEST(a_flood_of_fd_credit_is_no_walk_each_over_all_who_wait)
{
    struct served *served = attacked();
    first = NULL;
    REQUIRE_INT(beam_serve(served->runtime, "want", want, NULL), 0);
    open_all("want");
    uint64_t since_ns = beam_now_ns();
    for (unsigned i = 0; i < PACKETS; i++) {
        while (packet.len + BM_FRAME_U64_LEN <= BM_FRAME_LEN_MAX)
            raw_put_credit(&packet, 0, 0);
        raw_send(&bad, &packet);
    }
    check_in_time(served, since_ns);
    served_run(served->runtime, 0, free_first, NULL);
    finish(served);
}

TEST(a_flood_of_goaway_is_no_walk_each_over_all_channels)
{
    struct served *served = attacked();
    uint64_t last_id = UINT64_MAX;
    open_all("hold");
    CHECK_UINT(atomic_load(&served->held), CHANNELS);
    uint64_t since_ns = beam_now_ns();
    for (unsigned i = 0; i < PACKETS; i++) {
        while (packet.len + 40 <= BM_FRAME_LEN_MAX)
            raw_put_goaway(&packet, last_id--, 0);
        raw_send(&bad, &packet);
    }
    check_in_time(served, since_ns);
    finish(served);
}
