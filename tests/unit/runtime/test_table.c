/* The table against a list that remembers the same, and the corners of its one trick: removal that
 * shifts the run behind it back. */
#include "runtime/table.h"

#include <errno.h>
#include <string.h>

#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

static struct bm_account account;
static struct bm_table table;

static void open_table(void)
{
    account = (struct bm_account){0};
    bm_table_init(&table, &account);
}

static void close_table(void)
{
    bm_table_deinit(&table);
    CHECK_UINT(account.used, 0);
    CHECK_UINT(table.cap, 0);
    CHECK_PTR(bm_table_find(&table, 1), NULL);
}

static void *value_of(uint64_t id)
{
    return (void *)(uintptr_t)(id * 8 + 1);
}

static void insert(uint64_t id)
{
    bm_table_insert(&table, id, value_of(id));
}

/* Of the ids whose home is n % 64 in a table of 64, the one after n / 64 others: nth(n) and nth(n + 64)
 * share theirs. */
static uint64_t nth(uint64_t n)
{
    uint64_t id = 0;
    if (n == 0)
        return 0;
    for (uint64_t lap = 0; lap <= n / 64; lap++)
        do
            id++;
        while (bm_table_home(id, 64) != n % 64);
    return id;
}

/* Every entry is reached from its home without an empty slot in between, and stands there once. */
static void check_valid(void)
{
    uint32_t count = 0;
    CHECK(table.cap == 0 || (table.cap & (table.cap - 1)) == 0);
    CHECK(2 * (uint64_t)table.count <= table.cap);
    CHECK_UINT(account.used, (uint64_t)table.cap * sizeof(table.slots[0]));
    for (uint32_t i = 0; i < table.cap; i++) {
        uint64_t id = table.slots[i].id;
        if (id == 0)
            continue;
        count++;
        CHECK_PTR(table.slots[i].value, value_of(id));
        for (uint32_t k = bm_table_home(id, table.cap); k != i; k = (k + 1) & (table.cap - 1)) {
            CHECK(table.slots[k].id != 0);
            CHECK(table.slots[k].id != id);
        }
    }
    CHECK_UINT(table.count, count);
}

TEST(table_without_entries_finds_and_removes_nothing)
{
    open_table();
    CHECK_PTR(bm_table_find(&table, 5), NULL);
    bm_table_remove(&table, 5);
    CHECK_UINT(account.used, 0); /* and costs nothing */
    REQUIRE_INT(bm_table_reserve(&table, 1), 0);
    CHECK_UINT(table.cap, BM_TABLE_CAP_MIN);
    CHECK_PTR(bm_table_find(&table, 5), NULL);
    bm_table_remove(&table, 5);
    insert(nth(5));
    bm_table_remove(&table, nth(69)); /* the same home */
    CHECK_PTR(bm_table_find(&table, nth(69)), NULL);
    CHECK_PTR(bm_table_find(&table, nth(5)), value_of(nth(5)));
    CHECK_UINT(table.count, 1);
    close_table();
}

TEST(table_finds_ids_that_share_a_home_and_ids_that_fill_64_bits)
{
    const uint64_t ids[] = {nth(1),          nth(65),    nth(129),   UINT64_MAX,
                            UINT64_MAX - 64, 1ull << 63, 1ull << 32, nth(64)};
    open_table();
    REQUIRE_INT(bm_table_reserve(&table, 8), 0);
    for (int i = 0; i < 8; i++)
        insert(ids[i]);
    check_valid();
    for (int i = 0; i < 8; i++)
        CHECK_PTR(bm_table_find(&table, ids[i]), value_of(ids[i]));
    CHECK_PTR(bm_table_find(&table, nth(193)), NULL);
    CHECK_PTR(bm_table_find(&table, nth(2)), NULL);
    close_table();
}

static void check_slots(const uint64_t (*expected)[2], size_t len)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < len; i++) {
        test_note("slot %llu", (unsigned long long)expected[i][0]);
        CHECK_UINT(table.slots[expected[i][0]].id, nth(expected[i][1]));
        seen += expected[i][1] != 0;
    }
    CHECK_UINT(table.count, seen);
    check_valid();
}

TEST(table_removal_shifts_a_run_back_around_the_end)
{
    open_table();
    REQUIRE_INT(bm_table_reserve(&table, 1), 0);
    /* Homes: 62; 63, 63, 63; 0; 2, which is pushed to 3 behind the others. */
    insert(nth(62));
    insert(nth(63));
    insert(nth(127));
    insert(nth(191));
    insert(nth(64));
    insert(nth(2 + 64));
    check_slots((const uint64_t[][2]){{62, 62}, {63, 63}, {0, 127}, {1, 191}, {2, 64}, {3, 66}}, 6);
    bm_table_remove(&table, nth(63));
    check_slots((const uint64_t[][2]){{62, 62}, {63, 127}, {0, 191}, {1, 64}, {2, 66}, {3, 0}}, 6);
    bm_table_remove(&table, nth(62)); /* nobody behind it may move in front of its home */
    check_slots((const uint64_t[][2]){{62, 0}, {63, 127}, {0, 191}, {1, 64}, {2, 66}}, 5);
    bm_table_remove(&table, nth(127));
    check_slots((const uint64_t[][2]){{63, 191}, {0, 64}, {1, 0}, {2, 66}}, 4);
    bm_table_remove(&table, nth(64));
    check_slots((const uint64_t[][2]){{63, 191}, {0, 0}, {2, 66}}, 3);
    close_table();
}

