/* Documents: one value (nothing, truth, number, text, bytes, map, list) in one run of bytes, with
 * exactly one encoding for each value. The format is docs/spec/kv.md, which also has the rules that
 * are cited here by number.
 *
 *     char room[256];
 *     beam_kv_writer w;
 *     const void *doc;
 *     size_t len;
 *     beam_kv_writer_init(&w, room, sizeof(room));
 *     beam_kv_begin_map(&w, NULL);
 *     beam_kv_put_str(&w, "text", "hello");
 *     beam_kv_put_int(&w, "count", 7);
 *     beam_kv_end(&w);
 *     r = beam_kv_writer_finish(&w, &doc, &len);            // the first error of all of the above
 *
 *     beam_kv_value map;
 *     int64_t count;
 *     r = beam_kv_check(doc, len, NULL);                    // bytes from elsewhere: always first
 *     if (r >= 0) r = beam_kv_root(doc, len, &map);
 *     if (r >= 0) r = beam_kv_get_int(&map, "count", &count);
 *
 * Nothing here allocates (but a writer that was given a buffer to grow in), locks, recurses over
 * input or keeps state outside its arguments: any thread may call anything, as long as no two write
 * the same object. Memory may have any alignment. Outputs are written only on success.
 *
 * Check first. What the functions here say of a document that was *not* checked is anybody's guess,
 * but it is memory-safe (K17): from beam_kv_root on, values, iterators and indexes stay inside its
 * buffer, whatever the bytes; what they return lies inside; a walk ends within len / 8 entries. Texts
 * may be no UTF-8 then, keys may come twice or in any order, and nesting may be len / 8 deep: whoever
 * recurses over it counts. What keeps a document checks it itself (beam_kv_put of a map or list,
 * beam_kv_to_json). Bytes that another process can write while they are read are never checked bytes
 * (K14), and nothing is promised of them. */
#ifndef BEAM_KV_H
#define BEAM_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <beam/buffer.h>
#include <beam/error.h>
#include <beam/export.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BEAM_KV_DEPTH_MAX 32                 /* K10: a reader's stack is a fixed array */
#define BEAM_KV_KEY_LEN_MAX 65535            /* K1: klen has 16 bits */
#define BEAM_KV_LEN_MAX ((size_t)2147483640) /* K3: offsets fit an int32_t */

/* Text: len bytes of UTF-8 at ptr, without a terminator. ptr may be NULL only when len is 0. */
typedef struct beam_str {
    const char *ptr;
    size_t len;
} beam_str;

/* The two arguments for "%.*s". */
#define BEAM_STR(s) (int)(s).len, (s).ptr

typedef struct beam_bytes {
    const void *ptr;
    size_t len;
} beam_bytes;

/* The numbers are the format's (K5). */
typedef enum beam_kv_type {
    BEAM_KV_NIL = 1,
    BEAM_KV_FALSE = 2,
    BEAM_KV_TRUE = 3,
    BEAM_KV_INT = 4,
    BEAM_KV_UINT = 5, /* only for 2^63 and above */
    BEAM_KV_FLOAT = 6,
    BEAM_KV_STR = 7,
    BEAM_KV_BYTES = 8,
    BEAM_KV_MAP = 9,
    BEAM_KV_LIST = 10
} beam_kv_type;

/* A value inside a document, which it borrows: valid as long as the document's bytes. */
typedef struct beam_kv_value {
    beam_kv_type type;
    union {
        int64_t i;        /* INT */
        uint64_t u;       /* UINT */
        double f;         /* FLOAT */
        beam_str str;     /* STR */
        beam_bytes bytes; /* BYTES; for MAP and LIST their entries as they lie in the document */
    };
} beam_kv_value;

/* Checks that doc[0..len) is one valid document: every rule K1 to K10, over every byte. Returns 0
 * or -BEAM_EKV_…. Only on failure, *error_offset (may be NULL) becomes the offset of the entry that
 * breaks a rule, or of the first byte behind the document. */
BEAM_EXPORT int beam_kv_check(const void *doc, size_t len, size_t *error_offset);

/* The document's value. doc is borrowed by *ret_value. Returns 0, or -BEAM_EKV_… when not even the
 * outermost entry makes sense. */
