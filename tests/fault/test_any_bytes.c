/* Bytes that mean nothing, and conversations that break off anywhere: the session ends or goes on, the
 * server serves the others, and nothing stays behind. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/served.h"

#define GARBAGE_PACKETS 20000
#define CONVERSATION_MAX 16

static struct raw_peer bad;
static struct raw_packet packet, part;

/* --- a conversation -------------------------------------------------------------------------- */

/* Everything there is, in packets of one to many frames. */
struct conversation {
    unsigned count;
    struct {
        uint8_t *bytes;
        size_t len;
        unsigned fds;
    } packets[CONVERSATION_MAX];
};

static void take_packet(struct conversation *c)
{
    REQUIRE(c->count < CONVERSATION_MAX);
    c->packets[c->count].bytes = malloc(packet.len);
    REQUIRE(c->packets[c->count].bytes != NULL);
    memcpy(c->packets[c->count].bytes, packet.bytes, packet.len);
    c->packets[c->count].len = packet.len;
    c->packets[c->count].fds = packet.fd_count;
    c->count++;
    raw_clear(&packet);
}

static void put_all(struct conversation *c, int fd)
{
    static uint8_t body[3000];
    uint8_t meta[64];
    struct bm_message_head head = {.open = true};
    beam_kv_writer w;
    const void *doc;
    size_t doc_len;
    beam_kv_writer_init(&w, meta, sizeof(meta));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "text", "hi");
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &doc_len), 0);

    raw_clear(&packet);
    raw_put_hello(&packet, true);
    take_packet(c);
    raw_put_open(&packet, 1, BM_MSG_END, "echo", body, 40);
    raw_put_open(&packet, 3, 0, "talk", "x", 1);
    raw_put_message(&packet, 3, 0, "y", 1);
    raw_put_open(&packet, 5, BM_MSG_END, "nobody", NULL, 0);
    raw_put_ping(&packet, 1);
    take_packet(c);

    head.name = (beam_str){"take", 4};
    head.metadata = doc;
    head.metadata_len = (uint32_t)doc_len;
    raw_put_head(&packet, 7, BM_MSG_OPEN | BM_MSG_END, 2, &head, NULL);
    raw_add_fd(&packet, fd);
    raw_add_fd(&packet, fd);
    raw_put_credit(&packet, 3, 100);
    take_packet(c);

    struct bm_attached attached[2] = {{.id = 11, .mode = BM_MODE_MESSAGES},
                                      {.id = 13, .mode = BM_MODE_BYTES}};
    head.name = (beam_str){"chat", 4};
    head.attached = 2;
    raw_put_head(&packet, 9, BM_MSG_OPEN | BM_MSG_END, 1, &head, attached);
    raw_add_fd(&packet, fd);
    raw_put_message(&packet, 11, 0, "z", 1);
    raw_put_bytes(&packet, 13, 0, "bytes", 5);
    take_packet(c);

    head = (struct bm_message_head){.open = true,
                                    .name = {"echo", 4},
                                    .large = true,
                                    .body_total = 6000,
                                    .body = body,
                                    .body_len = 2000};
    raw_put_head(&packet, 15, BM_MSG_OPEN | BM_MSG_MORE, 0, &head, NULL);
    take_packet(c);
    raw_put_bytes(&packet, 15, BM_MSG_MORE, body, 3000);
    raw_put_open(&packet, 17, BM_MSG_ONEWAY, "listen", "e", 1);
    raw_put_bytes(&packet, 15, BM_MSG_END, body, 1000);
    take_packet(c);
    raw_put_end(&packet, 3, 0, 0);
    raw_put_open(&packet, 19, BM_MSG_END, "hold", NULL, 0);
    raw_put_end(&packet, 19, BM_END_ABORT, BEAM_CANCELLED);
    raw_put_open(&packet, 21, BM_MSG_END, "hold", NULL, 0);
    take_packet(c);
    raw_put_message(&packet, 11, BM_MSG_END, "z", 1);
    raw_put_goaway(&packet, 0, 0);
    take_packet(c);
}

static void free_all(struct conversation *c)
{
    for (unsigned i = 0; i < c->count; i++)
        free(c->packets[i].bytes);
}

