/* Compaction: the state goes into a new file while the log goes on with the old one.
 *
 * Model. What is appended goes to the old file as ever, and is kept here as well, in `pending`. Each part
 * of the state that the source hands out is of a revision r: the deltas up to r are placed before it, and
 * no delta above r before the next part. So a part is never older than a delta in front of it, and in the
 * order of the file the last entry of each key is right. When the source has no more, the live comes; the
 * bulk is synced while appends still go to the old file. Then the log is held: no group starts, the last
 * deltas that the old file has are placed and synced, the new file is renamed and the directory synced.
 * What was appended meanwhile has been in no file yet; the log writes it to the new one.
 *
 * Until the rename nothing has happened to the log, and whatever fails is a compaction that did not take
 * place. After it the old file has no name, and a failure is the log's.
 *
 * Of the disk it asks for what it is about to write, and for what is appended while the log is held, which the
 * log then writes to the new file: an append that finds no room there is refused like any other.
 *
 * Nobody may have moved the file away meanwhile, to put another one under its name: that one is then
 * somebody else's, and must not be replaced. So what the names mean is looked at before ".new" is made,
 * before the rename, and behind it. A log whose file has lost its name fails, wherever that shows: who
 * opens the path next would not find what it acknowledged from then on. */
#include "kv/compaction.h"

#include <errno.h>
#include <unistd.h>

#include "kv/log_inner.h"

#define CATCH_UP_MAX                                                                               \
    8u /* ours: a writer that is faster than the disk is held after so many rounds */

enum phase {
    MAKING,       /* the new file */
    COPYING,      /* parts and deltas */
    SYNCING,      /* the bulk, once */
    CATCHING_UP,  /* deltas that came meanwhile */
    HOLDING,      /* until the log's own operations have ended */
    SYNCING_LAST, /* all that the old file has */
    RENAMING,
    SYNCING_NAME, /* past giving up */
    TAKING_OVER,
    CLOSING, /* the file that has no name any more, old or new: to free it may take long */
    ENDED,
};

struct bytes {
    uint8_t *ptr;
    size_t start, len, cap; /* in use: [start, len) */
};

struct bm_compaction {
    struct bm_log *log;
    struct bm_log_source *source;
    struct bm_log_wait *done;
    enum phase phase;
    unsigned rounds;
    int error;  /* it ends */
    int result; /* and that is told */
    int fd;
    uint64_t end;
    struct bm_log_room room;
    uint64_t base_rev, placed_rev, live_rev, snapshot_len;
    struct bytes out, pending;
    struct bm_op op; /* one at a time: room, write, sync, rename, close */
};

/* --- bytes ---------------------------------------------------------------------------------------- */

static int make_room(struct bm_compaction *c, struct bytes *bytes, size_t more)
{
    if (bytes->start > 0 && bytes->start == bytes->len)
        bytes->start = bytes->len = 0;
    if (bytes->cap - bytes->len >= more)
        return 0;
    size_t used = bytes->len - bytes->start, cap = bytes->cap ? bytes->cap : BM_LOG_BUFFER_LEN;
    if (bytes->start > 0) {
        memmove(bytes->ptr, bytes->ptr + bytes->start, used);
        bytes->start = 0;
        bytes->len = used;
    }
    while (cap - used < more)
        cap *= 2;
    if (cap == bytes->cap)
        return 0;
    uint8_t *ptr = bm_realloc(c->log->account, bytes->ptr, bytes->cap, cap);
    if (!ptr)
        return -ENOMEM;
    bytes->ptr = ptr;
    bytes->cap = cap;
    return 0;
}

static int add_bytes(struct bm_compaction *c, struct bytes *bytes, const void *from, size_t len)
{
    int r = make_room(c, bytes, len);
    if (r < 0)
        return r;
    if (len > 0)
        memcpy(bytes->ptr + bytes->len, from, len);
    bytes->len += len;
    return 0;
}

static int add_record(struct bm_compaction *c, enum bm_record_kind kind, uint64_t rev,
                      const void *body, size_t body_len)
{
    size_t len = (size_t)bm_record_len(body_len);
    int r = make_room(c, &c->out, len);
    if (r < 0)
        return r;
    bm_record_write(c->out.ptr + c->out.len, kind, rev, body, body_len, c->log->epoch);
    c->out.len += len;
    return 0;
}

