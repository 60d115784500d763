/* One writer: R13. The lock moves with the file, and two who open never both win. */
#define _GNU_SOURCE
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "kv/log_inner.h"
#include "tests/unit/kv/log_rig.h"

static struct log_rig rig;
static struct bm_log_place place;
static int old_fd, new_fd;

static int try_open(struct bm_log **log, struct bm_log_found *found)
{
    return bm_log_open(rig.rig.reactor, &rig.options, NULL, NULL, log, found);
}

TEST(lock_keeps_a_second_writer_out_until_the_first_has_gone)
{
    struct bm_log *second;
    struct bm_log_found found;
    struct told told;
    log_rig_init(&rig);
    rig.options.lock_wait_ns = 1;
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    CHECK_INT(try_open(&second, &found), -BEAM_EKV_LOCKED);
    CHECK(strstr(found.message, rig.path) != NULL);
    log_rig_put(&rig, "b", 1);
    CHECK_INT(bm_log_read_file(rig.path, NULL, NULL, &found), 0); /* R12: reading is free */
    CHECK_UINT(found.rev, 2);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    while (told.calls == 0 && !rig.rig.timed_out) {
        CHECK_INT(try_open(&second, &found), -BEAM_EKV_LOCKED);
        bm_reactor_turn(rig.rig.reactor);
    }
    CHECK_INT(try_open(&second, &found), -BEAM_EKV_LOCKED);
    CHECK_INT(log_rig_close(&rig), 0);
    log_rig_open(&rig);
    log_rig_deinit(&rig);
}

TEST(lock_keeps_another_process_out)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    pid_t child = fork();
    if (child == 0) {
        /* the child's own descriptions; the reactor is the parent's and is not touched */
        int fd, r = bm_log_place_init(&place, rig.path, NULL);
        if (r == 0)
            r = bm_log_place_open(&place, &fd);
        _exit(r == -BEAM_EKV_LOCKED ? 0 : 1);
    }
    int status;
    CHECK_INT(waitpid(child, &status, 0), child);
    CHECK_INT(status, 0);
    log_rig_deinit(&rig);
}

/* R18: what a writer has left that died. */
TEST(lock_lets_its_holder_remove_a_leftover_new_file)
{
    char new_path[600];
    struct told told;
    log_rig_init(&rig);
    snprintf(new_path, sizeof(new_path), "%s.new", rig.path);
    file_write(new_path, "left over", 9); /* and no file: the making of it was cut short */
    log_rig_open(&rig);
    CHECK(rig.found.created);
    CHECK(!file_exists(new_path));
    log_rig_put(&rig, "a", 1);
    CHECK_INT(log_rig_close(&rig), 0);
    file_write(new_path, "left over", 9);
    log_rig_open(&rig);
    CHECK(!file_exists(new_path));
    CHECK_UINT(rig.found.rev, 1);
    file_write(new_path, "left over", 9);
    REQUIRE_INT(log_rig_start_compaction(&rig, &told), 0);
    log_rig_until(&rig, &told.calls);
    CHECK_INT(told.res, 0);
    CHECK(!file_exists(new_path));
    log_rig_deinit(&rig);
}

/* What happens just before the next lock is asked for, and just after the next one that is refused. */
static void (*before_lock)(void), (*lock_refused)(void);

/* The C library's, with a moment in it. */
int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *arg = va_arg(list, void *);
    va_end(list);
    void (*fn)(void) = before_lock;
    if (command == F_OFD_SETLK && fn) {
        before_lock = NULL;
        fn();
    }
    int r = (int)syscall(SYS_fcntl, fd, command, arg);
    fn = lock_refused;
    if (command == F_OFD_SETLK && r < 0 && fn) {
        int error = errno;
        lock_refused = NULL;
        fn();
        errno = error;
    }
    return r;
}

static void let_go(void)
{
    close(old_fd);
}

