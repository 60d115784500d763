/* Recovery: where the records of a file end, and whether they may end there.
 *
 * A crash may leave any part of what was written since the last sync, in sectors, in any order. So behind
 * the last good record anything can stand, even good records of the same group. What cannot is a mark
 * that vouches for what is missing: it is written only after a sync of all it speaks of, and so in a later
 * group. Where one stands, something that had been durable is gone, and that is for a person to see, not
 * to be cut away. Before the live nothing is ever torn: the file had no name until all of it was synced.
 *
 * Nothing is changed before the verdict. */
#include "kv/recovery.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "kv/digest.h"
#include "kv/log_file.h"

/* There is no record, as a torn one would be none; others are whole, and wrong. */
static bool may_be_torn(int stop)
{
    return stop == 0 || stop == -BEAM_EKV_TRUNCATED || stop == -BEAM_EKV_RECORD ||
           stop == -BEAM_EKV_SUM || stop == -BEAM_EKV_TOO_LARGE;
}

/* The sum of a record is where its length says, if that is so. */
static int read_sum(struct bm_window *window, uint64_t offset, uint64_t *ret_sum)
{
    const uint8_t *bytes;
    uint64_t left;
    int r = bm_window_at(window, offset, sizeof(*ret_sum), &bytes, &left);
    if (r < 0 || left < sizeof(*ret_sum))
        return r < 0 ? r : -BEAM_EKV_TRUNCATED; /* somebody has cut it */
    *ret_sum = bm_get_u64(bytes);
    return 0;
}

/* A record that is longer than the window may be: whether it is whole, part by part. The sum is looked at
 * first, since a length that is a lie mostly leads into a hole or behind the last record, where zeros are. */
static int check_long(struct bm_window *window, const struct bm_scan *scan, uint64_t len)
{
    beam_xxh3_state state;
    uint64_t offset = scan->offset, end = offset + len - sizeof(uint64_t), left, sum;
    const uint8_t *bytes;
    int r = read_sum(window, end, &sum);
    if (r < 0 || sum == 0)
        return r < 0 ? r : -BEAM_EKV_SUM;
    bm_xxh3_init_seeded(&state, scan->epoch);
    while (offset < end) {
        r = bm_window_at(window, offset, BM_WINDOW_LEN, &bytes, &left);
        if (r < 0)
            return r;
        if (left == 0)
            return -BEAM_EKV_TRUNCATED;
        if (left > end - offset)
            left = end - offset;
        beam_xxh3_update(&state, bytes, (size_t)left);
        offset += left;
    }
    return sum == beam_xxh3_final(&state) ? -BEAM_EKV_TOO_LARGE : -BEAM_EKV_SUM;
}

int bm_recovery_follow(struct bm_window *window, bool entries, bm_log_record_fn *on_record,
                       void *arg, struct bm_recovery *ret)
{
    struct bm_scan scan = {0};
    struct bm_record record;
    uint64_t wanted = BM_RECORD_HEAD_LEN, need = 0, left = 0;
    bool too_long = false;
    const uint8_t *bytes = NULL;
    for (;;) {
        int r = 0;
        if (left < wanted)
            r = bm_window_at(window, scan.offset, wanted, &bytes, &left);
        if (r < 0)
            return r;
        r = bm_scan_next(&scan, bytes, left, entries, &record, &need);
        if (r == -BEAM_EKV_TRUNCATED && need > left && need <= window->file_len - scan.offset) {
            if (need <= window->piece_len_max) {
                wanted = need;
                continue;
            }
            r = check_long(window, &scan, need);
            if (!may_be_torn(r))
                return r; /* of reading */
            too_long = r == -BEAM_EKV_TOO_LARGE;
        }
        if (r <= 0) {
            *ret = (struct bm_recovery){.scan = scan, .too_long = too_long, .stop = r};
            return 0;
        }
        bytes += record.len;
        left -= record.len;
        wanted = BM_ENTRY_HEADER_LEN;
        if (on_record && (record.kind == BM_RECORD_SNAP || record.kind == BM_RECORD_LIVE ||
                          record.kind == BM_RECORD_DELTA)) {
            r = on_record(arg, &record);
            if (r < 0)
                return r;
        }
    }
}

int bm_recovery_judge_read(const struct bm_recovery *recovery)
{
    if (recovery->stop == -BEAM_EKV_FORMAT && recovery->scan.live_end == 0)
        return -BEAM_EKV_FORMAT;
    return recovery->scan.live_end == 0 ? -BEAM_EKV_CORRUPT : 0;
}

/* How many bytes there are up to the last one that is not zero. */
static size_t used_len(const uint8_t *bytes, size_t len)
{
    while (len >= 8 && bm_get_u64(bytes + len - 8) == 0)
        len -= 8;
    while (len > 0 && bytes[len - 1] == 0)
        len--;
    return len;
}

