/* Conversations of sound frames in no sense at all: every kind in every state,
 * with fds and channels attached, limits of any size, read or not. Sessions end
 * or go on; the others are served, and nothing stays behind. */
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/served.h"

enum { SESSIONS = 300, PACKETS = 60, FRAMES = 12, IDS = 64 };

static struct raw_peer bad;
static struct raw_packet packet;
static struct test_random random_;
static uint8_t body[60000];

/* What the attacker believes: ids it has given, and the way each was opened. */
static struct {
    uint64_t next;
    uint64_t ids[IDS];
    uint64_t left[IDS]; /* of a message in several frames */
    bool bytes[IDS], ended[IDS];
    unsigned count;
} state;

static uint64_t below(uint64_t bound)
{
    return test_random_below(&random_, bound);
}

static unsigned remember(bool bytes)
{
    unsigned i = state.count < IDS ? state.count++ : (unsigned)below(IDS);
    state.next += 2 * (1 + (below(8) == 0 ? below(1000) : 0));
    state.ids[i] = state.next;
    state.left[i] = 0;
    state.bytes[i] = bytes;
    state.ended[i] = false;
    return i;
}

static uint32_t some_len(void)
{
    static const uint32_t lens[] = {0, 1, 8, 40, 200, 1000, 4000};
    return lens[below(7)];
}

static void put_first(unsigned i, bool open, bool oneway)
{
    static const char *const services[] = {"echo",   "echo", "hold", "talk", "deaf",
                                           "listen", "take", "chat", "chat", "nobody"};
    struct bm_attached attached[4];
    /* Those that keep what is asked of them know no events. */
    const char *service = oneway ? (below(2) ? "listen" : "echo") : services[below(10)];
    struct bm_message_head head = {.open = open, .name = {service, strlen(service)}};
    uint8_t flags = (open ? BM_MSG_OPEN : 0) | (oneway ? BM_MSG_ONEWAY : 0);
    uint64_t id = state.ids[i];
    unsigned fds = below(25) == 0 ? (unsigned)below(18) : 0;
    head.depth = (uint8_t)(below(10) == 0 ? below(20) : 0);
    head.deadline_ns = below(4) == 0 ? 1 + below(3 * BEAM_MS) : 0;
    head.body = body;
    head.body_len = some_len();
    if (below(5) == 0) {
        static const uint64_t totals[] = {1, 5000, 100000, 5 << 20, 20 << 20, UINT64_MAX / 2};
        head.large = true;
        head.body_total = head.body_len + totals[below(below(4) == 0 ? 6 : 3)];
        state.left[i] = head.body_total - head.body_len;
        flags |= BM_MSG_MORE;
    } else if (below(3) == 0) {
        flags |= BM_MSG_END;
        state.ended[i] = true;
    }
    if (below(4) == 0) {
        head.attached = (uint8_t)(1 + below(4));
        for (unsigned k = 0; k < head.attached; k++) {
            bool bytes = below(2) == 0;
            unsigned j = remember(bytes);
            attached[k] = (struct bm_attached){.id = state.ids[j],
                                               .mode = bytes ? BM_MODE_BYTES : BM_MODE_MESSAGES};
        }
    }
    if (packet.fd_count + fds > 240)
        fds = 0;
    raw_put_head(&packet, id, flags, (uint8_t)fds, &head, attached);
    for (unsigned k = 0; k < fds; k++)
        raw_add_fd(&packet, 0);
}

static void put_later(unsigned i)
{
    uint32_t len = some_len();
    bool last = below(4) == 0;
    if (state.left[i] > 0 && (len == 0 || len < state.left[i])) {
        len = len ? len : 1;
        len = len < state.left[i] ? len : (uint32_t)state.left[i] - 1;
        if (len > 0)
            raw_put_bytes(&packet, state.ids[i], BM_MSG_MORE, body, len);
        state.left[i] -= len;
        return;
    }
    if (state.left[i] > 0)
        len = (uint32_t)state.left[i];
    raw_put_bytes(&packet, state.ids[i], last ? BM_MSG_END : 0, body, len);
    state.left[i] = 0;
    state.ended[i] = last;
}

