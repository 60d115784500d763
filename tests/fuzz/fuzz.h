/* What fuzz targets share: libFuzzer's interface, a check that names itself, blocks of exactly their length,
 * and inputs that are read as a row of small numbers. */
#ifndef BEAM_FUZZ_H
#define BEAM_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define EXPECT(expr)                                                                               \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #expr);                     \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* A copy in a block of just this length, so that one byte too far is seen; for free(3). */
static inline void *fuzz_copy(const void *data, size_t len)
{
    void *copy = malloc(len);
    EXPECT(copy || len == 0);
    if (len > 0)
        memcpy(copy, data, len);
    return copy;
}

/* The same with a NUL behind. */
static inline char *fuzz_string(const void *data, size_t len)
{
    char *copy = malloc(len + 1);
    EXPECT(copy);
    if (len > 0)
        memcpy(copy, data, len);
    copy[len] = '\0';
    return copy;
}

/* Past the end all bytes are 0, and views are shorter. What libFuzzer changes in such an input is a field
 * more often than the sense of all that follows. */
struct fuzz_input {
    const uint8_t *pos, *end;
};

static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
    return in->pos < in->end ? *in->pos++ : 0;
}

/* Small numbers exactly, others as one less than powers of two. */
static inline uint64_t fuzz_u64(struct fuzz_input *in)
{
    uint8_t byte = fuzz_byte(in);
    return byte < 192 ? byte : UINT64_MAX >> (255 - byte);
}

static inline const uint8_t *fuzz_view(struct fuzz_input *in, size_t *len)
{
    const uint8_t *view = in->pos;
    if (*len > (size_t)(in->end - in->pos))
        *len = (size_t)(in->end - in->pos);
    in->pos += *len;
    return view;
}

#endif
