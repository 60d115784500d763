/* How one contender of the kv cells writes, reads and looks up. The loops around it, the same for
 * all, are in kv_work.c. A run is a process of its own, so that a format may keep what it uses again
 * and again (buffers, builders, zones) in static variables, as its users would in an object. */
#ifndef BENCH_KV_FORMAT_H
#define BENCH_KV_FORMAT_H

#include "bench/document.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The map of kv-get: keys in ascending order, each with its place as the value. */
struct entries {
    const struct text *keys;
    size_t count;
};

/* Every function may be absent. False, 0 and NULL: it failed. */
struct kv_format {
    /* Once, before all others. */
    bool (*start)(void);
    /* What is encoded again and again, when that is not the document itself. */
    void *(*prepare)(const struct document *document);
    /* Writes a document, or what prepare made of it, into buf[0..cap) and returns the length. A
     * format that can only write to a buffer of its own gives that in *ret_own, and need not copy. */
    size_t (*encode)(const void *prepared, unsigned char *buf, size_t cap,
                     const unsigned char **ret_own);
    /* Bytes from elsewhere: checks them, visits every key and value, and adds all to *sums. */
    bool (*decode)(const unsigned char *bytes, size_t len, struct sums *sums);
    /* Bytes that were checked, or what they are made into, kept for many a get. */
    void *(*open)(const unsigned char *bytes, size_t len);
    /* Gets the fields of a small document by their names and types; keys are not added. */
    bool (*get_fields)(const void *opened, struct sums *sums);
    /* The map, opened. */
    void *(*open_map)(const struct entries *entries);
    /* The value under a key that is there. */
    int64_t (*get_entry)(const void *opened, struct text key);
    /* Calls of an allocator so far; NULL: nobody counts them. */
    uint64_t (*allocs)(void);
    bool keyless; /* keys are not in the bytes */
};

extern const struct kv_format kv_beam, kv_beam_unsorted, kv_beam_json;
extern const struct kv_format kv_array; /* kv-get: what one would write by hand */
/* Peers, where they were found when this was built. */
extern const struct kv_format kv_msgpack, kv_flexbuffers, kv_jansson, kv_jansson_dump;
extern const struct kv_format kv_protobuf_small, kv_protobuf_medium;

#ifdef __cplusplus
}
#endif

#endif
