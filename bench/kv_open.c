/* kv-open: a store's file of run->entries keys is opened, which reads all of it, and one key is got; beside
 * reading the bytes of the same file (raw). The kernel has it in memory: no disk is asked. An operation is
 * an open; the close behind it counts in per_s alone. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/contenders.h"
#include "bench/folder.h"
#include "bench/store_run.h"

#define READ_LEN ((size_t)1 << 20) /* as a store reads it */
#define TEXT "the value of a key, of 32 bytes."

struct opening {
    struct store_run in;
    const char *path;
};

struct file {
    int fd;
    uint64_t len;
};

static int write_all(const void *bytes, size_t len, void *arg)
{
    struct file *file = arg;
    const char *at = bytes;
    file->len += len;
    while (len > 0) {
        ssize_t r = write(file->fd, at, len);
        if (r < 0 && errno != EINTR)
            return -errno;
        if (r > 0) {
            at += r;
            len -= (size_t)r;
        }
    }
    return 0;
}

static beam_str key_of(uint64_t number, char room[24])
{
    int len = snprintf(room, 24, "users/%08llu", (unsigned long long)number);
    return (beam_str){room, (size_t)len};
}

static int file_make(struct bench_run *run, const char **ret_path)
{
    static const beam_kv_value value = {.type = BEAM_KV_STR, .str = {TEXT, sizeof(TEXT) - 1}};
    BEAM_CLEANUP(beam_store_dump_freep) beam_store_dump *dump = NULL;
    struct file file = {0};
    char room[24];
    if (bench_folder_make(run, ret_path) < 0 || bench_pin(run, run->cpu_here) < 0)
        return -1;
    file.fd = open(*ret_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file.fd < 0)
        return bench_fail(run, "open: %s", strerror(errno));
    int r = beam_store_dump_new(run->entries, write_all, &file, &dump);
    for (uint64_t i = 0; i < run->entries && r >= 0; i++)
        r = beam_store_dump_put(dump, key_of(i, room), &value);
    if (r >= 0)
        r = beam_store_dump_end(dump);
    close(file.fd);
    if (r < 0)
        return bench_fail(run, "cannot write the file: %s", beam_strerror(r));
    run->result->bytes = file.len;
    bench_note(run, "entries", (double)run->entries);
    return 0;
}

static void note_speed(struct bench_run *run)
{
    double ns = (double)histogram_quantile(&run->result->latency, 0.5);
    bench_note(run, "mb_per_s", (double)run->result->bytes * 1e3 / ns);
}

static void open_once(struct opening *opening);

static void closed(int error, uint64_t rev, void *arg)
{
    struct opening *opening = arg;
    if (error < 0)
        store_run_fail(&opening->in, "close", error);
    else
        open_once(opening);
}

static void open_once(struct opening *opening)
{
    struct bench_run *run = opening->in.run;
    beam_kv_value value;
    char room[24];
    uint64_t rev, start = bench_ticks();
    int r = beam_store_open(opening->in.runtime, &BEAM_STORE_OPTIONS(.path = opening->path),
                            &opening->in.store);
    if (r >= 0)
        r = beam_store_get(opening->in.store, key_of(run->entries / 2, room), &value, &rev);
    uint64_t now = bench_ticks();
    if (r >= 0 && (value.type != BEAM_KV_STR || value.str.len != sizeof(TEXT) - 1))
        r = -EILSEQ;
    if (r < 0) {
        store_run_fail(&opening->in, "open", r);
        return;
    }
    struct beam_store_info info = BEAM_STORE_INFO();
    if (beam_store_info(opening->in.store, &info) == 0)
        bench_note(run, "memory_per_entry", (double)info.memory_len / (double)run->entries);
    if (bench_batch(run, now, now - start))
        beam_store_close(opening->in.store, closed, opening);
    else
        store_run_end(&opening->in);
}

static void begin(void *arg)
{
    struct opening *opening = arg;
    bench_start(opening->in.run);
    open_once(opening);
}

int kv_open_store(struct bench_run *run)
{
    static struct opening opening;
    if (file_make(run, &opening.path) < 0 || store_run(&opening.in, run, begin, &opening) < 0)
        return -1;
    note_speed(run);
    return 0;
}

int kv_open_read(struct bench_run *run)
{
    const char *path;
    uint64_t start, now;
    if (file_make(run, &path) < 0)
        return -1;
    char *bytes = malloc(READ_LEN);
    if (bytes == NULL)
        return bench_fail(run, "no memory");
    bench_start(run);
    do {
        ssize_t r;
        uint64_t len = 0;
        start = bench_ticks();
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        while ((r = read(fd, bytes, READ_LEN)) > 0)
            len += (uint64_t)r;
        close(fd);
        now = bench_ticks();
        if (len != run->result->bytes) {
            free(bytes);
            return bench_fail(run, "read %llu bytes", (unsigned long long)len);
        }
    } while (bench_batch(run, now, now - start));
    free(bytes);
    note_speed(run);
    return 0;
}
