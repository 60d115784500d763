/* Stores with a file: what is there after the end, in order or not, and rewriting it while serving. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/kept.h"

static void start(enum beam_store_sync sync)
{
    kept_share();
    flow_start(NULL);
    kept_open(&BEAM_STORE_OPTIONS(.sync = sync), "store.kv");
}

static void reopen(enum beam_store_sync sync, const char *name)
{
    kept_open(&BEAM_STORE_OPTIONS(.sync = sync), name);
}

/* The file as it is now, under another name: what a crash would leave of it, without the crash. */
static void copy(const char *to_name)
{
    char to[512];
    static uint8_t room[1 << 16];
    snprintf(to, sizeof(to), "%s/%s", test_tmpdir(), to_name);
    int in = open(kept->path, O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(in >= 0 && out >= 0);
    ssize_t n;
    while ((n = read(in, room, sizeof(room))) > 0)
        REQUIRE_INT(write(out, room, (size_t)n), n);
    CHECK_INT(n, 0);
    close(in);
    close(out);
}

FLOW_TEST(a_clean_end_keeps_data_revisions_and_epoch)
{
    for (unsigned sync = BEAM_STORE_SYNC_EACH; sync <= BEAM_STORE_SYNC_NONE; sync++) {
        if (sync == BEAM_STORE_SYNC_EACH)
            start(sync);
        else
            reopen(sync, sync == BEAM_STORE_SYNC_BATCH ? "batch.kv" : "none.kv");
        test_note("sync %u", sync);
        uint64_t epoch = kept->info.epoch;
        CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
        CHECK_ASK("kv.put", "{'key':'b','value':{'x':[1]}}", "{'epoch':'EPOCH','rev':2}");
        CHECK_ASK("kv.txn", "{'set':{'c':3},'delete':['a']}", "{'epoch':'EPOCH','rev':3}");
        kept_close();
        reopen(sync, strrchr(kept->path, '/') + 1);
        CHECK_UINT(kept->info.epoch, epoch);
        CHECK_ASK("kv.scan", "{}",
                  "{'entries':{'b':{'x':[1]},'c':3},'epoch':'EPOCH','more':false,'now':3}");
        CHECK_ASK("kv.get", "{'key':'b'}", "{'epoch':'EPOCH','now':3,'rev':2,'value':{'x':[1]}}");
        CHECK_ASK("kv.put", "{'key':'a','value':2}", "{'epoch':'EPOCH','rev':4}");
        kept_close();
    }
    reopen(BEAM_STORE_SYNC_EACH, "store.kv");
}

/* EACH: what was told is there, in the same epoch, and who followed goes on. */
FLOW_TEST(an_unclean_end_keeps_the_epoch_if_each_was_durable)
{
    struct kept_watch *watch = flow_share(sizeof(*watch));
    start(BEAM_STORE_SYNC_EACH);
    uint64_t epoch = kept->info.epoch;
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.put", "{'key':'b','value':2}", "{'epoch':'EPOCH','rev':2}");
    copy("copy.kv");
    kept_close();
    reopen(BEAM_STORE_SYNC_EACH, "copy.kv");
    CHECK_UINT(kept->info.epoch, epoch);
    CHECK_ASK("kv.scan", "{}", "{'entries':{'a':1,'b':2},'epoch':'EPOCH','more':false,'now':2}");
    char text[128];
    snprintf(text, sizeof(text), "{'epoch':'%016llx','rev':1}", (unsigned long long)epoch);
    watch->rev = 1;
    kept_watch(watch, text);
    FLOW_WAIT(watch->rev == 2);
    CHECK_UINT(watch->snaps, 0);
    CHECK_STR(watch->lines[1], "{'kind':'delta','rev':2,'set':{'b':2}}");
    kept_watch_end(watch);
}

FLOW_TEST(an_unclean_end_begins_an_epoch_if_told_early)
{
    struct kept_watch *watch = flow_share(sizeof(*watch));
    start(BEAM_STORE_SYNC_BATCH);
    uint64_t epoch = kept->info.epoch;
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.put", "{'key':'b','value':2}", "{'epoch':'EPOCH','rev':2}");
    copy("copy.kv");
    kept_close();
    reopen(BEAM_STORE_SYNC_BATCH, "copy.kv");
    CHECK(kept->info.epoch != epoch);
    CHECK_ASK("kv.scan", "{}", "{'entries':{'a':1,'b':2},'epoch':'EPOCH','more':false,'now':2}");
    char text[128];
    snprintf(text, sizeof(text), "{'epoch':'%016llx','rev':2}", (unsigned long long)epoch);
    kept_watch(watch, text);
    FLOW_WAIT(watch->lives == 1);
    CHECK_UINT(watch->snaps, 1);
    kept_watch_end(watch);
    CHECK_ASK("kv.put", "{'key':'a','value':2}", "{'epoch':'EPOCH','rev':3}");
}

/* The runtime stops with a store that nobody closed. */
FLOW_TEST_UNIX(a_stop_closes_a_store)
{
    struct stat before, after;
    start(BEAM_STORE_SYNC_BATCH);
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    uint64_t epoch = kept->info.epoch;
    char path[256];
    snprintf(path, sizeof(path), "%s", kept->path);
    flow_stop();
    REQUIRE_INT(stat(path, &before), 0);
    /* The same file, by another runtime, which is told that the end was clean. */
    beam_runtime *runtime = NULL;
    beam_store *store = NULL;
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &runtime), 0);
    CHECK_INT(beam_store_open(runtime, &BEAM_STORE_OPTIONS(.path = path), &store), 0);
    struct beam_store_info info = BEAM_STORE_INFO();
    if (store)
        CHECK_INT(beam_store_info(store, &info), 0);
    CHECK_UINT(info.epoch, epoch);
    CHECK_UINT(info.rev, 1);
    beam_runtime_free(runtime);
    CHECK_INT(stat(path, &after), 0);
    CHECK_UINT(before.st_ino, after.st_ino);
}

