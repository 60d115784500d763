/* A log in ordinary times: appending, policies, groups, marks, closing and opening again. */
#include "kv/scan.h"
#include "tests/unit/kv/log_rig.h"

static struct log_rig rig;

/* The kinds of the records of the file as it is, one letter each. */
static const char *kinds_of(const char *path)
{
    static char kinds[256];
    static const char letters[] = "?HSLDMEC";
    struct bm_scan scan = {0};
    struct bm_record record;
    size_t len, n = 0;
    uint8_t *bytes = file_read(path, &len);
    while (n < sizeof(kinds) - 1 &&
           bm_scan_next(&scan, bytes + scan.offset, len - scan.offset, true, &record, NULL) == 1)
        kinds[n++] = letters[record.kind];
    kinds[n] = '\0';
    free(bytes);
    return kinds;
}

TEST(log_that_is_made_is_empty_and_its_file_private)
{
    struct stat st;
    log_rig_init(&rig);
    log_rig_open(&rig);
    CHECK(rig.found.created);
    CHECK(!rig.found.clean && !rig.found.new_epoch);
    CHECK(rig.found.epoch != 0);
    CHECK_UINT(rig.found.rev, 0);
    CHECK_STR(rig.found.message, "");
    REQUIRE_INT(stat(rig.path, &st), 0);
    CHECK_INT(st.st_mode & 07777, 0600);
    CHECK_STR(kinds_of(rig.path), "HL");
    CHECK_INT(log_rig_close(&rig), 0);
    CHECK_STR(kinds_of(rig.path), "HLC");
    log_rig_deinit(&rig);
}

TEST(log_brings_back_what_was_appended)
{
    struct body body = {.len = 0};
    struct told told;
    char text[512];
    uint64_t rev, epoch;
    log_rig_init(&rig);
    log_rig_open(&rig);
    epoch = rig.found.epoch;
    log_rig_put(&rig, "a", 1);
    log_rig_put(&rig, "b", 2);
    body_del(&body, "a");
    body_put(&body, "c", 3);
    REQUIRE_INT(log_rig_append(&rig, &body, &told, &rev), 0);
    CHECK_UINT(rev, 3);
    CHECK_INT(told.calls, 0);
    log_rig_until(&rig, &told.calls);
    CHECK_UINT(told.wait.rev, 3);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    CHECK(rig.found.clean && !rig.found.created && !rig.found.new_epoch);
    CHECK_UINT(rig.found.rev, 3);
    CHECK_UINT(rig.found.epoch, epoch);
    CHECK_UINT(rig.found.cut_len, 0);
    map_model_json(&rig.map, text, sizeof(text));
    CHECK_STR(text, "{\"b\":2,\"c\":3}");
    log_rig_put(&rig, "d", 4);
    CHECK_UINT(bm_log_state(rig.log).rev, 4);
    log_rig_deinit(&rig);
}

/* R14: the mark in front of a group speaks of what the sync before has covered. */
TEST(log_marks_each_group_with_what_is_durable)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    CHECK_STR(kinds_of(rig.path), "HLD");
    log_rig_put(&rig, "b", 1);
    CHECK_STR(kinds_of(rig.path), "HLDMD");
    log_rig_put(&rig, "c", 1);
    CHECK_STR(kinds_of(rig.path), "HLDMDMD");
    CHECK_INT(log_rig_close(&rig), 0);
    CHECK_STR(kinds_of(rig.path), "HLDMDMDC");
    log_rig_open(&rig);
    log_rig_put(&rig, "d", 1);
    CHECK_STR(kinds_of(rig.path), "HLDMDMDCD");
    log_rig_deinit(&rig);
}

TEST(log_appends_of_one_turn_are_one_group_and_one_sync)
{
    enum { WRITERS = 64 };
    struct told told[WRITERS];
    log_rig_init(&rig);
    log_rig_open(&rig);
    for (int i = 0; i < WRITERS; i++) {
        struct body body = {.len = 0};
        body_put(&body, "k", i);
        REQUIRE_INT(log_rig_append(&rig, &body, &told[i], NULL), 0);
    }
    log_rig_until(&rig, &told[WRITERS - 1].calls);
    for (int i = 0; i < WRITERS; i++)
        CHECK_INT(told[i].calls, 1);
    CHECK_UINT(bm_log_state(rig.log).groups, 1);
    CHECK_UINT(bm_log_state(rig.log).syncs, 1);
    CHECK_UINT(bm_log_state(rig.log).durable_rev, WRITERS);
    log_rig_deinit(&rig);
}

