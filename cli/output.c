/* Output: messages as text.
 *
 * No value becomes JSON by hand here: each is a kv document, and the library writes that as JSON, by
 * the one set of rules for all of Beam (docs/spec/kv.md K15). */
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the UTF-8 sequence at `text` (Unicode, table 3-7), or 0 when there is none. */
static size_t sequence_len(const unsigned char *text, size_t len)
{
    unsigned char c = text[0], low = 0x80, high = 0xbf;
    size_t want = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (want == 0 || want > len)
        return 0;
    if (c == 0xe0 || c == 0xf0)
        low = c == 0xe0 ? 0xa0 : 0x90; /* overlong below */
    if (c == 0xed || c == 0xf4)
        high = c == 0xed ? 0x9f : 0x8f; /* surrogates, and beyond U+10FFFF */
    for (size_t i = 1; i < want; i++, low = 0x80, high = 0xbf)
        if (text[i] < low || text[i] > high)
            return 0;
    return want;
}

void output_text(FILE *out, beam_str text)
{
    const unsigned char *c = (const unsigned char *)text.ptr, *end = c + text.len;
    while (c < end) {
        size_t len = sequence_len(c, (size_t)(end - c));
        /* U+0080 to U+009F are control characters too: U+009B begins what ESC [ begins. */
        bool control = len == 1 ? *c < ' ' || *c == 0x7f : len == 2 && *c == 0xc2 && c[1] < 0xa0;
        if (*c == '\n')
            fputs("\\n", out);
        else if (*c == '\t')
            fputs("\\t", out);
        else if (control && len == 2)
            fprintf(out, "\\u%04x", c[1]);
        else if (control || len == 0)
            fprintf(out, "\\x%02x", *c);
        else
            fwrite(c, 1, len, out);
        c += len > 0 ? len : 1;
    }
}

/* A document as JSON; the caller frees it. */
static char *to_json(const void *doc, size_t len)
{
    size_t cap = len * BEAM_KV_JSON_EXPANSION + 1, json_len;
    char *json = malloc(cap);
    if (json && beam_kv_to_json(doc, len, json, cap, &json_len) < 0) {
        free(json);
        json = NULL;
    }
    return json;
}

/* One value as JSON, on its own. */
static int print_value(FILE *out, const beam_kv_value *value)
{
    size_t cap = BEAM_METADATA_LEN_MAX, len; /* a part of metadata is shorter than all of it */
    const void *doc;
    void *room = malloc(cap);
    char *json = NULL;
    beam_kv_writer writer;
    if (room) {
        beam_kv_writer_init(&writer, room, cap);
        beam_kv_put(&writer, (beam_str){NULL, 0}, value);
        if (beam_kv_writer_finish(&writer, &doc, &len) >= 0)
            json = to_json(doc, len);
    }
    if (json)
        output_text(out, (beam_str){json, strlen(json)});
    free(json);
    free(room);
    return json ? 0 : -ENOMEM;
}

int output_pairs(FILE *out, const void *metadata, size_t len, char separator)
{
    beam_kv_value map, value;
    beam_kv_iter iter;
    beam_str key;
    int count = 0;
    if (len == 0)
        return 0;
    int r = beam_kv_root(metadata, len, &map);
    if (r < 0)
        return r;
    beam_kv_iter_init(&iter, &map);
    for (; (r = beam_kv_iter_next(&iter, &key, &value)) > 0; count++) {
        if (count > 0)
            fputc(separator, out);
        output_text(out, key);
        if (value.type == BEAM_KV_STR) {
            fputc('=', out);
            output_text(out, value.str);
        } else {
            fputs(":=", out);
            r = print_value(out, &value);
            if (r < 0)
                return r;
        }
    }
    return r < 0 ? r : count;
}

int output_line(FILE *out, const beam_message *message)
{
    size_t len, body_len;
    const void *metadata = beam_message_metadata(message, &len);
    const char *body = beam_message_body(message, &body_len);
    int r = output_pairs(out, metadata, len, ' ');
    if (body_len > 0) {
        fputs(r > 0 ? " body=" : "body=", out);
        output_text(out, (beam_str){body, body_len});
    }
    fputc('\n', out);
    return r;
}