static void send_part(const struct conversation *c, unsigned index, size_t len, unsigned fds,
                      int fd)
{
    raw_clear(&part);
    raw_put(&part, c->packets[index].bytes, len);
    for (unsigned i = 0; i < fds; i++)
        raw_add_fd(&part, fd);
    /* The server may have ended the session before. */
    (void)raw_try_send(&bad, &part, RAW_TIMEOUT_MS);
    raw_clear(&part);
}

static void finish(struct served *served)
{
    served_check(served);
    served_drop(served);
    served_check_clean(served);
    served_stop(served);
}

static int some_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    return fd;
}

TEST(a_peer_may_die_between_any_two_frames)
{
    struct served *served = served_start(NULL);
    struct conversation c = {0};
    int fd = some_fd();
    put_all(&c, fd);
    for (unsigned last = 0; last < c.count; last++) {
        struct bm_bytes rest = {c.packets[last].bytes, c.packets[last].bytes + c.packets[last].len};
        struct bm_frame frame;
        unsigned fds = 0;
        size_t at = 0;
        bool more = true;
        while (more) {
            test_note("dies after %zu bytes of packet %u", at, last);
            raw_connect(&bad, served->name);
            for (unsigned i = 0; i < last; i++)
                send_part(&c, i, c.packets[i].len, c.packets[i].fds, fd);
            if (at > 0)
                send_part(&c, last, at, fds, fd);
            raw_close(&bad);
            more = bm_frame_next(&rest, &frame) > 0;
            fds += more ? frame.fds : 0;
            at = (size_t)(rest.pos - c.packets[last].bytes);
        }
        served_check(served);
        served_drop(served);
    }
    free_all(&c);
    close(fd);
    finish(served);
}

TEST(a_peer_may_die_after_any_answer_it_has_read)
{
    struct served *served = served_start(NULL);
    struct conversation c = {0};
    int fd = some_fd();
    put_all(&c, fd);
    for (unsigned last = 1; last <= c.count; last++) {
        test_note("dies after packet %u", last);
        raw_connect(&bad, served->name);
        for (unsigned i = 0; i < last; i++) {
            send_part(&c, i, c.packets[i].len, c.packets[i].fds, fd);
            if (i + 1 < c.count)
                raw_sync(&bad);
        }
        raw_close(&bad);
        served_drop(served);
    }
    CHECK_UINT(atomic_load(&served->cancels) > 0, 1);
    free_all(&c);
    close(fd);
    finish(served);
}

TEST(a_packet_may_be_cut_at_any_byte)
{
    struct served *served = served_start(NULL);
    struct conversation c = {0};
    int fd = some_fd();
    put_all(&c, fd);
    for (unsigned last = 0; last < c.count; last++) {
        size_t len = c.packets[last].len;
        for (size_t at = 1; at < len; at += at < 256 || len - at < 64 ? 1 : 37) {
            struct bm_bytes rest = {c.packets[last].bytes, c.packets[last].bytes + at};
            struct bm_frame frame;
            unsigned fds = 0;
            int r;
            while ((r = bm_frame_next(&rest, &frame)) > 0)
                fds += frame.fds;
            test_note("packet %u cut at %zu of %zu", last, at, len);
            raw_connect(&bad, served->name);
            for (unsigned i = 0; i < last; i++)
                send_part(&c, i, c.packets[i].len, c.packets[i].fds, fd);
            send_part(&c, last, at, r < 0 ? c.packets[last].fds : fds, fd);
            if (r < 0) /* cut inside a frame; else it was between two */
                raw_expect_end(&bad);
            raw_close(&bad);
            served_drop(served);
        }
        served_check(served);
    }
    free_all(&c);
    close(fd);
    finish(served);
}

/* --- noise ----------------------------------------------------------------------------------- */

