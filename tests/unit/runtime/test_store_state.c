/* What a store holds, under changes that are done and undone: against a shadow, and without memory. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/store_state.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

#define KEYS 400u

/* 0: not there; else the revision that put it there. */
struct shadow {
    uint64_t rev[KEYS];
};

static beam_str key_of(unsigned n, char *room)
{
    return (beam_str){room, (size_t)sprintf(room, "key/%u", n)};
}

static unsigned keys_of(const struct shadow *shadow)
{
    unsigned n = 0;
    for (unsigned i = 0; i < KEYS; i++)
        n += shadow->rev[i] != 0;
    return n;
}

static unsigned wrong_keys(const struct bm_state *state, const struct shadow *shadow)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        char room[32];
        uint64_t rev = 0;
        beam_kv_value value;
        int r = bm_state_get(state, key_of(i, room), &value, &rev);
        wrong += r == 0 ? rev != shadow->rev[i] || value.i != (int64_t)rev
                        : shadow->rev[i] != 0 || r != -ENOENT;
    }
    return wrong;
}

/* What is walked is what is there, and nothing else. */
static unsigned walked_keys(const struct bm_state *state)
{
    unsigned n = 0;
    char last[32] = "";
    beam_str key = {NULL, 0};
    while (bm_state_next(state, (beam_str){"key/", 4}, key, &key, NULL, NULL) > 0) {
        key = (beam_str){last, (size_t)sprintf(last, "%.*s", BEAM_STR(key))};
        n++;
    }
    return n;
}

static void check_same(const struct bm_state *state, const struct shadow *shadow)
{
    CHECK_UINT(wrong_keys(state, shadow), 0);
    CHECK_UINT(bm_state_keys(state), keys_of(shadow));
    CHECK_UINT(walked_keys(state), keys_of(shadow));
    CHECK(bm_tree_valid(&state->tree));
}

/* A change set of `count` keys, a third of them deletions, and what becomes of the shadow. -ENOMEM. */
static int make(struct bm_changes *changes, struct bm_account *account, struct test_random *random,
                unsigned count, uint64_t rev, struct shadow *shadow)
{
    bool taken[KEYS] = {false};
    int r = 0;
    bm_changes_init(changes, account);
    while (r == 0 && count-- > 0) {
        unsigned n = (unsigned)test_random_below(random, KEYS);
        char room[32];
        if (taken[n])
            continue;
        taken[n] = true;
        bool del = test_random_below(random, 3) == 0;
        r = bm_changes_add(changes, rev, key_of(n, room), del ? BM_ENTRY_DEL : BEAM_KV_INT,
                           del ? NULL : &rev, del ? 0 : sizeof(rev));
        shadow->rev[n] = del ? 0 : rev;
    }
    return r == 0 ? bm_changes_sort(changes) : r;
}

/* Several are pending at a time; the first are done, or all are undone, the last first. */
TEST(store_state_is_as_its_shadow)
{
    enum { PENDING = 5 };
    struct test_random random = test_random(0);
    struct bm_account account = {0};
    struct bm_state state;
    struct bm_changes changes[PENDING];
    struct shadow before[PENDING], now = {{0}};
    uint64_t revs[PENDING], told = 0;
    unsigned count = 0, undone = 0;
    bm_state_init(&state, &account);
    for (uint64_t rev = 1; rev < 3000; rev++) {
        if (count == PENDING || (count > 0 && test_random_below(&random, 3) == 0)) {
            bm_changes_done(&changes[0], &state);
            told = revs[0];
            count--;
            memmove(changes, changes + 1, count * sizeof(changes[0]));
            memmove(before, before + 1, count * sizeof(before[0]));
            memmove(revs, revs + 1, count * sizeof(revs[0]));
        } else if (test_random_below(&random, 20) == 0) {
            while (count > 0) {
                count--;
                bm_changes_undo(&changes[count], &state, told);
                now = before[count];
                undone++;
            }
            check_same(&state, &now);
            CHECK_UINT(state.dead, 0);
        } else {
            before[count] = now;
            revs[count] = rev;
            REQUIRE_INT(make(&changes[count], &account, &random,
                             1 + (unsigned)test_random_below(&random, 40), rev, &now),
                        0);
            REQUIRE_INT(bm_changes_apply(&changes[count], &state), 0);
            count++;
        }
        if (rev % 50 == 0)
            check_same(&state, &now);
        /* With nothing pending, deletions are gone from the tree. */
        if (count == 0 && state.dead > 0)
            CHECK_UINT(state.dead, 0);
    }
    CHECK(undone > 50);
    for (unsigned i = 0; i < count; i++)
        bm_changes_done(&changes[i], &state);
    check_same(&state, &now);
    CHECK_UINT(state.dead, 0);
    CHECK_UINT(state.tree.count, keys_of(&now));
    bm_state_clear(&state);
    CHECK_UINT(account.used, 0);
}

/* Each allocation fails once, those of the tree too: the state is as it was. */
TEST(store_state_without_memory_is_as_it_was)
{
    struct bm_account account = {0};
    struct bm_state state;
    struct shadow now = {{0}};
    unsigned refused_in_apply = 0;
    bm_state_init(&state, &account);
    for (uint64_t rev = 1; rev < 40; rev++) {
        struct test_random random = test_random(rev);
        struct bm_changes changes;
        struct shadow after;
        for (int left = 0;; left++) {
            struct test_random again = random;
            after = now;
            scarce_begin(left);
            int r = make(&changes, &account, &again, 200, rev, &after);
            bool made = r == 0;
            if (made)
                r = bm_changes_apply(&changes, &state);
            scarce_end();
            if (r == 0)
                break;
            CHECK_INT(r, -ENOMEM);
            refused_in_apply += made;
            bm_changes_clear(&changes);
            if (made)
                check_same(&state, &now);
        }
        now = after;
        bm_changes_done(&changes, &state);
        check_same(&state, &now);
    }
    CHECK(refused_in_apply > 5);
    bm_state_clear(&state);
    CHECK_UINT(account.used, 0);
}

TEST(store_state_takes_a_key_once)
{
    struct bm_changes changes;
    uint64_t value = 1;
    bm_changes_init(&changes, NULL);
    CHECK_INT(bm_changes_add(&changes, 1, (beam_str){"b", 1}, BEAM_KV_INT, &value, 8), 0);
    CHECK_INT(bm_changes_add(&changes, 1, (beam_str){"a", 1}, BEAM_KV_INT, &value, 8), 0);
    CHECK_INT(bm_changes_sort(&changes), 0);
    CHECK_INT(bm_changes_add(&changes, 1, (beam_str){"a", 1}, BM_ENTRY_DEL, NULL, 0), 0);
    CHECK_INT(bm_changes_sort(&changes), -EEXIST);
    bm_changes_clear(&changes);
}
