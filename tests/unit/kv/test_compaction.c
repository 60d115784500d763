/* Compaction while the log serves: R18. */
#include "kv/log_inner.h"
#include "tests/unit/kv/log_rig.h"
#include "uring/completion.h"

static struct log_rig rig;
static char new_path[600];

static void open_rig(void)
{
    log_rig_init(&rig);
    snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
    log_rig_open(&rig);
}

static void put_many(int from, int to)
{
    struct told told;
    for (int i = from; i < to; i++) {
        struct body body = {.len = 0};
        char key[16];
        snprintf(key, sizeof(key), "k%04d", i);
        body_put(&body, key, i);
        REQUIRE_INT(log_rig_append(&rig, &body, i + 1 == to ? &told : NULL, NULL), 0);
    }
    log_rig_until(&rig, &told.calls);
}

/* The file says what the model says. */
static void check_file(void)
{
    struct log_rig other = {.map = {0}};
    struct bm_log_found found;
    CHECK_INT(bm_log_read_file(rig.path, log_rig_apply, &other, &found), 0);
    CHECK_UINT(found.rev, bm_log_state(rig.log).rev);
    CHECK(map_model_same(&other.map, &rig.map));
    map_model_deinit(&other.map);
}

TEST(compaction_leaves_the_state_and_no_history)
{
    struct told told;
    open_rig();
    uint64_t epoch = rig.found.epoch;
    put_many(0, 50);
    for (int round = 0; round < 20; round++)
        put_many(0, 50);
    uint64_t before = bm_log_state(rig.log).file_len;
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    CHECK_INT(log_rig_start_compaction(&rig, &told), -EBUSY);
    CHECK(bm_log_state(rig.log).compacting);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, 0);
    CHECK(!bm_log_state(rig.log).compacting);
    CHECK(bm_log_state(rig.log).file_len * 10 < before);
    CHECK_UINT(bm_log_state(rig.log).file_len, bm_log_state(rig.log).snapshot_len);
    CHECK_UINT(bm_log_state(rig.log).base_rev, 1050);
    CHECK(!file_exists(new_path));
    check_file();
    put_many(0, 3);
    check_file();
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, 1053);
    CHECK_UINT(rig.found.base_rev, 1050);
    CHECK_UINT(rig.found.epoch, epoch);
    CHECK_UINT(rig.map.len, 50);
    log_rig_deinit(&rig);
}

TEST(compaction_of_nothing_and_of_what_was_just_compacted)
{
    struct told told;
    open_rig();
    for (int i = 0; i < 3; i++) {
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        CHECK_INT(told.res, 0);
        CHECK_UINT(bm_log_state(rig.log).file_len, 96);
    }
    put_many(0, 1);
    check_file();
    log_rig_deinit(&rig);
}

/* Transactions of all kinds between any two parts. */
static void append_random(struct test_random *random, struct told *told)
{
    struct body body = {.len = 0};
    for (int i = 0; i < 40; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%04d", i);
        if (test_random_below(random, 8) > 0)
            continue;
        if (test_random_below(random, 3) == 0)
            body_del(&body, key);
        else
            body_put(&body, key, (int64_t)test_random_below(random, 1000));
    }
    told_init(told);
    if (log_rig_append(&rig, &body, told, NULL) < 0)
        told->calls = 1;
}

