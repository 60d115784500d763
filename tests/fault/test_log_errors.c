/* A log whose disk or memory fails: R15. Every operation and every allocation fails once; writes come
 * short, files reach their limits, and file systems fill up. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "kv/log_inner.h"
#include "tests/support/fault.h"
#include "tests/unit/kv/log_rig.h"
#include "uring/completion.h"

static struct log_rig rig;

/* --- the C library's, watched --------------------------------------------------------------------- */

static bool no_fallocate, disk_full;
static int disk_full_but = -1; /* with disk_full: not for this file */
static unsigned fallocates;
static int interruptions;                 /* of fallocate, one after the other */
static uint64_t written_from, written_to; /* of the last pwrite(2) */
static int pwrites, syncs;

int fallocate(int fd, int mode, off_t offset, off_t len)
{
    if (no_fallocate) {
        errno = EOPNOTSUPP;
        return -1;
    }
    fallocates++;
    if (disk_full && fd != disk_full_but) {
        errno = ENOSPC;
        return -1;
    }
    if (interruptions > 0) {
        interruptions--;
        errno = EINTR;
        return -1;
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, len);
}

static bool no_fchown;

int fchown(int fd, uid_t uid, gid_t gid)
{
    if (no_fchown) {
        errno = EPERM;
        return -1;
    }
    return (int)syscall(SYS_fchown, fd, uid, gid);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset)
{
    pwrites++;
    written_from = (uint64_t)offset;
    written_to = (uint64_t)offset + len;
    return syscall(SYS_pwrite64, fd, bytes, len, offset);
}

int fdatasync(int fd)
{
    syncs++;
    return (int)syscall(SYS_fdatasync, fd);
}

static int directory_syncs;

int fsync(int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode))
        directory_syncs++;
    return (int)syscall(SYS_fsync, fd);
}

/* --- operations that fail ------------------------------------------------------------------------- */

static unsigned strike_at, ops_seen, ops_after;
static int strike_error;
static bool struck;

/* What has failed has happened not at all, or in part. */
static void undo(const struct bm_op *op)
{
    static const uint8_t zeros[4096];
    size_t len = op->len / 2 < sizeof(zeros) ? op->len / 2 : sizeof(zeros);
    if (op->kind == BM_OP_WRITE)
        CHECK_INT(syscall(SYS_pwrite64, op->fd, zeros, len, op->offset + op->len - len), len);
}

static enum bm_completion_verdict strike(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)flags, (void)arg;
    if (op->kind != BM_OP_WRITE && op->kind != BM_OP_FSYNC)
        return BM_COMPLETION_PASS;
    ops_after += struck;
    if (++ops_seen == strike_at) {
        struck = true;
        *res = strike_error;
        undo(op);
    }
    return BM_COMPLETION_PASS;
}

enum { APPENDS = 12, WAITS = APPENDS + 2 };

static struct told waits[WAITS];

/* Twelve transactions in six groups, each with a key of its own, and two syncs. Returns how many began. */
static int run_appends(void)
{
    int n = 0, r = 0;
    memset(waits, 0, sizeof(waits));
    for (int i = 0; i < APPENDS && r == 0; i++) {
        struct body body = {.len = 0};
        char key[16];
        snprintf(key, sizeof(key), "k%02d", i);
        body_put(&body, key, i);
        r = log_rig_append(&rig, &body, &waits[n], NULL);
        n += r == 0;
        if (r == 0 && i % 2)
            log_rig_until(&rig, &waits[n - 1].calls);
        if (r == 0 && i % 6 == 5) {
            told_init(&waits[n]);
            r = bm_log_sync(rig.log, &waits[n].wait);
            n += r == 0;
            if (r == 0)
                log_rig_until(&rig, &waits[n - 1].calls);
        }
    }
    CHECK(r == 0 || r == -EROFS);
    return n;
}

static void check_read_only(void)
{
    struct told told;
    struct body body = {.len = 0};
    body_put(&body, "more", 1);
    CHECK_INT(rig.failures, 1);
    CHECK_INT(rig.failure, strike_error);
    CHECK_INT(bm_log_state(rig.log).error, strike_error);
    CHECK_INT(log_rig_append(&rig, &body, &told, NULL), -EROFS);
    CHECK_INT(bm_log_sync(rig.log, &told.wait), -EROFS);
    CHECK_INT(bm_log_compact(rig.log, &rig.source, &told.wait), -EROFS);
}

