/* A writer that is killed at any moment, a thousand times: what it had acknowledged is
 * there, the rest is a prefix of what it did, and under the policies that tell early there is a new epoch.
 *
 * The writer is a process that appends transactions in groups of changing size, compacts now and then, and
 * writes each acknowledged revision into a pipe. What a revision changes follows from its number, so that
 * the parent knows the state at any of them. A file lives through many deaths.
 *
 * BEAM_KILLS: how often under each of the three policies (1000; fewer under a sanitizer). BEAM_KILLS_DIR: where (a
 * directory in memory: a kill loses no more than that of a disk, and a thousand syncs cost nothing). */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/kv/log_rig.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KILLS 60
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KILLS 60
#endif
#endif
#ifndef KILLS
#define KILLS 1000
#endif

enum { KEYS = 97, LANES = 10, GROUP_MAX = 6 };

/* What revision rev does. */
static void body_of(uint64_t rev, struct body *body)
{
    struct test_random random = test_random(rev * 2 + 1);
    uint64_t first = test_random_below(&random, KEYS - 3);
    static const char filler[300];
    body->len = 0;
    for (uint64_t i = 0; i < 3; i++) {
        char key[16];
        snprintf(key, sizeof(key), "key %02llu", (unsigned long long)(first + i));
        if (test_random_below(&random, 4) == 0)
            body_del(body, key);
        else if (test_random_below(&random, 4) == 0)
            body_add(body, BEAM_KV_BYTES, key, filler, test_random_below(&random, sizeof(filler)));
        else
            body_put(body, key, (int64_t)rev);
    }
}

/* --- the writer ----------------------------------------------------------------------------------- */

static struct log_rig writer;
static int acks;

struct ack {
    struct bm_log_wait wait;
    bool busy;
};

static void acknowledge(struct bm_log_wait *wait, int res)
{
    bm_container_of(wait, struct ack, wait)->busy = false;
    if (res != 0 || write(acks, &wait->rev, sizeof(wait->rev)) != sizeof(wait->rev))
        _exit(3);
}

static void compacted(struct bm_log_wait *wait, int res)
{
    (void)wait;
    if (res != 0)
        _exit(4);
}

static void append_next(struct ack *ack)
{
    struct body body;
    uint64_t rev = bm_log_state(writer.log).rev + 1, made;
    body_of(rev, &body);
    ack->wait.fn = acknowledge;
    ack->busy = true;
    if (bm_log_append(writer.log, body.bytes, body.len, &ack->wait, &made) != 0 || made != rev)
        _exit(5);
    map_model_change(&writer.map, body.bytes, body.len);
}

/* Until it is killed. */
static void write_for_life(uint64_t seed)
{
    static struct ack pool[64];
    static struct bm_log_wait done;
    struct test_random random = test_random(seed);
    struct bm_reactor_options reactor = {.spin = BM_SPIN_NEVER};
    if (bm_reactor_new(&reactor, &writer.rig.reactor) < 0 || log_rig_try_open(&writer) < 0)
        _exit(2);
    uint64_t zero = 0; /* it has begun */
    if (write(acks, &zero, sizeof(zero)) != sizeof(zero))
        _exit(3);
    for (;;) {
        uint64_t count = 1 + test_random_below(&random, GROUP_MAX);
        for (size_t i = 0; i < 64 && count > 0; i++) {
            if (pool[i].busy)
                continue;
            append_next(&pool[i]);
            count--;
        }
        if (test_random_below(&random, 20) == 0 && !bm_log_state(writer.log).compacting) {
            done.fn = compacted;
            writer.source.next = log_rig_next_part;
            writer.source_begun = false;
            writer.part_len = 1 + test_random_below(&random, 40);
            if (bm_log_compact(writer.log, &writer.source, &done) < 0)
                _exit(6);
        }
        bm_reactor_turn(writer.rig.reactor);
    }
}

/* --- its judge ------------------------------------------------------------------------------------ */

/* What came through the pipe, to its last byte. */
static uint64_t last_acknowledged(int fd)
{
    uint64_t revs[512], last = 0;
    ssize_t n;
    while ((n = read(fd, revs, sizeof(revs))) > 0)
        last = n >= 8 ? revs[n / 8 - 1] : last;
    return last;
}

static const char *directory(void)
{
    const char *wanted = getenv("BEAM_KILLS_DIR");
    return wanted ? wanted : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : test_tmpdir();
}

static unsigned kills(void)
{
    const char *wanted = getenv("BEAM_KILLS");
    return wanted ? (unsigned)strtoul(wanted, NULL, 10) : KILLS;
}

/* A file, and what is known of it. */
struct lane {
    struct log_rig rig;
    struct map_model shadow; /* the state after shadow_rev; revisions only grow */
    uint64_t shadow_rev, epoch, acknowledged;
    unsigned lives;
};

