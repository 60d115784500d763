/* A program that loads codecs at its start, as many modules as it is given, and serves `sort` to callers
 * in all of them, who are not long in coming:
 *
 *     cc $(pkg-config --cflags beam) host.c -o host $(pkg-config --libs beam)
 *     ./host ./lines.so
 *
 * A module has one symbol, `codec_module`: its codec. It says itself for which version of the header
 * it was built (`size`); one that is too new or makes no sense is refused when it is registered. */
#include <beam/beam.h>

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int load(beam_runtime *runtime, const char *path, void **ret_module,
                const struct beam_codec **ret_codec)
{
    void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct beam_codec *codec = module ? dlsym(module, "codec_module") : NULL;
    int r = codec ? beam_codec_register(runtime, codec) : 0;
    if (!codec || r < 0) {
        fprintf(stderr, "%s: %s\n", path, codec ? beam_strerror(r) : dlerror());
        if (module)
            dlclose(module);
        return -1;
    }
    *ret_module = module;
    *ret_codec = codec;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const beam_str *left = a, *right = b;
    size_t len = left->len < right->len ? left->len : right->len;
    int order = memcmp(left->ptr, right->ptr, len);
    return order != 0 ? order : (left->len > right->len) - (left->len < right->len);
}

/* Sorts a list of texts: up to a hundred here. */
static void on_sort(beam_request *request, const beam_message *message, void *arg)
{
    beam_str texts[100];
    size_t count = 0, len;
    beam_buffer document;
    beam_kv_writer writer;
    beam_kv_value list, entry;
    beam_kv_iter iter;
    const void *sorted;
    const void *body = beam_message_body(message, &len);
    if (beam_kv_check(body, len, NULL) < 0 || beam_kv_root(body, len, &list) < 0) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "this is no document");
        return;
    }
    beam_kv_iter_init(&iter, &list);
    while (count < 100 && beam_kv_iter_next(&iter, NULL, &entry) > 0)
        if (beam_kv_as_str(&entry, &texts[count]) == 0)
            count++;
    qsort(texts, count, sizeof(texts[0]), compare);

    beam_buffer_init(&document, 1 << 20);
    beam_kv_writer_init_buffer(&writer, &document);
    beam_kv_begin_list(&writer, NULL);
    for (size_t i = 0; i < count; i++)
        beam_kv_put_strn(&writer, NULL, texts[i].ptr, texts[i].len);
    beam_kv_end(&writer);
    int r = beam_kv_writer_finish(&writer, &sorted, &len);
    if (r < 0) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "%s", beam_strerror(r));
    } else {
        beam_message *answer = beam_message_new();
        beam_message_set_body(answer, sorted, len);
        beam_reply(request, &answer);
    }
    beam_buffer_deinit(&document);
}

/* Has it sort three words, in a codec. Returns 0, or a status code or an error. */
static int ask(beam_runtime *runtime, const char *url, const struct beam_codec *codec)
{
    static const char words[] = "[\"pear\", \"apple\", \"fig\"]";
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    beam_buffer body;
    beam_buffer_init(&body, 1 << 20);
    int r = beam_convert(&beam_json, codec, words, strlen(words), NULL, &body, NULL);
    beam_message_set_body(question, body.ptr, body.len);
    beam_message_set_codec(question, codec->number);
    beam_buffer_deinit(&body);
    if (r >= 0)
        r = beam_connect_wait(runtime, url, NULL, &session);
    if (r >= 0)
        r = beam_call_wait(session, "sort", &question, NULL, &answer);
    if (r == 0) {
        size_t len;
        const char *text = beam_message_body(answer, &len);
        printf("in %s:\n%.*s", codec->name, (int)len, text);
    }
    return r;
}

int main(int argc, char **argv)
{
    const struct beam_codec *codecs[16];
    void *modules[16];
    int loaded = 0;
    beam_runtime *runtime = NULL;
    char url[64];
    snprintf(url, sizeof(url), "unix:@codec-module-%d", getpid());

    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                             &runtime);
    while (r >= 0 && loaded < 16 && loaded + 1 < argc &&
           load(runtime, argv[loaded + 1], &modules[loaded], &codecs[loaded]) == 0)
        loaded++;
    bool all = loaded + 1 == argc;
    if (r >= 0)
        r = beam_serve_with(runtime, "sort", on_sort, NULL,
                            &BEAM_SERVE_OPTIONS(.codec = &beam_kv_codec));
    if (r >= 0)
        r = beam_listen(runtime, url, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    for (int i = 0; i < loaded && r == 0; i++)
        r = ask(runtime, url, codecs[i]);
    beam_runtime_free(runtime);
    while (loaded > 0) /* not before: the runtime has only borrowed the codecs */
        dlclose(modules[--loaded]);
    return r > 0 || !all ? 1 : beam_exit_code(r, stderr);
}
