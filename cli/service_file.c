/* The service `file`: opens a regular file below a directory and answers with the descriptor.
 *
 *     {"path": "a/b.txt"} -> {"size": bytes, "mtime": seconds since 1970}, and the fd, read-only
 *
 * Nothing outside the directory can be reached: openat2(2) with RESOLVE_BENEATH lets the kernel
 * refuse absolute paths, "..", and symbolic links that lead out, while it walks, so there is
 * nothing to race with. Links that stay inside work. The path is opened with O_PATH first, which
 * touches no driver and waits for no writer, and only what then proves to be a regular file is
 * opened for reading.
 *
 * These calls block while the disk is slow. A server for many clients on slow disks would run them
 * on threads of its own and answer with beam_post; this program keeps to one screen. */
#include "cli/services.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define RETRIES_MAX 64 /* ours: EAGAIN, as somebody renames a directory on the way */

static int open_beneath(int dir, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    long fd = -1;
    for (int i = 0; i < RETRIES_MAX; i++) {
        fd = syscall(SYS_openat2, dir, path, &how, sizeof(how));
        if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
            break;
    }
    return fd < 0 ? -errno : (int)fd;
}

/* As it was opened: a thread sanitizer that sees only one end of a descriptor's life takes the next
 * one of the same number for the same. */
static void close_opened(int fd)
{
    syscall(SYS_close, fd);
}

/* A regular file, or -EISDIR, -ENODEV, … for what else it is. */
static int open_regular(int dir, const char *path, struct stat *ret_stat)
{
    struct stat seen;
    int found = open_beneath(dir, path, O_PATH);
    if (found < 0)
        return found;
    int r = fstat(found, &seen) < 0 ? -errno : S_ISREG(seen.st_mode) ? 0 : -ENOTBLK;
    close_opened(found);
    if (r < 0)
        return r;
    /* In between it may have become something else; with O_NONBLOCK even a FIFO opens at once. */
    int fd = open_beneath(dir, path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd;
    r = fstat(fd, ret_stat) < 0 ? -errno : S_ISREG(ret_stat->st_mode) ? 0 : -ENOTBLK;
    if (r >= 0 && fcntl(fd, F_SETFL, 0) < 0) /* the flags are shared with whoever receives it */
        r = -errno;
    if (r < 0) {
        close_opened(fd);
        return r;
    }
    return fd;
}

static void fail(beam_request *request, beam_str path, int error)
{
    switch (-error) {
    case ENOENT:
    case ENOTDIR:
        beam_fail(request, BEAM_NOT_FOUND, "%.*s: no such file", BEAM_STR(path));
        return;
    case EXDEV: /* RESOLVE_BENEATH */
    case ELOOP: /* RESOLVE_NO_MAGICLINKS, or links in a circle */
        beam_fail(request, BEAM_PERMISSION_DENIED, "%.*s leads outside", BEAM_STR(path));
        return;
    case EACCES:
    case EPERM:
        beam_fail(request, BEAM_PERMISSION_DENIED, "%.*s: not readable", BEAM_STR(path));
        return;
    case ENOTBLK:
        beam_fail(request, BEAM_INVALID_ARGUMENT, "%.*s is not a regular file", BEAM_STR(path));
        return;
    case EINVAL:
    case ENAMETOOLONG:
        beam_fail(request, BEAM_INVALID_ARGUMENT, "path: %s", strerror(-error));
        return;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "%s", strerror(-error));
        return;
    default:
        beam_fail(request, BEAM_INTERNAL, "%.*s: %s", BEAM_STR(path), strerror(-error));
    }
}

static void on_request(beam_request *request, const beam_message *message, void *arg)
{
    int dir = (int)(intptr_t)arg;
    beam_str path;
    char name[PATH_MAX];
    struct stat st;
    if (beam_message_get_str(message, "path", &path) < 0) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "path is missing");
        return;
    }
    if (path.len == 0 || path.len >= sizeof(name) || memchr(path.ptr, 0, path.len)) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "path is not one");
        return;
    }
    memcpy(name, path.ptr, path.len);
    name[path.len] = '\0';
    int fd = open_regular(dir, name, &st);
    if (fd < 0) {
        fail(request, path, fd);
        return;
    }
    beam_message *answer = beam_message_new();
    beam_message_put_int(answer, "size", st.st_size);
    beam_message_put_int(answer, "mtime", st.st_mtime);
    beam_message_attach_fd(answer, &fd);
    beam_reply(request, &answer);
}

/* The directory stays open as long as the program runs. */
static int add(beam_runtime *runtime, const char *name, const char *argument)
{
    int dir = open(argument, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -errno;
    int r = beam_serve(runtime, name, on_request, (void *)(intptr_t)dir);
    if (r < 0)
        close(dir);
    return r;
}

const struct service_kind service_file = {
    .name = "file",
    .argument = "DIR",
    .summary = "opens path=NAME below DIR; answers with size, mtime and the open file",
    .add = add,
};
