/* What a writer makes of the files of tests/vectors/records.json, and of single damages: R16 to R18. */
#define _GNU_SOURCE
#include <sys/syscall.h>

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
    /* What is cut by hand goes on in its epoch, with revisions that others may have seen: not the way. */
    CHECK(strstr(rig.found.message, "truncate") == NULL);
    CHECK(strstr(rig.found.message, "beam kv dump FILE > NEW") != NULL);
    CHECK(rig.found.bad_offset <= 500 && rig.found.bad_offset > 400);
    /* where it begins is damaged: there is nothing to dump but a copy */
    bytes[80] ^= 1;
    file_write(rig.path, bytes, len);
    CHECK_INT(log_rig_try_open(&rig), -BEAM_EKV_CORRUPT);
    CHECK(strstr(rig.found.message, "beam kv dump COPY > NEW") != NULL);
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

/* --- files that are longer than what is in them ----------------------------------------------------- */

static uint64_t bytes_read;

/* The C library's, counted. */
ssize_t pread(int fd, void *bytes, size_t len, off_t offset)
{
    ssize_t n = syscall(SYS_pread64, fd, bytes, len, offset);
    bytes_read += n > 0 ? (uint64_t)n : 0;
    return n;
}

static void write_at(uint64_t offset, const void *bytes, size_t len)
{
    int fd = open(rig.path, O_RDWR | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE_INT(pwrite(fd, bytes, len, (off_t)offset), len);
    close(fd);
}

#define TERABYTE ((uint64_t)1 << 40)

/* Holes are zeros that nobody has to read; what is between them counts as ever. */
TEST(recovery_passes_over_holes_and_sees_what_is_between_them)
{
    size_t len;
    uint8_t mark[BM_RECORD_BARE_LEN], *bytes = make_file(3, &len);
    struct bm_record_head head;
    struct bm_log_found found;
    REQUIRE_INT(bm_record_read_head(bytes, len, &head), 0);
    bm_record_write(mark, BM_RECORD_MARK, 4, NULL, 0, head.epoch);
    for (int way = 0; way < 3; way++) {
        test_note("way %d", way);
        file_write(rig.path, bytes, len);
        if (truncate(rig.path, (off_t)(8 * TERABYTE)) < 0)
            SKIP("no file of so many bytes here");
        if (way > 0)
            write_at(3 * TERABYTE + 8, "x", 1);
        if (way > 1) { /* over the edge of a window that begins with the data */
            write_at(5 * TERABYTE, "y", 1);
            write_at(5 * TERABYTE + BM_WINDOW_LEN - 16, mark, sizeof(mark));
        }
        bytes_read = 0;
        CHECK_INT(bm_log_read_file(rig.path, NULL, NULL, &found), 0);
        CHECK_UINT(found.rev, 3);
        CHECK_INT(log_rig_try_open(&rig), way > 1 ? -BEAM_EKV_CORRUPT : 0);
        CHECK(bytes_read < 16 * BM_WINDOW_LEN);
        CHECK_UINT(rig.found.cut_len, way == 1 ? 3 * TERABYTE + 9 - len : 0);
        if (rig.log) {
            log_rig_put(&rig, "new", 1);
            CHECK_INT(log_rig_close(&rig), 0);
        }
    }
    free(bytes);
    log_rig_deinit(&rig);
}

/* A length that a file claims is no reason to have so much memory. */
TEST(recovery_believes_no_length_with_its_memory)
{
    size_t len;
    uint8_t header[8], *bytes = make_file(3, &len);
    struct bm_log_found found;
    const struct bm_account *account = bm_reactor_account(rig.rig.reactor);
    bm_put_u64(header,
               (64 << 20) | (uint64_t)BM_ENTRY_RECORD << 48 | (uint64_t)BM_RECORD_DELTA << 56);
    file_write(rig.path, bytes, len);
    REQUIRE_INT(truncate(rig.path, (off_t)80 << 20), 0);
    write_at(len, header, sizeof(header));
    rig.options.record_len_max = 4 << 20;
    CHECK_INT(bm_log_read_file(rig.path, NULL, NULL, &found), 0);
    CHECK_UINT(found.rev, 3);
    bytes_read = 0;
    CHECK_INT(log_rig_try_open(&rig), 0); /* its sum is wrong: torn */
    CHECK(bytes_read < 16 * BM_WINDOW_LEN);
    CHECK_UINT(rig.found.cut_len, sizeof(header));
    CHECK(account->peak < 8 << 20);
    log_rig_put(&rig, "new", 1);
    free(bytes);
    log_rig_deinit(&rig);
}

/* R2: a record that is longer than is taken here, and whole, is not torn. */
TEST(recovery_refuses_a_record_over_its_limit_and_cuts_nothing)
{
    struct told told;
    size_t len = 3 << 20, file_len;
    uint8_t *body = calloc(1, len + 16);
    struct bm_log_found found;
    log_rig_init(&rig);
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    uint64_t offset = bm_log_state(rig.log).file_len;
    bm_put_u64(body, len | UINT64_C(1) << 32 | (uint64_t)BEAM_KV_BYTES << 48);
    memset(body + 8, 'a', len);
    body[8 + len] = 'k';
    told_init(&told);
    REQUIRE_INT(bm_log_append(rig.log, body, len + 16, &told.wait, NULL), 0);
    log_rig_until(&rig, &told.calls);
    log_rig_drop(&rig);
    uint8_t *bytes = file_read(rig.path, &file_len);

    rig.options.record_len_max = 2 << 20;
    CHECK_INT(log_rig_try_open(&rig), -BEAM_EKV_TOO_LARGE);
    test_note("%s", rig.found.message);
    CHECK(rig.found.bad_offset >= offset && rig.found.bad_offset <= offset + 24);
    CHECK(strstr(rig.found.message, "longer") != NULL);
    check_unchanged(bytes, file_len);
    CHECK_INT(bm_log_read_file(rig.path, NULL, NULL, &found), 0); /* who only reads takes more */
    CHECK_UINT(found.rev, 2);

    bytes[rig.found.bad_offset + len / 2] ^= 1; /* not whole */
    file_write(rig.path, bytes, file_len);
    log_rig_open(&rig);
    CHECK_UINT(rig.found.rev, 1);
    CHECK(rig.found.cut_len > len);
    free(bytes);
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
