/* The verb `watch`: a request that stays open, and every message that comes on it. */
#include "cli/arguments.h"
#include "cli/credentials.h"
#include "cli/verbs.h"
#include "cli/output.h"
#include "cli/transports.h"
#include "cli/watching.h"

#include <errno.h>

const char watch_help[] =
    "usage: beam watch URL SERVICE [KEY=VALUE...] [OPTION...]\n"
    "\n"
    "Opens a channel to SERVICE and prints each message on a line, until the service ends it or\n"
    "SIGINT.\n"
    "\n"
    "    KEY=TEXT             a text\n"
    "    KEY:=VALUE           a number, true, false or null\n"
    "    --count N            end after N messages\n"
    "    --json               print {\"body\":..., \"metadata\":{...}} per line\n" CREDENTIALS_HELP
    "\n"
    "examples:\n"
    "    beam watch unix:/tmp/b.sock clock rate:=10\n"
    "    beam watch unix:/tmp/b.sock clock --json --count 3 | jq .metadata.n\n";

struct watch {
    const char *url, *service;
    uint64_t count_max, count;
    bool json;
    struct credentials credentials;
};

static int read_arguments(int argc, char **argv, struct watch *watch, char ***ret_pairs)
{
    const struct option options[] = {
        {"--count", OPTION_COUNT, &watch->count_max, 1, 0},
        {"--json", OPTION_FLAG, &watch->json, 0, 0},
        CREDENTIALS_OPTIONS(&watch->credentials){NULL, OPTION_FLAG, NULL, 0, 0},
    };
    char **words;
    int count = arguments_read(argc, argv, options, watch_help, &words);
    if (count < 0)
        return count;
    if (count < 2) {
        fprintf(stderr, "beam: watch: please name a URL and a service, as in\n"
                        "    beam watch unix:/tmp/b.sock clock rate:=10\n");
        return -EINVAL;
    }
    watch->url = words[0];
    watch->service = words[1];
    *ret_pairs = words + 2;
    if (argument_url("watch", watch->url) < 0 ||
        credentials_take(&watch->credentials, "watch", watch->url) < 0)
        return -EINVAL;
    return count - 2;
}

static int on_message(const beam_message *message, void *arg)
{
    struct watch *watch = arg;
    int r = watch->json ? output_json(stdout, message) : output_line(stdout, message);
    return r < 0 ? r : ++watch->count == watch->count_max;
}

static int run(struct watch *watch, beam_runtime *runtime, beam_message **message)
{
    struct watching watching = {.verb = "watch",
                                .url = watch->url,
                                .service = watch->service,
                                .on_message = on_message,
                                .arg = watch};
    int r = beam_start(runtime), status;
    if (r < 0)
        status = beam_exit_code(r, stderr);
    else if ((r = beam_connect_wait(
                  runtime, watch->url,
                  &BEAM_CONNECT_OPTIONS(.net = credentials_net(&watch->credentials, watch->url)),
                  &watching.session)) < 0)
        status = fail_at("connecting", watch->url, r);
    else
        return watching_run(&watching, runtime, message);
    beam_runtime_free(runtime);
    return status;
}

static void end_watch(struct watch *watch)
{
    credentials_free(&watch->credentials);
}

int watch_main(int argc, char **argv)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *message = beam_message_new();
    BEAM_CLEANUP(end_watch) struct watch watch = {0};
    char **pairs;
    int count = read_arguments(argc, argv, &watch, &pairs);
    if (count < 0)
        return count == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (arguments_put(message, pairs, count) < 0)
        return EXIT_USAGE;

    enum beam_log_level level = BEAM_LOG_ERROR;
    beam_runtime *runtime = NULL;
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.transports = transports_all, .log = log_to_stderr, .log_arg = &level);
    int r = beam_runtime_new(&options, &runtime);
    return r < 0 ? beam_exit_code(r, stderr) : run(&watch, runtime, &message);
}
