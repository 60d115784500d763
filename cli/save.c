/* Save: an fd that came with an answer becomes a file.
 *
 * The bytes go to PATH.part and are renamed at the end, so that nobody ever sees half a file under
 * the real name; a failure and a signal remove the part again. What already exists and is no
 * regular file (a pipe, /dev/null) is written to directly: renaming would replace it.
 *
 * copy_file_range(2) lets file systems share blocks; where it does not apply (pipes, sockets, other
 * file systems) sendfile(2), and then read and write, go on from where it stopped. */
#include "cli/save.h"

#include "cli/progress.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP ((size_t)8 << 20) /* long enough to cost nothing, short enough to show progress */
#define PART ".part-XXXXXX"    /* mkostemp(3) */
#define BUFFER ((size_t)64 << 10)

static const char *part_to_remove; /* for the signal handler */

static void on_signal(int number)
{
    if (part_to_remove)
        unlink(part_to_remove);
    raise(number); /* SA_RESETHAND: the default action follows when the handler returns */
}

static void remove_on_signal(const char *part)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction before, action = {.sa_handler = part ? on_signal : SIG_DFL,
                                       .sa_flags = part ? (int)SA_RESETHAND : 0};
    part_to_remove = part;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        /* nohup(1), and shells for what runs in the background, have some ignored: so be it. */
        if (sigaction(numbers[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(numbers[i], &action, NULL);
}

/* An fd may be non-blocking on the sender's wish; its flags are shared, so they are not changed. */
static void wait_for(int fd, short events)
{
    struct pollfd waiting = {.fd = fd, .events = events};
    (void)poll(&waiting, 1, -1);
}

static ssize_t copy_step(int from, int to, int *method, char *buffer)
{
    ssize_t n = 0;
    switch (*method) {
    case 0:
        n = copy_file_range(from, NULL, to, NULL, STEP, 0);
        break;
    case 1:
        n = sendfile(to, from, NULL, STEP);
        break;
    default:
        n = read(from, buffer, BUFFER);
        for (ssize_t written = 0, m; n > 0 && written < n; written += m) {
            m = write(to, buffer + written, (size_t)(n - written));
            if (m < 0 && errno != EINTR && errno != EAGAIN)
                return -errno;
            if (m < 0 && errno == EAGAIN)
                wait_for(to, POLLOUT);
            if (m < 0)
                m = 0;
        }
        return n < 0 ? -errno : n;
    }
    if (n > 0)
        return n;
    /* Files of /proc say 0 to the first two and have content; and the errors of what does not apply
     * differ by kernel and file system. The last method decides. */
    ++*method;
    return -EINTR;
}

static int copy(int from, int to, const char *what)
{
    struct stat st;
    struct progress progress;
    uint64_t done = 0;
    int method = 0;
    char *buffer = malloc(BUFFER);
    if (!buffer)
        return -ENOMEM;
    bool regular = fstat(from, &st) == 0 && S_ISREG(st.st_mode);
    progress_begin(&progress, what, regular ? (uint64_t)st.st_size : 0);
    ssize_t n;
    while ((n = copy_step(from, to, &method, buffer)) != 0) {
        if (n == -EAGAIN)
            wait_for(from, POLLIN);
        else if (n < 0 && n != -EINTR)
            break;
        if (n > 0)
            done += (uint64_t)n;
        progress_update(&progress, done);
    }
    progress_end(&progress, done);
    free(buffer);
    return (int)n;
}

/* The final file keeps nothing of the sender's mode but is made like any new file. */
static int open_part(char *part)
{
    int fd = mkostemp(part, O_CLOEXEC);
    mode_t mask = umask(0);
    umask(mask);
    if (fd >= 0 && fchmod(fd, 0666 & ~mask) < 0) {
        int saved = errno;
        unlink(part);
        close(fd);
        errno = saved;
        return -1;
    }
    return fd;
}

static int save_by_rename(int from, const char *path)
{
    char *part = NULL;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    /* The longest name there can be is cut, to have room for what is added. */
    if (asprintf(&part, "%.*s%.*s%s", (int)(name - path), path, (int)(NAME_MAX + 1 - sizeof(PART)),
                 name, PART) < 0)
        return -ENOMEM;
    int to = open_part(part), r = to < 0 ? -errno : 0;
    if (r >= 0) {
        remove_on_signal(part);
        r = copy(from, to, path);
        if (close(to) < 0 && r >= 0) /* quota and network file systems report here */
            r = -errno;
        if (r >= 0 && rename(part, path) < 0)
            r = -errno;
        if (r < 0)
            unlink(part);
        remove_on_signal(NULL);
    }
    free(part);
    return r;
}

static int save_directly(int from, const char *path)
{
    int to = strcmp(path, "-") == 0 ? fcntl(1, F_DUPFD_CLOEXEC, 3)
                                    : open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
    if (to < 0)
        return -errno;
    int r = copy(from, to, path);
    if (close(to) < 0 && r >= 0)
        r = -errno;
    return r;
}

int save_fd(int fd, const char *path)
{
    struct stat st;
    bool direct = strcmp(path, "-") == 0 || (stat(path, &st) == 0 && !S_ISREG(st.st_mode));
    int r = direct ? save_directly(fd, path) : save_by_rename(fd, path);
    if (r < 0)
        fprintf(stderr, "beam: saving to %s: %s\n", path, strerror(-r));
    return r;
}
