#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "tests/support/documents.h"
#include "tests/support/test.h"

#define ROOM (64u << 10)

static const char *float_text(double f)
{
    static char text[64];
    uint64_t doc[2];
    const void *start;
    size_t len, text_len;
    beam_kv_writer w;
    beam_kv_writer_init(&w, doc, sizeof(doc));
    beam_kv_put_float(&w, NULL, f);
    REQUIRE_INT(beam_kv_writer_finish(&w, &start, &len), 0);
    REQUIRE_INT(beam_kv_to_json(start, len, text, sizeof(text), &text_len), 0);
    REQUIRE_INT(text_len, strlen(text));
    return text;
}

TEST(json_floats_read_back_the_same_and_never_look_like_ints)
{
    struct test_random random = test_random(0);
    for (int i = 0; i < 50000; i++) {
        uint64_t bits = test_random_next(&random);
        double f;
        if (i % 3 == 1) /* few digits */
            f = (double)(int64_t)(bits >> 40) / 1000;
        else if (i % 3 == 2) /* powers of two, where the nearest short decimal can be wrong */
            f = ldexp(1, (int)(bits % 2098) - 1074);
        else
            memcpy(&f, &bits, sizeof(f));
        if (!isfinite(f))
            continue;
        const char *text = float_text(f);
        test_note("%a as %s", f, text);
        CHECK(strtod(text, NULL) == f);
        CHECK(strpbrk(text, ".e") != NULL);
        size_t digits = 0;
        for (const char *p = text + strspn(text, "-0."); *p && *p != 'e'; p++)
            digits += *p != '.';
        if (i % 3 == 1)
            CHECK(digits <= 12);
        if (fabs(f) < 1e15)
            CHECK(digits <= 17);
    }
}

TEST(json_floats_are_written_as_in_ecmascript)
{
    static const struct {
        double f;
        const char *text;
    } rows[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1, "1.0"},
        {-10, "-10.0"},
        {0.1, "0.1"},
        {123.456, "123.456"},
        {1e20, "100000000000000000000.0"},
        {1e21, "1e+21"},
        {1.25e21, "1.25e+21"},
        {123456789012345680000.0, "123456789012345680000.0"},
        {1e-6, "0.000001"},
        {1.5e-6, "0.0000015"},
        {1e-7, "1e-7"},
        {-1.5e-7, "-1.5e-7"},
        {5e-324, "5e-324"},
        {2.5e-323, "2.5e-323"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
        {0x1p-1017, "7.120236347223045e-307"},
        {9007199254740993.0, "9007199254740992.0"},
        {0.3, "0.3"},
        {0.1 + 0.2, "0.30000000000000004"},
        {INFINITY, "{\"$float\":\"inf\"}"},
        {-INFINITY, "{\"$float\":\"-inf\"}"},
        {NAN, "{\"$float\":\"nan\"}"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        CHECK_STR(float_text(rows[i].f), rows[i].text);
}

TEST(json_fits_the_promised_room_and_never_leaves_it)
{
    struct test_random random = test_random(0);
    uint8_t *doc = malloc(ROOM);
    for (int round = 0; round < 200; round++) {
        size_t len = document_random(&random, 15, doc, ROOM), text_len = 0;
        size_t cap = len * BEAM_KV_JSON_EXPANSION;
        char *text = malloc(cap);
        REQUIRE_INT(beam_kv_to_json(doc, len, text, cap, &text_len), 0);
        CHECK_INT(text_len, strlen(text));
        for (size_t less = 0; less <= text_len; less += 1 + test_random_below(&random, 60)) {
            char *tight = malloc(less + 1); /* guarded by the sanitizer from less on */
            CHECK_INT(beam_kv_to_json(doc, len, tight + 1, less, &text_len), -ENOSPC);
            free(tight);
        }
        free(text);
    }
    CHECK_INT(beam_kv_to_json("", 0, NULL, 0, NULL), -BEAM_EKV_TRUNCATED);
    free(doc);
}

TEST(json_of_control_characters_fills_the_promised_room)
{
    char nul[1000] = {0}, text[1016 * BEAM_KV_JSON_EXPANSION];
    uint64_t doc[127];
    const void *start;
    size_t len, text_len;
    beam_kv_writer w;
    beam_kv_writer_init(&w, doc, sizeof(doc));
    beam_kv_put_strn(&w, NULL, nul, sizeof(nul));
    REQUIRE_INT(beam_kv_writer_finish(&w, &start, &len), 0);
    CHECK_INT(beam_kv_to_json(start, len, text, len * BEAM_KV_JSON_EXPANSION, &text_len), 0);
    CHECK_INT(text_len, 6002);
}