/* One strike; returns whether there was an operation to strike. */
static bool run_struck(enum bm_log_policy policy, unsigned at, int error)
{
    uint64_t acknowledged = 0;
    log_rig_init(&rig);
    snprintf(rig.path, sizeof(rig.path), "%s/%d-%u-%d.kv", test_tmpdir(), policy, at, -error);
    rig.options.policy = policy;
    rig.options.interval_ns = 1;
    log_rig_open(&rig);
    strike_at = at;
    strike_error = error;
    ops_seen = ops_after = 0;
    struck = false;
    bm_completion_hook.fn = strike;

    int n = run_appends();
    for (int i = 0; i < n; i++) {
        CHECK_INT(waits[i].calls, 1);
        if (waits[i].res == 0 && waits[i].wait.rev > acknowledged)
            acknowledged = waits[i].wait.rev;
        CHECK(waits[i].res == 0 || waits[i].res == error);
    }
    bool in_appends = struck;
    if (in_appends)
        check_read_only();
    int closed = log_rig_close(&rig);
    CHECK_INT(closed, struck ? error : 0);
    CHECK(ops_after <= 1); /* what was on its way already, and nothing again */
    CHECK_INT(rig.failures, struck);
    bm_completion_hook.fn = NULL;

    log_rig_open(&rig);
    CHECK(rig.found.rev >= acknowledged);
    CHECK_UINT(rig.map.len, rig.found.rev); /* a prefix, whole */
    CHECK(!in_appends || !rig.found.clean);
    log_rig_put(&rig, "goes on", 1);
    log_rig_deinit(&rig);
    return struck;
}

TEST(log_with_any_operation_failing_is_read_only_and_keeps_what_it_acknowledged)
{
    static const int errors[] = {-EIO, -ENOSPC, -EAGAIN};
    for (enum bm_log_policy policy = BM_LOG_EACH; policy <= BM_LOG_NONE; policy++) {
        unsigned at = 1;
        for (bool more = true; more && at < 100; at++) {
            test_note("policy %d, operation %u", policy, at);
            more = run_struck(policy, at, errors[at % 3]);
        }
        CHECK(at > (policy == BM_LOG_EACH ? 13 : 9));
    }
}

static enum bm_completion_verdict fail_names(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)flags, (void)arg;
    if (op->kind == BM_OP_FSYNC && op->fd == rig.log->place.dir_fd)
        *res = -EIO;
    return BM_COMPLETION_PASS;
}

/* After the rename the old file has no name, and whether the new one has it after a loss of power is what a
 * sync of the directory would have said. */
TEST(log_whose_new_file_has_no_durable_name_calls_nothing_durable_that_was_not)
{
    struct told told;
    log_rig_init(&rig);
    rig.options.policy = BM_LOG_NONE;
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    CHECK_UINT(bm_log_state(rig.log).durable_rev, 0);
    bm_completion_hook.fn = fail_names;
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    bm_completion_hook.fn = NULL;
    CHECK_INT(told.res, -EIO);
    CHECK_INT(bm_log_state(rig.log).error, -EIO);
    CHECK_UINT(bm_log_state(rig.log).durable_rev, 0);
    CHECK_INT(log_rig_close(&rig), -EIO);
    log_rig_deinit(&rig);
}

/* --- short writes --------------------------------------------------------------------------------- */

static struct test_random luck;
static bool cut_short;

/* A write that has come short has cancelled the sync behind it. */
static enum bm_completion_verdict shorten(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)flags, (void)arg;
    if (op->kind == BM_OP_WRITE && *res > 1 && test_random_below(&luck, 3) > 0) {
        *res = 1 + (int)test_random_below(&luck, (uint64_t)*res - 1);
        cut_short = true;
        undo(op);
        /* the rest was not written, but the part that was says so */
        CHECK_INT(syscall(SYS_pwrite64, op->fd, op->addr, *res, op->offset), *res);
    } else if (op->kind == BM_OP_WRITE) {
        cut_short = false;
    } else if (op->kind == BM_OP_FSYNC && cut_short) {
        cut_short = false;
        *res = -ECANCELED;
    }
    return BM_COMPLETION_PASS;
}

