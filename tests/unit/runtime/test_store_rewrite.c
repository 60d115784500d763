/* The parts that a store hands out when its file is rewritten (store_log.c). */
#include <stdio.h>

#include "runtime/store.h"
#include "tests/unit/runtime/on_core.h"

#define KEYS 100000u
#define LOOKED_MAX 65536u /* keys that one part may look at, as of store_log.c */

static void on_done(int error, uint64_t rev, void *arg)
{
    CHECK_INT(error, 0);
    ++*(unsigned *)arg;
}

/* "a00000" and so on are set, or removed; "z" is set. */
static void commit(beam_store *store, bool removed, unsigned *done)
{
    beam_buffer buffer;
    beam_kv_writer w;
    beam_kv_value root;
    const void *document;
    size_t len;
    beam_buffer_init(&buffer, 16 << 20);
    beam_kv_writer_init_buffer(&w, &buffer);
    if (removed)
        beam_kv_begin_list(&w, NULL);
    else
        beam_kv_begin_map(&w, NULL);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[16];
        snprintf(key, sizeof(key), "a%05u", i);
        if (removed)
            beam_kv_put_str(&w, NULL, key);
        else
            beam_kv_put_int(&w, key, i);
    }
    if (!removed)
        beam_kv_put_int(&w, "z", 1);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    REQUIRE_INT(beam_kv_root(document, len, &root), 0);
    REQUIRE_INT(beam_store_commit(store,
                                  &BEAM_STORE_TXN(.set = removed ? NULL : &root,
                                                  .remove = removed ? &root : NULL),
                                  on_done, done),
                0);
    beam_buffer_deinit(&buffer);
}

static void await(const unsigned *count, unsigned wanted)
{
    while (*count < wanted)
        CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
}

/* Keys whose deletion waits for the disk are still in the map. A part looks at so many of them and no
 * more, and may be empty; the file is right all the same. */
TEST(rewriting_passes_over_keys_that_go_in_parts)
{
    static char path[512];
    beam_store *store;
    unsigned commits = 0, compactions = 0, parts = 0;
    const void *entries;
    size_t len, found = 0;
    uint64_t rev;
    snprintf(path, sizeof(path), "%s/store.kv", test_tmpdir());
    struct beam_store_options options =
        BEAM_STORE_OPTIONS(.path = path, .txn_len_max = 16 << 20, .compact_len_min = UINT64_MAX);
    core_begin();
    REQUIRE_INT(beam_store_open(on_core_runtime, &options, &store), 0);
    commit(store, false, &commits);
    await(&commits, 1);
    commit(store, true, &commits);
    REQUIRE_INT(beam_store_compact(store, on_done, &compactions), 0);
    /* Before the log does: as if it asked. */
    while (store->source.next(&store->source, 256 << 10, &entries, &len, &rev) > 0) {
        parts++;
        found += len > 0;
        CHECK(parts <= KEYS / LOOKED_MAX + 2);
    }
    CHECK(parts >= KEYS / LOOKED_MAX + 1);
    CHECK_UINT(found, 1); /* "z" */
    bm_tree_cursor_reset(&store->compact_at, &store->account);
    await(&commits, 2);
    await(&compactions, 1);
    core_end();

    struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
    CHECK_INT(beam_store_read_file(path, NULL, NULL, &info), 0);
    CHECK_UINT(info.keys, 1);
    CHECK_UINT(info.rev, 2);
    CHECK_INT(info.verdict, 0);
}