/* That is how a writer looks that was killed: its lock outlives it, until the kernel has ended its writes. */
TEST(lock_of_a_writer_that_has_died_is_waited_for)
{
    log_rig_init(&rig);
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    log_rig_drop(&rig);
    REQUIRE_INT(bm_log_place_init(&place, rig.path, NULL), 0);
    REQUIRE_INT(bm_log_place_open(&place, &old_fd), 0);
    before_lock = NULL;
    lock_refused = let_go;
    log_rig_open(&rig);
    CHECK_PTR(lock_refused, NULL);
    CHECK_UINT(rig.found.rev, 1);
    bm_log_place_deinit(&place, NULL);
    log_rig_deinit(&rig);
}

static void let_go_of_new(void)
{
    close(new_fd);
}

static void let_go_of_new_next(void)
{
    lock_refused = let_go_of_new;
}

/* It may have been killed while it rewrote the file, and the one that comes now needs the name for its own. */
TEST(lock_of_a_new_file_whose_maker_has_died_is_waited_for)
{
    log_rig_init(&rig);
    rig.options.policy = BM_LOG_BATCH;
    log_rig_open(&rig);
    log_rig_put(&rig, "a", 1);
    log_rig_drop(&rig);
    REQUIRE_INT(bm_log_place_init(&place, rig.path, NULL), 0);
    REQUIRE_INT(bm_log_place_open(&place, &old_fd), 0);
    REQUIRE_INT(bm_log_place_make_new(&place, old_fd, &new_fd), 0);
    close(old_fd);
    before_lock = NULL;
    lock_refused = let_go_of_new_next;
    log_rig_open(&rig);
    CHECK_PTR(lock_refused, NULL);
    CHECK(rig.found.new_epoch);
    bm_log_place_deinit(&place, NULL);
    log_rig_deinit(&rig);
}

/* The kernel may keep the open file of an operation that is done until the ring is entered next, and who
 * opens the file again on the same thread does not enter it. */
TEST(lock_is_gone_when_a_log_is_closed_whoever_still_has_the_file_open)
{
    for (int way = 0; way < 2; way++) {
        test_note("way %d", way);
        log_rig_init(&rig);
        rig.options.lock_wait_ns = 1;
        log_rig_open(&rig);
        log_rig_put(&rig, "a", 1);
        int kept = fcntl(rig.log->fd, F_DUPFD_CLOEXEC, 0);
        REQUIRE(kept >= 0);
        if (way == 0)
            CHECK_INT(log_rig_close(&rig), 0);
        else
            log_rig_drop(&rig);
        CHECK_INT(log_rig_try_open(&rig), 0);
        close(kept);
        log_rig_deinit(&rig);
    }
}

static void replace_file(void)
{
    CHECK_INT(bm_log_place_rename(&place, old_fd, new_fd), 0);
    close(old_fd);
}

/* Somebody has the old file open when it is replaced, and gets its lock, which nobody else wants now. */
TEST(lock_of_a_file_without_its_name_is_none)
{
    int fd;
    log_rig_init(&rig);
    REQUIRE_INT(bm_log_place_init(&place, rig.path, NULL), 0);
    REQUIRE_INT(bm_log_place_make_first(&place, &old_fd), 0);
    REQUIRE_INT(bm_log_place_rename(&place, -1, old_fd), 0);
    REQUIRE_INT(bm_log_place_make_new(&place, old_fd, &new_fd), 0);
    before_lock = replace_file;
    CHECK_INT(bm_log_place_open(&place, &fd), -BEAM_EKV_LOCKED);
    close(new_fd);
    CHECK_INT(bm_log_place_open(&place, &fd), 0);
    CHECK_INT(bm_log_place_means(&place, fd), 1);
    close(fd);
    bm_log_place_deinit(&place, NULL);
    log_rig_deinit(&rig);
}

static void make_file(void)
{
    struct bm_log_place other;
    REQUIRE_INT(bm_log_place_init(&other, rig.path, NULL), 0);
    REQUIRE_INT(bm_log_place_make_first(&other, &old_fd), 0);
    REQUIRE_INT(bm_log_place_rename(&other, -1, old_fd), 0);
    bm_log_place_deinit(&other, NULL);
}