TEST(log_goes_on_where_a_write_has_come_short)
{
    for (enum bm_log_policy policy = BM_LOG_EACH; policy <= BM_LOG_NONE; policy++) {
        struct told told;
        test_note("policy %d", policy);
        luck = test_random(0);
        cut_short = false;
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), policy);
        rig.options.policy = policy;
        rig.options.interval_ns =
            3600 * BM_NS_PER_S; /* no sync beside a write, which would be taken for its own */
        rig.part_len = 3;
        log_rig_open(&rig);
        bm_completion_hook.fn = shorten;
        int n = run_appends();
        CHECK_INT(n, WAITS);
        for (int i = 0; i < n; i++)
            CHECK_INT(waits[i].res, 0);
        bm_completion_hook.fn = policy == BM_LOG_EACH ? NULL : shorten;
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        CHECK_INT(rig.failures, 0);
        bm_completion_hook.fn = NULL;
        CHECK_INT(log_rig_close(&rig), 0);
        log_rig_open(&rig);
        CHECK_UINT(rig.found.rev, APPENDS);
        CHECK_UINT(rig.map.len, APPENDS);
        log_rig_deinit(&rig);
    }
}

/* --- limits --------------------------------------------------------------------------------------- */

static void limit_file(rlim_t len)
{
    struct rlimit limit;
    REQUIRE_INT(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = len;
    REQUIRE_INT(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Appends values of 1000 bytes, one group each, until one is refused or not acknowledged. */
static int append_until_it_fails(int *ret_acknowledged)
{
    static char value[1000];
    struct told told;
    for (int i = 0;; i++) {
        struct body body = {.len = 0};
        char key[16];
        snprintf(key, sizeof(key), "k%05d", *ret_acknowledged);
        body_add(&body, BEAM_KV_BYTES, key, value, sizeof(value));
        int r = log_rig_append(&rig, &body, &told, NULL);
        if (r < 0)
            return r;
        log_rig_until(&rig, &told.calls);
        if (told.res < 0)
            return told.res;
        ++*ret_acknowledged;
        REQUIRE(i < 5000);
    }
}

TEST(log_at_the_limit_of_its_file_refuses_appends_and_goes_on_below_it)
{
    int acknowledged = 0;
    struct told told;
    signal(SIGXFSZ, SIG_IGN);
    log_rig_init(&rig);
    rig.options.step_len = 4096;
    log_rig_open(&rig);
    limit_file(40000);
    CHECK_INT(append_until_it_fails(&acknowledged), -EFBIG);
    CHECK(acknowledged >= 33 && acknowledged < 40);
    CHECK_INT(rig.failures, 0);
    CHECK_INT(append_until_it_fails(&acknowledged), -EFBIG);

    /* compaction finds no room for so much: nothing has happened */
    limit_file(30000);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, -EFBIG);
    CHECK_INT(rig.failures, 0);

    limit_file(80000);
    CHECK_INT(append_until_it_fails(&acknowledged), -EFBIG);
    CHECK(acknowledged > 70);
    limit_file(RLIM_INFINITY);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, acknowledged);
    CHECK_UINT(rig.map.len, acknowledged);
    signal(SIGXFSZ, SIG_DFL);
    log_rig_deinit(&rig);
}

/* Where no room can be set aside, the write itself meets the limit: in part first, which is real, and
 * then not at all. Nobody knows what a disk without room has kept: the log has failed. */
TEST(log_without_room_set_aside_fails_at_the_limit_and_keeps_what_it_acknowledged)
{
    int acknowledged = 0;
    signal(SIGXFSZ, SIG_IGN);
    log_rig_init(&rig);
    no_fallocate = true;
    log_rig_open(&rig);
    limit_file(40500);
    CHECK_INT(append_until_it_fails(&acknowledged), -EFBIG);
    CHECK(acknowledged >= 36 && acknowledged < 41);
    CHECK_INT(rig.failures, 1);
    CHECK_INT(rig.failure, -EFBIG);
    limit_file(RLIM_INFINITY);
    CHECK_INT(log_rig_close(&rig), -EFBIG);
    struct stat st;
    REQUIRE_INT(stat(rig.path, &st), 0);
    CHECK_INT(st.st_size, 40500); /* the part that came */
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, acknowledged);
    CHECK_UINT(rig.map.len, acknowledged);
    CHECK(rig.found.cut_len > 0);
    no_fallocate = false;
    signal(SIGXFSZ, SIG_DFL);
    log_rig_deinit(&rig);
}

