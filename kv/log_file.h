/* The file of a log in its directory: found or made, locked, grown, and put in the place of another.
 * Everything here blocks. Integers: 0, else -errno or -BEAM_EKV_…. */
#ifndef BM_LOG_FILE_H
#define BM_LOG_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bm_account;

/* Where the file is. The directory stays open, so that a rename means the same one later. */
struct bm_log_place {
    int dir_fd;
    char *name;     /* in the directory */
    char *new_name; /* the same with ".new" */
    size_t name_len;
};

int bm_log_place_init(struct bm_log_place *place, const char *path, struct bm_account *account);

/* Whether its name is one that the new file of another has, "….new": no place for a store. */
bool bm_log_place_is_new(const struct bm_log_place *place);
void bm_log_place_deinit(struct bm_log_place *place, struct bm_account *account);

/* Opens the file for writing, locked, and sees to it that the name still means it (R13). -ENOENT: there
 * is none; -BEAM_EKV_LOCKED; -BEAM_EKV_FORMAT: no regular file. */
int bm_log_place_open(const struct bm_log_place *place, int *ret_fd);

/* Opens it for reading, without a lock. */
int bm_log_place_open_read(const struct bm_log_place *place, int *ret_fd);

/* Makes an empty, locked ".new" for a file that is there, with its mode and as far as that is possible its
 * owner; the caller has the lock of that. What was left over under that name goes first, and is never made
 * use of. -ESTALE: the name means another file by now; -BEAM_EKV_LOCKED: somebody has the lock of ".new";
 * -EEXIST: what stands there is no regular file, and so nothing that was left over. */
int bm_log_place_make_new(const struct bm_log_place *place, int old_fd, int *ret_fd);

/* The same where there is no file yet. > 0: somebody else has made one meanwhile, or is just making it:
 * look again. */
int bm_log_place_make_first(const struct bm_log_place *place, int *ret_fd);

/* Whether the two names still mean these files, both locked by the caller, so that the new one may take the
 * place of the old one (-1: of none). 0; -ESTALE: they do not. */
int bm_log_place_may_rename(const struct bm_log_place *place, int old_fd, int new_fd);

/* Looks, puts ".new" in the place of the file, and syncs the directory. Where there was none: never over
 * another, -EEXIST. */
int bm_log_place_rename(const struct bm_log_place *place, int old_fd, int new_fd);

/* Whether the name means this open file: 1, 0, or an error. */
int bm_log_place_means(const struct bm_log_place *place, int fd);

/* Removes ".new", if that means this file, whose lock the caller has. */
void bm_log_place_remove_new(const struct bm_log_place *place, int new_fd);

/* Removes a ".new" that was left over; the caller has the lock of the file itself. Errors as for making
 * one; 0: there is none any more. */
int bm_log_place_clear_new(const struct bm_log_place *place);

/* Gives back the lock, then the file: the kernel may keep it open for longer than we do, for the sake of an
 * operation that is done. *fd becomes -1. */
void bm_log_file_close(int *fd);

/* The same in two halves: gives back the lock, so that the descriptor is the caller's to close. */
void bm_log_file_unlock(int fd);

/* Room that the disk has set aside for a file, in steps. Where it refuses one, because it is full, the
 * next are as short as they can be, and grow again with each that it grants: so a nearly full disk is filled
 * to its end, and a full one is not asked twice for each change. */
struct bm_log_room {
    uint64_t
        allocated; /* up to here; UINT64_MAX: the file system cannot do that, and only writing will tell */
    uint64_t step, step_max;
};

static inline struct bm_log_room bm_log_room(uint64_t step_max)
{
    return (struct bm_log_room){.step = step_max, .step_max = step_max};
}

/* What is to be asked for next, so that there is room for [from, to): true, and the range; false: nothing,
 * there is room. The range is less than 2^31 long: asked for, it may have to be asked again. */
bool bm_log_room_ask(const struct bm_log_room *room, uint64_t from, uint64_t to,
                     uint64_t *ret_offset, uint32_t *ret_len);

/* What fallocate(2) has said of that. 0: ask whether there is enough now, perhaps for less; or the error. */
int bm_log_room_answer(struct bm_log_room *room, uint64_t offset, uint32_t len, int res);

/* Asks until there is enough, and waits for it. */
int bm_log_room_extend(struct bm_log_room *room, int fd, uint64_t from, uint64_t to);

/* All of it, whatever the kernel takes at once. */
int bm_log_file_write(int fd, const void *bytes, size_t len, uint64_t offset);

/* Less than len only at the end of the file. */
int bm_log_file_read(int fd, void *bytes, size_t len, uint64_t offset, size_t *ret_len);

/* fdatasync(2), once: what it says is final. */
int bm_log_file_sync(int fd);

#endif
