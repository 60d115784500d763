/* The bare ring: the data structure Beam's ring transport stands on, driven by hand, carrying
 * what Beam carries in the same form.
 *
 * Two forms. Inline: up to 40 bytes copied into the slot and out of it. Pointer: the slot holds
 * the address of a message of a head line and body lines; the sender writes both, the receiver
 * reads both, and the message comes back: in a round trip as the answer itself, one way seven to
 * a slot on the ring in the other direction, to a stack of free ones.
 *
 * No sleeping, no closing, no metadata, no flow control but the ring's own end. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/contenders.h"
#include "bench/thread.h"
#include "uring/spsc.h"

#define INLINE_MAX 40u      /* what Beam puts into a slot */
#define POOL_MESSAGES 4096u /* more than two full rings: never the limit */
#define BODY_MAX 256u       /* copies are whole blocks and start at 8 */
#define HOME_BATCH 7u       /* pointers to a slot: 56 bytes */
#define RATE_PAUSES 200u    /* 3 us, about 200 slots; measured: 100 to 800 are alike */

enum slot_kind { SLOT_INLINE = 1, SLOT_POINTER, SLOT_HOME, SLOT_STOP };

struct message {
    _Alignas(64) uint64_t len; /* the head: its line is written and read with each message */
    uint64_t codec;
    _Alignas(64) unsigned char body[BODY_MAX];
};

struct pair {
    struct bm_spsc there, back;
    struct bench_run *run;
    struct message **free; /* a stack beside the messages, whose lines the other core may hold */
    unsigned free_count;
    _Alignas(64) unsigned char here_buf[BODY_MAX]; /* what was received, on either side */
    _Alignas(64) unsigned char there_buf[BODY_MAX];
};

/* How long to look away from a dry ring. A reader at the writer's heels takes each line away while it
 * is being written: letting the writer get ahead doubles the rate. Set before there is a thread. */
static unsigned dry_pauses;

static inline struct bm_spsc_slot *reserve(struct bm_spsc *ring)
{
    struct bm_spsc_slot *slot;
    while ((slot = bm_spsc_reserve(ring)) == NULL)
        ;
    return slot;
}

static inline struct bm_spsc_slot *await(struct bm_spsc *ring)
{
    struct bm_spsc_slot *slot = bm_spsc_peek(ring);
    if (slot != NULL)
        return slot;
    /* Dry: the producer may be waiting for room it does not know of. */
    bm_spsc_publish_head(ring);
    while ((slot = bm_spsc_peek(ring)) == NULL)
        for (unsigned i = 0; i < dry_pauses; i++)
            bench_pause();
    return slot;
}

/* Copies whole blocks of a constant size: a call of memcpy costs as much as the transfer of a
 * line. The buffers are long enough. */
static inline void copy_lines(void *to, const void *from, uint64_t len)
{
    for (uint64_t i = 0; i < len; i += 64)
        memcpy((char *)to + i, (const char *)from + i, 64);
}

static inline void put_inline(struct bm_spsc *ring, uint64_t sequence, const unsigned char *body,
                              unsigned len)
{
    struct bm_spsc_slot *slot = reserve(ring);
    slot->kind = SLOT_INLINE;
    slot->len = (uint16_t)len;
    slot->word[0] = sequence;
    memcpy(&slot->word[1], body + 8, INLINE_MAX - 8);
    bm_spsc_publish(ring, slot);
}

static inline void put_pointer(struct bm_spsc *ring, struct message *message)
{
    struct bm_spsc_slot *slot = reserve(ring);
    slot->kind = SLOT_POINTER;
    slot->word[0] = (uint64_t)(uintptr_t)message;
    bm_spsc_publish(ring, slot);
}

static void put_stop(struct bm_spsc *ring)
{
    struct bm_spsc_slot *slot = reserve(ring);
    slot->kind = SLOT_STOP;
    bm_spsc_publish(ring, slot);
}

static inline struct message *slot_message(const struct bm_spsc_slot *slot, unsigned i)
{
    return (struct message *)(uintptr_t)slot->word[i];
}

/* The sequence number comes in a register. Had it just been stored into the body, a wide load of
 * the body could not be forwarded from that store and would wait for every store before it,
 * lines that the other core holds among them: 50 ns a message. */
