/* tests/vectors/records.json: records alone, and what a reader makes of whole files. What a writer makes
 * of the files: test_recovery.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <beam/kv.h>

#include "kv/log.h"
#include "kv/scan.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"
#include "tests/unit/kv/map_model.h"

static const char *const kinds[] = {"none",  "head", "snap",  "live",
                                    "delta", "mark", "early", "closed"};

static bool is_record(const struct vector *v)
{
    return strcmp(vector_str(v, "kind"), "record") == 0;
}

/* As a list of the keys that are deleted, in JSON, and the map of those that are put. */
static void check_body(const struct vector *v, const struct bm_record *record)
{
    struct map_model puts = {0}, dels = {0};
    char text[2048];
    map_model_split(record->body, record->body_len, &puts, &dels);
    map_model_json(&puts, text, sizeof(text));
    CHECK_STR(text, vector_str(v, "put"));
    map_model_keys_json(&dels, text, sizeof(text));
    CHECK_STR(text, vector_str(v, "del"));
    map_model_deinit(&puts);
    map_model_deinit(&dels);
}

/* All that level 1 asks of one record: shape and sum, then the body. */
static int read_one(const uint8_t *bytes, size_t len, uint64_t epoch, bool head,
                    struct bm_record *ret)
{
    uint64_t need;
    if (head) {
        struct bm_record_head found;
        int r = bm_record_read_head(bytes, len, &found);
        if (r == 0) {
            *ret = (struct bm_record){.kind = BM_RECORD_HEAD, .rev = found.base_rev, .len = len};
            CHECK(found.epoch == epoch);
        }
        return r;
    }
    int r = bm_record_read(bytes, len, epoch, ret, &need);
    if (r == 1 && (ret->kind == BM_RECORD_SNAP || ret->kind == BM_RECORD_DELTA))
        r = bm_record_check_body(ret->body, ret->body_len, ret->kind == BM_RECORD_DELTA, NULL);
    return r > 0 ? 0 : r;
}

TEST(records_are_accepted_or_refused_as_named)
{
    struct vectors vectors;
    vectors_load("records.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        if (!is_record(v))
            continue;
        struct bm_record record = {0};
        const char *error = vector_str(v, "error"), *kind = vector_str(v, "record");
        uint64_t epoch = strtoull(vector_str(v, "epoch"), NULL, 16);
        size_t len;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        test_note("%s", vector_str(v, "name"));

        int r = read_one(bytes, len, epoch, kind && strcmp(kind, "head") == 0, &record);
        CHECK_STR(beam_error_name(r), error ? error : "OK");
        if (r == 0 && !error) {
            CHECK_STR(kinds[record.kind], kind);
            CHECK_INT(record.rev, vector_int(v, "rev", -1));
            CHECK_UINT(record.len, len);
            if (record.kind == BM_RECORD_SNAP || record.kind == BM_RECORD_DELTA)
                check_body(v, &record);
        }
        free(bytes);
    }
    vectors_free(&vectors);
}

TEST(records_written_again_are_the_same_bytes)
{
    struct vectors vectors;
    vectors_load("records.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        if (!is_record(v) || vector_str(v, "error"))
            continue;
        struct bm_record record;
        uint64_t epoch = strtoull(vector_str(v, "epoch"), NULL, 16);
        size_t len;
        uint8_t *bytes = vector_hex(v, "hex", &len), *again = calloc(1, len);
        test_note("%s", vector_str(v, "name"));
        if (strcmp(vector_str(v, "record"), "head") == 0) {
            bm_record_write_head(
                again, (struct bm_record_head){epoch, (uint64_t)vector_int(v, "rev", -1)});
        } else {
            REQUIRE_INT(bm_record_read(bytes, len, epoch, &record, NULL), 1);
            bm_record_write(again, record.kind, record.rev, record.body, record.body_len, epoch);
        }
        CHECK_MEM(again, len, bytes, len);
        free(again);
        free(bytes);
    }
    vectors_free(&vectors);
}

static int apply(void *arg, const struct bm_record *record)
{
    map_model_apply(arg, record);
    return 0;
}

TEST(files_are_read_as_named)
{
    struct vectors vectors;
    vectors_load("records.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        if (is_record(v))
            continue;
        struct map_model map = {0};
        struct bm_log_found found;
        const char *error = vector_str(v, "error");
        char text[2048];
        size_t len;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        test_note("%s", vector_str(v, "name"));

        int r = bm_log_read(bytes, len, true, apply, &map, &found);
        CHECK_STR(beam_error_name(r), error ? error : "OK");
        CHECK_INT(found.file_len, vector_int(v, "end", -1));
        CHECK((found.message[0] == '\0') == (!error && !vector_str(v, "stop")));
        if (!error) {
            CHECK_INT(found.rev, vector_int(v, "rev", -1));
            map_model_json(&map, text, sizeof(text));
            CHECK_STR(text, vector_str(v, "state"));
            CHECK_INT(found.clean, vector_int(v, "clean", -1));
        }
        map_model_deinit(&map);
        free(bytes);
    }
    vectors_free(&vectors);
}

/* The scan alone says why there is no further record. */
TEST(files_end_as_named)
{
    struct vectors vectors;
    vectors_load("records.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        if (is_record(v))
            continue;
        struct bm_scan scan = {0};
        struct bm_record record;
        const char *stop = vector_str(v, "stop");
        size_t len;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        int r;
        test_note("%s", vector_str(v, "name"));
        while ((r = bm_scan_next(&scan, bytes + scan.offset, len - scan.offset, true, &record,
                                 NULL)) == 1)
            ;
        /* a few zeros at the end are no whole word: cut off, or the end */
        CHECK_STR(beam_error_name(r), stop ? stop : "OK");
        CHECK_INT(scan.offset, vector_int(v, "end", -1));
        free(bytes);
    }
    vectors_free(&vectors);
}

TEST(files_cover_every_verdict)
{
    struct vectors vectors;
    vectors_load("records.json", &vectors);
    const char *wanted[] = {"KV_RECORD", "KV_SUM", "KV_SEQUENCE", "KV_FORMAT", "KV_CORRUPT"};
    for (size_t e = 0; e < BM_ARRAY_LEN(wanted); e++) {
        size_t count = 0;
        for (size_t i = 0; i < vectors.count; i++) {
            const struct vector *v = &vectors.items[i];
            const char *error = vector_str(v, "error");
            const char *stop = is_record(v) ? NULL : vector_str(v, "stop");
            count += error && strcmp(error, wanted[e]) == 0;
            count += stop && strcmp(stop, wanted[e]) == 0;
        }
        test_note("%s", wanted[e]);
        CHECK(count > 0);
    }
    vectors_free(&vectors);
}