#define VALUE_LEN_MAX 64 /* what a value costs besides its bytes (docs/spec/kv.md K1), generously */

/* A member of an object: ,"key":value. The values are the library's JSON; an object of documents is
 * made here, because a document around documents could be nested deeper than one may be. */
static int put_member(FILE *out, char *separator, const char *key, const void *doc, size_t len)
{
    char *json = to_json(doc, len);
    if (!json)
        return -ENOMEM;
    fprintf(out, "%c\"%s\":%s", *separator, key, json);
    *separator = ',';
    free(json);
    return 0;
}

static int put_uint(FILE *out, char *separator, const char *key, uint64_t number)
{
    char room[VALUE_LEN_MAX];
    const void *doc;
    size_t len;
    beam_kv_writer writer;
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_put_uint(&writer, NULL, number);
    int r = beam_kv_writer_finish(&writer, &doc, &len);
    return r < 0 ? r : put_member(out, separator, key, doc, len);
}

/* As a text, or as bytes where it is none: that is found by trying. */
static int put_bytes(FILE *out, char *separator, const char *key, const void *bytes, size_t len)
{
    size_t cap = len + VALUE_LEN_MAX, doc_len;
    const void *doc;
    beam_kv_writer writer;
    void *room = malloc(cap);
    if (!room)
        return -ENOMEM;
    beam_kv_writer_init(&writer, room, cap);
    beam_kv_put_strn(&writer, NULL, bytes, len);
    int r = beam_kv_writer_finish(&writer, &doc, &doc_len);
    if (r == -BEAM_EKV_UTF8) {
        beam_kv_writer_init(&writer, room, cap);
        beam_kv_put_bytes(&writer, NULL, bytes, len);
        r = beam_kv_writer_finish(&writer, &doc, &doc_len);
    }
    if (r >= 0)
        r = put_member(out, separator, key, doc, doc_len);
    free(room);
    return r;
}

static int end_object(FILE *out, char separator, int r)
{
    if (r >= 0)
        fputs(separator == '{' ? "{}\n" : "}\n", out);
    return r;
}

int output_json(FILE *out, const beam_message *message)
{
    size_t len, body_len;
    const void *metadata = beam_message_metadata(message, &len);
    const void *body = beam_message_body(message, &body_len);
    char separator = '{';
    int r = 0;
    if (body_len > 0)
        r = put_bytes(out, &separator, "body", body, body_len);
    if (r >= 0 && beam_message_codec(message) != 0)
        r = put_uint(out, &separator, "codec", beam_message_codec(message));
    if (r >= 0 && beam_message_fd_count(message) > 0)
        r = put_uint(out, &separator, "fds", beam_message_fd_count(message));
    if (r >= 0 && len > 0)
        r = put_member(out, &separator, "metadata", metadata, len);
    return end_object(out, separator, r);
}

int output_json_error(FILE *out, unsigned code, const void *details, size_t len)
{
    const char *name = beam_code_name(code);
    beam_kv_value map;
    beam_str text = {"", 0};
    if (len > 0 && beam_kv_root(details, len, &map) >= 0)
        (void)beam_kv_get_str(&map, "message", &text);
    char separator = '{';
    int r = put_bytes(out, &separator, "code", name, strlen(name));
    if (r >= 0 && len > 0)
        r = put_member(out, &separator, "details", details, len);
    if (r >= 0)
        r = put_bytes(out, &separator, "message", text.ptr, text.len);
    return end_object(out, separator, r);
}

int output_error(const char *service, unsigned code, const beam_message *details, bool json)
{
    size_t len = 0;
    const void *doc = details ? beam_message_metadata(details, &len) : NULL;
    beam_str text = {"", 0};
    if (details)
        (void)beam_message_get_str(details, "message", &text);
    if (json)
        (void)output_json_error(stdout, code, doc, len);
    fprintf(stderr, "beam: %s: %s", service, beam_code_text(code));
    if (text.len > 0)
        fputs(": ", stderr);
    output_text(stderr, text);
    fputc('\n', stderr);
    return beam_exit_code((int)code, NULL);
}
