/* `beam kv scan`: the keys that begin with a prefix, in their order.
 *
 * A server gives them in pages, so what it changes meanwhile may or may not be seen; `kv watch` and `kv
 * dump` give a state of one revision. */
#include "cli/kv.h"
#include "cli/kv_call.h"
#include "cli/kv_text.h"
#include "cli/output.h"
#include "cli/verbs.h"

#include <errno.h>
#include <string.h>

static const char help[] =
    "usage: beam kv scan FILE|URL [PREFIX] [OPTION...]\n"
    "\n"
    "Prints the keys that begin with PREFIX, in their order, with their values: KEY=TEXT, or\n"
    "KEY:=JSON.\n"
    "\n"
    "    --limit N            the first N alone\n"
    "    --keys               keys without their values\n"
    "    --json               one object a line: {\"key\":..., \"value\":...}, as `beam kv load` "
    "takes\n"
    "                         it; and an error as {\"code\":..., \"details\":{...},\n"
    "                         \"message\":...}\n"
    "    --kv                 all of it as one kv document (docs/spec/kv.md), a map\n" KV_HELP_URL
    "\n" KV_HELP_DAMAGED "examples:\n"
    "    beam kv scan settings.kv cfg/\n"
    "    beam kv scan unix:/tmp/b.sock user/ --keys --limit 10\n"
    "    beam kv scan unix:/tmp/b.sock --json | jq -r .key\n";

#define NOT_A_STORE "beam: kv scan: %s answered, but not as a store does\n"

struct scan {
    struct kv_target target;
    beam_str prefix;
    uint64_t limit, count; /* limit 0: none */
    bool keys, kv;
    beam_buffer buffer; /* of the document, */
    beam_kv_writer document;
    int error; /* of printing */
};

static int read_arguments(int argc, char **argv, struct scan *scan)
{
    struct kv_target *target = &scan->target;
    const struct option options[] = {{"--limit", OPTION_COUNT, &scan->limit, 1, INT64_MAX},
                                     {"--keys", OPTION_FLAG, &scan->keys, 0, 0},
                                     {"--json", OPTION_FLAG, &target->json, 0, 0},
                                     {"--kv", OPTION_FLAG, &scan->kv, 0, 0},
                                     KV_OPTIONS_URL(target) KV_OPTIONS_END};
    char **words;
    target->verb = argv[0];
    int count = arguments_read(argc, argv, options, help, &words);
    if (count < 0)
        return count;
    if (count < 1 || count > 2) {
        fprintf(stderr, "beam: kv scan: please name a file or URL and perhaps a prefix, as in\n"
                        "    beam kv scan settings.kv cfg/\n");
        return -EINVAL;
    }
    if (scan->kv && (scan->keys || target->json)) {
        fprintf(stderr, "beam: kv scan: --kv goes with neither --json nor --keys\n");
        return -EINVAL;
    }
    scan->prefix = (beam_str){count > 1 ? words[1] : "", count > 1 ? strlen(words[1]) : 0};
    return kv_target_take(target, words[0]);
}

/* A beam_store_entry_fn; -ECANCELED: it is enough. */
static int print(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg)
{
    struct scan *scan = arg;
    int r = 0;
    if (key.len < scan->prefix.len || memcmp(key.ptr, scan->prefix.ptr, scan->prefix.len) != 0)
        return 0;
    if (scan->limit > 0 && scan->count == scan->limit)
        return -ECANCELED;
    scan->count++;
    if (scan->kv) {
        r = beam_kv_put(&scan->document, key, value);
    } else if (scan->target.json) {
        r = kv_text_line(stdout, key, scan->keys ? NULL : value);
    } else {
        if (scan->keys)
            output_text(stdout, key);
        else
            r = kv_text_pair(stdout, key, value);
        fputc('\n', stdout);
    }
    if (r >= 0 && ferror(stdout))
        r = -EIO;
    scan->error = r;
    return r < 0 ? -ECANCELED : 0;
}

