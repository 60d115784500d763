/* The verb `serve`: offers services on sockets until SIGTERM or SIGINT, then lets what is under way
 * finish. */
#include "cli/arguments.h"
#include "cli/gate.h"
#include "cli/transports.h"
#include "cli/verbs.h"
#include "cli/services.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

const char serve_help[] =
    "usage: beam serve SERVICE... --listen URL... [OPTION...]\n"
    "\n"
    "Offers services to other processes until SIGTERM or SIGINT; then finishes what is under way "
    "and\n"
    "ends with 0. Every SERVICE is written [NAME=]KIND[:ARGUMENT], NAME being KIND unless given:\n"
    "\n"
    "    echo       answers with what it was sent: metadata, body, file descriptors; what comes "
    "on\n"
    "               attached channels and streams goes back on them\n"
    "    file:DIR   opens path=NAME below DIR; answers with size, mtime and the open file\n"
    "    clock      messages at a rate: rate:=10 per second, count:=5 in all\n"
    "    reverse    calls service=NAME that the caller offers, and passes its answer on\n"
    "    kv         a store of keys and values: kv.get, kv.put, kv.watch and so on\n"
    "    whoami     answers with who asks, as the server sees it: an identity over a network, a "
    "user "
    "else\n"
    "\n"
    "    --listen URL         unix:/path, unix:@abstract, unix:fd:N (inherited), "
    "https://host:port,\n"
    "                         http://host:port, http+unix:/path; may be repeated\n"
    "    --reactors N         threads, each with a ring of its own (1)\n"
    "    --socket-mode MODE   of the socket file, octal (0600: this user alone)\n"
    "    --drain TIME         how long the end waits for what is under way (1s)\n"
    "    --store FILE         where kv keeps its data (none: in memory)\n"
    "    --sync WHEN          each change of kv waits for the disk: each; does not: batch, none "
    "(each)\n"
    "    --quiet              say nothing but errors\n"
    "    --verbose            say everything\n"
    "\n"
    "Over a network, where nobody is served that is not known:\n"
    "\n" GATE_HELP "\n"
    "What one session may cost, and what its peer is told it may do:\n"
    "\n"
    "    --channels N         requests and channels in flight at once (1024)\n"
    "    --window SIZE        bytes in flight per channel and direction (64K; 16K or more)\n"
    "    --message SIZE       longest message (16M)\n"
    "    --large SIZE         messages over 64K, all together (32M)\n"
    "    --queue SIZE         bytes waiting to be sent (4M)\n"
    "    --fds N              file descriptors in flight (64)\n"
    "    --no-fds             take no file descriptors at all\n"
    "\n"
    "examples:\n"
    "    beam serve echo --listen unix:/tmp/b.sock\n"
    "    beam serve echo photos=file:/srv/photos --listen unix:@photos --reactors 2\n"
    "    beam serve clock --listen unix:/run/clock.sock --socket-mode 0666 --channels 16384\n"
    "    beam serve settings=kv --listen unix:/run/settings.sock --store /var/lib/settings.kv\n"
    "    beam serve echo --listen https://0.0.0.0:8443 --cert s.pem --key s.key --client-ca "
    "ca.pem\n"
    "    beam serve echo --listen http://127.0.0.1:8080 --token-file tokens\n";

#define LIMIT_MAX INT32_MAX /* docs/spec/session.md H1 */

#define URL_LEN 400u /* of a listener at port 0, as it is told; a URL of a network is shorter */

struct serve {
    struct texts listen;
    uint64_t reactors, drain_ns;
    uint64_t channels, window, message, large, queue, fds;
    const char *store, *sync;
    unsigned mode;
    bool no_fds, quiet, verbose;
    enum beam_log_level log_level;
    struct gate gate;
};

static struct {
    beam_runtime *runtime;
    bool quiet;
} running; /* for the signal handlers */

static void on_second(int number)
{
    static const char text[] =
        "finishing what is under way (--drain); another signal ends it at once\n";
    if (write(2, text, sizeof(text) - 1) < 0)
        return; /* nobody to tell */
}

static void end_on_signals(void)
{
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
}

/* The second signal, of either kind, ends the program at once. */
static void on_signal(int number)
{
    end_on_signals();
    if (!running.quiet) {
        signal(SIGALRM, on_second);
        alarm(1);
    }
    beam_runtime_stop(running.runtime);
}