/* What comes while a group is on its way is the next group, however much it is. */
TEST(log_collects_a_group_while_another_is_on_its_way)
{
    enum { COUNT = 300 };
    static struct told told[COUNT];
    int calls = 0;
    log_rig_init(&rig);
    log_rig_open(&rig);
    for (int i = 0; i < COUNT; i++) {
        struct body body = {.len = 0};
        body_put(&body, "k", i);
        REQUIRE_INT(log_rig_append(&rig, &body, &told[i], NULL), 0);
        if (i % 10 == 0)
            bm_reactor_turn(rig.rig.reactor);
    }
    log_rig_until(&rig, &told[COUNT - 1].calls);
    for (int i = 0; i < COUNT; i++)
        calls += told[i].calls;
    CHECK_INT(calls, COUNT);
    CHECK(bm_log_state(rig.log).groups <= COUNT / 10 + 1);
    CHECK(bm_log_state(rig.log).groups >= 2);
    CHECK_UINT(bm_log_state(rig.log).syncs, bm_log_state(rig.log).groups);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, COUNT);
    log_rig_deinit(&rig);
}

/* R14: so that at rest each record has a mark behind it. */
TEST(log_at_rest_gets_a_mark_that_is_synced)
{
    log_rig_init(&rig);
    rig.options.idle_ns = 1;
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (bm_log_state(rig.log).groups < 2 && bm_clock_now_ns() < end_ns)
        bm_reactor_turn(rig.rig.reactor);
    rig_settle(&rig.rig);
    CHECK_STR(kinds_of(rig.path), "HLDM");
    CHECK_UINT(bm_log_state(rig.log).syncs, 2);
    for (int i = 0; i < 100; i++)
        bm_reactor_turn(rig.rig.reactor);
    CHECK_UINT(bm_log_state(rig.log).groups, 2); /* and no more of them */
    log_rig_put(&rig, "b", 1);
    CHECK_STR(kinds_of(rig.path), "HLDMD");
    log_rig_deinit(&rig);
}

static void until_groups(uint64_t count)
{
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (bm_log_state(rig.log).groups < count && bm_clock_now_ns() < end_ns)
        bm_reactor_turn(rig.rig.reactor);
    rig_settle(&rig.rig);
    for (int i = 0; i < 100; i++)
        bm_reactor_turn(rig.rig.reactor);
    CHECK_UINT(bm_log_state(rig.log).groups, count);
}

/* The writer before had no time for it; this one has, though nobody changes anything. A new epoch leaves the
 * marks behind, and needs one too, unless there is nothing behind the live. */
TEST(log_that_is_opened_without_its_last_mark_gets_it_at_rest)
{
    for (enum bm_log_policy policy = BM_LOG_EACH; policy <= BM_LOG_BATCH; policy++) {
        test_note("policy %d", policy);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), policy);
        rig.options.policy = policy;
        log_rig_open(&rig);
        log_rig_put(&rig, "a", 1);
        log_rig_put(&rig, "b", 1);
        log_rig_drop(&rig);
        rig.options.policy = BM_LOG_EACH;
        rig.options.idle_ns = 1;
        log_rig_open(&rig);
        CHECK_STR(kinds_of(rig.path), policy == BM_LOG_EACH ? "HLDMD" : "HLDD");
        until_groups(1);
        CHECK_STR(kinds_of(rig.path), policy == BM_LOG_EACH ? "HLDMDM" : "HLDDM");
        log_rig_drop(&rig);
        log_rig_open(&rig);
        until_groups(0); /* there is one */
        log_rig_deinit(&rig);
    }
}

