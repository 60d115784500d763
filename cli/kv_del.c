/* `beam kv del`: keys go, all of them or none. */
#include "cli/kv.h"
#include "cli/kv_call.h"
#include "cli/kv_text.h"
#include "cli/verbs.h"

#include <errno.h>

static const char help[] =
    "usage: beam kv del FILE|URL KEY... [OPTION...]\n"
    "\n"
    "Deletes keys, as one transaction: all of them or none. One that is not there is no error.\n"
    "\n"
    "    --seen N             only if none of them has changed since revision N\n"
    "    --json               print {\"epoch\":..., \"rev\":N}, and an error as\n"
    "                         {\"code\":..., \"details\":{...}, \"message\":...}\n" KV_HELP_SYNC
        KV_HELP_URL "\n"
    "examples:\n"
    "    beam kv del settings.kv cfg/port\n"
    "    beam kv del unix:/tmp/b.sock user/7 user/8 --json\n";

struct del {
    struct kv_target target;
    uint64_t seen; /* 0: not given */
    char **keys;
    int count;
};

static int read_arguments(int argc, char **argv, struct del *del)
{
    struct kv_target *target = &del->target;
    const struct option options[] = {{"--seen", OPTION_COUNT, &del->seen, 1, INT64_MAX},
                                     {"--json", OPTION_FLAG, &target->json, 0, 0},
                                     KV_OPTIONS_WRITE(target) KV_OPTIONS_URL(target)
                                         KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count < 2) {
        fprintf(stderr, "beam: kv del: please name a file or URL and a key, as in\n"
                        "    beam kv del settings.kv cfg/port\n");
        return -EINVAL;
    }
    del->keys = words + 1;
    del->count = count - 1;
    for (int i = 0; i < del->count; i++) {
        beam_str key;
        if (kv_text_key(target->verb, del->keys[i], &key) < 0)
            return -EINVAL;
    }
    return kv_target_take(target, words[0]);
}

int kv_del_main(int argc, char **argv)
{
    struct del del = {0};
    struct kv_call call;
    int r = read_arguments(argc, argv, &del);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    kv_call_begin(&call);
    beam_kv_begin_list(&call.argument, "delete");
    for (int i = 0; i < del.count; i++)
        beam_kv_put_str(&call.argument, NULL, del.keys[i]);
    beam_kv_end(&call.argument);
    if (del.seen > 0)
        beam_kv_put_uint(&call.argument, "seen", del.seen);
    int status = kv_target_open(&del.target, false);
    if (status == EXIT_OK)
        status = kv_call_make(&call, &del.target, "txn");
    if (status == EXIT_OK && del.target.json) {
        (void)kv_text_json(stdout, &call.answer);
        fputc('\n', stdout);
    }
    kv_call_end(&call);
    return kv_target_close(&del.target, status);
}
