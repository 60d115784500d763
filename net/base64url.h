/* 128 bits as text: base64url without padding (RFC 4648 section 5), for ids and tokens in fields of HTTP. */
#ifndef BM_BASE64URL_H
#define BM_BASE64URL_H

#include <stdint.h>

#define BM_BASE64URL_128_LEN 22u

/* With a zero byte behind it. */
void bm_base64url_128(const uint8_t bytes[16], char ret[BM_BASE64URL_128_LEN + 1]);

#endif
