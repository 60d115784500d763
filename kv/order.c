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
 * "where it belongs" are found by walking, which is linear in the run. As soon as one of the two runs
 * fits a room on the stack, it is put there, and what is left is one pass over both: without that, maps of
 * a million keys would take four times as long.
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

/* What is merged, and exchanged, through the stack. Ours: of reactors' threads and of those of programs. */
#define ROOM_LEN ((size_t)16 << 10)

#ifndef ORDER_COUNT
#define ORDER_COUNT(n) ((void)0) /* a test counts comparisons and steps */
#endif

static inline int compare(const uint8_t *a, const uint8_t *b)
{
    ORDER_COUNT(1);
    struct bm_entry x = bm_entry_at(a), y = bm_entry_at(b);
    return bm_key_compare(bm_entry_key(&x), x.key_len, bm_entry_key(&y), y.key_len);
}

static uint8_t *skip(uint8_t *p, size_t count)
{
    ORDER_COUNT(count);
    for (; count > 0; count--)
        p += bm_entry_at(p).len;
    return p;
}

/* The same of two entries whose prefixes are known, which mostly decide. */
static inline bool is_less(uint64_t prefix_a, const uint8_t *a, uint64_t prefix_b, const uint8_t *b)
{
    ORDER_COUNT(1);
    return prefix_a < prefix_b || (prefix_a == prefix_b && compare(a, b) < 0);
}

static inline uint64_t prefix_at(const uint8_t *p)
{
    struct bm_entry e = bm_entry_at(p);
    return bm_entry_prefix(&e);
}

/* [a..m) and [m..b) change places. */
static void exchange(uint8_t *a, uint8_t *m, uint8_t *b, uint8_t *room)
{
    ORDER_COUNT((size_t)(b - a) / 8);
    while (a < m && m < b) {
        size_t left = (size_t)(m - a), right = (size_t)(b - m);
        if (left <= right && left <= ROOM_LEN) {
            memcpy(room, a, left);
            memmove(a, m, right);
            memcpy(b - left, room, left);
            return;
        }
        if (right <= ROOM_LEN) {
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

/* Entries are words: short ones are moved faster than a call takes. */
static inline uint8_t *move_entry(uint8_t *to, const uint8_t *from, size_t len)
{
    if (len > 64) {
        memmove(to, from, len);
        return to + len;
    }
    for (size_t i = 0; i < len; i += 8)
        bm_put_u64(to + i, bm_get_u64(from + i));
    return to + len;
}

/* Two sorted runs into one that begins at `to`: x in the room, and y, which ends where the result does, at
 * least as far behind `to` as x is long. So what is written never reaches what is still to be read. Equal
 * entries stay in their order, with x in front of y or behind it. */
static void merge_room(uint8_t *to, const uint8_t *x, const uint8_t *x_end, const uint8_t *y,
                       const uint8_t *y_end, bool x_first)
{
    uint64_t x_prefix = prefix_at(x), y_prefix = prefix_at(y);
    for (;;) {
        bool take_y =
            x_first ? is_less(y_prefix, y, x_prefix, x) : !is_less(x_prefix, x, y_prefix, y);
        if (take_y) {
            size_t len = bm_entry_at(y).len;
            to = move_entry(to, y, len);
            y += len;
            if (y == y_end)
                break;
            y_prefix = prefix_at(y);
        } else {
            size_t len = bm_entry_at(x).len;
            to = move_entry(to, x, len);
            x += len;
            if (x == x_end)
                return; /* the rest of y lies where it belongs */
            x_prefix = prefix_at(x);
        }
    }
    memcpy(to, x, (size_t)(x_end - x));
}

/* Merges [a..m) and [m..b) if one of them fits the room. */
static bool merge_through_room(uint8_t *a, uint8_t *m, uint8_t *b, uint8_t *room)
{
    size_t left = (size_t)(m - a), right = (size_t)(b - m);
    if (left > ROOM_LEN && right > ROOM_LEN)
        return false;
    if (left <= ROOM_LEN) {
        memcpy(room, a, left);
        merge_room(a, room, room + left, m, b, true);
    } else {
        memcpy(room, m, right);
        memmove(a + right, a, left);
        merge_room(a, room, room + right, a + right, b, false);
    }
    return true;
}

/* [a..m) holds na sorted entries, [m..b) nb; afterwards [a..b) is sorted. */
static void merge(uint8_t *a, size_t na, uint8_t *m, size_t nb, uint8_t *b, uint8_t *room)
{
    while (na > 0 && nb > 0) {
        if (merge_through_room(a, m, b, room))
            return;
        uint8_t *x = a, *y = m; /* cuts: all before x and y is to come before all from x and y */
        size_t nx = 0, ny = 0;
        if (na >= nb) {
            nx = na / 2;
            x = skip(a, nx);
            uint64_t prefix = prefix_at(x);
            while (ny < nb && is_less(prefix_at(y), y, prefix, x)) {
                y = skip(y, 1);
                ny++;
            }
        } else {
            ny = nb / 2;
            y = skip(m, ny);
            uint64_t prefix = prefix_at(y);
            while (nx < na && !is_less(prefix, y, prefix_at(x), x)) {
                x = skip(x, 1);
                nx++;
            }
        }
        exchange(x, m, y, room);
        uint8_t *cut = x + (y - m);
        if (na == 1 && nb == 1)
            return;
        if (nx + ny <= (na - nx) + (nb - ny)) {
            merge(a, nx, x, ny, cut, room);
            a = cut;
            m = y;
            na -= nx;
            nb -= ny;
        } else {
            merge(cut, na - nx, y, nb - ny, b, room);
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

/* Sorts count >= 1 entries from a on. Returns their end, and in *ret_last the last of them, which is known
 * before the merge, because that is stable: of equal ones the last stays the last. */
static uint8_t *sort(uint8_t *a, size_t count, uint8_t *room, uint8_t **ret_last)
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
    uint8_t *m = sort(a, left, room, &last_left);
    uint8_t *b = sort(m, count - left, room, &last_right);
    if (compare(last_left, m) <= 0) {
        *ret_last = last_right;
        return b;
    }
    bool left_wins = compare(last_left, last_right) > 0;
    size_t last_len = bm_entry_at(left_wins ? last_left : last_right).len;
    merge(a, left, m, count - left, b, room);
    *ret_last = b - last_len;
    return b;
}

/* Apart, so that few entries do not need its stack. */
static __attribute__((__noinline__)) void sort_many(uint8_t *entries, size_t count)
{
    uint8_t room[ROOM_LEN], *last;
    sort(entries, count, room, &last);
}

int bm_entries_sort(uint8_t *entries, size_t len)
{
    uint8_t *end = entries + len, *last;
    size_t count = 0;
    for (const uint8_t *p = entries; p < end; p += bm_entry_at(p).len)
        count++;
    if (count < 2)
        return 0;

    if (!sort_run(entries, count, &last))
        sort_many(entries, count);
    const uint8_t *p = entries, *next;
    while ((next = p + bm_entry_at(p).len) < end) {
        if (compare(p, next) == 0)
            return -EEXIST;
        p = next;
    }
    return 0;
}
