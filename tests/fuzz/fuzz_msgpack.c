/* Any bytes as msgpack.
 *
 * What is refused has a byte to blame. What is accepted becomes a valid document, which comes back from its
 * msgpack; that is never longer than what was read, but for float 32. Any document comes back.
 *
 * Covers: kv/msgpack_reader.c kv/msgpack.c */
#include "tests/fuzz/codec.h"

static void check(const beam_buffer *doc, size_t size)
{
    beam_buffer form;
    fuzz_convert(&beam_kv_codec, &beam_msgpack, doc, &form);
    EXPECT(5 * form.len <= 9 * size); /* 5 bytes of float 32 are 9 of float 64 */
    beam_buffer_deinit(&form);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_codec(&beam_msgpack, data, size, check);
    return 0;
}
