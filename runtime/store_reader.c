/* The file of a store, read without being its store: what it holds, and what the next store to open it
 * would make of it (docs/spec/kv.md, R12 and R17). Nothing is locked or changed.
 *
 * A file that a store has open is not at rest. What is behind its last record is on its way, as a store
 * cuts what is torn before it begins. And a mark may stand behind a place that was read too early: so it
 * is damaged only if reading it again comes no further. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <beam/store.h>

#include "kv/log_file.h"
#include "kv/recovery.h"
#include "runtime/options.h"
#include "runtime/store_state.h"

#define ATTEMPTS_MAX 5 /* ours: a writer that is faster than that is well */

struct reading {
    struct bm_state state;
    struct beam_store_file_info info;
};

static int load(void *arg, const struct bm_record *record)
{
    struct bm_state *state = arg;
    const uint8_t *pos = record->body, *end = pos + record->body_len;
    int r = 0;
    while (r == 0 && pos < end) {
        struct bm_tree_entry *entry = bm_tree_entry_copy(NULL, record->rev, pos);
        pos += bm_entry_at(pos).len;
        r = entry ? bm_state_load(state, entry) : -ENOMEM;
    }
    return r;
}

static int read_once(struct reading *reading, struct bm_window *window)
{
    struct bm_recovery recovery = {0};
    const struct bm_scan *scan = &recovery.scan;
    bm_state_clear(&reading->state);
    int r = bm_recovery_follow(window, true, load, &reading->state, &recovery);
    if (r < 0)
        return r;
    int verdict = bm_recovery_judge(window, &recovery);
    if (verdict < 0 && verdict != -BEAM_EKV_CORRUPT && verdict != -BEAM_EKV_FORMAT)
        return verdict;
    reading->info = (struct beam_store_file_info){
        .epoch = scan->epoch,
        .rev = scan->rev,
        .base_rev = scan->base_rev,
        .keys = bm_state_keys(&reading->state),
        .data_len = reading->state.tree.data_len,
        .records = scan->records,
        .file_len = scan->offset,
        .tail_len = recovery.tail_len,
        .closed = scan->closed,
        .renewed = scan->early,
        .stop = recovery.stop,
        .verdict = verdict,
    };
    return bm_recovery_judge_read(&recovery);
}

static bool is_locked(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static int read_fd(struct reading *reading, int fd)
{
    struct beam_store_file_info *info = &reading->info;
    uint64_t seen_len = UINT64_MAX;
    for (int attempt = 1;; attempt++) {
        struct bm_window window;
        bool in_use = is_locked(fd); /* before: who has closed it meanwhile has left it at rest */
        int r = bm_window_open(&window, fd, BM_LOG_RECORD_LEN_MAX, NULL);
        if (r < 0)
            return r;
        r = read_once(reading, &window);
        bm_window_deinit(&window);
        info->in_use = in_use;
        if (!in_use || info->verdict == -BEAM_EKV_FORMAT)
            return r;
        if (info->verdict == 0 || (info->file_len != seen_len && attempt == ATTEMPTS_MAX)) {
            info->verdict = info->stop = 0;
            info->tail_len = 0;
            return r;
        }
        if (info->file_len == seen_len)
            return r;
        seen_len = info->file_len;
    }
}

/* *ret_replaced: another file has taken its place meanwhile, and this one was nobody's any more. */
static int read_place(struct reading *reading, const struct bm_log_place *place, bool *ret_replaced)
{
    int fd;
    int r = bm_log_place_open_read(place, &fd);
    *ret_replaced = false;
    if (r < 0)
        return r;
    r = read_fd(reading, fd);
    *ret_replaced = !reading->info.in_use && bm_log_place_means(place, fd) == 0;
    close(fd);
    return r;
}

static int hand_over(const struct bm_state *state, beam_store_entry_fn *fn, void *arg)
{
    struct bm_tree_iter iter = bm_tree_seek(&state->tree, "", 0, false);
    const struct bm_tree_entry *entry;
    int r = 0;
    while (fn && r == 0 && (entry = bm_tree_next(&iter))) {
        beam_kv_value value = bm_state_value(entry);
        r = fn(bm_state_key(entry), &value, entry->rev, arg);
    }
    return r;
}

/* r: what came of reading. */
static int finish(struct reading *reading, int r, beam_store_entry_fn *fn, void *arg,
                  struct beam_store_file_info *ret_info)
{
    bool tells = r == 0 || r == -BEAM_EKV_CORRUPT || r == -BEAM_EKV_FORMAT;
    if (tells && ret_info)
        (void)bm_options_write(ret_info, &reading->info, sizeof(reading->info));
    if (r == 0)
        r = hand_over(&reading->state, fn, arg);
    bm_state_clear(&reading->state);
    return r;
}

int beam_store_read_file(const char *path, beam_store_entry_fn *fn, void *arg,
                         struct beam_store_file_info *ret_info)
{
    struct reading reading = {0};
    struct bm_log_place place;
    if (ret_info && ret_info->size == 0)
        return -EINVAL;
    int r = bm_log_place_init(&place, path, NULL);
    if (r < 0)
        return r;
    bm_state_init(&reading.state, NULL);
    bool replaced = true;
    for (int attempt = 1; replaced && attempt <= ATTEMPTS_MAX; attempt++)
        r = read_place(&reading, &place, &replaced);
    bm_log_place_deinit(&place, NULL);
    return finish(&reading, r, fn, arg, ret_info);
}

int beam_store_read(const void *bytes, size_t len, beam_store_entry_fn *fn, void *arg,
                    struct beam_store_file_info *ret_info)
{
    struct reading reading = {0};
    struct bm_window window;
    if (ret_info && ret_info->size == 0)
        return -EINVAL;
    bm_state_init(&reading.state, NULL);
    bm_window_over(&window, bytes, len);
    int r = read_once(&reading, &window);
    bm_window_deinit(&window);
    return finish(&reading, r, fn, arg, ret_info);
}
