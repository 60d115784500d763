/* Decimal numbers, against strtod(3), which is exact. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kv/decimal.h"
#include "tests/support/test.h"

static uint64_t bits_of(double f)
{
    uint64_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static void check_as_strtod(const char *text)
{
    test_note("%s", text);
    CHECK_UINT(bits_of(bm_decimal_to_double((const uint8_t *)text, strlen(text))),
               bits_of(strtod(text, NULL)));
}

TEST(decimals_are_read_as_the_nearest_float)
{
    static const char *const edges[] = {
        "0.0",
        "-0.0",
        "1e0",
        "0e99999999999999999999",
        "0.000e-5",
        "9007199254740993.0",
        "9007199254740992.5",
        "9007199254740993.5",
        "1e22",
        "1e23",
        "1e-22",
        "8.5e22",
        "4.9406564584124654e-324",
        "2.4703282292062327e-324",
        "2.4703282292062328e-324",
        "2.2250738585072011e-308",
        "2.2250738585072012e-308",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "1e308",
        "1e309",
        "1e99999999999999999999999",
        "1e-99999999999999999999999",
        "123456789012345678901234567890e-10",
        "0.5",
        "0.25",
        "0.125",
        "4503599627370496.5",
        "4503599627370497.5",
        "1.00000000000000011102230246251565",
        "1.00000000000000011102230246251566",
        "6.9294956446009195e15",
        "3.5844466002796428e+298",
    };
    for (size_t i = 0; i < sizeof(edges) / sizeof(edges[0]); i++)
        check_as_strtod(edges[i]);
}

TEST(random_decimals_are_read_as_the_nearest_float)
{
    struct test_random random = test_random(0);
    char text[80];
    for (int i = 0; i < 100000; i++) {
        uint64_t bits = test_random_next(&random);
        double f;
        memcpy(&f, &bits, sizeof(f));
        if (!isfinite(f))
            continue;
        switch (i % 4) {
        case 0: /* as many digits as there are in it, or fewer, or more */
            snprintf(text, sizeof(text), "%.*e", (int)test_random_below(&random, 25), f);
            break;
        case 1: /* exactly between two floats, or beside */
            f = (double)(int64_t)(bits >> 11);
            snprintf(text, sizeof(text), "%.0f%se%d", f,
                     test_random_below(&random, 2) ? ".5" : ".49999999999999999999",
                     (int)test_random_below(&random, 3) * -1);
            break;
        case 2: /* few digits, any power */
            snprintf(text, sizeof(text), "%de%d", (int)test_random_below(&random, 1000),
                     (int)test_random_below(&random, 700) - 360);
            break;
        default:
            snprintf(text, sizeof(text), "%llu.%llu",
                     (unsigned long long)(bits >> test_random_below(&random, 64)),
                     (unsigned long long)test_random_next(&random));
        }
        check_as_strtod(text);
    }
}

/* The middle between two neighbours, in full: up to 767 digits decide, and what follows counts only as more. */
TEST(decimals_of_any_length_are_read_as_the_nearest_float)
{
    struct test_random random = test_random(0);
    static char text[4000];
    for (int i = 0; i < 300; i++) {
        uint64_t bits = test_random_next(&random) & ~(UINT64_C(1) << 63);
        double f, next;
        if (i % 2)
            bits >>= 12 + test_random_below(&random, 50); /* subnormal */
        memcpy(&f, &bits, sizeof(f));
        bits++;
        memcpy(&next, &bits, sizeof(next)); /* its neighbour */
        if (!isfinite(f) || !isfinite(next))
            continue;
        long double middle = ((long double)f + (long double)next) / 2; /* exact: 64 bits hold it */
        size_t len = (size_t)snprintf(text, 2000, "%.1100Le", middle);
        check_as_strtod(text);
        char *e = strchr(text, 'e');
        size_t digits = (size_t)(e - text);
        for (int tail = 0; tail < 2; tail++) { /* a little more, far behind; and a little less */
            char changed[4000];
            memcpy(changed, text, digits);
            memset(changed + digits, '0', 500);
            changed[digits + 500] = '1';
            memcpy(changed + digits + 501, e, len - digits + 1);
            check_as_strtod(changed);
        }
    }
}

/* "-0.", zeros, digits, zeros, and an exponent: what is in front of the `e` may weigh up any exponent. */
static void check_shape(char *text, size_t before, const char *digits, size_t behind, bool fraction,
                        const char *exponent)
{
    size_t len = (size_t)sprintf(text, "-%s", fraction ? "0." : "");
    memset(text + len, '0', before);
    len += before;
    len += (size_t)sprintf(text + len, "%s", digits);
    memset(text + len, '0', behind);
    len += behind;
    sprintf(text + len, "e%s", exponent);
    double expected = strtod(text, NULL);
    test_note("%s%zu zeros, %s, %zu zeros, e%s", fraction ? "0." : "", before, digits, behind,
              exponent);
    CHECK_UINT(bits_of(bm_decimal_to_double((const uint8_t *)text, strlen(text))),
               bits_of(expected));
}

