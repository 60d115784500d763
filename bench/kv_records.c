/* kv-scan: the records of a store's file, which is in memory, followed from the first to the last: shapes
 * and sums alone (beam), and what is in their bodies too, as an open does it (checked), beside a copy of
 * the same bytes (raw). A batch is the whole file.
 *
 * *changes*: a record for each change of one key, the value a text of 100 bytes. *state*: parts of 256 KiB,
 * as a compaction writes them. An operation is a record. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <beam/kv.h>

#include "bench/contenders.h"
#include "kv/log.h"

#define VALUE_LEN 100u
#define ENTRY_ROOM 160u /* a map of one entry */
#define EPOCH 1

struct image {
    unsigned char *bytes;
    size_t len, cap;
    uint64_t rev, key;
};

static void *pages(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Writes one more entry at `to`; its length, 0 if something is wrong. */
static size_t entry_write(struct image *image, unsigned char *to)
{
    unsigned char room[ENTRY_ROOM];
    char key[24], text[VALUE_LEN];
    beam_kv_writer writer;
    beam_kv_value map;
    const void *document;
    size_t len;
    snprintf(key, sizeof(key), "users/%08llu", (unsigned long long)image->key++);
    memset(text, 'a' + (int)(image->key % 26), sizeof(text));
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_strn(&writer, key, text, sizeof(text));
    beam_kv_end(&writer);
    if (beam_kv_writer_finish(&writer, &document, &len) < 0 ||
        beam_kv_root(document, len, &map) < 0)
        return 0;
    memcpy(to, map.bytes.ptr, map.bytes.len);
    return map.bytes.len;
}

static void record_add(struct image *image, enum bm_record_kind kind, size_t body_len)
{
    unsigned char *at = image->bytes + image->len;
    bm_record_write(at, kind, image->rev, at + BM_RECORD_BODY_OFFSET, body_len, EPOCH);
    image->len += bm_record_len(body_len);
}

/* A record of at least body_len bytes of entries, or of one. */
static bool record_fill(struct image *image, enum bm_record_kind kind, size_t body_len)
{
    unsigned char *body = image->bytes + image->len + BM_RECORD_BODY_OFFSET;
    size_t len = 0, entry;
    do {
        entry = entry_write(image, body + len);
        len += entry;
    } while (entry > 0 && len + ENTRY_ROOM <= body_len);
    record_add(image, kind, len);
    return entry > 0;
}

static int image_make(struct bench_run *run, struct image *image)
{
    bool state = strcmp(run->row->document, "state") == 0, ok = true;
    size_t body_len = state ? BM_SNAP_LEN_MAX : 0;
    *image = (struct image){.cap = run->row->depth * (body_len + 2 * ENTRY_ROOM) + 4096};
    if (bench_pin(run, run->cpu_here) < 0)
        return -1;
    image->bytes = pages(image->cap);
    if (image->bytes == NULL)
        return bench_fail(run, "no memory");
    bm_record_write_head(image->bytes, (struct bm_record_head){.epoch = EPOCH});
    image->len = BM_RECORD_HEAD_LEN;
    if (!state)
        record_add(image, BM_RECORD_LIVE, 0);
    for (unsigned i = 0; i < run->row->depth && ok; i++) {
        image->rev += state ? 0 : 1;
        ok = record_fill(image, state ? BM_RECORD_SNAP : BM_RECORD_DELTA, body_len);
    }
    if (state)
        record_add(image, BM_RECORD_LIVE, 0);
    run->result->bytes = image->len;
    return ok ? 0 : bench_fail(run, "cannot write an entry");
}

/* All records were seen, and the last of them is where the file ends. */
static bool found_right(struct bench_run *run, const struct image *image, int r,
                        const struct bm_log_found *found)
{
    if (r == 0 && found->file_len == image->len && found->records == run->row->depth + 2 &&
        found->rev == image->rev)
        return true;
    bench_fail(run, "read %llu records of %u, %llu bytes of %zu: %d",
               (unsigned long long)found->records, run->row->depth + 2,
               (unsigned long long)found->file_len, image->len, r);
    return false;
}

static int scan(struct bench_run *run, bool entries)
{
    struct image image;
    struct bm_log_found found;
    uint64_t start, now;
    if (image_make(run, &image) < 0)
        return -1;
    /* One bit that is wrong must be found, or nothing is looked at. */
    image.bytes[image.len / 2] ^= 1;
    if (bm_log_read(image.bytes, image.len, entries, NULL, NULL, &found) == 0 &&
        found.file_len == image.len)
        return bench_fail(run, "does not see a bit that is wrong");
    image.bytes[image.len / 2] ^= 1;
    bench_start(run);
    do {
        start = bench_ticks();
        int r = bm_log_read(image.bytes, image.len, entries, NULL, NULL, &found);
        now = bench_ticks();
        if (!found_right(run, &image, r, &found))
            return -1;
    } while (bench_batch(run, now, now - start));
    return 0;
}

int kv_scan_sums(struct bench_run *run)
{
    return scan(run, false);
}

int kv_scan_checked(struct bench_run *run)
{
    return scan(run, true);
}

int kv_scan_copy(struct bench_run *run)
{
    struct image image;
    uint64_t start, now;
    if (image_make(run, &image) < 0)
        return -1;
    unsigned char *copy = pages(image.len);
    if (copy == NULL)
        return bench_fail(run, "no memory");
    bench_start(run);
    do {
        start = bench_ticks();
        memcpy(copy, image.bytes, image.len);
        __asm__ volatile("" : : "r"(copy) : "memory");
        now = bench_ticks();
    } while (bench_batch(run, now, now - start));
    return 0;
}