/* Mostly plausible, so that it gets past the first checks. */
static void put_noise(struct test_random *random)
{
    static const uint8_t kinds[] = {1, 2, 2, 2, 2, 2, 3, 3, 4, 4, 5, 6, 7, 128, 200};
    unsigned frames = 1 + (unsigned)test_random_below(random, 4);
    for (unsigned i = 0; i < frames; i++) {
        uint8_t header[16] = {0};
        uint8_t payload[128];
        uint32_t len = (uint32_t)test_random_below(random, 96);
        if (test_random_below(random, 8) == 0) {
            test_random_fill(random, payload, sizeof(payload));
            raw_put(&packet, payload, test_random_below(random, sizeof(payload)) + 1);
            continue;
        }
        bm_put_u64(header, test_random_below(random, 12));
        header[12] = kinds[test_random_below(random, sizeof(kinds))];
        header[13] = (uint8_t)(test_random_below(random, 4) ? test_random_below(random, 16) : 0);
        header[14] = (uint8_t)(test_random_below(random, 8) ? 0 : test_random_below(random, 4));
        header[15] = (uint8_t)(test_random_below(random, 8) ? 0 : test_random_below(random, 4));
        if (header[12] == 4 || header[12] == 5)
            len = 8;
        if (header[12] == 6)
            len = 16;
        if (header[12] == 3 && test_random_below(random, 2))
            len = 8;
        memset(payload, 0, sizeof(payload));
        if (test_random_below(random, 2))
            for (unsigned k = 0; k < len; k += 4)
                payload[k] = (uint8_t)test_random_below(random, 24);
        else
            test_random_fill(random, payload, len);
        bm_put_u32(header + 8, len);
        raw_put(&packet, header, sizeof(header));
        raw_put(&packet, payload, (len + 7) & ~7u);
    }
}

static void be_noisy(bool after_hello)
{
    struct served *served = served_start(NULL);
    struct test_random random = test_random(0);
    int fd = some_fd();
    bool open = false;
    for (unsigned i = 0; i < GARBAGE_PACKETS / 2; i++) {
        if (!open) {
            raw_connect(&bad, served->name);
            if (after_hello) {
                raw_clear(&packet);
                raw_put_hello(&packet, true);
                raw_send(&bad, &packet);
                static const char *const names[] = {"talk", "deaf", "hold"};
                for (unsigned k = 0; k < 3; k++)
                    raw_put_open(&packet, 1 + 2 * k, 0, names[k], NULL, 0);
                (void)raw_try_send(&bad, &packet, RAW_TIMEOUT_MS);
            }
            open = true;
        }
        raw_clear(&packet);
        put_noise(&random);
        if (test_random_below(&random, 4) == 0)
            for (unsigned k = (unsigned)test_random_below(&random, 4); k > 0; k--)
                raw_add_fd(&packet, fd);
        int r = raw_try_send(&bad, &packet, RAW_TIMEOUT_MS);
        if (r < 0 || test_random_below(&random, 16) == 0) {
            raw_close(&bad);
            open = false;
        }
        if (i % 1000 == 999) {
            served_check(served);
            served_drop(served);
        }
    }
    if (open)
        raw_close(&bad);
    close(fd);
    finish(served);
}

TEST(random_packets_instead_of_hello_leave_nothing)
{
    be_noisy(false);
}

TEST(random_packets_behind_hello_leave_nothing)
{
    be_noisy(true);
}

/* --- stale frames ---------------------------------------------------------------------------- */

/* M7: a service of conversations is sent an event, which nothing will ever follow on its channel. */
TEST(an_event_for_a_service_of_conversations_leaves_nothing)
{
    struct served *served = served_start(NULL);
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (uint64_t id = 1; id < 20; id += 2) {
        raw_put_open(&packet, id, BM_MSG_ONEWAY, "talk", "x", 1);
        raw_put_message(&packet, id, 0, "y", 1);
        raw_put_end(&packet, id, id % 4 == 1 ? BM_END_ABORT : 0, 0);
    }
    raw_send(&bad, &packet);
    raw_sync(&bad);
    raw_close(&bad);
    finish(served);
}

/* M3, C2 */
TEST(frames_for_a_channel_that_is_gone_are_dropped)
{
    struct served *served = served_start(NULL);
    int fd = some_fd();
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    raw_put_open(&packet, 1, BM_MSG_END, "echo", NULL, 0);
    raw_put_open(&packet, 3, 0, "nobody", NULL, 0);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 3));
    for (uint64_t id = 1; id <= 3; id += 2) {
        raw_put_message(&packet, id, 0, "late", 4);
        raw_put_bytes(&packet, id, BM_MSG_MORE, "late", 4);
        raw_put_end(&packet, id, 0, 0);
        raw_put_end(&packet, id, BM_END_ABORT, 1);
        raw_put_credit(&packet, id, UINT64_MAX);
        raw_send(&bad, &packet);
    }
    raw_sync(&bad);
    CHECK(raw_echo(&bad, 5, "on", 2));
    raw_close(&bad);
    close(fd);
    finish(served);
}