TEST(zeros_and_exponents_of_any_length_weigh_up)
{
    static const size_t zeros[] = {0, 1, 800, 99999, 100001};
    static const char *const digits[] = {"", "1", "17", "12345678901234567890123"};
    static const char *const more[] = {"99999",
                                       "100000",
                                       "999999",
                                       "1000000",
                                       "2147483648",
                                       "4294967296",
                                       "4294967297",
                                       "9223372036854775807",
                                       "9223372036854775808",
                                       "18446744073709551616",
                                       "18446744073709551617",
                                       "100000000000000000000000000000000000000000",
                                       "000000000000000000000000000000000000000000000100000"};
    enum { COUNT = sizeof(zeros) / sizeof(zeros[0]), MORE = sizeof(more) / sizeof(more[0]) };
    char *text = malloc(1000000), exponent[80];
    for (size_t z = 0; z < COUNT; z++) {
        for (size_t d = 0; d < 4; d++) {
            for (int shape = 0; shape < 3; shape++) {
                /* zeros behind a point in front of the digits, zeros behind them, and no zeros that count */
                bool fraction = shape != 1;
                size_t before = shape == 0 ? zeros[z] : 0, behind = shape == 0 ? 0 : zeros[z];
                if (!fraction && digits[d][0] == '\0')
                    continue;
                for (size_t e = 0; e < MORE; e++) {
                    sprintf(exponent, "%s%s", e % 2 ? "+" : "", more[e]);
                    check_shape(text, before, digits[d], behind, fraction, exponent);
                    sprintf(exponent, "-%s", more[e]);
                    check_shape(text, before, digits[d], behind, fraction, exponent);
                }
                /* around what the zeros weigh, where every exponent gives another number */
                for (int off = -330; off <= 330; off += 30) {
                    sprintf(exponent, "%ld", (shape == 0 ? 1 : -1) * (long)zeros[z] + off);
                    check_shape(text, before, digits[d], behind, fraction, exponent);
                }
            }
        }
    }
    free(text);
}

/* As many digits as read back the same, no fewer, and the nearest of those. */
static void check_shortest(double f)
{
    char digits[BM_DECIMAL_DIGITS_MAX + 1], text[64];
    int exponent = 0, count = bm_decimal_shortest(f, digits, &exponent);
    snprintf(text, sizeof(text), "%se%d", digits, exponent - count + 1);
    test_note("%a is %s", f, text);
    CHECK_UINT(strlen(digits), count);
    CHECK(strtod(text, NULL) == f);
    CHECK(digits[0] != '0' && (count == 1 || digits[count - 1] != '0'));
    char printed[64], fewer[64];
    snprintf(printed, sizeof(printed), "%.*e", count - 1, f);
    bool nearest = atoi(strchr(printed, 'e') + 1) == exponent && printed[0] == digits[0] &&
                   strncmp(printed + 2, digits + 1, (size_t)count - 1) == 0;
    uint64_t bits = bits_of(f);
    CHECK(nearest || bits << 12 == 0 ||
          bits >> 52 == 0); /* below powers of two the nearest may miss */
    if (count > 1) {
        snprintf(fewer, sizeof(fewer), "%.*e", count - 2, f);
        CHECK(strtod(fewer, NULL) != f);
    }
}

TEST(floats_have_the_fewest_digits_that_read_back)
{
    struct test_random random = test_random(0);
    for (int i = 0; i < 60000; i++) {
        uint64_t bits = test_random_next(&random) >> 1;
        double f;
        switch (i % 6) {
        case 0:
            f = (double)(bits >> 40) / 1000;
            break;
        case 1:
            f = (double)(bits % 1000000) * 1e-3;
            break;
        case 2: /* powers of two, and next to them */
            bits = (bits % 2046 + 1) << 52;
            bits += test_random_below(&random, 3) - 1;
            memcpy(&f, &bits, sizeof(f));
            break;
        case 3:
            f = (double)(bits >> (1 + test_random_below(&random, 60)));
            break;
        case 4: /* subnormal */
            bits >>= 11 + test_random_below(&random, 52);
            memcpy(&f, &bits, sizeof(f));
            break;
        default:
            memcpy(&f, &bits, sizeof(f));
        }
        if (isfinite(f) && f > 0)
            check_shortest(f);
    }
}
