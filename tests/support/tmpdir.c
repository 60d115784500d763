/* A temporary directory per case, made on first use and removed by the runner. */
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/run.h"
#include "tests/support/test.h"

#define WALK_FDS_MAX 8 /* descriptors nftw may hold at once; deeper trees are reopened */

static char path[4096];
static pid_t owner; /* a forked child that ends early must not remove its parent's files */

const char *test_tmpdir(void)
{
    if (path[0])
        return path;
    const char *base = getenv("TMPDIR");
    snprintf(path, sizeof(path), "%s/beam-test-XXXXXX", base && base[0] ? base : "/tmp");
    if (!mkdtemp(path)) {
        perror(path);
        path[0] = '\0';
        abort();
    }
    owner = getpid();
    return path;
}

static int remove_entry(const char *name, const struct stat *st, int kind, struct FTW *where)
{
    (void)st;
    (void)kind;
    (void)where;
    return remove(name);
}

void test_tmpdir_remove(void)
{
    if (!path[0] || owner != getpid())
        return;
    if (nftw(path, remove_entry, WALK_FDS_MAX, FTW_DEPTH | FTW_PHYS) != 0)
        perror(path);
    path[0] = '\0';
}
