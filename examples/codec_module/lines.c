/* A codec that comes as a module: what a stranger writes who has the installed headers and nothing
 * else of Beam's.
 *
 *     cc -shared -fPIC $(pkg-config --cflags beam) lines.c -o lines.so
 *
 * Lines of text are a list of texts. The module is not linked with the library: the program that loads
 * it has it already. */
#include <beam/beam.h>

#include <string.h>

static int lines_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                       beam_kv_writer *out, size_t *ret_error_offset)
{
    const char *p = in, *end = p + len, *stop;
    beam_kv_begin_list(out, NULL);
    for (; p < end && out->error == 0; p = stop + 1) {
        stop = memchr(p, '\n', (size_t)(end - p));
        if (!stop) {
            *ret_error_offset = len;
            return -BEAM_ECODEC_TRUNCATED; /* the last line has no end */
        }
        beam_kv_put_strn(out, NULL, p, (size_t)(stop - p));
    }
    return beam_kv_end(out);
}

static int lines_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                         beam_buffer *out)
{
    beam_kv_iter iter;
    beam_kv_value entry;
    beam_str line;
    if (value->type != BEAM_KV_LIST)
        return -BEAM_ECODEC_UNSUPPORTED;
    beam_kv_iter_init(&iter, value);
    while (beam_kv_iter_next(&iter, NULL, &entry) > 0) {
        if (beam_kv_as_str(&entry, &line) < 0 || memchr(line.ptr, '\n', line.len))
            return -BEAM_ECODEC_UNSUPPORTED;
        beam_buffer_add(out, line.ptr, line.len);
        beam_buffer_add(out, "\n", 1);
    }
    return out->error;
}

/* What the program looks for: see host.c. */
const struct beam_codec codec_module = {
    .size = sizeof(codec_module),
    .number = BEAM_CODEC_APPLICATION + 1, /* agreed upon by those who use the module */
    .name = "lines",
    .media_type = "text/plain",
    .to_kv = lines_to_kv,
    .from_kv = lines_from_kv,
};
