/* The folder of a run, and who removes it.
 *
 * A run may be killed at any time, and so may the harness. So the folder is removed by a process that does
 * nothing else: it reads from a pipe that nobody writes to, and whose other end is closed when the last
 * process of the run has ended. The harness waits for it as for all others. */
#include "bench/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <unistd.h>

#define TMPFS_MAGIC 0x01021994 /* statfs(2) */

static struct {
    char folder[512], file[544];
} paths; /* one run to a process */

static int one_remove(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status, (void)kind, (void)where;
    remove(path);
    return 0;
}

static void folder_remove(void)
{
    nftw(paths.folder, one_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static void wait_and_remove(int fd)
{
    char byte;
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    while (read(fd, &byte, 1) < 0 && errno == EINTR)
        ;
    folder_remove();
    _exit(0);
}

int bench_folder(struct bench_run *run, const char **ret_folder)
{
    const char *where = getenv("TMPDIR");
    int fds[2];
    if (where == NULL || where[0] == 0)
        where = ".";
    int len = snprintf(paths.folder, sizeof(paths.folder), "%s/beam-bench-XXXXXX", where);
    if (len < 0 || (size_t)len >= sizeof(paths.folder))
        return bench_fail(run, "TMPDIR is too long");
    if (pipe2(fds, O_CLOEXEC) < 0)
        return bench_fail(run, "pipe: %s", strerror(errno));
    if (mkdtemp(paths.folder) == NULL)
        return bench_fail(run, "cannot make a folder in %s: %s", where, strerror(errno));
    pid_t pid = fork();
    if (pid < 0) {
        folder_remove();
        return bench_fail(run, "fork: %s", strerror(errno));
    }
    if (pid == 0) {
        close(fds[1]);
        wait_and_remove(fds[0]);
    }
    close(fds[0]);
    *ret_folder = paths.folder;
    return 0;
}

int bench_folder_make(struct bench_run *run, const char **ret_path)
{
    const char *folder;
    struct statfs system;
    if (bench_folder(run, &folder) < 0)
        return -1;
    snprintf(paths.file, sizeof(paths.file), "%s/store.kv", folder);
    if (statfs(folder, &system) == 0)
        bench_note(run, "tmpfs", system.f_type == TMPFS_MAGIC ? 1 : 0);
    *ret_path = paths.file;
    return 0;
}
