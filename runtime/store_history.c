/* See store_history.h. The place of a delta is its revision modulo the size of the ring, so that
 * finding one is no search, and growing only moves each to its place. */
#include "runtime/store_history.h"

#include <errno.h>

#include "base/assert.h"

#define CAP_MIN 64u
#define CAP_MAX (1u << 26) /* ours: 1 GiB of pointers; deltas of nothing but a short key */

void bm_history_init(struct bm_history *history, struct bm_account *account, size_t len_max,
                     uint64_t rev)
{
    *history = (struct bm_history){.account = account, .len_max = len_max, .first = rev + 1};
}

static void drop_oldest(struct bm_history *history)
{
    struct bm_delta *oldest = &history->ring[history->first & (history->cap - 1)];
    history->len -= oldest->len;
    bm_free(history->account, oldest->document, oldest->len);
    history->first++;
    history->count--;
}

void bm_history_clear(struct bm_history *history)
{
    while (history->count > 0)
        drop_oldest(history);
    bm_free(history->account, history->ring, history->cap * sizeof(*history->ring));
    history->ring = NULL;
    history->cap = 0;
}

int bm_history_reserve(struct bm_history *history, uint32_t more)
{
    uint64_t need = (uint64_t)history->count + more;
    uint64_t cap = history->cap ? history->cap : CAP_MIN;
    while (cap < need)
        cap *= 2;
    if (cap == history->cap)
        return 0;
    struct bm_delta *ring = cap <= CAP_MAX ? bm_alloc(history->account, cap * sizeof(*ring)) : NULL;
    if (!ring)
        return -ENOMEM;
    for (uint64_t rev = history->first; rev < history->first + history->count; rev++)
        ring[rev & (cap - 1)] = history->ring[rev & (history->cap - 1)];
    bm_free(history->account, history->ring, history->cap * sizeof(*ring));
    history->ring = ring;
    history->cap = (uint32_t)cap;
    return 0;
}

void bm_history_push(struct bm_history *history, struct bm_delta delta)
{
    bm_assert(history->count < history->cap);
    history->ring[(history->first + history->count) & (history->cap - 1)] = delta;
    history->count++;
    history->len += delta.len;
    while (history->len > history->len_max && history->count > 1)
        drop_oldest(history);
}
