/* Any bytes as the chunks of either side: what they come to is the same however they are cut, a piece of DATA
 * lies in what was given, and nothing comes behind an END or a broken rule.
 *
 * Covers: net/chunk.c:begin,parse_end,go_on,bm_chunk_read */
#include <errno.h>
#include <stdbool.h>

#include <beam/kv.h>

#include "net/chunk.h"
#include "tests/fuzz/fuzz.h"

/* All that a reader has told, as a sum that depends on the order. */
struct told {
    uint64_t sum, data;
    unsigned goes, ends;
    bool over;
};

static void add(struct told *told, uint64_t what)
{
    told->sum = (told->sum ^ what) * UINT64_C(0x100000001b3);
}

static void tell(struct told *told, int event, const struct bm_chunk *chunk)
{
    EXPECT(!told->over && told->ends == 0);
    switch (event) {
    case BM_CHUNK_GO:
        told->goes++;
        EXPECT(told->goes == 1 && told->data == 0);
        break;
    case BM_CHUNK_DATA:
        EXPECT(chunk->len > 0);
        for (size_t i = 0; i < chunk->len; i++)
            add(told, chunk->bytes[i]);
        told->data += chunk->len;
        break;
    case BM_CHUNK_END:
        told->ends++;
        add(told, chunk->code);
        EXPECT(!chunk->details || beam_kv_check(chunk->details, chunk->details_len, NULL) == 0);
        add(told, chunk->details_len);
        break;
    default:
        EXPECT(event == -EPROTO);
        told->over = true;
        break;
    }
}

static struct told read_cut(bool client, const uint8_t *data, size_t size, size_t piece)
{
    struct bm_chunk_reader reader = {.client = client};
    struct told told = {0};
    for (size_t at = 0; at < size && !told.over; at += piece) {
        size_t len = piece < size - at ? piece : size - at;
        uint8_t *block = fuzz_copy(data + at, len);
        const uint8_t *bytes = block;
        struct bm_chunk chunk;
        int r = 1;
        while (!told.over && r != 0) {
            r = bm_chunk_read(&reader, &bytes, &len, &chunk);
            EXPECT(r != 0 || len == 0);
            if (r == BM_CHUNK_DATA)
                EXPECT(chunk.bytes >= block && chunk.bytes + chunk.len == bytes);
            if (r < 0 && told.ends > 0)
                told.over = true; /* behind an END every chunk is broken */
            else if (r != 0)
                tell(&told, r, &chunk);
        }
        free(block);
    }
    bm_chunk_reader_deinit(&reader);
    return told;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool client = size > 0 && (data[0] & 1);
    for (size_t i = 0; i < 2; i++, client = !client) {
        struct told whole = read_cut(client, data, size, size > 0 ? size : 1);
        static const size_t pieces[] = {1, 3, 4, 7};
        for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
            struct told cut = read_cut(client, data, size, pieces[p]);
            EXPECT(cut.sum == whole.sum && cut.data == whole.data && cut.goes == whole.goes &&
                   cut.ends == whole.ends && cut.over == whole.over);
        }
    }
    return 0;
}
