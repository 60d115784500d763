/* One seed: some lives of one log (life.h).
 *
 * A seed has its policy of trouble for all its lives; one in four has none, and there nothing may fail. In
 * a sweep there is one fault, at a given place, and all else goes well. After each change of the disk, and
 * after each promise, states that a loss of power would leave are made and judged. */
#include "tests/sim_log/life.h"

#include <errno.h>
#include <stdlib.h>

#include "base/clock.h"
#include "tests/sim_log/home.h"
#include "tests/sim_log/truth.h"
#include "tests/support/sim/inner.h"
#include "uring/reactor.h"

#define LIVES_MAX 5u
#define STEPS_MAX 40u
#define STEPS_SWEPT 25u
#define OPENS_MAX 20u    /* then nothing goes wrong any more */
#define TURNS_MAX 20000u /* what has not come until then will never come */

enum wait_kind { APPEND, SYNC, COMPACTION, CLOSE };

struct wait {
    struct bm_log_wait wait;
    struct wait *next;
    enum wait_kind kind;
    uint64_t rev;
    bool told;
};

static struct life {
    bool calm;  /* nothing may fail */
    bool swept; /* one fault, in a sweep */
    bool gone;  /* what is told now binds nobody */

    struct bm_reactor *reactor;
    struct bm_log *log;
    struct bm_log_options options;
    struct wait *waits;
    unsigned waiting, compactions;
    uint64_t last_told; /* revision of an append */
    unsigned failures, rooms;
    int failure;
    bool starved; /* an append was told -EAGAIN, and on_room not yet */
    bool closed;
    bool ends; /* the process does, and what is under way is cancelled */

    struct bm_log_source source;
    unsigned source_key;
    bool source_lags;
    uint8_t part[TRUTH_BODY_LEN * 2];
} life;

/* --- what the log tells --------------------------------------------------------------------------- */

static bool disk_has_failed(void)
{
    return sim_disk_failures.of_file + sim_disk_failures.of_directory > 0;
}

/* Behind a close, which waits for all answers. */
static void check_final(void)
{
    if (disk_has_failed() && life.failures == 0)
        sim_fail("something that the log stands on has failed, and the log goes on");
}

static void check_error(const struct wait *wait, int res)
{
    if (wait->kind != COMPACTION && bm_log_state(life.log).error != res)
        sim_fail("a wait was told %d, and the log has failed with %d", res,
                 bm_log_state(life.log).error);
}

static void tell_append(const struct wait *wait)
{
    if (wait->rev <= life.last_told)
        sim_fail("revision %llu was told after %llu", (unsigned long long)wait->rev,
                 (unsigned long long)life.last_told);
    life.last_told = wait->rev;
    truth_tell(wait->rev);
    if (life.options.policy == BM_LOG_EACH)
        truth_promise(wait->rev);
}

static void on_told(struct bm_log_wait *given, int res)
{
    struct wait *wait = bm_container_of(given, struct wait, wait);
    if (wait->told)
        sim_fail("a wait was told twice");
    wait->told = true;
    life.waiting--;
    life.compactions -= wait->kind == COMPACTION;
    life.closed |= wait->kind == CLOSE;
    sim_event("told: kind %d, revision %llu: %d", wait->kind, (unsigned long long)wait->rev, res);
    if (life.gone)
        return;
    if (res < 0 && wait->kind != CLOSE) {
        check_error(wait, res);
        return;
    }
    if (wait->kind == CLOSE) {
        if (res != life.failure)
            sim_fail("a close was told %d after the failure %d", res, life.failure);
        if (res == 0)
            truth_promise(truth.rev);
    } else if (wait->kind != COMPACTION && life.failures > 0) {
        sim_fail("something was acknowledged after the log had failed");
    } else if (wait->kind == APPEND) {
        tell_append(wait);
    } else if (wait->kind == SYNC) {
        truth_promise(wait->rev);
    }
    home_judge("after a promise");
}

static struct wait *wait_new(enum wait_kind kind)
{
    struct wait *wait = calloc(1, sizeof(*wait));
    if (!wait)
        sim_fail("no memory for the simulation itself");
    wait->wait.fn = on_told;
    wait->kind = kind;
    wait->rev = truth.rev;
    return wait;
}

