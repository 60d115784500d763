/* Snapshots of what the process holds, from /proc/self/fd and the allocator's totals.
 *
 * Descriptors are compared by number and by target, so one that was closed and replaced by another
 * is seen too. A test program that links no allocator compares descriptors only. */
#include "tests/support/snapshot.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

/* Weak: it does not pull the allocator in, and is absent where nothing else does. */
#pragma weak bm_alloc_totals

static int by_number(const void *a, const void *b)
{
    return ((const struct test_fd *)a)->fd - ((const struct test_fd *)b)->fd;
}

static void read_fds(struct test_snapshot *snapshot)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) {
        perror("/proc/self/fd");
        abort();
    }
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir))
            continue;
        struct test_fd *grown =
            realloc(snapshot->fds, (snapshot->fds_len + 1) * sizeof(*snapshot->fds));
        if (!grown)
            abort();
        snapshot->fds = grown;
        struct test_fd *at = &snapshot->fds[snapshot->fds_len++];
        at->fd = fd;
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, at->target, sizeof(at->target) - 1);
        at->target[len > 0 ? len : 0] = '\0';
    }
    closedir(dir);
    if (snapshot->fds_len > 0)
        qsort(snapshot->fds, snapshot->fds_len, sizeof(*snapshot->fds), by_number);
}

struct test_snapshot test_snapshot_take(void)
{
    struct test_snapshot snapshot = {0};
    read_fds(&snapshot);
    if (bm_alloc_totals) {
        struct bm_alloc_totals totals = bm_alloc_totals();
        snapshot.live_bytes = totals.live_bytes;
        snapshot.live_blocks = totals.live_blocks;
    }
    return snapshot;
}

void test_snapshot_free(struct test_snapshot *snapshot)
{
    free(snapshot->fds);
    *snapshot = (struct test_snapshot){0};
}

static bool same_fds(const struct test_snapshot *before, const struct test_snapshot *after)
{
    bool same = true;
    size_t b = 0, a = 0;
    while (b < before->fds_len || a < after->fds_len) {
        const struct test_fd *was = b < before->fds_len ? &before->fds[b] : NULL;
        const struct test_fd *is = a < after->fds_len ? &after->fds[a] : NULL;
        if (was && (!is || was->fd < is->fd)) {
            fprintf(stderr, "    fd %d was closed: %s\n", was->fd, was->target);
            same = false;
            b++;
        } else if (is && (!was || is->fd < was->fd)) {
            fprintf(stderr, "    fd %d was left open: %s\n", is->fd, is->target);
            same = false;
            a++;
        } else {
            if (strcmp(was->target, is->target) != 0) {
                fprintf(stderr, "    fd %d was replaced: %s, before %s\n", is->fd, is->target,
                        was->target);
                same = false;
            }
            a++;
            b++;
        }
    }
    return same;
}

bool test_snapshot_same(const struct test_snapshot *before, const struct test_snapshot *after)
{
    bool same = same_fds(before, after);
    if (before->live_bytes != after->live_bytes || before->live_blocks != after->live_blocks) {
        fprintf(stderr, "    live memory: %zu bytes in %zu blocks, before %zu in %zu\n",
                after->live_bytes, after->live_blocks, before->live_bytes, before->live_blocks);
        same = false;
    }
    return same;
}
