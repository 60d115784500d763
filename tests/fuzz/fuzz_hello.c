/* Any bytes as the document of a HELLO, and as the name in one that is written. What is accepted is within
 * the rules and comes back from our own words for it; whatever the name, what is written is accepted, and
 * its name is what fits of it.
 *
 * Covers: runtime/hello.c */
#include <stdbool.h>

#include "kv/utf8.h"
#include "runtime/frame.h"
#include "runtime/hello.h"
#include "tests/fuzz/fuzz.h"

static void expect_same(const struct bm_hello *a, const struct bm_hello *b)
{
    EXPECT(a->version == b->version && a->opener == b->opener);
    EXPECT(a->window == b->window && a->channels_max == b->channels_max);
    EXPECT(a->message_len_max == b->message_len_max);
    EXPECT(a->fds_max == b->fds_max && a->fds_refused == b->fds_refused && a->ping_s == b->ping_s);
}

/* Written, and read from a block of its own length; freed by the caller. */
static void *write_and_read(const struct bm_hello *hello, struct bm_hello *ret_hello)
{
    uint8_t room[BM_HELLO_LEN_MAX];
    size_t len = bm_hello_write(hello, room);
    EXPECT(len <= sizeof(room));
    void *document = fuzz_copy(room, len);
    EXPECT(bm_hello_parse(document, len, ret_hello) == 0);
    expect_same(ret_hello, hello);
    return document;
}

static void try_document(const uint8_t *data, size_t size)
{
    struct bm_hello hello, second;
    int r = bm_hello_parse(data, size, &hello);
    EXPECT(r == 0 || r == -BEAM_EHELLO_MALFORMED);
    if (r < 0)
        return;
    EXPECT(beam_kv_check(data, size, NULL) == 0);
    EXPECT(hello.version >= 1 && hello.window >= BM_WINDOW_MIN && hello.channels_max >= 1);
    EXPECT(hello.message_len_max >= 1 && hello.name.len <= 255);
    EXPECT(hello.ping_s <= BM_PING_MAX_S);
    EXPECT(!hello.fds_refused || hello.fds_max == 0);
    void *document = write_and_read(&hello, &second);
    EXPECT(second.name.len == hello.name.len);
    EXPECT(hello.name.len == 0 || memcmp(second.name.ptr, hello.name.ptr, hello.name.len) == 0);
    free(document);
}

static void try_name(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, data + size};
    struct bm_hello second, hello = {
                                .version = 1 + fuzz_byte(&in),
                                .opener = size % 2,
                                .name = {(const char *)data, size},
                                .window = BM_WINDOW_MIN + (uint32_t)(fuzz_u64(&in) & 0xffffff),
                                .channels_max = 1 + fuzz_byte(&in),
                                .message_len_max = 1 + (uint32_t)(fuzz_u64(&in) & 0x3fffffff),
                                .fds_max = fuzz_byte(&in),
                            };
    hello.fds_refused = hello.fds_max == 0;
    hello.ping_s = (uint32_t)(fuzz_u64(&in) % (BM_PING_MAX_S + 1));
    void *document = write_and_read(&hello, &second);
    bool text = bm_utf8_valid(data, size);
    EXPECT(second.name.len <= size && (size == 0 || second.name.len == 0 ||
                                       memcmp(second.name.ptr, data, second.name.len) == 0));
    EXPECT(text ? second.name.len == size || second.name.len > 255 - 4 : second.name.len == 0);
    free(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > BEAM_METADATA_LEN_MAX)
        return 0;
    try_document(data, size);
    try_name(data, size);
    return 0;
}
