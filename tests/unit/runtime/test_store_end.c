/* Stores of a reactor that ends without having been quiet: nothing is written any more, and each who
 * waits is told, once, while all that he may look at is still there. */
#include <stdio.h>

#include "runtime/store.h"
#include "tests/unit/runtime/on_core.h"

struct told {
    unsigned count;
    int error;
};

static struct {
    beam_store *store;
    struct told put, nothing, compacted, closed;
} own;

static void on_told(int error, uint64_t rev, void *arg)
{
    struct told *told = arg;
    told->count++;
    told->error = error;
}

static void open_store(bool in_file)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/store.kv", test_tmpdir());
    core_begin();
    memset(&own, 0, sizeof(own));
    REQUIRE_INT(beam_store_open(on_core_runtime, &BEAM_STORE_OPTIONS(.path = in_file ? path : NULL),
                                &own.store),
                0);
}

static void put(const char *key)
{
    beam_kv_value value = {.type = BEAM_KV_INT, .i = 1};
    CHECK_INT(beam_store_put(own.store, (beam_str){key, strlen(key)}, &value, on_told, &own.put),
              0);
}

enum { COMPACTS = 1, CLOSES = 2, SERVED = 4, WAYS = 8 };

static void begin_all(bool in_file, unsigned way)
{
    test_note("%s, way %u", in_file ? "a file" : "memory", way);
    open_store(in_file);
    if (way & SERVED)
        REQUIRE_INT(beam_store_serve(own.store, NULL), 0);
    put("a");
    CHECK_INT(beam_store_delete(own.store, (beam_str){"b", 1}, on_told, &own.nothing), 0);
    if (in_file && (way & COMPACTS))
        CHECK_INT(beam_store_compact(own.store, on_told, &own.compacted), 0);
    if (way & CLOSES)
        beam_store_close(own.store, on_told, &own.closed);
}

static void check_each_told_once(bool in_file, unsigned way)
{
    CHECK_UINT(own.put.count, 1);
    CHECK_UINT(own.nothing.count, 1);
    CHECK_UINT(own.compacted.count, in_file && (way & COMPACTS));
    CHECK_UINT(own.closed.count, (way & CLOSES) != 0);
}

/* Before anything that was begun has taken a step. */
TEST(store_that_is_freed_in_the_midst_tells_each_once)
{
    for (unsigned i = 0; i < 2 * WAYS; i++) {
        bool in_file = i % 2;
        unsigned way = i / 2;
        begin_all(in_file, way);
        bm_stores_free(bm_core_current());
        check_each_told_once(in_file, way);
        CHECK_INT(own.put.error, -ECANCELED);
        CHECK_INT(own.nothing.error, -ECANCELED);
        CHECK_INT(own.compacted.error, own.compacted.count ? -ECANCELED : 0);
        CHECK_INT(own.closed.error, own.closed.count ? -ECANCELED : 0);
        core_end();
    }
}

/* A reactor that is closed where it stands brings all that was begun to an end, whichever. */
TEST(store_of_a_reactor_that_is_closed_tells_each_once)
{
    for (unsigned i = 0; i < 2 * WAYS * 8; i++) {
        bool in_file = i % 2;
        unsigned way = i / 2 % WAYS;
        begin_all(in_file, way);
        for (unsigned n = i / 2 / WAYS; n > 0; n--)
            CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
        bm_core_current()->quiet = true; /* so that nothing is awaited */
        core_end();
        check_each_told_once(in_file, way);
    }
}
