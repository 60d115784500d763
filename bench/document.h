/* What the kv cells write and read: three kinds of document as a program would hold them, in plain
 * structs, made from a seed so that no two of a batch are the same. Every contender writes exactly
 * this, and what it reads has to add up to the same sums. */
#ifndef BENCH_DOCUMENT_H
#define BENCH_DOCUMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* UTF-8; a zero byte follows, for those who want one. */
struct text {
    const char *ptr;
    size_t len;
};

#define SMALL_FIELDS 8

/* The metadata of a request. */
struct small {
    struct text method, service, trace, user;
    int64_t attempt, deadline_ns;
    double weight;
    bool reply;
};

#define ITEMS_MAX 5
#define TAGS_MAX 4

struct item {
    struct text sku, title;
    double price;
    int64_t quantity;
};

/* An order. */
struct medium {
    struct text mail, name, note; /* the first two of the account */
    int64_t account, created_ns, version;
    double balance, total;
    bool active;
    unsigned item_count, tag_count;
    struct item items[ITEMS_MAX];
    struct text tags[TAGS_MAX];
};

#define RECORDS 560 /* some 100 KiB */

struct record {
    struct text mail, name, tags[2];
    int64_t id;
    double latitude, longitude, score;
    bool active;
};

/* A page of a table. */
struct large {
    unsigned count;
    struct record records[RECORDS];
};

enum document_kind { DOCUMENT_SMALL, DOCUMENT_MEDIUM, DOCUMENT_LARGE };

struct document {
    enum document_kind kind;
    struct small small;
    struct medium medium;
    struct large *large; /* NULL but for DOCUMENT_LARGE */
};

/* What a reader found. Numbers add up as they are, floats as their bits. */
struct sums {
    uint64_t values;
    uint64_t keys; /* of formats that have them */
};

static inline void sum_int(struct sums *sums, int64_t value)
{
    sums->values += (uint64_t)value;
}

static inline void sum_float(struct sums *sums, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    sums->values += bits;
}

static inline void sum_bool(struct sums *sums, bool value)
{
    sums->values += value ? 3 : 5;
}

/* Length and both ends: enough to have looked at it. */
static inline uint64_t text_sum(const char *ptr, size_t len)
{
    if (len == 0)
        return 0;
    return len + ((uint64_t)(unsigned char)ptr[0] << 16) + (unsigned char)ptr[len - 1];
}

static inline void sum_text(struct sums *sums, const char *ptr, size_t len)
{
    sums->values += text_sum(ptr, len);
}

static inline void sum_key(struct sums *sums, const char *ptr, size_t len)
{
    sums->keys += text_sum(ptr, len);
}

/* Fills a document whose kind is set. The text it points to is never freed: a run is a process. False:
 * no memory. */
bool document_make(struct document *document, uint64_t seed);

struct sums document_sums(const struct document *document);

#ifdef __cplusplus
}
#endif

#endif