int bm_recovery_judge(struct bm_window *window, struct bm_recovery *recovery)
{
    const struct bm_scan *scan = &recovery->scan;
    if (recovery->stop == -BEAM_EKV_FORMAT)
        return -BEAM_EKV_FORMAT;
    if (recovery->too_long)
        return -BEAM_EKV_TOO_LARGE;
    if (scan->wrong || !may_be_torn(recovery->stop) || scan->live_end == 0)
        return -BEAM_EKV_CORRUPT;

    recovery->tail_offset = scan->offset;
    uint64_t offset = scan->offset, tail_len = 0;
    /* Zeros are no mark, and not worth cutting: a hole is passed over, however long. */
    while ((offset = bm_window_next_data(window, offset)) < window->file_len) {
        const uint8_t *bytes;
        uint64_t left;
        int r = bm_window_at(window, offset, BM_WINDOW_LEN, &bytes, &left);
        if (r < 0)
            return r;
        if (bm_scan_find_mark(bytes, (size_t)left, scan->epoch, scan->rev + 1) >= 0)
            return -BEAM_EKV_CORRUPT;
        size_t used = used_len(bytes, (size_t)left);
        if (used > 0)
            tail_len = offset + used - scan->offset;
        if (left < BM_RECORD_BARE_LEN || offset + left == window->file_len)
            break;
        /* a mark may begin here and end in the next window */
        offset += (left - BM_RECORD_BARE_LEN + 8) & ~UINT64_C(7);
    }
    recovery->tail_len = tail_len;
    return 0;
}

static int write_again(int fd, uint64_t from, uint64_t to, struct bm_account *account)
{
    struct bm_window window;
    int r = bm_window_open(&window, fd, BM_WINDOW_LEN, account);
    while (r == 0 && from < to) {
        const uint8_t *bytes;
        uint64_t left;
        r = bm_window_at(&window, from, 1, &bytes, &left);
        if (r == 0 && left == 0)
            r = -EIO; /* it was there a moment ago */
        if (r < 0)
            break;
        if (left > to - from)
            left = to - from;
        r = bm_log_file_write(fd, bytes, (size_t)left, from);
        from += left;
    }
    bm_window_deinit(&window);
    return r;
}

int bm_recovery_settle(int fd, const struct bm_recovery *recovery, struct bm_account *account)
{
    const struct bm_scan *scan = &recovery->scan;
    if (recovery->tail_len > 0 && ftruncate(fd, (off_t)scan->offset) < 0)
        return -errno;
    if (recovery->tail_len == 0 && scan->durable_end == scan->offset)
        return 0;
    int r = write_again(fd, scan->durable_end, scan->offset, account);
    return r < 0 ? r : bm_log_file_sync(fd);
}

/* --- a new epoch -------------------------------------------------------------------------------- */

struct copy {
    int fd;
    struct bm_account *account;
    uint8_t *bytes;
    size_t len, cap;
    uint64_t offset; /* of bytes in the file */
    uint64_t epoch;
};

static int flush(struct copy *copy)
{
    int r = bm_log_file_write(copy->fd, copy->bytes, copy->len, copy->offset);
    copy->offset += copy->len;
    copy->len = 0;
    return r;
}

static int room_for(struct copy *copy, size_t len)
{
    int r = copy->cap - copy->len < len ? flush(copy) : 0;
    if (r < 0 || len <= copy->cap)
        return r;
    size_t cap = len > BM_WINDOW_LEN ? len : BM_WINDOW_LEN;
    uint8_t *bytes = bm_realloc(copy->account, copy->bytes, copy->cap, cap);
    if (!bytes)
        return -ENOMEM;
    copy->bytes = bytes;
    copy->cap = cap;
    return 0;
}

static int copy_record(void *arg, const struct bm_record *record)
{
    struct copy *copy = arg;
    int r = room_for(copy, record->len);
    if (r < 0)
        return r;
    bm_record_write(copy->bytes + copy->len, record->kind, record->rev, record->body,
                    record->body_len, copy->epoch);
    copy->len += record->len;
    return 0;
}

static int copy_all(struct copy *copy, int from_fd, size_t record_len_max,
                    const struct bm_scan *scan)
{
    struct bm_window window;
    struct bm_recovery again;
    int r = bm_window_open(&window, from_fd, record_len_max, copy->account);
    if (r == 0)
        r = room_for(copy, BM_RECORD_HEAD_LEN);
    if (r < 0)
        return r;
    bm_record_write_head(copy->bytes, (struct bm_record_head){copy->epoch, scan->base_rev});
    copy->len = BM_RECORD_HEAD_LEN;
    window.file_len = scan->offset; /* no further than what was judged */
    r = bm_recovery_follow(&window, false, copy_record, copy, &again);
    if (r == 0 && (again.stop != 0 || again.scan.offset != scan->offset))
        r = -EIO; /* it reads differently this time */
    if (r == 0)
        r = flush(copy);
    bm_window_deinit(&window);
    return r;
}