BEAM_EXPORT int beam_kv_root(const void *doc, size_t len, beam_kv_value *ret_value);

/* Looks up a key of a map, entry by entry from the front until the keys are past it. Returns 0;
 * -ENOENT: no such key; -EINVAL: not a map. */
BEAM_EXPORT int beam_kv_find(const beam_kv_value *map, beam_str key, beam_kv_value *ret_value);

/* Walks the entries of a map or list, in order. */
typedef struct beam_kv_iter {
    const unsigned char *pos;
    const unsigned char *end;
} beam_kv_iter;

/* Starts before the first entry. Anything but a map or list has no entries. */
BEAM_EXPORT void beam_kv_iter_init(beam_kv_iter *iter, const beam_kv_value *container);

/* Returns 1 and the next entry; 0 at the end; -BEAM_EKV_… on bytes that were not checked (and on
 * every later call). ret_key may be NULL; in a list the key is empty. */
BEAM_EXPORT int beam_kv_iter_next(beam_kv_iter *iter, beam_str *ret_key, beam_kv_value *ret_value);

/* An index over a large map or list: where each entry lies, in memory of the caller. It makes look-ups by
 * halves, scans from any key on, and access by number; below some dozen entries beam_kv_find is faster.
 *
 *     r = beam_kv_index_build(&map, offsets, cap, &index);                  // once
 *     r = beam_kv_index_find(&index, key, &value);
 *     for (beam_kv_index_lower_bound(&index, prefix, &n);                   // all keys that begin so
 *          beam_kv_index_at(&index, n, &key, &value) == 0 && begins_with(key, prefix); n++)
 *
 * Offsets from elsewhere may be put into the struct by hand, and nothing is checked then: an index
 * whose offsets are wrong, in number or in place, gives wrong answers or an error, but nothing is read
 * outside of the map or list and the offsets. */
typedef struct beam_kv_index {
    beam_kv_value container; /* the map or list, whose bytes are borrowed */
    const uint32_t *offsets; /* of each entry, in order, from the start of the first: borrowed */
    size_t count;
} beam_kv_index;

/* One pass over the headers of the entries. Borrows both. Returns 0; -EINVAL: not a map or list; -ENOSPC:
 * there are more than cap entries, ret_index->count of them, and the index is of no use; -BEAM_EKV_… on
 * bytes that were not checked. cap may be 0 (and offsets NULL); len / 8 of them are always enough. */
BEAM_EXPORT int beam_kv_index_build(const beam_kv_value *container, uint32_t *offsets, size_t cap,
                                    beam_kv_index *ret_index);

/* The value under a key. Returns 0; -ENOENT: no such key; -EINVAL: not a map. O(log n). */
BEAM_EXPORT int beam_kv_index_find(const beam_kv_index *index, beam_str key,
                                   beam_kv_value *ret_value);

/* The number of the first entry whose key is not below this one; the count, if there is none. Returns 0;
 * -EINVAL: not a map. O(log n). */
BEAM_EXPORT int beam_kv_index_lower_bound(const beam_kv_index *index, beam_str key, size_t *ret_n);

/* Entry n of the map or list, from 0. ret_key may be NULL. Returns 0; -ENOENT: there are no more. */
BEAM_EXPORT int beam_kv_index_at(const beam_kv_index *index, size_t n, beam_str *ret_key,
                                 beam_kv_value *ret_value);

/* A value as the C type wanted. Numbers are taken from INT, UINT or FLOAT where nothing is lost
 * (K13; -0.0 is 0). Returns 0; -EINVAL: the value is of another kind; -ERANGE: a number, but not
 * exactly one of the type wanted. */
BEAM_EXPORT int beam_kv_as_bool(const beam_kv_value *value, bool *ret_bool);
BEAM_EXPORT int beam_kv_as_int(const beam_kv_value *value, int64_t *ret_int);
BEAM_EXPORT int beam_kv_as_uint(const beam_kv_value *value, uint64_t *ret_uint);
BEAM_EXPORT int beam_kv_as_float(const beam_kv_value *value, double *ret_float);
BEAM_EXPORT int beam_kv_as_str(const beam_kv_value *value, beam_str *ret_str);
BEAM_EXPORT int beam_kv_as_bytes(const beam_kv_value *value, beam_bytes *ret_bytes);

