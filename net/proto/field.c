/* Fields of HTTP: which bytes they may have, and how lists in them are read.
 *
 * Model: a list is elements between commas, each without the blanks around it; empty elements are
 * passed over, as RFC 9110 section 5.6.1.2 wants of a recipient. Quoted strings are not understood
 * here: the lists that are asked for (Connection, Upgrade, Sec-WebSocket-Protocol) have tokens
 * only, and a quote is part of no token. */
#include "net/proto/field.h"

#include <stdint.h>
#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static unsigned char lower(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

bool bm_field_is_token_char(unsigned char c)
{
    /* A bit for each: digits, letters, and !#$%&'*+-.^_`|~ */
    static const uint64_t chars[4] = {0x03ff6cfa00000000, 0x57ffffffc7fffffe, 0, 0};
    return chars[c >> 6] >> (c & 63) & 1;
}

bool bm_field_is_name(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!bm_field_is_token_char((unsigned char)name[i]))
            return false;
    return len > 0;
}

bool bm_field_is_value(const char *value, size_t len)
{
    if (len > 0 && (is_blank(value[0]) || is_blank(value[len - 1])))
        return false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)value[i];
        if ((c < ' ' && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

bool bm_field_same(const char *a, size_t a_len, const char *b)
{
    if (strlen(b) != a_len) /* most that differ do, and media types begin alike */
        return false;
    for (size_t i = 0; i < a_len; i++)
        if (lower((unsigned char)a[i]) != lower((unsigned char)b[i]))
            return false;
    return true;
}

static bool has_name(const struct bm_field *field, const char *name)
{
    return bm_field_same(field->name, field->name_len, name);
}

const struct bm_field *bm_field_find(const struct bm_field *fields, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (has_name(&fields[i], name))
            return &fields[i];
    return NULL;
}

size_t bm_field_count(const struct bm_field *fields, size_t count, const char *name)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++)
        found += has_name(&fields[i], name);
    return found;
}

static bool value_lists(const struct bm_field *field, const char *token, bool exact)
{
    const char *end = field->value + field->value_len;
    for (const char *from = field->value; from < end;) {
        const char *comma = memchr(from, ',', (size_t)(end - from));
        const char *to = comma ? comma : end;
        const char *next = comma ? comma + 1 : end;
        while (from < to && is_blank(*from))
            from++;
        while (to > from && is_blank(to[-1]))
            to--;
        size_t len = (size_t)(to - from);
        if (exact ? len == strlen(token) && memcmp(from, token, len) == 0
                  : bm_field_same(from, len, token))
            return true;
        from = next;
    }
    return false;
}

bool bm_field_lists(const struct bm_field *fields, size_t count, const char *name,
                    const char *token, bool exact)
{
    for (size_t i = 0; i < count; i++)
        if (has_name(&fields[i], name) && value_lists(&fields[i], token, exact))
            return true;
    return false;
}
