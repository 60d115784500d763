#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/entry.h"
#include "kv/tree.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

/* The shadow: for each possible key its revision, 0: absent. Keys are of several lengths and share
 * long beginnings, so that prefixes alone decide little. */
#define KEYS 3000u

static size_t key_number(unsigned n, char *key)
{
    static const char *const fronts[] = {"", "a", "some/long/beginning/", "some/long/beginning\0"};
    size_t len = n % 4 == 3 ? 20 : strlen(fronts[n % 4]);
    memcpy(key, fronts[n % 4], len);
    return len + (size_t)sprintf(key + len, "%u", n);
}

struct shadow {
    uint64_t rev[KEYS];
    char key[KEYS][32];
    size_t key_len[KEYS];
    unsigned order[KEYS]; /* the numbers of the keys in their order */
    unsigned count;
};

static struct shadow *sorting;

static int compare_keys(const void *a, const void *b)
{
    unsigned i = *(const unsigned *)a, k = *(const unsigned *)b;
    return bm_key_compare(sorting->key[i], sorting->key_len[i], sorting->key[k],
                          sorting->key_len[k]);
}

static struct shadow *shadow_new(void)
{
    struct shadow *s = calloc(1, sizeof(*s));
    for (unsigned i = 0; i < KEYS; i++) {
        s->key_len[i] = key_number(i, s->key[i]);
        s->order[i] = i;
    }
    sorting = s;
    qsort(s->order, KEYS, sizeof(s->order[0]), compare_keys);
    return s;
}

/* The same keys with the same revisions in the same order, and nothing else. */
static void check_same(const struct shadow *s, const struct bm_tree *tree)
{
    struct bm_tree_iter iter = bm_tree_seek(tree, NULL, 0, false);
    unsigned wrong = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned n = s->order[i];
        if (s->rev[n] == 0)
            continue;
        struct bm_tree_entry *entry = bm_tree_next(&iter);
        if (!entry || entry->rev != s->rev[n])
            wrong++;
    }
    CHECK_UINT(wrong, 0);
    CHECK(bm_tree_next(&iter) == NULL);
    CHECK_UINT(tree->count, s->count);
    CHECK(bm_tree_valid(tree));
}

static int put(struct shadow *s, struct bm_tree *tree, struct bm_account *account, unsigned n,
               uint64_t rev)
{
    struct bm_tree_entry *old = NULL;
    struct bm_tree_entry *entry = bm_tree_entry_new(account, rev, BEAM_KV_STR, s->key[n],
                                                    s->key_len[n], s->key[n], s->key_len[n] / 2);
    if (!entry)
        return -ENOMEM;
    int r = bm_tree_put(tree, entry, &old);
    if (r < 0) {
        bm_tree_entry_free(account, entry);
        return r;
    }
    if (!old != (s->rev[n] == 0) || (old && old->rev != s->rev[n]))
        CHECK_STR("another", "the one that had the key");
    s->count += !old;
    s->rev[n] = rev;
    bm_tree_entry_free(account, old);
    return 0;
}

static void take(struct shadow *s, struct bm_tree *tree, struct bm_account *account, unsigned n)
{
    struct bm_tree_entry *old = bm_tree_take(tree, s->key[n], s->key_len[n]);
    if ((old ? old->rev : 0) != s->rev[n])
        CHECK_STR("another", "what was there");
    s->count -= old != NULL;
    s->rev[n] = 0;
    bm_tree_entry_free(account, old);
}

TEST(tree_is_as_its_shadow)
{
    struct test_random random = test_random(0);
    struct shadow *s = shadow_new();
    struct bm_account account = {0};
    struct bm_tree tree;
    bm_tree_init(&tree, &account);
    for (uint64_t rev = 1; rev <= 120000; rev++) {
        /* Long spells of growing and of shrinking, down to nothing now and then. */
        bool growing = (rev / 6000) % 2 == 0;
        unsigned n = (unsigned)test_random_below(&random, KEYS);
        if (test_random_below(&random, 10) < (growing ? 8u : 2u))
            put(s, &tree, &account, n, rev);
        else
            take(s, &tree, &account, n);
        struct bm_tree_entry *found = bm_tree_find(&tree, s->key[n], s->key_len[n]);
        if ((found ? found->rev : 0) != s->rev[n])
            CHECK_STR("another", "what was just put or taken");
        if (rev % 2000 == 0)
            check_same(s, &tree);
    }
    for (unsigned n = 0; n < KEYS; n++)
        take(s, &tree, &account, n);
    CHECK(tree.root == NULL);
    check_same(s, &tree);
    CHECK_UINT(account.used, 0);
    free(s);
}

TEST(tree_takes_runs_of_keys_in_either_direction)
{
    struct shadow *s = shadow_new();
    for (unsigned direction = 0; direction < 4; direction++) {
        struct bm_tree tree;
        bm_tree_init(&tree, NULL);
        for (unsigned i = 0; i < KEYS; i++)
            put(s, &tree, NULL, s->order[direction & 1 ? KEYS - 1 - i : i], i + 1);
        check_same(s, &tree);
        for (unsigned i = 0; i < KEYS; i++) {
            take(s, &tree, NULL, s->order[direction & 2 ? KEYS - 1 - i : i]);
            if (i % 100 == 0)
                check_same(s, &tree);
        }
        CHECK(tree.root == NULL);
    }
    free(s);
}

TEST(tree_of_ascending_keys_is_full)
{
    struct shadow *s = shadow_new();
    struct bm_account nodes = {0};
    struct bm_tree tree;
    bm_tree_init(&tree, &nodes);
    for (unsigned i = 0; i < KEYS; i++)
        put(s, &tree, NULL, s->order[i], 1);
    /* A prefix and a pointer for each entry, and some. */
    CHECK(nodes.used < KEYS * 18);
    bm_tree_clear(&tree, NULL);
    CHECK_UINT(nodes.used, 0);
    free(s);
}