/* The same for the value under a key of a map; key is a C string. Adds -ENOENT: no such key, and
 * -EINVAL: not a map. */
BEAM_EXPORT int beam_kv_get(const beam_kv_value *map, const char *key, beam_kv_value *ret_value);
BEAM_EXPORT int beam_kv_get_bool(const beam_kv_value *map, const char *key, bool *ret_bool);
BEAM_EXPORT int beam_kv_get_int(const beam_kv_value *map, const char *key, int64_t *ret_int);
BEAM_EXPORT int beam_kv_get_uint(const beam_kv_value *map, const char *key, uint64_t *ret_uint);
BEAM_EXPORT int beam_kv_get_float(const beam_kv_value *map, const char *key, double *ret_float);
BEAM_EXPORT int beam_kv_get_str(const beam_kv_value *map, const char *key, beam_str *ret_str);
BEAM_EXPORT int beam_kv_get_bytes(const beam_kv_value *map, const char *key, beam_bytes *ret_bytes);

/* Writes one document into the caller's memory, or into a buffer that grows. What it finishes always
 * passes beam_kv_check.
 *
 * Keys of a map go in any order and are sorted once, at its end, in place. A put takes a key inside
 * a map, and NULL (in beam_str: ptr NULL) inside a list and for the outermost value.
 *
 * Errors stick, like ferror(): each call returns the first error there was and does nothing after
 * it, and beam_kv_writer_finish() returns it too. Only -ENOSPC can be cured, by
 * beam_kv_writer_move(); the call that met it did nothing and is made again:
 *
 *     while ((r = beam_kv_put_str(&w, key, text)) == -ENOSPC) {
 *         new_cap = round up `w.need` to taste; new_buf = allocate new_cap;
 *         beam_kv_writer_move(&w, new_buf, new_cap);
 *         free the old buffer
 *     }
 *
 * Errors of the puts: -ENOSPC; -EEXIST: a key twice in a map (found at the end of the map);
 * -EINVAL: end without begin, finish before end, a type that begins nothing, a NULL string; and
 * what would break a rule: -BEAM_EKV_UTF8, -BEAM_EKV_KEY (missing in a map, present elsewhere),
 * -BEAM_EKV_DEPTH, -BEAM_EKV_TRAILING (a second outermost value), -BEAM_EKV_TOO_LARGE (key or
 * document).
 *
 * The fields are the library's, but `error` and `need` may be read. The buffer holds intermediate
 * state until finish: nobody else may write it. Arguments may not point into it. */
typedef struct beam_kv_writer {
    unsigned char *base;
    beam_buffer *buffer;  /* where it grows; NULL: it does not */
    uint64_t last_prefix; /* the first eight bytes of the last key, the first the highest */
    uint32_t cap;
    uint32_t len;  /* bytes of entries at the front of the buffer */
    uint32_t tail; /* bytes of keys of open maps and lists at the end of the buffer */
    uint32_t need; /* after -ENOSPC: the least capacity with which the same call succeeds */
    uint32_t open; /* offset of the innermost open map or list */
    uint32_t last; /* offset of the last entry in it */
    int error;
    int depth; /* maps and lists open */
} beam_kv_writer;

/* An empty writer over buf[0..cap), which it borrows until finish. cap may be 0 (and buf NULL). */
BEAM_EXPORT void beam_kv_writer_init(beam_kv_writer *writer, void *buf, size_t cap);

/* An empty writer that makes its document in a buffer and lets it grow: there is no -ENOSPC then, but
 * -BEAM_ECODEC_TOO_LARGE at the buffer's limit, and -ENOMEM. The buffer is borrowed until finish,
 * which sets its length; what it held is gone. An error of the writer is not one of the buffer. */
BEAM_EXPORT void beam_kv_writer_init_buffer(beam_kv_writer *writer, beam_buffer *buffer);

/* Continues in another buffer, or in the same one if that became longer in place; copies what was
 * written. The old buffer must still be readable during the call and is no longer used after it.
 * Takes back -ENOSPC. Returns 0, or -EINVAL when new_cap is below the old capacity;
 * nothing has changed then. Other errors stay, and are not returned here. */
