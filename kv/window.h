/* A window over a file, or over bytes in memory, which moves forward: what lies at an offset, in one
 * piece, as much as is asked for. Its memory grows with the longest piece, never beyond the file, nor beyond
 * a limit. Holes in a file can be passed over. */
#ifndef BM_WINDOW_H
#define BM_WINDOW_H

#include <stddef.h>
#include <stdint.h>

struct bm_account;

#define BM_WINDOW_LEN ((size_t)1 << 20) /* ours: of a read */

struct bm_window {
    int fd; /* borrowed; -1: all is in memory */
    struct bm_account *account;
    const uint8_t *bytes; /* of a file: what was read, */
    uint64_t start;       /* from this offset on */
    size_t len, cap;
    size_t piece_len_max; /* of a file: more is not asked for at once */
    uint64_t file_len;
};

/* The file as long as it is now. Pieces of BM_WINDOW_LEN can be had whatever the limit. */
int bm_window_open(struct bm_window *window, int fd, size_t piece_len_max,
                   struct bm_account *account);
void bm_window_over(struct bm_window *window, const void *bytes, size_t len);
void bm_window_deinit(struct bm_window *window);

/* offset <= file_len. *ret_left: at least `wanted`, or all up to the end. The bytes stay until the next
 * call. 0, -ENOMEM, or what reading said. */
int bm_window_at(struct bm_window *window, uint64_t offset, uint64_t wanted,
                 const uint8_t **ret_bytes, uint64_t *ret_left);

/* The first offset from this one on behind which there may be anything but zeros; the end of the file, if
 * there is none. */
uint64_t bm_window_next_data(const struct bm_window *window, uint64_t offset);

#endif