static void stop_on_signals(beam_runtime *runtime, bool quiet)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaddset(&action.sa_mask, SIGINT);
    sigaddset(&action.sa_mask, SIGTERM);
    running.runtime = runtime;
    running.quiet = quiet;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static int read_arguments(int argc, char **argv, struct serve *serve, char ***ret_services)
{
    const struct option options[] = {
        {"--listen", OPTION_TEXTS, &serve->listen, 0, 0},
        {"--reactors", OPTION_COUNT, &serve->reactors, 1, BEAM_REACTORS_MAX},
        {"--socket-mode", OPTION_MODE, &serve->mode, 0, 0},
        {"--drain", OPTION_DURATION, &serve->drain_ns, 1, 3600 * BEAM_SEC},
        {"--store", OPTION_TEXT, &serve->store, 0, 0},
        {"--sync", OPTION_TEXT, &serve->sync, 0, 0},
        {"--quiet", OPTION_FLAG, &serve->quiet, 0, 0},
        {"--verbose", OPTION_FLAG, &serve->verbose, 0, 0},
        {"--channels", OPTION_COUNT, &serve->channels, 1, LIMIT_MAX},
        {"--window", OPTION_SIZE, &serve->window, 16384, LIMIT_MAX},
        {"--message", OPTION_SIZE, &serve->message, 1, LIMIT_MAX},
        {"--large", OPTION_SIZE, &serve->large, 1, LIMIT_MAX},
        {"--queue", OPTION_SIZE, &serve->queue, 65536, LIMIT_MAX},
        {"--fds", OPTION_COUNT, &serve->fds, 1, LIMIT_MAX},
        {"--no-fds", OPTION_FLAG, &serve->no_fds, 0, 0},
        GATE_OPTIONS(&serve->gate){NULL, OPTION_FLAG, NULL, 0, 0},
    };
    int count = arguments_read(argc, argv, options, serve_help, ret_services);
    if (count < 0)
        return count;
    if (count == 0 || serve->listen.count == 0) {
        fprintf(stderr, "beam: serve: please name %s; `beam serve --help` has examples\n",
                count == 0 ? "at least one service" : "a socket: --listen unix:/path");
        return -EINVAL;
    }
    for (unsigned i = 0; i < serve->listen.count; i++)
        if (argument_url("serve", serve->listen.items[i]) < 0)
            return -EINVAL;
    if (gate_take(&serve->gate, &serve->listen) < 0)
        return -EINVAL;
    if (service_kv_options(serve->store, serve->sync) < 0)
        return -EINVAL;
    serve->log_level = serve->verbose ? BEAM_LOG_DEBUG
                       : serve->quiet ? BEAM_LOG_ERROR
                                      : BEAM_LOG_WARNING;
    return count;
}

static int make_runtime(struct serve *serve, beam_runtime **ret_runtime)
{
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.reactors = (unsigned)serve->reactors, .transports = transports_all,
                             .stop_timeout_ns = serve->drain_ns, .log = log_to_stderr,
                             .log_arg = &serve->log_level,
                             .limits = {
                                 .size = sizeof(struct beam_limits),
                                 .window = (uint32_t)serve->window,
                                 .channels_max = (uint32_t)serve->channels,
                                 .message_len_max = (uint32_t)serve->message,
                                 .large_len_max = (uint32_t)serve->large,
                                 .queue_len_max = (uint32_t)serve->queue,
                                 .fds_max = (uint32_t)serve->fds,
                                 .fds_refused = serve->no_fds,
                             });
    return beam_runtime_new(&options, ret_runtime);
}

static int listen_all(beam_runtime *runtime, const struct serve *serve)
{
    for (unsigned i = 0; i < serve->listen.count; i++) {
        const char *url = serve->listen.items[i];
        struct beam_net_listen net;
        struct beam_listen_options options =
            BEAM_LISTEN_OPTIONS(.mode = serve->mode, .net = gate_listen(&serve->gate, url, &net));
        int r = beam_listen(runtime, url, &options);
        if (r < 0)
            return gate_fail(&serve->gate, url, r);
    }
    return EXIT_OK;
}

/* Runs when the runtime has started: only then is it true. */
static void say_listening(void *arg)
{
    const struct serve *serve = arg;
    for (unsigned i = 0; service_kv_status() == EXIT_OK && i < serve->listen.count; i++) {
        char url[URL_LEN]; /* with the port, if it was left to the kernel */
        int r = beam_listen_url(running.runtime, serve->listen.items[i], url, sizeof(url));
        fprintf(stderr, "listening on %s\n", r < 0 ? serve->listen.items[i] : url);
    }
}

static int listen_and_run(beam_runtime *runtime, struct serve *serve)
{
    int status = listen_all(runtime, serve);
    if (status != EXIT_OK)
        return status;
    int r = serve->quiet ? 0 : beam_post(runtime, 0, say_listening, serve);
    return beam_exit_code(r < 0 ? r : beam_run(runtime), stderr);
}

static void end_serve(struct serve *serve)
{
    gate_free(&serve->gate);
}

int serve_main(int argc, char **argv)
{
    BEAM_CLEANUP(end_serve) struct serve serve = {0}; /* the runtime's listeners look into it */
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    char **services;
    int count = read_arguments(argc, argv, &serve, &services);
    if (count < 0)
        return count == -ECANCELED ? EXIT_OK : EXIT_USAGE;

    signal(SIGPIPE, SIG_IGN); /* a closed stderr is no reason to end */
    int r = make_runtime(&serve, &runtime);
    if (r < 0)
        return beam_exit_code(r, stderr);
    for (int i = 0; i < count; i++) {
        int status = service_add(runtime, services[i]);
        if (status != EXIT_OK)
            return status;
    }
    stop_on_signals(runtime, serve.quiet);
    int status = listen_and_run(runtime, &serve);
    if (status == EXIT_OK)
        status = service_kv_status();
    end_on_signals(); /* what they would stop is about to be freed */
    alarm(0);
    return status;
}