static const struct map_model *shadow_at(struct lane *lane, uint64_t rev)
{
    struct body body;
    if (rev < lane->shadow_rev) { /* more had been there than was acknowledged, and is gone */
        map_model_deinit(&lane->shadow);
        lane->shadow_rev = 0;
    }
    while (lane->shadow_rev < rev) {
        body_of(++lane->shadow_rev, &body);
        map_model_change(&lane->shadow, body.bytes, body.len);
    }
    return &lane->shadow;
}

/* R12: whoever reads while it is written, and replaced, finds a state that it had, and all that had been
 * acknowledged. */
static void read_meanwhile(struct lane *lane, uint64_t acknowledged)
{
    struct log_rig reader = {.map = {0}};
    struct bm_log_found found;
    CHECK_INT(bm_log_read_file(lane->rig.path, log_rig_apply, &reader, &found), 0);
    CHECK(found.rev >= acknowledged);
    CHECK(map_model_same(&reader.map, shadow_at(lane, found.rev)));
    map_model_deinit(&reader.map);
}

/* One life: its last acknowledged revision, or what it had when it began. */
static uint64_t live_and_die(struct lane *lane, struct test_random *random)
{
    const struct log_rig *rig = &lane->rig;
    int pipe_fds[2], status;
    uint64_t begun, seed = test_random_next(random) | 1;
    REQUIRE_INT(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        close(pipe_fds[0]);
        acks = pipe_fds[1];
        memset(&writer, 0, sizeof(writer));
        memcpy(writer.path, rig->path, sizeof(writer.path));
        writer.options = rig->options;
        writer.options.path = writer.path;
        writer.options.on_room = NULL;
        writer.options.on_failed = NULL;
        write_for_life(seed);
    }
    close(pipe_fds[1]);
    REQUIRE_INT(read(pipe_fds[0], &begun, sizeof(begun)), sizeof(begun));
    /* some die at once, some after a thousand revisions; how far they come is up to the machine */
    uint64_t looks = test_random_below(random, 60), rev;
    uint64_t last = lane->acknowledged;
    for (uint64_t i = 0; i < looks; i++) {
        REQUIRE_INT(read(pipe_fds[0], &rev, sizeof(rev)), sizeof(rev));
        last = rev;
    }
    if (test_random_below(random, 2))
        read_meanwhile(lane, last);
    for (uint64_t i = test_random_below(random, 4000); i > 0; i--)
        __asm__ volatile("");
    kill(child, SIGKILL);
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    rev = last_acknowledged(pipe_fds[0]);
    close(pipe_fds[0]);
    return rev > last ? rev : last;
}

/* After a death. */
static void judge(struct lane *lane)
{
    struct log_rig *rig = &lane->rig;
    bool early = rig->options.policy != BM_LOG_EACH;
    log_rig_open(rig);
    CHECK(rig->found.rev >= lane->acknowledged);
    CHECK(map_model_same(&rig->map, shadow_at(lane, rig->found.rev)));
    CHECK_INT(rig->found.new_epoch, early);
    if (lane->lives > 1)
        CHECK_INT(rig->found.epoch != lane->epoch, early);
    lane->epoch = rig->found.epoch;
    lane->acknowledged = rig->found.rev;
    if (early) /* in order, or the next open would be after a death of this one */
        CHECK_INT(log_rig_close(rig), 0);
    else
        log_rig_drop(rig);
}

/* Several files in turn: while the kernel ends what a dead writer had under way, others live and die. */
static void kill_writers(enum bm_log_policy policy)
{
    static struct lane lanes[LANES];
    struct test_random random = test_random(0);
    uint64_t all = 0;
    memset(lanes, 0, sizeof(lanes));
    for (unsigned i = 0; i < LANES; i++) {
        struct log_rig *rig = &lanes[i].rig;
        log_rig_init(rig);
        snprintf(rig->path, sizeof(rig->path), "%s/beam-killed-%d-%d-%u.kv", directory(),
                 (int)getpid(), policy, i);
        rig->options.policy = policy;
        rig->options.interval_ns = BM_NS_PER_MS;
        rig->options.idle_ns = 1;
    }
    for (unsigned i = 0; i < kills() + LANES; i++) {
        struct lane *lane = &lanes[i % LANES];
        test_note("policy %d, life %u", policy, i);
        if (lane->lives > 0)
            judge(lane);
        if (i >= kills())
            continue;
        lane->acknowledged = live_and_die(lane, &random);
        lane->lives++;
    }
    for (unsigned i = 0; i < LANES; i++) {
        all += lanes[i].acknowledged;
        unlink(lanes[i].rig.path);
        map_model_deinit(&lanes[i].shadow);
        log_rig_deinit(&lanes[i].rig);
    }
    CHECK(all > kills());
}

TEST(killed_writers_lose_nothing_acknowledged_under_each)
{
    kill_writers(BM_LOG_EACH);
}

TEST(killed_writers_lose_nothing_acknowledged_and_leave_a_new_epoch_under_batch)
{
    kill_writers(BM_LOG_BATCH);
}

TEST(killed_writers_lose_nothing_acknowledged_and_leave_a_new_epoch_under_none)
{
    kill_writers(BM_LOG_NONE);
}
