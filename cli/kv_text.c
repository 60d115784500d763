/* Texts of `beam kv`. What is JSON is written and read by the library; what is left to do here is to
 * keep a terminal safe from what others have stored. */
#include "cli/kv_text.h"

#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define READ_LEN ((size_t)64 << 10)

int kv_text_key(const char *verb, const char *word, beam_str *ret_key)
{
    char room[BEAM_STORE_KEY_LEN_MAX + 64];
    beam_kv_writer writer;
    size_t len = strlen(word);
    beam_kv_writer_init(&writer, room, sizeof(room));
    int r = len == 0 || len > BEAM_STORE_KEY_LEN_MAX ? -ENAMETOOLONG
                                                     : beam_kv_put_strn(&writer, NULL, word, len);
    if (r < 0) {
        fprintf(stderr, "beam: %s: \"", verb);
        output_text(stderr, (beam_str){word, len < 80 ? len : 80});
        fprintf(stderr, "\" is no key: 1 to %d bytes of UTF-8\n", BEAM_STORE_KEY_LEN_MAX);
        return -EINVAL;
    }
    *ret_key = (beam_str){word, len};
    return 0;
}

/* JSON has no control characters below U+0020; U+007F to U+009F are written as it allows. */
static void put_json_text(FILE *out, const unsigned char *text, size_t len)
{
    const unsigned char *end = text + len, *from = text;
    for (; text < end; text++) {
        bool two = *text == 0xc2 && end - text > 1 && text[1] >= 0x80 && text[1] < 0xa0;
        if (*text != 0x7f && !two)
            continue;
        fwrite(from, 1, (size_t)(text - from), out);
        fprintf(out, "\\u%04x", two ? text[1] : *text);
        text += two;
        from = text + 1;
    }
    fwrite(from, 1, (size_t)(end - from), out);
}

int kv_text_json(FILE *out, const beam_kv_value *value)
{
    beam_buffer text;
    beam_buffer_init(&text, KV_TEXT_LEN_MAX * BEAM_KV_JSON_EXPANSION);
    int r = beam_json.from_kv(&beam_json, value, &text);
    if (r >= 0)
        put_json_text(out, text.ptr, text.len);
    beam_buffer_deinit(&text);
    return r;
}

int kv_text_pair(FILE *out, beam_str key, const beam_kv_value *value)
{
    output_text(out, key);
    if (value->type != BEAM_KV_STR) {
        fputs(":=", out);
        return kv_text_json(out, value);
    }
    fputc('=', out);
    output_text(out, value->str);
    return 0;
}

int kv_text_line(FILE *out, beam_str key, const beam_kv_value *value)
{
    beam_kv_value text = {.type = BEAM_KV_STR, .str = key};
    fputs("{\"key\":", out);
    int r = kv_text_json(out, &text);
    if (r >= 0 && value) {
        fputs(",\"value\":", out);
        r = kv_text_json(out, value);
    }
    fputs("}\n", out);
    return r;
}

int kv_text_document(beam_buffer *out, const beam_kv_value *value)
{
    return beam_kv_codec.from_kv(&beam_kv_codec, value, out);
}

int kv_text_read(const void *text, size_t len, beam_buffer *out, size_t *ret_offset)
{
    return beam_convert(&beam_json, &beam_kv_codec, text ? text : "", len,
                        &BEAM_CONVERT_LIMITS(.output_len_max = BEAM_KV_LEN_MAX), out, ret_offset);
}

static int read_all(int fd, beam_buffer *out)
{
    for (;;) {
        unsigned char *room;
        int r = beam_buffer_reserve(out, READ_LEN, &room);
        if (r < 0)
            return r == -BEAM_ECODEC_TOO_LARGE ? -EFBIG : r;
        ssize_t n = read(fd, room, READ_LEN);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        beam_buffer_advance(out, (size_t)n);
    }
}

int kv_text_read_file(const char *path, beam_buffer *out)
{
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? 0 : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int r = fd < 0 ? -errno : read_all(fd, out);
    if (!standard && fd >= 0)
        close(fd);
    if (r < 0)
        fprintf(stderr, "beam: %s: %s\n", standard ? "standard input" : path, beam_strerror(r));
    return r;
}
