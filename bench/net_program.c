/* Starting programs: a peer of the run (contest.h) that becomes another program. */
#include "bench/net_program.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct start {
    const char *const *argv;
    int cpu, in, out;
};

bool net_program_find(const char *name, char *ret_path, size_t size)
{
    const char *path = getenv("PATH");
    char folders[4096];
    snprintf(folders, sizeof(folders), "%s:/usr/local/sbin:/usr/sbin:/sbin",
             path != NULL ? path : "");
    char *rest = folders;
    for (char *folder; (folder = strsep(&rest, ":")) != NULL;) {
        int len = snprintf(ret_path, size, "%s/%s", folder, name);
        if (folder[0] == '/' && len > 0 && (size_t)len < size && access(ret_path, X_OK) == 0)
            return true;
    }
    return false;
}

/* In the child. */
static void become(struct bench_run *run, void *arg)
{
    const struct start *start = arg;
    char path[512];
    int nothing = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (bench_pin(run, start->cpu) < 0)
        return;
    if (start->argv[0][0] == '/')
        snprintf(path, sizeof(path), "%s", start->argv[0]);
    else if (!net_program_find(start->argv[0], path, sizeof(path)))
        path[0] = 0;
    dup2(start->in >= 0 ? start->in : nothing, STDIN_FILENO);
    dup2(start->out, STDOUT_FILENO);
    dup2(start->out, STDERR_FILENO);
    execv(path, (char *const *)start->argv);
    bench_fail(run, "cannot start %s: %s", start->argv[0], strerror(errno));
}

int net_program_start(struct bench_run *run, const char *const *argv, int cpu, int in, int out,
                      pid_t *ret_pid)
{
    struct start start = {argv, cpu, in, out};
    pid_t server = run->peer;
    if (bench_peer_start(run, become, &start) < 0)
        return -1;
    *ret_pid = run->peer;
    run->peer = server;
    return 0;
}

/* All of it, of which the last part is kept. */
static int read_text(int fd, char *text, size_t size)
{
    size_t len = 0;
    for (;;) {
        if (len == size - 1) {
            memmove(text, text + size / 2, len - size / 2);
            len -= size / 2;
        }
        ssize_t r = read(fd, text + len, size - 1 - len);
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0) {
            text[len] = 0;
            return (int)r;
        }
        len += (size_t)r;
    }
}

int net_program_run(struct bench_run *run, const char *const *argv, char *ret_text, size_t size)
{
    int fds[2], status;
    pid_t pid;
    if (pipe2(fds, O_CLOEXEC) < 0)
        return bench_fail(run, "pipe: %s", strerror(errno));
    int r = net_program_start(run, argv, run->cpu_here, -1, fds[1], &pid);
    close(fds[1]);
    if (r < 0) {
        close(fds[0]);
        return r;
    }
    r = read_text(fds[0], ret_text, size);
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (r < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        size_t len = strlen(ret_text);
        return bench_fail(run, "%s ended with %d: %s", argv[0],
                          WIFEXITED(status) ? WEXITSTATUS(status) : -1,
                          ret_text + (len > 120 ? len - 120 : 0));
    }
    return run->result->error[0] != 0 ? -1 : 0;
}
