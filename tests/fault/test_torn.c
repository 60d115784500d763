/* What a crash or a bad disk may leave of a file: R14 and R17 over every state that can be made.
 *
 * A history is written by a real log, group by group, and each group's place is noted. From its bytes come
 * the files that a crash could have left: of what had not been synced any sectors are there, the others are
 * as before. Each is judged as an open judges it: what was acknowledged as durable is there, what is there
 * is a prefix of the history, and no torn tail is called damage. The other way round, what had been durable
 * and is changed afterwards is refused or made no difference.
 *
 * BEAM_TORN_HISTORIES: how many histories (4); each gives some 15 000 states. */
#include "kv/recovery.h"
#include "tests/unit/kv/log_rig.h"

enum { SECTOR = 512, GROUPS_MAX = 64, REVS_MAX = 512, SUBSETS_ALL = 7, SUBSETS_MOST = 128 };

struct group {
    size_t end;         /* of the file, when it had been written */
    size_t durable_end; /* and what of it was durable before */
    uint64_t rev, durable_rev;
};

struct history {
    uint8_t *bytes;
    size_t len, cap; /* cap: with the room set aside behind */
    struct group groups[GROUPS_MAX];
    size_t groups_len;
    struct body bodies[REVS_MAX]; /* by revision */
    uint64_t rev;
};

static struct log_rig rig;
static struct history history;
static unsigned long states, opened;

static void random_body(struct test_random *random, struct body *body)
{
    static uint8_t value[1500];
    body->len = 0;
    for (int i = 0; i < 6; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key %d", i);
        switch (test_random_below(random, 8)) {
        case 0:
            body_del(body, key);
            break;
        case 1:
            body_put(body, key, (int64_t)test_random_next(random));
            break;
        case 2:
            test_random_fill(random, value, sizeof(value));
            body_add(body, BEAM_KV_BYTES, key, value, test_random_below(random, 400));
            break;
        case 3:
            memset(value, 0, sizeof(value)); /* looks like the end of the records */
            body_add(body, BEAM_KV_BYTES, key, value, test_random_below(random, 1000));
            break;
        default:
            break;
        }
    }
}

/* What of the file is surely durable: up to the end of the last group that is. */
static size_t durable_end(size_t begin)
{
    size_t end = begin;
    for (size_t i = 0; i < history.groups_len; i++)
        if (history.groups[i].rev <= bm_log_state(rig.log).durable_rev)
            end = history.groups[i].end;
    return end;
}

/* Groups of one to four transactions; under BATCH some of them are synced while the next is written. */
static void write_history(uint64_t seed, enum bm_log_policy policy, size_t groups_len, bool at_rest)
{
    struct test_random random = test_random(seed);
    struct told told;
    static struct told syncs[GROUPS_MAX];
    history = (struct history){0};
    log_rig_init(&rig);
    snprintf(rig.path, sizeof(rig.path), "%s/%llu-%d.kv", test_tmpdir(), (unsigned long long)seed,
             policy);
    rig.options.policy = policy;
    rig.options.interval_ns = 3600 * BM_NS_PER_S;
    rig.options.idle_ns = at_rest ? 1 : 3600 * BM_NS_PER_S;
    log_rig_open(&rig);
    size_t begin = (size_t)bm_log_state(rig.log).file_len;
    while (history.groups_len < groups_len) {
        size_t index = history.groups_len;
        struct group *group = &history.groups[index];
        uint64_t count = 1 + test_random_below(&random, 4);
        group->durable_end = durable_end(begin);
        group->durable_rev = bm_log_state(rig.log).durable_rev;
        for (uint64_t n = 0; n < count; n++) {
            struct body *body = &history.bodies[++history.rev];
            random_body(&random, body);
            REQUIRE_INT(log_rig_append(&rig, body, n + 1 == count ? &told : NULL, NULL), 0);
        }
        log_rig_until(&rig, &told.calls);
        group->end = (size_t)bm_log_state(rig.log).file_len;
        group->rev = history.rev;
        history.groups_len++;
        told_init(&syncs[index]);
        if (policy == BM_LOG_BATCH && test_random_below(&random, 4) == 0)
            REQUIRE_INT(bm_log_sync(rig.log, &syncs[index].wait), 0);
    }
    while (bm_log_state(rig.log).durable_rev < history.rev && policy == BM_LOG_EACH)
        bm_reactor_turn(rig.rig.reactor);
    uint64_t groups = bm_log_state(rig.log).groups;
    while (at_rest && bm_log_state(rig.log).groups == groups)
        bm_reactor_turn(rig.rig.reactor);
    rig_settle(&rig.rig);
    history.len = (size_t)bm_log_state(rig.log).file_len;
    history.bytes = file_read(rig.path, &history.cap);
    REQUIRE(history.cap >= history.len);
    log_rig_drop(&rig);
}