TEST(table_removal_skips_who_is_at_home_and_moves_who_is_behind_it)
{
    open_table();
    REQUIRE_INT(bm_table_reserve(&table, 1), 0);
    insert(nth(10));
    insert(nth(11)); /* at home */
    insert(nth(74)); /* home 10, behind 11 */
    insert(nth(12)); /* home 12, pushed to 13 */
    check_slots((const uint64_t[][2]){{10, 10}, {11, 11}, {12, 74}, {13, 12}}, 4);
    bm_table_remove(&table, nth(10));
    check_slots((const uint64_t[][2]){{10, 74}, {11, 11}, {12, 12}, {13, 0}}, 4);
    close_table();
}

TEST(table_grows_and_keeps_all_it_has)
{
    open_table();
    for (uint64_t id = 1; id <= 5000; id++) {
        REQUIRE_INT(bm_table_reserve(&table, 1), 0);
        insert(id * 2 - 1);
    }
    check_valid();
    CHECK_UINT(table.cap, 16384);
    for (uint64_t id = 1; id <= 5000; id++)
        CHECK_PTR(bm_table_find(&table, id * 2 - 1), value_of(id * 2 - 1));
    CHECK_PTR(bm_table_find(&table, 2), NULL);
    close_table();
}

TEST(table_reserve_is_enough_for_all_it_was_asked_for)
{
    open_table();
    REQUIRE_INT(bm_table_reserve(&table, 1000), 0);
    uint64_t allocs = account.allocs;
    REQUIRE_INT(bm_table_reserve(&table, 1000), 0); /* asked again: nothing more */
    for (uint64_t id = 1; id <= 1000; id++)
        insert(id);
    CHECK_UINT(account.allocs, allocs);
    check_valid();
    close_table();
}

TEST(table_that_cannot_grow_stays_as_it_was)
{
    open_table();
    REQUIRE_INT(bm_table_reserve(&table, 32), 0);
    for (uint64_t id = 1; id <= 32; id++)
        insert(id);
    account.limit = account.used;
    CHECK_INT(bm_table_reserve(&table, 1), -ENOMEM);
    CHECK_UINT(table.cap, 64);
    CHECK_UINT(table.count, 32);
    for (uint64_t id = 1; id <= 32; id++)
        CHECK_PTR(bm_table_find(&table, id), value_of(id));
    bm_table_remove(&table, 7);
    CHECK_INT(bm_table_reserve(&table, 1), 0); /* there is room again */
    insert(33);
    check_valid();
    account.limit = 0;
    scarce_begin(0);
    CHECK_INT(bm_table_reserve(&table, UINT32_MAX), -ENOMEM);
    scarce_end();
    CHECK_INT(scarce_asked, 0);
    close_table();
}

/* Channels come and go: ids ascend, some live long. The model is a list of the living. */
TEST(table_does_what_a_list_does_for_a_hundred_thousand_random_steps)
{
    enum { LIVING_MAX = 400 };
    static uint64_t living[LIVING_MAX];
    struct test_random random = test_random(0);
    uint64_t next = 1;
    unsigned count = 0;
    open_table();
    for (int step = 0; step < 100000; step++) {
        uint64_t what = test_random_below(&random, 5);
        unsigned aim = step / 10000 % 2 ? 20 : LIVING_MAX; /* the crowd swells and thins */
        if (what < 4 && count < LIVING_MAX && (count < aim || what == 0)) {
            /* Sometimes a leap that lands on a home already taken. */
            next += test_random_below(&random, 10) ? 2 : 64 * test_random_below(&random, 3) + 64;
            living[count++] = next;
            REQUIRE_INT(bm_table_reserve(&table, 1), 0);
            insert(next);
        } else if (count > 0) {
            unsigned i = (unsigned)test_random_below(&random, count);
            bm_table_remove(&table, living[i]);
            CHECK_PTR(bm_table_find(&table, living[i]), NULL);
            living[i] = living[--count];
        }
        CHECK_UINT(table.count, count);
        if (count > 0) {
            uint64_t id = living[test_random_below(&random, count)];
            CHECK_PTR(bm_table_find(&table, id), value_of(id));
        }
        CHECK_PTR(bm_table_find(&table, next + 1 + test_random_below(&random, 200)), NULL);
        if (step % 500 == 0)
            check_valid();
    }
    for (unsigned i = 0; i < count; i++)
        CHECK_PTR(bm_table_find(&table, living[i]), value_of(living[i]));
    check_valid();
    CHECK(table.cap <= 1024); /* it stayed as large as the crowd ever was */
    while (count > 0)
        bm_table_remove(&table, living[--count]);
    for (uint32_t i = 0; i < table.cap; i++)
        CHECK_UINT(table.slots[i].id, 0);
    close_table();
}

TEST(table_spreads_ids_with_gaps_of_any_width)
{
    enum { IDS = 1000 };
    for (unsigned shift = 1; shift < 50; shift++) {
        uint32_t farthest = 0;
        test_note("gaps of 2^%u", shift);
        open_table();
        REQUIRE_INT(bm_table_reserve(&table, IDS), 0);
        for (uint64_t i = 0; i < IDS; i++)
            insert(1 + (i << shift));
        for (uint32_t i = 0; i < table.cap; i++) {
            uint32_t way = (i - bm_table_home(table.slots[i].id, table.cap)) & (table.cap - 1);
            if (table.slots[i].id != 0 && way > farthest)
                farthest = way;
        }
        CHECK(farthest < 64);
        close_table();
    }
}
