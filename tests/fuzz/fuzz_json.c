/* Any bytes as JSON.
 *
 * What is refused has a byte to blame. What is accepted becomes a valid document, whose text says the same to
 * this reader and to a second one (from_json.h), and whose text for JavaScript comes back too. Any document
 * comes back from its text.
 *
 * Covers: kv/json_reader.c kv/json.c kv/base64.c kv/decimal.c */
#include "tests/fuzz/codec.h"
#include "tests/fuzz/from_json.h"

static void check(const beam_buffer *doc, size_t size)
{
    beam_buffer text;
    size_t len = 0;
    fuzz_document_survives(&beam_json_safe, doc);
    fuzz_convert(&beam_kv_codec, &beam_json, doc, &text);
    char *second = fuzz_string(text.ptr, text.len);
    uint8_t *again = malloc(doc->len);
    EXPECT(from_json(second, again, doc->len, &len));
    EXPECT(len == doc->len && memcmp(again, doc->ptr, len) == 0);
    free(again);
    free(second);
    beam_buffer_deinit(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_codec(&beam_json, data, size, check);
    return 0;
}