TEST(compaction_is_right_whatever_is_appended_meanwhile)
{
    enum { SEEDS = 60, APPENDS = 200 };
    static struct told told[APPENDS];
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct test_random random = test_random(seed);
        struct told compacted;
        int appended = 0;
        test_note("seed %llu", (unsigned long long)seed);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%llu.kv", test_tmpdir(), (unsigned long long)seed);
        rig.options.policy = (enum bm_log_policy)(seed % 3);
        rig.part_len = 1 + test_random_below(&random, 4);
        log_rig_open(&rig);
        while (appended < 30)
            append_random(&random, &told[appended++]);
        if (test_random_below(&random, 2))
            log_rig_until(&rig, &told[appended - 1].calls);
        REQUIRE_INT(log_rig_start_compaction(&rig, &compacted), 0);
        while (compacted.calls == 0 && appended < APPENDS - 1) {
            bm_reactor_turn(rig.rig.reactor);
            if (test_random_below(&random, 3) == 0)
                append_random(&random, &told[appended++]);
        }
        if (compacted.calls == 0)
            log_rig_until(&rig, &compacted.calls);
        CHECK_INT(compacted.res, 0);
        append_random(&random, &told[appended++]);
        if (told[appended - 1].calls == 0)
            log_rig_until(&rig, &told[appended - 1].calls);
        check_file();
        for (int i = 0; i < appended; i++)
            CHECK_INT(told[i].calls, 1);
        struct map_model before = rig.map;
        rig.map = (struct map_model){0};
        uint64_t rev = bm_log_state(rig.log).rev;
        if (seed % 2)
            CHECK_INT(log_rig_close(&rig), 0);
        else
            log_rig_drop(&rig);
        log_rig_open(&rig);
        CHECK_UINT(rig.found.rev, rev);
        CHECK(map_model_same(&rig.map, &before));
        map_model_deinit(&before);
        log_rig_deinit(&rig);
    }
}

/* A source that is behind: its state has no more than what was told as durable. */
struct behind {
    struct log_rig shown; /* only its map and its parts */
    uint64_t rev;
};

static struct behind behind;

static int next_behind(struct bm_log_source *source, size_t len_max, const void **ret_entries,
                       size_t *ret_len, uint64_t *ret_rev)
{
    struct log_rig *shown = bm_container_of(source, struct log_rig, source);
    shown->log = rig.log;
    int r = log_rig_next_part(source, len_max, ret_entries, ret_len, ret_rev);
    *ret_rev = behind.rev;
    return r;
}

struct later {
    struct bm_log_wait wait;
    struct body body;
};

static void apply_later(struct bm_log_wait *wait, int res)
{
    struct later *later = bm_container_of(wait, struct later, wait);
    CHECK_INT(res, 0);
    map_model_change(&behind.shown.map, later->body.bytes, later->body.len);
    behind.rev = wait->rev;
}

TEST(compaction_is_right_for_an_owner_who_shows_only_what_was_acknowledged)
{
    enum { APPENDS = 120 };
    static struct later later[APPENDS];
    struct told compacted;
    open_rig();
    memset(&behind, 0, sizeof(behind));
    memset(later, 0, sizeof(later));
    for (int i = 0; i < APPENDS; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%02d", i * 7 % 40);
        later[i].wait.fn = apply_later;
        if (i % 5 == 4)
            body_del(&later[i].body, key);
        else
            body_put(&later[i].body, key, i);
        REQUIRE_INT(
            bm_log_append(rig.log, later[i].body.bytes, later[i].body.len, &later[i].wait, NULL),
            0);
        map_model_change(&rig.map, later[i].body.bytes, later[i].body.len);
        if (i == 40) {
            told_init(&compacted);
            behind.shown.part_len = 2;
            behind.shown.source.next = next_behind;
            REQUIRE_INT(bm_log_compact(rig.log, &behind.shown.source, &compacted.wait), 0);
        }
        if (i % 4 == 0)
            bm_reactor_turn(rig.rig.reactor);
    }
    log_rig_until(&rig, &compacted.calls);
    CHECK_INT(compacted.res, 0);
    while (behind.rev < APPENDS && !rig.rig.timed_out)
        bm_reactor_turn(rig.rig.reactor);
    CHECK(map_model_same(&behind.shown.map, &rig.map));
    check_file();
    CHECK(bm_log_state(rig.log).base_rev <= 41);
    free(behind.shown.part);
    map_model_deinit(&behind.shown.map);
    log_rig_deinit(&rig);
}

static int next_fails(struct bm_log_source *source, size_t len_max, const void **ret_entries,
                      size_t *ret_len, uint64_t *ret_rev)
{
    (void)source, (void)len_max, (void)ret_entries, (void)ret_len, (void)ret_rev;
    return -ENOMEM;
}

TEST(compaction_whose_source_fails_has_not_taken_place)
{
    struct told told;
    struct bm_log_source source = {.next = next_fails};
    open_rig();
    put_many(0, 10);
    uint64_t base_rev = bm_log_state(rig.log).base_rev;
    told_init(&told);
    REQUIRE_INT(bm_log_compact(rig.log, &source, &told.wait), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, -ENOMEM);
    CHECK(!file_exists(new_path));
    CHECK_UINT(bm_log_state(rig.log).base_rev, base_rev);
    put_many(10, 20);
    check_file();
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, 0);
    log_rig_deinit(&rig);
}