static void at_open_twice(beam_request *request, void *arg)
{
    beam_store *store = NULL;
    CHECK_INT(beam_store_open(flow_runtime_here(), &BEAM_STORE_OPTIONS(.path = kept->path), &store),
              -BEAM_EKV_LOCKED);
    char path[512];
    snprintf(path, sizeof(path), "%s/no/such/place", kept->path);
    CHECK_INT(beam_store_open(flow_runtime_here(), &BEAM_STORE_OPTIONS(.path = path), &store),
              -ENOTDIR);
    CHECK_INT(
        beam_store_open(flow_runtime_here(), &BEAM_STORE_OPTIONS(.path = "/etc/passwd"), &store),
        -BEAM_EKV_FORMAT);
    CHECK_PTR(store, NULL);
}

FLOW_TEST(a_file_that_cannot_be_opened_is_told)
{
    start(BEAM_STORE_SYNC_EACH);
    kept_at(at_open_twice);
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
}

static void on_compacted(int error, uint64_t rev, void *arg)
{
    kept->last_error = error;
    kept->closes++;
    flow_tick();
}

static void at_compact(beam_request *request, void *arg)
{
    CHECK_INT(beam_store_compact(kept->store, on_compacted, NULL), 0);
    CHECK_INT(beam_store_compact(kept->store, NULL, NULL), -EALREADY);
}

FLOW_TEST(a_file_is_rewritten_while_serving)
{
    struct kept_watch *watch = flow_share(sizeof(*watch));
    start(BEAM_STORE_SYNC_NONE);
    kept_watch(watch, "{}");
    kept_fill("k", 0, 200, 1000);
    kept_fill("k", 0, 200, 1000);
    uint64_t before = kept_info()->file_len;
    CHECK(before > 400000);
    kept->closes = 0;
    kept_at(at_compact);
    kept_fill("k", 190, 20, 1000);
    FLOW_WAIT(kept->closes == 1);
    CHECK_INT(kept->last_error, 0);
    CHECK_UINT(kept_info()->compactions, 1);
    CHECK(kept->info.file_len < before * 2 / 3);
    FLOW_WAIT(watch->rev == 420);
    CHECK_UINT(watch->bad, 0);
    CHECK_UINT(watch->heads, 1);
    kept_watch_end(watch);
    kept->closes = 0;
    kept_close();
    reopen(BEAM_STORE_SYNC_NONE, "store.kv");
    CHECK_UINT(kept->info.keys, 210);
    CHECK_UINT(kept->info.rev, 420);
}

FLOW_TEST(a_file_is_rewritten_on_request)
{
    unsigned long long before = 0, after = 0;
    start(BEAM_STORE_SYNC_NONE);
    for (int i = 0; i < 20; i++)
        kept_fill("k", 0, 5, 1000);
    const char *answer = kept_ask("kv.compact", "{}");
    test_note("%s", answer);
    REQUIRE_INT(
        sscanf(answer, "{'after':%llu,'before':%llu,'epoch':'EPOCH','rev':100}", &after, &before),
        2);
    CHECK(before > 100 * 1000);
    CHECK(after > 5 * 1000 && after < 6 * 1000);
    CHECK_UINT(kept_info()->compactions, 1);
}

/* By itself, when it is long enough and longer than what is in it. */
FLOW_TEST(a_file_does_not_grow_without_end)
{
    kept_share();
    flow_start(NULL);
    kept_open(&BEAM_STORE_OPTIONS(.sync = BEAM_STORE_SYNC_NONE, .compact_len_min = 100000),
              "store.kv");
    unsigned rounds = flow_many(30, 12);
    for (unsigned i = 0; i < rounds; i++)
        kept_fill("k", 0, 40, 500);
    FLOW_WAIT(kept_info()->compactions > 0 && kept->info.file_len < 100000);
    CHECK_UINT(kept->info.keys, 40);
    CHECK_UINT(kept->info.rev, 40 * rounds);
}

/* However soon it is asked for: a rewrite has to save something, and is paid for by what was appended. */
FLOW_TEST(a_file_is_not_rewritten_for_nothing)
{
    kept_share();
    flow_start(NULL);
    kept_open(&BEAM_STORE_OPTIONS(.sync = BEAM_STORE_SYNC_NONE, .compact_len_min = 1,
                                  .compact_percent = 101),
              "store.kv");
    for (unsigned i = 0; i < 5; i++) {
        kept_fill("k", i, 1, 8);
        flow_settle();
    }
    CHECK_UINT(kept_info()->compactions, 0);
    CHECK(kept->info.file_len < 1000);
    unsigned rounds = flow_many(20, 6);
    for (unsigned i = 0; i < rounds; i++)
        kept_fill("l", 0, 40, 500);
    FLOW_WAIT(kept_info()->compactions > 0 && kept->info.file_len < kept->info.data_len * 13 / 10);
    flow_settle();
    /* Each round appends what the state is long, and each rewrite saves a quarter of that at least. */
    CHECK(kept_info()->compactions <= rounds * 4);
}
