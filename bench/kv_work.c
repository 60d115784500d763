/* Documents, places and batches.
 *
 * Before anything is timed each document is written once, to learn its length, and read back, so that
 * a contender that writes something else is found. Each batch must then give the same lengths or
 * sums. */
#include "bench/kv_work.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define DOCUMENTS_MAX 1024u
#define SCRATCH_LEN (1u << 20) /* the longest document: 100 KiB as text */
#define ROOM 64u               /* behind each document: for a terminator, and to the next line */
#define COLD_LEN (64u << 20)   /* second-level caches have some MiB */
#define MAP_ENTRIES 100000u

/* A document in one format, and where it stands in each round of places. */
struct place {
    struct document document;
    const void *prepared;
    unsigned char *made;
    size_t len, offset, cap;
};

struct work {
    struct bench_run *run;
    const struct kv_format *format;
    unsigned count;
    struct place places[DOCUMENTS_MAX];
    unsigned char *base, *scratch;
    size_t round_len;
    unsigned rounds, round;
    struct sums sums; /* of all documents */
    size_t bytes;
};

static bool wrong(struct work *work, const char *what)
{
    bench_fail(work->run, "%s", what);
    return false;
}

static void sample(struct bench_run *run, struct bench_counters *ret)
{
    const struct kv_format *format = run->arg;
    *ret = (struct bench_counters){.allocs = format->allocs()};
}

static void sample_with(struct bench_run *run, const struct kv_format *format)
{
    run->result->allocs_unknown = format->allocs == NULL;
    if (format->allocs != NULL) {
        run->sample = sample;
        run->arg = (void *)format;
    }
}

static int kind_of(const char *name, enum document_kind *ret)
{
    static const char *const names[] = {
        [DOCUMENT_SMALL] = "small", [DOCUMENT_MEDIUM] = "medium", [DOCUMENT_LARGE] = "large"};
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            *ret = (enum document_kind)i;
            return 0;
        }
    }
    return -1;
}

