/* Targets of `beam kv`: one way to a store, whoever has it.
 *
 * A file that is written is opened as a store of a runtime of our own, which serves it; and then a
 * session leads there as one would lead to another process. So all verbs that change something speak to
 * services and nothing else. Files that are only read are read as they lie, without a lock, also while
 * a server has them. */
#include "cli/kv_target.h"

#include "cli/progress.h"
#include "cli/transports.h"
#include "cli/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OWN_TXN_LEN_MAX (16u << 20) /* docs/spec/kv.md, Y8: nobody else's memory is at stake */

/* A file as a store of our own. The reactor's, but while it is waited for. */
struct kv_own {
    beam_runtime *runtime;
    const char *path;
    enum beam_store_sync sync;
    beam_store *store;
    bool opened, was_empty;
    int error;
    sem_t done;
};

static int read_sync(const struct kv_target *target, enum beam_store_sync *ret)
{
    static const char *const names[] = {"each", "batch", "none"};
    *ret = BEAM_STORE_SYNC_EACH;
    for (unsigned i = 0; target->sync && i < 3; i++) {
        if (strcmp(target->sync, names[i]) == 0) {
            *ret = (enum beam_store_sync)i;
            return 0;
        }
    }
    if (target->sync)
        fprintf(stderr, "beam: %s: --sync %s: please write each, batch or none\n", target->verb,
                target->sync);
    return target->sync ? -EINVAL : 0;
}

/* A path is anything that does not begin like a URL: letters ("+" too: http+unix), and a colon before the first slash. */
static bool is_url(const char *word)
{
    size_t scheme = strspn(word, "abcdefghijklmnopqrstuvwxyz+");
    return scheme > 0 && word[scheme] == ':';
}

static int complain(const struct kv_target *target, const char *what)
{
    fprintf(stderr, "beam: %s: %s: %s\n", target->verb, target->text, what);
    return -EINVAL;
}

int kv_target_take(struct kv_target *target, const char *word)
{
    enum beam_store_sync sync;
    target->text = word;
    target->is_url = is_url(word);
    if (target->is_url && argument_url(target->verb, word) < 0)
        return -EINVAL;
    if (!*word)
        return complain(target, "please name a file or a URL");
    if (target->is_url && target->sync)
        return complain(target, "--sync is for a FILE; a server has its own");
    if (!target->is_url && target->service)
        return complain(target, "--service is for a URL; a file has one store");
    if (credentials_take(&target->credentials, target->verb, word) < 0)
        return -EINVAL;
    return read_sync(target, &sync);
}

int kv_target_take_file(struct kv_target *target, const char *word)
{
    target->text = word;
    if (is_url(word))
        return complain(target, "please name the file, which may be in use (./NAME if there is a "
                                "colon in it)");
    return kv_target_take(target, word);
}

int kv_target_take_url(struct kv_target *target, const char *word)
{
    target->text = word;
    if (!is_url(word))
        return complain(target, "a file cannot be followed; please name the URL of its server, as "
                                "in\n    beam kv watch unix:/tmp/b.sock");
    return kv_target_take(target, word);
}

struct kv_name kv_target_service(const struct kv_target *target, const char *verb)
{
    struct kv_name name;
    snprintf(name.text, sizeof(name.text), "%s.%s",
             target->is_url && target->service ? target->service : "kv", verb);
    return name;
}

int kv_target_complain(const struct kv_target *target, int error)
{
    fprintf(stderr, "beam: %s: ", target->text);
    switch (error) {
    case -BEAM_EKV_LOCKED:
        fprintf(stderr, "it is in use: another process has it open as a store. Reading works all "
                        "the same; to change it name the URL of its server instead\n");
        return EXIT_LIMIT;
    case -BEAM_EKV_CORRUPT:
        fprintf(stderr, "it is damaged; `beam kv check` says where, and what can be read\n");
        return EXIT_OTHER;
    case -BEAM_EKV_FORMAT:
        fprintf(stderr, "not the file of a store, or of one that is newer than this program\n");
        return EXIT_OTHER;
    case -ELOOP:
        fprintf(stderr, "a symbolic link, which is not followed; please name what it leads to\n");
        return EXIT_OTHER;
    default:
        fprintf(stderr, "%s\n", beam_strerror(error));
        return exit_status_of_file(error);
    }
}

/* --- opening --------------------------------------------------------------------------------- */

