/* A reader for one shape of JSON: [ {"name": "string" | integer | null, ...}, ... ]. Strings are
 * decoded in place (an escape is never shorter than what it stands for), so the text stays alive
 * with them. */
#include "tests/support/vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cursor {
    const char *file, *start;
    char *pos;
};

__attribute__((noreturn)) static void wrong(const struct cursor *c, const char *what)
{
    int line = 1;
    for (const char *p = c->start; p < c->pos; p++)
        line += *p == '\n';
    fprintf(stderr, "%s:%d: %s\n", c->file, line, what);
    abort();
}

static char next(struct cursor *c)
{
    c->pos += strspn(c->pos, " \n");
    return *c->pos;
}

static bool take(struct cursor *c, char wanted)
{
    if (next(c) != wanted)
        return false;
    c->pos++;
    return true;
}

static void expect(struct cursor *c, char wanted)
{
    if (!take(c, wanted)) {
        char text[] = "expected ' '";
        text[10] = wanted;
        wrong(c, text);
    }
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef", *p = c ? strchr(digits, c) : NULL;
    return p ? (int)(p - digits) : -1;
}

static unsigned take_u16(struct cursor *c)
{
    unsigned code = 0;
    for (int i = 0; i < 4; i++) {
        int digit = hex_digit(*c->pos);
        if (digit < 0)
            wrong(c, "expected four lower-case hexadecimal digits");
        code = code << 4 | (unsigned)digit;
        c->pos++;
    }
    return code;
}

/* pos is behind "\u". */
static char *put_escaped(struct cursor *c, char *out)
{
    unsigned code = take_u16(c);
    if (code >= 0xd800 && code < 0xdc00) {
        if (c->pos[0] != '\\' || c->pos[1] != 'u')
            wrong(c, "half a surrogate pair");
        c->pos += 2;
        code = 0x10000 + ((code - 0xd800) << 10) + (take_u16(c) - 0xdc00);
    }
    if (code == 0)
        wrong(c, "U+0000 in a string: strings here are C strings");
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
        *out++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *out++ = (char)(0xe0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    } else {
        *out++ = (char)(0xf0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 63));
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    }
    return out;
}

static char *take_string(struct cursor *c)
{
    expect(c, '"');
    char *start = c->pos, *out = start;
    while (*c->pos != '"') {
        if ((unsigned char)*c->pos < 0x20)
            wrong(c, "string without an end");
        if (*c->pos != '\\') {
            *out++ = *c->pos++;
            continue;
        }
        static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
        char letter = *++c->pos;
        const char *p = letter ? strchr(from, letter) : NULL;
        c->pos++;
        if (p)
            *out++ = to[p - from];
        else if (letter == 'u')
            out = put_escaped(c, out);
        else
            wrong(c, "unknown escape");
    }
    c->pos++;
    *out = '\0';
    return start;
}

static void take_member(struct cursor *c, struct vector *v)
{
    if (v->count == VECTOR_MEMBERS_MAX)
        wrong(c, "too many members");
    char *name = take_string(c);
    for (size_t i = 0; i < v->count; i++)
        if (strcmp(v->members[i].name, name) == 0)
            wrong(c, "member twice");
    v->members[v->count].name = name;
    expect(c, ':');
    char first = next(c);
    if (first == '"') {
        v->members[v->count].str = take_string(c);
    } else if (strncmp(c->pos, "null", 4) == 0) {
        c->pos += 4;
    } else if (first == '-' || (first >= '0' && first <= '9')) {
        v->members[v->count].is_number = true;
        v->members[v->count].number = strtoll(c->pos, &c->pos, 10);
    } else {
        wrong(c, "expected a string, an integer or null");
    }
    v->count++;
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "re");
    if (!f) {
        perror(path);
        abort();
    }
    fseek(f, 0, SEEK_END);
    size_t len = (size_t)ftell(f);
    rewind(f);
    char *text = malloc(len + 1);
    if (!text || fread(text, 1, len, f) != len || memchr(text, '\0', len)) {
        fprintf(stderr, "%s: cannot be read, or holds a NUL\n", path);
        abort();
    }
    fclose(f);
    text[len] = '\0';
    return text;
}

void vectors_load(const char *file, struct vectors *ret)
{
    char path[4096];
    const char *root = getenv("BEAM_SOURCE_DIR"); /* this file: ROOT/tests/support/vectors.c */
    if (root)
        snprintf(path, sizeof(path), "%s/tests/vectors/%s", root, file);
    else
        snprintf(path, sizeof(path), "%.*s../vectors/%s",
                 (int)(strrchr(__FILE__, '/') + 1 - __FILE__), __FILE__, file);

    *ret = (struct vectors){.text = read_file(path)};
    struct cursor c = {.file = path, .start = ret->text, .pos = ret->text};
    expect(&c, '[');
    do {
        if ((ret->count & (ret->count - 1)) == 0) { /* a power of two is full; so is 0 */
            size_t room = ret->count ? 2 * ret->count : 1;
            ret->items = realloc(ret->items, room * sizeof(*ret->items));
            if (!ret->items)
                abort();
        }
        struct vector *v = &ret->items[ret->count++];
        memset(v, 0, sizeof(*v));
        expect(&c, '{');
        do
            take_member(&c, v);
        while (take(&c, ','));
        expect(&c, '}');
    } while (take(&c, ','));
    expect(&c, ']');
    if (next(&c) != '\0')
        wrong(&c, "text behind the array");
}

void vectors_free(struct vectors *vectors)
{
    free(vectors->items);
    free(vectors->text);
    *vectors = (struct vectors){0};
}

const char *vector_str(const struct vector *v, const char *name)
{
    for (size_t i = 0; i < v->count; i++)
        if (strcmp(v->members[i].name, name) == 0 && !v->members[i].is_number)
            return v->members[i].str;
    fprintf(stderr, "vector without a string member \"%s\"\n", name);
    abort();
}

int64_t vector_int(const struct vector *v, const char *name, int64_t otherwise)
{
    for (size_t i = 0; i < v->count; i++)
        if (strcmp(v->members[i].name, name) == 0 && v->members[i].is_number)
            return v->members[i].number;
    return otherwise;
}

uint8_t *vector_hex(const struct vector *v, const char *name, size_t *ret_len)
{
    const char *hex = vector_str(v, name);
    uint8_t *bytes = hex ? malloc(strlen(hex) / 2 + 1) : NULL;
    size_t digits = 0;
    for (; bytes && *hex; hex++) {
        if (*hex == ' ')
            continue;
        int digit = hex_digit(*hex);
        if (digit < 0)
            break;
        bytes[digits / 2] = (uint8_t)(digits % 2 ? bytes[digits / 2] << 4 | digit : digit);
        digits++;
    }
    if (!bytes || *hex || digits % 2) {
        fprintf(stderr, "member \"%s\" is not a string of hexadecimal digits\n", name);
        abort();
    }
    *ret_len = digits / 2;
    return bytes;
}