TEST(compaction_is_given_up_by_a_close)
{
    for (int turns = 0; turns < 12; turns++) {
        struct told told, closed;
        test_note("after %d turns", turns);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), turns);
        snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
        rig.part_len = 3;
        log_rig_open(&rig);
        put_many(0, 10);
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        for (int i = 0; i < turns; i++)
            bm_reactor_turn(rig.rig.reactor);
        told_init(&closed);
        bm_log_close(rig.log, &closed.wait);
        log_rig_until(&rig, &closed.calls);
        CHECK_INT(closed.res, 0);
        CHECK_INT(told.calls, 1);
        CHECK(told.res == -ECANCELED || told.res == 0);
        CHECK(turns > 0 || told.res == -ECANCELED);
        CHECK(!file_exists(new_path));
        rig.log = NULL;
        log_rig_open(&rig);
        CHECK(rig.found.clean);
        CHECK_UINT(rig.found.rev, 10);
        CHECK_UINT(rig.map.len, 10);
        log_rig_deinit(&rig);
    }
}

TEST(compaction_keeps_the_mode_of_the_file)
{
    struct told told;
    struct stat st;
    open_rig();
    REQUIRE_INT(chmod(rig.path, 0640), 0);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    REQUIRE_INT(stat(rig.path, &st), 0);
    CHECK_INT(st.st_mode & 07777, 0640);
    log_rig_deinit(&rig);
}

/* What others know early they know of the same epoch still. */
TEST(compaction_carries_the_early_into_the_new_file)
{
    struct told told;
    open_rig();
    CHECK_INT(log_rig_close(&rig), 0);
    rig.options.policy = BM_LOG_NONE;
    log_rig_open(&rig);
    uint64_t epoch = rig.found.epoch;
    put_many(0, 5);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_UINT(bm_log_state(rig.log).durable_rev, 5);
    CHECK_UINT(bm_log_state(rig.log).epoch, epoch);
    log_rig_drop(&rig);
    log_rig_open(&rig);
    CHECK(rig.found.new_epoch);
    CHECK(rig.found.epoch != epoch);
    CHECK_UINT(rig.found.rev, 5);
    log_rig_deinit(&rig);
}

/* All that the compaction does is held back, so that it keeps what it cannot place. */
static struct bm_log *held_log;

static enum bm_completion_verdict hold_compaction(struct bm_op *op, int *res, uint32_t *flags,
                                                  void *arg)
{
    (void)res, (void)flags, (void)arg;
    bool own = held_log && (op == &held_log->write || op == &held_log->sync);
    return held_log && !own ? BM_COMPLETION_HOLD : BM_COMPLETION_PASS;
}

TEST(compaction_that_cannot_keep_up_stops_the_appends_and_calls_for_more)
{
    struct body body = {.len = 0};
    struct told told, compacted;
    static char value[2000];
    int r = 0, appended = 0;
    log_rig_init(&rig);
    rig.options.queue_len_max = 8000;
    log_rig_open(&rig);
    body_add(&body, BEAM_KV_BYTES, "k", value, sizeof(value));
    held_log = rig.log;
    bm_completion_hook.fn = hold_compaction;
    REQUIRE_INT(log_rig_start_compaction(&rig, &compacted), 0);
    while (appended < 50 && (r = log_rig_append(&rig, &body, &told, NULL)) == 0) {
        log_rig_until(&rig, &told.calls); /* so that the log's own queue is empty */
        appended++;
    }
    CHECK_INT(r, -EAGAIN);
    CHECK(appended >= 3 && appended <= 6);
    CHECK_INT(rig.rooms, 0);
    held_log = NULL;
    log_rig_until(&rig, &rig.rooms);
    CHECK_INT(log_rig_append(&rig, &body, NULL, NULL), 0);
    if (compacted.calls == 0)
        log_rig_until(&rig, &compacted.calls);
    CHECK_INT(compacted.res, 0);
    rig_settle(&rig.rig);
    bm_completion_hook.fn = NULL;
    check_file();
    log_rig_deinit(&rig);
}