/* r: of the call that was to take it. */
static void wait_keep(struct wait *wait, int r)
{
    if (r < 0) {
        free(wait);
        return;
    }
    wait->next = life.waits;
    life.waits = wait;
    life.waiting++;
}

static void waits_free(void)
{
    while (life.waits) {
        struct wait *wait = life.waits;
        if (!wait->told)
            sim_fail("a wait of kind %d for revision %llu was never told", wait->kind,
                     (unsigned long long)wait->rev);
        life.waits = wait->next;
        free(wait);
    }
    life.waiting = life.compactions = 0;
}

static void on_room(void *arg)
{
    (void)arg;
    life.rooms++;
    life.starved = false;
}

static void on_failed(void *arg, int error)
{
    (void)arg;
    sim_event("the log has failed: %d", error);
    life.failures++;
    life.failure = error;
    if (life.failures > 1)
        sim_fail("a failure was told twice");
    if (!life.gone && !life.ends && !disk_has_failed())
        sim_fail("the log has failed with %d, and nothing has failed that it stands on", error);
}

/* --- what is done with it ------------------------------------------------------------------------- */

static void check_refusal(int r)
{
    if (r == -EROFS ? life.failures == 0 && bm_log_state(life.log).error == 0 : r == -ESHUTDOWN)
        sim_fail("a log that has not failed is read-only: %d", r);
    if (r != -EROFS && r != 0 && life.failures > 0)
        sim_fail("a log that has failed says %d", r);
    if (life.calm && r != -EAGAIN)
        sim_fail("a log in a calm world says %d", r);
}

static void append(void)
{
    static uint8_t bytes[TRUTH_BODY_LEN];
    size_t len = truth_body(bytes);
    uint64_t rev = 0, before = bm_log_state(life.log).rev;
    struct wait *wait = wait_new(APPEND);
    int r = bm_log_append(life.log, bytes, len, &wait->wait, &rev);
    sim_event("an append of %zu bytes: %d", len, r);
    if (r == 0) {
        truth_append(bytes, len);
        wait->rev = rev;
        if (rev != truth.rev)
            sim_fail("an append became revision %llu instead of %llu", (unsigned long long)rev,
                     (unsigned long long)truth.rev);
        if (life.failures > 0)
            sim_fail("a log that has failed takes an append");
    } else {
        check_refusal(r);
        life.starved |= r == -EAGAIN;
        if (bm_log_state(life.log).rev != before)
            sim_fail("an append that was refused has made a revision");
        if (r != -EAGAIN && r != -ENOSPC && r != -EDQUOT && r != -ENOMEM && r != -EROFS &&
            r != -EIO)
            sim_fail("an append was refused with %d", r);
    }
    wait_keep(wait, r);
}

static void sync_all(void)
{
    struct wait *wait = wait_new(SYNC);
    int r = bm_log_sync(life.log, &wait->wait);
    sim_event("a sync: %d", r);
    if (r < 0)
        check_refusal(r);
    wait_keep(wait, r);
}

/* The state as it is, or as it was told: both are allowed. */
static int next_part(struct bm_log_source *source, size_t len_max, const void **ret_entries,
                     size_t *ret_len, uint64_t *ret_rev)
{
    (void)source;
    if (!life.calm && sim_chance(sim.odds.refused))
        return -ENODATA;
    *ret_rev = life.source_lags ? life.last_told : truth.rev;
    size_t cap = len_max < sizeof(life.part) ? len_max : sizeof(life.part);
    *ret_len = truth_part(*ret_rev, &life.source_key, 1 + (unsigned)sim_below(4), life.part, cap);
    *ret_entries = life.part;
    return *ret_len > 0;
}

static void compact(void)
{
    if (life.compactions > 0)
        return;
    struct wait *wait = wait_new(COMPACTION);
    life.source.next = next_part;
    life.source_key = 0;
    life.source_lags = sim_below(2);
    int r = bm_log_compact(life.log, &life.source, &wait->wait);
    sim_event("a compaction: %d", r);
    if (r < 0)
        check_refusal(r);
    life.compactions += r == 0;
    wait_keep(wait, r);
}

