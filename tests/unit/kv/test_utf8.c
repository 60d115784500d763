/* Against a decoder that is written the plain way: value first, then what is forbidden. */
#include <string.h>

#include "kv/utf8.h"
#include "tests/support/test.h"

static bool reference(const uint8_t *p, size_t len)
{
    while (len > 0) {
        size_t n = p[0] < 0x80             ? 1
                   : (p[0] & 0xe0) == 0xc0 ? 2
                   : (p[0] & 0xf0) == 0xe0 ? 3
                   : (p[0] & 0xf8) == 0xf0 ? 4
                                           : 0;
        if (n == 0 || n > len)
            return false;
        uint32_t code = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));
        for (size_t i = 1; i < n; i++) {
            if ((p[i] & 0xc0) != 0x80)
                return false;
            code = code << 6 | (p[i] & 0x3f);
        }
        static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
        if (code < least[n] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
            return false;
        p += n;
        len -= n;
    }
    return true;
}

TEST(utf8_every_sequence_of_three_bytes)
{
    size_t wrong = 0;
    for (uint32_t i = 0; i < 1u << 24; i++) {
        uint8_t s[3] = {(uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i};
        wrong += bm_utf8_valid(s, 3) != reference(s, 3);
    }
    CHECK_INT(wrong, 0);
    for (uint32_t i = 0; i < 1u << 16; i++) {
        uint8_t s[2] = {(uint8_t)(i >> 8), (uint8_t)i};
        wrong += bm_utf8_valid(s, 2) != reference(s, 2);
        wrong += bm_utf8_valid(s, 1) != reference(s, 1);
    }
    CHECK_INT(wrong, 0);
}

TEST(utf8_every_start_of_four_bytes_with_tails_at_their_edges)
{
    static const uint8_t tails[] = {0x00, 0x7f, 0x80, 0x8f, 0x90, 0xbf, 0xc0, 0xff};
    size_t wrong = 0;
    for (uint32_t i = 0; i < 1u << 16; i++)
        for (size_t k = 0; k < 64; k++) {
            uint8_t s[4] = {(uint8_t)(i >> 8), (uint8_t)i, tails[k / 8], tails[k % 8]};
            wrong += bm_utf8_valid(s, 4) != reference(s, 4);
        }
    CHECK_INT(wrong, 0);
}

TEST(utf8_wrong_byte_is_found_at_every_place)
{
    struct test_random random = test_random(0);
    static const char *const pieces[] = {"a", "b", "abcdefghijklmnopqrstuvwxyz",
                                         "é", "€", "\U0001f600"};
    for (int round = 0; round < 300; round++) {
        uint8_t s[256];
        size_t len = 0;
        while (len < 120) {
            const char *piece = pieces[test_random_below(&random, 6)];
            memcpy(s + len, piece, strlen(piece));
            len += strlen(piece);
        }
        CHECK(bm_utf8_valid(s, len));
        for (size_t i = 0; i < len; i++) {
            uint8_t was = s[i];
            s[i] = (uint8_t)test_random_next(&random);
            CHECK_INT(bm_utf8_valid(s, len), reference(s, len));
            s[i] = 0xff;
            CHECK(!bm_utf8_valid(s, len));
            s[i] = was;
            CHECK_INT(bm_utf8_valid(s, i), reference(s, i));
        }
    }
}

TEST(utf8_wrong_byte_is_found_in_short_and_long_ascii)
{
    for (size_t len = 1; len <= 140; len++) {
        uint8_t s[140];
        memset(s, 'a', sizeof(s));
        CHECK(bm_utf8_valid(s, len));
        for (size_t i = 0; i < len; i++) {
            test_note("byte %zu of %zu", i, len);
            s[i] = 0xff;
            CHECK(!bm_utf8_valid(s, len));
            s[i] = 'a';
        }
    }
}

TEST(utf8_nothing_is_text)
{
    CHECK(bm_utf8_valid(NULL, 0));
    CHECK(bm_utf8_valid("", 1));
}