TEST(log_under_batch_tells_at_once_and_syncs_when_its_time_has_come)
{
    log_rig_init(&rig);
    rig.options.policy = BM_LOG_BATCH;
    rig.options.interval_ns = 3600 * BM_NS_PER_S;
    log_rig_open(&rig);
    CHECK_STR(kinds_of(rig.path), "HLE");
    log_rig_put(&rig, "a", 1);
    log_rig_put(&rig, "b", 1);
    CHECK_UINT(bm_log_state(rig.log).syncs, 0);
    CHECK_UINT(bm_log_state(rig.log).durable_rev, 0);
    CHECK_STR(kinds_of(rig.path), "HLEDD");
    CHECK_INT(log_rig_close(&rig), 0);
    CHECK_STR(kinds_of(rig.path), "HLEDDC");

    rig.options.interval_ns = 1;
    log_rig_open(&rig);
    CHECK(rig.found.clean && !rig.found.new_epoch);
    log_rig_put(&rig, "c", 1);
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    while (bm_log_state(rig.log).durable_rev < 3 && bm_clock_now_ns() < end_ns)
        bm_reactor_turn(rig.rig.reactor);
    CHECK_UINT(bm_log_state(rig.log).durable_rev, 3);
    CHECK_UINT(bm_log_state(rig.log).syncs, 1);
    log_rig_put(&rig, "d", 1);
    CHECK_STR(kinds_of(rig.path), "HLEDDCEDMD");
    log_rig_deinit(&rig);
}

TEST(log_syncs_under_every_policy_for_whoever_asks)
{
    for (enum bm_log_policy policy = BM_LOG_EACH; policy <= BM_LOG_NONE; policy++) {
        struct told told, again;
        struct body body = {.len = 0};
        test_note("policy %d", policy);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), policy);
        rig.options.policy = policy;
        rig.options.interval_ns = 3600 * BM_NS_PER_S;
        log_rig_open(&rig);
        body_put(&body, "a", 1);
        REQUIRE_INT(log_rig_append(&rig, &body, NULL, NULL), 0);
        told_init(&told);
        REQUIRE_INT(bm_log_sync(rig.log, &told.wait), 0);
        CHECK_INT(told.calls, 0);
        log_rig_until(&rig, &told.calls);
        CHECK_INT(told.res, 0);
        CHECK_UINT(bm_log_state(rig.log).durable_rev, 1);
        CHECK_UINT(bm_log_state(rig.log).syncs, 1);

        told_init(&again); /* nothing is left to sync */
        REQUIRE_INT(bm_log_sync(rig.log, &again.wait), 0);
        CHECK_INT(again.calls, 0);
        log_rig_until(&rig, &again.calls);
        CHECK_UINT(bm_log_state(rig.log).syncs, 1);
        log_rig_deinit(&rig);
    }
}

/* R16 */
TEST(log_that_told_early_and_was_not_closed_gets_a_new_epoch)
{
    for (enum bm_log_policy policy = BM_LOG_EACH; policy <= BM_LOG_NONE; policy++) {
        test_note("policy %d", policy);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), policy);
        rig.options.policy = policy;
        log_rig_open(&rig);
        uint64_t epoch = rig.found.epoch;
        log_rig_put(&rig, "a", 1);
        log_rig_put(&rig, "b", 2);
        log_rig_drop(&rig);

        rig.options.policy = BM_LOG_EACH;
        log_rig_open(&rig);
        CHECK_INT(rig.found.new_epoch, policy != BM_LOG_EACH);
        CHECK_INT(rig.found.epoch != epoch, policy != BM_LOG_EACH);
        CHECK(!rig.found.clean);
        CHECK_UINT(rig.found.rev, 2);
        CHECK_UINT(rig.map.len, 2);
        CHECK_STR(kinds_of(rig.path), policy == BM_LOG_EACH ? "HLDMD" : "HLDD");
        log_rig_put(&rig, "c", 3);
        log_rig_drop(&rig);
        log_rig_open(&rig);
        CHECK(!rig.found.new_epoch);
        CHECK_UINT(rig.found.rev, 3);
        CHECK_UINT(rig.map.len, 3);
        log_rig_deinit(&rig);
    }
}

/* A group may have been lost of which others know: all the file has is an early at its end. */
TEST(log_that_may_tell_early_says_so_before_it_does)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    uint64_t epoch = rig.found.epoch;
    CHECK_INT(log_rig_close(&rig), 0);
    rig.options.policy = BM_LOG_BATCH;
    log_rig_open(&rig);
    CHECK_UINT(rig.found.epoch, epoch);
    CHECK_STR(kinds_of(rig.path), "HLCE");
    log_rig_drop(&rig);
    log_rig_open(&rig);
    CHECK(rig.found.new_epoch);
    CHECK(rig.found.epoch != epoch);
    log_rig_deinit(&rig);
}