uint64_t bm_recovery_draw_epoch(void)
{
    uint64_t epoch;
    do
        bm_random(&epoch, sizeof(epoch));
    while (epoch == 0);
    return epoch;
}

int bm_recovery_renew(const struct bm_log_place *place, int *fd, size_t record_len_max,
                      struct bm_recovery *recovery, struct bm_account *account)
{
    struct bm_scan *scan = &recovery->scan;
    struct copy copy = {.fd = -1, .account = account, .epoch = bm_recovery_draw_epoch()};
    int r = bm_log_place_make_new(place, *fd, &copy.fd);
    if (r == 0)
        r = copy_all(&copy, *fd, record_len_max, scan);
    if (r == 0)
        r = fsync(copy.fd) < 0 ? -errno : 0;
    if (r == 0)
        r = bm_log_place_rename(place, *fd, copy.fd);
    if (r == 0) {
        bm_log_file_close(fd);
        *fd = copy.fd;
        scan->epoch = copy.epoch;
        scan->offset = scan->durable_end = copy.offset;
        /* The marks stayed behind: what the live does not vouch for has none yet. */
        scan->durable_rev = scan->live_end == scan->offset ? scan->rev : scan->base_rev;
        scan->early = scan->closed = false;
    } else if (copy.fd >= 0) {
        bm_log_place_remove_new(place, copy.fd);
        bm_log_file_close(&copy.fd);
    }
    bm_free(account, copy.bytes, copy.cap);
    return r;
}

/* --- for people --------------------------------------------------------------------------------- */

static void say_damaged(const struct bm_recovery *recovery, char *text, size_t cap)
{
    const struct bm_scan *scan = &recovery->scan;
    const char *why = recovery->stop == 0 ? "kv: no record" : beam_strerror(recovery->stop);
    if (scan->live_end == 0)
        snprintf(text, cap,
                 "damaged at offset %" PRIu64 " (%s), where its state is not complete yet; nothing "
                 "was changed. Restore a copy, in a file of a new epoch: beam kv dump COPY > NEW",
                 scan->offset, why);
    else
        snprintf(text, cap,
                 "damaged at offset %" PRIu64 " (%s), and what stands behind it says that it was "
                 "whole; nothing was changed. Restore a copy, or keep revisions up to %" PRIu64
                 " and lose all later ones; either way in a file of a new epoch: "
                 "beam kv dump FILE > NEW",
                 scan->offset, why, scan->rev);
}

void bm_recovery_tell(const struct bm_recovery *recovery, const char *path, int error,
                      struct bm_log_found *ret)
{
    const struct bm_scan *scan = &recovery->scan;
    char text[352] = "";
    ret->epoch = scan->epoch;
    ret->rev = scan->rev;
    ret->base_rev = scan->base_rev;
    ret->records = scan->records;
    ret->file_len = scan->offset;
    ret->cut_offset = recovery->tail_len > 0 ? recovery->tail_offset : 0;
    ret->cut_len = recovery->tail_len;
    ret->clean = error == 0 && scan->closed && recovery->tail_len == 0;
    if (error == -BEAM_EKV_CORRUPT) {
        ret->bad_offset = scan->offset;
        say_damaged(recovery, text, sizeof(text));
    } else if (error == -BEAM_EKV_TOO_LARGE) {
        ret->bad_offset = scan->offset;
        snprintf(text, sizeof(text),
                 "the record at offset %" PRIu64
                 " is whole, and longer than is taken here; nothing "
                 "was changed",
                 scan->offset);
    } else if (error == -EEXIST) {
        snprintf(text, sizeof(text), "its name with .new behind is that of something else");
    } else if (error < 0) {
        snprintf(text, sizeof(text), "%s", beam_strerror(error));
    } else if (recovery->tail_len > 0) {
        snprintf(text, sizeof(text),
                 "a torn tail of %" PRIu64 " bytes was cut at offset %" PRIu64
                 ", behind revision %" PRIu64,
                 recovery->tail_len, recovery->tail_offset, scan->rev);
    } else if (recovery->stop < 0) {
        snprintf(text, sizeof(text), "no record at offset %" PRIu64 ": %s", scan->offset,
                 beam_strerror(recovery->stop));
    }
    ret->message[0] = '\0';
    if (text[0])
        snprintf(ret->message, sizeof(ret->message), "%.160s%s%s", path ? path : "",
                 path ? ": " : "", text);
}
