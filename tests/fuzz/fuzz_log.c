/* A file of any bytes is opened as a log, appended to, closed or left, and opened again. What is refused is
 * left as it is; what is accepted is the state that a reader finds who only reads, goes on from there, and
 * is the same the next time. Nothing is in the way of a new file beside it.
 *
 * The first byte says what is done: bit 0: each sum is set right before; 1: the writer tells early;
 * 2: closed in the end, or left; 3: compacted in between. The rest is the file.
 *
 * Covers: kv/recovery.c kv/log_read.c */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "kv/digest.h"
#include "kv/log.h"
#include "tests/fuzz/fuzz.h"
#include "uring/reactor.h"

enum { INPUT_LEN_MAX = 8192 };

static struct bm_reactor *reactor;
static char path[256], new_path[300];

static size_t shape(const uint8_t *p, size_t left)
{
    uint64_t vlen = left >= 8 ? bm_get_u32(p) : 0;
    if (left < 8 || p[4] || p[5] || p[6] != 0x10 || vlen < 16 || vlen % 8 != 0 || vlen + 8 > left)
        return 0;
    return (size_t)vlen + 8;
}

static void set_sums(uint8_t *bytes, size_t len)
{
    uint64_t epoch = 0;
    size_t n;
    for (size_t at = 0; (n = shape(bytes + at, len - at)) > 0; at += n) {
        bm_put_u64(bytes + at + n - 8, bm_xxh3_seeded(bytes + at, n - 8, epoch));
        if (at == 0 && n == 72)
            epoch = bm_get_u64(bytes + 24);
    }
}

static void write_file(const uint8_t *bytes, size_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    EXPECT(fd >= 0 && write(fd, bytes, len) == (ssize_t)len);
    close(fd);
}

static void expect_unchanged(const uint8_t *bytes, size_t len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    EXPECT(fd >= 0 && fstat(fd, &st) == 0 && (size_t)st.st_size == len);
    uint8_t *now = malloc(len);
    EXPECT(read(fd, now, len) == (ssize_t)len && memcmp(now, bytes, len) == 0);
    free(now);
    close(fd);
}

/* All that was applied, as one number. */
struct state {
    uint64_t sum, deltas;
};

static int apply(void *arg, const struct bm_record *record)
{
    struct state *state = arg;
    if (record->kind == BM_RECORD_LIVE)
        return 0;
    EXPECT(bm_record_check_body(record->body, record->body_len, record->kind == BM_RECORD_DELTA,
                                NULL) == 0);
    state->sum = bm_xxh3_seeded(record->body, record->body_len, state->sum + record->rev);
    state->deltas += record->kind == BM_RECORD_DELTA;
    return 0;
}

static int open_log(uint8_t mode, struct state *state, struct bm_log **log,
                    struct bm_log_found *found)
{
    struct bm_log_options options = {
        .path = path,
        .policy = mode & 2 ? BM_LOG_NONE : BM_LOG_EACH,
        .lock_wait_ns = 1, /* nobody else has it */
        .step_len = 4096,  /* room that is set aside is looked through when it is opened again */
        .queue_len_max = 8192,
        .record_len_max = 8192,
    };
    *state = (struct state){0, 0};
    return bm_log_open(reactor, &options, apply, state, log, found);
}

static int result;

static void note(struct bm_log_wait *wait, int res)
{
    (void)wait;
    result = res;
    bm_reactor_stop(reactor);
}

static void wait_until_told(void)
{
    result = 1;
    EXPECT(bm_reactor_run(reactor) == 0);
    EXPECT(result == 0);
}

/* The state is empty, says this source. */
struct empty_source {
    struct bm_log_source source;
    uint64_t rev;
};

static int no_parts_of(struct bm_log_source *source, size_t len_max, const void **ret_entries,
                       size_t *ret_len, uint64_t *ret_rev)
{
    (void)len_max, (void)ret_entries, (void)ret_len;
    *ret_rev = ((struct empty_source *)source)->rev;
    return 0;
}

