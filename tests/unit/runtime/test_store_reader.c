/* Files of stores, read and written from outside: beam_store_read, beam_store_read_file and dumps. What
 * single records and files are: tests/vectors/records.json. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <beam/store.h>

#include "kv/record.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"
#include "tests/unit/runtime/scarce.h"

#define EPOCH UINT64_C(0x1122334455667788)

static int add(const void *bytes, size_t len, void *arg)
{
    return beam_buffer_add(arg, bytes, len);
}

static void put_record(beam_buffer *file, enum bm_record_kind kind, uint64_t rev, const void *body,
                       size_t len)
{
    unsigned char *room;
    REQUIRE_INT(beam_buffer_reserve(file, bm_record_len(len), &room), 0);
    bm_record_write(room, kind, rev, body, len, EPOCH);
    beam_buffer_advance(file, bm_record_len(len));
}

static void put_head(beam_buffer *file, uint64_t rev)
{
    uint8_t head[BM_RECORD_HEAD_LEN];
    bm_record_write_head(head, (struct bm_record_head){EPOCH, rev});
    REQUIRE_INT(beam_buffer_add(file, head, sizeof(head)), 0);
}

/* A delta that sets one key to a number. */
static void put_delta(beam_buffer *file, uint64_t rev, const char *key, int64_t number)
{
    char room[256];
    const void *document;
    size_t len;
    beam_kv_writer w;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_int(&w, key, number);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    put_record(file, BM_RECORD_DELTA, rev, (const uint8_t *)document + 8, len - 8);
}

/* a and b, both set behind the live; the last record is a mark. */
static void make_file(beam_buffer *file)
{
    beam_buffer_init(file, 1 << 20);
    put_head(file, 7);
    put_record(file, BM_RECORD_LIVE, 7, NULL, 0);
    put_delta(file, 8, "b", 1);
    put_delta(file, 9, "a", 2);
    put_record(file, BM_RECORD_MARK, 9, NULL, 0);
}

struct seen {
    char text[256];
    int stop_at;
    int count;
};

static int see(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg)
{
    struct seen *seen = arg;
    size_t len = strlen(seen->text);
    snprintf(seen->text + len, sizeof(seen->text) - len, "%.*s=%lld@%llu ", BEAM_STR(key),
             (long long)value->i, (unsigned long long)rev);
    return ++seen->count == seen->stop_at ? 42 : 0;
}

TEST(a_file_gives_its_state_in_the_order_of_the_keys)
{
    beam_buffer file;
    struct seen seen = {.text = ""};
    struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
    make_file(&file);
    CHECK_INT(beam_store_read(file.ptr, file.len, see, &seen, &info), 0);
    CHECK_STR(seen.text, "a=2@9 b=1@8 ");
    CHECK(info.epoch == EPOCH);
    CHECK_UINT(info.rev, 9);
    CHECK_UINT(info.base_rev, 7);
    CHECK_UINT(info.keys, 2);
    CHECK_UINT(info.records, 5);
    CHECK_UINT(info.file_len, file.len);
    CHECK_UINT(info.tail_len, 0);
    CHECK_INT(info.verdict, 0);
    CHECK(!info.closed && !info.renewed && !info.in_use);
    struct seen first = {.stop_at = 1};
    CHECK_INT(beam_store_read(file.ptr, file.len, see, &first, NULL), 42);
    CHECK_STR(first.text, "a=2@9 ");
    beam_buffer_deinit(&file);
}

TEST(a_torn_tail_is_told_and_passed_over)
{
    beam_buffer file;
    make_file(&file);
    size_t whole = file.len;
    put_delta(&file, 10, "a", 3);
    for (size_t len = whole + 1; len < file.len; len++) {
        struct seen seen = {.text = ""};
        struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
        test_note("%zu bytes of %zu", len - whole, file.len - whole);
        CHECK_INT(beam_store_read(file.ptr, len, see, &seen, &info), 0);
        CHECK_STR(seen.text, "a=2@9 b=1@8 ");
        CHECK_INT(info.verdict, 0);
        CHECK_UINT(info.file_len, whole);
        CHECK(info.tail_len > 0 && info.tail_len <= len - whole);
    }
    beam_buffer_deinit(&file);
}

