/* `beam kv get`: one value. */
#include "cli/kv.h"
#include "cli/kv_call.h"
#include "cli/kv_text.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

static const char help[] =
    "usage: beam kv get FILE|URL KEY [OPTION...]\n"
    "\n"
    "Prints the value of KEY as JSON. A file is read as it lies, also while a server has it.\n"
    "\n"
    "    --raw                a string or bytes, as they are, and nothing behind them\n"
    "    --kv                 the value as a kv document (docs/spec/kv.md)\n"
    "    --json               print {\"epoch\":..., \"now\":N, \"rev\":N, \"value\":...}: rev is "
    "the\n"
    "                         revision that set it, now the last one; and an error as\n"
    "                         {\"code\":..., \"details\":{...}, \"message\":...}\n" KV_HELP_URL "\n"
    "exit code 8: there is no such key.\n" KV_HELP_DAMAGED "examples:\n"
    "    beam kv get settings.kv cfg/port\n"
    "    beam kv get unix:/tmp/b.sock cfg/name --raw\n"
    "    beam kv get unix:/tmp/b.sock cfg --json | jq .rev\n";

struct get {
    struct kv_target target;
    beam_str key;
    bool raw, kv;
    /* From a file. */
    beam_buffer value;
    bool found;
    uint64_t rev;
    int error;
};

static int read_arguments(int argc, char **argv, struct get *get)
{
    struct kv_target *target = &get->target;
    const struct option options[] = {{"--raw", OPTION_FLAG, &get->raw, 0, 0},
                                     {"--kv", OPTION_FLAG, &get->kv, 0, 0},
                                     {"--json", OPTION_FLAG, &target->json, 0, 0},
                                     KV_OPTIONS_URL(target) KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count != 2) {
        fprintf(stderr, "beam: kv get: please name a file or URL and a key, as in\n"
                        "    beam kv get settings.kv cfg/port\n");
        return -EINVAL;
    }
    if (get->raw + get->kv + target->json > 1) {
        fprintf(stderr, "beam: kv get: of --raw, --kv and --json only one can be had\n");
        return -EINVAL;
    }
    return kv_text_key(target->verb, words[1], &get->key) < 0 ? -EINVAL
                                                              : kv_target_take(target, words[0]);
}

static const char *kind_of(const beam_kv_value *value)
{
    static const char *const kinds[] = {"",         "null",      "false",    "true",
                                        "a number", "a number",  "a number", "a string",
                                        "bytes",    "an object", "an array"};
    return kinds[value->type];
}

static int print_raw(const struct get *get, const beam_kv_value *value)
{
    if (value->type != BEAM_KV_STR && value->type != BEAM_KV_BYTES) {
        fprintf(stderr, "beam: kv get: the value is %s; --raw prints strings and bytes\n",
                kind_of(value));
        return -EINVAL;
    }
    fwrite(value->bytes.ptr, 1, value->bytes.len, stdout);
    return 0;
}

static int print_document(const beam_kv_value *value)
{
    beam_buffer document;
    beam_buffer_init(&document, BEAM_KV_LEN_MAX);
    int r = kv_text_document(&document, value);
    if (r >= 0)
        fwrite(document.ptr, 1, document.len, stdout);
    beam_buffer_deinit(&document);
    return r;
}

/* answer: as kv.get gives it. */
static int print_answer(const struct get *get, const beam_kv_value *answer)
{
    beam_kv_value value;
    if (beam_kv_get(answer, "value", &value) < 0) {
        fprintf(stderr, "beam: kv get: the answer has no value\n");
        return EXIT_OTHER;
    }
    if (get->raw)
        return print_raw(get, &value) < 0 ? EXIT_OTHER : EXIT_OK;
    int r =
        get->kv ? print_document(&value) : kv_text_json(stdout, get->target.json ? answer : &value);
    if (r < 0) {
        fprintf(stderr, "beam: kv get: %s\n", beam_strerror(r));
        return EXIT_OTHER;
    }
    if (!get->kv)
        fputc('\n', stdout);
    return EXIT_OK;
}

static int get_from_server(struct get *get)
{
    struct kv_call call;
    kv_call_begin(&call);
    beam_kv_put_strn(&call.argument, "key", get->key.ptr, get->key.len);
    int status = kv_target_open(&get->target, false);
    if (status == EXIT_OK)
        status = kv_call_make(&call, &get->target, "get");
    if (status == EXIT_OK)
        status = print_answer(get, &call.answer);
    kv_call_end(&call);
    return kv_target_close(&get->target, status);
}

static int keep(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg)
{
    struct get *get = arg;
    if (key.len != get->key.len || memcmp(key.ptr, get->key.ptr, key.len) != 0)
        return 0;
    get->found = true;
    get->rev = rev;
    get->error = kv_text_document(&get->value, value);
    return -ECANCELED; /* no more is needed */
}

static int fail_not_found(const struct get *get, uint64_t now)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *details = beam_message_new();
    beam_message_put_str(details, "message", "no such key");
    beam_message_put_uint(details, "now", now);
    return output_error(get->target.text, BEAM_NOT_FOUND, details, get->target.json);
}

/* As a server would answer. */
static int answer_from_file(struct get *get, const struct beam_store_file_info *info,
                            struct kv_call *answer)
{
    char epoch[17];
    beam_kv_value value, map;
    const void *document;
    size_t len;
    int r = get->error;
    if (r >= 0)
        r = beam_kv_root(get->value.ptr, get->value.len, &value);
    if (r >= 0) {
        snprintf(epoch, sizeof(epoch), "%016" PRIx64, info->epoch);
        beam_kv_put_str(&answer->argument, "epoch", epoch);
        beam_kv_put_uint(&answer->argument, "now", info->rev);
        beam_kv_put_uint(&answer->argument, "rev", get->rev);
        beam_kv_put(&answer->argument, (beam_str){"value", 5}, &value);
        beam_kv_end(&answer->argument);
        r = beam_kv_writer_finish(&answer->argument, &document, &len);
    }
    if (r >= 0)
        r = beam_kv_root(document, len, &map);
    return r < 0 ? beam_exit_code(r, stderr) : print_answer(get, &map);
}

static int get_from_file(struct get *get)
{
    struct beam_store_file_info info;
    struct kv_call answer; /* what it would be */
    beam_buffer_init(&get->value, BEAM_KV_LEN_MAX);
    kv_call_begin(&answer);
    int status = kv_target_read(&get->target, keep, get, &info);
    if (status == EXIT_OK)
        status = kv_target_status(&info, get->found ? answer_from_file(get, &info, &answer)
                                                    : fail_not_found(get, info.rev));
    kv_call_end(&answer);
    beam_buffer_deinit(&get->value);
    return status;
}

int kv_get_main(int argc, char **argv)
{
    struct get get = {0};
    int r = read_arguments(argc, argv, &get);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    return get.target.is_url ? get_from_server(&get) : get_from_file(&get);
}
