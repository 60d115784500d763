/* Any bytes: the checker decides; what it lets pass must come out of the writer as the same
 * bytes, in any order of puts, and must have a text that fits the promised room. What it refuses
 * must still be safe to read. */
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/documents.h"

#define INPUT_LEN_MAX (64u << 10)

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if (!(expr))                                                                               \
            abort();                                                                               \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t walk(const beam_kv_value *value, int depth)
{
    uint64_t sum = 0;
    beam_kv_iter iter;
    beam_kv_value inner, found;
    beam_str key;
    double f;
    int64_t i;

    sum += (uint64_t)beam_kv_as_int(value, &i) + (uint64_t)beam_kv_as_float(value, &f);
    beam_kv_iter_init(&iter, value);
    while (depth < 40 && beam_kv_iter_next(&iter, &key, &inner) > 0) {
        sum += beam_xxh3(key.ptr, key.len) + walk(&inner, depth + 1);
        beam_kv_find(value, key, &found);
    }
    if (value->type == BEAM_KV_STR || value->type == BEAM_KV_BYTES)
        sum += beam_xxh3(value->bytes.ptr, value->bytes.len);
    return sum;
}

static void check_valid(const uint8_t *doc, size_t len)
{
    size_t again_len = 0, text_len = 0, cap = len * BEAM_KV_JSON_EXPANSION;
    uint8_t *again = malloc(len);
    char *text = malloc(cap);

    for (int order = DOCUMENT_IN_ORDER; order <= DOCUMENT_ODD_FIRST; order++) {
        MUST(document_rewrite(doc, len, again, len, (enum document_order)order, &again_len) == 0);
        MUST(again_len == len && memcmp(again, doc, len) == 0);
    }
    MUST(beam_kv_to_json(doc, len, text, cap, &text_len) == 0);
    MUST(text_len < cap && strlen(text) == text_len);
    free(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    beam_kv_value root;
    size_t offset = 0;

    if (size > INPUT_LEN_MAX)
        return 0;
    if (beam_kv_root(data, size, &root) == 0)
        walk(&root, 0);
    if (beam_kv_check(data, size, &offset) == 0)
        check_valid(data, size);
    else
        MUST(offset <= size);
    return 0;
}