TEST(damage_before_a_mark_is_the_verdict_and_the_state_before_it_is_given)
{
    beam_buffer file;
    struct seen seen = {.text = ""};
    struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
    make_file(&file);
    size_t second = BM_RECORD_HEAD_LEN + bm_record_len(0) + bm_record_len(24);
    file.ptr[second + 30] ^= 1;
    CHECK_INT(beam_store_read(file.ptr, file.len, see, &seen, &info), 0);
    CHECK_STR(seen.text, "b=1@8 ");
    CHECK_INT(info.verdict, -BEAM_EKV_CORRUPT);
    CHECK_INT(info.stop, -BEAM_EKV_SUM);
    CHECK_UINT(info.file_len, second);
    /* in front of the live there is no state */
    file.ptr[BM_RECORD_HEAD_LEN] ^= 1;
    seen.text[0] = '\0';
    CHECK_INT(beam_store_read(file.ptr, file.len, see, &seen, &info), -BEAM_EKV_CORRUPT);
    CHECK_UINT(info.file_len, BM_RECORD_HEAD_LEN);
    file.ptr[0] ^= 1;
    CHECK_INT(beam_store_read(file.ptr, file.len, see, &seen, &info), -BEAM_EKV_FORMAT);
    CHECK_INT(beam_store_read("", 0, see, &seen, &info), -BEAM_EKV_FORMAT);
    CHECK_STR(seen.text, "");
    beam_buffer_deinit(&file);
}

TEST(an_end_says_what_the_next_open_makes_of_it)
{
    static const struct {
        enum bm_record_kind kinds[2];
        bool closed, renewed;
    } rows[] = {
        {{BM_RECORD_CLOSED}, true, false},
        {{BM_RECORD_EARLY}, false, true},
        {{BM_RECORD_EARLY, BM_RECORD_CLOSED}, true, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        beam_buffer file;
        struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
        make_file(&file);
        for (size_t k = 0; k < 2 && rows[i].kinds[k]; k++)
            put_record(&file, rows[i].kinds[k], 9, NULL, 0);
        test_note("row %zu", i);
        CHECK_INT(beam_store_read(file.ptr, file.len, NULL, NULL, &info), 0);
        CHECK_INT(info.closed, rows[i].closed);
        CHECK_INT(info.renewed, rows[i].renewed);
        beam_buffer_deinit(&file);
    }
}

static void write_file(const char *path, const beam_buffer *file)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    REQUIRE_INT(write(fd, file->ptr, file->len), (ssize_t)file->len);
    close(fd);
}

TEST(a_file_that_somebody_writes_is_read_and_said_to_be_in_use)
{
    beam_buffer file;
    char path[256];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
    struct seen seen = {.text = ""};
    make_file(&file);
    snprintf(path, sizeof(path), "%s/x.kv", test_tmpdir());
    CHECK_INT(beam_store_read_file(path, see, &seen, &info), -ENOENT);
    write_file(path, &file);
    CHECK_INT(beam_store_read_file(path, see, &seen, &info), 0);
    CHECK_STR(seen.text, "a=2@9 b=1@8 ");
    CHECK(!info.in_use);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    REQUIRE_INT(fcntl(fd, F_OFD_SETLK, &lock), 0);
    seen.text[0] = '\0';
    CHECK_INT(beam_store_read_file(path, see, &seen, &info), 0);
    CHECK_STR(seen.text, "a=2@9 b=1@8 ");
    CHECK(info.in_use);

    /* What is on its way is not torn; damage is damage. */
    CHECK_INT(ftruncate(fd, (off_t)file.len - 8), 0);
    CHECK_INT(beam_store_read_file(path, NULL, NULL, &info), 0);
    CHECK_INT(info.verdict, 0);
    CHECK_UINT(info.tail_len, 0);
    size_t first = BM_RECORD_HEAD_LEN + bm_record_len(0);
    CHECK_INT(pwrite(fd, file.ptr, file.len, 0), (ssize_t)file.len);
    CHECK_INT(pwrite(fd, "x", 1, (off_t)first + 17), 1);
    CHECK_INT(beam_store_read_file(path, NULL, NULL, &info), 0);
    CHECK_INT(info.verdict, -BEAM_EKV_CORRUPT);
    CHECK_UINT(info.file_len, first);
    close(fd);
    info.size = 0;
    CHECK_INT(beam_store_read_file(path, NULL, NULL, &info), -EINVAL);
    CHECK_INT(beam_store_read_file(test_tmpdir(), NULL, NULL, NULL), -EISDIR);
    beam_buffer_deinit(&file);
}

