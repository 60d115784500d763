/* `beam kv watch`: what a server has, and what becomes of it (docs/spec/kv.md, Y9). */
#include "cli/kv.h"
#include "cli/kv_target.h"
#include "cli/kv_text.h"
#include "cli/output.h"
#include "cli/verbs.h"
#include "cli/watching.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: beam kv watch URL [PREFIX] [OPTION...]\n"
    "\n"
    "Prints the keys that begin with PREFIX, all as of one revision, and with --follow each "
    "change\n"
    "as it comes, until SIGINT. A line is one of\n"
    "\n"
    "    REV state EPOCH      what follows is the state, and replaces what was printed before. If "
    "the\n"
    "                         server has passed over revisions, because we were too slow, "
    "skipped=N\n"
    "                         says how many\n"
    "    REV resumed EPOCH    what follows is what has changed since --from\n"
    "    REV + KEY=TEXT       it has this value, or KEY:=JSON\n"
    "    REV - KEY            it is deleted\n"
    "    REV live             the state is complete\n"
    "\n"
    "    --follow             go on with changes\n"
    "    --from EPOCH:REV     what has changed since then, if the server still knows; else the "
    "state\n"
    "    --json               the messages of the server, one a line, marks among them: mark.rev "
    "is\n"
    "                         what can be given to --from\n" KV_HELP_URL "\n"
    "examples:\n"
    "    beam kv watch unix:/tmp/b.sock cfg/ --follow\n"
    "    beam kv watch unix:/tmp/b.sock --follow --from 1122334455667788:42\n"
    "    beam kv watch unix:/tmp/b.sock --follow --json | jq -c 'select(.kind==\"delta\")'\n";

struct watch {
    struct kv_target target;
    const char *prefix, *from;
    char epoch[17]; /* of --from */
    uint64_t rev;   /* of --from */
    bool follow;
    uint64_t until; /* without --follow: enough at this revision; UINT64_MAX: at `live` */
};

static int read_from(struct watch *watch)
{
    char *end;
    if (!watch->from)
        return 0;
    bool good = strspn(watch->from, "0123456789abcdef") == 16 && watch->from[16] == ':' &&
                watch->from[17] >= '0' && watch->from[17] <= '9';
    errno = 0;
    if (good) {
        memcpy(watch->epoch, watch->from, 16);
        watch->rev = strtoull(watch->from + 17, &end, 10);
    }
    if (!good || *end || errno || watch->rev > INT64_MAX) {
        fprintf(stderr,
                "beam: kv watch: --from %s: please write 16 hexadecimal digits, a colon, and "
                "a revision, such as 1122334455667788:42\n",
                watch->from);
        return -EINVAL;
    }
    return 0;
}

static int read_arguments(int argc, char **argv, struct watch *watch)
{
    struct kv_target *target = &watch->target;
    const struct option options[] = {{"--follow", OPTION_FLAG, &watch->follow, 0, 0},
                                     {"--from", OPTION_TEXT, &watch->from, 0, 0},
                                     {"--json", OPTION_FLAG, &target->json, 0, 0},
                                     KV_OPTIONS_URL(target) KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count < 1 || count > 2) {
        fprintf(stderr, "beam: kv watch: please name a URL and perhaps a prefix, as in\n"
                        "    beam kv watch unix:/tmp/b.sock cfg/ --follow\n");
        return -EINVAL;
    }
    watch->prefix = count > 1 ? words[1] : "";
    return read_from(watch) < 0 ? -EINVAL : kv_target_take_url(target, words[0]);
}

static int print_set(uint64_t rev, const beam_kv_value *map)
{
    beam_kv_value set, value;
    beam_kv_iter iter;
    beam_str key;
    int r = 0;
    if (beam_kv_get(map, "set", &set) < 0)
        return 0;
    beam_kv_iter_init(&iter, &set);
    while (r >= 0 && beam_kv_iter_next(&iter, &key, &value) > 0) {
        printf("%" PRIu64 " + ", rev);
        r = kv_text_pair(stdout, key, &value);
        putchar('\n');
    }
    return r;
}

static void print_delete(uint64_t rev, const beam_kv_value *map)
{
    beam_kv_value list, key;
    beam_kv_iter iter;
    if (beam_kv_get(map, "delete", &list) < 0)
        return;
    beam_kv_iter_init(&iter, &list);
    while (beam_kv_iter_next(&iter, NULL, &key) > 0) {
        if (key.type != BEAM_KV_STR)
            continue;
        printf("%" PRIu64 " - ", rev);
        output_text(stdout, key.str);
        putchar('\n');
    }
}

