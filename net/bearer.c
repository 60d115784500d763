/* Where a bearer token stands, and what it may be made of: b64token of RFC 6750 2.1, wherever it came
 * from, so that one token has one spelling. What stands there twice is none. */
#include "net/bearer.h"

#include <errno.h>
#include <string.h>
#include <sys/types.h>

#include "base/alloc.h"

#define PREFIX "beam.token."
#define PREFIX_LEN (sizeof(PREFIX) - 1)
#define ENCODED_MAX ((BM_BEARER_TOKEN_MAX + 2) / 3 * 4)

static bool is_token(const char *text, size_t len)
{
    size_t i = 0;
    for (; i < len; i++) {
        char c = text[i];
        if (!(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') &&
            (c == '\0' || !strchr("-._~+/", c)))
            break;
    }
    size_t chars = i;
    while (i < len && text[i] == '=')
        i++;
    return chars > 0 && i == len;
}

static int accept_token(struct bm_bearer *bearer, const char *text, size_t len)
{
    if (len > BM_BEARER_TOKEN_MAX)
        return -EMSGSIZE;
    if (!is_token(text, len))
        return -EBADMSG;
    bearer->token = (beam_str){text, len};
    return 1;
}

static int read_authorization(struct bm_bearer *bearer, const struct bm_field *fields, size_t count)
{
    const struct bm_field *field = bm_field_find(fields, count, "authorization");
    size_t there = bm_field_count(fields, count, "authorization");
    if (there != 1)
        return there == 0 ? 0 : -EBADMSG;
    size_t scheme = 0;
    while (scheme < field->value_len && field->value[scheme] != ' ')
        scheme++;
    if (!bm_field_same(field->value, scheme, "bearer"))
        return 0;
    size_t at = scheme;
    while (at < field->value_len && field->value[at] == ' ')
        at++;
    return accept_token(bearer, field->value + at, field->value_len - at);
}

static int digit_of(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '-'             ? 62
           : c == '_'             ? 63
                                  : -1;
}

/* base64url without padding (RFC 4648 section 5); returns the length, or -EBADMSG: it is none, or not the
 * one encoding of what it stands for. */
static ssize_t decode(char *to, const char *text, size_t len)
{
    size_t n = 0;
    unsigned bits = 0, value = 0;
    for (size_t i = 0; i < len; i++) {
        int digit = digit_of(text[i]);
        if (digit < 0)
            return -EBADMSG;
        value = (value << 6 | (unsigned)digit) & 0xffff;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            to[n++] = (char)(value >> bits);
        }
    }
    return bits >= 6 || (value & ((1u << bits) - 1)) ? -EBADMSG : (ssize_t)n;
}

static int accept_encoded(struct bm_bearer *bearer, const char *text, size_t len)
{
    if (len > ENCODED_MAX)
        return -EMSGSIZE;
    if (bearer->token.ptr || len == 0)
        return -EBADMSG;
    bearer->decoded_len = len;
    bearer->decoded = (char *)bm_alloc(NULL, len);
    if (!bearer->decoded)
        return -ENOMEM;
    ssize_t n = decode(bearer->decoded, text, len);
    return n < 0 ? (int)n : accept_token(bearer, bearer->decoded, (size_t)n);
}

/* The elements of one list of subprotocols. */
static int read_list(struct bm_bearer *bearer, const char *at, size_t len)
{
    const char *end = at + len;
    int found = 0;
    while (at < end && found >= 0) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *next = comma ? comma + 1 : end, *last = comma ? comma : end;
        while (at < last && (*at == ' ' || *at == '\t'))
            at++;
        while (last > at && (last[-1] == ' ' || last[-1] == '\t'))
            last--;
        size_t n = (size_t)(last - at);
        if (n >= PREFIX_LEN && memcmp(at, PREFIX, PREFIX_LEN) == 0)
            found = accept_encoded(bearer, at + PREFIX_LEN, n - PREFIX_LEN);
        at = next;
    }
    return found;
}

int bm_bearer_find(struct bm_bearer *ret_bearer, const struct bm_field *fields, size_t count)
{
    memset(ret_bearer, 0, sizeof(*ret_bearer));
    int r = read_authorization(ret_bearer, fields, count);
    for (size_t i = 0; i < count && r >= 0; i++)
        if (bm_field_same(fields[i].name, fields[i].name_len, "sec-websocket-protocol")) {
            int found = read_list(ret_bearer, fields[i].value, fields[i].value_len);
            r = found < 0 ? found : r | found;
        }
    return r < 0 ? r : ret_bearer->token.ptr != NULL;
}

void bm_bearer_deinit(struct bm_bearer *bearer)
{
    if (bearer->decoded) {
        explicit_bzero(bearer->decoded, bearer->decoded_len);
        bm_free(NULL, bearer->decoded, bearer->decoded_len);
    }
    memset(bearer, 0, sizeof(*bearer));
}
