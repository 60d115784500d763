/* Output: messages as text.
 *
 * JSON is never put together here by hand: the answer becomes one kv document, and the library
 * writes that as JSON, by the one set of rules for all of Beam (docs/spec/kv.md K15). */
#include "cli/output.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void output_text(FILE *out, beam_str text)
{
    for (size_t i = 0; i < text.len; i++) {
        unsigned char c = (unsigned char)text.ptr[i];
        if (c == '\n')
            fputs("\\n", out);
        else if (c == '\t')
            fputs("\\t", out);
        else if (c < ' ' || c == 0x7f)
            fprintf(out, "\\x%02x", c);
        else
            fputc(c, out);
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
        fputs(json, out);
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

static void put_map(beam_kv_writer *writer, const char *key, const void *doc, size_t len)
{
    beam_kv_value map;
    if (len > 0 && beam_kv_root(doc, len, &map) >= 0)
        beam_kv_put(writer, (beam_str){key, strlen(key)}, &map);
}

/* Whether a body is text is found by trying to put it as one. */
static int write_message(beam_kv_writer *writer, const beam_message *message, bool as_text,
                         const void **ret_doc, size_t *ret_len)
{
    size_t len, body_len;
    const void *metadata = beam_message_metadata(message, &len);
    const void *body = beam_message_body(message, &body_len);
    beam_kv_begin_map(writer, NULL);
    if (body_len > 0 && as_text)
        beam_kv_put_strn(writer, "body", body, body_len);
    else if (body_len > 0)
        beam_kv_put_bytes(writer, "body", body, body_len);
    if (beam_message_codec(message) != 0)
        beam_kv_put_uint(writer, "codec", beam_message_codec(message));
    if (beam_message_fd_count(message) > 0)
        beam_kv_put_uint(writer, "fds", beam_message_fd_count(message));
    put_map(writer, "metadata", metadata, len);
    beam_kv_end(writer);
    return beam_kv_writer_finish(writer, ret_doc, ret_len);
}

static int print_document(FILE *out, const void *doc, size_t len)
{
    char *json = to_json(doc, len);
    if (!json)
        return -ENOMEM;
    fputs(json, out);
    fputc('\n', out);
    free(json);
    return 0;
}

#define FRAME_LEN_MAX 256 /* keys and numbers around metadata and body, generously */

int output_json(FILE *out, const beam_message *message)
{
    size_t len, body_len, doc_len;
    (void)beam_message_metadata(message, &len);
    (void)beam_message_body(message, &body_len);
    size_t cap = len + body_len + FRAME_LEN_MAX;
    void *room = malloc(cap);
    if (!room)
        return -ENOMEM;
    const void *doc;
    beam_kv_writer writer;
    beam_kv_writer_init(&writer, room, cap);
    int r = write_message(&writer, message, true, &doc, &doc_len);
    if (r == -BEAM_EKV_UTF8) {
        beam_kv_writer_init(&writer, room, cap);
        r = write_message(&writer, message, false, &doc, &doc_len);
    }
    if (r >= 0)
        r = print_document(out, doc, doc_len);
    free(room);
    return r;
}

int output_json_error(FILE *out, unsigned code, const void *details, size_t len)
{
    size_t cap = 2 * len + FRAME_LEN_MAX; /* the message stands there twice */
    void *room = malloc(cap);
    if (!room)
        return -ENOMEM;
    beam_kv_value map;
    beam_str text = {"", 0};
    if (len > 0 && beam_kv_root(details, len, &map) >= 0)
        (void)beam_kv_get_str(&map, "message", &text);
    const void *doc;
    size_t doc_len;
    beam_kv_writer writer;
    beam_kv_writer_init(&writer, room, cap);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_str(&writer, "code", beam_code_name(code));
    put_map(&writer, "details", details, len);
    beam_kv_put_strn(&writer, "message", text.ptr, text.len);
    beam_kv_end(&writer);
    int r = beam_kv_writer_finish(&writer, &doc, &doc_len);
    if (r >= 0)
        r = print_document(out, doc, doc_len);
    free(room);
    return r;
}
