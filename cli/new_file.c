/* New files: written under a name that nobody uses, synced, and renamed. */
#define _GNU_SOURCE
#include "cli/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_ROOM 256

static int write_all(int fd, const char *bytes, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0) {
            bytes += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int fill(int fd, const void *bytes, size_t len, mode_t mode)
{
    int r = write_all(fd, bytes, len);
    if (r == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
        r = -errno;
    if (close(fd) < 0 && r == 0) /* quota and network file systems report here */
        r = -errno;
    return r;
}

static int give_name(int dir_fd, const char *part, const char *name, bool replace)
{
    if (renameat2(dir_fd, part, dir_fd, name, replace ? 0 : RENAME_NOREPLACE) == 0)
        return 0;
    if (replace || errno != EINVAL)
        return -errno;
    /* A file system that cannot do it in one step. */
    int r = linkat(dir_fd, part, dir_fd, name, 0) < 0 ? -errno : 0;
    if (r == 0)
        (void)unlinkat(dir_fd, part, 0);
    return r;
}

int new_file(int dir_fd, const char *name, const void *bytes, size_t len, mode_t mode, bool replace)
{
    char part[NAME_ROOM];
    uint64_t random;
    if (getrandom(&random, sizeof(random), 0) < 0)
        return -errno;
    snprintf(part, sizeof(part), "%.200s.part-%016" PRIx64, name, random);
    int fd = openat(dir_fd, part, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int r = fill(fd, bytes, len, mode);
    if (r == 0)
        r = give_name(dir_fd, part, name, replace);
    if (r < 0)
        (void)unlinkat(dir_fd, part, 0);
    return r;
}
