/* Sorting entries of different lengths without memory of its own.
 *
 * Few and short entries, and those are most maps: their order is found by insertion, over the
 * beginnings of their keys, and they are written out in that order and copied back. Of many, runs are
 * sorted so and merged:
 *
 * a merge sort whose merge exchanges adjacent blocks: cut the longer of two sorted runs in the
 * middle, find where that key belongs in the other, swap the two inner pieces, and merge what then
 * is on the left and on the right (Dudzinski and Dydek, "On a stable minimum storage merging
 * algorithm", 1981). Entries cannot be indexed, since their lengths differ, so "the middle" and
 * "where it belongs" are found by walking, which is linear in the run.
 *
 * Recursion is bounded: the sort halves its count, and the merge recurses into the part with the
 * fewer entries and loops over the other, so neither goes deeper than log2 of the number of
 * entries (28 for the largest document). Nothing here looks at bytes from elsewhere. */
#include "kv/order.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "kv/entry.h"

/* What is sorted through the stack. */
#define RUN_COUNT 32
#define RUN_LEN 2048

/* One block of this size goes through the stack when blocks are exchanged; most entries fit. */
#define EXCHANGE_LEN 256

static inline int compare(const uint8_t *a, const uint8_t *b)
{
    struct bm_entry x = bm_entry_at(a), y = bm_entry_at(b);
    return bm_key_compare(bm_entry_key(&x), x.key_len, bm_entry_key(&y), y.key_len);
}

static uint8_t *skip(uint8_t *p, size_t count)
{
    for (; count > 0; count--)
        p += bm_entry_at(p).len;
    return p;
}

/* [a..m) and [m..b) change places. */
static void exchange(uint8_t *a, uint8_t *m, uint8_t *b)
{
    uint8_t room[EXCHANGE_LEN];
    while (a < m && m < b) {
        size_t left = (size_t)(m - a), right = (size_t)(b - m);
        if (left <= right && left <= sizeof(room)) {
            memcpy(room, a, left);
            memmove(a, m, right);
            memcpy(b - left, room, left);
            return;
        }
        if (right <= sizeof(room)) {
            memcpy(room, m, right);
            memmove(b - left, a, left);
            memcpy(a, room, right);
            return;
        }
        /* Swap the shorter block with as much of the other: one of the two is then in its place. */
        size_t step = left <= right ? left : right;
        for (size_t i = 0; i < step; i += 8) {
            uint64_t x = bm_get_u64(a + i), y = bm_get_u64(m + i);
            bm_put_u64(a + i, y);
            bm_put_u64(m + i, x);
        }
        a += step;
        if (left <= right)
            m += step;
    }
}

/* [a..m) holds na sorted entries, [m..b) nb; afterwards [a..b) is sorted. */
static void merge(uint8_t *a, size_t na, uint8_t *m, size_t nb, uint8_t *b)
{
    while (na > 0 && nb > 0) {
        uint8_t *x = a, *y = m; /* cuts: all before x and y is to come before all from x and y */
        size_t nx = 0, ny = 0;
        if (na >= nb) {
            nx = na / 2;
            x = skip(a, nx);
            while (ny < nb && compare(y, x) < 0) {
                y = skip(y, 1);
                ny++;
            }
        } else {
            ny = nb / 2;
            y = skip(m, ny);
            while (nx < na && compare(x, y) <= 0) {
                x = skip(x, 1);
                nx++;
            }
        }
        exchange(x, m, y);
        uint8_t *cut = x + (y - m);
        if (na == 1 && nb == 1)
            return;
        if (nx + ny <= (na - nx) + (nb - ny)) {
            merge(a, nx, x, ny, cut);
            a = cut;
            m = y;
            na -= nx;
            nb -= ny;
        } else {
            merge(cut, na - nx, y, nb - ny, b);
            m = x;
            b = cut;
            na = nx;
            nb = ny;
        }
    }
}

struct item {
    uint64_t prefix;
    uint8_t *entry;
    size_t len;
};

static inline bool comes_after(const struct item *a, const struct item *b)
{
    return a->prefix > b->prefix || (a->prefix == b->prefix && compare(a->entry, b->entry) > 0);
}

/* Sorts count >= 1 entries from a on, if they fit the stack; returns their end, and in *ret_last the
 * last of them. NULL: they do not, and nothing has changed. */
static uint8_t *sort_run(uint8_t *a, size_t count, uint8_t **ret_last)
{
    struct item items[RUN_COUNT];
    uint8_t room[RUN_LEN], *end = a, *to = room;
    size_t moved = 0;

    if (count > RUN_COUNT)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        struct bm_entry e = bm_entry_at(end);
        struct item item = {bm_entry_prefix(&e), end, e.len};
        if (e.len > RUN_LEN - (size_t)(end - a))
            return NULL;
        end += e.len;
        size_t at = i;
        for (; at > 0 && comes_after(&items[at - 1], &item); at--)
            items[at] = items[at - 1];
        items[at] = item;
        moved += i - at;
    }
    *ret_last = end - items[count - 1].len;
    if (moved == 0)
        return end;
    for (size_t i = 0; i < count; i++) {
        memcpy(to, items[i].entry, items[i].len);
        to += items[i].len;
    }
    memcpy(a, room, (size_t)(end - a));
    return end;
}

/* Sorts count >= 1 entries from a on. Returns their end, and in *ret_last the last of them. */
static uint8_t *sort(uint8_t *a, size_t count, uint8_t **ret_last)
{
    if (count == 1) {
        *ret_last = a;
        return a + bm_entry_at(a).len;
    }
    uint8_t *last_left, *last_right;
    uint8_t *end = sort_run(a, count, ret_last);
    if (end)
        return end;
    size_t left = count / 2;
    uint8_t *m = sort(a, left, &last_left);
    uint8_t *b = sort(m, count - left, &last_right);
    if (compare(last_left, m) <= 0) {
        *ret_last = last_right;
        return b;
    }
    bool left_wins = compare(last_left, last_right) > 0;
    size_t last_len = bm_entry_at(left_wins ? last_left : last_right).len;
    merge(a, left, m, count - left, b);
    *ret_last = b - last_len;
    return b;
}

int bm_entries_sort(uint8_t *entries, size_t len)
{
    uint8_t *end = entries + len, *last;
    size_t count = 0;
    for (const uint8_t *p = entries; p < end; p += bm_entry_at(p).len)
        count++;
    if (count < 2)
        return 0;

    sort(entries, count, &last);
    for (const uint8_t *p = entries; p < last;) {
        const uint8_t *next = p + bm_entry_at(p).len;
        if (compare(p, next) == 0)
            return -EEXIST;
        p = next;
    }
    return 0;
}