TEST(tree_seeks_at_and_behind)
{
    struct shadow *s = shadow_new();
    struct bm_tree tree;
    bm_tree_init(&tree, NULL);
    struct bm_tree_iter iter = bm_tree_seek(&tree, "x", 1, false);
    CHECK(bm_tree_next(&iter) == NULL);
    CHECK(bm_tree_find(&tree, "x", 1) == NULL);
    CHECK(bm_tree_take(&tree, "x", 1) == NULL);
    for (unsigned i = 0; i < KEYS; i += 2)
        put(s, &tree, NULL, s->order[i], i + 1);
    unsigned wrong = 0;
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned n = s->order[i];
        for (unsigned behind = 0; behind < 2; behind++) {
            iter = bm_tree_seek(&tree, s->key[n], s->key_len[n], behind);
            struct bm_tree_entry *entry = bm_tree_next(&iter);
            unsigned next = i % 2 ? i + 1 : behind ? i + 2 : i;
            if (next < KEYS ? !entry || entry->rev != next + 1 : entry != NULL)
                wrong++;
        }
    }
    CHECK_UINT(wrong, 0);
    bm_tree_clear(&tree, NULL);
    free(s);
}

TEST(tree_cursor_survives_changes)
{
    struct test_random random = test_random(0);
    struct shadow *s = shadow_new();
    struct bm_tree tree;
    bm_tree_init(&tree, NULL);
    for (unsigned n = 0; n < KEYS; n++)
        put(s, &tree, NULL, n, 1);
    /* What is there all the time is met once, in order, whatever comes and goes around it. */
    struct bm_tree_cursor cursor = {0};
    unsigned steady = 0, last = 0;
    for (;;) {
        struct bm_tree_iter iter = bm_tree_cursor_resume(&tree, &cursor);
        struct bm_tree_entry *entry = bm_tree_next(&iter);
        if (!entry)
            break;
        REQUIRE_INT(bm_tree_cursor_save(&cursor, NULL, entry), 0);
        steady += entry->rev == 1;
        for (unsigned k = 0; k < 5; k++) {
            unsigned n = (unsigned)test_random_below(&random, KEYS / 4) * 4;
            if (test_random_below(&random, 2))
                take(s, &tree, NULL, n);
            else
                put(s, &tree, NULL, n, 2);
        }
    }
    for (unsigned n = 0; n < KEYS; n++)
        last += s->rev[n] == 1 && n % 4 != 0;
    CHECK_UINT(last, KEYS - KEYS / 4);
    CHECK(steady >= last);
    bm_tree_cursor_reset(&cursor, NULL);
    bm_tree_clear(&tree, NULL);
    free(s);
}

/* Each allocation of a run fails once: the tree is as it was, and goes on. */
TEST(tree_without_memory_is_as_it_was)
{
    struct shadow *s = shadow_new();
    struct bm_account account = {0};
    struct bm_tree tree;
    unsigned refused = 0;
    bm_tree_init(&tree, &account);
    for (unsigned i = 0; i < KEYS; i++) {
        unsigned n = s->order[i * 7919 % KEYS];
        for (int left = 0;; left++) {
            scarce_begin(left);
            int r = put(s, &tree, &account, n, i + 1);
            scarce_end();
            if (r == 0)
                break;
            refused++;
            CHECK_INT(r, -ENOMEM);
            if (left > 0 && !bm_tree_valid(&tree))
                CHECK_STR("another", "a tree in order");
        }
    }
    CHECK(refused > KEYS); /* a block each, and nodes */
    check_same(s, &tree);
    bm_tree_clear(&tree, &account);
    CHECK_UINT(account.used, 0);
    free(s);
}

TEST(tree_entries_are_whole)
{
    static const struct {
        uint8_t type;
        const char *key, *value;
    } rows[] = {
        {BEAM_KV_NIL, "", ""},         {BEAM_KV_NIL, "k", ""},
        {BEAM_KV_STR, "", "v"},        {BEAM_KV_STR, "key", "value"},
        {BEAM_KV_STR, "12345678", ""}, {BEAM_KV_BYTES, "1234", "5678"},
    };
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char room[256];
        beam_kv_writer w;
        const void *doc;
        size_t len;
        beam_kv_value value = {.type = (beam_kv_type)rows[i].type};
        value.bytes = (beam_bytes){rows[i].value, strlen(rows[i].value)};
        beam_kv_writer_init(&w, room, sizeof(room));
        beam_kv_begin_map(&w, NULL);
        beam_kv_put(&w, (beam_str){rows[i].key, strlen(rows[i].key)}, &value);
        beam_kv_end(&w);
        REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
        struct bm_tree_entry *entry =
            bm_tree_entry_new(NULL, 1, rows[i].type, rows[i].key, strlen(rows[i].key),
                              rows[i].value, strlen(rows[i].value));
        REQUIRE(entry != NULL);
        CHECK_MEM(entry->bytes, bm_entry_at(entry->bytes).len, (const char *)doc + 8, len - 8);
        struct bm_tree_entry *copy = bm_tree_entry_copy(NULL, 1, entry->bytes);
        REQUIRE(copy != NULL);
        CHECK_MEM(copy->bytes, bm_entry_at(copy->bytes).len, (const char *)doc + 8, len - 8);
        bm_tree_entry_free(NULL, copy);
        bm_tree_entry_free(NULL, entry);
    }
}
