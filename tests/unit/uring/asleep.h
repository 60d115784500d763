/* Waiting until another thread really sleeps: what arrives afterwards must wake it. */
#ifndef TEST_ASLEEP_H
#define TEST_ASLEEP_H

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The state letter of a thread of this process, as in proc(5). */
static inline char thread_state(pid_t tid)
{
    char path[64], text[512];
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return '?';
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    const char *after_name = strrchr(text, ')');
    return after_name && after_name[1] ? after_name[2] : '?';
}

/* Announced asleep by the thread itself, and then seen asleep by the kernel. */
static inline void until_asleep(pid_t tid, const _Atomic bool *announced)
{
    do {
        while (!*announced)
            sched_yield();
        sched_yield();
    } while (thread_state(tid) != 'S' || !*announced);
}

#endif
