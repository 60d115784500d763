/* UTF-8 as of RFC 3629: no surrogates, no overlong forms, nothing above U+10FFFF. */
#ifndef BM_UTF8_H
#define BM_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A word without these is eight characters of ASCII. */
#define BM_UTF8_HIGH_BITS UINT64_C(0x8080808080808080)

/* ptr may be NULL when len is 0. Reads nothing outside ptr[0..len). */
bool bm_utf8_valid(const void *ptr, size_t len);

#endif
