/* Six bits in a character, the highest first; the last has two of them. */
#include "net/base64url.h"

#include <string.h>

void bm_base64url_128(const uint8_t bytes[16], char ret[BM_BASE64URL_128_LEN + 1])
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    uint8_t all[18] = {0};
    memcpy(all, bytes, 16);
    for (unsigned i = 0; i < BM_BASE64URL_128_LEN; i++) {
        unsigned bit = i * 6;
        unsigned pair = (unsigned)all[bit / 8] << 8 | all[bit / 8 + 1];
        ret[i] = digits[pair >> (10 - bit % 8) & 63];
    }
    ret[BM_BASE64URL_128_LEN] = '\0';
}
