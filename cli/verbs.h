/* The verbs of the program, and the exit codes they share. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include <beam/beam.h>

/* Those of beam_exit_code() that the program gives by itself; the help in main.c explains all of them. */
enum exit_status {
    EXIT_OK = 0,
    EXIT_OTHER = 1,
    EXIT_USAGE = 2,
    EXIT_UNAVAILABLE = 4,
    EXIT_LIMIT = 6,
    EXIT_DEADLINE = 7,
    EXIT_NOT_FOUND = 8,
    EXIT_TORN = 10, /* of `kv check` and `kv load` */
};

/* Each gets its own name as argv[0] and returns the exit code of the program. */
int serve_main(int argc, char **argv);
int call_main(int argc, char **argv);
int watch_main(int argc, char **argv);
int convert_main(int argc, char **argv);
int kv_main(int argc, char **argv);
int cert_main(int argc, char **argv);
int version_main(int argc, char **argv);

/* bench/ brings this one; a program built without it has no such verb. */
int beam_bench_main(int argc, char **argv) __attribute__((__weak__));

extern const char serve_help[], call_help[], watch_help[], kv_help[];

/* The exit code for what failed with a file of this machine: no ENOENT means there that a peer is not
 * there, and no EINVAL that the command line is wrong. */
int exit_status_of_file(int error);

/* Says on stderr what failed here (an error of the library) and at which URL; returns the exit
 * code. */
int fail_at(const char *what, const char *url, int error);

/* What the library logs goes to stderr; arg is a `const enum beam_log_level *`: the last level that
 * is still shown. */
void log_to_stderr(enum beam_log_level level, const char *text, void *arg);

#endif