static void end_history(void)
{
    free(history.bytes);
    log_rig_deinit(&rig);
}

struct verdict {
    int r;
    uint64_t rev;
    bool prefix; /* all that was read is the history's */
    size_t offset;
    uint64_t cut_len;
};

static int compare(void *arg, const struct bm_record *record)
{
    struct verdict *v = arg;
    if (record->kind != BM_RECORD_DELTA)
        return 0;
    v->rev++;
    const struct body *body = &history.bodies[v->rev];
    v->prefix = v->prefix && v->rev == record->rev && v->rev <= history.rev &&
                record->body_len == body->len && memcmp(record->body, body->bytes, body->len) == 0;
    return 0;
}

/* As bm_log_open() does, without a file. */
static struct verdict judge(const uint8_t *bytes, size_t len)
{
    struct verdict v = {.prefix = true};
    struct bm_window window;
    struct bm_recovery recovery = {0};
    bm_window_over(&window, bytes, len);
    v.r = bm_recovery_follow(&window, true, compare, &v, &recovery);
    if (v.r == 0)
        v.r = bm_recovery_judge(&window, &recovery);
    v.offset = (size_t)recovery.scan.offset;
    v.cut_len = recovery.tail_len;
    states++;
    return v;
}

/* The same with a file, for some of them; and then on from there. */
static void open_really(const uint8_t *bytes, size_t len, struct verdict expected)
{
    file_write(rig.path, bytes, len);
    int r = log_rig_try_open(&rig);
    CHECK_INT(r, expected.r);
    if (r == 0) {
        CHECK_UINT(rig.found.rev, expected.rev);
        CHECK_UINT(rig.found.cut_len, expected.cut_len);
        log_rig_put(&rig, "next", 1);
        log_rig_drop(&rig);
        log_rig_open(&rig);
        CHECK_UINT(rig.found.rev, expected.rev + 1);
        CHECK_UINT(rig.found.cut_len, 0);
        log_rig_drop(&rig);
    }
    opened++;
}

static void check_torn(const uint8_t *image, size_t len, const struct group *group, bool all)
{
    struct verdict v = judge(image, len);
    CHECK_INT(v.r, 0);
    CHECK(v.prefix);
    CHECK(v.rev >= group->durable_rev);
    CHECK(v.rev <= group->rev);
    if (all)
        CHECK_UINT(v.rev, group->rev);
    if (states % 499 == 0)
        open_really(image, len, v);
}

static unsigned histories(void)
{
    const char *wanted = getenv("BEAM_TORN_HISTORIES");
    return wanted ? (unsigned)strtoul(wanted, NULL, 10) : 4;
}

/* --- reordered sectors ---------------------------------------------------------------------------- */

