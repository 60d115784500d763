/* The ring between two threads. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

#include "tests/support/test.h"
#include "uring/spsc.h"

static struct bm_spsc ring;

#define NEAR_THE_END (UINT32_MAX - 7) /* indices wrap after eight slots */

TEST(spsc_of_nothing_is_empty_whatever_it_starts_at)
{
    static const uint32_t starts[] = {0, 1, 1023, 1024, NEAR_THE_END, UINT32_MAX, 1u << 31};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        test_note("start %u", starts[i]);
        bm_spsc_init(&ring, starts[i]);
        CHECK_PTR(bm_spsc_peek(&ring), NULL);
        CHECK_UINT(bm_spsc_room(&ring, 1), BM_SPSC_SLOTS);
    }
}

TEST(spsc_reserved_slot_is_invisible_until_published)
{
    bm_spsc_init(&ring, NEAR_THE_END);
    struct bm_spsc_slot *slot = bm_spsc_reserve(&ring);
    REQUIRE(slot != NULL);
    slot->word[0] = 42;
    CHECK_PTR(bm_spsc_peek(&ring), NULL);
    bm_spsc_publish(&ring, slot);
    CHECK_PTR(bm_spsc_peek(&ring), slot);
    CHECK_PTR(bm_spsc_peek(&ring), slot);
    bm_spsc_consume(&ring);
    CHECK_PTR(bm_spsc_peek(&ring), NULL);
}

TEST(spsc_full_ring_refuses_and_takes_again_after_the_head_was_published)
{
    bm_spsc_init(&ring, NEAR_THE_END);
    for (uint32_t lap = 0; lap < 3; lap++) {
        for (uint32_t i = 0; i < BM_SPSC_SLOTS; i++) {
            struct bm_spsc_slot *slot = bm_spsc_reserve(&ring);
            REQUIRE(slot != NULL);
            slot->word[0] = lap * BM_SPSC_SLOTS + i;
            bm_spsc_publish(&ring, slot);
        }
        CHECK_PTR(bm_spsc_reserve(&ring), NULL);
        CHECK_UINT(bm_spsc_room(&ring, 1), 0);
        for (uint32_t i = 0; i < BM_SPSC_SLOTS; i++) {
            struct bm_spsc_slot *slot = bm_spsc_peek(&ring);
            REQUIRE(slot != NULL);
            CHECK_UINT(slot->word[0], lap * BM_SPSC_SLOTS + i);
            bm_spsc_consume(&ring);
        }
        CHECK_PTR(bm_spsc_peek(&ring), NULL);
        bm_spsc_publish_head(&ring);
        CHECK_UINT(bm_spsc_room(&ring, BM_SPSC_SLOTS), BM_SPSC_SLOTS);
    }
}

TEST(spsc_head_is_published_now_and_then_without_asking)
{
    bm_spsc_init(&ring, NEAR_THE_END);
    for (uint32_t i = 0; i < BM_SPSC_SLOTS; i++)
        bm_spsc_publish(&ring, bm_spsc_reserve(&ring));
    for (uint32_t i = 0; i + 1 < BM_SPSC_HEAD_EVERY; i++)
        bm_spsc_consume(&ring);
    CHECK_PTR(bm_spsc_reserve(&ring), NULL);
    bm_spsc_consume(&ring);
    CHECK(bm_spsc_reserve(&ring) != NULL);
}

#define MESSAGES 2000000u

static void *produce(void *arg)
{
    (void)arg;
    struct test_random random = test_random(1);
    for (uint32_t sent = 0; sent < MESSAGES;) {
        uint32_t burst = (uint32_t)test_random_below(&random, 100) + 1;
        for (; burst > 0 && sent < MESSAGES; burst--) {
            struct bm_spsc_slot *slot = bm_spsc_reserve(&ring);
            if (!slot) {
                sched_yield();
                break;
            }
            for (int i = 0; i < 7; i++)
                slot->word[i] = sent * 7 + (uint32_t)i;
            slot->len = (uint16_t)sent;
            bm_spsc_publish(&ring, slot);
            sent++;
        }
    }
    return NULL;
}

