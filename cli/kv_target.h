/* What a verb of `beam kv` works on: a store that somebody serves, named by a URL, or the file of one. */
#ifndef CLI_KV_TARGET_H
#define CLI_KV_TARGET_H

#include "cli/arguments.h"
#include "cli/credentials.h"

struct kv_own;

/* Zeroed, then filled in by options and kv_target_take(). */
struct kv_target {
    const char *verb; /* "kv get" */
    const char *text; /* the word: a path or a URL */
    bool is_url;
    bool json;                      /* how calls end is told as JSON, too */
    const char *service;            /* --service */
    const char *sync;               /* --sync */
    uint64_t timeout_ns;            /* --timeout, of each step */
    struct credentials credentials; /* of a URL */

    beam_runtime *runtime;
    beam_session *session; /* to whoever has the store: its server, or ourselves */
    struct kv_own *own;    /* of a file: the store that we have opened */
    bool was_empty;        /* ... then: nothing had ever been put into it */
};

/* Rows of a table of options. */
#define KV_OPTIONS_URL(target)                                                                     \
    {"--service", OPTION_TEXT, &(target)->service, 0, 0},                                          \
        {"--timeout", OPTION_DURATION, &(target)->timeout_ns, 1, INT64_MAX},                       \
        CREDENTIALS_OPTIONS(&(target)->credentials)
#define KV_OPTIONS_WRITE(target) {"--sync", OPTION_TEXT, &(target)->sync, 0, 0},
#define KV_OPTIONS_END {NULL, OPTION_FLAG, NULL, 0, 0},

/* What they mean, in the words of --help. */
#define KV_HELP_URL                                                                                \
    "    --service NAME       the store is served under NAME (kv)\n"                               \
    "    --timeout TIME       give up after TIME: 500ms, 2s, 1m\n" CREDENTIALS_HELP
#define KV_HELP_DAMAGED                                                                            \
    "exit code 1: also of a FILE that is damaged; what is printed is then what can be read of\n"   \
    "it, as of an earlier revision.\n"                                                             \
    "\n"
#define KV_HELP_SYNC                                                                               \
    "    --sync WHEN          of a FILE: each transaction waits for the disk: each; does not: \n"  \
    "                         batch, none (each)\n"

/* Takes the word behind the verb. -EINVAL after saying what is wrong with it, or with the options. */
int kv_target_take(struct kv_target *target, const char *word);

/* The same for a verb that knows files alone, or URLs alone. */
int kv_target_take_file(struct kv_target *target, const char *word);
int kv_target_take_url(struct kv_target *target, const char *word);

/* Reaches the store: connects to its server, or opens the file as a store of our own, which nobody else
 * can then. `make`: a file that is not there is made. An enum exit_status, after saying what failed. */
int kv_target_open(struct kv_target *target, bool make);

/* Closes what was opened, however far it came, and with it the file. status: how all went so far.
 * Returns that, or what went wrong at the end. */
int kv_target_close(struct kv_target *target, int status);

/* "kv.get": the service that does it. */
struct kv_name {
    char text[256];
};
struct kv_name kv_target_service(const struct kv_target *target, const char *verb);

/* Reads the state of a file, without opening it as a store; says when that goes no further than some
 * damage. *ret_info (may be NULL) is written before fn is called, and -ECANCELED from fn is no error. An enum exit_status, after saying what
 * failed; EXIT_OK also of what is damaged. */
int kv_target_read(const struct kv_target *target, beam_store_entry_fn *fn, void *arg,
                   struct beam_store_file_info *ret_info);

/* The exit code for what was made of a state that was read: status, or EXIT_OTHER if the file is damaged
 * behind it, so that nobody takes a part for the whole. */
int kv_target_status(const struct beam_store_file_info *info, int status);

/* The text of an error with the file of a store. Returns the exit code. */
int kv_target_complain(const struct kv_target *target, int error);

#endif
