/* A ring from one thread to one other: slots of one cache line with the sequence number inside.
 *
 * A message costs one line transfer: the producer writes a slot and publishes it by storing
 * sequence = index + 1 in that same line; the consumer spins on that word. There is no shared tail,
 * and the head is published only every BM_SPSC_HEAD_EVERY slots; the producer looks at it only when
 * its cached copy says "full".
 *
 * Indices have 32 bits and wrap; tests start them at 2^32 - 8. */
#ifndef BM_SPSC_H
#define BM_SPSC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/cleanup.h"

#define BM_SPSC_SLOTS 1024u /* a power of two: 64 KiB a ring, the L1 of one core and its peer's */
#define BM_SPSC_HEAD_EVERY 64u /* slots between two publications of the head */

struct bm_spsc_slot {
    _Atomic uint32_t seq; /* release by the producer; acquire by the consumer */
    uint8_t kind;
    uint8_t flags;
    uint16_t len;
    uint64_t word[7]; /* 56 bytes for the message */
};

_Static_assert(sizeof(struct bm_spsc_slot) == 64, "a slot is one cache line");

struct bm_spsc {
    /* The producer's line. */
    _Alignas(64) uint32_t tail; /* next slot to fill */
    uint32_t head_cached;
    /* The consumer's line. */
    _Alignas(64) uint32_t head; /* next slot to read */
    uint32_t head_published;
    /* Written by the consumer, rarely; read by the producer, rarely. */
    _Alignas(64) _Atomic uint32_t head_shared; /* release: consumer; acquire: producer */
    _Alignas(64) struct bm_spsc_slot slots[BM_SPSC_SLOTS];
};

static inline void bm_spsc_init(struct bm_spsc *ring, uint32_t start)
{
    ring->tail = ring->head_cached = start;
    ring->head = ring->head_published = start;
    atomic_store_explicit(&ring->head_shared, start, memory_order_relaxed);
    /* Any value that does not say "filled" to a consumer in its first lap. */
    for (uint32_t i = 0; i < BM_SPSC_SLOTS; i++)
        atomic_store_explicit(&ring->slots[(start + i) % BM_SPSC_SLOTS].seq, start + i,
                              memory_order_relaxed);
}

/* Producer: the slot to fill, or NULL when the ring is full. Nothing is visible until publish. */
static inline struct bm_spsc_slot *bm_spsc_reserve(struct bm_spsc *ring)
{
    if (BM_UNLIKELY(ring->tail - ring->head_cached == BM_SPSC_SLOTS)) {
        ring->head_cached = atomic_load_explicit(&ring->head_shared, memory_order_acquire);
        if (ring->tail - ring->head_cached == BM_SPSC_SLOTS)
            return NULL;
    }
    return &ring->slots[ring->tail % BM_SPSC_SLOTS];
}

/* Producer: how many slots can be reserved now; exact when below `wanted`, else perhaps more. */
static inline uint32_t bm_spsc_room(struct bm_spsc *ring, uint32_t wanted)
{
    uint32_t room = BM_SPSC_SLOTS - (ring->tail - ring->head_cached);
    if (room < wanted) {
        ring->head_cached = atomic_load_explicit(&ring->head_shared, memory_order_acquire);
        room = BM_SPSC_SLOTS - (ring->tail - ring->head_cached);
    }
    return room;
}

static inline void bm_spsc_publish(struct bm_spsc *ring, struct bm_spsc_slot *slot)
{
    atomic_store_explicit(&slot->seq, ++ring->tail, memory_order_release);
}

/* All but the sequence number; volatile, or the compiler would join the words. */
static inline void bm_spsc_copy_words(struct bm_spsc_slot *to, const struct bm_spsc_slot *from)
{
    const volatile uint64_t *words = from->word;
    for (unsigned i = 0; i < BM_ARRAY_LEN(from->word); i++)
        to->word[i] = words[i];
    to->kind = from->kind;
    to->flags = from->flags;
    to->len = from->len;
}

/* Producer: writes a slot that was filled in elsewhere, and publishes it. The consumer polls this very
 * line: whoever writes it piecemeal loses it in between and pays for the transfer twice, so the stores
 * stand back to back (a round trip between two cores: 650 ns before, 470 ns after).
 *
 * It is copied word by word, here and in bm_spsc_take(): a load of two words that were just stored one by
 * one cannot be forwarded from those stores, and waits until they are in the cache, behind all lines
 * that the other core still holds. */
static inline void bm_spsc_put(struct bm_spsc *ring, struct bm_spsc_slot *slot,
                               const struct bm_spsc_slot *from)
{
    bm_spsc_copy_words(slot, from);
    bm_spsc_publish(ring, slot);
}

/* Consumer: the next slot, or NULL. The slot stays ours until bm_spsc_consume(). */
static inline struct bm_spsc_slot *bm_spsc_peek(struct bm_spsc *ring)
{
    struct bm_spsc_slot *slot = &ring->slots[ring->head % BM_SPSC_SLOTS];
    return atomic_load_explicit(&slot->seq, memory_order_acquire) == ring->head + 1 ? slot : NULL;
}

/* Consumer: a copy of the next slot; false: there is none. The slot is the producer's again after
 * bm_spsc_consume(). */
static inline bool bm_spsc_take(struct bm_spsc *ring, struct bm_spsc_slot *ret)
{
    const struct bm_spsc_slot *slot = bm_spsc_peek(ring);
    if (!slot)
        return false;
    bm_spsc_copy_words(ret, slot);
    return true;
}

static inline void bm_spsc_publish_head(struct bm_spsc *ring)
{
    if (ring->head_published != ring->head) {
        ring->head_published = ring->head;
        atomic_store_explicit(&ring->head_shared, ring->head, memory_order_release);
    }
}

static inline void bm_spsc_consume(struct bm_spsc *ring)
{
    ring->head++;
    if (BM_UNLIKELY(ring->head - ring->head_published >= BM_SPSC_HEAD_EVERY))
        bm_spsc_publish_head(ring);
}

#endif
