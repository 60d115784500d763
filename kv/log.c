/* The log as its owner sees it: opening, appending, closing, and what is next.
 *
 * Whatever changes (an append, a completion, a timer, a close) queues one task, which then looks at all
 * there is to do. So the appends of a turn are one group, callbacks are called from the loop alone, and
 * the log is freed in one place, where nobody of its own looks at it any more.
 *
 * The disk is asked for room before there are records for it, while half a step is left, so that an append
 * waits for that only if the disk is slower than those who append.
 *
 * What goes to the file: group.c; what takes its place: compaction.c; what stands in it: recovery.c. */
#include "kv/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "kv/log_inner.h"
#include "kv/recovery.h"

#define QUEUE_LEN_LIMIT ((size_t)1 << 30) /* ours: a group is one write, whose length has 32 bits */
#define LOOK_NS (5 * BM_NS_PER_MS)        /* ours: between two looks at a lock */

void bm_log_step_soon(struct bm_log *log)
{
    bm_task_queue(log->reactor, &log->task);
}

void bm_log_fail(struct bm_log *log, int error)
{
    struct bm_list told;
    if (log->error)
        return;
    log->error = error;
    log->group_flies = false;
    bm_timer_cancel(log->reactor, &log->interval);
    bm_timer_cancel(log->reactor, &log->idle);
    bm_list_init(&told);
    bm_list_splice_back(&told, &log->flying.waits);
    bm_list_splice_back(&told, &log->filling.waits);
    bm_list_splice_back(&told, &log->syncing);
    if (log->compaction)
        bm_compaction_give_up(log->compaction, error);
    bm_log_step_soon(log);
    bm_log_tell(&told, error);
    if (log->options.on_failed)
        log->options.on_failed(log->options.arg, error);
}

static void give_back(struct bm_log *log)
{
    bm_task_cancel(&log->task);
    bm_log_groups_deinit(log);
    bm_log_file_close(&log->fd);
    bm_log_place_deinit(&log->place, log->account);
    bm_free(log->account, log, sizeof(*log));
}

static void end(struct bm_log *log)
{
    struct bm_log_wait *closed = log->closed;
    int error = log->error;
    if (!error && ftruncate(log->fd, (off_t)log->end) < 0) {
        /* the room set aside stays with the file, as zeros */
    }
    give_back(log);
    if (closed)
        closed->fn(closed, error);
}

static void call_for_more(struct bm_log *log)
{
    if (!log->wants_room || log->error || log->closing)
        return;
    if (bm_log_group_records_len(&log->filling) > 0 ||
        (log->compaction && bm_compaction_is_full(log->compaction)))
        return;
    log->wants_room = false;
    if (log->options.on_room)
        log->options.on_room(log->options.arg);
}

static void step(struct bm_task *task)
{
    struct bm_log *log = bm_container_of(task, struct bm_log, task);
    if (log->compaction)
        bm_compaction_step(log->compaction);
    if (!log->error) {
        bm_log_tell_durable(log);
        bm_log_groups_step(log);
        call_for_more(log);
    }
    if (log->closing && !log->compaction && bm_log_rests(log) &&
        (log->error || (log->last_mark && log->durable_rev == log->rev)))
        end(log);
}

/* --- appending ------------------------------------------------------------------------------------ */

/* Of the file, if all that is there is written, with its marks. */
static uint64_t end_of_all(const struct bm_log *log)
{
    size_t queued = bm_log_group_records_len(&log->filling);
    return log->end + (log->group_flies ? log->flying.len : 0) + queued + BM_LOG_MARKS_LEN;
}

int bm_log_reserve(struct bm_log *log, size_t len)
{
    size_t queued = bm_log_group_records_len(&log->filling);
    if (len > 0 && queued > 0 && queued + len > log->options.queue_len_max) {
        log->wants_room = true;
        return -EAGAIN;
    }
    return bm_log_room_extend(&log->room, log->fd, log->end, end_of_all(log) + len);
}

static void on_ahead(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_log *log = bm_container_of(op, struct bm_log, ahead);
    (void)flags;
    if (res != -ECANCELED) /* an append that needs it asks for itself, and is told */
        (void)bm_log_room_answer(&log->room, op->offset, op->len, res);
    bm_log_step_soon(log);
}

