/* Chunks against tests/vectors/http_chunks.json, however they are cut, and what is written. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/error.h>
#include <beam/kv.h>

#include "net/chunk.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"

/* What a reader has told, pieces of DATA put together again. */
struct told {
    char text[256];
    size_t data; /* since the last other event */
    bool broken;
};

static void tell(struct told *told, const char *text)
{
    size_t len = strlen(told->text);
    snprintf(told->text + len, sizeof(told->text) - len, "%s%s", len > 0 ? ", " : "", text);
}

static void tell_data(struct told *told)
{
    char text[32];
    if (told->data == 0)
        return;
    snprintf(text, sizeof(text), "DATA %zu", told->data);
    told->data = 0;
    tell(told, text);
}

static void tell_end(struct told *told, const struct bm_chunk *chunk)
{
    char text[128];
    beam_kv_value map;
    beam_str message = {0};
    if (chunk->details) {
        REQUIRE_INT(beam_kv_root(chunk->details, chunk->details_len, &map), 0);
        CHECK_INT(beam_kv_get_str(&map, "message", &message), 0);
    }
    snprintf(text, sizeof(text), "END %u%s%.*s", chunk->code, message.len > 0 ? " " : "",
             BEAM_STR(message));
    tell(told, text);
}

/* From a block of its own, so that a sanitizer sees what lies behind it. */
static void feed(struct bm_chunk_reader *reader, const uint8_t *from, size_t len, struct told *told)
{
    uint8_t *block = malloc(len);
    REQUIRE(block != NULL);
    memcpy(block, from, len);
    const uint8_t *bytes = block;
    struct bm_chunk chunk;
    int r;
    while (!told->broken && (r = bm_chunk_read(reader, &bytes, &len, &chunk)) != 0) {
        if (r == BM_CHUNK_DATA) {
            told->data += chunk.len;
            continue;
        }
        tell_data(told);
        if (r < 0)
            told->broken = true;
        else if (r == BM_CHUNK_GO)
            tell(told, "GO");
        else
            tell_end(told, &chunk);
    }
    free(block);
}

static struct told read_in_pieces(bool client, const uint8_t *bytes, size_t len, size_t piece)
{
    struct bm_chunk_reader reader = {.client = client};
    struct told told = {0};
    for (size_t at = 0; at < len; at += piece)
        feed(&reader, bytes + at, piece < len - at ? piece : len - at, &told);
    tell_data(&told);
    bm_chunk_reader_deinit(&reader);
    return told;
}

TEST(chunks_are_what_the_vectors_say_however_they_are_cut)
{
    struct vectors vectors;
    vectors_load("http_chunks.json", &vectors);
    CHECK(vectors.count >= 25);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        size_t len;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        for (size_t piece = 1; piece <= len; piece++) {
            test_note("%s, pieces of %zu", vector_str(v, "name"), piece);
            struct told told =
                read_in_pieces(strcmp(vector_str(v, "from"), "client") == 0, bytes, len, piece);
            CHECK_STR(told.text, vector_str(v, "summary"));
            CHECK_INT(told.broken, vector_int(v, "broken", -1));
        }
        free(bytes);
    }
    vectors_free(&vectors);
}

TEST(the_longest_chunk_is_read_and_the_next_is_too_long)
{
    uint8_t *bytes = calloc(1, BM_CHUNK_LEN_MAX + 1);
    REQUIRE(bytes != NULL);
    for (uint32_t more = 0; more < 2; more++) {
        uint32_t len = BM_CHUNK_LEN_MAX - BM_CHUNK_HEAD_LEN + more;
        CHECK(bm_chunk_put_head(bytes, BM_CHUNK_DATA, len) == bytes + BM_CHUNK_HEAD_LEN);
        struct told told = read_in_pieces(false, bytes, BM_CHUNK_HEAD_LEN + len, 1000);
        CHECK_STR(told.text, more ? "" : "DATA 65532");
        CHECK_INT(told.broken, more);
    }
    free(bytes);
}

TEST(what_is_written_is_read_again)
{
    uint8_t bytes[64], *out = bytes;
    out = bm_chunk_put_head(out, BM_CHUNK_GO, 0);
    out = bm_chunk_put_head(out, BM_CHUNK_DATA, 3);
    memcpy(out, "abc", 3);
    out = bm_chunk_put_head(out + 3, BM_CHUNK_ALIVE, 0);
    uint8_t *end = bm_chunk_put_end(out, BEAM_OK);
    CHECK_UINT(end - out, BM_CHUNK_END_LEN);
    struct told told = read_in_pieces(true, bytes, (size_t)(end - bytes), 5);
    CHECK_STR(told.text, "GO, DATA 3, END 0");
    CHECK(!told.broken);
}