TEST(log_refuses_what_a_reader_would_refuse)
{
    struct body body = {.len = 0}, empty = {.len = 0};
    char large[4096];
    memset(large, 'x', sizeof(large));
    log_rig_init(&rig);
    rig.options.record_len_max = 4000;
    log_rig_open(&rig);
    body_put(&body, "b", 1);
    body_put(&body, "a", 1);
    CHECK_INT(log_rig_append(&rig, &body, NULL, NULL), -BEAM_EKV_ORDER);
    body.len = 0;
    body_add(&body, BEAM_KV_STR, "a", "\xff", 1);
    CHECK_INT(log_rig_append(&rig, &body, NULL, NULL), -BEAM_EKV_UTF8);
    body.len = 0;
    body_add(&body, BEAM_KV_STR, "a", large, 3968);
    CHECK_INT(log_rig_append(&rig, &body, NULL, NULL), -BEAM_EKV_TOO_LARGE);
    body.len = 0;
    body_add(&body, BEAM_KV_STR, "a", large, 3960);
    CHECK_INT(log_rig_append(&rig, &body, NULL, NULL), 0);
    CHECK_INT(log_rig_append(&rig, &empty, NULL, NULL), 0);
    CHECK_INT(bm_log_append(rig.log, body.bytes, 12, NULL, NULL), -BEAM_EKV_TRUNCATED);
    CHECK_UINT(bm_log_state(rig.log).rev, 2);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, 2);
    CHECK_UINT(rig.map.len, 1);
    log_rig_deinit(&rig);
}

TEST(log_queue_is_bounded_and_calls_for_more_when_there_is_room)
{
    struct body body = {.len = 0};
    struct told told;
    char value[1000] = {0};
    int queued = 0, r;
    log_rig_init(&rig);
    rig.options.queue_len_max = 10000;
    log_rig_open(&rig);
    body_add(&body, BEAM_KV_BYTES, "k", value, sizeof(value));
    while ((r = log_rig_append(&rig, &body, &told, NULL)) == 0 && queued < 1000) {
        queued++;
        told_init(&told); /* none of them waits */
    }
    CHECK_INT(r, -EAGAIN);
    CHECK_INT(queued, 10000 / (24 + 1016));
    CHECK_INT(rig.rooms, 0);
    log_rig_until(&rig, &rig.rooms);
    CHECK_INT(log_rig_append(&rig, &body, NULL, NULL), 0);

    /* one that is longer than all the queue goes alone */
    struct body large = {.len = 0};
    static char much[4000];
    rig.options.queue_len_max = 100;
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    body_add(&large, BEAM_KV_BYTES, "large", much, sizeof(much));
    CHECK_INT(log_rig_append(&rig, &large, NULL, NULL), 0);
    CHECK_INT(log_rig_append(&rig, &large, NULL, NULL), -EAGAIN);
    log_rig_until(&rig, &rig.rooms);
    CHECK_INT(log_rig_append(&rig, &large, NULL, NULL), 0);
    log_rig_deinit(&rig);
}

TEST(log_that_closes_writes_what_waits_and_takes_no_more)
{
    struct body body = {.len = 0};
    struct told told, closed;
    log_rig_init(&rig);
    log_rig_open(&rig);
    body_put(&body, "a", 1);
    REQUIRE_INT(log_rig_append(&rig, &body, &told, NULL), 0);
    told_init(&closed);
    bm_log_close(rig.log, &closed.wait);
    CHECK_INT(bm_log_append(rig.log, body.bytes, body.len, NULL, NULL), -ESHUTDOWN);
    CHECK_INT(bm_log_sync(rig.log, &told.wait), -ESHUTDOWN);
    CHECK_INT(bm_log_compact(rig.log, &rig.source, &told.wait), -ESHUTDOWN);
    CHECK_INT(closed.calls, 0);
    log_rig_until(&rig, &closed.calls);
    CHECK_INT(closed.res, 0);
    CHECK_INT(told.calls, 1);
    CHECK_INT(told.res, 0);
    struct stat st;
    REQUIRE_INT(stat(rig.path, &st), 0);
    rig.log = NULL;
    log_rig_open(&rig);
    CHECK_UINT(rig.found.file_len, st.st_size); /* no room set aside stays behind */
    CHECK(rig.found.clean);
    CHECK_INT(log_rig_close(&rig), 0);
    REQUIRE_INT(stat(rig.path, &st), 0);
    CHECK_UINT(rig.found.file_len, st.st_size); /* closed again, without a word more */
    log_rig_deinit(&rig);
}

