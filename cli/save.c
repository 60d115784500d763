/* Save: an fd that came with an answer becomes a file.
 *
 * The bytes go to PATH.part-XXXXXX, which is synced and renamed at the end, so that nobody ever sees half a
 * file under the real name, not after a loss of power either; a failure and a signal remove the part
 * again. A file that is replaced leaves its mode, and its owner where that can be, unless somebody else put
 * it where anybody may; and a symbolic link stays: it is what it leads to that is replaced. What already
 * exists and is no regular file (a pipe, /dev/null) is written to directly: renaming would replace it.
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
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP ((size_t)8 << 20) /* long enough to cost nothing, short enough to show progress */
#define PART ".part-"
#define PART_LETTERS 6
#define PART_LEN (sizeof(PART) - 1 + PART_LETTERS)
#define LINKS_MAX 40 /* as the kernel has it: path_resolution(7) */
#define BUFFER ((size_t)64 << 10)

static const char *volatile part_to_remove; /* for the signal handler */

static void on_signal(int number)
{
    const char *part = part_to_remove;
    if (part)
        unlink(part);
    raise(number); /* SA_RESETHAND: the default action follows when the handler returns */
}

static void remove_on_signal(const char *part)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGXFSZ};
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

/* The part of a path that names its directory; for free(3). */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return !slash ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/* Whether what is at `path` says where to write, and with which mode and owner. As the kernel has it for who
 * opens a file through a link (proc_sys_fs(5), protected_symlinks), and does not see when it is followed
 * here: in a directory where anybody may put something, only our own, or its owner's. */
static bool may_heed(const struct stat *found, const char *path)
{
    struct stat dir;
    char *name = directory_of(path);
    bool known = name && stat(name, &dir) == 0;
    free(name);
    const mode_t shared = S_ISVTX | S_IWOTH;
    return known && ((dir.st_mode & shared) != shared || found->st_uid == geteuid() ||
                     found->st_uid == dir.st_uid);
}

/* What the symbolic link `path` says; its length, 0: it is none, or not there. -errno. */
static ssize_t read_link(const char *path, char to[PATH_MAX])
{
    struct stat st;
    int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t len = 0;
    if (fstat(fd, &st) == 0 && S_ISLNK(st.st_mode))
        len = may_heed(&st, path) ? readlinkat(fd, "", to, PATH_MAX) : -EACCES;
    close(fd);
    return len == PATH_MAX ? -ENAMETOOLONG : len;
}

/* Where a path leads, over symbolic links, whether or not there is something; for free(3). 0 or -errno. */
static int follow(const char *path, char **ret_path)
{
    char *now = strdup(path), to[PATH_MAX];
    for (int links = 0; now; links++) {
        ssize_t len = read_link(now, to);
        if (len == 0) {
            *ret_path = now;
            return 0;
        }
        char *slash = strrchr(now, '/'), *next = NULL;
        int before = to[0] == '/' || !slash ? 0 : (int)(slash + 1 - now);
        int r = links == LINKS_MAX ? -ELOOP : len < 0 ? (int)len : 0;
        if (r == 0 && asprintf(&next, "%.*s%.*s", before, now, (int)len, to) < 0)
            r = -ENOMEM;
        free(now);
        if (r < 0)
            return r;
        now = next;
    }
    return -ENOMEM;
}

static void draw_letters(char *to)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    unsigned char random[PART_LETTERS] = {0};
    if (getrandom(random, sizeof(random), 0) < 0)
        memset(random, 0, sizeof(random)); /* that a name is taken is seen anyway */
    for (int i = 0; i < PART_LETTERS; i++)
        to[i] = letters[random[i] % (sizeof(letters) - 1)];
}

/* Makes the part, whose name ends with letters to be drawn. From before it is there a signal removes it. */
static int open_part(char *part)
{
    char *letters = part + strlen(part) - PART_LETTERS;
    int fd;
    do {
        remove_on_signal(NULL); /* one that has the same name is somebody else's */
        draw_letters(letters);
        remove_on_signal(part);
        fd = open(part, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600);
    } while (fd < 0 && errno == EEXIST);
    if (fd < 0)
        remove_on_signal(NULL);
    return fd;
}

/* The final file keeps nothing of the sender's mode: it has that of the one it replaces, or is made like any
 * new file. Who may not give it away keeps it, and what one group might do is for no other. */
static int set_mode(int fd, const struct stat *replaced)
{
    struct stat st;
    mode_t mask = umask(0);
    umask(mask);
    mode_t mode = replaced ? replaced->st_mode & 0777 : 0666 & ~mask;
    if (replaced && fchown(fd, replaced->st_uid, replaced->st_gid) < 0 &&
        fchown(fd, (uid_t)-1, replaced->st_gid) < 0 &&
        (fstat(fd, &st) < 0 || st.st_gid != replaced->st_gid))
        mode &= ~(mode_t)S_IRWXG;
    return fchmod(fd, mode) < 0 ? -errno : 0;
}

/* Not every kind of file can be synced: EINVAL, and EROFS of what is no file system of a disk. */
static int sync_fd(int fd)
{
    return fsync(fd) < 0 && errno != EINVAL && errno != EROFS ? -errno : 0;
}

static int sync_directory_of(const char *path)
{
    char *dir = directory_of(path);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1, r = dir ? 0 : -ENOMEM;
    free(dir);
    if (fd < 0)
        return r; /* one that cannot be read cannot be synced, and the file is there all the same */
    r = sync_fd(fd);
    close(fd);
    return r;
}

/* replaced: what is at path now and leaves its mode and owner, or NULL. */
static int save_by_rename(int from, const char *path, const struct stat *replaced)
{
    char *part = NULL;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    /* The longest name there can be is cut, to have room for what is added. */
    if (asprintf(&part, "%.*s%.*s%s%*s", (int)(name - path), path, (int)(NAME_MAX - PART_LEN), name,
                 PART, PART_LETTERS, "") < 0)
        return -ENOMEM;
    int to = open_part(part), r = to < 0 ? -errno : 0;
    if (r >= 0) {
        r = set_mode(to, replaced);
        if (r >= 0)
            r = copy(from, to, path);
        if (r >= 0)
            r = sync_fd(to);
        if (close(to) < 0 && r >= 0) /* quota and network file systems report here */
            r = -errno;
        if (r >= 0 && rename(part, path) < 0)
            r = -errno;
        else if (r >= 0)
            r = sync_directory_of(path);
        if (r < 0)
            unlink(part);
        remove_on_signal(NULL);
    }
    free(part);
    return r;
}

/* What path leads to, if that is a regular file or nothing. */
static int save_to_file(int from, const char *path)
{
    struct stat st;
    char *target;
    int r = follow(path, &target);
    if (r < 0)
        return r;
    bool heeded = lstat(target, &st) == 0 && S_ISREG(st.st_mode) && may_heed(&st, target);
    r = save_by_rename(from, target, heeded ? &st : NULL);
    free(target);
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
    int r = direct ? save_directly(fd, path) : save_to_file(fd, path);
    if (r < 0)
        fprintf(stderr, "beam: saving to %s: %s\n", path, strerror(-r));
    return r;
}