TEST(fds_of_a_stale_frame_are_closed_and_their_credit_returns)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.fds_max = 4, .name = "served"));
    int fd = some_fd();
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    raw_put_open(&packet, 1, 0, "nobody", NULL, 0);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    uint64_t credit = 4;
    for (unsigned i = 0; i < 50; i++) {
        struct bm_message_head head = {.body = NULL};
        while (credit < 2) {
            REQUIRE(raw_find(&bad, BM_FRAME_CREDIT, 0));
            if (bad.frame.channel == 0)
                credit += bm_frame_parse_u64(&bad.frame);
        }
        raw_put_head(&packet, 1, 0, 2, &head, NULL);
        raw_add_fd(&packet, fd);
        raw_add_fd(&packet, fd);
        raw_send(&bad, &packet);
        credit -= 2;
    }
    CHECK(raw_echo(&bad, 3, "on", 2));
    raw_close(&bad);
    close(fd);
    finish(served);
}

TEST(channels_attached_to_a_stale_frame_are_answered_with_abort_cancelled)
{
    struct served *served = served_start(NULL);
    struct bm_attached attached[2] = {{.id = 5, .mode = BM_MODE_MESSAGES},
                                      {.id = 7, .mode = BM_MODE_BYTES}};
    struct bm_message_head head = {.attached = 2};
    int fd = some_fd();
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    raw_put_open(&packet, 1, 0, "nobody", NULL, 0);
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    raw_put_head(&packet, 1, 0, 1, &head, attached);
    raw_add_fd(&packet, fd);
    raw_put_message(&packet, 5, 0, "x", 1);
    raw_put_bytes(&packet, 7, 0, "x", 1);
    raw_send(&bad, &packet);
    for (uint64_t id = 5; id <= 7; id += 2) {
        REQUIRE(raw_find(&bad, BM_FRAME_END, id));
        CHECK_INT(bad.frame.flags, BM_END_ABORT);
        CHECK_INT(raw_end_code(&bad), BEAM_CANCELLED);
    }
    CHECK(raw_echo(&bad, 9, "on", 2));
    raw_close(&bad);
    close(fd);
    finish(served);
}

TEST(a_refused_large_message_is_dropped_to_its_last_frame)
{
    static uint8_t body[60000];
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.message_len_max = 100000, .name = "served"));
    struct bm_message_head head = {.open = true,
                                   .name = {"echo", 4},
                                   .large = true,
                                   .body_total = 180000,
                                   .body = body,
                                   .body_len = sizeof(body)};
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    raw_put_head(&packet, 1, BM_MSG_OPEN | BM_MSG_MORE, 0, &head, NULL);
    raw_send(&bad, &packet);
    raw_put_bytes(&packet, 1, BM_MSG_MORE, body, sizeof(body));
    raw_send(&bad, &packet);
    raw_put_bytes(&packet, 1, BM_MSG_END, body, sizeof(body));
    raw_send(&bad, &packet);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 1));
    CHECK_INT(raw_end_code(&bad), BEAM_RESOURCE_EXHAUSTED);
    CHECK_UINT(atomic_load(&served->echoes), 0);
    CHECK(raw_echo(&bad, 3, "on", 2));
    raw_close(&bad);
    finish(served);
}

TEST(announced_lengths_that_no_budget_covers_are_refused_without_memory)
{
    static uint8_t body[1000];
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.limits.message_len_max = 1u << 20,
                                           .limits.large_len_max = 3u << 20, .name = "served"));
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    for (unsigned i = 0; i < 5; i++) {
        struct bm_message_head head = {.open = true,
                                       .name = {"echo", 4},
                                       .large = true,
                                       .body_total = 1u << 20,
                                       .body = body,
                                       .body_len = sizeof(body)};
        raw_put_head(&packet, 1 + 2 * i, BM_MSG_OPEN | BM_MSG_MORE, 0, &head, NULL);
    }
    raw_send(&bad, &packet);
    for (uint64_t id = 7; id <= 9; id += 2) { /* the first three fill the budget */
        REQUIRE(raw_find(&bad, BM_FRAME_END, id));
        CHECK_INT(raw_end_code(&bad), BEAM_RESOURCE_EXHAUSTED);
    }
    for (uint64_t id = 1; id <= 5; id += 2)
        raw_put_end(&packet, id, BM_END_ABORT, BEAM_CANCELLED);
    raw_send(&bad, &packet);
    CHECK(raw_echo(&bad, 11, "on", 2));
    raw_close(&bad);
    finish(served);
}
