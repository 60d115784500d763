/* SHA-1 and base 64 of wolfCrypt, which is there anyway; no cryptography of our own. SHA-1 protects
 * nothing here: it shows that the other end is no server of something else that repeats what it is
 * sent. */
#include "net/proto/websocket_accept.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include <wolfssl/options.h>
#include <wolfssl/wolfcrypt/coding.h>
#include <wolfssl/wolfcrypt/hash.h>

#include "base/clock.h"

#define GUID "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" /* RFC 6455 section 1.3 */

static int encode(const uint8_t *bytes, size_t len, char *ret_text, size_t text_len)
{
    word32 out_len = (word32)text_len + 1;
    if (Base64_Encode_NoNl(bytes, (word32)len, (uint8_t *)ret_text, &out_len) != 0 ||
        out_len < text_len)
        return -EIO;
    ret_text[text_len] = '\0';
    return 0;
}

int bm_websocket_make_key(char ret_key[BM_WEBSOCKET_KEY_LEN + 1])
{
    uint8_t bytes[16];
    bm_random(bytes, sizeof(bytes));
    return encode(bytes, sizeof(bytes), ret_key, BM_WEBSOCKET_KEY_LEN);
}

int bm_websocket_make_accept(const char *key, char ret_accept[BM_WEBSOCKET_ACCEPT_LEN + 1])
{
    uint8_t text[BM_WEBSOCKET_KEY_LEN + sizeof(GUID) - 1];
    uint8_t digest[WC_SHA_DIGEST_SIZE];
    memcpy(text, key, BM_WEBSOCKET_KEY_LEN);
    memcpy(text + BM_WEBSOCKET_KEY_LEN, GUID, sizeof(GUID) - 1);
    if (wc_ShaHash(text, sizeof(text), digest) != 0)
        return -EIO;
    return encode(digest, sizeof(digest), ret_accept, BM_WEBSOCKET_ACCEPT_LEN);
}