/* Moves the deltas up to rev from `pending` to the file's end. */
static int place(struct bm_compaction *c, uint64_t rev)
{
    struct bytes *p = &c->pending;
    size_t to = p->start;
    while (to < p->len && bm_get_u64(p->ptr + to + BM_ENTRY_HEADER_LEN) <= rev) {
        c->placed_rev = bm_get_u64(p->ptr + to + BM_ENTRY_HEADER_LEN);
        to += (size_t)bm_entry_at(p->ptr + to).len;
    }
    int r = to > p->start ? add_bytes(c, &c->out, p->ptr + p->start, to - p->start) : 0;
    p->start = to;
    return r;
}

/* --- its end -------------------------------------------------------------------------------------- */

void bm_compaction_leave(struct bm_compaction *c)
{
    int fd = bm_take_fd(&c->fd);
    if (fd >= 0)
        close(fd);
}

struct bm_log_wait *bm_compaction_free(struct bm_compaction *c)
{
    struct bm_log *log = c->log;
    struct bm_log_wait *done = c->done;
    bm_assert(bm_op_idle(&c->op));
    bm_log_file_close(&c->fd);
    bm_free(log->account, c->out.ptr, c->out.cap);
    bm_free(log->account, c->pending.ptr, c->pending.cap);
    bm_free(log->account, c, sizeof(*c));
    log->compaction = NULL;
    return done;
}

static void end(struct bm_compaction *c)
{
    int result = c->result;
    bm_log_step_soon(c->log);
    struct bm_log_wait *done = bm_compaction_free(c);
    if (done)
        done->fn(done, result);
}

/* The log goes on, and what is left to do is to close a file. */
static void let_go(struct bm_compaction *c, int result, int fd)
{
    struct bm_log *log = c->log;
    log->held = false;
    bm_log_arm_idle(log);
    bm_log_step_soon(log);
    c->result = result;
    c->phase = ENDED;
    if (fd < 0)
        return;
    if (!BM_KERNEL_CLOSES) {
        bm_log_file_close(&fd);
        return;
    }
    bm_log_file_unlock(fd);
    c->phase = CLOSING;
    c->op.kind = BM_OP_CLOSE;
    c->op.fd = fd;
    c->op.flags = 1;
    bm_op_start(log->reactor, &c->op);
}

void bm_compaction_give_up(struct bm_compaction *c, int error)
{
    if (c->phase < SYNCING_NAME && !c->error)
        c->error = error;
}

/* A rename that has failed has not happened, or so it says. A log that closes has no more to acknowledge, and
 * ends in the file it has, wherever that is. */
static void give_up_now(struct bm_compaction *c)
{
    struct bm_log *log = c->log;
    int named = bm_log_place_means(&log->place, log->fd);
    if (c->op.kind == BM_OP_RENAME && named != 1) /* it was tried */
        bm_log_fail(log, c->error);
    else if (named == 0 && !log->closing)
        bm_log_fail(log, -ESTALE);
    if (c->fd >= 0)
        bm_log_place_remove_new(&log->place, c->fd);
    let_go(c, c->error, bm_take_fd(&c->fd));
}

static void take_over(struct bm_compaction *c)
{
    struct bm_log *log = c->log;
    int named = bm_log_place_means(&log->place, c->fd);
    if (named <= 0)
        bm_log_fail(log, named < 0 ? named : -ESTALE);
    int old_fd = log->fd;
    log->fd = bm_take_fd(&c->fd);
    log->end = c->end;
    log->room = c->room;
    log->base_rev = c->base_rev;
    log->snapshot_len = c->snapshot_len;
    if (!log->error)
        log->durable_rev = log->written_rev;
    log->marked_rev = c->live_rev;
    log->last_mark = false;
    let_go(c, log->error, old_fd);
}

/* --- its way -------------------------------------------------------------------------------------- */

static int make_file(struct bm_compaction *c)
{
    struct bm_log *log = c->log;
    int r = bm_log_place_make_new(&log->place, log->fd, &c->fd);
    if (r == 0)
        r = make_room(c, &c->out, BM_RECORD_HEAD_LEN);
    if (r < 0)
        return r;
    bm_record_write_head(c->out.ptr, (struct bm_record_head){log->epoch, c->base_rev});
    c->out.len = BM_RECORD_HEAD_LEN;
    c->phase = COPYING;
    return 0;
}

