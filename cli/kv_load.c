/* `beam kv load`: what a dump holds is put into a store, in transactions of a sensible size.
 *
 * Each transaction waits for the one before it. A key that comes twice has the last of its values: a
 * batch that has a key already goes first.
 *
 * A copy that is the file of a store is judged as a whole before anything of it is put: what is damaged is
 * not loaded, and what is torn as far as it goes, which is said. A FILE is opened, and made, when there is a
 * first transaction for it, so that a copy that is none leaves none behind. */
#include "cli/kv.h"
#include "cli/kv_call.h"
#include "cli/kv_text.h"
#include "cli/progress.h"
#include "cli/verbs.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char help[] =
    "usage: beam kv load FILE|URL [COPY|-] [OPTION...]\n"
    "\n"
    "Sets the keys that COPY holds, or standard input: lines of {\"key\":..., \"value\":...}, or "
    "what\n"
    "`beam kv dump` or a store has written. Others stay. It is done in transactions of some 256 "
    "KiB; if\n"
    "one fails, those before it stay, and loading again does no harm. FILE is made if it is not "
    "there.\n"
    "\n" KV_HELP_SYNC KV_HELP_URL "\n"
    "exit code 10: COPY ends in something torn; what is before that was loaded. A copy that is\n"
    "damaged is not loaded: exit code 1.\n"
    "\n"
    "examples:\n"
    "    beam kv load new.kv backup.kv\n"
    "    beam kv dump unix:/tmp/b.sock --json | beam kv load new.kv\n"
    "    echo '{\"key\":\"cfg/port\",\"value\":8080}' | beam kv load unix:/tmp/b.sock\n";

#define BATCH_LEN_MAX ((size_t)256 << 10) /* ours: a quarter of what stores take by default */
#define BATCH_COUNT_MAX 1000u             /* ours */

struct load {
    struct kv_target target;
    const char *copy, *name; /* the word, and what it is called */
    struct progress progress;
    struct beam_store_file_info info; /* of a copy that is a file of a store */
    uint64_t read;                    /* bytes of it, or of lines */
    int status;                       /* of what failed, after saying so */
    bool opened;                      /* the target */
    bool made;                        /* ... was not there before, and nothing was in it */

    /* The batch: a question that is open while count > 0. */
    struct kv_call call;
    unsigned count;
    size_t len;                        /* of its keys and values */
    uint64_t digests[BATCH_COUNT_MAX]; /* of its keys */
    uint64_t keys, transactions;       /* done */
};

static int read_arguments(int argc, char **argv, struct load *load)
{
    struct kv_target *target = &load->target;
    const struct option options[] = {KV_OPTIONS_WRITE(target) KV_OPTIONS_URL(target)
                                         KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count < 1 || count > 2) {
        fprintf(stderr,
                "beam: kv load: please name a file or URL, and perhaps what to load, as in\n"
                "    beam kv load new.kv backup.kv\n");
        return -EINVAL;
    }
    load->copy = count > 1 ? words[1] : "-";
    return kv_target_take(target, words[0]);
}

/* --- batches --------------------------------------------------------------------------------- */

static int open_target(struct load *load)
{
    struct kv_target *target = &load->target;
    if (load->opened)
        return EXIT_OK;
    bool new = !target->is_url &&access(target->text, F_OK) < 0;
    int status = kv_target_open(target, true);
    load->opened = status == EXIT_OK;
    /* Another process may have made it since that look: what it has put there is not taken away. */
    load->made = load->opened && new && target->was_empty;
    return status;
}

/* What was made for a copy of which nothing could be put is taken away again, while nobody else can have it. */
static int close_target(struct load *load, int status)
{
    bool failed = status != EXIT_OK && status != EXIT_TORN;
    if (failed && load->made && load->transactions == 0)
        unlink(load->target.text);
    return kv_target_close(&load->target, status);
}

static int flush(struct load *load)
{
    if (load->count == 0)
        return EXIT_OK;
    int status = open_target(load);
    load->call.silent = true;
    beam_kv_end(&load->call.argument);
    if (status == EXIT_OK)
        status = kv_call_make(&load->call, &load->target, "txn");
    kv_call_end(&load->call);
    if (status == EXIT_OK) {
        load->keys += load->count;
        load->transactions++;
    }
    load->count = 0;
    return status;
}