/* A signal that comes while room is set aside (fallocate(2)) is no reason to refuse anything. */
TEST(log_that_is_interrupted_while_it_grows_takes_the_append)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    interruptions = 3;
    log_rig_put(&rig, "a", 1);
    CHECK_INT(interruptions, 0);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_deinit(&rig);
}

TEST(log_that_may_not_give_its_new_file_to_a_group_gives_the_bits_of_that_to_no_other)
{
    enum { GROUP = 54321 };
    if (geteuid() != 0)
        SKIP("a file of another group takes root");
    for (int may = 0; may < 2; may++) {
        struct told told;
        struct stat st;
        log_rig_init(&rig);
        log_rig_open(&rig);
        log_rig_put(&rig, "a", 1);
        REQUIRE(chown(rig.path, (uid_t)-1, GROUP) == 0 && chmod(rig.path, 0664) == 0);
        no_fchown = !may;
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        no_fchown = false;
        CHECK_INT(told.res, 0);
        REQUIRE_INT(stat(rig.path, &st), 0);
        CHECK_INT(st.st_gid == GROUP, may);
        CHECK_INT(st.st_mode & 0777, may ? 0664 : 0604);
        CHECK_INT(log_rig_close(&rig), 0);
        log_rig_deinit(&rig);
    }
}

TEST(log_on_a_full_file_system_refuses_appends_until_there_is_room)
{
    char dir[600], filler[700];
    int acknowledged = 0;
    struct told told;
    if (geteuid() != 0)
        SKIP("a file system of its own takes root");
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        SKIP("no mounts of its own here");
    snprintf(dir, sizeof(dir), "%s/small", test_tmpdir());
    REQUIRE_INT(mkdir(dir, 0700), 0);
    REQUIRE_INT(mount("tmpfs", dir, "tmpfs", 0, "size=1m"), 0);
    snprintf(filler, sizeof(filler), "%s/filler", dir);
    static char fill[300000];
    file_write(filler, fill, sizeof(fill));

    log_rig_init(&rig);
    snprintf(rig.path, sizeof(rig.path), "%s/store.kv", dir);
    log_rig_open(&rig);
    CHECK_INT(append_until_it_fails(&acknowledged), -ENOSPC);
    CHECK(acknowledged > 600);
    CHECK_INT(rig.failures, 0);
    int before = acknowledged;
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, -ENOSPC);
    unlink(filler);
    CHECK_INT(append_until_it_fails(&acknowledged), -ENOSPC);
    CHECK(acknowledged > before + 200);
    CHECK_INT(rig.failures, 0);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    CHECK(rig.found.clean);
    CHECK_UINT(rig.found.rev, acknowledged);
    CHECK_UINT(rig.map.len, acknowledged);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_deinit(&rig);
    CHECK_INT(umount(dir), 0);
}

/* --- room ----------------------------------------------------------------------------------------- */

static void put_large(const char *key, int expected)
{
    static char value[3000];
    struct body body = {.len = 0};
    struct told told;
    body_add(&body, BEAM_KV_BYTES, key, value, sizeof(value));
    int r = log_rig_append(&rig, &body, &told, NULL);
    CHECK_INT(r, expected);
    if (r < 0)
        return;
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, 0);
}

/* Room for a state of one value, and no more, is enough to get rid of a history. */
TEST(log_at_the_limit_of_its_file_can_be_compacted_when_its_state_fits)
{
    struct told told;
    signal(SIGXFSZ, SIG_IGN);
    log_rig_init(&rig);
    log_rig_open(&rig);
    for (int i = 0; i < 20; i++)
        put_large("k", 0);
    limit_file(16384); /* of any file: the old one is longer already */
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, 0);
    CHECK_INT(rig.failures, 0);
    CHECK(bm_log_state(rig.log).file_len < 4000);
    put_large("k", 0);
    limit_file(RLIM_INFINITY);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, 21);
    signal(SIGXFSZ, SIG_DFL);
    log_rig_deinit(&rig);
}

static struct told meanwhile;
static int meanwhile_r;

