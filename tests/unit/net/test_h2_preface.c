#include "net/proto/h2_preface.h"

#include <errno.h>
#include <string.h>

#include "tests/support/test.h"

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static int judge(const char *text, size_t len)
{
    uint8_t bytes[64];
    memcpy(bytes, text, len);
    return bm_h2_is_preface(bytes, len);
}

TEST(h2_preface_is_known_when_it_is_whole)
{
    CHECK_UINT(sizeof(preface) - 1, BM_H2_PREFACE_LEN);
    CHECK_INT(bm_h2_is_preface(NULL, 0), -EAGAIN);
    for (size_t len = 1; len < BM_H2_PREFACE_LEN; len++)
        CHECK_INT(judge(preface, len), -EAGAIN);
    CHECK_INT(judge(preface, BM_H2_PREFACE_LEN), 1);
    CHECK_INT(judge("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", 33), 1);
}

TEST(h2_preface_is_not_taken_for_another)
{
    for (size_t at = 0; at < BM_H2_PREFACE_LEN; at++) {
        char other[BM_H2_PREFACE_LEN];
        memcpy(other, preface, sizeof(other));
        other[at] ^= 1;
        for (size_t len = 1; len <= sizeof(other); len++) {
            test_note("byte %zu of %zu", at, len);
            CHECK_INT(judge(other, len), len <= at ? -EAGAIN : 0); /* as soon as it is there */
        }
    }
    static const char *const others[] = {
        "GET / HTTP/1.1\r\n", "P",           "PR", "PUT /", "PRI * HTTP/1.1",
        "PRI / HTTP/2.0",     "\x16\x03\x01"};
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        test_note("%s", others[i]);
        size_t len = strlen(others[i]);
        CHECK_INT(judge(others[i], len), strncmp(others[i], preface, len) == 0 ? -EAGAIN : 0);
    }
}