/* A writer that puts another file in the place of the first, as a compaction does, once for each look. */
struct replacer {
    char path[256], new_path[260];
    beam_buffer file;
    int fd;               /* what it has locked */
    atomic_uint go, done; /* seq_cst: the reader's, and its own */
    atomic_bool end;
};

static int make_locked(const char *path, const beam_buffer *file)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) == 0);
    CHECK_INT(write(fd, file->ptr, file->len), (ssize_t)file->len);
    return fd;
}

static void *replace(void *arg)
{
    struct replacer *r = arg;
    struct test_random random = test_random(0);
    while (!r->end) {
        if (r->go == r->done) {
            sched_yield();
            continue;
        }
        int fd = make_locked(r->new_path, &r->file);
        for (uint64_t spins = test_random_below(&random, 2000); spins > 0; spins--)
            atomic_signal_fence(memory_order_seq_cst);
        CHECK_INT(rename(r->new_path, r->path), 0);
        close(r->fd);
        r->fd = fd;
        r->done++;
    }
    return NULL;
}

TEST(a_file_that_is_replaced_while_it_is_read_is_read_again)
{
    struct replacer r = {.fd = -1};
    pthread_t thread;
    make_file(&r.file);
    snprintf(r.path, sizeof(r.path), "%s/x.kv", test_tmpdir());
    snprintf(r.new_path, sizeof(r.new_path), "%s.new", r.path);
    r.fd = make_locked(r.path, &r.file);
    REQUIRE_INT(pthread_create(&thread, NULL, replace, &r), 0);
    unsigned lost = 0;
    for (unsigned i = 1; i <= 3000; i++) {
        struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
        r.go = i;
        CHECK_INT(beam_store_read_file(r.path, NULL, NULL, &info), 0);
        lost += !info.in_use;
        while (r.done != i)
            sched_yield();
    }
    CHECK_UINT(lost, 0);
    r.end = true;
    pthread_join(thread, NULL);
    close(r.fd);
    beam_buffer_deinit(&r.file);
}

static beam_kv_value number(int64_t i)
{
    return (beam_kv_value){.type = BEAM_KV_INT, .i = i};
}