static void turn(void)
{
    (void)bm_reactor_turn(life.reactor);
    if (life.log && !life.closed && !life.gone) {
        uint64_t durable_rev = bm_log_state(life.log).durable_rev;
        if (durable_rev > truth.promised) {
            truth_promise(durable_rev);
            home_judge("after a sync");
        }
    }
    sim_notice();
    sim_advance(sim.now_ns + sim_below(BM_NS_PER_MS));
}

/* Until this is so. */
static void turn_until(const bool *done, const char *what)
{
    for (unsigned i = 0; !*done; i++) {
        turn();
        if (i == TURNS_MAX)
            sim_fail("%s never comes", what);
        if (i > 100) /* nothing comes soon */
            sim_advance(sim.now_ns + 10 * BM_NS_PER_MS);
    }
}

static void step(void)
{
    switch (sim_below(20)) {
    case 0:
        sync_all();
        break;
    case 1:
    case 19:
        compact();
        break;
    case 2: /* a while without anything: marks */
        turn();
        sim_advance(sim.now_ns + 1100 * BM_NS_PER_MS);
        break;
    case 3:
        sim_disk_full = !life.calm && !life.swept && !sim_disk_full && sim_chance(2000);
        break;
    case 4:
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
    case 10:
        for (uint64_t n = 1 + sim_below(3); n > 0; n--)
            append();
        break;
    default:
        for (uint64_t n = 1 + sim_below(4); n > 0; n--)
            turn();
        break;
    }
}

/* --- from one life to the next -------------------------------------------------------------------- */

static void set_trouble(void)
{
    struct sim_odds *odds = &sim.odds;
    *odds = (struct sim_odds){.late = 3000, .reorder = 5000};
    if (life.swept)
        return;
    odds->late = (unsigned)sim_below(6000);
    odds->reorder = (unsigned)sim_below(10000);
    odds->enter = sim_below(2) ? (unsigned)sim_below(1000) : 0;
    odds->small_ring = sim_below(4) == 0;
    odds->cancel_race = (unsigned)sim_below(10000);
    odds->stuck = sim_below(4) == 0 ? 20 : 0;
    odds->short_write = sim_below(2) ? (unsigned)sim_below(3000) : 0;
    if (life.calm)
        return;
    odds->refused = sim_below(2) ? (unsigned)sim_below(300) : 20;
    odds->blocking = sim_below(2) ? (unsigned)sim_below(1000) : 0;
    odds->no_room = sim_below(2) ? (unsigned)sim_below(1000) : 0;
    odds->no_memory = sim_below(4) == 0 ? (unsigned)sim_below(200) : 0;
}

static void make_reactor(void)
{
    struct bm_reactor_options options = {.spin = BM_SPIN_NEVER};
    for (unsigned i = 0; bm_reactor_new(&options, &life.reactor) < 0; i++)
        if (life.calm || i == 100)
            sim_fail("there is no reactor");
}

