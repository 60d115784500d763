/* What a client of HTTP/2 says first (RFC 9113 section 3.4), for who has to tell it from a request
 * of HTTP/1.1 on a connection where nothing was agreed on: HTTP/2 with prior knowledge. A pure
 * function. */
#ifndef BM_H2_PREFACE_H
#define BM_H2_PREFACE_H

#include <stddef.h>
#include <stdint.h>

#define BM_H2_PREFACE_LEN 24u /* bytes */

/* Whether the bytes that a connection begins with are the preface, perhaps with more behind it. 1:
 * they are; 0: they are not, and will not become it; -EAGAIN: more of them are needed. No request
 * of HTTP/1.1 is taken for one: its version stands where the preface has 2.0. */
int bm_h2_is_preface(const uint8_t *bytes, size_t len);

#endif
