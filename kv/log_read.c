/* Reading without being the writer: R12. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kv/log_file.h"
#include "kv/recovery.h"

static int read_window(struct bm_window *window, bool entries, bm_log_record_fn *on_record,
                       void *arg, const char *path, struct bm_log_found *ret_found)
{
    struct bm_recovery recovery = {0};
    struct bm_log_found found;
    memset(&found, 0, sizeof(found));
    int r = bm_recovery_follow(window, entries, on_record, arg, &recovery);
    if (r == 0)
        r = bm_recovery_judge_read(&recovery);
    bm_recovery_tell(&recovery, path, r, &found);
    if (ret_found)
        *ret_found = found;
    return r;
}

int bm_log_read(const void *bytes, size_t len, bool entries, bm_log_record_fn *on_record, void *arg,
                struct bm_log_found *ret_found)
{
    struct bm_window window;
    bm_window_over(&window, bytes, len);
    return read_window(&window, entries, on_record, arg, NULL, ret_found);
}

int bm_log_read_file(const char *path, bm_log_record_fn *on_record, void *arg,
                     struct bm_log_found *ret_found)
{
    struct bm_log_place place;
    struct bm_window window;
    int fd = -1;
    if (ret_found)
        memset(ret_found, 0, sizeof(*ret_found));
    int r = bm_log_place_init(&place, path, NULL);
    if (r < 0)
        return r;
    r = bm_log_place_open_read(&place, &fd);
    if (r == 0)
        r = bm_window_open(&window, fd, BM_LOG_RECORD_LEN_MAX, NULL);
    if (r == 0) {
        r = read_window(&window, true, on_record, arg, path, ret_found);
        bm_window_deinit(&window);
    }
    if (fd >= 0)
        close(fd);
    bm_log_place_deinit(&place, NULL);
    return r;
}
