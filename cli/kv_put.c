/* `beam kv put`: one value is set. */
#include "cli/kv.h"
#include "cli/kv_call.h"
#include "cli/kv_text.h"
#include "cli/verbs.h"

#include <errno.h>
#include <string.h>

static const char help[] =
    "usage: beam kv put FILE|URL KEY VALUE|- [OPTION...]\n"
    "       beam kv put FILE|URL KEY --file NAME [OPTION...]\n"
    "\n"
    "Sets KEY to VALUE, which is JSON; - reads it from standard input. A FILE that is not there "
    "is\n"
    "made; one that a server has is changed through the server's URL.\n"
    "\n"
    "    --string             VALUE is a text, and not JSON\n"
    "    --file NAME          the value is what the file NAME holds, as bytes\n"
    "    --kv                 what comes from - or --file is a kv document (docs/spec/kv.md)\n"
    "    --seen N             only if KEY has not changed since revision N; 0: only if there is "
    "none\n"
    "    --json               print {\"epoch\":..., \"rev\":N}, and an error as\n"
    "                         {\"code\":..., \"details\":{...}, \"message\":...}\n" KV_HELP_SYNC
        KV_HELP_URL "\n"
    "examples:\n"
    "    beam kv put settings.kv cfg/port 8080\n"
    "    beam kv put settings.kv cfg/name --string 'Ada Lovelace'\n"
    "    beam kv put unix:/tmp/b.sock cfg/hosts '[\"a\",\"b\"]' --seen 7\n"
    "    beam kv put unix:/tmp/b.sock logo --file logo.png\n";

struct put {
    struct kv_target target;
    beam_str key;
    const char *text, *file;
    bool string, kv;
    uint64_t seen; /* UINT64_MAX: not given */
};

static int read_arguments(int argc, char **argv, struct put *put)
{
    struct kv_target *target = &put->target;
    const struct option options[] = {{"--string", OPTION_FLAG, &put->string, 0, 0},
                                     {"--file", OPTION_TEXT, &put->file, 0, 0},
                                     {"--kv", OPTION_FLAG, &put->kv, 0, 0},
                                     {"--seen", OPTION_COUNT, &put->seen, 0, INT64_MAX},
                                     {"--json", OPTION_FLAG, &target->json, 0, 0},
                                     KV_OPTIONS_WRITE(target) KV_OPTIONS_URL(target)
                                         KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count != (put->file ? 2 : 3)) {
        fprintf(stderr, "beam: kv put: please give a file or URL, a key and a value, as in\n"
                        "    beam kv put settings.kv cfg/port 8080\n"
                        "    beam kv put settings.kv logo --file logo.png\n");
        return -EINVAL;
    }
    put->text = put->file ? NULL : words[2];
    if (put->text && strcmp(put->text, "-") == 0)
        put->file = "-";
    if (put->kv && (put->string || !put->file)) {
        fprintf(stderr, "beam: kv put: --kv goes with - or --file NAME, and not with --string\n");
        return -EINVAL;
    }
    return kv_text_key(target->verb, words[1], &put->key) < 0 ? -EINVAL
                                                              : kv_target_take(target, words[0]);
}

/* JSON, or not: what is wrong, and where. Limits and memory are not the value's fault. */
static int complain(const struct put *put, const char *what, int error, size_t offset)
{
    if (error == -ENOMEM || error == -BEAM_ECODEC_TOO_LARGE) {
        fprintf(stderr, "beam: kv put: the value: %s\n", beam_strerror(error));
        return EXIT_LIMIT;
    }
    fprintf(stderr, "beam: kv put: %s is no %s at byte %zu: %s%s\n",
            put->text && !put->file ? put->text : "the value", what, offset, beam_strerror(error),
            put->kv ? "" : "; a text is written '\"so\"', or with --string");
    return EXIT_USAGE;
}

/* What was given as a value, which borrows the bytes or, if they are JSON, the document. An enum exit_status. */
static int make_value(const struct put *put, const void *bytes, size_t len, beam_buffer *document,
                      beam_kv_value *ret_value)
{
    size_t offset = 0;
    int r;
    if (put->kv) {
        r = beam_kv_check(bytes, len, &offset);
        if (r >= 0)
            r = beam_kv_root(bytes, len, ret_value);
        return r < 0 ? complain(put, "kv document", r, offset) : EXIT_OK;
    }
    if (put->string) {
        *ret_value = (beam_kv_value){.type = BEAM_KV_STR, .str = {bytes, len}};
        return EXIT_OK;
    }
    if (!put->text) {
        *ret_value = (beam_kv_value){.type = BEAM_KV_BYTES, .bytes = {bytes, len}};
        return EXIT_OK;
    }
    r = kv_text_read(bytes, len, document, &offset);
    if (r >= 0)
        r = beam_kv_root(document->ptr, document->len, ret_value);
    return r < 0 ? complain(put, "JSON", r, offset) : EXIT_OK;
}

static int put_value(struct put *put, const beam_kv_value *value)
{
    struct kv_call call;
    kv_call_begin(&call);
    beam_kv_put_strn(&call.argument, "key", put->key.ptr, put->key.len);
    beam_kv_put(&call.argument, (beam_str){"value", 5}, value);
    if (put->seen != UINT64_MAX)
        beam_kv_put_uint(&call.argument, "seen", put->seen);
    int status = kv_target_open(&put->target, true);
    if (status == EXIT_OK)
        status = kv_call_make(&call, &put->target, "put");
    if (status == EXIT_OK && put->target.json) {
        (void)kv_text_json(stdout, &call.answer);
        fputc('\n', stdout);
    }
    kv_call_end(&call);
    return kv_target_close(&put->target, status);
}

int kv_put_main(int argc, char **argv)
{
    struct put put = {.seen = UINT64_MAX};
    beam_buffer bytes, document;
    beam_kv_value value;
    int r = read_arguments(argc, argv, &put);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    beam_buffer_init(&bytes, KV_TEXT_LEN_MAX);
    beam_buffer_init(&document, BEAM_KV_LEN_MAX);
    r = put.file ? kv_text_read_file(put.file, &bytes)
                 : beam_buffer_add(&bytes, put.text, strlen(put.text));
    int status = r >= 0     ? make_value(&put, bytes.ptr, bytes.len, &document, &value)
                 : put.file ? exit_status_of_file(r)
                            : beam_exit_code(r, stderr);
    if (status == EXIT_OK)
        status = put_value(&put, &value);
    beam_buffer_deinit(&document);
    beam_buffer_deinit(&bytes);
    return status;
}
