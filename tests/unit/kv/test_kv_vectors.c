/* tests/vectors/kv.json against checker, reader, writer and text. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/documents.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"

TEST(kv_vectors_are_accepted_or_refused_as_named)
{
    struct vectors vectors;
    vectors_load("kv.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        const char *error = vector_str(v, "error");
        size_t len, offset = SIZE_MAX;
        uint8_t *doc = vector_hex(v, "hex", &len);
        test_note("%s", vector_str(v, "name"));

        int r = beam_kv_check(doc, len, &offset);
        CHECK_STR(beam_error_name(r), error ? error : "OK");
        CHECK(r == 0 ? offset == SIZE_MAX : offset <= len);
        CHECK(!error == !!vector_str(v, "json"));
        free(doc);
    }
    vectors_free(&vectors);
}

TEST(kv_vectors_cover_every_error)
{
    struct vectors vectors;
    vectors_load("kv.json", &vectors);
    for (int e = BEAM_EKV_TRUNCATED; e <= BEAM_EKV_TOO_LARGE; e++) {
        size_t count = 0;
        for (size_t i = 0; i < vectors.count; i++) {
            const char *error = vector_str(&vectors.items[i], "error");
            count += error && strcmp(error, beam_error_name(-e)) == 0;
        }
        test_note("%s", beam_error_name(-e));
        CHECK(count > 0);
    }
    vectors_free(&vectors);
}

TEST(kv_vectors_read_and_written_again_are_the_same_bytes)
{
    struct vectors vectors;
    vectors_load("kv.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        if (vector_str(v, "error"))
            continue;
        size_t len, again = 0;
        uint8_t *doc = vector_hex(v, "hex", &len), *buf = malloc(len);
        test_note("%s", vector_str(v, "name"));
        for (int order = DOCUMENT_IN_ORDER; order <= DOCUMENT_ODD_FIRST; order++) {
            /* the buffer is exactly as long as the document: that is enough */
            CHECK_INT(document_rewrite(doc, len, buf, len, (enum document_order)order, &again), 0);
            CHECK_MEM(buf, again, doc, len);
        }
        free(doc);
        free(buf);
    }
    vectors_free(&vectors);
}

TEST(kv_vectors_have_their_text)
{
    struct vectors vectors;
    vectors_load("kv.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        const char *json = vector_str(v, "json");
        size_t len, text_len = 0;
        uint8_t *doc = vector_hex(v, "hex", &len);
        size_t cap = len * BEAM_KV_JSON_EXPANSION;
        char *text = calloc(cap + 1, 1);
        test_note("%s", vector_str(v, "name"));
        int r = beam_kv_to_json(doc, len, text, cap, &text_len);
        if (json) {
            CHECK_INT(r, 0);
            CHECK_STR(text, json);
            CHECK_INT(text_len, strlen(json));
            CHECK_INT(beam_kv_to_json(doc, len, text, strlen(json), &text_len), -ENOSPC);
            CHECK_INT(beam_kv_to_json(doc, len, text, strlen(json) + 1, &text_len), 0);
        } else {
            CHECK_STR(beam_error_name(r), vector_str(v, "error"));
        }
        free(doc);
        free(text);
    }
    vectors_free(&vectors);
}

TEST(kv_vectors_do_not_depend_on_alignment)
{
    struct vectors vectors;
    vectors_load("kv.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        size_t len, again = 0;
        uint8_t *doc = vector_hex(v, "hex", &len);
        test_note("%s", vector_str(v, "name"));
        int expected = beam_kv_check(doc, len, NULL);
        for (size_t shift = 1; shift < 8; shift++) {
            /* ends with the allocation, so that a sanitizer sees one byte too many */
            uint8_t *moved = malloc(len + shift), *buf = malloc(len + shift);
            memcpy(moved + shift, doc, len);
            CHECK_INT(beam_kv_check(moved + shift, len, NULL), expected);
            if (expected == 0) {
                int r = document_rewrite(moved + shift, len, buf + shift, len, DOCUMENT_ODD_FIRST,
                                         &again);
                CHECK_INT(r, 0);
                CHECK_MEM(buf + shift, again, doc, len);
            }
            free(moved);
            free(buf);
        }
        free(doc);
    }
    vectors_free(&vectors);
}
