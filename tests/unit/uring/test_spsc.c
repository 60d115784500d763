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
