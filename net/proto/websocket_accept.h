/* The key of WebSocket's handshake and what proves that it was read (RFC 6455 sections 1.3 and
 * 4.1). */
#ifndef BM_WEBSOCKET_ACCEPT_H
#define BM_WEBSOCKET_ACCEPT_H

#include <stddef.h>

#define BM_WEBSOCKET_KEY_LEN 24u    /* 16 bytes in base 64 */
#define BM_WEBSOCKET_ACCEPT_LEN 28u /* 20 bytes in base 64 */

/* A key of random bytes, terminated. 0 or -EIO: the library for it is broken. */
int bm_websocket_make_key(char ret_key[BM_WEBSOCKET_KEY_LEN + 1]);
/* What a server answers to a key, terminated. 0 or -EIO. */
int bm_websocket_make_accept(const char *key, char ret_accept[BM_WEBSOCKET_ACCEPT_LEN + 1]);

#endif