/* Behind which key to go on: where the answer says so, else the last of its entries, if there is one. It
 * has to be behind the one before, or there would be no end. */
static bool go_on_behind(const beam_kv_value *answer, beam_str last, char *after, size_t *after_len)
{
    beam_str key = last;
    int r = beam_kv_get_str(answer, "after", &key);
    size_t len = key.len < *after_len ? key.len : *after_len;
    int order = r == 0 || r == -ENOENT ? memcmp(key.ptr, after, len) : -1;
    if (key.len == 0 || key.len > BEAM_STORE_KEY_LEN_MAX || order < 0 ||
        (order == 0 && key.len <= *after_len))
        return false;
    memcpy(after, key.ptr, key.len);
    *after_len = key.len;
    return true;
}

static int scan_page(struct scan *scan, char *after, size_t *after_len, bool *ret_more)
{
    struct kv_call call;
    beam_kv_value entries, value;
    beam_kv_iter iter;
    beam_str key, last = {"", 0};
    uint64_t left = scan->limit - scan->count;
    kv_call_begin(&call);
    beam_kv_put_strn(&call.argument, "prefix", scan->prefix.ptr, scan->prefix.len);
    if (*after_len > 0)
        beam_kv_put_strn(&call.argument, "after", after, *after_len);
    if (scan->limit > 0)
        beam_kv_put_uint(&call.argument, "limit", left);
    int status = kv_call_make(&call, &scan->target, "scan");
    *ret_more = false;
    if (status == EXIT_OK && (beam_kv_get(&call.answer, "entries", &entries) < 0 ||
                              beam_kv_get_bool(&call.answer, "more", ret_more) < 0)) {
        fprintf(stderr, NOT_A_STORE, scan->target.text);
        status = EXIT_OTHER;
    }
    if (status == EXIT_OK) {
        beam_kv_iter_init(&iter, &entries);
        while (beam_kv_iter_next(&iter, &key, &value) > 0 && print(key, &value, 0, scan) == 0)
            last = key;
        *ret_more =
            *ret_more && scan->error == 0 && (scan->limit == 0 || scan->count < scan->limit);
        if (*ret_more && !go_on_behind(&call.answer, last, after, after_len)) {
            fprintf(stderr, NOT_A_STORE, scan->target.text);
            status = EXIT_OTHER;
        }
    }
    kv_call_end(&call);
    return status;
}

static int scan_server(struct scan *scan)
{
    char after[BEAM_STORE_KEY_LEN_MAX];
    size_t after_len = 0;
    bool more = true;
    int status = kv_target_open(&scan->target, false);
    while (status == EXIT_OK && more)
        status = scan_page(scan, after, &after_len, &more);
    return kv_target_close(&scan->target, status);
}

static int write_document(struct scan *scan)
{
    const void *document;
    size_t len;
    beam_kv_end(&scan->document);
    int r = beam_kv_writer_finish(&scan->document, &document, &len);
    if (r >= 0)
        fwrite(document, 1, len, stdout);
    return r;
}

int kv_scan_main(int argc, char **argv)
{
    struct scan scan = {0};
    struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
    int r = read_arguments(argc, argv, &scan);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    beam_buffer_init(&scan.buffer, BEAM_KV_LEN_MAX);
    beam_kv_writer_init_buffer(&scan.document, &scan.buffer);
    beam_kv_begin_map(&scan.document, NULL);
    int status =
        scan.target.is_url ? scan_server(&scan) : kv_target_read(&scan.target, print, &scan, &info);
    if (status == EXIT_OK && scan.kv && scan.error >= 0)
        scan.error = write_document(&scan);
    beam_buffer_deinit(&scan.buffer);
    if (status == EXIT_OK && scan.error < 0) {
        fprintf(stderr, "beam: kv scan: %s\n", beam_strerror(scan.error));
        status = EXIT_OTHER;
    }
    return kv_target_status(&info, status);
}