static void go_on(struct bm_log *log, uint8_t mode, uint64_t rev)
{
    static const uint8_t entry[] = {8, 0, 0, 0, 1,   0, 4, 0, 7, 0, 0, 0,
                                    0, 0, 0, 0, 'k', 0, 0, 0, 0, 0, 0, 0};
    struct bm_log_wait wait = {.fn = note};
    struct empty_source source = {{no_parts_of}, rev + 1};
    uint64_t made;
    EXPECT(bm_log_append(log, entry, sizeof(entry), &wait, &made) == 0 && made == rev + 1);
    wait_until_told();
    if (mode & 8) {
        EXPECT(bm_log_compact(log, &source.source, &wait) == 0);
        wait_until_told();
    }
    if (mode & 4) {
        bm_log_close(log, &wait);
        wait_until_told();
    } else {
        while (bm_reactor_inflight(reactor) > 0)
            bm_reactor_turn(reactor);
        bm_log_free(log);
    }
}

static void check(const uint8_t *bytes, size_t len, uint8_t mode)
{
    struct bm_log *log;
    struct bm_log_found found, read_found, again;
    struct state state, read_state = {0, 0}, again_state;
    int read_r = bm_log_read(bytes, len, true, apply, &read_state, &read_found);
    write_file(bytes, len);
    int r = open_log(mode, &state, &log, &found);
    EXPECT(r == 0 || r == -BEAM_EKV_CORRUPT || r == -BEAM_EKV_FORMAT);
    EXPECT(state.sum == read_state.sum && state.deltas == read_state.deltas);
    EXPECT(r != 0 || read_r == 0);
    EXPECT(strlen(found.message) < sizeof(found.message));
    if (r < 0) {
        EXPECT(found.message[0]);
        expect_unchanged(bytes, len);
        return;
    }
    EXPECT(found.rev == read_found.rev && found.base_rev == read_found.base_rev);
    EXPECT(found.rev == found.base_rev + state.deltas);
    EXPECT(found.cut_len <= len && (found.cut_len == 0) == (found.message[0] == '\0'));
    if (found.rev == BM_RECORD_REV_MAX) {
        bm_log_free(log);
        return;
    }
    go_on(log, mode, found.rev);
    EXPECT(bm_log_read_file(path, apply, &read_state, &read_found) == 0);
    EXPECT(read_found.rev == found.rev + 1 && read_found.clean == !!(mode & 4));

    r = open_log(mode & 4 ? mode : mode & 0xfd, &again_state, &log, &again);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", beam_error_name(r), again.message);
    EXPECT(r == 0);
    EXPECT(again.rev == found.rev + 1 && again.cut_len == 0);
    EXPECT(again.clean == !!(mode & 4));
    EXPECT(again.new_epoch == ((mode & 6) == 2));
    EXPECT((again.epoch == found.epoch) == !again.new_epoch);
    if (mode & 8)
        EXPECT(again.base_rev == again.rev - again_state.deltas && again_state.deltas <= 1);
    else
        EXPECT(again_state.deltas == state.deltas + 1);
    bm_log_free(log);
    EXPECT(access(new_path, F_OK) < 0 && errno == ENOENT);
}

static void remove_files(void)
{
    unlink(path);
    unlink(new_path);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct bm_reactor_options options = {.spin = BM_SPIN_NEVER};
    (void)argc, (void)argv;
    /* In memory, where that can be had: syncs are not what this is about. */
    const char *dir = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, sizeof(path), "%s/beam-fuzz-log-%d", dir, (int)getpid());
    snprintf(new_path, sizeof(new_path), "%s.new", path);
    atexit(remove_files);
    if (bm_reactor_new(&options, &reactor) < 0) {
        fprintf(stderr, "io_uring is needed\n");
        return 1;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > INPUT_LEN_MAX)
        return 0;
    uint8_t *bytes = fuzz_copy(data + 1, size - 1);
    if (data[0] & 1)
        set_sums(bytes, size - 1);
    check(bytes, size - 1, data[0] & 0xfe);
    free(bytes);
    return 0;
}