/* To free a large file takes long, and is not the reactor's business. */
static struct bm_op *held_close;
static int closes;

static enum bm_completion_verdict hold_close(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)res, (void)flags, (void)arg;
    if (op->kind != BM_OP_CLOSE)
        return BM_COMPLETION_PASS;
    if (op != held_close)
        closes++;
    CHECK(op->flags & 1);
    return held_close ? BM_COMPLETION_HOLD : BM_COMPLETION_PASS;
}

static int next_fails(struct bm_log_source *source, size_t len_max, const void **ret_entries,
                      size_t *ret_len, uint64_t *ret_rev);

TEST(compaction_goes_on_while_the_file_that_is_not_needed_is_closed_elsewhere)
{
    if (!BM_KERNEL_CLOSES)
        SKIP("a sanitizer would not see it");
    for (int fails = 0; fails < 2; fails++) {
        struct told told;
        struct bm_log_source source = {.next = next_fails};
        struct bm_op any;
        test_note("fails: %d", fails);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), fails);
        log_rig_open(&rig);
        put_many(0, 10);
        held_close = &any;
        closes = 0;
        bm_completion_hook.fn = hold_close;
        told_init(&told);
        if (fails)
            REQUIRE_INT(bm_log_compact(rig.log, &source, &told.wait), 0);
        else
            REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &closes);
        CHECK_INT(told.calls, 0);
        put_many(10, 12);
        CHECK_INT(bm_log_compact(rig.log, &source, NULL), -EBUSY);
        check_file();
        held_close = NULL;
        log_rig_until(&rig, &told.calls);
        bm_completion_hook.fn = NULL;
        CHECK_INT(told.res, fails ? -ENOMEM : 0);
        CHECK_INT(log_rig_close(&rig), 0);
        log_rig_deinit(&rig);
    }
}

/* --- operations that fail ------------------------------------------------------------------------- */

static unsigned strike_at, ops_seen;
static int strike_error;
static enum bm_op_kind struck_kind;

static enum bm_completion_verdict strike(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)flags, (void)arg;
    if (op->kind != BM_OP_WRITE && op->kind != BM_OP_FSYNC && op->kind != BM_OP_RENAME)
        return BM_COMPLETION_PASS;
    if (++ops_seen == strike_at) {
        struck_kind = (enum bm_op_kind)op->kind;
        *res = strike_error;
    }
    return BM_COMPLETION_PASS;
}

/* Each of its operations fails once: before the rename the old file goes on; a rename that says it failed
 * and did not is noticed; and where the directory cannot be synced the log has failed. */
TEST(compaction_with_any_operation_failing_leaves_a_log_or_an_error)
{
    bool through = false;
    bm_completion_hook.fn = strike;
    for (unsigned at = 1; !through && at < 100; at++) {
        struct told told;
        test_note("operation %u", at);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%u.kv", test_tmpdir(), at);
        snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
        rig.part_len = 4;
        strike_at = 0;
        log_rig_open(&rig);
        put_many(0, 10);
        ops_seen = 0;
        strike_at = at;
        strike_error = at % 2 ? -EIO : -ENOSPC;
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        strike_at = 0;
        rig_settle(&rig.rig);
        through = ops_seen < at;
        if (through) {
            CHECK_INT(told.res, 0);
            CHECK(at > 6); /* three parts, the live, two syncs, the rename, the directory */
        } else {
            CHECK_INT(told.res, strike_error);
        }
        CHECK(!file_exists(new_path));
        if (rig.failures == 0) {
            put_many(10, 12);
            check_file();
            CHECK_INT(log_rig_close(&rig), 0);
        } else {
            CHECK(struck_kind == BM_OP_RENAME || struck_kind == BM_OP_FSYNC);
            CHECK_INT(bm_log_append(rig.log, NULL, 0, NULL, NULL), -EROFS);
            CHECK_INT(log_rig_close(&rig), strike_error);
        }
        uint64_t rev = rig.failures ? 10 : 12;
        log_rig_open(&rig);
        CHECK_UINT(rig.found.rev, rev);
        CHECK_UINT(rig.map.len, rev);
        log_rig_deinit(&rig);
    }
    CHECK(through);
    bm_completion_hook.fn = NULL;
}