static int next_part(struct bm_compaction *c)
{
    struct bm_log *log = c->log;
    const void *entries = NULL;
    size_t len = 0;
    uint64_t rev = 0;
    int more = c->source->next(c->source, BM_SNAP_LEN_MAX, &entries, &len, &rev);
    if (more < 0)
        return more;
    bm_assert(rev >= c->placed_rev && rev <= log->rev);
    int r = place(c, rev);
    if (r == 0 && more > 0) {
        r = bm_record_check_body(entries, len, false, NULL);
        return r < 0 ? r : add_record(c, BM_RECORD_SNAP, rev, entries, len);
    }
    if (r == 0)
        r = add_record(c, BM_RECORD_LIVE, rev, NULL, 0);
    c->live_rev = rev;
    c->snapshot_len = c->end + c->out.len - c->out.start;
    if (r == 0 && log->options.policy != BM_LOG_EACH)
        r = add_record(c, BM_RECORD_EARLY, rev, NULL, 0);
    c->phase = SYNCING;
    return r;
}

static void start_sync(struct bm_compaction *c, int fd)
{
    c->op.kind = BM_OP_FSYNC;
    c->op.fd = fd;
    c->op.flags = 0; /* with the length: it is a new file */
    bm_op_start(c->log->reactor, &c->op);
}

static int start_rename(struct bm_compaction *c)
{
    const struct bm_log_place *place = &c->log->place;
    int r = bm_log_place_may_rename(place, c->log->fd, c->fd);
    if (r < 0)
        return r;
    c->op.kind = BM_OP_RENAME;
    c->op.fd = place->dir_fd;
    c->op.addr = place->new_name;
    c->op.offset = (uint64_t)(uintptr_t)place->name;
    bm_op_start(c->log->reactor, &c->op);
    return 0;
}

/* Asks for room up to there; false: there is. */
static bool start_room(struct bm_compaction *c, uint64_t to)
{
    if (!bm_log_room_ask(&c->room, c->end, to, &c->op.offset, &c->op.len))
        return false;
    c->op.kind = BM_OP_FALLOCATE;
    c->op.fd = c->fd;
    bm_op_start(c->log->reactor, &c->op);
    return true;
}

static void start_write(struct bm_compaction *c)
{
    size_t len = c->out.len - c->out.start;
    if (start_room(c, c->end + len))
        return;
    c->op.kind = BM_OP_WRITE;
    c->op.fd = c->fd;
    c->op.addr = c->out.ptr + c->out.start;
    c->op.len = (uint32_t)len;
    c->op.offset = c->end;
    bm_op_start(c->log->reactor, &c->op);
}

/* Where the file ends when what the log has appended since it was held stands in it, and marks. */
static uint64_t end_for_log(const struct bm_compaction *c)
{
    return c->end + (c->out.len - c->out.start) + bm_log_group_records_len(&c->log->filling) +
           BM_RECORD_BARE_LEN + BM_LOG_MARKS_LEN;
}

static bool waits_for_log(const struct bm_compaction *c)
{
    const struct bm_log *log = c->log;
    return c->phase == HOLDING &&
           (log->written_rev < c->placed_rev || (log->held && !bm_log_rests(log)));
}

/* One thing. `out` is empty and nothing is under way. */
static int go_on(struct bm_compaction *c)
{
    struct bm_log *log = c->log;
    int r = 0;
    switch (c->phase) {
    case MAKING:
        return make_file(c);
    case COPYING:
        return next_part(c);
    case SYNCING:
        start_sync(c, c->fd);
        return 0;
    case CATCHING_UP:
        r = place(c, log->written_rev);
        if (c->out.len - c->out.start <= BM_SNAP_LEN_MAX || ++c->rounds == CATCH_UP_MAX)
            c->phase = HOLDING;
        return r;
    case HOLDING:
        /* What a part has brought along may be in no file yet: the old one gets it first, or the new one
         * would get it twice. That takes one more group at most. */
        log->held = log->written_rev >= c->placed_rev;
        if (waits_for_log(c))
            return 0;
        r = place(c, log->written_rev);
        c->phase = SYNCING_LAST;
        return r;
    case SYNCING_LAST:
        if (!start_room(c, end_for_log(c)))
            start_sync(c, c->fd);
        return 0;
    case RENAMING:
        return start_rename(c);
    case SYNCING_NAME:
        start_sync(c, log->place.dir_fd);
        return 0;
    default:
        return 0;
    }
}

