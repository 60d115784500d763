/* Group commit: what has been appended goes to the file, and what is in the file becomes durable.
 *
 * Model. One group fills while another flies. Under EACH a flying group is one write with its sync linked
 * behind it: one submission, one wait. Under BATCH and NONE it is a write, and syncs are made beside it,
 * when the interval is over or somebody asks; each covers what had been written when it began.
 *
 * Invariants. A group flies from the start of its write until its waits are told; the next starts no
 * earlier, so that the file grows in the order of the revisions. durable_rev moves only on a sync that
 * returned 0 and began when all up to it had been written whole. A mark speaks of durable_rev alone.
 * Whatever fails, fails for good (bm_log_fail); a short write goes on where it stopped, with a sync of its
 * own behind it, because the kernel has cancelled the linked one. */
#include <errno.h>

#include "base/clock.h"
#include "kv/log_inner.h"

static struct bm_log *log_of_write(struct bm_op *op)
{
    return bm_container_of(op, struct bm_log, write);
}

static struct bm_log *log_of_sync(struct bm_op *op)
{
    return bm_container_of(op, struct bm_log, sync);
}

/* --- memory --------------------------------------------------------------------------------------- */

int bm_log_group_grow(struct bm_log *log, struct bm_log_group *group, size_t len)
{
    size_t cap = group->cap > 0 ? group->cap : BM_LOG_BUFFER_LEN;
    while (cap < len)
        cap *= 2;
    if (cap == group->cap)
        return 0;
    uint8_t *bytes = bm_realloc(log->account, group->bytes, group->cap, cap);
    if (!bytes)
        return -ENOMEM;
    group->bytes = bytes;
    group->cap = cap;
    return 0;
}

static void empty(struct bm_log *log, struct bm_log_group *group)
{
    group->len = group->start = BM_RECORD_BARE_LEN;
    group->written = 0;
    if (group->cap > BM_LOG_BUFFER_KEPT) {
        uint8_t *bytes = bm_realloc(log->account, group->bytes, group->cap, BM_LOG_BUFFER_KEPT);
        if (bytes) {
            group->bytes = bytes;
            group->cap = BM_LOG_BUFFER_KEPT;
        }
    }
}

/* --- waits ---------------------------------------------------------------------------------------- */

void bm_log_tell(struct bm_list *waits, int res)
{
    struct bm_list told, *node;
    bm_list_init(&told);
    bm_list_splice_back(&told, waits);
    while ((node = bm_list_pop_front(&told))) {
        struct bm_log_wait *wait = bm_list_entry(node, struct bm_log_wait, node);
        wait->fn(wait, res);
    }
}

void bm_log_tell_durable(struct bm_log *log)
{
    struct bm_list told, *node;
    bm_list_init(&told);
    while ((node = bm_list_front(&log->syncing)) &&
           bm_list_entry(node, struct bm_log_wait, node)->rev <= log->durable_rev) {
        bm_list_unlink(node);
        bm_list_push_back(&told, node);
    }
    bm_log_tell(&told, 0);
}

void bm_log_arm_idle(struct bm_log *log)
{
    if (log->options.policy != BM_LOG_NONE && !log->error && !log->closing)
        bm_timer_arm(log->reactor, &log->idle,
                     bm_clock_after(bm_reactor_now_ns(log->reactor), log->options.idle_ns));
}

/* --- syncs beside the groups ---------------------------------------------------------------------- */

static void start_sync(struct bm_log *log, uint64_t rev)
{
    log->sync_rev = rev;
    log->sync_due = false;
    log->syncs++;
    log->sync.fd = log->fd;
    log->sync.flags = 1;
    bm_op_start(log->reactor, &log->sync);
}

static void pass_durable(struct bm_log *log, uint64_t rev)
{
    if (rev > log->durable_rev)
        log->durable_rev = rev;
    bm_log_tell_durable(log);
    bm_log_arm_idle(log);
}

/* --- groups --------------------------------------------------------------------------------------- */

/* The rest of the flying group, at first all of it. */
static void start_write(struct bm_log *log)
{
    struct bm_log_group *group = &log->flying;
    size_t done = group->start + group->written;
    log->write.fd = log->fd;
    log->write.addr = group->bytes + done;
    log->write.len = (uint32_t)(group->len - done);
    log->write.offset = log->end + group->written;
    log->write.linked = log->group_syncs;
    bm_op_start(log->reactor, &log->write);
    if (log->group_syncs)
        start_sync(log, group->rev);
}

/* kind: of the mark in front, or 0: one only if there is something new to say. */
static void start_group(struct bm_log *log, enum bm_record_kind kind, bool syncs)
{
    struct bm_log_group group = log->filling;
    bool records = bm_log_group_records_len(&group) > 0;
    bm_assert(bm_list_empty(&log->flying.waits));
    bm_assert(log->flying.len == BM_RECORD_BARE_LEN);
    log->filling.bytes = log->flying.bytes;
    log->filling.cap = log->flying.cap;
    empty(log, &log->filling);
    log->flying.bytes = group.bytes;
    log->flying.cap = group.cap;
    log->flying.len = group.len;
    log->flying.start = BM_RECORD_BARE_LEN;
    log->flying.written = 0;
    log->flying.rev = records ? group.rev : log->written_rev;
    bm_list_splice_back(&log->flying.waits, &log->filling.waits);

    if (kind == 0 && log->durable_rev > log->marked_rev)
        kind = BM_RECORD_MARK;
    if (kind != 0) {
        bm_record_write(log->flying.bytes, kind, log->durable_rev, NULL, 0, log->epoch);
        log->flying.start = 0;
        log->marked_rev = log->durable_rev;
    }
    log->last_mark = kind == BM_RECORD_CLOSED;
    log->group_flies = true;
    log->group_syncs = syncs;
    log->groups++;
    start_write(log);
}