/* --- files that are moved, and what stands in the way ---------------------------------------------- */

/* A store of its own on another reactor, beside the one under test. */
static struct log_rig other;
static char moved_path[600];

static void open_other(const char *path)
{
    memset(&other, 0, sizeof(other));
    snprintf(other.path, sizeof(other.path), "%s", path);
    other.options = (struct bm_log_options){.path = other.path, .step_len = 4096};
    rig_open(&other.rig);
    log_rig_open(&other);
    log_rig_put(&other, "other", 1);
}

static bool same_file(const char *path, int fd)
{
    struct stat here, there;
    REQUIRE_INT(fstat(fd, &here), 0);
    return stat(path, &there) == 0 && here.st_ino == there.st_ino && here.st_dev == there.st_dev;
}

/* The state of a file, without its log: how many keys, each put once. */
static uint64_t keys_in(const char *path)
{
    struct log_rig reader = {.map = {0}};
    struct bm_log_found found;
    REQUIRE_INT(bm_log_read_file(path, log_rig_apply, &reader, &found), 0);
    CHECK_UINT(reader.map.len, found.rev);
    map_model_deinit(&reader.map);
    return found.rev;
}

/* R13: whoever has the file that the path names is the writer. */
TEST(compaction_of_a_file_that_was_moved_away_replaces_and_removes_nothing)
{
    for (int compacting = 0; compacting < 2; compacting++) {
        struct told told, other_told;
        test_note("the other one compacts: %d", compacting);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), compacting);
        snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
        snprintf(moved_path, sizeof(moved_path), "%s.moved", rig.path);
        log_rig_open(&rig);
        put_many(0, 10);
        REQUIRE_INT(rename(rig.path, moved_path), 0);
        put_many(10, 12); /* it does not know yet */
        open_other(rig.path);
        if (compacting) {
            REQUIRE_INT(log_rig_start_compaction(&other, &other_told), 0);
            for (int i = 0; i < 100 && !file_exists(new_path); i++)
                bm_reactor_turn(other.rig.reactor);
            REQUIRE(file_exists(new_path));
            REQUIRE_INT(other_told.calls, 0);
        }
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        CHECK_INT(told.res, -ESTALE);
        CHECK_INT(rig.failures, 1);
        CHECK_INT(rig.failure, -ESTALE);
        CHECK_INT(file_exists(new_path), compacting);
        CHECK(same_file(rig.path, other.log->fd));
        if (compacting) {
            log_rig_until(&other, &other_told.calls);
            CHECK_INT(other_told.res, 0);
            CHECK(same_file(rig.path, other.log->fd));
        }
        log_rig_put(&other, "more", 1);
        CHECK_INT(keys_in(rig.path), 2);
        CHECK_INT(keys_in(moved_path), 12);
        CHECK_INT(log_rig_close(&rig), -ESTALE);
        log_rig_deinit(&other);
        log_rig_deinit(&rig);
    }
}

static unsigned move_at;

/* Behind the operation of that number another's file takes the path. */
static enum bm_completion_verdict move_away(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)res, (void)flags, (void)arg;
    if (op->kind != BM_OP_WRITE && op->kind != BM_OP_FSYNC && op->kind != BM_OP_RENAME)
        return BM_COMPLETION_PASS;
    if (++ops_seen == move_at) {
        CHECK_INT(rename(rig.path, moved_path), 0);
        CHECK_INT(rename(other.path, rig.path), 0);
    }
    return BM_COMPLETION_PASS;
}

TEST(compaction_looks_again_what_the_path_means_before_and_behind_its_rename)
{
    bool through = false;
    for (unsigned at = 1; !through && at < 100; at++) {
        struct told told;
        char path[600];
        test_note("moved behind operation %u", at);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%u.kv", test_tmpdir(), at);
        snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
        snprintf(moved_path, sizeof(moved_path), "%s.moved", rig.path);
        snprintf(path, sizeof(path), "%s.other", rig.path);
        rig.part_len = 4;
        log_rig_open(&rig);
        put_many(0, 10);
        open_other(path);
        ops_seen = 0;
        move_at = at;
        bm_completion_hook.fn = move_away;
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        rig_settle(&rig.rig);
        bm_completion_hook.fn = NULL;
        through = ops_seen < at;
        if (through) {
            CHECK_INT(told.res, 0);
            CHECK_INT(rig.failures, 0);
            CHECK(at > 6);
        } else {
            CHECK_INT(told.res, -ESTALE);
            CHECK_INT(rig.failure, -ESTALE);
            CHECK(same_file(rig.path, other.log->fd));
            CHECK_INT(keys_in(rig.path), 1);
            CHECK_INT(keys_in(moved_path), 10);
        }
        CHECK(!file_exists(new_path));
        log_rig_deinit(&other);
        log_rig_deinit(&rig);
    }
    CHECK(through);
}