static void *pages(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* Writes one document and reads it back. */
static int place_make(struct work *work, struct place *place, enum document_kind kind,
                      uint64_t seed)
{
    unsigned char *scratch = work->scratch;
    const struct kv_format *format = work->format;
    place->document.kind = kind;
    if (!document_make(&place->document, seed))
        return bench_fail(work->run, "no memory");
    place->prepared = &place->document;
    if (format->prepare != NULL)
        place->prepared = format->prepare(&place->document);
    if (place->prepared == NULL)
        return bench_fail(work->run, "cannot prepare a document");
    const unsigned char *own = scratch;
    place->len = format->encode(place->prepared, scratch, SCRATCH_LEN, &own);
    if (place->len == 0)
        return bench_fail(work->run, "cannot write a document");
    place->made = malloc(place->len + 1);
    if (place->made == NULL)
        return bench_fail(work->run, "no memory");
    memcpy(place->made, own, place->len);
    place->made[place->len] = 0;

    struct sums sums = {0}, expected = document_sums(&place->document);
    if (format->keyless)
        expected.keys = 0;
    if (format->decode != NULL && (!format->decode(place->made, place->len, &sums) ||
                                   sums.values != expected.values || sums.keys != expected.keys))
        return bench_fail(work->run, "does not read what it wrote");
    work->sums.values += expected.values;
    work->sums.keys += expected.keys;
    work->bytes += place->len;
    return 0;
}

static int work_init(struct work *work, struct bench_run *run, const struct kv_format *format,
                     unsigned count)
{
    enum document_kind kind;
    *work = (struct work){.run = run, .format = format, .count = count, .rounds = 1};
    if (bench_pin(run, run->cpu_here) < 0)
        return -1;
    if (count > DOCUMENTS_MAX || kind_of(run->row->document, &kind) < 0)
        return bench_fail(run, "no such documents");
    if (format->start != NULL && !format->start())
        return bench_fail(run, "cannot start");
    work->scratch = pages(SCRATCH_LEN);
    if (work->scratch == NULL)
        return bench_fail(run, "no memory");
    for (unsigned i = 0; i < count; i++) {
        struct place *place = &work->places[i];
        if (place_make(work, place, kind, i + 1) < 0)
            return -1;
        place->offset = work->round_len;
        place->cap = (place->len + 2 * ROOM - 1) / ROOM * ROOM;
        work->round_len += place->cap;
    }
    if (strcmp(run->row->regime, "cold") == 0)
        work->rounds = (unsigned)(COLD_LEN / work->round_len);
    work->base = pages(work->rounds * work->round_len);
    if (work->base == NULL)
        return bench_fail(run, "no memory");
    for (unsigned round = 0; round < work->rounds; round++)
        for (unsigned i = 0; i < count; i++)
            memcpy(work->base + round * work->round_len + work->places[i].offset,
                   work->places[i].made, work->places[i].len + 1);
    sample_with(run, format);
    run->result->bytes = work->bytes;
    return 0;
}

/* Where the next batch's places begin. */
static unsigned char *next_round(struct work *work)
{
    unsigned char *at = work->base + work->round * work->round_len;
    work->round = work->round + 1 < work->rounds ? work->round + 1 : 0;
    return at;
}

/* The compiler must take it that all of this memory is read, and may have been written. */
static inline void touch(const void *memory)
{
    __asm__ volatile("" : : "r"(memory) : "memory");
}

/* Batches until the time is over; false from fn: bench_fail was called. */
static int repeat(struct work *work, bool (*fn)(struct work *work))
{
    uint64_t start, now;
    bench_start(work->run);
    do {
        start = bench_ticks();
        if (!fn(work))
            return -1;
        now = bench_ticks();
    } while (bench_batch(work->run, now, now - start));
    return 0;
}

static bool encode_batch(struct work *work)
{
    unsigned char *at = next_round(work);
    size_t bytes = 0;
    for (unsigned i = 0; i < work->count; i++) {
        const struct place *place = &work->places[i];
        const unsigned char *own = at + place->offset;
        bytes += work->format->encode(place->prepared, at + place->offset, place->cap, &own);
        touch(own);
    }
    return bytes == work->bytes || wrong(work, "wrote something else");
}

int kv_encode(struct bench_run *run, const struct kv_format *format)
{
    static struct work work;
    if (work_init(&work, run, format, run->row->depth) < 0)
        return -1;
    return repeat(&work, encode_batch);
}

static bool sums_right(struct work *work, const struct sums *sums)
{
    return (sums->values == work->sums.values && sums->keys == work->sums.keys) ||
           wrong(work, "read something else");
}

static bool decode_batch(struct work *work)
{
    const unsigned char *at = next_round(work);
    struct sums sums = {0};
    for (unsigned i = 0; i < work->count; i++) {
        const struct place *place = &work->places[i];
        if (!work->format->decode(at + place->offset, place->len, &sums))
            return wrong(work, "cannot read");
    }
    return sums_right(work, &sums);
}

int kv_decode(struct bench_run *run, const struct kv_format *format)
{
    static struct work work;
    if (work_init(&work, run, format, run->row->depth) < 0)
        return -1;
    return repeat(&work, decode_batch);
}

static bool copy_written_batch(struct work *work)
{
    unsigned char *at = next_round(work);
    for (unsigned i = 0; i < work->count; i++) {
        const struct place *place = &work->places[i];
        memcpy(at + place->offset, place->made, place->len);
        touch(at);
    }
    return true;
}

int kv_copy_written(struct bench_run *run, const struct kv_format *format)
{
    static struct work work;
    if (work_init(&work, run, format, run->row->depth) < 0)
        return -1;
    return repeat(&work, copy_written_batch);
}

static bool copy_read_batch(struct work *work)
{
    const unsigned char *at = next_round(work);
    for (unsigned i = 0; i < work->count; i++) {
        const struct place *place = &work->places[i];
        memcpy(work->scratch, at + place->offset, place->len);
        touch(work->scratch);
    }
    return true;
}

int kv_copy_read(struct bench_run *run, const struct kv_format *format)
{
    static struct work work;
    if (work_init(&work, run, format, run->row->depth) < 0)
        return -1;
    return repeat(&work, copy_read_batch);
}

static bool get_fields_batch(struct work *work)
{
    struct sums sums = {0};
    for (unsigned i = 0; i < work->count; i++)
        if (!work->format->get_fields(work->places[i].prepared, &sums))
            return wrong(work, "a field is missing");
    return sums_right(work, &sums);
}

int kv_get_fields(struct bench_run *run, const struct kv_format *format)
{
    static struct work work;
    if (work_init(&work, run, format, run->row->depth / SMALL_FIELDS) < 0)
        return -1;
    work.sums.keys = 0;
    run->result->bytes = 0; /* an operation is one field */
    for (unsigned i = 0; i < work.count; i++) {
        struct place *place = &work.places[i];
        place->prepared = format->open(work.base + place->offset, place->len);
        if (place->prepared == NULL)
            return bench_fail(run, "cannot open a document");
    }
    return repeat(&work, get_fields_batch);
}

/* The large map: keys that begin alike, as those of a store do. */
struct lookup {
    struct text key;
    int64_t expected;
};

static struct {
    struct bench_run *run;
    const struct kv_format *format;
    void *opened;
    struct lookup *lookups; /* all entries, in a random order */
    unsigned next;
} map;

static int compare_texts(const void *a, const void *b)
{
    return strcmp(((const struct text *)a)->ptr, ((const struct text *)b)->ptr);
}

static bool get_entries_batch(struct work *work)
{
    int64_t differ = 0;
    unsigned at = map.next, end = at + work->run->row->depth;
    for (; at < end; at++)
        differ |= map.format->get_entry(map.opened, map.lookups[at].key) ^ map.lookups[at].expected;
    map.next = end + work->run->row->depth <= MAP_ENTRIES ? end : 0;
    return differ == 0 || wrong(work, "got something else");
}

/* Keys in ascending order, and the same in a random one, their bytes side by side: finding out what
 * to look up next costs no cache miss. */
static int map_make(struct bench_run *run, struct entries *ret)
{
    enum { KEY_ROOM = 16 };
    struct text *keys = calloc(MAP_ENTRIES, sizeof(*keys));
    char *room = malloc(2 * KEY_ROOM * MAP_ENTRIES);
    map.lookups = calloc(MAP_ENTRIES, sizeof(*map.lookups));
    if (keys == NULL || room == NULL || map.lookups == NULL)
        return bench_fail(run, "no memory");
    for (uint32_t i = 0; i < MAP_ENTRIES; i++, room += KEY_ROOM) {
        /* an odd factor: no two are the same */
        int len = snprintf(room, KEY_ROOM, "users/%08x", (unsigned)(i * UINT32_C(2654435769)));
        keys[i] = (struct text){room, (size_t)len};
    }
    qsort(keys, MAP_ENTRIES, sizeof(*keys), compare_texts);
    for (uint32_t i = 0, at = 0; i < MAP_ENTRIES; i++, room += KEY_ROOM) {
        at = (at + 61803) % MAP_ENTRIES; /* has no factor in common: reaches all */
        memcpy(room, keys[at].ptr, keys[at].len + 1);
        map.lookups[i] = (struct lookup){{room, keys[at].len}, at};
    }
    *ret = (struct entries){keys, MAP_ENTRIES};
    return 0;
}

int kv_get_entries(struct bench_run *run, const struct kv_format *format)
{
    static struct work work;
    struct entries entries;
    work = (struct work){.run = run, .format = format};
    if (bench_pin(run, run->cpu_here) < 0)
        return -1;
    if (format->start != NULL && !format->start())
        return bench_fail(run, "cannot start");
    if (map_make(run, &entries) < 0)
        return -1;
    map.run = run;
    map.format = format;
    map.opened = format->open_map(&entries);
    if (map.opened == NULL)
        return bench_fail(run, "cannot make the map");
    sample_with(run, format);
    return repeat(&work, get_entries_batch);
}
