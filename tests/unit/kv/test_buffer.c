/* Bytes that grow, and the writer that grows in them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <beam/codec.h>

#include "base/alloc.h"
#include "kv/buffer.h"
#include "tests/support/documents.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

TEST(buffer_keeps_what_is_added_and_takes_no_more_than_its_limit)
{
    beam_buffer b;
    beam_buffer_init(&b, 1000);
    CHECK_PTR(b.ptr, NULL);
    CHECK_INT(beam_buffer_add(&b, NULL, 0), 0);
    for (int i = 0; i < 100; i++)
        CHECK_INT(beam_buffer_add(&b, "0123456789", 10), 0);
    CHECK_UINT(b.len, 1000);
    CHECK(b.cap <= 1000);
    for (size_t i = 0; i < 1000; i++)
        REQUIRE_INT(b.ptr[i], '0' + i % 10);
    CHECK_INT(beam_buffer_add(&b, "x", 1), -BEAM_ECODEC_TOO_LARGE);
    CHECK_UINT(b.len, 1000);
    CHECK_INT(beam_buffer_add(&b, "", 0), -BEAM_ECODEC_TOO_LARGE); /* it sticks */
    beam_buffer_clear(&b);
    CHECK_INT(beam_buffer_add(&b, "x", 1), 0);
    CHECK_MEM(b.ptr, b.len, "x", 1);
    beam_buffer_deinit(&b);
    beam_buffer_deinit(&b);
}

TEST(buffer_reserves_room_that_is_written_in_place)
{
    beam_buffer b;
    unsigned char *room;
    beam_buffer_init(&b, SIZE_MAX);
    CHECK_INT(beam_buffer_add(&b, "ab", 2), 0);
    REQUIRE_INT(beam_buffer_reserve(&b, 5000, &room), 0);
    CHECK_PTR(room, b.ptr + 2);
    memset(room, 'c', 5000);
    beam_buffer_advance(&b, 1);
    CHECK_MEM(b.ptr, b.len, "abc", 3);
    CHECK_INT(beam_buffer_reserve(&b, SIZE_MAX, &room),
              -BEAM_ECODEC_TOO_LARGE); /* len + SIZE_MAX wraps */
    CHECK_INT(b.error, -BEAM_ECODEC_TOO_LARGE);
    CHECK_INT(beam_buffer_fail(&b, -EIO), -BEAM_ECODEC_TOO_LARGE);
    beam_buffer_clear(&b);
    CHECK_INT(beam_buffer_fail(&b, -EIO), -EIO);
    CHECK_INT(beam_buffer_reserve(&b, 1, &room), -EIO);
    beam_buffer_deinit(&b);
}

TEST(buffer_without_memory_says_so_and_stays_as_it_is)
{
    beam_buffer b;
    beam_buffer_init(&b, 1 << 20);
    CHECK_INT(beam_buffer_add(&b, "kept", 4), 0);
    char *more = calloc(1, 4096);
    REQUIRE(more);
    scarce_begin(0);
    int r = beam_buffer_add(&b, more, 4096);
    scarce_end();
    CHECK_INT(r, -ENOMEM);
    CHECK_MEM(b.ptr, b.len, "kept", 4);
    free(more);
    beam_buffer_deinit(&b);
}

TEST(buffer_is_charged_to_its_account)
{
    struct bm_account account = {.limit = 1000};
    beam_buffer b;
    char bytes[600] = "";
    bm_buffer_init(&b, 1 << 20, &account);
    CHECK_INT(beam_buffer_add(&b, bytes, sizeof(bytes)), 0);
    CHECK_UINT(account.used, b.cap);
    CHECK_INT(beam_buffer_add(&b, bytes, sizeof(bytes)), -ENOMEM);
    beam_buffer_deinit(&b);
    CHECK_UINT(account.used, 0);
}

/* Into a buffer whose limit is the document's length there is just room; one byte less is none. */
TEST(writer_in_a_buffer_makes_the_same_document)
{
    static uint64_t room[1 << 15];
    struct test_random random = test_random(0);
    for (int i = 0; i < 200; i++) {
        size_t len = document_random(&random, 1 + (unsigned)test_random_below(&random, 400), room,
                                     sizeof(room));
        for (size_t less = 0; less <= 1; less++) {
            beam_buffer b;
            beam_kv_writer w;
            beam_kv_value root;
            const void *doc = NULL;
            size_t doc_len = 0;
            beam_buffer_init(&b, len - less);
            beam_buffer_add(&b, "gone", 4);
            REQUIRE_INT(beam_kv_root(room, len, &root), 0);
            beam_kv_writer_init_buffer(&w, &b);
            document_put(&w, (beam_str){NULL, 0}, &root, DOCUMENT_ODD_FIRST);
            int r = beam_kv_writer_finish(&w, &doc, &doc_len);
            CHECK_INT(r, less ? -BEAM_ECODEC_TOO_LARGE : 0);
            if (r == 0) {
                CHECK_PTR(doc, b.ptr);
                CHECK_UINT(doc_len, b.len);
                CHECK_MEM(b.ptr, b.len, room, len);
            }
            CHECK_INT(b.error, 0);
            beam_buffer_deinit(&b);
        }
    }
}

TEST(writer_in_a_buffer_says_that_there_is_no_memory)
{
    for (int left = 0; left < 8; left++) {
        beam_buffer b;
        beam_kv_writer w;
        const void *doc;
        size_t len;
        beam_buffer_init(&b, 1 << 20);
        scarce_begin(left);
        beam_kv_writer_init_buffer(&w, &b);
        beam_kv_begin_list(&w, NULL);
        for (int i = 0; i < 1000; i++)
            beam_kv_put_int(&w, NULL, i);
        beam_kv_end(&w);
        int r = beam_kv_writer_finish(&w, &doc, &len);
        beam_buffer_deinit(&b);
        scarce_end();
        CHECK_INT(r, left < 7 ? -ENOMEM : 0); /* 256 bytes, doubled six times, hold 1000 numbers */
    }
}
