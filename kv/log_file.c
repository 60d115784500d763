/* The file of a log and its lock.
 *
 * Model. Whoever has the write lock on the inode that the name stands for is the writer (R13). A new
 * file gets its lock under the name ".new", before it is renamed, so the lock moves into place with it;
 * he who waits at the old inode finds, when he gets its lock, that the name means another, and looks
 * again.
 *
 * A file with the name ".new" is removed, or renamed, only by him who has its lock, and has seen since that
 * the name stands for it. So two makers never both win: one of them finds the other's lock, or the file.
 * And what somebody has open under that name, as a store of its own or because he has become the writer
 * since, stays. One that nobody has is left over, and goes; it is never written to, as it may have another
 * mode, another owner and other names.
 *
 * Locks hold off those who ask for them. Against a file that is moved, with no lock asked for, while its log
 * is open there is a look at what the names mean before each of these steps, and behind the rename. */
#define _GNU_SOURCE
#include "kv/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <beam/error.h>

#include "base/alloc.h"
#include "base/cleanup.h"

#define LOOKS_MAX                                                                                  \
    64 /* ours: each one means that another writer has put a file in place meanwhile */
#define BLOCK_LEN 4096u /* ours: what is asked for at least where a whole step finds no room */
#define ASK_LEN_MAX (1u << 30) /* ours: of an operation's length, which has 32 bits */
#define SUFFIX ".new"

int bm_log_place_init(struct bm_log_place *place, const char *path, struct bm_account *account)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t len = strlen(name), dir_len = (size_t)(name - path);
    char dir[4096];
    *place = (struct bm_log_place){.dir_fd = -1};
    if (len == 0)
        return path[0] ? -EISDIR : -EINVAL;
    if (dir_len >= sizeof(dir))
        return -ENAMETOOLONG;
    memcpy(dir, path, dir_len);
    dir[dir_len] = '\0';

    place->name_len = len;
    place->name = bm_alloc(account, len + 1);
    place->new_name = bm_alloc(account, len + sizeof(SUFFIX));
    int r = place->name && place->new_name ? 0 : -ENOMEM;
    if (r == 0) {
        memcpy(place->name, name, len + 1);
        memcpy(place->new_name, name, len);
        memcpy(place->new_name + len, SUFFIX, sizeof(SUFFIX));
        place->dir_fd = open(dir_len > 0 ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = place->dir_fd < 0 ? -errno : 0;
    }
    if (r < 0)
        bm_log_place_deinit(place, account);
    return r;
}

bool bm_log_place_is_new(const struct bm_log_place *place)
{
    size_t len = sizeof(SUFFIX) - 1;
    return place->name_len >= len && memcmp(place->name + place->name_len - len, SUFFIX, len) == 0;
}

void bm_log_place_deinit(struct bm_log_place *place, struct bm_account *account)
{
    if (place->dir_fd >= 0)
        close(place->dir_fd);
    place->name = bm_free(account, place->name, place->name_len + 1);
    place->new_name = bm_free(account, place->new_name, place->name_len + sizeof(SUFFIX));
    place->dir_fd = -1;
}

/* O_NONBLOCK, so that a pipe or a device cannot hold us; a regular file must not keep it, because the
 * ring would then say -EAGAIN instead of waiting for the disk. */