static bool has(const struct load *load, uint64_t digest)
{
    for (unsigned i = 0; i < load->count; i++)
        if (load->digests[i] == digest)
            return true;
    return false;
}

static size_t value_len(const beam_kv_value *value)
{
    return value->type >= BEAM_KV_STR ? value->bytes.len : 8;
}

/* An enum exit_status. */
static int add(struct load *load, beam_str key, const beam_kv_value *value)
{
    uint64_t digest = beam_xxh3(key.ptr, key.len);
    size_t len = key.len + value_len(value);
    bool full = load->count == BATCH_COUNT_MAX || load->len + len > BATCH_LEN_MAX;
    if (load->count > 0 && (full || has(load, digest))) {
        int status = flush(load);
        if (status != EXIT_OK)
            return status;
    }
    if (load->count == 0) {
        kv_call_begin(&load->call);
        beam_kv_begin_map(&load->call.argument, "set");
        load->len = 0;
    }
    load->len += len;
    load->digests[load->count++] = digest;
    beam_kv_put(&load->call.argument, key, value);
    return EXIT_OK;
}

/* What keeps a line from being read, and is no fault of it. */
static int fail_at_line(const struct load *load, uint64_t line, int error)
{
    fprintf(stderr, "beam: %s: line %" PRIu64 ": %s\n", load->name, line, beam_strerror(error));
    return error == -BEAM_ECODEC_TOO_LARGE ? EXIT_LIMIT : exit_status_of_file(error);
}

/* --- lines ----------------------------------------------------------------------------------- */

static int complain(const struct load *load, uint64_t line, const char *what)
{
    fprintf(stderr,
            "beam: %s: line %" PRIu64 ": %s; a line is {\"key\":\"cfg/port\",\"value\":8080}\n",
            load->name, line, what);
    return EXIT_USAGE;
}

static int add_line(struct load *load, uint64_t line, const char *text, size_t len,
                    beam_buffer *document)
{
    beam_kv_value map, value;
    beam_str key;
    int r = kv_text_read(text, len, document, NULL);
    if (r == -ENOMEM || r == -BEAM_ECODEC_TOO_LARGE)
        return fail_at_line(load, line, r);
    if (r < 0)
        return complain(load, line, beam_strerror(r));
    r = beam_kv_root(document->ptr, document->len, &map);
    if (r < 0 || map.type != BEAM_KV_MAP || beam_kv_get_str(&map, "key", &key) < 0)
        return complain(load, line, "it has no key that is a string");
    if (beam_kv_get(&map, "value", &value) < 0)
        return complain(load, line, "it has no value");
    if (key.len == 0 || key.len > BEAM_STORE_KEY_LEN_MAX)
        return complain(load, line, "a key has 1 to 1024 bytes");
    return add(load, key, &value);
}

static int load_lines(struct load *load, FILE *in)
{
    beam_buffer document;
    char *text = NULL;
    size_t cap = 0;
    uint64_t line = 0;
    ssize_t len;
    int status = EXIT_OK;
    beam_buffer_init(&document, BEAM_KV_LEN_MAX);
    while (status == EXIT_OK && (errno = 0, len = getline(&text, &cap, in)) > 0) {
        line++;
        load->read += (uint64_t)len;
        if (strspn(text, " \t\r\n") < (size_t)len)
            status = add_line(load, line, text, (size_t)len, &document);
        progress_update(&load->progress, load->read);
    }
    if (status == EXIT_OK && !feof(in)) /* -1 is also told of a line that memory does not hold */
        status = fail_at_line(load, line + 1, errno ? -errno : -EIO);
    progress_end(&load->progress, load->read);
    free(text);
    beam_buffer_deinit(&document);
    return status;
}

/* --- files of stores ------------------------------------------------------------------------- */

static int add_entry(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg)
{
    struct load *load = arg;
    if (load->info.verdict < 0)
        return load->info.verdict; /* what is missing a part is no copy */
    load->status = add(load, key, value);
    load->read += key.len + value_len(value);
    load->progress.total = load->info.data_len;
    progress_update(&load->progress, load->read);
    return load->status == EXIT_OK ? 0 : -ECANCELED;
}

