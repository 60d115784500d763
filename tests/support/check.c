/* The typed checks: each compares, and says both values when it fails. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/test.h"

#define TEXT_MAX 512 /* of one failure; longer strings are cut */
#define DUMP_LEN 16  /* bytes shown from the first difference on */

void test_check_int(long long actual, long long expected, const char *actual_expr,
                    const char *expected_expr, struct test_at at, bool required)
{
    char text[TEXT_MAX];
    if (actual != expected)
        snprintf(text, sizeof(text), "%s is %lld, expected %s = %lld", actual_expr, actual,
                 expected_expr, expected);
    test_check(actual == expected, text, at, required);
}

void test_check_uint(unsigned long long actual, unsigned long long expected,
                     const char *actual_expr, const char *expected_expr, struct test_at at,
                     bool required)
{
    char text[TEXT_MAX];
    if (actual != expected)
        snprintf(text, sizeof(text), "%s is %llu (0x%llx), expected %s = %llu (0x%llx)",
                 actual_expr, actual, actual, expected_expr, expected, expected);
    test_check(actual == expected, text, at, required);
}

void test_check_ptr(const void *actual, const void *expected, const char *actual_expr,
                    const char *expected_expr, struct test_at at, bool required)
{
    char text[TEXT_MAX];
    if (actual != expected)
        snprintf(text, sizeof(text), "%s is %p, expected %s = %p", actual_expr, actual,
                 expected_expr, expected);
    test_check(actual == expected, text, at, required);
}

void test_check_str(const char *actual, const char *expected, const char *actual_expr,
                    const char *expected_expr, struct test_at at, bool required)
{
    bool same = actual && expected ? strcmp(actual, expected) == 0 : actual == expected;
    char text[TEXT_MAX];
    if (!same)
        snprintf(text, sizeof(text), "%s is \"%.150s\", expected %s = \"%.150s\"", actual_expr,
                 actual ? actual : "(null)", expected_expr, expected ? expected : "(null)");
    test_check(same, text, at, required);
}

static void dump(char *out, size_t out_len, const unsigned char *p, size_t len, size_t from)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = from; i < len && i < from + DUMP_LEN && used + 4 < out_len; i++)
        used += (size_t)snprintf(out + used, out_len - used, "%02x ", p[i]);
    for (size_t i = from; i < len && i < from + DUMP_LEN && used + 2 < out_len; i++) {
        out[used++] = isprint(p[i]) ? (char)p[i] : '.';
        out[used] = '\0';
    }
    if (used == 0)
        snprintf(out, out_len, "(ends)");
}

void test_check_mem(const void *a, size_t a_len, const void *b, size_t b_len, const char *a_expr,
                    const char *b_expr, struct test_at at, bool required)
{
    const unsigned char *pa = a, *pb = b;
    size_t i = 0;
    while (i < a_len && i < b_len && pa[i] == pb[i])
        i++;
    bool same = i == a_len && i == b_len;
    char text[TEXT_MAX];
    if (!same) {
        char dump_a[DUMP_LEN * 4 + 8], dump_b[DUMP_LEN * 4 + 8];
        dump(dump_a, sizeof(dump_a), pa, a_len, i);
        dump(dump_b, sizeof(dump_b), pb, b_len, i);
        snprintf(text, sizeof(text),
                 "%.80s (%zu bytes) and %.80s (%zu bytes) differ at byte %zu:\n"
                 "        %s\n        %s",
                 a_expr, a_len, b_expr, b_len, i, dump_a, dump_b);
    }
    test_check(same, text, at, required);
}