static void put_frame(void)
{
    unsigned i = state.count ? (unsigned)below(state.count) : 0;
    uint64_t kind = below(100);
    /* Rarely what surely ends the session. */
    uint64_t id = state.count && below(300) ? state.ids[i] : below(50);
    if (kind < 30 || state.count == 0) {
        put_first(remember(false), true, below(5) == 0);
    } else if (kind < 60) {
        if (state.ended[i] && below(500) > 0)
            return;
        if (state.bytes[i] || state.left[i] > 0)
            put_later(i);
        else
            put_first(i, false, false);
    } else if (kind < 68) {
        raw_put_end(&packet, id, BM_END_ABORT, (uint32_t)below(20));
    } else if (kind < 76) {
        if ((state.left[i] > 0 || state.ended[i]) && below(500) > 0)
            return;
        state.ended[i] = true;
        raw_put_end(&packet, state.ids[i], 0, (uint32_t)below(20));
    } else if (kind < 88) {
        raw_put_credit(&packet, below(3) ? id : 0, below(100000));
    } else if (kind < 92) {
        raw_put_ping(&packet, below(10));
    } else if (kind < 93) {
        raw_put_goaway(&packet, below(2) ? UINT64_MAX : below(10), below(4) == 0 ? 3 : 0);
    } else if (kind < 96) {
        uint8_t frame[24] = {0};
        frame[8] = 8;
        frame[12] = 0x80;
        raw_put(&packet, frame, sizeof(frame));
    } else if (below(100) == 0) {
        raw_put_message(&packet, 2 * (1 + below(6)), 0, NULL, 0); /* one of theirs, perhaps */
    }
}

static void converse(struct served *served)
{
    struct bm_hello hello = {
        .version = BM_PROTOCOL_VERSION,
        .opener = true,
        .window = below(2) ? BM_WINDOW_MIN : 65536,
        .channels_max = (uint32_t)(1 + below(3) * 20),
        .message_len_max = (uint32_t)(1 + below(3) * 5000),
        .fds_max = (uint32_t)(below(2) * 64),
        .fds_refused = below(4) == 0,
    };
    bool reads = below(2);
    bool alive = true;
    memset(&state, 0, sizeof(state));
    state.next = (uint64_t)-1;
    raw_connect(&bad, served->name);
    raw_clear(&packet);
    raw_put_hello_of(&packet, &hello);
    for (unsigned n = 0; n < PACKETS && alive; n++) {
        for (unsigned k = 1 + (unsigned)below(FRAMES); k > 0 && packet.len < 30000; k--)
            put_frame();
        if (packet.len > 0)
            alive = raw_try_send(&bad, &packet, 200) == 0;
        raw_clear(&packet);
        for (int r = reads ? 1 : -1; alive && r > 0; alive = r != 0)
            r = raw_next(&bad, 0);
        while (bad.fd_count > 0)
            close(bad.fds[--bad.fd_count]);
        if (below(40) == 0)
            served_release(served);
        if (below(40) == 0)
            served_drop(served);
    }
    raw_close(&bad);
}

TEST(sound_frames_in_no_order_leave_nothing)
{
    struct served *served = served_start(&BEAM_RUNTIME_OPTIONS(.limits = {.channels_max = 200,
                                                                          .queue_len_max = 1 << 20,
                                                                          .aborts_per_s = 100000},
                                                               .name = "served"));
    random_ = test_random(0);
    for (unsigned i = 0; i < SESSIONS; i++) {
        test_note("session %u", i);
        converse(served);
        if (i % 16 == 0)
            served_check(served);
    }
    served_release(served);
    served_check_clean(served);
    served_stop(served);
}