/* The same file as it would be in another epoch: what may have stood there before. */
static uint8_t *stale_bytes(void)
{
    uint8_t *stale = calloc(1, history.cap);
    memcpy(stale, history.bytes, history.len);
    struct bm_record_head head;
    REQUIRE_INT(bm_record_read_head(stale, history.len, &head), 0);
    for (size_t at = BM_RECORD_HEAD_LEN; at < history.len;) {
        struct bm_record record;
        REQUIRE_INT(bm_record_read(stale + at, history.len - at, head.epoch, &record, NULL), 1);
        bm_record_write(stale + at, record.kind, record.rev, record.body, record.body_len,
                        head.epoch + 1);
        at += record.len;
    }
    return stale;
}

static void check_subset(const uint8_t *before, const struct group *group, uint64_t subset,
                         uint8_t *image)
{
    size_t from = group->durable_end, to = group->end, first = from / SECTOR;
    memcpy(image, before, history.cap);
    memcpy(image, history.bytes, from);
    size_t sectors = (to + SECTOR - 1) / SECTOR - first;
    bool all = true;
    for (size_t s = 0; s < sectors; s++) {
        size_t begin = (first + s) * SECTOR, end = begin + SECTOR;
        if (begin < from)
            begin = from;
        if (end > to)
            end = to;
        if (subset >> (s % 64) & 1)
            memcpy(image + begin, history.bytes + begin, end - begin);
        else
            all = false;
    }
    check_torn(image, history.cap, group, all);
}

static void check_reordered(const uint8_t *before, uint64_t seed)
{
    struct test_random random = test_random(seed);
    uint8_t *image = malloc(history.cap);
    for (size_t i = 0; i < history.groups_len; i++) {
        const struct group *group = &history.groups[i];
        size_t sectors = (group->end + SECTOR - 1) / SECTOR - group->durable_end / SECTOR;
        bool every = sectors <= SUBSETS_ALL;
        uint64_t count = every ? UINT64_C(1) << sectors : SUBSETS_MOST;
        test_note("seed %llu, group %zu of %zu sectors", (unsigned long long)seed, i, sectors);
        for (uint64_t n = 0; n < count; n++)
            check_subset(before, group, every ? n : test_random_next(&random), image);
    }
    free(image);
}

TEST(torn_groups_lose_nothing_that_was_acknowledged_in_whatever_order_sectors_came)
{
    states = 0;
    for (unsigned seed = 1; states < 50000 || seed <= histories(); seed++) {
        for (enum bm_log_policy policy = BM_LOG_EACH; policy <= BM_LOG_BATCH; policy++) {
            write_history(seed, policy, 24, false);
            uint8_t *zeros = calloc(1, history.cap), *stale = stale_bytes();
            check_reordered(zeros, seed);
            check_reordered(stale, seed + 1000);
            free(stale);
            free(zeros);
            end_history();
        }
    }
    CHECK(states >= 50000);
    CHECK(opened >= 100);
}

/* --- cut short ------------------------------------------------------------------------------------ */

TEST(torn_files_may_be_cut_at_every_byte)
{
    write_history(7, BM_LOG_EACH, 24, false);
    uint8_t *image = malloc(history.cap);
    memcpy(image, history.bytes, history.cap);
    uint64_t before = 0;
    for (size_t len = 0; len <= history.len; len++) {
        struct verdict v = judge(image, len);
        test_note("%zu bytes", len);
        if (len < BM_RECORD_HEAD_LEN + BM_RECORD_BARE_LEN) {
            CHECK_INT(v.r, len < 8 ? -BEAM_EKV_FORMAT : -BEAM_EKV_CORRUPT);
            continue;
        }
        CHECK_INT(v.r, 0);
        CHECK(v.prefix);
        CHECK(v.rev == before || v.rev == before + 1);
        before = v.rev;
        if (len % 401 == 0)
            open_really(image, len, v);
    }
    CHECK_UINT(before, history.rev);
    /* and the same with the room set aside behind */
    for (size_t len = history.len; len-- > BM_RECORD_HEAD_LEN + BM_RECORD_BARE_LEN;) {
        image[len] = 0;
        struct verdict v = judge(image, history.cap < len + 4096 ? history.cap : len + 4096);
        test_note("%zu bytes, then zeros", len);
        CHECK_INT(v.r, 0);
        CHECK(v.prefix);
        CHECK(v.rev == before || v.rev + 1 == before);
        before = v.rev;
    }
    CHECK_UINT(before, 0);
    free(image);
    end_history();
}