/* Behind the first operation another's file takes the name of the new one. */
static enum bm_completion_verdict take_new(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)op, (void)res, (void)flags, (void)arg;
    if (++ops_seen == 1) {
        CHECK_INT(rename(new_path, moved_path), 0);
        CHECK_INT(rename(other.path, new_path), 0);
    }
    return BM_COMPLETION_PASS;
}

TEST(compaction_whose_new_file_has_lost_its_name_leaves_the_other_there)
{
    struct told told;
    char path[600];
    open_rig();
    snprintf(moved_path, sizeof(moved_path), "%s.moved", rig.path);
    snprintf(path, sizeof(path), "%s.other", rig.path);
    put_many(0, 10);
    open_other(path);
    ops_seen = 0;
    bm_completion_hook.fn = take_new;
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    bm_completion_hook.fn = NULL;
    CHECK_INT(told.res, -ESTALE);
    CHECK_INT(rig.failures, 0); /* its own file is where it was */
    CHECK(same_file(new_path, other.log->fd));
    put_many(10, 12);
    check_file();
    log_rig_deinit(&other);
    log_rig_deinit(&rig);
}

/* A close waits for the disk, and then it has all that was acknowledged, whatever it is called. */
TEST(compaction_that_a_close_gives_up_lets_a_moved_file_end_in_order)
{
    struct told told;
    struct bm_log_found found;
    log_rig_init(&rig);
    snprintf(moved_path, sizeof(moved_path), "%s.moved", rig.path);
    rig.options.policy = BM_LOG_NONE;
    log_rig_open(&rig);
    put_many(0, 10);
    REQUIRE_INT(rename(rig.path, moved_path), 0);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    CHECK_INT(log_rig_close(&rig), 0);
    CHECK_INT(told.res, -ECANCELED);
    CHECK_INT(bm_log_read_file(moved_path, NULL, NULL, &found), 0);
    CHECK(found.clean);
    CHECK_UINT(found.rev, 10);
    log_rig_deinit(&rig);
}

static struct told closing_told;

/* Behind the operation of that number, and before the rename is tried, the file is moved and the log closed. */
static enum bm_completion_verdict move_and_close(struct bm_op *op, int *res, uint32_t *flags,
                                                 void *arg)
{
    (void)res, (void)flags, (void)arg;
    if (op->kind == BM_OP_RENAME)
        move_at = 0;
    if (++ops_seen == move_at) {
        CHECK_INT(rename(rig.path, moved_path), 0);
        bm_log_close(rig.log, &closing_told.wait);
        rig.log = NULL;
    }
    return BM_COMPLETION_PASS;
}

TEST(compaction_that_a_close_gives_up_at_any_step_lets_a_moved_file_end_in_order)
{
    for (unsigned at = 1; at < 100; at++) {
        struct told told;
        struct bm_log_found found;
        test_note("moved behind operation %u", at);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%u.kv", test_tmpdir(), at);
        snprintf(moved_path, sizeof(moved_path), "%s.moved", rig.path);
        rig.options.policy = BM_LOG_NONE;
        rig.part_len = 4;
        log_rig_open(&rig);
        put_many(0, 10);
        told_init(&closing_told);
        ops_seen = 0;
        move_at = at;
        bm_completion_hook.fn = move_and_close;
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        if (move_at > 0 && closing_told.calls == 0)
            log_rig_until(&rig, &closing_told.calls);
        bm_completion_hook.fn = NULL;
        if (move_at == 0) {
            CHECK(at > 6);
            log_rig_deinit(&rig);
            return;
        }
        CHECK_INT(told.res, -ECANCELED);
        CHECK_INT(closing_told.res, 0);
        CHECK_INT(bm_log_read_file(moved_path, NULL, NULL, &found), 0);
        CHECK(found.clean);
        CHECK_UINT(found.rev, 10);
        log_rig_deinit(&rig);
    }
    CHECK(false);
}