static inline struct message *message_fill(struct message *message, uint64_t sequence,
                                           const unsigned char *body, unsigned len)
{
    message->len = len;
    message->codec = 0;
    copy_lines(message->body, body, len);
    memcpy(message->body, &sequence, sizeof(sequence));
    return message;
}

static inline uint64_t body_sequence(const void *body)
{
    uint64_t sequence;
    memcpy(&sequence, body, sizeof(sequence));
    return sequence;
}

static int wrong_sequence(struct bench_run *run, uint64_t expected, const void *body)
{
    return bench_fail(run, "expected message %llu, got %llu", (unsigned long long)expected,
                      (unsigned long long)body_sequence(body));
}

static struct pair *pair_new(struct bench_run *run)
{
    struct pair *pair = aligned_alloc(64, sizeof(*pair));
    struct message *pool = aligned_alloc(64, POOL_MESSAGES * sizeof(*pool));
    if (pair == NULL || pool == NULL) {
        bench_fail(run, "no memory");
        return NULL;
    }
    memset(pair, 0, sizeof(*pair));
    memset(pool, 0, POOL_MESSAGES * sizeof(*pool));
    pair->free = calloc(POOL_MESSAGES, sizeof(*pair->free));
    if (pair->free == NULL) {
        bench_fail(run, "no memory");
        return NULL;
    }
    bm_spsc_init(&pair->there, 0);
    bm_spsc_init(&pair->back, 0);
    pair->run = run;
    for (unsigned i = 0; i < POOL_MESSAGES; i++)
        pair->free[pair->free_count++] = &pool[i];
    return pair;
}

static inline struct message *pool_take(struct pair *pair)
{
    return pair->free[--pair->free_count];
}

static inline void pool_give(struct pair *pair, struct message *message)
{
    pair->free[pair->free_count++] = message;
}

/* Round trips, and windows of them: answers each message in kind, in order. */
static void *answer(void *arg)
{
    struct pair *pair = arg;
    uint64_t expected = 0;
    for (;;) {
        struct bm_spsc_slot *slot = await(&pair->there);
        if (slot->kind == SLOT_STOP)
            return NULL;
        unsigned char *buf = pair->there_buf;
        if (slot->kind == SLOT_INLINE) {
            unsigned len = slot->len;
            memcpy(buf, slot->word, INLINE_MAX);
            bm_spsc_consume(&pair->there);
            put_inline(&pair->back, body_sequence(buf), buf, len);
        } else {
            struct message *message = slot_message(slot, 0);
            bm_spsc_consume(&pair->there);
            copy_lines(buf, message->body, message->len);
            put_pointer(&pair->back, message);
        }
        if (body_sequence(buf) != expected++) {
            wrong_sequence(pair->run, expected - 1, buf);
            return NULL;
        }
    }
}

static inline void send_one(struct pair *pair, const unsigned char *body, unsigned size,
                            uint64_t sequence)
{
    if (size <= INLINE_MAX)
        put_inline(&pair->there, sequence, body, size);
    else
        put_pointer(&pair->there, message_fill(pool_take(pair), sequence, body, size));
}

/* Takes the answer that is there, out of its slot or message. */
static inline void receive_one(struct pair *pair, struct bm_spsc_slot *slot)
{
    if (slot->kind == SLOT_INLINE) {
        memcpy(pair->here_buf, slot->word, INLINE_MAX);
        bm_spsc_consume(&pair->back);
        return;
    }
    struct message *message = slot_message(slot, 0);
    bm_spsc_consume(&pair->back);
    copy_lines(pair->here_buf, message->body, message->len);
    pool_give(pair, message);
}

int ring_bare_rtt(struct bench_run *run)
{
    struct pair *pair = pair_new(run);
    pthread_t thread;
    if (pair == NULL || bench_thread_start(run, &thread, answer, pair) < 0)
        return -1;
    const unsigned char body[BODY_MAX] = {0};
    uint64_t sequence = 0, start, now;
    bench_start(run);
    do {
        start = bench_ticks();
        send_one(pair, body, run->row->size, sequence);
        receive_one(pair, await(&pair->back));
        now = bench_ticks();
        if (body_sequence(pair->here_buf) != sequence)
            return wrong_sequence(run, sequence, pair->here_buf);
        sequence++;
    } while (bench_lap(run, now, now - start));
    put_stop(&pair->there);
    pthread_join(thread, NULL);
    return 0;
}

