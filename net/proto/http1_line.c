/* One byte after the other through a small state machine.
 *
 * Model: the parser behind it is lenient in places (8.1.0 takes "Host : a", folded lines, a lone
 * CR), and another one in front of us may be lenient in others; smuggling lives on the difference.
 * So what the standard lets a recipient choose is refused here, before either can choose. What the
 * parts of a line mean is the parser's business.
 *
 * It keeps no bytes and has no limit on a line's length: `len` is for whoever has one. */
#include "net/proto/http1_line.h"

#include <errno.h>
#include <stdbool.h>

#include "net/proto/field.h"

enum state {
    START, /* nothing yet */
    FIRST, /* the first part: method, version, name, digits */
    REST,  /* behind the first space, colon or semicolon */
    LF,    /* after CR */
};

static bool is_digit16(uint8_t c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

static bool is_graph(uint8_t c)
{
    return c > ' ' && c < 0x7f;
}

/* Of a value, a reason or an extension: blanks and whatever is no control character (RFC 9110
 * section 5.5). */
static bool is_text(uint8_t c)
{
    return (c >= ' ' && c != 0x7f) || c == '\t';
}

/* Each returns whether c may stand there, and sets the next state. */
static bool take_request(struct bm_http1_line *line, uint8_t c)
{
    if (c == ' ') {
        line->blanks++;
        bool allowed = line->state != START && line->blanks <= 2;
        line->state = REST;
        return allowed;
    }
    if (line->state == REST)
        return is_graph(c);
    line->state = FIRST;
    return bm_field_is_token_char(c);
}

static bool take_status(struct bm_http1_line *line, uint8_t c)
{
    if (c == ' ' && line->blanks < 2) {
        line->blanks++;
        bool allowed = line->state != START;
        line->state = REST;
        return allowed;
    }
    line->state = line->state == START ? FIRST : line->state;
    return line->blanks == 2 ? is_text(c) : is_graph(c);
}

static bool take_field(struct bm_http1_line *line, uint8_t c)
{
    if (line->state == REST)
        return is_text(c);
    if (c == ':') {
        bool allowed = line->state == FIRST;
        line->state = REST;
        return allowed;
    }
    line->state = FIRST;
    return bm_field_is_token_char(c);
}

static bool take_chunk(struct bm_http1_line *line, uint8_t c)
{
    if (line->state == REST)
        return ++line->extensions <= BM_HTTP1_EXTENSION_MAX && is_text(c);
    if (c == ';') {
        bool allowed = line->state == FIRST;
        line->state = REST;
        line->extensions++;
        return allowed;
    }
    line->state = FIRST;
    return ++line->digits <= BM_HTTP1_CHUNK_DIGITS_MAX && is_digit16(c);
}

/* Whether the line may end where it is. */
static bool may_end(const struct bm_http1_line *line)
{
    switch (line->kind) {
    case BM_HTTP1_LINE_REQUEST:
        return line->state == START || line->blanks == 2;
    case BM_HTTP1_LINE_STATUS:
        return line->blanks > 0;
    case BM_HTTP1_LINE_FIELD:
        return line->state != FIRST;
    case BM_HTTP1_LINE_CHUNK:
        return line->state != START;
    case BM_HTTP1_LINE_CHUNK_END:
        break;
    }
    return true;
}

static bool take(struct bm_http1_line *line, uint8_t c)
{
    switch (line->kind) {
    case BM_HTTP1_LINE_REQUEST:
        return take_request(line, c);
    case BM_HTTP1_LINE_STATUS:
        return take_status(line, c);
    case BM_HTTP1_LINE_FIELD:
        return take_field(line, c);
    case BM_HTTP1_LINE_CHUNK:
        return take_chunk(line, c);
    case BM_HTTP1_LINE_CHUNK_END:
        break;
    }
    return false;
}

int bm_http1_line_scan(struct bm_http1_line *line, const uint8_t *bytes, size_t len,
                       size_t *ret_used)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t c = bytes[i];
        line->len++;
        if (line->state == LF) {
            if (c != '\n')
                return -EBADMSG;
            *ret_used = i + 1;
            return line->len == 2 ? BM_HTTP1_LINE_EMPTY : BM_HTTP1_LINE_WHOLE;
        }
        if (c == '\r') {
            if (!may_end(line))
                return -EBADMSG;
            line->state = LF;
        } else if (!take(line, c)) {
            return -EBADMSG;
        }
    }
    *ret_used = len;
    return BM_HTTP1_LINE_GOES_ON;
}