/* R18: what nobody has is left over; what somebody has is not. */
TEST(compaction_leaves_alone_a_new_file_that_somebody_has)
{
    struct told told;
    struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    open_rig();
    put_many(0, 10);
    file_write(new_path, "somebody's", 10);
    int fd = open(new_path, O_RDWR | O_CLOEXEC);
    REQUIRE_INT(fcntl(fd, F_OFD_SETLK, &all), 0);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, -BEAM_EKV_LOCKED);
    CHECK_INT(rig.failures, 0);
    CHECK(same_file(new_path, fd));
    put_many(10, 12);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig); /* an open needs no new file here */
    CHECK(same_file(new_path, fd));
    CHECK_UINT(rig.found.rev, 12);
    close(fd);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, 0);
    CHECK(!file_exists(new_path));
    check_file();
    log_rig_deinit(&rig);
}

static void check_kept(const char *path)
{
    size_t len;
    uint8_t *bytes = file_read(path, &len);
    CHECK_MEM(bytes, len, "kept", 4);
    free(bytes);
}

/* A leftover may have other names, which keep what they have, and a mode that lets anybody write. */
TEST(compaction_makes_no_use_of_what_is_left_over)
{
    char kept_path[600];
    struct stat st;
    for (int first = 0; first < 2; first++) {
        struct told told;
        test_note("first file: %d", first);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), first);
        snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
        snprintf(kept_path, sizeof(kept_path), "%s.kept", rig.path);
        if (!first)
            log_rig_open(&rig);
        file_write(kept_path, "kept", 4);
        REQUIRE_INT(chmod(kept_path, 0666), 0);
        REQUIRE_INT(link(kept_path, new_path), 0);
        if (first) {
            log_rig_open(&rig);
        } else {
            REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
            log_rig_until(&rig, &told.calls);
            CHECK_INT(told.res, 0);
        }
        REQUIRE_INT(stat(rig.path, &st), 0);
        CHECK_INT(st.st_mode & 07777, 0600);
        CHECK_INT(st.st_nlink, 1);
        check_kept(kept_path);
        log_rig_deinit(&rig);
    }
}

static void make_in_the_way(const char *kept_path, int kind)
{
    if (kind == 0)
        REQUIRE_INT(symlink(kept_path, new_path), 0);
    else if (kind == 1)
        REQUIRE_INT(mkfifo(new_path, 0600), 0);
    else
        REQUIRE_INT(mkdir(new_path, 0700), 0);
}

TEST(compaction_and_open_touch_nothing_but_regular_files)
{
    char kept_path[600];
    struct stat before, after;
    for (int kind = 0; kind < 3; kind++) {
        struct told told;
        test_note("kind %d", kind);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), kind);
        snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
        snprintf(moved_path, sizeof(moved_path), "%s.moved", rig.path);
        snprintf(kept_path, sizeof(kept_path), "%s.kept", rig.path);
        file_write(kept_path, "kept", 4);
        make_in_the_way(kept_path, kind);
        REQUIRE_INT(lstat(new_path, &before), 0);
        CHECK_INT(log_rig_try_open(&rig), -EEXIST); /* there is no file to begin with */
        CHECK(strstr(rig.found.message, ".new") != NULL);
        REQUIRE_INT(rename(new_path, moved_path), 0);
        log_rig_open(&rig);
        put_many(0, 3);
        REQUIRE_INT(rename(moved_path, new_path), 0);
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        CHECK_INT(told.res, -EEXIST);
        CHECK_INT(rig.failures, 0);
        CHECK_INT(log_rig_close(&rig), 0);
        log_rig_open(&rig);
        CHECK_UINT(rig.found.rev, 3);
        REQUIRE_INT(lstat(new_path, &after), 0);
        CHECK_UINT(after.st_ino, before.st_ino);
        check_kept(kept_path);
        log_rig_deinit(&rig);
    }
}

/* --- a death between any two operations ------------------------------------------------------------ */

