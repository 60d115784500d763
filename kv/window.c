/* Reads whole windows. What a record has in front of the next one's end is read twice, which is at most
 * one record a window. */
#define _GNU_SOURCE
#include "kv/window.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "kv/log_file.h"

int bm_window_open(struct bm_window *window, int fd, size_t piece_len_max,
                   struct bm_account *account)
{
    struct stat st;
    *window = (struct bm_window){.fd = fd, .account = account};
    window->piece_len_max = piece_len_max > BM_WINDOW_LEN ? piece_len_max : BM_WINDOW_LEN;
    if (fstat(fd, &st) < 0)
        return -errno;
    window->file_len = (uint64_t)st.st_size;
    return 0;
}

void bm_window_over(struct bm_window *window, const void *bytes, size_t len)
{
    *window = (struct bm_window){.fd = -1, .bytes = bytes, .len = len, .file_len = len};
}

void bm_window_deinit(struct bm_window *window)
{
    if (window->cap > 0)
        bm_free(window->account, (void *)(uintptr_t)window->bytes, window->cap);
    window->bytes = NULL;
    window->len = window->cap = 0;
}

static int make_room(struct bm_window *window, uint64_t wanted)
{
    if (wanted <= window->cap)
        return 0;
    size_t cap = wanted > BM_WINDOW_LEN ? (size_t)wanted : BM_WINDOW_LEN;
    uint8_t *bytes = bm_alloc(window->account, cap);
    if (!bytes)
        return -ENOMEM;
    bm_window_deinit(window);
    window->bytes = bytes;
    window->cap = cap;
    return 0;
}

int bm_window_at(struct bm_window *window, uint64_t offset, uint64_t wanted,
                 const uint8_t **ret_bytes, uint64_t *ret_left)
{
    uint64_t there = window->file_len - offset;
    if (wanted > there)
        wanted = there;
    bm_assert(window->fd < 0 || wanted <= window->piece_len_max);
    uint64_t end = window->start + window->len;
    if (offset < window->start || offset > end || end - offset < wanted) {
        int r = make_room(window, wanted);
        if (r < 0)
            return r;
        window->start = offset;
        window->len = 0;
        r = bm_log_file_read(window->fd, (void *)(uintptr_t)window->bytes,
                             there < window->cap ? (size_t)there : window->cap, offset,
                             &window->len);
        if (r < 0)
            return r;
        end = offset + window->len;
        if (end - offset < wanted) /* somebody has cut it */
            window->file_len = end;
    }
    *ret_bytes = window->bytes ? window->bytes + (offset - window->start) : NULL;
    *ret_left = end - offset;
    return 0;
}

uint64_t bm_window_next_data(const struct bm_window *window, uint64_t offset)
{
    if (window->fd < 0 || offset >= window->file_len)
        return offset;
    off_t data = lseek(window->fd, (off_t)offset, SEEK_DATA);
    if (data < 0)
        return errno == ENXIO ? window->file_len : offset; /* not every file system knows */
    return (uint64_t)data & ~UINT64_C(7);
}