static void end_group(struct bm_log *log)
{
    struct bm_list told;
    log->end += log->flying.len - log->flying.start;
    log->written_rev = log->flying.rev;
    log->group_flies = false;
    bm_list_init(&told);
    bm_list_splice_back(&told, &log->flying.waits);
    empty(log, &log->flying);
    bm_log_step_soon(log);
    if (log->group_syncs)
        pass_durable(log, log->written_rev);
    else if (log->options.policy == BM_LOG_BATCH && !bm_timer_armed(&log->interval))
        bm_timer_arm(log->reactor, &log->interval,
                     bm_clock_after(bm_reactor_now_ns(log->reactor), log->options.interval_ns));
    bm_log_tell(&told, 0);
}

/* A completion of the flying group has come. */
static void look_at_group(struct bm_log *log)
{
    struct bm_log_group *group = &log->flying;
    if (!bm_op_idle(&log->write) || (log->group_syncs && !bm_op_idle(&log->sync)))
        return;
    bool whole = group->start + group->written == group->len;
    if (log->write_res <= 0) {
        bm_log_fail(log, log->write_res < 0 ? log->write_res : -EIO);
    } else if (log->group_syncs && log->sync_res < 0 && (whole || log->sync_res != -ECANCELED)) {
        bm_log_fail(log, log->sync_res);
    } else if (!whole) {
        start_write(log);
    } else if (log->group_syncs && !log->write.linked) {
        log->write.linked = true; /* once: this one begins when all has been written */
        start_sync(log, group->rev);
    } else {
        end_group(log);
    }
}

static void on_write(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_log *log = log_of_write(op);
    (void)flags;
    log->write_res = res;
    if (res > 0)
        log->flying.written += (size_t)res;
    if (log->error)
        bm_log_step_soon(log);
    else
        look_at_group(log);
}

static void on_sync(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_log *log = log_of_sync(op);
    (void)flags;
    log->sync_res = res;
    if (log->error) {
        bm_log_step_soon(log);
    } else if (log->group_flies && log->group_syncs) {
        look_at_group(log);
    } else if (res < 0) {
        bm_log_fail(log, res);
    } else {
        bm_log_step_soon(log);
        pass_durable(log, log->sync_rev);
    }
}

static void on_interval(struct bm_timer *timer)
{
    struct bm_log *log = bm_container_of(timer, struct bm_log, interval);
    log->sync_due = true;
    bm_log_step_soon(log);
}

/* A while without a write: the last records get their mark. */
static void on_idle(struct bm_timer *timer)
{
    struct bm_log *log = bm_container_of(timer, struct bm_log, idle);
    bool all_durable = log->durable_rev == log->rev;
    if (log->error || log->closing || log->held || !bm_log_groups_rest(log) || !all_durable ||
        log->marked_rev == log->rev)
        return; /* what is under way arms it again */
    if (bm_log_reserve(log, 0) == 0)
        start_group(log, BM_RECORD_MARK, true);
    else
        bm_log_arm_idle(log);
}

bool bm_log_groups_rest(const struct bm_log *log)
{
    return !log->group_flies && bm_op_idle(&log->write) && bm_op_idle(&log->sync);
}

static bool wants_sync(const struct bm_log *log)
{
    if (log->durable_rev == log->written_rev)
        return false;
    bool last = log->closing && !log->group_flies && bm_log_group_records_len(&log->filling) == 0;
    return log->sync_due || log->wanted_rev > log->durable_rev || last;
}

void bm_log_groups_step(struct bm_log *log)
{
    bool each = log->options.policy == BM_LOG_EACH;
    if (log->held)
        return;
    if (!log->group_flies && bm_log_group_records_len(&log->filling) > 0 &&
        (!each || bm_op_idle(&log->sync)))
        start_group(log, (enum bm_record_kind)0, each);
    if (bm_op_idle(&log->sync) && !(log->group_flies && log->group_syncs) && wants_sync(log))
        start_sync(log, log->written_rev);
    if (log->closing && !log->last_mark && bm_log_groups_rest(log) &&
        log->durable_rev == log->rev) {
        start_group(log, BM_RECORD_CLOSED, true);
    }
}

int bm_log_groups_init(struct bm_log *log)
{
    bm_list_init(&log->filling.waits);
    bm_list_init(&log->flying.waits);
    bm_list_init(&log->syncing);
    bm_op_init(&log->write, BM_OP_WRITE, on_write);
    bm_op_init(&log->sync, BM_OP_FSYNC, on_sync);
    bm_timer_init(&log->interval, on_interval);
    bm_timer_init(&log->idle, on_idle);
    int r = bm_log_group_grow(log, &log->filling, BM_LOG_BUFFER_LEN);
    if (r == 0)
        r = bm_log_group_grow(log, &log->flying, BM_LOG_BUFFER_LEN);
    if (r < 0)
        return r;
    empty(log, &log->filling);
    empty(log, &log->flying);
    return 0;
}

void bm_log_groups_deinit(struct bm_log *log)
{
    bm_timer_cancel(log->reactor, &log->interval);
    bm_timer_cancel(log->reactor, &log->idle);
    log->filling.bytes = bm_free(log->account, log->filling.bytes, log->filling.cap);
    log->flying.bytes = bm_free(log->account, log->flying.bytes, log->flying.cap);
}
