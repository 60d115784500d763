/* See accept.h. */
#include "net/accept.h"

#include <string.h>

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static beam_str trim(beam_str text)
{
    while (text.len > 0 && is_blank(text.ptr[0]))
        text = (beam_str){text.ptr + 1, text.len - 1};
    while (text.len > 0 && is_blank(text.ptr[text.len - 1]))
        text.len--;
    return text;
}

/* What stands before the first c that is not quoted, taken off the front of *rest with it. */
static beam_str take_until(beam_str *rest, char c)
{
    bool quoted = false;
    size_t i = 0;
    if (rest->len == 0)
        return (beam_str){0};
    for (; i < rest->len; i++) {
        if (rest->ptr[i] == '"')
            quoted = !quoted;
        else if (quoted && rest->ptr[i] == '\\')
            i++;
        else if (!quoted && rest->ptr[i] == c)
            break;
    }
    i = i < rest->len ? i : rest->len;
    beam_str taken = {rest->ptr, i};
    size_t used = i < rest->len ? i + 1 : i;
    *rest = (beam_str){rest->ptr + used, rest->len - used};
    return trim(taken);
}

/* 0, 1, 0.5, 1.000; above 1000: none. */
static unsigned read_quality(beam_str text)
{
    const unsigned none = 1001;
    if (text.len == 0 || text.len > 5 || (text.ptr[0] != '0' && text.ptr[0] != '1') ||
        (text.len > 1 && text.ptr[1] != '.'))
        return none;
    unsigned quality = (unsigned)(text.ptr[0] - '0') * 1000;
    unsigned unit = 100;
    for (size_t i = 2; i < text.len; i++, unit /= 10) {
        if (text.ptr[i] < '0' || text.ptr[i] > '9')
            return none;
        quality += (unsigned)(text.ptr[i] - '0') * unit;
    }
    return quality;
}

/* How closely a range fits a type: 0 not, 1 all types, 2 all of its kind, 3 it alone. */
static unsigned fit(beam_str range, const char *type)
{
    const char *slash = strchr(type, '/');
    size_t kind = slash ? (size_t)(slash - type) + 1 : 0;
    if (range.len == 3 && memcmp(range.ptr, "*/*", 3) == 0)
        return 1;
    if (kind > 0 && range.len == kind + 1 && range.ptr[kind] == '*' &&
        strncasecmp(range.ptr, type, kind) == 0)
        return 2;
    return bm_field_same(range.ptr, range.len, type) ? 3 : 0;
}

struct bm_accept bm_accept_find(const struct bm_field *fields, size_t count, const char *type)
{
    struct bm_accept best = {0};
    unsigned closest = 0, place = 0;
    bool any = false;
    for (size_t i = 0; i < count; i++) {
        if (!bm_field_same(fields[i].name, fields[i].name_len, "accept"))
            continue;
        any = true;
        beam_str list = {fields[i].value, fields[i].value_len};
        while (list.len > 0) {
            beam_str entry = take_until(&list, ',');
            beam_str range = take_until(&entry, ';');
            unsigned quality = 1000;
            while (entry.len > 0) {
                beam_str parameter = take_until(&entry, ';');
                if (parameter.len > 2 && (parameter.ptr[0] | 0x20) == 'q' &&
                    parameter.ptr[1] == '=')
                    quality = read_quality((beam_str){parameter.ptr + 2, parameter.len - 2});
            }
            unsigned closeness = quality <= 1000 ? fit(range, type) : 0;
            if (closeness > closest) {
                closest = closeness;
                best = (struct bm_accept){quality, place, closeness == 3};
            }
            place++;
        }
    }
    return any ? best : (struct bm_accept){.quality = 1000};
}

bool bm_accept_is_anything(const struct bm_field *fields, size_t count)
{
    const struct bm_field *accept = bm_field_find(fields, count, "accept");
    return !accept || (accept->value_len == 3 && memcmp(accept->value, "*/*", 3) == 0 &&
                       bm_field_count(fields, count, "accept") == 1);
}

beam_str bm_accept_type_of(beam_str content_type)
{
    return take_until(&content_type, ';');
}