/* Two have found that there is no file; one has made it when the other asks for the lock of what is not
 * the ".new" any more. */
TEST(lock_of_a_file_that_is_made_is_had_by_one)
{
    int fd;
    log_rig_init(&rig);
    REQUIRE_INT(bm_log_place_init(&place, rig.path, NULL), 0);
    CHECK_INT(bm_log_place_open(&place, &fd), -ENOENT);
    before_lock = make_file;
    CHECK_INT(bm_log_place_make_first(&place, &fd), 1);
    CHECK_INT(bm_log_place_open(&place, &fd), -BEAM_EKV_LOCKED);
    CHECK_INT(bm_log_place_make_first(&place, &fd), 1); /* there is one: look again */
    close(old_fd);
    CHECK_INT(bm_log_place_open(&place, &fd), 0);
    close(fd);
    bm_log_place_deinit(&place, NULL);
    log_rig_deinit(&rig);
}

/* --- races ---------------------------------------------------------------------------------------- */

enum { RACERS = 4, RACES = 150 };

struct race {
    _Atomic int holders, most, wins, makers;
};

/* Opens or makes the file as bm_log_open() does, holds it for a moment, and sometimes puts a new one in its
 * place, as a compaction does. */
static void race(struct race *shared, const char *path, uint64_t seed)
{
    struct test_random random = test_random(seed);
    int fd = -1;
    if (bm_log_place_init(&place, path, NULL) < 0)
        _exit(2);
    for (int i = 0; i < RACES; i++) {
        int r = bm_log_place_open(&place, &fd);
        if (r == -ENOENT) {
            r = bm_log_place_make_first(&place, &fd);
            if (r == 0) {
                r = bm_log_place_rename(&place, -1, fd);
                if (r < 0)
                    close(fd);
                else
                    atomic_fetch_add(&shared->makers, 1);
            }
        }
        if (r != 0) {
            if (r < 0 && r != -BEAM_EKV_LOCKED && r != -EEXIST)
                _exit(3);
            sched_yield();
            continue;
        }
        int now = atomic_fetch_add(&shared->holders, 1) + 1;
        if (now > atomic_load(&shared->most))
            atomic_store(&shared->most, now);
        atomic_fetch_add(&shared->wins, 1);
        if (test_random_below(&random, 2)) {
            int next_fd = -1;
            r = bm_log_place_make_new(&place, fd, &next_fd);
            if (r == 0 && test_random_below(&random, 4) > 0) {
                if (bm_log_place_rename(&place, fd, next_fd) < 0)
                    _exit(4);
                close(fd);
                fd = next_fd;
            } else if (r == 0) {
                close(next_fd); /* and leaves it behind, as if it had died */
            } else if (r != -BEAM_EKV_LOCKED) {
                _exit(5);
            }
        }
        sched_yield();
        atomic_fetch_sub(&shared->holders, 1);
        if (test_random_below(&random, 16) == 0)
            unlink(path); /* so that it has to be made again */
        close(fd);
    }
    _exit(0);
}

TEST(lock_is_never_won_twice_by_those_who_make_open_and_replace_the_file)
{
    log_rig_init(&rig);
    struct race *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t children[RACERS];
    for (int i = 0; i < RACERS; i++) {
        children[i] = fork();
        if (children[i] == 0)
            race(shared, rig.path, (uint64_t)i + 1);
    }
    for (int i = 0; i < RACERS; i++) {
        int status;
        CHECK_INT(waitpid(children[i], &status, 0), children[i]);
        CHECK_INT(status, 0);
    }
    CHECK_INT(shared->most, 1);
    CHECK(shared->wins > RACERS);
    CHECK(shared->makers > 0);
    munmap(shared, sizeof(*shared));
    log_rig_deinit(&rig);
}
