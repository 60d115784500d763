/* Reads tests/vectors/FILE.json: an array of flat objects whose values are strings, integers or
 * null.
 *
 *     struct vectors vectors;
 *     vectors_load("kv.json", &vectors);
 *     for (size_t i = 0; i < vectors.count; i++) {
 *         const struct vector *v = &vectors.items[i];
 *         test_note("%s", vector_str(v, "name"));
 *         ...
 *     }
 *     vectors_free(&vectors);
 *
 * Strict: a file that is anything else, or that names a member twice in one object, ends the
 * program with the line that is wrong. Found below $BEAM_SOURCE_DIR, else where the tests were
 * compiled. */
#ifndef BEAM_TEST_VECTORS_H
#define BEAM_TEST_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VECTOR_MEMBERS_MAX 16

struct vector {
    size_t count;
    struct {
        char *name;
        char *str; /* NULL: null or a number */
        bool is_number;
        int64_t number;
    } members[VECTOR_MEMBERS_MAX];
};

struct vectors {
    size_t count;
    struct vector *items;
    char *text; /* the file, in which the strings lie */
};

void vectors_load(const char *file, struct vectors *ret);
void vectors_free(struct vectors *vectors);

/* A string member; NULL when it is null. A member that is missing or a number ends the program. */
const char *vector_str(const struct vector *v, const char *name);

/* A number member, or otherwise when it is null or missing. */
int64_t vector_int(const struct vector *v, const char *name, int64_t otherwise);

/* A string member of hexadecimal digits (spaces allowed) as bytes, to be given to free(3). */
uint8_t *vector_hex(const struct vector *v, const char *name, size_t *ret_len);

#endif
