/* Base64, both ways: three bytes are four digits. Strict on the way in, so that bytes have one text. */
#include "kv/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The digit's value, or -1. */
static int value_of(uint8_t c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

void bm_base64_encode(char *to, const uint8_t *p, size_t len)
{
    for (; len >= 3; len -= 3, p += 3, to += 4) {
        uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        to[0] = digits[bits >> 18];
        to[1] = digits[bits >> 12 & 63];
        to[2] = digits[bits >> 6 & 63];
        to[3] = digits[bits & 63];
    }
    if (len == 0)
        return;
    uint32_t bits = (uint32_t)p[0] << 16 | (len > 1 ? (uint32_t)p[1] << 8 : 0);
    to[0] = digits[bits >> 18];
    to[1] = digits[bits >> 12 & 63];
    to[2] = len > 1 ? digits[bits >> 6 & 63] : '=';
    to[3] = '=';
}

bool bm_base64_check(const uint8_t *text, size_t len, size_t *ret_len)
{
    if (len % 4 != 0)
        return false;
    size_t padding = len == 0 ? 0 : text[len - 1] != '=' ? 0 : text[len - 2] != '=' ? 1 : 2;
    for (size_t i = 0; i < len - padding; i++)
        if (value_of(text[i]) < 0)
            return false;
    if (padding > 0 && (value_of(text[len - padding - 1]) & (padding == 1 ? 3 : 15)) != 0)
        return false;
    *ret_len = len / 4 * 3 - padding;
    return true;
}

void bm_base64_decode(uint8_t *to, const uint8_t *text, size_t len)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < len && text[i] != '='; i++) {
        bits = bits << 6 | (uint32_t)value_of(text[i]);
        if (i % 4 != 0) /* 6, 12, 18, 24 bits are there: a whole byte from the second digit on */
            *to++ = (uint8_t)(bits >> (6 - 2 * (i % 4)));
    }
}