/* The new file has its name, and the log is held: what is appended now has room in the old file, and is
 * written to the new one. */
static enum bm_completion_verdict append_behind_rename(struct bm_op *op, int *res, uint32_t *flags,
                                                       void *arg)
{
    static char value[3000];
    struct body body = {.len = 0};
    (void)res, (void)flags, (void)arg;
    if (op->kind != BM_OP_RENAME)
        return BM_COMPLETION_PASS;
    body_add(&body, BEAM_KV_BYTES, "meanwhile", value, sizeof(value));
    disk_full_but = rig.log->fd;
    meanwhile_r = log_rig_append(&rig, &body, &meanwhile, NULL);
    disk_full_but = -1;
    return BM_COMPLETION_PASS;
}

TEST(log_whose_new_file_has_no_room_for_an_append_refuses_that_and_goes_on)
{
    for (int full = 0; full < 2; full++) {
        struct told told;
        test_note("full: %d", full);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%d.kv", test_tmpdir(), full);
        rig.options.step_len = 4096;
        log_rig_open(&rig);
        put_large("k", 0);
        disk_full = full;
        meanwhile_r = 1;
        meanwhile = (struct told){0};
        bm_completion_hook.fn = append_behind_rename;
        REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
        log_rig_until(&rig, &told.calls);
        bm_completion_hook.fn = NULL;
        disk_full = false;
        CHECK_INT(told.res, 0);
        CHECK_INT(meanwhile_r, full ? -ENOSPC : 0);
        if (!full && meanwhile.calls == 0)
            log_rig_until(&rig, &meanwhile.calls);
        CHECK_INT(meanwhile.res, 0);
        put_large("more", 0);
        CHECK_INT(rig.failures, 0);
        CHECK_INT(log_rig_close(&rig), 0);
        log_rig_open(&rig);
        CHECK_UINT(rig.found.rev, full ? 2 : 3);
        log_rig_deinit(&rig);
    }
}

/* What the kernel is asked for ahead finds no room either. */
static enum bm_completion_verdict refuse_rooms(struct bm_op *op, int *res, uint32_t *flags,
                                               void *arg)
{
    (void)flags, (void)arg;
    if (op->kind == BM_OP_FALLOCATE && disk_full)
        *res = -ENOSPC;
    return BM_COMPLETION_PASS;
}

TEST(log_on_a_full_disk_asks_once_for_each_change_and_in_steps_again_when_there_is_room)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    bm_completion_hook.fn = refuse_rooms;
    disk_full = false;
    put_large("k", 0); /* there is a first step */
    disk_full = true;
    int refused = 0;
    static char value[3000];
    struct body body = {.len = 0};
    body_add(&body, BEAM_KV_BYTES, "k", value, sizeof(value));
    rig_settle(&rig.rig);
    while (refused < 10) {
        fallocates = 0;
        int r = log_rig_append(&rig, &body, NULL, NULL);
        rig_settle(&rig.rig);
        CHECK(r == 0 || r == -ENOSPC);
        CHECK(fallocates <= (refused == 0 ? 2 : 1));
        refused += r < 0;
    }
    disk_full = false;
    fallocates = 0;
    for (int i = 0; i < 200; i++)
        put_large("k", 0);
    rig_settle(&rig.rig);
    bm_completion_hook.fn = NULL;
    CHECK(fallocates < 20); /* of 4096 bytes, 8192 and so on, not 150 times 4096 */
    CHECK_INT(rig.failures, 0);
    log_rig_deinit(&rig);
}

static unsigned rooms_made;

static enum bm_completion_verdict count_rooms(struct bm_op *op, int *res, uint32_t *flags,
                                              void *arg)
{
    (void)flags, (void)arg;
    rooms_made += op->kind == BM_OP_FALLOCATE && *res == 0;
    return BM_COMPLETION_PASS;
}

TEST(log_has_room_made_ahead_by_the_kernel_and_waits_for_the_first_step_alone)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    fallocates = rooms_made = 0;
    bm_completion_hook.fn = count_rooms;
    for (int i = 0; i < 200; i++) {
        put_large("k", 0);
        rig_settle(&rig.rig);
    }
    bm_completion_hook.fn = NULL;
    CHECK_UINT(fallocates, 1);
    CHECK(rooms_made >= 200 * 3000 / (64 << 10) - 1);
    log_rig_deinit(&rig);
}

