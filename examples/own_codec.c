/* A codec of one's own: a service that knows documents only is asked in what browsers send of forms.
 *
 * The two functions are all there is to a codec. The service does not know of it; nor does it know
 * json, in which it is asked as well. (A real one would undo the escapes of forms, too.) */
#include <beam/beam.h>

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define FORM BEAM_CODEC_APPLICATION /* the first number that is the application's to give */

/* a=1&b=2: a map of texts. */
static int form_to_kv(const struct beam_codec *codec, const void *in, size_t len,
                      beam_kv_writer *out, size_t *ret_error_offset)
{
    const char *start = in, *end = start + len, *stop;
    beam_kv_begin_map(out, NULL);
    for (const char *p = start; p < end; p = stop < end ? stop + 1 : end) {
        stop = memchr(p, '&', (size_t)(end - p));
        stop = stop ? stop : end;
        const char *equals = memchr(p, '=', (size_t)(stop - p));
        *ret_error_offset = (size_t)(p - start);
        if (!equals)
            return -BEAM_ECODEC_SYNTAX;
        beam_kv_value value = {.type = BEAM_KV_STR,
                               .str = {equals + 1, (size_t)(stop - equals - 1)}};
        if (beam_kv_put(out, (beam_str){p, (size_t)(equals - p)}, &value) < 0)
            break; /* it sticks */
    }
    return beam_kv_end(out);
}

static int form_from_kv(const struct beam_codec *codec, const beam_kv_value *value,
                        beam_buffer *out)
{
    beam_kv_iter iter;
    beam_kv_value entry;
    beam_str key, text;
    if (value->type != BEAM_KV_MAP)
        return -BEAM_ECODEC_UNSUPPORTED;
    beam_kv_iter_init(&iter, value);
    for (const char *between = ""; beam_kv_iter_next(&iter, &key, &entry) > 0; between = "&") {
        if (beam_kv_as_str(&entry, &text) < 0 || memchr(text.ptr, '&', text.len) ||
            memchr(key.ptr, '=', key.len))
            return -BEAM_ECODEC_UNSUPPORTED;
        beam_buffer_add(out, between, strlen(between));
        beam_buffer_add(out, key.ptr, key.len);
        beam_buffer_add(out, "=", 1);
        beam_buffer_add(out, text.ptr, text.len);
    }
    return out->error;
}

static const struct beam_codec form = {
    .size = sizeof(form),
    .number = FORM,
    .name = "form",
    .media_type = "application/x-www-form-urlencoded",
    .to_kv = form_to_kv,
    .from_kv = form_from_kv,
};

/* The service. */
static void on_greet(beam_request *request, const beam_message *message, void *arg)
{
    uint8_t room[512];
    char text[200];
    beam_kv_writer writer;
    beam_kv_value question;
    beam_str name;
    const void *document;
    size_t len;
    const void *body = beam_message_body(message, &len);
    /* Whoever spoke kv all along was not converted, and so not checked. */
    if (beam_kv_check(body, len, NULL) < 0 || beam_kv_root(body, len, &question) < 0 ||
        beam_kv_get_str(&question, "name", &name) < 0) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "a name is missing");
        return;
    }
    snprintf(text, sizeof(text), "hello, %.*s", BEAM_STR(name));
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_str(&writer, "text", text);
    beam_kv_end(&writer);
    if (beam_kv_writer_finish(&writer, &document, &len) < 0) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "this is no name to greet by");
        return;
    }
    beam_message *answer = beam_message_new();
    beam_message_set_body(answer, document, len);
    beam_reply(request, &answer);
}

/* Asks, and prints the answer. 0, a status code, or an error. */
static int ask(beam_session *session, uint32_t codec, const char *body)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    size_t len = 0;
    beam_message_set_body(question, body, strlen(body));
    beam_message_set_codec(question, codec);
    int r = beam_call_wait(session, "greet", &question, NULL, &answer);
    const char *text =
        answer && r == 0 ? beam_message_body(answer, &len) : beam_code_name((unsigned)r);
    if (r >= 0)
        printf("%-24s -> %.*s\n", body, r == 0 ? (int)len : 200, text);
    return r;
}

int main(void)
{
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    char url[64];
    snprintf(url, sizeof(url), "unix:@own-codec-%d", getpid());

    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                             &runtime);
    if (r >= 0)
        r = beam_codec_register(runtime, &form);
    if (r >= 0)
        r = beam_serve_with(runtime, "greet", on_greet, NULL,
                            &BEAM_SERVE_OPTIONS(.codec = &beam_kv_codec));
    if (r >= 0)
        r = beam_listen(runtime, url, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    if (r >= 0)
        r = beam_connect_wait(runtime, url, NULL, &session);

    if (r >= 0)
        r = ask(session, FORM, "from=london&name=ada");
    if (r == 0)
        r = ask(session, BEAM_CODEC_JSON, "{\"name\": \"grace\"}");
    if (r == 0 && ask(session, FORM, "no form") != BEAM_INVALID_ARGUMENT)
        r = -EBADMSG;
    return r > 0 ? 1 : beam_exit_code(r, stderr);
}