static char dead_path[600], dead_new_path[700];
static struct log_rig dead;
static uint64_t acknowledged;
static unsigned deaths;

static void copy_file(const char *from, const char *to)
{
    size_t len;
    unlink(to);
    if (!file_exists(from))
        return;
    uint8_t *bytes = file_read(from, &len);
    file_write(to, bytes, len);
    free(bytes);
}

/* As the two files are now, on another reactor: what was acknowledged is there, whole. */
static void open_dead(void)
{
    copy_file(rig.path, dead_path);
    copy_file(new_path, dead_new_path);
    int r =
        bm_log_open(dead.rig.reactor, &dead.options, log_rig_apply, &dead, &dead.log, &dead.found);
    test_note("death %u: %s", deaths, dead.found.message);
    REQUIRE_INT(r, 0);
    CHECK(dead.found.rev >= acknowledged);
    CHECK_UINT(dead.map.len, dead.found.rev); /* each put has a key of its own */
    CHECK(!file_exists(dead_new_path));
    dead.log = bm_log_free(dead.log);
    map_model_deinit(&dead.map);
    deaths++;
}

/* What a loss of power would take: files with bytes since their last sync, and a name. */
static bool dirty[64], name_dirty;

static void audit(const struct bm_op *op)
{
    REQUIRE(op->fd < 64);
    if (op->kind == BM_OP_WRITE) {
        CHECK(!name_dirty); /* nothing goes to a file whose name may be lost */
        dirty[op->fd] = true;
    } else if (op->kind == BM_OP_FSYNC && op->fd == rig.log->place.dir_fd) {
        name_dirty = false;
    } else if (op->kind == BM_OP_FSYNC) {
        dirty[op->fd] = false;
    } else if (op->kind == BM_OP_RENAME) {
        for (int fd = 0; fd < 64; fd++)
            CHECK(!dirty[fd]);
        name_dirty = true;
    }
}

static enum bm_completion_verdict die(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)res, (void)flags, (void)arg;
    if (op->kind == BM_OP_WRITE || op->kind == BM_OP_FSYNC || op->kind == BM_OP_RENAME)
        audit(op);
    if (op->kind == BM_OP_WRITE || op->kind == BM_OP_FSYNC || op->kind == BM_OP_RENAME)
        open_dead();
    return BM_COMPLETION_PASS;
}

static void acknowledge(struct bm_log_wait *wait, int res)
{
    CHECK_INT(res, 0);
    CHECK(!dirty[rig.log->fd] && !name_dirty);
    acknowledged = wait->rev;
}

TEST(compaction_may_be_killed_between_any_two_operations)
{
    static struct told waits[200];
    struct told told;
    int appended = 0;
    open_rig();
    rig.part_len = 10;
    acknowledged = deaths = 0;
    memset(dirty, 0, sizeof(dirty));
    name_dirty = false;
    snprintf(dead_path, sizeof(dead_path), "%s.dead", rig.path);
    snprintf(dead_new_path, sizeof(dead_new_path), "%s.dead.new", rig.path);
    memset(&dead, 0, sizeof(dead));
    dead.options = (struct bm_log_options){.path = dead_path, .step_len = 4096};
    rig_open(&dead.rig);
    bm_completion_hook.fn = die;
    put_many(0, 20);
    acknowledged = 20;
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    while (told.calls == 0 && appended < 200) {
        struct body body = {.len = 0};
        char key[16];
        snprintf(key, sizeof(key), "a%04d", appended); /* in front of what is copied */
        body_put(&body, key, appended);
        told_init(&waits[appended]);
        waits[appended].wait.fn = acknowledge;
        REQUIRE_INT(bm_log_append(rig.log, body.bytes, body.len, &waits[appended].wait, NULL), 0);
        map_model_change(&rig.map, body.bytes, body.len);
        appended++;
        for (unsigned before = deaths; deaths == before && told.calls == 0;)
            bm_reactor_turn(rig.rig.reactor);
    }
    CHECK_INT(told.calls, 1); /* with appends to the end */
    CHECK_INT(told.res, 0);
    put_many(100, 101);
    CHECK(deaths > 12);
    rig_settle(&rig.rig);
    bm_completion_hook.fn = NULL;
    check_file();
    rig_close(&dead.rig);
    log_rig_deinit(&rig);
}
