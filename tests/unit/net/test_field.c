#include <string.h>

#include "net/proto/field.h"
#include "tests/support/test.h"

TEST(field_lists_are_read_element_by_element)
{
    static const struct {
        const char *value;
        bool there, exactly;
    } rows[] = {
        {"close", true, true},       {"Close", true, false},       {" close\t", true, true},
        {"a,close", true, true},     {"a , close ,b", true, true}, {",,close,", true, true},
        {"", false, false},          {",", false, false},          {"closed", false, false},
        {"clos", false, false},      {"close a", false, false},    {"a close", false, false},
        {"\"close\"", false, false}, {"clo,se", false, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct bm_field fields[] = {BM_FIELD("x", "close"), BM_FIELD("list", rows[i].value)};
        test_note("'%s'", rows[i].value);
        CHECK_INT(bm_field_lists(fields, 2, "list", "close", false), rows[i].there);
        CHECK_INT(bm_field_lists(fields, 2, "list", "close", true), rows[i].exactly);
    }
    struct bm_field both[] = {BM_FIELD("list", "a"), BM_FIELD("List", "b")};
    CHECK(bm_field_lists(both, 2, "list", "b", true)); /* several fields are one list */
    CHECK(!bm_field_lists(both, 2, "list", "a, b", true));
    CHECK_UINT(bm_field_count(both, 2, "list"), 2);
    CHECK_PTR(bm_field_find(both, 2, "list"), both);
    CHECK_PTR(bm_field_find(both, 2, "lis"), NULL);
    CHECK_PTR(bm_field_find(both, 2, "listen"), NULL);
}

TEST(field_names_are_tokens_and_values_are_no_lines)
{
    for (unsigned c = 0; c < 256; c++) {
        char text[3] = {'a', (char)c, 'b'};
        bool token = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c > 0 && strchr("!#$%&'*+-.^_`|~", (int)c));
        test_note("0x%02x", c);
        CHECK_INT(bm_field_is_token_char((unsigned char)c), token);
        CHECK_INT(bm_field_is_name(text, 3), token);
        CHECK_INT(bm_field_is_value(text, 3), c == '\t' || (c >= ' ' && c != 0x7f));
        CHECK_INT(bm_field_is_value(text + 1, 2), c != ' ' && c > ' ' && c != 0x7f);
        CHECK_INT(bm_field_is_value(text, 2), c != ' ' && c > ' ' && c != 0x7f);
    }
    CHECK(!bm_field_is_name("", 0));
    CHECK(bm_field_is_value("", 0));
}