/* Not where the disk has just been short of it; and not for a file that is about to be replaced. */
static void look_ahead(struct bm_log *log)
{
    const struct bm_log_room *room = &log->room;
    uint64_t end = end_of_all(log);
    if (!bm_op_idle(&log->ahead) || log->held || room->step < room->step_max ||
        end + room->step / 2 <= room->allocated)
        return;
    if (bm_log_room_ask(room, log->end, room->allocated + 1, &log->ahead.offset, &log->ahead.len)) {
        log->ahead.fd = log->fd;
        bm_op_start(log->reactor, &log->ahead);
    }
}

bool bm_log_rests(const struct bm_log *log)
{
    return bm_log_groups_rest(log) && bm_op_idle(&log->ahead);
}

int bm_log_append(struct bm_log *log, const void *entries, size_t len, struct bm_log_wait *wait,
                  uint64_t *ret_rev)
{
    if (log->error || log->closing)
        return log->error ? -EROFS : -ESHUTDOWN;
    if (bm_record_len(len) > log->options.record_len_max || log->rev == BM_RECORD_REV_MAX)
        return -BEAM_EKV_TOO_LARGE;
    size_t record_len = (size_t)bm_record_len(len);
    struct bm_log_group *group = &log->filling;
    int r = bm_record_check_body(entries, len, true, NULL);
    if (r == 0)
        r = bm_log_reserve(log, record_len);
    if (r == 0)
        r = bm_log_group_grow(log, group, group->len + record_len);
    if (r == 0 && log->compaction)
        r = bm_compaction_reserve(log->compaction, record_len);
    if (r < 0)
        return r;

    uint8_t *record = group->bytes + group->len;
    group->rev = ++log->rev;
    group->len += record_len;
    bm_record_write(record, BM_RECORD_DELTA, log->rev, entries, len, log->epoch);
    if (log->compaction)
        bm_compaction_add(log->compaction, record, record_len);
    if (wait) {
        wait->rev = log->rev;
        bm_list_push_back(&group->waits, &wait->node);
    }
    if (ret_rev)
        *ret_rev = log->rev;
    look_ahead(log);
    bm_log_step_soon(log);
    return 0;
}

int bm_log_sync(struct bm_log *log, struct bm_log_wait *wait)
{
    if (log->error || log->closing)
        return log->error ? -EROFS : -ESHUTDOWN;
    wait->rev = log->wanted_rev = log->rev;
    bm_list_push_back(&log->syncing, &wait->node);
    bm_log_step_soon(log);
    return 0;
}

int bm_log_compact(struct bm_log *log, struct bm_log_source *source, struct bm_log_wait *done)
{
    if (log->error || log->closing)
        return log->error ? -EROFS : -ESHUTDOWN;
    if (log->compaction)
        return -EBUSY;
    return bm_compaction_start(log, source, done);
}

struct bm_log_state bm_log_state(const struct bm_log *log)
{
    size_t queued = bm_log_group_records_len(&log->filling);
    return (struct bm_log_state){
        .epoch = log->epoch,
        .rev = log->rev,
        .durable_rev = log->durable_rev,
        .base_rev = log->base_rev,
        .file_len = log->end + queued + (log->group_flies ? log->flying.len : 0),
        .snapshot_len = log->snapshot_len,
        .groups = log->groups,
        .syncs = log->syncs,
        .queue_len = queued,
        .compacting = log->compaction != NULL,
        .error = log->error,
    };
}

void bm_log_close(struct bm_log *log, struct bm_log_wait *done)
{
    bm_assert(!log->closing);
    log->closing = true;
    log->closed = done;
    if (log->rev > log->wanted_rev)
        log->wanted_rev = log->rev;
    bm_timer_cancel(log->reactor, &log->interval);
    bm_timer_cancel(log->reactor, &log->idle);
    if (log->compaction)
        bm_compaction_give_up(log->compaction, -ECANCELED);
    bm_log_step_soon(log);
}

struct bm_log *bm_log_free(struct bm_log *log)
{
    struct bm_list told;
    if (!log)
        return NULL;
    bm_assert(bm_op_idle(&log->write) && bm_op_idle(&log->sync) && bm_op_idle(&log->ahead));
    bm_list_init(&told);
    bm_list_splice_back(&told, &log->flying.waits);
    bm_list_splice_back(&told, &log->filling.waits);
    bm_list_splice_back(&told, &log->syncing);
    struct bm_log_wait *compacted = log->compaction ? bm_compaction_free(log->compaction) : NULL,
                       *closed = log->closed;
    give_back(log);
    bm_log_tell(&told, -ECANCELED);
    if (compacted)
        compacted->fn(compacted, -ECANCELED);
    if (closed)
        closed->fn(closed, -ECANCELED);
    return NULL;
}

