/* `beam kv check`: what a file holds, and what would become of it. */
#include "cli/kv.h"
#include "cli/kv_target.h"
#include "cli/kv_text.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <errno.h>
#include <inttypes.h>

static const char help[] =
    "usage: beam kv check FILE [--json]\n"
    "\n"
    "Reads the file of a store to its end, changes nothing, and says what is in it:\n"
    "\n"
    "    epoch, rev           its last revision; from begin_rev on each one is kept\n"
    "    keys, bytes, digest  its state; equal states have the same digest, whatever their files\n"
    "    records, length      of the file; room behind that does not count\n"
    "    in_use               a server has it open; what is said is of this moment\n"
    "    closed               the last one that had it open ended as it should\n"
    "    new_epoch            it did not, and had told of changes before the disk had them "
    "(--sync\n"
    "                         batch or none): followers will have to take the state anew\n"
    "    verdict              ok; torn: behind its last record is something unfinished, which the\n"
    "                         next one to open the file cuts off; or damaged: it will not be\n"
    "                         opened, as something that was safe has changed\n"
    "    offset, length_cut   where that is, and of what is torn, how much\n"
    "    why                  the rule of docs/spec/kv.md that the bytes at offset break\n"
    "\n"
    "exit codes: 0: ok, 10: torn, 1: damaged, or not the file of a store.\n"
    "\n"
    "examples:\n"
    "    beam kv check settings.kv\n"
    "    beam kv check settings.kv --json | jq -r .digest\n";

struct check {
    struct kv_target target;
    struct beam_store_file_info info;
    beam_xxh3_state digest;
    beam_buffer room; /* for an entry at a time */
    int error;
};

static int read_arguments(int argc, char **argv, struct check *check)
{
    struct kv_target *target = &check->target;
    const struct option options[] = {{"--json", OPTION_FLAG, &target->json, 0, 0}, KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count != 1) {
        fprintf(stderr, "beam: kv check: please name one file, as in\n"
                        "    beam kv check settings.kv\n");
        return -EINVAL;
    }
    return kv_target_take_file(target, words[0]);
}

/* The digest of a state is that of its entries as they follow each other in a map: of a document of one
 * key all but the header. */
static int add_entry(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg)
{
    struct check *check = arg;
    beam_kv_writer writer;
    const void *document;
    size_t len;
    beam_kv_writer_init_buffer(&writer, &check->room);
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put(&writer, key, value);
    beam_kv_end(&writer);
    check->error = beam_kv_writer_finish(&writer, &document, &len);
    if (check->error >= 0)
        beam_xxh3_update(&check->digest, (const char *)document + 8, len - 8);
    return check->error < 0 ? -ECANCELED : 0;
}

static const char *verdict_of(const struct beam_store_file_info *info)
{
    return info->verdict < 0 ? "damaged" : info->tail_len > 0 ? "torn" : "ok";
}

static void put_hex(beam_kv_writer *writer, const char *key, uint64_t number)
{
    char text[17];
    snprintf(text, sizeof(text), "%016" PRIx64, number);
    beam_kv_put_str(writer, key, text);
}

/* r: what came of reading: below 0, there is no state. */
static int print(struct check *check, int r)
{
    const struct beam_store_file_info *info = &check->info;
    char room[1024];
    beam_kv_writer w;
    beam_kv_value map;
    const void *document;
    size_t len;
    bool ok = info->verdict >= 0 && info->tail_len == 0;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    if (r >= 0) {
        put_hex(&w, "epoch", info->epoch);
        beam_kv_put_uint(&w, "rev", info->rev);
        beam_kv_put_uint(&w, "begin_rev", info->base_rev);
        beam_kv_put_uint(&w, "keys", info->keys);
        beam_kv_put_uint(&w, "bytes", info->data_len);
        put_hex(&w, "digest", beam_xxh3_final(&check->digest));
    }
    beam_kv_put_uint(&w, "records", info->records);
    beam_kv_put_uint(&w, "length", info->file_len);
    beam_kv_put_bool(&w, "in_use", info->in_use);
    beam_kv_put_bool(&w, "closed", info->closed);
    beam_kv_put_bool(&w, "new_epoch", info->renewed);
    beam_kv_put_str(&w, "verdict", verdict_of(info));
    if (!ok) {
        beam_kv_put_uint(&w, "offset", info->file_len);
        beam_kv_put_str(&w, "why", info->stop < 0 ? beam_error_name(info->stop) : "KV_RECORD");
    }
    if (info->verdict >= 0 && !ok)
        beam_kv_put_uint(&w, "length_cut", info->tail_len);
    beam_kv_end(&w);
    r = beam_kv_writer_finish(&w, &document, &len);
    if (r >= 0)
        r = beam_kv_root(document, len, &map);
    if (r >= 0)
        r = check->target.json ? kv_text_json(stdout, &map)
                               : output_pairs(stdout, document, len, '\n');
    putchar('\n');
    return r;
}

/* What it means, and what to do; of a state that can be read first what that is. */
static void explain(const struct check *check, int r)
{
    const struct beam_store_file_info *info = &check->info;
    const char *path = check->target.text;
    const char *why = info->stop < 0 ? beam_strerror(info->stop) : "kv: not a record";
    if (r < 0)
        fprintf(stderr,
                "beam: %s: damaged at offset %" PRIu64 " (%s), where its state is not complete "
                "yet: nothing can be read. Please restore a copy\n",
                path, info->file_len, why);
    else if (info->verdict < 0)
        fprintf(stderr,
                "beam: %s: damaged at offset %" PRIu64
                " (%s), though that had been safe. It can be read up to revision %" PRIu64
                ", and not be changed. Please restore a copy, or keep what is left: "
                "beam kv dump %s > NEW\n",
                path, info->file_len, why, info->rev, path);
    else if (info->tail_len > 0)
        fprintf(
            stderr,
            "beam: %s: a torn tail of %" PRIu64 " bytes at offset %" PRIu64
            " (%s), behind revision %" PRIu64
            ": a change that was never complete, as after a loss of power. The next one to open "
            "the file cuts it off\n",
            path, info->tail_len, info->file_len, why, info->rev);
}

int kv_check_main(int argc, char **argv)
{
    struct check check = {.info = BEAM_STORE_FILE_INFO()};
    int r = read_arguments(argc, argv, &check);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    beam_xxh3_init(&check.digest);
    beam_buffer_init(&check.room, BEAM_KV_LEN_MAX);
    r = beam_store_read_file(check.target.text, add_entry, &check, &check.info);
    beam_buffer_deinit(&check.room);
    if (r == -ECANCELED)
        r = check.error;
    if (r < 0 && r != -BEAM_EKV_CORRUPT)
        return kv_target_complain(&check.target, r);
    int printed = print(&check, r);
    if (printed < 0)
        return beam_exit_code(printed, stderr);
    explain(&check, r);
    return r < 0 || check.info.verdict < 0 ? EXIT_OTHER
           : check.info.tail_len > 0       ? EXIT_TORN
                                           : EXIT_OK;
}
