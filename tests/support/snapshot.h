/* What a process holds: its open file descriptors and the library's live memory. Two snapshots are
 * compared to find what a case leaked or took away. */
#ifndef BEAM_TEST_SNAPSHOT_H
#define BEAM_TEST_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>

struct test_fd {
    int fd;
    char target[120]; /* as /proc/self/fd names it: "socket:[1234]", cut when longer */
};

struct test_snapshot {
    struct test_fd *fds; /* ascending */
    size_t fds_len;
    size_t live_bytes, live_blocks;
};

struct test_snapshot test_snapshot_take(void);
void test_snapshot_free(struct test_snapshot *snapshot);

/* True when both hold the same; else prints each difference to stderr. */
bool test_snapshot_same(const struct test_snapshot *before, const struct test_snapshot *after);

#endif
