/* `beam kv compact`: a file is rewritten so that it holds its state and no more. */
#include "cli/kv.h"
#include "cli/kv_call.h"
#include "cli/kv_text.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <errno.h>
#include <inttypes.h>

static const char help[] =
    "usage: beam kv compact FILE|URL [OPTION...]\n"
    "\n"
    "Rewrites the file of a store so that it holds what is in the store and no more; beside it as\n"
    "FILE.new, which takes its place when it is complete. A server goes on meanwhile. Stores do "
    "this\n"
    "by themselves when much of a file is of the past.\n"
    "\n"
    "    --json               print {\"after\":N, \"before\":N, \"epoch\":..., \"rev\":N}, with "
    "the "
    "bytes of\n"
    "                         records in the file\n" KV_HELP_URL "\n"
    "examples:\n"
    "    beam kv compact settings.kv\n"
    "    beam kv compact unix:/tmp/b.sock\n";

static int read_arguments(int argc, char **argv, struct kv_target *target)
{
    const struct option options[] = {{"--json", OPTION_FLAG, &target->json, 0, 0},
                                     KV_OPTIONS_URL(target) KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count != 1) {
        fprintf(stderr, "beam: kv compact: please name a file or URL, as in\n"
                        "    beam kv compact settings.kv\n");
        return -EINVAL;
    }
    return kv_target_take(target, words[0]);
}

static void print(const struct kv_target *target, const beam_kv_value *answer)
{
    uint64_t before = 0, after = 0;
    if (target->json) {
        (void)kv_text_json(stdout, answer);
        putchar('\n');
        return;
    }
    (void)beam_kv_get_uint(answer, "before", &before);
    (void)beam_kv_get_uint(answer, "after", &after);
    printf("%" PRIu64 " bytes before, %" PRIu64 " after\n", before, after);
}

int kv_compact_main(int argc, char **argv)
{
    struct kv_target target = {0};
    struct kv_call call;
    int r = read_arguments(argc, argv, &target);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    kv_call_begin(&call);
    int status = kv_target_open(&target, false);
    if (status == EXIT_OK)
        status = kv_call_make(&call, &target, "compact");
    if (status == EXIT_OK)
        print(&target, &call.answer);
    kv_call_end(&call);
    return kv_target_close(&target, status);
}