TEST(a_dump_is_a_file_of_another_epoch)
{
    beam_buffer file;
    beam_store_dump *dump = NULL;
    struct seen seen = {.text = ""};
    struct beam_store_file_info info = BEAM_STORE_FILE_INFO(), other = BEAM_STORE_FILE_INFO();
    uint64_t epoch = 0;
    for (int i = 0; i < 2; i++) {
        beam_buffer_init(&file, 1 << 20);
        REQUIRE_INT(beam_store_dump_new(9, add, &file, &dump), 0);
        beam_kv_value one = number(1), two = number(2);
        CHECK_INT(beam_store_dump_put(dump, (beam_str){"a", 1}, &two), 0);
        CHECK_INT(beam_store_dump_put(dump, (beam_str){"b", 1}, &one), 0);
        CHECK_INT(beam_store_dump_end(dump), 0);
        CHECK_INT(beam_store_dump_end(dump), -EINVAL);
        dump = beam_store_dump_free(dump);
        seen.text[0] = '\0';
        CHECK_INT(beam_store_read(file.ptr, file.len, see, &seen, &info), 0);
        CHECK_STR(seen.text, "a=2@9 b=1@9 ");
        CHECK_UINT(info.rev, 9);
        CHECK_UINT(info.keys, 2);
        CHECK(info.closed && info.verdict == 0 && info.stop == 0);
        CHECK(info.epoch != 0 && info.epoch != epoch);
        epoch = info.epoch;
        /* without its end it is none */
        CHECK_INT(beam_store_read(file.ptr, file.len - 2 * bm_record_len(0), NULL, NULL, &other),
                  -BEAM_EKV_CORRUPT);
        beam_buffer_deinit(&file);
    }
}

TEST(a_dump_without_a_key_is_an_empty_store)
{
    beam_buffer file;
    beam_store_dump *dump = NULL;
    struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
    beam_buffer_init(&file, 1 << 20);
    REQUIRE_INT(beam_store_dump_new(0, add, &file, &dump), 0);
    CHECK_INT(beam_store_dump_end(dump), 0);
    dump = beam_store_dump_free(dump);
    CHECK_INT(beam_store_read(file.ptr, file.len, NULL, NULL, &info), 0);
    CHECK_UINT(info.keys, 0);
    CHECK_INT(info.verdict, 0);
    beam_buffer_deinit(&file);
}

static int count_entry(beam_str key, const beam_kv_value *value, uint64_t rev, void *arg)
{
    ++*(uint64_t *)arg;
    return value->type == BEAM_KV_BYTES && value->bytes.len == 100000 ? 0 : -EIO;
}

TEST(a_dump_is_cut_into_parts)
{
    beam_buffer file;
    beam_store_dump *dump = NULL;
    struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
    uint64_t count = 0;
    char *room = calloc(1, 100000);
    beam_kv_value value = {.type = BEAM_KV_BYTES, .bytes = {room, 100000}};
    beam_buffer_init(&file, 4 << 20);
    REQUIRE_INT(beam_store_dump_new(3, add, &file, &dump), 0);
    for (int i = 0; i < 10; i++) {
        char key[8];
        int len = snprintf(key, sizeof(key), "k%d", i);
        CHECK_INT(beam_store_dump_put(dump, (beam_str){key, (size_t)len}, &value), 0);
    }
    CHECK_INT(beam_store_dump_end(dump), 0);
    dump = beam_store_dump_free(dump);
    CHECK_INT(beam_store_read(file.ptr, file.len, count_entry, &count, &info), 0);
    CHECK_UINT(count, 10);
    CHECK_UINT(info.records, 3 + 5); /* two fit into a part */
    free(room);
    beam_buffer_deinit(&file);
}

static int refuse(const void *bytes, size_t len, void *arg)
{
    size_t *left = arg;
    if (*left < len)
        return -ENOSPC;
    *left -= len;
    return 0;
}