BEAM_EXPORT int beam_kv_writer_move(beam_kv_writer *writer, void *new_buf, size_t new_cap);

/* Ends the document. *ret_doc is the start of the buffer, *ret_len the length. Returns 0 or the
 * first error; -EINVAL also when nothing was put or something is open. May be called again. */
BEAM_EXPORT int beam_kv_writer_finish(beam_kv_writer *writer, const void **ret_doc,
                                      size_t *ret_len);

/* One value. str is a C string; strn and bytes take a length. A NaN is stored as the one NaN. */
BEAM_EXPORT int beam_kv_put_nil(beam_kv_writer *writer, const char *key);
BEAM_EXPORT int beam_kv_put_bool(beam_kv_writer *writer, const char *key, bool value);
BEAM_EXPORT int beam_kv_put_int(beam_kv_writer *writer, const char *key, int64_t value);
BEAM_EXPORT int beam_kv_put_uint(beam_kv_writer *writer, const char *key, uint64_t value);
BEAM_EXPORT int beam_kv_put_float(beam_kv_writer *writer, const char *key, double value);
BEAM_EXPORT int beam_kv_put_str(beam_kv_writer *writer, const char *key, const char *str);
BEAM_EXPORT int beam_kv_put_strn(beam_kv_writer *writer, const char *key, const char *str,
                                 size_t len);
BEAM_EXPORT int beam_kv_put_bytes(beam_kv_writer *writer, const char *key, const void *bytes,
                                  size_t len);

/* Any value under any key: what a reader returned, whole maps and lists included (those are checked
 * on the way in: -BEAM_EKV_… if they are not valid, or too deep here). A document that is already
 * encoded goes in as its beam_kv_root(). */
BEAM_EXPORT int beam_kv_put(beam_kv_writer *writer, beam_str key, const beam_kv_value *value);

/* Opens a map or list; what follows goes into it until the matching end. */
BEAM_EXPORT int beam_kv_begin_map(beam_kv_writer *writer, const char *key);
BEAM_EXPORT int beam_kv_begin_list(beam_kv_writer *writer, const char *key);
BEAM_EXPORT int beam_kv_begin(beam_kv_writer *writer, beam_str key, beam_kv_type type);

/* Closes the innermost one. Never -ENOSPC. A map whose keys did not come in order is sorted here:
 * O(n log^2 n) for n entries, whatever their order. */
BEAM_EXPORT int beam_kv_end(beam_kv_writer *writer);

/* A buffer of BEAM_KV_JSON_EXPANSION times a document's length (a control character becomes
 * \u0000) is always enough for its text and the terminator. */
#define BEAM_KV_JSON_EXPANSION 6

/* Checks the document and writes it as JSON (K15), terminated by NUL. *ret_len excludes the
 * terminator. Returns 0, -ENOSPC (the buffer's content is then undefined) or -BEAM_EKV_…. */
BEAM_EXPORT int beam_kv_to_json(const void *doc, size_t len, char *buf, size_t cap,
                                size_t *ret_len);

/* XXH3-64, seed 0 (XXH3_64bits of xxHash 0.8). Equal documents have equal digests. Finds accidents
 * and duplicates; does not authenticate. */
BEAM_EXPORT uint64_t beam_kv_digest(const void *doc, size_t len);
BEAM_EXPORT uint64_t beam_xxh3(const void *data, size_t len);

/* The same over data that comes in pieces: init, any number of updates, final (which changes
 * nothing: more may follow). The state may be copied, holds no resource and needs no clean-up. */
typedef struct beam_xxh3_state {
    unsigned char opaque[576]; /* sizeof(XXH3_state_t) of xxHash 0.8 */
} __attribute__((__aligned__(64))) beam_xxh3_state;

BEAM_EXPORT void beam_xxh3_init(beam_xxh3_state *state);
BEAM_EXPORT void beam_xxh3_update(beam_xxh3_state *state, const void *data, size_t len);
BEAM_EXPORT uint64_t beam_xxh3_final(const beam_xxh3_state *state);

#ifdef __cplusplus
}
#endif

#endif
