#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/test.h"

TEST(digest_is_xxh3_of_the_bytes)
{
    /* of the empty input, from xxHash's own test vectors; of docs/spec/kv.md's first example */
    CHECK_UINT(beam_xxh3("", 0), UINT64_C(0x2d06800538d394c2));
    CHECK_UINT(beam_xxh3(NULL, 0), UINT64_C(0x2d06800538d394c2));

    uint8_t doc[64];
    const void *start;
    size_t len;
    beam_kv_writer w;
    beam_kv_writer_init(&w, doc, sizeof(doc));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_bool(&w, "ok", true);
    beam_kv_put_str(&w, "cmd", "open");
    beam_kv_put_int(&w, "fd", 7);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &start, &len), 0);
    CHECK_UINT(beam_kv_digest(doc, len), UINT64_C(0x4a667b5fad036e83));
}

TEST(digest_of_pieces_is_that_of_the_whole)
{
    struct test_random random = test_random(0);
    size_t len = 300000;
    uint8_t *data = malloc(len);
    test_random_fill(&random, data, len);
    for (int round = 0; round < 20; round++) {
        beam_xxh3_state state, copy;
        beam_xxh3_init(&state);
        size_t done = 0;
        while (done < len) {
            size_t n = test_random_below(&random, 1u << test_random_below(&random, 18));
            n = n < len - done ? n : len - done;
            beam_xxh3_update(&state, data + done, n);
            done += n;
            if (round == 0)
                CHECK_UINT(beam_xxh3_final(&state), beam_xxh3(data, done));
        }
        memcpy(&copy, &state, sizeof(copy));
        CHECK_UINT(beam_xxh3_final(&state), beam_xxh3(data, len));
        CHECK_UINT(beam_xxh3_final(&copy), beam_xxh3(data, len));
    }
    free(data);
}