static void print_head(uint64_t rev, const beam_kv_value *map, bool resumed)
{
    beam_str epoch = {"", 0};
    uint64_t skipped = 0;
    (void)beam_kv_get_str(map, "epoch", &epoch);
    (void)beam_kv_get_uint(map, "skipped", &skipped);
    printf("%" PRIu64 " %s ", rev, resumed ? "resumed" : "state");
    output_text(stdout, epoch);
    if (skipped > 0)
        printf(" skipped=%" PRIu64, skipped);
    putchar('\n');
}

static bool is(beam_str kind, const char *text)
{
    return kind.len == strlen(text) && memcmp(kind.ptr, text, kind.len) == 0;
}

static int print_text(const beam_kv_value *map, beam_str kind, uint64_t rev, bool resumed)
{
    if (is(kind, "head"))
        print_head(rev, map, resumed);
    else if (is(kind, "live"))
        printf("%" PRIu64 " live\n", rev);
    else if (is(kind, "delta"))
        print_delete(rev, map);
    return is(kind, "snap") || is(kind, "delta") ? print_set(rev, map) : 0;
}

/* Whether all has come that was asked for. */
static bool is_enough(struct watch *watch, beam_str kind, uint64_t rev, bool resumed)
{
    if (watch->follow)
        return false;
    if (is(kind, "head"))
        watch->until = resumed ? rev : UINT64_MAX;
    if (is(kind, "head") && resumed)
        return rev <= watch->rev;
    return is(kind, "live") || ((is(kind, "delta") || is(kind, "mark")) && rev >= watch->until);
}

static int on_message(const beam_message *message, void *arg)
{
    struct watch *watch = arg;
    beam_kv_value map;
    beam_str kind;
    uint64_t rev = 0;
    size_t len;
    bool resumed = false;
    const void *body = beam_message_body(message, &len);
    if (beam_message_codec(message) != BEAM_CODEC_KV || beam_kv_check(body, len, NULL) < 0 ||
        beam_kv_root(body, len, &map) < 0 || beam_kv_get_str(&map, "kind", &kind) < 0 ||
        beam_kv_get_uint(&map, "rev", &rev) < 0)
        return -EPROTO;
    (void)beam_kv_get_bool(&map, "resume", &resumed);
    int r;
    if (watch->target.json) {
        r = kv_text_json(stdout, &map);
        putchar('\n');
    } else {
        r = print_text(&map, kind, rev, resumed);
    }
    return r < 0 ? r : is_enough(watch, kind, rev, resumed);
}

static beam_message *make_question(const struct watch *watch)
{
    char room[BEAM_STORE_KEY_LEN_MAX + 256];
    beam_kv_writer writer;
    const void *document;
    size_t len;
    beam_kv_writer_init(&writer, room, sizeof(room));
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_str(&writer, "prefix", watch->prefix);
    if (watch->from) {
        beam_kv_put_str(&writer, "epoch", watch->epoch);
        beam_kv_put_uint(&writer, "rev", watch->rev);
    }
    beam_kv_end(&writer);
    int r = beam_kv_writer_finish(&writer, &document, &len);
    if (r < 0) {
        fprintf(stderr, "beam: kv watch: %s: %s\n", watch->prefix,
                r == -ENOSPC ? "longer than a key can be" : beam_strerror(r));
        return NULL;
    }
    beam_message *question = beam_message_new();
    beam_message_set_body(question, document, len);
    return question;
}

int kv_watch_main(int argc, char **argv)
{
    struct watch watch = {.until = UINT64_MAX};
    struct kv_target *target = &watch.target;
    int r = read_arguments(argc, argv, &watch);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    beam_message *question = make_question(&watch);
    if (!question)
        return EXIT_USAGE;
    int status = kv_target_open(target, false);
    if (status != EXIT_OK) {
        beam_message_free(question);
        return kv_target_close(target, status);
    }
    struct kv_name service = kv_target_service(target, "watch");
    struct watching watching = {.verb = target->verb,
                                .url = target->text,
                                .service = service.text,
                                .session = target->session,
                                .on_message = on_message,
                                .arg = &watch};
    return watching_run(&watching, target->runtime, &question);
}