static int open_regular(const struct bm_log_place *place, const char *name, int flags, int *ret_fd)
{
    struct stat st;
    int fd =
        openat(place->dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (fd < 0)
        return -errno;
    int r = 0;
    if (fstat(fd, &st) < 0)
        r = -errno;
    else if (!S_ISREG(st.st_mode))
        r = S_ISDIR(st.st_mode) ? -EISDIR : -BEAM_EKV_FORMAT;
    else if (fcntl(fd, F_SETFL, 0) < 0)
        r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

static int set_lock(int fd, short type)
{
    struct flock all = {.l_type = type, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &all) == 0)
        return 0;
    return errno == EAGAIN || errno == EACCES ? -BEAM_EKV_LOCKED : -errno;
}

void bm_log_file_close(int *fd)
{
    if (*fd < 0)
        return;
    bm_log_file_unlock(*fd);
    close(bm_take_fd(fd));
}

void bm_log_file_unlock(int fd)
{
    set_lock(fd, F_UNLCK);
}

/* 1: the name means this file; 0: it does not. */
static int is_named(const struct bm_log_place *place, const char *name, int fd)
{
    struct stat here, there;
    if (fstat(fd, &here) < 0)
        return -errno;
    if (fstatat(place->dir_fd, name, &there, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    return here.st_dev == there.st_dev && here.st_ino == there.st_ino;
}

/* Opens, locks, and looks whether that is what the name still means: 1, or 0 to look again. */
static int open_locked(const struct bm_log_place *place, const char *name, int flags, int *ret_fd)
{
    int fd;
    int r = open_regular(place, name, flags, &fd);
    if (r < 0)
        return r;
    r = set_lock(fd, F_WRLCK);
    if (r == 0)
        r = is_named(place, name, fd);
    if (r <= 0)
        close(fd);
    else
        *ret_fd = fd;
    return r;
}

int bm_log_place_clear_new(const struct bm_log_place *place)
{
    int fd;
    int r = open_locked(place, place->new_name, O_RDWR, &fd);
    if (r == -ELOOP || r == -EISDIR || r == -ENXIO || r == -BEAM_EKV_FORMAT)
        return -EEXIST;
    if (r <= 0)
        return r == -ENOENT ? 0 : r;
    r = unlinkat(place->dir_fd, place->new_name, 0) < 0 ? -errno : 0;
    close(fd);
    return r;
}

/* A ".new" that did not exist before, locked. */
static int create_new(const struct bm_log_place *place, int *ret_fd)
{
    for (int looks = 0; looks < LOOKS_MAX; looks++) {
        int r = open_locked(place, place->new_name, O_RDWR | O_CREAT | O_EXCL, ret_fd);
        if (r > 0)
            return 0;
        if (r == -EEXIST)
            r = bm_log_place_clear_new(place);
        if (r < 0)
            return r;
    }
    return -BEAM_EKV_LOCKED;
}

int bm_log_place_open(const struct bm_log_place *place, int *ret_fd)
{
    for (int looks = 0; looks < LOOKS_MAX; looks++) {
        int r = open_locked(place, place->name, O_RDWR, ret_fd);
        if (r != 0)
            return r < 0 ? r : 0;
    }
    return -BEAM_EKV_LOCKED;
}

int bm_log_place_means(const struct bm_log_place *place, int fd)
{
    return is_named(place, place->name, fd);
}

int bm_log_place_open_read(const struct bm_log_place *place, int *ret_fd)
{
    return open_regular(place, place->name, O_RDONLY, ret_fd);
}

/* As far as we may. Who may not give a file away goes on with one of his own; the bits of a group that it cannot
 * have are for no other. Before the mode: a change of owner may take bits of that away. */
static int take_owner(int fd, struct stat *st)
{
    struct stat now;
    if (fchown(fd, st->st_uid, st->st_gid) == 0 || fchown(fd, (uid_t)-1, st->st_gid) == 0)
        return 0;
    if (fstat(fd, &now) < 0)
        return -errno;
    if (now.st_gid != st->st_gid)
        st->st_mode &= ~(mode_t)S_IRWXG;
    return 0;
}

int bm_log_place_make_new(const struct bm_log_place *place, int old_fd, int *ret_fd)
{
    struct stat st;
    int fd;
    int r = is_named(place, place->name, old_fd);
    if (r <= 0)
        return r < 0 ? r : -ESTALE;
    if (fstat(old_fd, &st) < 0)
        return -errno;
    r = create_new(place, &fd);
    if (r < 0)
        return r;
    r = take_owner(fd, &st);
    if (r == 0 && fchmod(fd, st.st_mode & 0777) < 0)
        r = -errno;
    if (r < 0) {
        bm_log_place_remove_new(place, fd);
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

int bm_log_place_make_first(const struct bm_log_place *place, int *ret_fd)
{
    struct stat st;
    int fd;
    int r = create_new(place, &fd);
    if (r < 0)
        return r;
    /* With this lock nobody else can make the file; but somebody may have, just before. */
    if (fstatat(place->dir_fd, place->name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        r = 1;
    else
        r = errno != ENOENT ? -errno : 0;
    if (r == 0) {
        *ret_fd = fd;
        return 0;
    }
    bm_log_place_remove_new(place, fd);
    close(fd);
    return r;
}

int bm_log_place_may_rename(const struct bm_log_place *place, int old_fd, int new_fd)
{
    int r = is_named(place, place->new_name, new_fd);
    if (r > 0 && old_fd >= 0)
        r = is_named(place, place->name, old_fd);
    return r < 0 ? r : r == 0 ? -ESTALE : 0;
}

int bm_log_place_rename(const struct bm_log_place *place, int old_fd, int new_fd)
{
    int d = place->dir_fd;
    bool first = old_fd < 0;
    int r = bm_log_place_may_rename(place, old_fd, new_fd);
    if (r < 0)
        return r;
    if (first)
        r = renameat2(d, place->new_name, d, place->name, RENAME_NOREPLACE);
    /* Not every file system knows that; the lock has said already that there is none. */
    if (!first || (r < 0 && errno == EINVAL))
        r = renameat(d, place->new_name, d, place->name);
    if (r < 0 || fsync(d) < 0)
        return -errno;
    r = is_named(place, place->name, new_fd);
    return r < 0 ? r : r == 0 ? -ESTALE : 0;
}

void bm_log_place_remove_new(const struct bm_log_place *place, int new_fd)
{
    if (is_named(place, place->new_name, new_fd) > 0)
        unlinkat(place->dir_fd, place->new_name, 0);
}

bool bm_log_room_ask(const struct bm_log_room *room, uint64_t from, uint64_t to,
                     uint64_t *ret_offset, uint32_t *ret_len)
{
    if (to <= room->allocated)
        return false;
    uint64_t start = room->allocated > from ? room->allocated : from;
    uint64_t end = to + (room->step - to % room->step) % room->step;
    *ret_offset = start;
    *ret_len = end - start < ASK_LEN_MAX ? (uint32_t)(end - start) : ASK_LEN_MAX;
    return true;
}

int bm_log_room_answer(struct bm_log_room *room, uint64_t offset, uint32_t len, int res)
{
    if (res == -EOPNOTSUPP || res == -ENOSYS) {
        room->allocated = UINT64_MAX;
        return 0;
    }
    /* Also after a signal, which undoes what there is of a step: so little is done before the next one. */
    if (res == -EINTR || (res < 0 && room->step > BLOCK_LEN)) {
        room->step = BLOCK_LEN;
        return 0;
    }
    if (res < 0)
        return res;
    if (offset + len > room->allocated)
        room->allocated = offset + len;
    room->step = room->step < room->step_max / 2 ? room->step * 2 : room->step_max;
    return 0;
}

int bm_log_room_extend(struct bm_log_room *room, int fd, uint64_t from, uint64_t to)
{
    uint64_t offset;
    uint32_t len;
    int r = 0;
    while (r == 0 && bm_log_room_ask(room, from, to, &offset, &len)) {
        int res = fallocate(fd, 0, (off_t)offset, (off_t)len) < 0 ? -errno : 0;
        r = bm_log_room_answer(room, offset, len, res);
    }
    return r;
}

int bm_log_file_write(int fd, const void *bytes, size_t len, uint64_t offset)
{
    const uint8_t *pos = bytes;
    while (len > 0) {
        ssize_t n = pwrite(fd, pos, len, (off_t)offset);
        if (n <= 0) {
            if (n < 0 && errno == EINTR)
                continue;
            return n < 0 ? -errno : -EIO;
        }
        pos += n;
        len -= (size_t)n;
        offset += (uint64_t)n;
    }
    return 0;
}

int bm_log_file_read(int fd, void *bytes, size_t len, uint64_t offset, size_t *ret_len)
{
    uint8_t *pos = bytes;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, pos + done, len - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    *ret_len = done;
    return 0;
}

int bm_log_file_sync(int fd)
{
    return fdatasync(fd) < 0 ? -errno : 0;
}
