/* What a writer makes of the files of tests/vectors/records.json, and of single damages: R16 to R18. */
#include "kv/scan.h"
#include "kv/window.h"
#include "tests/support/vectors.h"
#include "tests/unit/kv/log_rig.h"

static struct log_rig rig;

static bool is_file(const struct vector *v)
{
    return strcmp(vector_str(v, "kind"), "file") == 0;
}

static void check_unchanged(const uint8_t *bytes, size_t len)
{
    size_t now_len;
    uint8_t *now = file_read(rig.path, &now_len);
    CHECK_MEM(now, now_len, bytes, len);
    free(now);
}

static void check_opened(const struct vector *v)
{
    char text[2048];
    int64_t cut_len = vector_int(v, "cut_len", 0);
    CHECK_INT(rig.found.rev, vector_int(v, "rev", -1));
    CHECK_INT(rig.found.cut_len, cut_len);
    CHECK_INT(rig.found.cut_offset, vector_int(v, "cut", 0));
    CHECK_INT(rig.found.clean, vector_int(v, "clean", -1));
    CHECK_INT(rig.found.new_epoch, vector_int(v, "new_epoch", -1));
    CHECK_INT(rig.found.message[0] != '\0', cut_len > 0);
    map_model_json(&rig.map, text, sizeof(text));
    CHECK_STR(text, vector_str(v, "state"));
}

TEST(recovery_opens_or_refuses_files_as_named)
{
    struct vectors vectors;
    vectors_load("records.json", &vectors);
    log_rig_init(&rig);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        if (!is_file(v))
            continue;
        const char *error = vector_str(v, "open");
        size_t len;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        test_note("%s", vector_str(v, "name"));
        file_write(rig.path, bytes, len);
        int r = log_rig_try_open(&rig);
        CHECK_STR(beam_error_name(r), error ? error : "OK");
        if (r < 0) {
            CHECK(strstr(rig.found.message, rig.path) != NULL);
            check_unchanged(bytes, len);
        } else {
            uint64_t rev = rig.found.rev;
            check_opened(v);
            log_rig_put(&rig, "new", 7);
            CHECK_INT(log_rig_close(&rig), 0);
            log_rig_open(&rig);
            CHECK_UINT(rig.found.rev, rev + 1);
            CHECK(rig.found.clean && rig.found.cut_len == 0);
            CHECK_INT(log_rig_close(&rig), 0);
        }
        free(bytes);
    }
    log_rig_deinit(&rig);
    vectors_free(&vectors);
}

/* A file of so many groups, each with its mark, dropped without a closed. */
static uint8_t *make_file(int groups, size_t *ret_len)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    for (int i = 0; i < groups; i++) {
        char key[16];
        snprintf(key, sizeof(key), "k%03d", i);
        log_rig_put(&rig, key, i);
    }
    uint64_t used = bm_log_state(rig.log).file_len;
    log_rig_drop(&rig);
    uint8_t *bytes = file_read(rig.path, ret_len);
    *ret_len = (size_t)used;
    return bytes;
}

TEST(recovery_says_where_the_damage_is_and_what_can_be_done)
{
    size_t len;
    uint8_t *bytes = make_file(10, &len);
    char wanted[64];
    bytes[500] ^= 1;
    file_write(rig.path, bytes, len);
    CHECK_INT(log_rig_try_open(&rig), -BEAM_EKV_CORRUPT);
    snprintf(wanted, sizeof(wanted), "offset %llu ", (unsigned long long)rig.found.bad_offset);
    test_note("%s", rig.found.message);
    CHECK(strstr(rig.found.message, wanted) != NULL);
    CHECK(strstr(rig.found.message, "truncate -s") != NULL);
    CHECK(rig.found.bad_offset <= 500 && rig.found.bad_offset > 400);

    /* and what it says can be done, can be */
    uint64_t rev = rig.found.rev;
    REQUIRE_INT(truncate(rig.path, (off_t)rig.found.bad_offset), 0);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, rev);
    free(bytes);
    log_rig_deinit(&rig);
}