void bm_compaction_step(struct bm_compaction *c)
{
    while (bm_op_idle(&c->op)) {
        int r = 0;
        if (c->phase == ENDED) {
            end(c);
            return;
        }
        if (waits_for_log(c) && !c->error)
            return;
        if (c->phase == TAKING_OVER)
            take_over(c);
        else if (c->error)
            give_up_now(c);
        else if (c->out.start < c->out.len)
            start_write(c);
        else
            r = go_on(c);
        if (r < 0)
            bm_compaction_give_up(c, r);
    }
}

static void on_op(struct bm_op *op, int res, uint32_t flags)
{
    struct bm_compaction *c = bm_container_of(op, struct bm_compaction, op);
    struct bm_log *log = c->log;
    (void)flags;
    bm_log_step_soon(log);
    if (op->kind == BM_OP_CLOSE) {
        c->phase = ENDED; /* whatever it says: Linux has let go of the descriptor */
    } else if (op->kind == BM_OP_FALLOCATE) {
        int r = res == -ECANCELED ? res : bm_log_room_answer(&c->room, op->offset, op->len, res);
        if (r < 0)
            bm_compaction_give_up(c, r);
    } else if (op->kind == BM_OP_WRITE && res > 0) {
        c->out.start += (size_t)res;
        c->end += (uint64_t)res;
    } else if (res < 0 || op->kind == BM_OP_WRITE) {
        if (c->phase == SYNCING_NAME) {
            c->phase = TAKING_OVER;
            bm_log_fail(log, res);
        } else {
            bm_compaction_give_up(c, res < 0 ? res : -EIO);
        }
    } else {
        c->phase++;
        if (c->phase == SYNCING_NAME)
            c->error = 0; /* too late */
    }
}

int bm_compaction_reserve(struct bm_compaction *c, size_t len)
{
    size_t used = c->pending.len - c->pending.start;
    if (c->error || c->phase >= CLOSING)
        return 0;
    /* The log writes it, to the new file. */
    if (c->phase > HOLDING)
        return bm_log_room_extend(&c->room, c->fd, c->end, end_for_log(c) + len);
    if (used > 0 && used + len > c->log->options.queue_len_max) {
        c->log->wants_room = true;
        return -EAGAIN;
    }
    return make_room(c, &c->pending, len);
}

bool bm_compaction_is_full(const struct bm_compaction *c)
{
    return c->phase <= HOLDING && !c->error &&
           c->pending.len - c->pending.start >= c->log->options.queue_len_max / 2;
}

void bm_compaction_add(struct bm_compaction *c, const uint8_t *record, size_t len)
{
    if (c->phase > HOLDING || c->error)
        return;
    int r = add_bytes(c, &c->pending, record, len);
    bm_assert(r == 0); /* there is room: bm_compaction_reserve() */
}

/* The deltas that are on their way to the old file, and have been told to nobody: the source may hand out
 * a state without them. */
static int take_untold(struct bm_compaction *c, const struct bm_log_group *group)
{
    return add_bytes(c, &c->pending, group->bytes + BM_RECORD_BARE_LEN,
                     bm_log_group_records_len(group));
}

int bm_compaction_start(struct bm_log *log, struct bm_log_source *source, struct bm_log_wait *done)
{
    struct bm_compaction *c = bm_alloc_zero(log->account, sizeof(*c));
    if (!c)
        return -ENOMEM;
    c->log = log;
    c->source = source;
    c->fd = -1;
    c->room = bm_log_room(log->options.step_len);
    c->base_rev = c->placed_rev = log->written_rev;
    bm_op_init(&c->op, BM_OP_WRITE, on_op);
    log->compaction = c;
    int r = log->group_flies ? take_untold(c, &log->flying) : 0;
    if (r == 0)
        r = take_untold(c, &log->filling);
    if (r < 0) {
        bm_compaction_free(c);
        return r;
    }
    c->done = done;
    bm_log_step_soon(log);
    return 0;
}