/* --- what an earlier writer was told -------------------------------------------------------------- */

/* R17: a sync that failed under the last writer is not told again, so what stands behind the last mark may
 * be in memory alone, where it reads like all the rest. */
TEST(log_that_is_opened_writes_once_more_what_may_be_in_memory_alone)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    uint64_t from = bm_log_state(rig.log).file_len;
    log_rig_put(&rig, "b", 2);
    uint64_t to = bm_log_state(rig.log).file_len;
    log_rig_drop(&rig);
    pwrites = syncs = 0;
    log_rig_open(&rig);
    CHECK_INT(pwrites, 1);
    CHECK_INT(syncs, 1);
    CHECK_UINT(written_from,
               from); /* from the mark of "a" on, which vouches for what is before it */
    CHECK_UINT(written_to, to);
    CHECK_INT(log_rig_close(&rig), 0);
    pwrites = syncs = 0;
    log_rig_open(&rig);
    CHECK_UINT(written_from, to); /* the last mark alone */
    CHECK_UINT(written_to, to + 24);
    CHECK_INT(pwrites, 1);
    CHECK_INT(syncs, 1);
    log_rig_deinit(&rig);
}

/* R18: who renamed the file may have died before he synced the directory; what is acknowledged now would be
 * in a file that has no name after a loss of power. */
TEST(log_that_is_opened_sees_to_it_that_its_name_is_durable)
{
    log_rig_init(&rig);
    for (int i = 0; i < 3; i++) {
        directory_syncs = 0;
        log_rig_open(&rig);
        CHECK_INT(rig.found.created, i == 0);
        CHECK_INT(directory_syncs, 1);
        log_rig_put(&rig, "a", i);
        if (i == 0)
            CHECK_INT(log_rig_close(&rig), 0);
        else
            log_rig_drop(&rig);
    }
    log_rig_deinit(&rig);
}

/* --- memory --------------------------------------------------------------------------------------- */

/* All of a life: made, appended to, compacted while it is appended to, closed, opened again. Each step may
 * say -ENOMEM, and nothing else. Returns the first error. */
static int live(void)
{
    struct body body = {.len = 0};
    struct told told, closed;
    static char value[3000];
    int r = log_rig_try_open(&rig), compacted = 0;
    if (r < 0)
        return r;
    body_add(&body, BEAM_KV_BYTES, "k", value, sizeof(value));
    for (int i = 0; i < 6 && r == 0; i++)
        r = bm_log_append(rig.log, body.bytes, body.len, NULL, NULL);
    told_init(&told);
    if (r == 0) {
        r = log_rig_start_compaction(&rig, &told);
        for (int i = 0; i < 4 && r == 0; i++)
            r = bm_log_append(rig.log, body.bytes, body.len, NULL, NULL);
        if (told.wait.rev == 0 && bm_log_state(rig.log).compacting)
            log_rig_until(&rig, &told.calls);
        compacted = told.calls ? told.res : 0;
    }
    told_init(&closed);
    bm_log_close(rig.log, &closed.wait);
    log_rig_until(&rig, &closed.calls);
    CHECK_INT(closed.res, 0);
    rig.log = NULL;
    return r < 0 ? r : compacted;
}

TEST(log_with_any_allocation_failing_says_so_and_loses_nothing)
{
    unsigned at = 1;
    for (bool through = false; !through && at < 200; at++) {
        struct fault fault = {.kind = FAULT_ALLOCATION};
        test_note("allocation %u", at);
        log_rig_init(&rig);
        snprintf(rig.path, sizeof(rig.path), "%s/%u.kv", test_tmpdir(), at);
        atomic_store(&fault.at, at);
        fault_set(&fault, 0);
        int r = live();
        fault_unset();
        through = !atomic_load(&fault.struck);
        CHECK_INT(r, through ? 0 : -ENOMEM);
        CHECK_INT(rig.failures, 0);

        atomic_store(&fault.at, 0);
        log_rig_open(&rig); /* whatever it was, the file is good */
        CHECK(rig.found.clean || rig.found.created || rig.found.rev == 0);
        log_rig_deinit(&rig);
    }
    CHECK(at > 10 && at < 200);
}