/* Plain closes: the lock belongs to what parent and child have open together, and to take it back would
 * take it from the parent. */
void bm_log_leave(struct bm_log *log)
{
    int fd = bm_take_fd(&log->fd), dir_fd = bm_take_fd(&log->place.dir_fd);
    if (log->compaction)
        bm_compaction_leave(log->compaction);
    if (fd >= 0)
        close(fd);
    if (dir_fd >= 0)
        close(dir_fd);
}

/* --- opening -------------------------------------------------------------------------------------- */

static int read_options(const struct bm_log_options *given, struct bm_log_options *ret)
{
    struct bm_log_options o = *given;
    o.path = NULL;
    o.interval_ns = o.interval_ns ? o.interval_ns : BM_LOG_INTERVAL_NS;
    o.idle_ns = o.idle_ns ? o.idle_ns : BM_LOG_IDLE_NS;
    o.lock_wait_ns = o.lock_wait_ns ? o.lock_wait_ns : BM_LOG_LOCK_WAIT_NS;
    o.step_len = o.step_len ? o.step_len : BM_LOG_STEP_LEN;
    o.queue_len_max = o.queue_len_max ? o.queue_len_max : BM_LOG_QUEUE_LEN_MAX;
    o.record_len_max = o.record_len_max ? o.record_len_max : BM_LOG_RECORD_LEN_MAX;
    if (!given->path || o.policy > BM_LOG_NONE || o.step_len % 4096 != 0 ||
        o.step_len > UINT32_MAX || o.queue_len_max > QUEUE_LEN_LIMIT ||
        o.record_len_max > QUEUE_LEN_LIMIT || o.record_len_max < BM_RECORD_BARE_LEN)
        return -EINVAL;
    *ret = o;
    return 0;
}

/* An empty state, as a compaction of nothing would leave it. */
static int write_first(int fd, struct bm_recovery *recovery)
{
    uint8_t bytes[BM_RECORD_HEAD_LEN + BM_RECORD_BARE_LEN];
    uint64_t epoch = bm_recovery_draw_epoch();
    struct bm_record record;
    bm_record_write_head(bytes, (struct bm_record_head){.epoch = epoch});
    bm_record_write(bytes + BM_RECORD_HEAD_LEN, BM_RECORD_LIVE, 0, NULL, 0, epoch);
    int r = bm_log_file_write(fd, bytes, sizeof(bytes), 0);
    if (r == 0 && fsync(fd) < 0)
        r = -errno;
    struct bm_scan *scan = &recovery->scan;
    while (r == 0 && scan->offset < sizeof(bytes)) {
        int next = bm_scan_next(scan, bytes + scan->offset, sizeof(bytes) - scan->offset, false,
                                &record, NULL);
        bm_assert(next == 1);
    }
    return r;
}

/* > 0: there is one now. */
static int make(struct bm_log *log, struct bm_recovery *recovery, struct bm_log_found *found)
{
    int r = bm_log_place_make_first(&log->place, &log->fd);
    if (r != 0)
        return r;
    r = write_first(log->fd, recovery);
    if (r == 0)
        r = bm_log_place_rename(&log->place, -1, log->fd);
    if (r == 0) {
        found->created = true;
        return 0;
    }
    bm_log_place_remove_new(&log->place, log->fd);
    bm_log_file_close(&log->fd);
    return r == -EEXIST ? 1 : r;
}

/* How often a lock is asked for that a writer may have who was killed; counted, as the clock may be a
 * test's. */
static uint64_t looks(const struct bm_log *log)
{
    return 1 + log->options.lock_wait_ns / LOOK_NS;
}

static void wait_for_lock(void)
{
    static const struct timespec pause = {.tv_nsec = LOOK_NS};
    nanosleep(&pause, NULL);
}

/* Where there is a ".new" that somebody has, it stays; whoever needs the name later says so. Who needs it
 * now waits for a writer who was killed while he made it. */
static void clear_new(struct bm_log *log, bool needed)
{
    uint64_t left = needed ? looks(log) : 1;
    while (bm_log_place_clear_new(&log->place) == -BEAM_EKV_LOCKED && --left > 0)
        wait_for_lock();
}