/* The same in step with the cache protocol: with just the right pauses, and nothing at all done at
 * either end, a round trip takes half as long (260 of 580 ns). 50 ns of work at one end and it is
 * gone: a limit, and no reference for a program. */
int ring_tuned_rtt(struct bench_run *run)
{
    dry_pauses = bench_spin_pauses;
    return ring_bare_rtt(run);
}

#define WINDOW_MAX 1024u /* a ring's slots */

int ring_bare_window(struct bench_run *run)
{
    dry_pauses = bench_spin_pauses;
    struct pair *pair = pair_new(run);
    pthread_t thread;
    if (pair == NULL || bench_thread_start(run, &thread, answer, pair) < 0)
        return -1;
    static uint64_t start[WINDOW_MAX];
    const unsigned char body[BODY_MAX] = {0};
    unsigned depth = run->row->depth;
    uint64_t sent = 0, received = 0, now;
    bench_start(run);
    for (; sent < depth; sent++) {
        start[sent % WINDOW_MAX] = bench_ticks();
        send_one(pair, body, run->row->size, sent);
    }
    for (;;) {
        receive_one(pair, await(&pair->back));
        if (body_sequence(pair->here_buf) != received)
            return wrong_sequence(run, received, pair->here_buf);
        now = bench_ticks();
        bool more = bench_lap(run, now, now - start[received % WINDOW_MAX]);
        received++;
        if (!more)
            break;
        start[sent % WINDOW_MAX] = now;
        send_one(pair, body, run->row->size, sent++);
    }
    for (; received < sent; received++)
        receive_one(pair, await(&pair->back));
    put_stop(&pair->there);
    pthread_join(thread, NULL);
    return 0;
}

/* One way: reads what comes, and sends pooled messages home in batches. */
static void *swallow(void *arg)
{
    struct pair *pair = arg;
    uint64_t expected = 0;
    struct message *home[HOME_BATCH];
    unsigned home_count = 0;
    for (;;) {
        struct bm_spsc_slot *slot = await(&pair->there);
        if (slot->kind == SLOT_STOP)
            return NULL;
        unsigned char *buf = pair->there_buf;
        if (slot->kind == SLOT_INLINE) {
            memcpy(buf, slot->word, INLINE_MAX);
            bm_spsc_consume(&pair->there);
        } else {
            struct message *message = slot_message(slot, 0);
            bm_spsc_consume(&pair->there);
            copy_lines(buf, message->body, message->len);
            home[home_count++] = message;
            if (home_count == HOME_BATCH) {
                slot = reserve(&pair->back);
                slot->kind = SLOT_HOME;
                for (unsigned i = 0; i < HOME_BATCH; i++)
                    slot->word[i] = (uint64_t)(uintptr_t)home[i];
                bm_spsc_publish(&pair->back, slot);
                home_count = 0;
            }
        }
        if (body_sequence(buf) != expected++) {
            wrong_sequence(pair->run, expected - 1, buf);
            return NULL;
        }
    }
}

static inline void take_home(struct pair *pair)
{
    struct bm_spsc_slot *slot;
    while ((slot = bm_spsc_peek(&pair->back)) != NULL) {
        for (unsigned i = 0; i < HOME_BATCH; i++)
            pool_give(pair, slot_message(slot, i));
        bm_spsc_consume(&pair->back);
    }
    bm_spsc_publish_head(&pair->back);
}

#define RATE_BATCH 64u /* messages between two looks at the clock */

int ring_bare_rate(struct bench_run *run)
{
    dry_pauses = RATE_PAUSES;
    struct pair *pair = pair_new(run);
    pthread_t thread;
    if (pair == NULL || bench_thread_start(run, &thread, swallow, pair) < 0)
        return -1;
    const unsigned char body[BODY_MAX] = {0};
    uint64_t sequence = 0;
    bool pooled = run->row->size > INLINE_MAX;
    bench_start(run);
    do {
        for (unsigned i = 0; i < RATE_BATCH; i++) {
            while (pooled && pair->free_count == 0)
                take_home(pair);
            send_one(pair, body, run->row->size, sequence++);
        }
        if (pooled)
            take_home(pair);
    } while (bench_count(run, RATE_BATCH));
    put_stop(&pair->there);
    pthread_join(thread, NULL);
    return 0;
}
