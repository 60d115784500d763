/* Lines of HTTP/1 as a gate in front of the parser: what a recipient may read in two ways does not
 * come through. */
#ifndef BM_HTTP1_LINE_H
#define BM_HTTP1_LINE_H

#include <stddef.h>
#include <stdint.h>

#define BM_HTTP1_CHUNK_DIGITS_MAX 8u /* 4 GiB; what more could be is over every limit of a body */
#define BM_HTTP1_EXTENSION_MAX 256u  /* bytes of extensions of one chunk: nobody here reads them */

enum bm_http1_line_kind {
    BM_HTTP1_LINE_REQUEST,   /* method SP target SP version */
    BM_HTTP1_LINE_STATUS,    /* version SP code SP reason */
    BM_HTTP1_LINE_FIELD,     /* name ":" value; of a head or of trailers */
    BM_HTTP1_LINE_CHUNK,     /* digits of base 16 [";" extensions] */
    BM_HTTP1_LINE_CHUNK_END, /* nothing: behind the bytes of a chunk */
};

/* What is known of the line so far. Zeroed but for its kind it is at its beginning. */
struct bm_http1_line {
    enum bm_http1_line_kind kind;
    uint8_t state;
    uint8_t blanks;      /* spaces in a request's or a status line */
    uint8_t digits;      /* of a chunk's length */
    uint32_t len;        /* all of its bytes so far */
    uint32_t extensions; /* bytes behind the digits */
};

enum {
    BM_HTTP1_LINE_GOES_ON = 0,
    BM_HTTP1_LINE_WHOLE = 1,
    BM_HTTP1_LINE_EMPTY = 2, /* whole, with nothing in it; only for kinds that may be */
};

/* Looks at bytes up to the end of the line; *ret_used of them belong to it and are good. Returns
 * one of the three above, or -EBADMSG: not such a line. Every line ends with CR LF, and neither is
 * anywhere else; no NUL or other control character (RFC 9112 section 2.2); no blank before a colon
 * (5.1); no line that begins with a blank (5.2); a request line has two spaces (3). The first line
 * of a request may be EMPTY, a status line not. */
int bm_http1_line_scan(struct bm_http1_line *line, const uint8_t *bytes, size_t len,
                       size_t *ret_used);

#endif
