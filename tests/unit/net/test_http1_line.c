#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/proto/http1_line.h"
#include "tests/support/test.h"

/* The gate alone: behind it the parser would refuse much of this too. */
#define BAD -EBADMSG
#define ON BM_HTTP1_LINE_GOES_ON
#define WHOLE BM_HTTP1_LINE_WHOLE
#define EMPTY BM_HTTP1_LINE_EMPTY
#define EXTENSION_OF_64 "01234567890123456789012345678901234567890123456789012345678901;x"

static const struct {
    enum bm_http1_line_kind kind;
    int r;
    const char *text;
    size_t len; /* 0: up to the NUL */
} rows[] = {
    {BM_HTTP1_LINE_REQUEST, WHOLE, "GET / HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, WHOLE, "M-SEARCH /\"<>{}|%~ x\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, EMPTY, "\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, ON, "GET / HTTP/1.1\r", 0},
    {BM_HTTP1_LINE_REQUEST, ON, "", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET / HTTP/1.1\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET / HTTP/1.1\rX", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET / HTTP/1.1\r\r", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET /\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, " GET / HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET  / HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET / a HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET / HTTP/1.1 \r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET\t/ HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET /\t HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET /\x7f HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET /\x80 HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "GET /\0 HTTP/1.1\r\n", 17},
    {BM_HTTP1_LINE_REQUEST, BAD, "G@T / HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_REQUEST, BAD, "\nGET", 0},
    {BM_HTTP1_LINE_STATUS, WHOLE, "HTTP/1.1 200 OK then\tthat\xe4\r\n", 0},
    {BM_HTTP1_LINE_STATUS, WHOLE, "HTTP/1.1 200 \r\n", 0},
    {BM_HTTP1_LINE_STATUS, WHOLE, "HTTP/1.1 200\r\n", 0},
    {BM_HTTP1_LINE_STATUS, BAD, "HTTP/1.1\r\n", 0},
    {BM_HTTP1_LINE_STATUS, BAD, "\r\n", 0},
    {BM_HTTP1_LINE_STATUS, BAD, " HTTP/1.1 200\r\n", 0},
    {BM_HTTP1_LINE_STATUS, BAD, "HTTP/1.1 200 O\x01K\r\n", 0},
    {BM_HTTP1_LINE_STATUS, BAD, "HTTP/1.1\t200 OK\r\n", 0},
    {BM_HTTP1_LINE_STATUS, BAD, "HTTP/1.1 200 OK\n", 0},
    {BM_HTTP1_LINE_FIELD, WHOLE, "Name: value: \t \"x\"\xc3\xa4 \r\n", 0},
    {BM_HTTP1_LINE_FIELD, WHOLE, "!#$%&'*+-.^_`|~9:\r\n", 0},
    {BM_HTTP1_LINE_FIELD, EMPTY, "\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Name : value\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Name\t: value\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, " folded\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "\tfolded: yes\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, ": value\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Name\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Na(me: value\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Na\x80me: value\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Na\0me: value\r\n", 14},
    {BM_HTTP1_LINE_FIELD, BAD, "Name: val\0ue\r\n", 14},
    {BM_HTTP1_LINE_FIELD, BAD, "Name: val\x7fue\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Name: val\x0bue\r\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Name: value\n", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "Name: value\rX", 0},
    {BM_HTTP1_LINE_FIELD, BAD, "\n", 0},
    {BM_HTTP1_LINE_CHUNK, WHOLE, "0\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, WHOLE, "0aF9bCdE\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, WHOLE, "1;\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, WHOLE, "1;a = \"b\xe4\t\"\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "123456789\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, ";x\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "g\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "-1\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "0x1\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, " 1\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "1 \r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "1 ;x\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "1;x\x01\r\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "1;x\n", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "1\rx", 0},
    {BM_HTTP1_LINE_CHUNK, BAD, "1\n", 0},
    {BM_HTTP1_LINE_CHUNK_END, EMPTY, "\r\n", 0},
    {BM_HTTP1_LINE_CHUNK_END, ON, "\r", 0},
    {BM_HTTP1_LINE_CHUNK_END, BAD, "\n", 0},
    {BM_HTTP1_LINE_CHUNK_END, BAD, "\r\r", 0},
    {BM_HTTP1_LINE_CHUNK_END, BAD, "x\r\n", 0},
    {BM_HTTP1_LINE_CHUNK_END, BAD, " \r\n", 0},
};

/* What comes of bytes in pieces; they are of no one's business behind the line. */
static int scan(enum bm_http1_line_kind kind, const char *text, size_t len, size_t piece,
                size_t *ret_used)
{
    struct bm_http1_line line = {.kind = kind};
    int r = ON;
    *ret_used = 0;
    for (size_t at = 0; at < len && r == ON;) {
        size_t n = len - at < piece ? len - at : piece, used = 0;
        r = bm_http1_line_scan(&line, (const uint8_t *)text + at, n, &used);
        at += used;
        *ret_used = at;
    }
    return r;
}

TEST(http1_lines_are_what_they_may_be)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t len = rows[i].len ? rows[i].len : strlen(rows[i].text), used;
        char *text = malloc(len + 4);
        memcpy(text, rows[i].text, len);
        memcpy(text + len, "A\r\n", 4);
        for (size_t piece = 1; piece < 100; piece += 98) {
            size_t behind = rows[i].r > 0 ? 3 : 0;
            test_note("row %zu, %s, pieces of %zu", i, rows[i].text, piece);
            CHECK_INT(scan(rows[i].kind, text, len + behind, piece, &used), rows[i].r);
            if (rows[i].r >= 0)
                CHECK_UINT(used, len);
        }
        free(text);
    }
}

TEST(http1_extensions_of_a_chunk_have_a_limit)
{
    size_t used;
    char text[300] = "1;" EXTENSION_OF_64 EXTENSION_OF_64 EXTENSION_OF_64 EXTENSION_OF_64;
    strcpy(text + 1 + BM_HTTP1_EXTENSION_MAX, "\r\n");
    CHECK_INT(scan(BM_HTTP1_LINE_CHUNK, text, strlen(text), 300, &used), WHOLE);
    strcpy(text + 1 + BM_HTTP1_EXTENSION_MAX, "x\r\n");
    CHECK_INT(scan(BM_HTTP1_LINE_CHUNK, text, strlen(text), 300, &used), BAD);
}
