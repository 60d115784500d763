/* See store_gone.h. A sorted array beside the ring, and no hash table: keys are chosen by peers, who could
 * see to it that all are in one chain. A search looks at eleven entries, whatever they are; a deletion
 * searches twice, and moves 2 KiB twice at most. Keys of the same digest are taken for one key, which
 * makes the answer later than it was. */
#include "runtime/store_gone.h"

#include <string.h>

#include "base/assert.h"

void bm_gone_init(struct bm_gone *gone, uint64_t rev)
{
    gone->count = gone->next = 0;
    gone->forgotten = rev;
    gone->compared = 0;
}

/* How many of the sorted are in front of this one, which need not be there. */
static uint32_t position(struct bm_gone *gone, struct bm_gone_key key, uint32_t place)
{
    uint32_t from = 0, to = gone->count;
    while (from < to) {
        uint32_t middle = (from + to) / 2, other_place = gone->sorted[middle];
        struct bm_gone_key other = gone->ring[other_place];
        bool before = other.digest != key.digest ? other.digest < key.digest
                      : other.rev != key.rev     ? other.rev < key.rev
                                                 : other_place < place;
        gone->compared++;
        if (before)
            from = middle + 1;
        else
            to = middle;
    }
    return from;
}

static void forget(struct bm_gone *gone, uint32_t place)
{
    uint32_t at = position(gone, gone->ring[place], place);
    bm_assert(gone->sorted[at] == place);
    gone->count--;
    memmove(&gone->sorted[at], &gone->sorted[at + 1], (gone->count - at) * sizeof(gone->sorted[0]));
    if (gone->ring[place].rev > gone->forgotten)
        gone->forgotten = gone->ring[place].rev;
}

void bm_gone_add(struct bm_gone *gone, beam_str key, uint64_t rev)
{
    uint32_t place = gone->next++ % BM_GONE_MAX;
    if (gone->count == BM_GONE_MAX)
        forget(gone, place);
    gone->ring[place] = (struct bm_gone_key){.digest = beam_xxh3(key.ptr, key.len), .rev = rev};
    uint32_t at = position(gone, gone->ring[place], place);
    memmove(&gone->sorted[at + 1], &gone->sorted[at], (gone->count - at) * sizeof(gone->sorted[0]));
    gone->sorted[at] = (uint16_t)place;
    gone->count++;
}

uint64_t bm_gone_find(struct bm_gone *gone, beam_str key)
{
    struct bm_gone_key last = {.digest = beam_xxh3(key.ptr, key.len), .rev = UINT64_MAX};
    uint32_t at = position(gone, last, BM_GONE_MAX);
    if (at == 0)
        return gone->forgotten;
    struct bm_gone_key found = gone->ring[gone->sorted[at - 1]];
    return found.digest == last.digest && found.rev > gone->forgotten ? found.rev : gone->forgotten;
}