static int read_all(FILE *in, beam_buffer *bytes)
{
    unsigned char *room;
    size_t n = 1;
    int r = 0;
    while (n > 0 && (r = beam_buffer_reserve(bytes, BATCH_LEN_MAX, &room)) >= 0) {
        n = fread(room, 1, BATCH_LEN_MAX, in);
        beam_buffer_advance(bytes, n);
    }
    return r < 0 ? r : ferror(in) ? -EIO : 0;
}

/* The name under which the file that is open as `in` can be opened again, for free(3). NULL: it has none, or
 * comes but once, as of a pipe. */
static char *name_of(const struct load *load, FILE *in)
{
    struct stat here, there;
    if (in == stdin || fstat(fileno(in), &here) < 0 || !S_ISREG(here.st_mode))
        return NULL;
    char *name = realpath(load->copy, NULL); /* a link is not followed when a store is read */
    if (name && lstat(name, &there) == 0 && here.st_dev == there.st_dev &&
        here.st_ino == there.st_ino)
        return name;
    free(name);
    return NULL;
}

/* A file is read by its name, as it may be long; what has none, whole. */
static int load_file(struct load *load, FILE *in)
{
    struct kv_target copy = {.text = load->name};
    beam_buffer bytes;
    int r;
    load->info = BEAM_STORE_FILE_INFO();
    beam_buffer_init(&bytes, SIZE_MAX / 2);
    char *name = name_of(load, in);
    if (!name) {
        r = read_all(in, &bytes);
        if (r >= 0)
            r = beam_store_read(bytes.ptr, bytes.len, add_entry, load, &load->info);
    } else {
        r = beam_store_read_file(name, add_entry, load, &load->info);
    }
    free(name);
    beam_buffer_deinit(&bytes);
    progress_end(&load->progress, load->read);
    if (r >= 0 && load->info.verdict < 0) /* without a key that could have been refused */
        r = load->info.verdict;
    return r < 0 && r != -ECANCELED ? kv_target_complain(&copy, r) : load->status;
}

/* status, or that of a copy of which all was loaded that is not torn. */
static int tell_torn(const struct load *load, int status)
{
    if (status != EXIT_OK || load->info.tail_len == 0)
        return status;
    fprintf(stderr,
            "beam: %s: it ends in something torn, %" PRIu64 " bytes at offset %" PRIu64
            "; what is loaded is its revision %" PRIu64 ", and what came behind that is not in it "
            "(see beam kv check)\n",
            load->name, load->info.tail_len, load->info.file_len, load->info.rev);
    return EXIT_TORN;
}

/* --- either ---------------------------------------------------------------------------------- */

/* A file of a store begins with a record (docs/spec/kv.md, R1 and R5), and that with '@'. */
static int load_all(struct load *load, FILE *in)
{
    struct kv_target copy = {.text = load->name};
    int status;
    errno = 0;
    int first = getc(in);
    if (first != EOF)
        ungetc(first, in);
    if (ferror(in)) /* of a folder, for one */
        status = kv_target_complain(&copy, errno ? -errno : -EIO);
    else
        status = first == '@' ? load_file(load, in) : load_lines(load, in);
    if (status == EXIT_OK)
        status = flush(load);
    if (status == EXIT_OK)
        status = open_target(load); /* of no keys comes a store without any */
    if (load->count > 0)
        kv_call_end(&load->call);
    fprintf(stderr, "keys loaded: %" PRIu64 ", in transactions: %" PRIu64 "%s\n", load->keys,
            load->transactions, status == EXIT_OK ? "" : ", and then it failed");
    return tell_torn(load, status);
}

int kv_load_main(int argc, char **argv)
{
    struct load load = {0};
    struct stat st;
    char what[64];
    int r = read_arguments(argc, argv, &load);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    bool standard = strcmp(load.copy, "-") == 0;
    FILE *in = standard ? stdin : fopen(load.copy, "re");
    if (!in) {
        fprintf(stderr, "beam: %s: %s\n", load.copy, strerror(errno));
        return EXIT_OTHER;
    }
    bool regular = fstat(fileno(in), &st) == 0 && S_ISREG(st.st_mode);
    load.name = standard ? "standard input" : load.copy;
    snprintf(what, sizeof(what), "loading %s", load.name);
    progress_begin(&load.progress, what, regular ? (uint64_t)st.st_size : 0);
    int status = load.target.is_url ? open_target(&load) : EXIT_OK;
    if (status == EXIT_OK)
        status = load_all(&load, in);
    if (!standard)
        fclose(in);
    return close_target(&load, status);
}
