/* `beam kv dump`: all of a store, as of one revision.
 *
 * From a server it comes by a replica, which is complete at a revision; from a file as it lies. */
#include "cli/kv.h"
#include "cli/kv_target.h"
#include "cli/kv_text.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <errno.h>
#include <semaphore.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "usage: beam kv dump FILE|URL [OPTION...] > COPY\n"
    "\n"
    "Writes all keys and values, as of one revision, to standard output: as a file that is itself\n"
    "that of a store, short, with the same revision and an epoch of its own.\n"
    "\n"
    "    --json               one object a line instead: {\"key\":..., \"value\":...}\n" KV_HELP_URL
    "\n" KV_HELP_DAMAGED "examples:\n"
    "    beam kv dump unix:/tmp/b.sock > backup.kv\n"
    "    beam serve kv --listen unix:/tmp/c.sock --store backup.kv\n"
    "    beam kv dump settings.kv --json | jq -r .key\n"
    "    beam kv dump unix:/tmp/b.sock --json | beam kv load other.kv\n";

struct dump {
    struct kv_target target;
    struct beam_store_file_info info; /* of a file */
    beam_store_dump *file;            /* what is written, unless it is JSON */
    bool begun;
    int error; /* of writing */

    /* Of a server; the reactor's until `done`. */
    beam_replica *replica;
    int status;
    sem_t done;
};

static int read_arguments(int argc, char **argv, struct dump *dump)
{
    struct kv_target *target = &dump->target;
    const struct option options[] = {{"--json", OPTION_FLAG, &target->json, 0, 0},
                                     KV_OPTIONS_URL(target) KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count != 1) {
        fprintf(stderr, "beam: kv dump: please name a file or URL, as in\n"
                        "    beam kv dump unix:/tmp/b.sock > backup.kv\n");
        return -EINVAL;
    }
    if (!target->json && isatty(1)) {
        fprintf(stderr, "beam: kv dump: what it writes is not for a terminal; please add --json, "
                        "or > FILE\n");
        return -EINVAL;
    }
    return kv_target_take(target, words[0]);
}

/* --- writing --------------------------------------------------------------------------------- */

static int write_bytes(const void *bytes, size_t len, void *arg)
{
    errno = 0;
    if (fwrite(bytes, 1, len, stdout) == len)
        return 0;
    return errno ? -errno : -EIO;
}

static int begin(struct dump *dump, uint64_t rev)
{
    dump->begun = true;
    return dump->target.json ? 0 : beam_store_dump_new(rev, write_bytes, NULL, &dump->file);
}

static int put(struct dump *dump, beam_str key, const beam_kv_value *value)
{
    if (!dump->target.json)
        return beam_store_dump_put(dump->file, key, value);
    int r = kv_text_line(stdout, key, value);
    return r >= 0 && ferror(stdout) ? -EIO : r;
}

/* error: of what came before. */
static int end(struct dump *dump, int error)
{
    if (error >= 0 && dump->file)
        error = beam_store_dump_end(dump->file);
    dump->file = beam_store_dump_free(dump->file);
    if (error >= 0 && fflush(stdout) != 0)
        error = -errno;
    if (error < 0)
        fprintf(stderr, "beam: kv dump: %s\n", beam_strerror(error));
    return error < 0 ? EXIT_OTHER : EXIT_OK;
}

/* --- from a file ----------------------------------------------------------------------------- */

static int on_entry(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg)
{
    struct dump *dump = arg;
    if (!dump->begun)
        dump->error = begin(dump, dump->info.rev);
    if (dump->error >= 0)
        dump->error = put(dump, key, value);
    return dump->error < 0 ? -ECANCELED : 0;
}

static int dump_file(struct dump *dump)
{
    int status = kv_target_read(&dump->target, on_entry, dump, &dump->info);
    if (status == EXIT_OK && !dump->begun) /* no key at all */
        dump->error = begin(dump, dump->info.rev);
    int ended = end(dump, status == EXIT_OK ? dump->error : 0);
    return status == EXIT_OK ? kv_target_status(&dump->info, ended) : status;
}

/* --- from a server --------------------------------------------------------------------------- */

static void finish(struct dump *dump, int status)
{
    dump->status = status;
    dump->replica = beam_replica_free(dump->replica);
    sem_post(&dump->done);
}

/* The replica is complete, and stays as it is while this runs. */
static void on_live(beam_replica *replica, uint64_t skipped, void *arg)
{
    struct dump *dump = arg;
    struct beam_replica_info info = BEAM_REPLICA_INFO();
    beam_kv_value value;
    int r = beam_replica_info(replica, &info);
    if (r >= 0)
        r = begin(dump, info.rev);
    for (beam_str key = {NULL, 0};
         r >= 0 && beam_replica_next(replica, (beam_str){"", 0}, key, &key, &value, NULL) > 0;)
        r = put(dump, key, &value);
    finish(dump, end(dump, r));
}

static void on_stale(beam_replica *replica, const struct beam_status *status, void *arg)
{
    struct dump *dump = arg;
    if (status->code == BEAM_OK) /* it begins anew: the store is fast, or we are slow */
        return;
    fprintf(stderr, "beam: %s: %s%s", dump->target.text, beam_code_text(status->code),
            status->message.len > 0 ? ": " : "");
    output_text(stderr, status->message);
    fputc('\n', stderr);
    finish(dump, beam_exit_code((int)status->code, NULL));
}

static void start(void *arg)
{
    static const struct beam_replica_handlers handlers = {.on_live = on_live, .on_stale = on_stale};
    struct dump *dump = arg;
    int r = beam_replica_new(
        &BEAM_REPLICA_OPTIONS(.service = dump->target.service, .handlers = &handlers, .arg = dump),
        &dump->replica);
    if (r >= 0)
        r = beam_replica_attach(dump->replica, dump->target.session);
    if (r < 0)
        finish(dump, fail_at("watching", dump->target.text, r));
}

static int dump_server(struct dump *dump)
{
    int status = kv_target_open(&dump->target, false);
    if (status == EXIT_OK) {
        sem_init(&dump->done, 0, 0);
        int r = beam_post(dump->target.runtime, 0, start, dump);
        while (r >= 0 && sem_wait(&dump->done) < 0 && errno == EINTR) {
        }
        status = r < 0 ? beam_exit_code(r, stderr) : dump->status;
        sem_destroy(&dump->done);
    }
    return kv_target_close(&dump->target, status);
}

int kv_dump_main(int argc, char **argv)
{
    struct dump dump = {0};
    int r = read_arguments(argc, argv, &dump);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    return dump.target.is_url ? dump_server(&dump) : dump_file(&dump);
}