/* R17: a zero where a mark of its own would have to be behind it. */
TEST(recovery_finds_a_mark_far_behind_over_the_edges_of_its_windows)
{
    size_t len;
    uint8_t *bytes = make_file(1, &len);
    struct bm_record_head head;
    REQUIRE_INT(bm_record_read_head(bytes, len, &head), 0);
    static const size_t at[] = {
        BM_WINDOW_LEN - 24, BM_WINDOW_LEN - 16,     BM_WINDOW_LEN - 8,
        BM_WINDOW_LEN,      2 * BM_WINDOW_LEN - 40,
    };
    size_t big_len = 3 * BM_WINDOW_LEN;
    uint8_t *big = calloc(1, big_len);
    for (size_t i = 0; i < BM_ARRAY_LEN(at) * 4; i++) {
        size_t offset = len + at[i / 4] + 8 * (i % 4);
        memset(big, 0xa5, big_len);
        memcpy(big, bytes, len);
        bm_record_write(big + offset, BM_RECORD_MARK, 2, NULL, 0, head.epoch);
        file_write(rig.path, big, big_len);
        test_note("mark at %zu", offset);
        CHECK_INT(log_rig_try_open(&rig), -BEAM_EKV_CORRUPT);
        /* one that does not vouch for the missing one is no proof */
        bm_record_write(big + offset, BM_RECORD_MARK, 1, NULL, 0, head.epoch);
        file_write(rig.path, big, big_len);
        CHECK_INT(log_rig_try_open(&rig), 0);
        CHECK_UINT(rig.found.cut_len, big_len - len);
        if (rig.log)
            log_rig_drop(&rig);
    }
    free(big);
    free(bytes);
    log_rig_deinit(&rig);
}

TEST(recovery_reads_records_longer_than_a_window)
{
    struct told told;
    size_t len = 3 << 20;
    uint8_t *body = calloc(1, len + 16);
    log_rig_init(&rig);
    log_rig_open(&rig);
    bm_put_u64(body, len | UINT64_C(1) << 32 | (uint64_t)BEAM_KV_BYTES << 48);
    body[8 + len] = 'k';
    for (int i = 0; i < 3; i++) {
        memset(body + 8, 'a' + i, len);
        told_init(&told);
        REQUIRE_INT(bm_log_append(rig.log, body, len + 16, &told.wait, NULL), 0);
        log_rig_until(&rig, &told.calls);
        CHECK_INT(told.res, 0);
    }
    log_rig_drop(&rig);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, 3);
    REQUIRE_UINT(rig.map.len, 1);
    CHECK_MEM(rig.map.items[0].entry, len + 16, body, len + 16);
    free(body);
    log_rig_deinit(&rig);
}

/* R13, R18 */
TEST(recovery_follows_no_link_and_opens_nothing_but_regular_files)
{
    char link_path[600];
    log_rig_init(&rig);
    log_rig_open(&rig);
    CHECK_INT(log_rig_close(&rig), 0);
    snprintf(link_path, sizeof(link_path), "%s.link", rig.path);
    REQUIRE_INT(symlink(rig.path, link_path), 0);
    rig.options.path = link_path;
    CHECK_INT(log_rig_try_open(&rig), -ELOOP);
    CHECK_INT(bm_log_read_file(link_path, NULL, NULL, NULL), -ELOOP);
    unlink(link_path);
    REQUIRE_INT(mkfifo(link_path, 0600), 0);
    CHECK_INT(log_rig_try_open(&rig), -BEAM_EKV_FORMAT);
    rig.options.path = test_tmpdir();
    CHECK_INT(log_rig_try_open(&rig), -EISDIR);
    rig.options.path = "";
    CHECK_INT(log_rig_try_open(&rig), -EINVAL);
    rig.options.path = NULL;
    CHECK_INT(log_rig_try_open(&rig), -EINVAL);
    rig.options.path = "/nowhere/at/all";
    CHECK_INT(log_rig_try_open(&rig), -ENOENT);
    rig.options.path = "/dev/null";
    CHECK_INT(log_rig_try_open(&rig), -BEAM_EKV_FORMAT);
    snprintf(link_path, sizeof(link_path), "%s.new", rig.path);
    rig.options.path = link_path;
    CHECK_INT(log_rig_try_open(&rig), -EINVAL);
    CHECK(strstr(rig.found.message, "ends in .new") != NULL);
    CHECK(!file_exists(link_path));
    log_rig_deinit(&rig);
}

static int refuse(void *arg, const struct bm_record *record)
{
    (void)arg;
    return record->kind == BM_RECORD_DELTA && record->rev == 2 ? -ENODATA : 0;
}

TEST(recovery_ends_with_the_error_of_whoever_takes_the_records)
{
    struct bm_log *log;
    size_t len;
    uint8_t *bytes = make_file(3, &len);
    CHECK_INT(bm_log_open(rig.rig.reactor, &rig.options, refuse, NULL, &log, &rig.found), -ENODATA);
    check_unchanged(bytes, 64 << 10);
    log_rig_open(&rig);
    free(bytes);
    log_rig_deinit(&rig);
}
