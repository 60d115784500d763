/* What XML takes while it is read: the parser's memory, on whose account, and up to what. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/codec.h>

#include "base/alloc.h"
#include "kv/buffer.h"
#include "tests/support/test.h"

#define PARSER_LEN_EACH 8 /* T15 */
#define PARSER_LEN_FREE (256u << 10)

#define NAMES_LEN_MAX ((size_t)1 << 20)

/* <r> with `count` children, each of a name of its own, as short as may be. */
static size_t write_names(char *text, size_t count)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t len = (size_t)sprintf(text, "<r>");
    for (size_t i = 0; i < count; i++) {
        text[len++] = '<';
        for (size_t n = i + 1; n > 0; n /= 52)
            text[len++] = letters[n % 52];
        len += (size_t)sprintf(text + len, "/>");
    }
    return len + (size_t)sprintf(text + len, "</r>");
}

/* The most that a conversion to kv has on its account beside the result, and its error. */
static int convert_on(struct bm_account *account, const char *text, size_t len, size_t *ret_peak)
{
    beam_buffer out;
    bm_buffer_init(&out, SIZE_MAX, account);
    int r = beam_convert(beam_xml(), &beam_kv_codec, text, len, NULL, &out, NULL);
    size_t cap = out.cap;
    CHECK_UINT(account->used, cap); /* what is left is the result alone */
    *ret_peak = account->peak > cap ? account->peak - cap : 0;
    beam_buffer_deinit(&out);
    CHECK_UINT(account->used, 0);
    return r;
}

TEST(xml_is_parsed_on_the_account_of_the_result)
{
    if (!beam_xml())
        SKIP("built without expat");
    char *text = malloc(NAMES_LEN_MAX);
    struct bm_account account = {0}, parent = {0};
    size_t peak;
    account.parent = &parent;
    size_t len = write_names(text, 1000);
    CHECK_INT(convert_on(&account, text, len, &peak), 0);
    CHECK(peak > 10 * len); /* names that are all new cost more than their text */
    CHECK(parent.peak >= peak);
    CHECK_UINT(parent.used, 0);
    struct bm_account poor = {.limit = 10 * len};
    CHECK_INT(convert_on(&poor, text, len, &peak), -ENOMEM);
    struct bm_account poorest = {.limit = 100};
    CHECK_INT(convert_on(&poorest, text, len, &peak), -ENOMEM);
    free(text);
}

TEST(xml_of_names_that_are_all_new_meets_a_limit)
{
    if (!beam_xml())
        SKIP("built without expat");
    char *text = malloc(NAMES_LEN_MAX);
    struct bm_account account = {0};
    size_t peak, len = write_names(text, 100000);
    CHECK_INT(convert_on(&account, text, len, &peak), -BEAM_ECODEC_TOO_LARGE);
    CHECK(peak <= PARSER_LEN_EACH * len + PARSER_LEN_FREE);
    len = write_names(text, 1000); /* and what follows starts afresh */
    account = (struct bm_account){0};
    CHECK_INT(convert_on(&account, text, len, &peak), 0);
    free(text);
}

/* One token of any kind, just longer than where the parser's blocks double: where they cost most. */
TEST(xml_of_long_tokens_stays_below_the_limit)
{
    static const char *const shapes[][2] = {
        {"<r a=\"", "\"/>"},
        {"<r>", "</r>"},
        {"<", "/>"},
        {"<r ", "=\"\"/>"},
        {"<r><!--", "--></r>"},
        {"<r><![CDATA[", "]]></r>"},
        {"<r><?", "?></r>"},
        {"<kv><str>", "</str></kv>"},
        {"<kv><map><nil k=\"a\"/><nil k64=\"", "\"/></map></kv>"},
    };
    if (!beam_xml())
        SKIP("built without expat");
    char *text = malloc(((size_t)1 << 21) + 100);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        /* keys have a limit of their own */
        bool key = strstr(shapes[i][0], "k64") || strcmp(shapes[i][0], "<r ") == 0;
        for (size_t most = 1 << 10; most <= (key ? 1u << 15 : 1u << 21); most <<= 1) {
            for (size_t n = most - 4; n <= most + 4; n += 4) {
                struct bm_account account = {0};
                size_t peak, len = (size_t)sprintf(text, "%s", shapes[i][0]);
                memset(text + len, 'A', n);
                len += n;
                len += (size_t)sprintf(text + len, "%s", shapes[i][1]);
                test_note("%s and %zu bytes", shapes[i][0], n);
                CHECK_INT(convert_on(&account, text, len, &peak), 0);
            }
        }
    }
    free(text);
}
