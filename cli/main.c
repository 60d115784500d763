/* beam, the program: finds the verb, and has what the verbs share: exit codes and complaints. */
#include "cli/verbs.h"
#include "cli/output.h"
#include "cli/transports.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: beam VERB ...\n"
    "\n"
    "Beam connects programs, on one machine or over networks, by messages, calls and file "
    "descriptors.\n"
    "\n"
    "    beam serve    offer services on sockets\n"
    "    beam call     call a service once and print the answer\n"
    "    beam watch    print the messages of a service as they come\n"
    "    beam convert  turn a document into another format: kv, json, msgpack, xml\n"
    "    beam kv       read, change, follow, copy and check stores of keys and values\n"
    "    beam cert     make certificates for trying things with https://\n"
    "    beam bench    measure this machine\n"
    "\n"
    "`beam VERB --help` explains each; `beam --version` shows what this machine can do.\n"
    "\n"
    "try it:\n"
    "    beam serve echo files=file:/etc clock --listen unix:/tmp/b.sock &\n"
    "    beam call unix:/tmp/b.sock echo text=hi\n"
    "    beam call unix:/tmp/b.sock files path=hostname --save-fd -\n"
    "    beam watch unix:/tmp/b.sock clock rate:=2 count:=5\n"
    "    kill %1\n"
    "\n"
    "exit codes:\n"
    "    0   it worked\n"
    "    1   something else failed\n"
    "    2   the command line is wrong\n"
    "    3   there is no io_uring here\n"
    "    4   nobody is there: no such socket, refused, or gone before it ran\n"
    "    5   not permitted; a certificate or an identity that one side does not accept\n"
    "    6   a limit was reached or a name is in use: memory, descriptors, sockets\n"
    "    7   the time was up\n"
    "    8   not found: no service of this name, or what it was asked for\n"
    "    9   the service answered with another error\n"
    "    10  kv check, kv load: the file ends in something torn, which the next to open it cuts "
    "off\n";

struct verb {
    const char *name;
    int (*run)(int argc, char **argv);
};

static const struct verb verbs[] = {
    {"serve", serve_main},      {"call", call_main},       {"watch", watch_main},
    {"convert", convert_main},  {"kv", kv_main},           {"cert", cert_main},
    {"bench", beam_bench_main}, {"version", version_main},
};

int exit_status_of_file(int error)
{
    int status = beam_exit_code(error, NULL);
    return status == EXIT_UNAVAILABLE || error == -EINVAL ? EXIT_OTHER : status;
}

/* What a person can do about what happened over a network; NULL: nothing is known that the text of the
 * error does not say. */
static const char *advice_for(int error)
{
    switch (-error) {
    case BEAM_ETLS_CERTIFICATE:
        return "the server's certificate is not trusted, or not for this name: --ca FILE names "
               "whom to trust, --server-name NAME the name that it is for";
    case BEAM_ETLS_ALERT:
        return "the server refuses: it may want a certificate, one of its own clients' (--cert "
               "FILE --key FILE)";
    case BEAM_ETLS_CONFIGURATION:
        return "--ca, --cert or --key cannot be used: is it PEM, and is the key the "
               "certificate's?";
    case BEAM_ETLS_PROTOCOL:
        return "what answers there does not speak TLS; http:// does without";
    case BEAM_EH2_PREFACE:
    case BEAM_EHTTP_SYNTAX:
        return "what answers there does not speak HTTP; https:// speaks it encrypted";
    case EACCES:
        return "the server does not let in who asks (401, 403): --token-file FILE, or --cert FILE "
               "--key FILE, say who that is";
    case EBUSY:
        return "the server is too busy, ending, or not there behind its proxy (429, 502, 503, "
               "504); "
               "later it may not be";
    case EPROTO:
    case EPROTONOSUPPORT:
        return "what answers there is no Beam of this version, or a proxy that lets nothing of it "
               "through";
    case ENOENT:
        return "there is no host of this name";
    default:
        return NULL;
    }
}

int fail_at(const char *what, const char *url, int error)
{
    if (error == -ETIMEDOUT) {
        fprintf(stderr, "beam: %s: %s: the time was up\n", url, what);
        return EXIT_DEADLINE;
    }
    if (error == -EMSGSIZE) {
        fprintf(stderr, "beam: %s: %s: longer than the other side takes (serve --message)\n", url,
                what);
        return EXIT_LIMIT;
    }
    if (error == -EINVAL) { /* URLs have errors of their own */
        fprintf(stderr, "beam: \"%s\" is no name of a service: 1 to 255 bytes of UTF-8\n", what);
        return EXIT_USAGE;
    }
    const char *advice = transport_is_net(url) ? advice_for(error) : NULL;
    if (advice) {
        fprintf(stderr, "beam: %s: %s\n", url, advice);
        return error == -EBUSY ? EXIT_UNAVAILABLE : beam_exit_code(error, NULL);
    }
    fprintf(stderr, "beam: %s: %s failed\n", url, what);
    return beam_exit_code(error, stderr);
}

void log_to_stderr(enum beam_log_level level, const char *text, void *arg)
{
    const enum beam_log_level *last_shown = arg;
    if (level > *last_shown)
        return;
    fprintf(stderr, "beam: %s%s\n",
            level == BEAM_LOG_ERROR     ? "error: "
            : level == BEAM_LOG_WARNING ? "warning: "
                                        : "",
            text);
}

/* A program can be started with a standard descriptor closed. The first socket or ring would get its
 * number, and what is printed would go into that. Opened the wrong way round the number is taken, and
 * using it fails as it would have: EBADF. */
static void take_standard_descriptors(void)
{
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            (void)open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

static int run(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        fputs(help, argc > 1 ? stdout : stderr);
        return argc > 1 ? EXIT_OK : EXIT_USAGE;
    }
    if (strcmp(name, "--version") == 0)
        return version_main(argc - 1, argv + 1);
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].name, name) == 0 && verbs[i].run)
            return verbs[i].run(argc - 1, argv + 1);
    fprintf(stderr, "beam: %s: there is no such verb%s; `beam --help` lists them\n", name,
            strcmp(name, "bench") == 0 ? " in a program built without bench/" : "");
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    take_standard_descriptors();
    int status = run(argc, argv);
    /* Whoever reads the output must not take a part of it for the whole. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && status == EXIT_OK) {
        fprintf(stderr, "beam: standard output: %s\n", strerror(errno));
        status = EXIT_OTHER;
    }
    return status;
}