/* --- rot ------------------------------------------------------------------------------------------ */

/* Whatever has been changed in a file at rest: it is refused, or the whole history is there. Where the last
 * mark itself has gone together with what it speaks of, that is cut, and told. */
static struct verdict check_rotten(const uint8_t *image, size_t len)
{
    struct verdict v = judge(image, len);
    size_t mark = history.len - BM_RECORD_BARE_LEN;
    bool mark_lost = memcmp(image + mark, history.bytes + mark, BM_RECORD_BARE_LEN) != 0;
    if (v.r == 0) {
        CHECK(v.prefix);
        CHECK(v.rev == history.rev || mark_lost);
        CHECK(v.offset >= mark || v.cut_len > 0);
    } else {
        CHECK(v.r == -BEAM_EKV_CORRUPT || v.r == -BEAM_EKV_FORMAT);
    }
    if (states % 2003 == 0)
        open_really(image, len, v);
    return v;
}

TEST(rot_of_any_bit_of_a_file_at_rest_is_refused_or_has_changed_nothing)
{
    unsigned long refused = 0;
    write_history(11, BM_LOG_EACH, 6, true);
    size_t len = history.len + 64; /* and some zeros */
    REQUIRE(len <= history.cap);
    uint8_t *image = malloc(len);
    memcpy(image, history.bytes, len);
    for (size_t bit = 0; bit < 8 * len; bit++) {
        test_note("bit %zu", bit);
        image[bit / 8] ^= (uint8_t)(1 << bit % 8);
        struct verdict v = check_rotten(image, len);
        CHECK(v.r < 0 || v.rev == history.rev);
        refused += v.r < 0;
        image[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    free(image);
    CHECK_UINT(refused, 8 * (history.len - BM_RECORD_BARE_LEN)); /* all but the last mark */
    end_history();
}

TEST(rot_of_any_sector_of_a_file_at_rest_is_refused_or_has_changed_nothing)
{
    write_history(12, BM_LOG_EACH, 24, true);
    struct test_random random = test_random(0);
    uint8_t *image = malloc(history.cap);
    for (size_t size = SECTOR; size <= 4096; size *= 8) {
        for (size_t at = 0; at < history.len; at += size) {
            for (int kind = 0; kind < 8; kind++) {
                size_t len = at + size > history.cap ? history.cap - at : size;
                memcpy(image, history.bytes, history.cap);
                if (kind == 0)
                    memset(image + at, 0, len);
                else if (kind == 1)
                    memset(image + at, 0xff, len);
                else if (kind == 2 && at >= size) /* written to the wrong place */
                    memcpy(image + at, history.bytes + at - size, len);
                else
                    test_random_fill(&random, image + at, len);
                test_note("%zu bytes at %zu, kind %d", size, at, kind);
                check_rotten(image, history.cap);
            }
        }
    }
    free(image);
    end_history();
}

/* As the specification says (section 11): what has no mark behind it looks torn, is cut, and that is told. */
TEST(rot_in_the_last_group_before_its_mark_is_cut_and_told)
{
    write_history(13, BM_LOG_EACH, 24, false);
    const struct group *last = &history.groups[history.groups_len - 1], *before = last - 1;
    for (size_t at = before->end; at < history.len; at += 7) {
        test_note("byte %zu", at);
        history.bytes[at] ^= 0x10;
        struct verdict v = judge(history.bytes, history.cap);
        CHECK_INT(v.r, 0);
        CHECK(v.prefix);
        CHECK(v.rev >= before->rev && v.rev < last->rev);
        CHECK(v.cut_len > 0);
        history.bytes[at] ^= 0x10;
    }
    end_history();
}
