/* kv-commit: changes of one key that are on the disk when they are told as done. row->depth writers, each
 * of whom makes the next change when his last is done (beam); one alone, and so a sync for each change
 * (single); by hand (raw), the same bytes written and synced one change after the other. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/contenders.h"
#include "bench/folder.h"
#include "bench/store_run.h"

#define WRITERS_MAX 64u
#define RECORD_ROOM 64u            /* what a record has besides the value */
#define STEP_LEN ((off_t)16 << 20) /* as much room as a store has set aside for it */

struct writer {
    struct commit *commit;
    char key[16];
    uint64_t start;
};

struct commit {
    struct store_run in;
    const char *path;
    unsigned writers;
    char value[128];
    struct writer writer[WRITERS_MAX];
};

static void change(struct writer *writer);

static void changed(int error, uint64_t rev, void *arg)
{
    struct writer *writer = arg;
    struct commit *commit = writer->commit;
    uint64_t now = bench_ticks();
    if (commit->in.over)
        return;
    if (error < 0)
        store_run_fail(&commit->in, "a change", error);
    else if (!bench_lap(commit->in.run, now, now - writer->start))
        store_run_end(&commit->in);
    else
        change(writer);
}

static void change(struct writer *writer)
{
    struct commit *commit = writer->commit;
    beam_kv_value value = {.type = BEAM_KV_STR, .str = {commit->value, commit->in.run->row->size}};
    writer->start = bench_ticks();
    int r = beam_store_put(commit->in.store, (beam_str){writer->key, strlen(writer->key)}, &value,
                           changed, writer);
    if (r < 0)
        store_run_fail(&commit->in, "put", r);
}

static void begin(void *arg)
{
    struct commit *commit = arg;
    /* No compaction: that would be another question. */
    int r =
        beam_store_open(commit->in.runtime,
                        &BEAM_STORE_OPTIONS(.path = commit->path, .compact_len_min = UINT64_MAX),
                        &commit->in.store);
    if (r < 0) {
        store_run_fail(&commit->in, commit->path, r);
        return;
    }
    bench_start(commit->in.run);
    for (unsigned i = 0; i < commit->writers; i++) {
        struct writer *writer = &commit->writer[i];
        writer->commit = commit;
        snprintf(writer->key, sizeof(writer->key), "writer/%06u", i);
        change(writer);
    }
}

static int commit_run(struct bench_run *run, unsigned writers)
{
    static struct commit commit;
    commit.writers = writers < WRITERS_MAX ? writers : WRITERS_MAX;
    memset(commit.value, 'v', sizeof(commit.value));
    if (run->row->size > sizeof(commit.value))
        return bench_fail(run, "no such size");
    if (bench_folder_make(run, &commit.path) < 0)
        return -1;
    return store_run(&commit.in, run, begin, &commit);
}

int kv_commit_group(struct bench_run *run)
{
    return commit_run(run, run->row->depth);
}

int kv_commit_single(struct bench_run *run)
{
    return commit_run(run, 1);
}

int kv_commit_by_hand(struct bench_run *run)
{
    char bytes[256];
    const char *path;
    uint64_t start, now;
    size_t len = run->row->size + RECORD_ROOM;
    off_t offset = 0, room = 0;
    memset(bytes, 'v', sizeof(bytes));
    if (len > sizeof(bytes))
        return bench_fail(run, "no such size");
    if (bench_folder_make(run, &path) < 0 || bench_pin(run, run->cpu_here) < 0)
        return -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return bench_fail(run, "open: %s", strerror(errno));
    bench_start(run);
    do {
        start = bench_ticks();
        if (offset + (off_t)len > room) {
            if (fallocate(fd, 0, room, STEP_LEN) < 0 && errno != EOPNOTSUPP)
                return bench_fail(run, "fallocate: %s", strerror(errno));
            room += STEP_LEN;
        }
        if (pwrite(fd, bytes, len, offset) != (ssize_t)len || fdatasync(fd) < 0)
            return bench_fail(run, "write: %s", strerror(errno));
        offset += (off_t)len;
        bench_count_syscall(&run->result->side[0]);
        bench_count_syscall(&run->result->side[0]);
        now = bench_ticks();
    } while (bench_lap(run, now, now - start));
    return 0;
}