TEST(a_dump_takes_keys_in_order_and_its_errors_stick)
{
    beam_store_dump *dump = NULL;
    beam_buffer file;
    beam_kv_value one = number(1);
    char long_key[BEAM_STORE_KEY_LEN_MAX + 1];
    const struct {
        beam_str first, second;
        int error;
    } rows[] = {
        {{"b", 1}, {"a", 1}, -EINVAL},
        {{"b", 1}, {"b", 1}, -EINVAL},
        {{"b", 1}, {"", 0}, -ENAMETOOLONG},
        {{"b", 1}, {long_key, sizeof(long_key)}, -ENAMETOOLONG},
        {{"b", 1}, {"\xff", 1}, -BEAM_EKV_UTF8},
    };
    memset(long_key, 'c', sizeof(long_key));
    CHECK_INT(beam_store_dump_new(0, NULL, NULL, &dump), -EINVAL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        beam_buffer_init(&file, 1 << 20);
        test_note("row %zu", i);
        REQUIRE_INT(beam_store_dump_new(0, add, &file, &dump), 0);
        CHECK_INT(beam_store_dump_put(dump, rows[i].first, &one), 0);
        CHECK_INT(beam_store_dump_put(dump, rows[i].second, &one), rows[i].error);
        CHECK_INT(beam_store_dump_put(dump, (beam_str){"x", 1}, &one), rows[i].error);
        CHECK_INT(beam_store_dump_end(dump), rows[i].error);
        dump = beam_store_dump_free(dump);
        beam_buffer_deinit(&file);
    }
    size_t left = 0;
    CHECK_INT(beam_store_dump_new(0, refuse, &left, &dump), -ENOSPC);
    CHECK_PTR(dump, NULL);
    left = 80;
    REQUIRE_INT(beam_store_dump_new(0, refuse, &left, &dump), 0);
    CHECK_INT(beam_store_dump_put(dump, (beam_str){"x", 1}, &one), 0);
    CHECK_INT(beam_store_dump_end(dump), -ENOSPC);
    CHECK_INT(beam_store_dump_end(dump), -ENOSPC);
    dump = beam_store_dump_free(dump);
}

static int count_bytes(const void *bytes, size_t len, void *arg)
{
    *(size_t *)arg += len;
    return 0;
}

static int dump_two(size_t *written)
{
    beam_store_dump *dump = NULL;
    beam_kv_value one = number(1);
    int r = beam_store_dump_new(1, count_bytes, written, &dump);
    if (r == 0)
        r = beam_store_dump_put(dump, (beam_str){"a", 1}, &one);
    if (r == 0)
        r = beam_store_dump_put(dump, (beam_str){"b", 1}, &one);
    if (r == 0)
        r = beam_store_dump_end(dump);
    beam_store_dump_free(dump);
    return r;
}

TEST(files_and_dumps_without_memory_are_told)
{
    beam_buffer file;
    char path[256];
    make_file(&file);
    snprintf(path, sizeof(path), "%s/x.kv", test_tmpdir());
    write_file(path, &file);
    int failed = 0, r;
    for (int what = 0; what < 3; what++) {
        int left = 0;
        do {
            struct seen seen = {.text = ""};
            size_t written = 0;
            test_note("%d, %d allocations", what, left);
            scarce_begin(left++);
            r = what == 0   ? beam_store_read_file(path, see, &seen, NULL)
                : what == 1 ? beam_store_read(file.ptr, file.len, see, &seen, NULL)
                            : dump_two(&written);
            scarce_end();
            failed += r == -ENOMEM;
            CHECK(r == 0 || r == -ENOMEM);
            CHECK_STR(seen.text, r == 0 && what < 2 ? "a=2@9 b=1@8 " : "");
        } while (r != 0 && left < 100);
        CHECK_INT(r, 0);
    }
    CHECK(failed > 6);
    beam_buffer_deinit(&file);
}

/* The files of the vectors, as their readers are told. */
TEST(files_are_read_as_named)
{
    struct vectors vectors;
    vectors_load("records.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        const char *error = vector_str(v, "error");
        struct beam_store_file_info info = BEAM_STORE_FILE_INFO();
        size_t len;
        if (strcmp(vector_str(v, "kind"), "record") == 0)
            continue;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        test_note("%s", vector_str(v, "name"));
        int r = beam_store_read(bytes, len, NULL, NULL, &info);
        CHECK_INT(r, !error                             ? 0
                     : strcmp(error, "KV_CORRUPT") == 0 ? -BEAM_EKV_CORRUPT
                                                        : -BEAM_EKV_FORMAT);
        CHECK_INT(info.file_len, vector_int(v, "end", -1));
        if (r == 0)
            CHECK_INT(info.rev, vector_int(v, "rev", -1));
        free(bytes);
    }
    vectors_free(&vectors);
}