TEST(spsc_two_threads_lose_tear_and_reorder_nothing)
{
    bm_spsc_init(&ring, NEAR_THE_END);
    pthread_t producer;
    REQUIRE_INT(pthread_create(&producer, NULL, produce, NULL), 0);
    uint32_t wrong = 0;
    for (uint32_t got = 0; got < MESSAGES;) {
        struct bm_spsc_slot *slot = bm_spsc_peek(&ring);
        if (!slot) {
            bm_spsc_publish_head(&ring);
            sched_yield();
            continue;
        }
        for (int i = 0; i < 7; i++)
            wrong += slot->word[i] != got * 7 + (uint32_t)i;
        wrong += slot->len != (uint16_t)got;
        bm_spsc_consume(&ring);
        got++;
    }
    pthread_join(producer, NULL);
    CHECK_UINT(wrong, 0);
    CHECK_PTR(bm_spsc_peek(&ring), NULL);
}

/* --- as the runtime uses it: slots filled in elsewhere, copies taken, room asked for beforehand ----- */

enum { TURNS_MESSAGES = 60000 };

static struct bm_spsc_slot made(uint32_t number)
{
    struct bm_spsc_slot slot = {
        .kind = (uint8_t)number, .flags = (uint8_t)(number >> 8), .len = (uint16_t)(number >> 3)};
    for (unsigned i = 0; i < 7; i++)
        slot.word[i] = (uint64_t)number * 0x9e3779b97f4a7c15u + i;
    return slot;
}

static bool is_made(const struct bm_spsc_slot *slot, uint32_t number)
{
    struct bm_spsc_slot right = made(number);
    bool same = slot->kind == right.kind && slot->flags == right.flags && slot->len == right.len;
    for (unsigned i = 0; i < 7; i++)
        same = same && slot->word[i] == right.word[i];
    return same;
}

static void *put_by_turns(void *arg)
{
    struct test_random *random = arg;
    for (uint32_t sent = 0; sent < TURNS_MESSAGES;) {
        uint32_t wanted = (uint32_t)test_random_below(random, 200) + 1;
        uint32_t room = bm_spsc_room(&ring, wanted);
        CHECK(room <= BM_SPSC_SLOTS);
        for (uint32_t i = 0; i < wanted && i < room && sent < TURNS_MESSAGES; i++) {
            struct bm_spsc_slot from = made(sent++);
            struct bm_spsc_slot *slot = bm_spsc_reserve(&ring);
            if (!slot) {
                CHECK(slot != NULL); /* there was room */
                return NULL;
            }
            bm_spsc_put(&ring, slot, &from);
        }
        if (room < wanted || test_random_below(random, 16) == 0)
            sched_yield();
    }
    return NULL;
}

TEST(spsc_two_threads_put_and_take_by_turns_from_any_start)
{
    static const uint32_t starts[] = {0, NEAR_THE_END, UINT32_MAX, 0u - BM_SPSC_SLOTS,
                                      (1u << 31) - 8};
    for (size_t s = 0; s < sizeof(starts) / sizeof(starts[0]); s++) {
        struct test_random random = test_random(s + 1), producers = test_random(s + 100);
        pthread_t producer;
        uint32_t wrong = 0;
        test_note("start %u", starts[s]);
        bm_spsc_init(&ring, starts[s]);
        REQUIRE_INT(pthread_create(&producer, NULL, put_by_turns, &producers), 0);
        for (uint32_t got = 0; got < TURNS_MESSAGES;) {
            struct bm_spsc_slot slot;
            uint32_t budget = (uint32_t)test_random_below(&random, 100) + 1;
            uint32_t n = 0;
            for (; n < budget && bm_spsc_take(&ring, &slot); n++) {
                wrong += !is_made(&slot, got++);
                bm_spsc_consume(&ring);
            }
            if (n < budget)
                bm_spsc_publish_head(&ring);
            if (n < budget || test_random_below(&random, 16) == 0)
                sched_yield();
        }
        pthread_join(producer, NULL);
        CHECK_UINT(wrong, 0);
        CHECK_PTR(bm_spsc_peek(&ring), NULL);
        CHECK_UINT(ring.tail - starts[s], TURNS_MESSAGES);
    }
}