static void open_own(void *arg)
{
    struct kv_own *own = arg;
    own->error = beam_store_open(
        own->runtime,
        &BEAM_STORE_OPTIONS(.path = own->path, .sync = own->sync, .txn_len_max = OWN_TXN_LEN_MAX),
        &own->store);
    own->opened = own->error >= 0;
    struct beam_store_info info = BEAM_STORE_INFO();
    if (own->error >= 0)
        own->error = beam_store_info(own->store, &info);
    own->was_empty = own->error >= 0 && info.rev == 0 && info.keys == 0;
    if (own->error >= 0)
        own->error = beam_store_serve(own->store, NULL);
    sem_post(&own->done);
}

static void on_closed(int error, uint64_t rev, void *arg)
{
    struct kv_own *own = arg;
    own->error = error;
    sem_post(&own->done);
}

static void close_own(void *arg)
{
    struct kv_own *own = arg;
    beam_store_close(own->store, on_closed, own);
}

static int run_own(struct kv_own *own, beam_post_fn *fn)
{
    int r = beam_post(own->runtime, 0, fn, own);
    if (r < 0)
        return r;
    while (sem_wait(&own->done) < 0 && errno == EINTR) {
    }
    return own->error;
}

static int open_file(struct kv_target *target, bool make)
{
    if (!make && access(target->text, F_OK) < 0)
        return kv_target_complain(target, -errno);
    struct kv_own *own = calloc(1, sizeof(*own));
    if (!own)
        return beam_exit_code(-ENOMEM, stderr);
    own->runtime = target->runtime;
    own->path = target->text;
    (void)read_sync(target, &own->sync);
    sem_init(&own->done, 0, 0);
    target->own = own;
    int r = run_own(own, open_own);
    target->was_empty = own->was_empty;
    return r < 0 ? kv_target_complain(target, r) : EXIT_OK;
}

/* What was cut off a file is a warning. Why one could not be opened is for kv_target_complain. */
static void log_text(enum beam_log_level level, const char *text, void *arg)
{
    const struct kv_target *target = arg;
    enum beam_log_level last_shown = target->is_url ? BEAM_LOG_ERROR : BEAM_LOG_WARNING;
    bool opening = target->own && !target->own->opened;
    if (level != BEAM_LOG_ERROR || !opening)
        log_to_stderr(level, text, &last_shown);
}

int kv_target_open(struct kv_target *target, bool make)
{
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.transports = transports_all, .log = log_text, .log_arg = target);
    int r = beam_runtime_new(&options, &target->runtime);
    if (r >= 0)
        r = beam_start(target->runtime);
    if (r < 0)
        return beam_exit_code(r, stderr);
    int status = target->is_url ? EXIT_OK : open_file(target, make);
    if (status != EXIT_OK)
        return status;
    progress_wait_begin();
    r = beam_connect_wait(
        target->runtime, target->is_url ? target->text : "ring:0",
        &BEAM_CONNECT_OPTIONS(.timeout_ns = target->timeout_ns,
                              .net = credentials_net(&target->credentials, target->text)),
        &target->session);
    progress_wait_end();
    return r < 0 ? fail_at("connecting", target->text, r) : EXIT_OK;
}

int kv_target_close(struct kv_target *target, int status)
{
    struct kv_own *own = target->own;
    target->session = beam_session_free(target->session);
    if (own && own->store) {
        int r = run_own(own, close_own);
        if (r < 0 && status == EXIT_OK)
            status = kv_target_complain(target, r);
    }
    target->runtime = beam_runtime_free(target->runtime);
    if (own)
        sem_destroy(&own->done);
    free(own);
    credentials_free(&target->credentials);
    target->own = NULL;
    return status;
}

/* --- reading --------------------------------------------------------------------------------- */

int kv_target_read(const struct kv_target *target, beam_store_entry_fn *fn, void *arg,
                   struct beam_store_file_info *ret_info)
{
    struct beam_store_file_info unused, *info = ret_info ? ret_info : &unused;
    *info = BEAM_STORE_FILE_INFO();
    int r = beam_store_read_file(target->text, fn, arg, info);
    if (r < 0 && r != -ECANCELED)
        return kv_target_complain(target, r);
    if (info->verdict < 0)
        fprintf(stderr,
                "beam: warning: %s: damaged at offset %" PRIu64
                "; this is what it held at revision %" PRIu64 " (see beam kv check)\n",
                target->text, info->file_len, info->rev);
    return EXIT_OK;
}

int kv_target_status(const struct beam_store_file_info *info, int status)
{
    return info->verdict < 0 && (status == EXIT_OK || status == EXIT_NOT_FOUND) ? EXIT_OTHER
                                                                                : status;
}