static int recover(struct bm_log *log, bm_log_record_fn *on_record, void *arg,
                   struct bm_recovery *recovery, struct bm_log_found *found)
{
    struct bm_window window;
    int r = bm_window_open(&window, log->fd, log->options.record_len_max, log->account);
    if (r < 0)
        return r;
    r = bm_recovery_follow(&window, true, on_record, arg, recovery);
    if (r == 0)
        r = bm_recovery_judge(&window, recovery);
    bm_window_deinit(&window);
    if (r < 0)
        return r;
    found->new_epoch = recovery->scan.early;
    clear_new(log, found->new_epoch);
    if (found->new_epoch)
        return bm_recovery_renew(&log->place, &log->fd, log->options.record_len_max, recovery,
                                 log->account);
    r = bm_recovery_settle(log->fd, recovery, log->account);
    /* Who gave the file its name may have died before that was durable. */
    if (r == 0 && fsync(log->place.dir_fd) < 0)
        r = -errno;
    return r;
}

/* Has the file, there or made now, with its lock. */
static int lock(struct bm_log *log, struct bm_recovery *recovery, struct bm_log_found *found)
{
    for (uint64_t left = looks(log); left > 0; left--) {
        int r = bm_log_place_open(&log->place, &log->fd);
        if (r == -ENOENT)
            r = make(log, recovery, found);
        if (r <= 0 && r != -BEAM_EKV_LOCKED)
            return r;
        if (left > 1)
            wait_for_lock();
    }
    return -BEAM_EKV_LOCKED;
}

static int find(struct bm_log *log, bm_log_record_fn *on_record, void *arg,
                struct bm_recovery *recovery, struct bm_log_found *found)
{
    int r = lock(log, recovery, found);
    return r < 0 || found->created ? r : recover(log, on_record, arg, recovery, found);
}

/* What the file says goes into the log; then others may be told early, if the policy lets them. */
static int begin(struct bm_log *log, const struct bm_recovery *recovery)
{
    const struct bm_scan *scan = &recovery->scan;
    uint8_t early[BM_RECORD_BARE_LEN];
    log->epoch = scan->epoch;
    log->base_rev = scan->base_rev;
    log->rev = log->written_rev = log->durable_rev = scan->rev;
    log->marked_rev = scan->durable_rev;
    log->snapshot_len = scan->live_end;
    log->end = scan->offset;
    log->last_mark = scan->closed;
    if (log->marked_rev < log->rev)
        bm_log_arm_idle(log); /* the writer before has not come to its last mark */
    if (log->options.policy == BM_LOG_EACH)
        return 0;
    int r = bm_log_reserve(log, sizeof(early));
    if (r < 0)
        return r;
    bm_record_write(early, BM_RECORD_EARLY, log->rev, NULL, 0, log->epoch);
    r = bm_log_file_write(log->fd, early, sizeof(early), log->end);
    if (r == 0)
        r = bm_log_file_sync(log->fd);
    log->end += sizeof(early);
    log->marked_rev = log->rev;
    log->last_mark = false;
    return r;
}

int bm_log_open(struct bm_reactor *reactor, const struct bm_log_options *options,
                bm_log_record_fn *on_record, void *arg, struct bm_log **ret_log,
                struct bm_log_found *ret_found)
{
    struct bm_account *account = bm_reactor_account(reactor);
    struct bm_recovery recovery;
    struct bm_log_found found;
    memset(&recovery, 0, sizeof(recovery));
    memset(&found, 0, sizeof(found));
    struct bm_log *log = bm_alloc_zero(account, sizeof(*log));
    int r = log ? 0 : -ENOMEM;
    if (r == 0) {
        log->reactor = reactor;
        log->account = account;
        log->fd = log->place.dir_fd = -1;
        log->task.fn = step;
        bm_op_init(&log->ahead, BM_OP_FALLOCATE, on_ahead);
        r = read_options(options, &log->options);
        log->room = bm_log_room(log->options.step_len);
    }
    if (r == 0)
        r = bm_log_place_init(&log->place, options->path, account);
    bool is_new = r == 0 && bm_log_place_is_new(&log->place);
    if (is_new)
        r = -EINVAL;
    if (r == 0)
        r = bm_log_groups_init(log);
    if (r == 0)
        r = find(log, on_record, arg, &recovery, &found);
    if (r == 0)
        r = begin(log, &recovery);
    bm_recovery_tell(&recovery, options->path, r, &found);
    if (is_new)
        snprintf(found.message, sizeof(found.message),
                 "%.160s: a name that ends in .new is that of the file that takes another's place",
                 options->path);
    if (r == 0)
        found.file_len = log->end;
    if (ret_found)
        *ret_found = found;
    if (r == 0)
        *ret_log = log;
    else if (log)
        give_back(log);
    return r;
}