static void check_open_error(int r, const struct bm_log_found *found)
{
    static const int allowed[] = {-EIO, -ENOSPC, -EDQUOT, -EINTR, -ENOMEM};
    bool is_allowed = false;
    for (unsigned i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
        is_allowed |= r == allowed[i];
    if (life.calm || !is_allowed)
        sim_fail("a log cannot be opened: %d, %s", r, found->message);
}

static void open_log(bool power)
{
    struct sim_odds odds = sim.odds;
    int r = -EIO;
    home_doing = "during an open";
    for (unsigned i = 0; r < 0; i++) {
        struct truth_reading reading = {.rev = 0};
        struct bm_log_found found;
        if (i == OPENS_MAX)
            sim.odds.blocking = sim.odds.no_room = sim.odds.no_memory = 0, sim_disk_full = false;
        r = bm_log_open(life.reactor, &life.options, truth_read, &reading, &life.log, &found);
        sim_event("an open: %d, revision %llu", r, (unsigned long long)found.rev);
        if (r < 0) {
            check_open_error(r, &found);
            if (i > OPENS_MAX)
                sim_fail("a log cannot be opened in a good world: %d, %s", r, found.message);
            continue;
        }
        truth_reopened(&found, &reading, power);
        home_check_names(false);
    }
    sim.odds = odds;
    home_judge("after an open");
}

static void begin_life(unsigned n, bool power)
{
    life.waits = NULL;
    life.waiting = life.compactions = life.failures = life.rooms = 0;
    life.failure = 0;
    life.closed = life.gone = life.ends = life.starved = false;
    life.options = (struct bm_log_options){
        .path = home_path(),
        .policy = (enum bm_log_policy)((sim.seed + n) % 3),
        .step_len = 4096,
        .queue_len_max = sim_below(3) ? 3000 : 20000,
        .record_len_max = TRUTH_BODY_LEN,
        .interval_ns = 1 + sim_below(20 * BM_NS_PER_MS),
        .on_room = on_room,
        .on_failed = on_failed,
    };
    make_reactor();
    open_log(power);
    sim_disk_failures = (struct sim_disk_failures){0};
    life.last_told = truth.rev;
    home_doing = "in between";
}

static bool nobody_waits, there_is_room;

static void close_log(void)
{
    struct wait *wait = wait_new(CLOSE);
    home_doing = "during a close";
    bm_log_close(life.log, &wait->wait);
    wait_keep(wait, 0);
    turn_until(&life.closed, "the end of a close");
    life.log = NULL;
    check_final();
    if (life.calm && life.failure != 0)
        sim_fail("a log in a calm world has failed: %d", life.failure);
    home_check_names(life.failures > 0);
    home_judge("after a close");
}

/* Everybody who waits is told, and whoever was sent away is called. */
static void settle(void)
{
    nobody_waits = there_is_room = false;
    for (unsigned i = 0; !nobody_waits || !there_is_room; i++) {
        turn();
        nobody_waits = life.waiting == 0;
        there_is_room = !life.starved || life.failures > 0;
        if (i == TURNS_MAX)
            sim_fail("%u waits are never told, %s", life.waiting,
                     life.starved ? "and there is no room" : "but there is room");
        if (i > 100)
            sim_advance(sim.now_ns + 10 * BM_NS_PER_MS);
    }
}

/* The process ends: what was under way is done or not, and the files stay. */
static void end_reactor(void)
{
    life.ends = true;
    bm_reactor_close(life.reactor);
    if (life.log)
        life.failure = bm_log_state(life.log).error;
    bool gone = life.gone;
    life.gone = true; /* who still waits is told -ECANCELED */
    life.log = bm_log_free(life.log);
    life.gone = gone;
    life.reactor = bm_reactor_free(life.reactor);
    waits_free();
}

/* Returns whether power was lost. */
static bool end_life(void)
{
    uint64_t how = sim_below(10);
    sim_disk_full = false;
    home_doing = "at the end of a life";
    if (how < 4) {
        settle();
        close_log();
        end_reactor();
        return false;
    }
    if (how < 6) {
        sim_event("the process ends");
        end_reactor();
        return false;
    }
    home_lose_power();
    life.gone = true;
    end_reactor();
    home_get_power();
    return true;
}

static void live(void)
{
    bool power = false;
    unsigned lives = life.swept ? LIVES_MAX : 2 + (unsigned)sim_below(LIVES_MAX - 1);
    for (unsigned n = 0; n < lives; n++) {
        begin_life(n, power);
        uint64_t steps = life.swept ? STEPS_SWEPT : sim_below(STEPS_MAX);
        for (; steps > 0; steps--)
            step();
        power = end_life();
    }
    /* What it has come to can be opened, and is closed, in a world without trouble. */
    sim.odds = (struct sim_odds){0};
    sim.fault = SIM_NO_FAULT;
    begin_life(0, power);
    append();
    settle();
    close_log();
    end_reactor();
    if (life.failure != 0)
        sim_fail("in a good world, too, the log has failed: %d", life.failure);
}

uint64_t lives_run(uint64_t seed, bool aloud, struct fault fault)
{
    sim_start(seed, aloud);
    sim.fault = fault.kind;
    sim.fault_at = fault.at;
    sim.fault_variant = fault.variant;
    life = (struct life){
        .swept = fault.kind != SIM_NO_FAULT,
        .calm = fault.kind == SIM_NO_FAULT && seed % 4 == 0,
    };
    truth_begin();
    home_begin(seed);
    sim_disk_sets_nothing_aside = !life.swept && sim_below(5) == 0;
    set_trouble();
    live();
    home_end();
    truth_end();
    sim_stop();
    return sim.trace;
}