/* Callbacks may do all but free the log. */
struct chain {
    struct told told;
    struct body body;
    int left;
};

static void again_then_close(struct bm_log_wait *wait, int res)
{
    struct chain *chain = bm_container_of(wait, struct chain, told.wait);
    chain->told.res = res;
    if (chain->left-- > 0) {
        CHECK_INT(log_rig_append(&rig, &chain->body, NULL, NULL), 0);
        CHECK_INT(bm_log_append(rig.log, chain->body.bytes, chain->body.len, wait, NULL), 0);
    } else {
        chain->told.wait.fn = told_fn;
        bm_log_close(rig.log, wait);
    }
}

TEST(log_callbacks_may_append_and_close)
{
    struct chain chain = {.left = 5};
    log_rig_init(&rig);
    log_rig_open(&rig);
    chain.told.wait.fn = again_then_close;
    body_put(&chain.body, "a", 1);
    REQUIRE_INT(bm_log_append(rig.log, chain.body.bytes, chain.body.len, &chain.told.wait, NULL),
                0);
    log_rig_until(&rig, &chain.told.calls);
    CHECK_INT(chain.told.res, 0);
    rig.log = NULL;
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, 11);
    CHECK(rig.found.clean);
    log_rig_deinit(&rig);
}

TEST(log_that_is_freed_tells_all_who_wait)
{
    struct body body = {.len = 0};
    struct told told, syncing;
    log_rig_init(&rig);
    log_rig_open(&rig);
    body_put(&body, "a", 1);
    REQUIRE_INT(log_rig_append(&rig, &body, &told, NULL), 0);
    told_init(&syncing);
    REQUIRE_INT(bm_log_sync(rig.log, &syncing.wait), 0);
    rig.log = bm_log_free(rig.log);
    CHECK_INT(told.res, -ECANCELED);
    CHECK_INT(syncing.res, -ECANCELED);
    CHECK_PTR(bm_log_free(NULL), NULL);
    log_rig_deinit(&rig);
}

/* With a group on its way: the reactor cancels it, which is a failure as any. */
TEST(log_on_a_reactor_that_closes_fails_and_can_be_freed)
{
    struct body body = {.len = 0};
    struct told told;
    log_rig_init(&rig);
    log_rig_open(&rig);
    body_put(&body, "a", 1);
    REQUIRE_INT(log_rig_append(&rig, &body, &told, NULL), 0);
    bm_reactor_turn(rig.rig.reactor);
    bm_reactor_close(rig.rig.reactor);
    rig.log = bm_log_free(rig.log);
    CHECK_INT(told.calls, 1);
    CHECK(told.res == 0 || told.res == -ECANCELED);
    log_rig_deinit(&rig);
}

TEST(log_can_be_read_while_it_is_written)
{
    struct map_model map = {0};
    struct bm_log_found found;
    log_rig_init(&rig);
    log_rig_open(&rig);
    for (int i = 0; i < 20; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%02d", i);
        log_rig_put(&rig, key, i);
        struct log_rig other = {.map = {0}};
        CHECK_INT(bm_log_read_file(rig.path, log_rig_apply, &other, &found), 0);
        CHECK_UINT(found.rev, i + 1);
        CHECK(map_model_same(&other.map, &rig.map));
        map_model_deinit(&other.map);
    }
    map_model_deinit(&map);
    log_rig_deinit(&rig);
}

TEST(log_grows_by_steps_over_many_groups)
{
    static char value[3000];
    struct body body = {.len = 0};
    struct stat st;
    log_rig_init(&rig);
    rig.options.step_len = 4096;
    log_rig_open(&rig);
    body_add(&body, BEAM_KV_BYTES, "k", value, sizeof(value));
    for (int i = 0; i < 20; i++) {
        struct told told;
        REQUIRE_INT(log_rig_append(&rig, &body, &told, NULL), 0);
        log_rig_until(&rig, &told.calls);
        REQUIRE_INT(stat(rig.path, &st), 0);
        CHECK_INT(st.st_size % 4096, 0);
        CHECK((uint64_t)st.st_size >= bm_log_state(rig.log).file_len);
        CHECK((uint64_t)st.st_size <= bm_log_state(rig.log).file_len + 2 * 4096);
    }
    log_rig_drop(&rig);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, 20);
    CHECK_UINT(rig.found.cut_len, 0);
    log_rig_deinit(&rig);
}
