/* The verb `watch`: a request that stays open, and every message that comes on it.
 *
 * Messages are printed by the reactor's thread as they come. While standard output is full (a
 * pager), that thread waits, nothing is read, and the service learns it by its credit. */
#include "cli/arguments.h"
#include "cli/verbs.h"
#include "cli/output.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>

const char watch_help[] =
    "usage: beam watch URL SERVICE [KEY=VALUE...] [OPTION...]\n"
    "\n"
    "Opens a channel to SERVICE and prints each message on a line, until the service ends it or\n"
    "SIGINT.\n"
    "\n"
    "    KEY=TEXT             a text\n"
    "    KEY:=VALUE           a number, true, false or null\n"
    "    --count N            end after N messages\n"
    "    --json               print {\"body\":..., \"metadata\":{...}} per line\n"
    "\n"
    "examples:\n"
    "    beam watch unix:/tmp/b.sock clock rate:=10\n"
    "    beam watch unix:/tmp/b.sock clock --json --count 3 | jq .metadata.n\n";

struct watch {
    const char *url, *service;
    uint64_t count_max, count;
    bool json;
    beam_session *session;
    beam_message *message;
    beam_channel *channel;
    int status;
};

static sem_t done;

static void on_signal(int signal)
{
    sem_post(&done); /* on the list of signal-safety(7) */
}

/* The second signal ends the program at once, also while it is stuck in a write: SA_RESETHAND. */
static void end_on_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int read_arguments(int argc, char **argv, struct watch *watch, char ***ret_pairs)
{
    const struct option options[] = {
        {"--count", OPTION_COUNT, &watch->count_max, 1, 0},
        {"--json", OPTION_FLAG, &watch->json, 0, 0},
        {NULL, OPTION_FLAG, NULL, 0, 0},
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
    return argument_url("watch", watch->url) < 0 ? -EINVAL : count - 2;
}

static void finish(struct watch *watch, int status)
{
    watch->status = status;
    watch->channel = beam_channel_free(watch->channel);
    sem_post(&done);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct watch *watch = arg;
    int r = watch->json ? output_json(stdout, message) : output_line(stdout, message);
    if (r < 0 || fflush(stdout) != 0) {
        fprintf(stderr, "beam: watch: printing: %s\n", r < 0 ? beam_strerror(r) : strerror(errno));
        finish(watch, EXIT_OTHER);
    } else if (++watch->count == watch->count_max) {
        finish(watch, EXIT_OK);
    }
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct watch *watch = arg;
    if (status->code != BEAM_OK) {
        fprintf(stderr, "beam: %s: %s%s", watch->service, beam_code_text(status->code),
                status->message.len > 0 ? ": " : "");
        output_text(stderr, status->message);
        fputc('\n', stderr);
    }
    finish(watch, beam_exit_code((int)status->code, NULL));
}

/* On the reactor, as all that touches the channel. Without it, losing the session would be reported
 * as the end of the channel. */
static void close_channel(void *arg)
{
    struct watch *watch = arg;
    watch->channel = beam_channel_free(watch->channel);
}

static void open_channel(void *arg)
{
    static const struct beam_channel_handlers handlers = {
        .on_message = on_message,
        .on_end = on_end,
    };
    struct watch *watch = arg;
    int r = beam_open(watch->session, watch->service, &watch->message, &handlers, watch, NULL,
                      &watch->channel);
    if (r < 0)
        finish(watch, fail_at(watch->service, watch->url, r));
}

static int run(struct watch *watch, beam_runtime *runtime)
{
    int r = beam_start(runtime);
    if (r < 0)
        return beam_exit_code(r, stderr);
    r = beam_connect_wait(runtime, watch->url, NULL, &watch->session);
    if (r < 0)
        return fail_at("connecting", watch->url, r);
    end_on_signals();
    r = beam_post(runtime, 0, open_channel, watch);
    if (r >= 0) {
        while (sem_wait(&done) < 0 && errno == EINTR) {
        }
        r = beam_post(runtime, 0, close_channel, watch);
    }
    watch->session = beam_session_free(watch->session);
    return beam_exit_code(r, stderr);
}

int watch_main(int argc, char **argv)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *message = beam_message_new();
    struct watch watch = {0};
    char **pairs;
    int count = read_arguments(argc, argv, &watch, &pairs);
    if (count < 0)
        return count == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (arguments_put(message, pairs, count) < 0)
        return EXIT_USAGE;
    watch.message = message;

    sem_init(&done, 0, 0);
    enum beam_log_level level = BEAM_LOG_ERROR;
    beam_runtime *runtime = NULL;
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix), .log = log_to_stderr,
                             .log_arg = &level);
    int r = beam_runtime_new(&options, &runtime);
    int status = r < 0 ? beam_exit_code(r, stderr) : run(&watch, runtime);
    beam_runtime_free(runtime); /* its threads have ended: watch is ours again */
    message = watch.message;
    return status != EXIT_OK ? status : watch.status;
}
