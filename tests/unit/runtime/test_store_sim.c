/* A store and its replicas in a world that follows a seed: writers, bursts, lost sessions, a disk that is
 * slow, fails, or loses what it had not kept. All of it runs on one thread, over real sessions and the
 * code of the library; only the log is the test's (disk.h), which knows what is true.
 *
 * What must hold, at every moment:
 *   - a replica has the state of the owner at its epoch and revision, whole transactions alone;
 *   - its revisions do not go back within an epoch;
 *   - what was told under EACH, as an answer, a refusal, or to a replica, is durable, and is never lost;
 *   - a scan has the state of its revision, and so has `info`;
 *   - in the end all have the same;
 *   - the memory of the owner is bounded.
 *
 * BEAM_TEST_SEED repeats a run. Two rules can be broken on purpose, and then it must notice. */
#include <beam/beam.h>

#include "tests/unit/runtime/disk.h"
#include "tests/unit/runtime/on_core.h"

#define REPLICAS 6u
#define STEPS 1500u
#define TWIN_A 0u /* always changed together, to the same value */
#define TWIN_B 1u

struct follower {
    struct world *world;
    beam_replica *replica;
    beam_session *session;
    const char *prefix;
    bool attached;
    uint64_t epoch, rev; /* as last seen */
    unsigned lives, commits, stales;
};

struct world {
    struct test_random random;
    beam_store *store;
    bool closing, closed;
    beam_session *session; /* of the writers */
    struct follower followers[REPLICAS];
    uint64_t acked; /* the latest revision that a writer was told */
    uint64_t acked_epoch;
    unsigned answers, refusals, undone, reads, scans, crashes, ends, failures, skips;
    unsigned violations;
    char first[256];
};

static uint64_t below(struct world *world, uint64_t bound)
{
    return test_random_below(&world->random, bound);
}

__attribute__((__format__(__printf__, 2, 3))) static void violated(struct world *world,
                                                                   const char *format, ...)
{
    if (world->violations++ > 0)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(world->first, sizeof(world->first), format, args);
    va_end(args);
}

/* --- what must hold -------------------------------------------------------------------------- */

static bool in_prefix(const char *prefix, const char *name)
{
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static void check_replica(struct follower *follower)
{
    struct world *world = follower->world;
    struct beam_replica_info info = BEAM_REPLICA_INFO();
    beam_replica_info(follower->replica, &info);
    if (info.state == BEAM_REPLICA_EMPTY)
        return;
    if (info.epoch == follower->epoch && info.rev < follower->rev)
        violated(world, "revision went back from %llu to %llu", (unsigned long long)follower->rev,
                 (unsigned long long)info.rev);
    follower->epoch = info.epoch;
    follower->rev = info.rev;
    if (disk.policy == BM_LOG_EACH && info.epoch == disk_epoch() && info.rev > disk.durable)
        violated(world, "revision %llu was told and is not durable", (unsigned long long)info.rev);
    const struct truth *truth = disk_truth(info.epoch, info.rev);
    if (!truth) {
        violated(world, "epoch %llu never had revision %llu", (unsigned long long)info.epoch,
                 (unsigned long long)info.rev);
        return;
    }
    int64_t twins[2] = {INT64_MIN, INT64_MIN};
    for (unsigned i = 0; i < DISK_KEYS; i++) {
        char name[8];
        beam_kv_value value;
        disk_key_name(i, name);
        int64_t expected = in_prefix(follower->prefix, name) ? truth->values[i] : INT64_MIN;
        int64_t found = beam_replica_get(follower->replica, (beam_str){name, 4}, &value, NULL) == 0
                            ? value.i
                            : INT64_MIN;
        if (found != expected)
            violated(world, "%s is %lld at %llu of epoch %llu, and %lld in the replica of '%s'",
                     name, (long long)expected, (unsigned long long)info.rev,
                     (unsigned long long)info.epoch, (long long)found, follower->prefix);
        if (i <= TWIN_B)
            twins[i] = found;
    }
    if (twins[TWIN_A] != twins[TWIN_B])
        violated(world, "half a transaction");
}

static void on_commit(beam_replica *replica, uint64_t rev, void *arg)
{
    struct follower *follower = arg;
    follower->commits++;
    check_replica(follower);
}

static void on_live(beam_replica *replica, uint64_t skipped, void *arg)
{
    struct follower *follower = arg;
    follower->lives++;
    follower->world->skips += skipped > 0;
    check_replica(follower);
}

static void on_stale(beam_replica *replica, const struct beam_status *status, void *arg)
{
    struct follower *follower = arg;
    follower->stales++;
    if (status->code != BEAM_OK)
        follower->attached = false;
    if (status->code == BEAM_DATA_LOSS)
        violated(follower->world, "messages out of order");
    check_replica(follower);
}

static const struct beam_replica_handlers handlers = {
    .on_commit = on_commit, .on_live = on_live, .on_stale = on_stale};

static void check_owner(struct world *world)
{
    struct beam_store_info info = BEAM_STORE_INFO();
    if (!world->store || world->closing)
        return;
    beam_store_info(world->store, &info);
    /* State, history, what is pending, two buffers, and 4 KiB for each who follows. */
    if (info.memory_len > 300000 + info.watchers * 4096)
        violated(world, "%llu bytes of memory", (unsigned long long)info.memory_len);
    if (disk.policy == BM_LOG_EACH && info.rev > disk.durable)
        violated(world, "the owner tells of %llu", (unsigned long long)info.rev);
}

/* --- writers --------------------------------------------------------------------------------- */

static void on_answer(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct world *world = arg;
    size_t len;
    const void *body = message ? beam_message_body(message, &len) : NULL;
    beam_kv_value map;
    uint64_t rev;
    world->answers++;
    world->refusals += status->code == BEAM_ABORTED;
    if (disk.policy == BM_LOG_EACH && status->code == BEAM_ABORTED &&
        beam_kv_root(status->details, status->details_len, &map) == 0 &&
        beam_kv_get_uint(&map, "rev", &rev) == 0 && rev > disk.durable)
        violated(world, "a refusal told of %llu", (unsigned long long)rev);
    world->undone += status->code == BEAM_UNKNOWN;
    if (status->code == BEAM_INVALID_ARGUMENT || status->code == BEAM_INTERNAL)
        violated(world, "a change ended with %s", beam_code_name(status->code));
    if (status->code != BEAM_OK || !body || beam_kv_root(body, len, &map) < 0 ||
        beam_kv_get_uint(&map, "rev", &rev) < 0)
        return;
    beam_str epoch;
    char text[32];
    snprintf(text, sizeof(text), "%016llx", (unsigned long long)disk_epoch());
    if (beam_kv_get_str(&map, "epoch", &epoch) < 0 || memcmp(epoch.ptr, text, 16) != 0)
        return; /* of before a crash */
    if (disk.policy == BM_LOG_EACH && rev > disk.durable && !disk.tell_early)
        violated(world, "an answer told of %llu", (unsigned long long)rev);
    if (rev > world->acked)
        world->acked = rev;
}

static void call(struct world *world, const char *service, beam_kv_writer *w, beam_reply_fn *fn)
{
    const void *document;
    size_t len;
    beam_kv_end(w);
    REQUIRE_INT(beam_kv_writer_finish(w, &document, &len), 0);
    beam_message *message = beam_message_new();
    beam_message_set_body(message, document, len);
    if (beam_call(world->session, service, &message, fn, world, NULL) < 0)
        beam_message_free(message);
}

/* Some keys, the twins always together. */
static void pick(struct world *world, bool *keys)
{
    memset(keys, 0, DISK_KEYS * sizeof(*keys));
    for (uint64_t n = 1 + below(world, 3); n > 0; n--)
        keys[below(world, 5) == 0 ? below(world, 2) : 2 + below(world, DISK_KEYS - 2)] = true;
    keys[TWIN_A] = keys[TWIN_B] = keys[TWIN_A] || keys[TWIN_B];
}

static void write_some(struct world *world)
{
    uint8_t room[4096];
    bool set[DISK_KEYS], gone[DISK_KEYS];
    char name[8];
    beam_kv_writer w;
    pick(world, set);
    pick(world, gone);
    if (below(world, 3) > 0)
        memset(gone, 0, sizeof(gone));
    int64_t value = (int64_t)below(world, 1000000);
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_begin_map(&w, "set");
    for (unsigned i = 0; i < DISK_KEYS; i++) {
        disk_key_name(i, name);
        if (set[i] && !gone[i])
            beam_kv_put_int(&w, name, value);
    }
    beam_kv_end(&w);
    beam_kv_begin_list(&w, "delete");
    for (unsigned i = 0; i < DISK_KEYS; i++) {
        disk_key_name(i, name);
        if (gone[i])
            beam_kv_put_str(&w, NULL, name);
    }
    beam_kv_end(&w);
    if (below(world, 4) == 0)
        beam_kv_put_uint(&w, "seen", disk.rev - below(world, disk.rev < 20 ? disk.rev + 1 : 20));
    call(world, "kv.txn", &w, on_answer);
}

static void on_got(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct world *world = arg;
    size_t len;
    const void *body = message ? beam_message_body(message, &len) : NULL;
    beam_kv_value map;
    uint64_t rev;
    int64_t value;
    beam_str text;
    world->reads++;
    if (!body || beam_kv_root(body, len, &map) < 0 || beam_kv_get_uint(&map, "rev", &rev) < 0 ||
        beam_kv_get_int(&map, "value", &value) < 0 || beam_kv_get_str(&map, "epoch", &text) < 0)
        return;
    char hex[17] = "";
    memcpy(hex, text.ptr, 16);
    uint64_t epoch = strtoull(hex, NULL, 16);
    const struct truth *truth = disk_truth(epoch, rev);
    bool found = false;
    for (unsigned i = 0; truth && i < DISK_KEYS; i++)
        found = found || truth->values[i] == value;
    if (!found)
        violated(world, "a value that was not there at %llu", (unsigned long long)rev);
    if (disk.policy == BM_LOG_EACH && epoch == disk_epoch() && rev > disk.durable)
        violated(world, "a read told of %llu", (unsigned long long)rev);
}

static void read_one(struct world *world)
{
    uint8_t room[256];
    char name[8];
    beam_kv_writer w;
    disk_key_name((unsigned)below(world, DISK_KEYS), name);
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "key", name);
    call(world, "kv.get", &w, on_got);
}

/* What a scan asked for. */
struct range {
    struct world *world;
    unsigned first; /* key */
    unsigned limit; /* 0: it is `info` */
};

static const struct truth *truth_of(struct world *world, const beam_kv_value *map,
                                    uint64_t *ret_now)
{
    beam_str text;
    char hex[17] = "";
    if (beam_kv_get_str(map, "epoch", &text) < 0 || beam_kv_get_uint(map, "now", ret_now) < 0)
        return NULL;
    memcpy(hex, text.ptr, 16);
    uint64_t epoch = strtoull(hex, NULL, 16);
    if (disk.policy == BM_LOG_EACH && epoch == disk_epoch() && *ret_now > disk.durable)
        violated(world, "an answer is of %llu", (unsigned long long)*ret_now);
    return disk_truth(epoch, *ret_now);
}

static void check_scan(const struct range *range, const beam_kv_value *map,
                       const struct truth *truth, uint64_t now)
{
    beam_kv_value entries, value;
    beam_kv_iter iter;
    beam_str name;
    bool more = false, is_more = false;
    unsigned count = 0;
    REQUIRE_INT(beam_kv_get(map, "entries", &entries), 0);
    REQUIRE_INT(beam_kv_get_bool(map, "more", &more), 0);
    beam_kv_iter_init(&iter, &entries);
    for (unsigned i = range->first; i < DISK_KEYS; i++) {
        if (truth->values[i] == INT64_MIN)
            continue;
        is_more = count == range->limit;
        if (is_more)
            break;
        count++;
        if (beam_kv_iter_next(&iter, &name, &value) <= 0 || disk_key(name) != (int)i ||
            value.i != truth->values[i])
            violated(range->world, "a scan of %llu differs at key %u", (unsigned long long)now, i);
    }
    if (beam_kv_iter_next(&iter, &name, &value) > 0 || more != is_more)
        violated(range->world, "a scan of %llu ends elsewhere", (unsigned long long)now);
}

static void check_info(const struct range *range, const beam_kv_value *map,
                       const struct truth *truth, uint64_t now)
{
    uint64_t keys = 0, expected = 0;
    for (unsigned i = 0; i < DISK_KEYS; i++)
        expected += truth->values[i] != INT64_MIN;
    if (beam_kv_get_uint(map, "keys", &keys) < 0 || keys != expected)
        violated(range->world, "info has %llu keys at %llu", (unsigned long long)keys,
                 (unsigned long long)now);
}

static void on_range(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct range *range = arg;
    size_t len;
    const void *body = message ? beam_message_body(message, &len) : NULL;
    const struct truth *truth = NULL;
    beam_kv_value map;
    uint64_t now;
    if (body && beam_kv_root(body, len, &map) == 0)
        truth = truth_of(range->world, &map, &now);
    if (truth) {
        range->world->scans++;
        if (range->limit > 0)
            check_scan(range, &map, truth, now);
        else
            check_info(range, &map, truth, now);
    } else if (status->code == BEAM_OK) {
        violated(range->world, "an answer of a state that never was");
    }
    free(range);
}

static void read_range(struct world *world)
{
    struct range *range = malloc(sizeof(*range));
    uint8_t room[256];
    char name[8];
    beam_kv_writer w;
    const void *document;
    size_t len;
    REQUIRE(range != NULL);
    *range = (struct range){world, (unsigned)below(world, DISK_KEYS), (unsigned)below(world, 8)};
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    if (range->first > 0 && range->limit > 0) {
        disk_key_name(range->first - 1, name);
        beam_kv_put_str(&w, "after", name);
    }
    if (range->limit > 0)
        beam_kv_put_uint(&w, "limit", range->limit);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    beam_message *message = beam_message_new();
    beam_message_set_body(message, document, len);
    const char *service = range->limit > 0 ? "kv.scan" : "kv.info";
    if (beam_call(world->session, service, &message, on_range, range, NULL) < 0) {
        beam_message_free(message);
        free(range);
    }
}

/* From inside, many in one turn: more than the history has room for. */
static void burst(struct world *world)
{
    for (uint64_t n = 20 + below(world, 60); n > 0; n--) {
        char name[8];
        beam_kv_value value = {.type = BEAM_KV_INT, .i = (int64_t)below(world, 1000000)};
        disk_key_name(2 + (unsigned)below(world, DISK_KEYS - 2), name);
        if (below(world, 4) == 0)
            (void)beam_store_delete(world->store, (beam_str){name, 4}, NULL, NULL);
        else
            (void)beam_store_put(world->store, (beam_str){name, 4}, &value, NULL, NULL);
    }
}

/* --- the owner ------------------------------------------------------------------------------- */

static void open_store(struct world *world)
{
    /* The history has room for some twenty changes. */
    int r = beam_store_open(
        on_core_runtime,
        &BEAM_STORE_OPTIONS(.path = "disk", .history_len = 2500, .heartbeat_ns = 50 * BEAM_MS),
        &world->store);
    REQUIRE_INT(r, 0);
    REQUIRE_INT(beam_store_serve(world->store, NULL), 0);
    world->closing = false;
    if (disk.policy == BM_LOG_EACH && world->acked > disk.rev)
        violated(world, "%llu was told, and is lost", (unsigned long long)world->acked);
    world->acked = disk.rev;
}

static void on_closed(int error, uint64_t rev, void *arg)
{
    struct world *world = arg;
    world->closed = true;
    world->store = NULL;
}

static void end_store(struct world *world, bool crash)
{
    world->closing = true;
    world->closed = false;
    beam_store_close(world->store, on_closed, world);
    disk_end(&world->random, crash);
    if (!world->closed)
        violated(world, "it was not closed");
    world->crashes += crash;
    world->ends += !crash;
}

/* --- followers ------------------------------------------------------------------------------- */

static beam_session *connect_one(void)
{
    beam_session *session = NULL;
    REQUIRE_INT(beam_connect(on_core_runtime, "ring:0", NULL, &session), 0);
    return session;
}

static void attach_one(struct follower *follower)
{
    if (!follower->session)
        follower->session = connect_one();
    int r = beam_replica_attach(follower->replica, follower->session);
    if (r == 0) {
        follower->attached = true;
        return;
    }
    follower->attached = false;
    follower->session = beam_session_free(follower->session);
}

static void lose_one(struct follower *follower)
{
    if (follower->session)
        beam_session_close(follower->session);
    follower->session = beam_session_free(follower->session);
}

/* --- a run ----------------------------------------------------------------------------------- */

static void turn(void)
{
    REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
}

static void step(struct world *world)
{
    struct follower *follower = &world->followers[below(world, REPLICAS)];
    switch (below(world, 40)) {
    case 0 ... 9:
        write_some(world);
        break;
    case 10 ... 11:
        if (below(world, 2) == 0)
            read_one(world);
        else
            read_range(world);
        break;
    case 12:
        if (world->store && disk.rev + 500 < DISK_REVS)
            burst(world);
        break;
    case 13 ... 20:
        disk_write(&world->random);
        break;
    case 21:
        disk_sync();
        break;
    case 22 ... 24:
        if (!follower->attached)
            attach_one(follower);
        break;
    case 25:
        if (below(world, 3) == 0)
            lose_one(follower);
        break;
    case 26:
        if (world->store && below(world, 2) == 0)
            (void)beam_store_compact(world->store, NULL, NULL);
        break;
    case 27 ... 28:
        if (disk.log)
            disk_compact_step(disk.log, &world->random);
        break;
    case 29:
        if (world->store && below(world, 6) == 0)
            end_store(world, below(world, 2) == 0);
        break;
    case 30:
        if (world->store && below(world, 25) == 0) {
            disk_fail(&world->random);
            world->failures++;
        }
        break;
    case 31:
        if (!world->store || disk.log->error) {
            if (world->store)
                end_store(world, true);
            open_store(world);
        }
        break;
    case 32:
        check_replica(follower);
        check_owner(world);
        break;
    default:
        turn();
        break;
    }
}

static bool all_have(struct world *world)
{
    for (unsigned i = 0; i < REPLICAS; i++) {
        struct beam_replica_info info = BEAM_REPLICA_INFO();
        beam_replica_info(world->followers[i].replica, &info);
        if (info.state != BEAM_REPLICA_LIVE || info.epoch != disk_epoch() || info.rev != disk.rev)
            return false;
    }
    return true;
}

/* Nothing goes wrong any more: everybody comes to the same state. */
static void settle(struct world *world)
{
    if (world->store && disk.log->error)
        end_store(world, true);
    if (!world->store)
        open_store(world);
    uint64_t until = beam_now_ns() + 10 * BEAM_SEC;
    bool have = false;
    while (!have && beam_now_ns() < until) {
        for (unsigned i = 0; i < REPLICAS; i++)
            if (!world->followers[i].attached)
                attach_one(&world->followers[i]);
        disk_write(&world->random);
        turn();
        have = disk.written == disk.rev && all_have(world);
    }
    if (!have)
        violated(world, "they did not come to the same state");
    for (unsigned i = 0; i < REPLICAS; i++)
        check_replica(&world->followers[i]);
}

static void run(struct world *world, uint64_t seed, enum bm_log_policy policy, unsigned steps)
{
    static const char *const prefixes[REPLICAS] = {"", "", "k/", "k/1", "k/25", "z"};
    bool no_new_epoch = disk.no_new_epoch, tell_early = disk.tell_early;
    *world = (struct world){.random = {.state = seed}};
    core_begin();
    disk_new(policy, 1000);
    disk.no_new_epoch = no_new_epoch;
    disk.tell_early = tell_early;
    open_store(world);
    world->session = connect_one();
    for (unsigned i = 0; i < REPLICAS; i++) {
        struct follower *follower = &world->followers[i];
        *follower = (struct follower){.world = world, .prefix = prefixes[i]};
        REQUIRE_INT(beam_replica_new(&BEAM_REPLICA_OPTIONS(.prefix = prefixes[i],
                                                           .handlers = &handlers, .arg = follower),
                                     &follower->replica),
                    0);
    }
    for (unsigned i = 0; i < steps && disk.rev + 600 < DISK_REVS; i++)
        step(world);
    settle(world);
    for (unsigned i = 0; i < REPLICAS; i++) {
        world->followers[i].replica = beam_replica_free(world->followers[i].replica);
        world->followers[i].session = beam_session_free(world->followers[i].session);
    }
    end_store(world, false);
    beam_session_free(world->session);
    core_end();
    if (disk.wrong_compactions > 0)
        violated(world, "a compaction that is not the state");
    if (disk.wrong_appends > 0)
        violated(world, "an append of something else");
}

static void run_many(enum bm_log_policy policy, unsigned many)
{
    static struct world world;
    struct test_random seeds = test_random(0);
    unsigned crashes = 0, skips = 0, refusals = 0, undone = 0, lives = 0, commits = 0, reads = 0;
    unsigned scans = 0, failures = 0, compactions = 0;
    for (unsigned i = 0; i < many; i++) {
        uint64_t seed = test_random_next(&seeds);
        run(&world, seed, policy, STEPS);
        if (world.violations > 0)
            test_note("run %u: %s (%u in all)", i, world.first, world.violations);
        CHECK_UINT(world.violations, 0);
        crashes += world.crashes;
        skips += world.skips;
        refusals += world.refusals;
        undone += world.undone;
        reads += world.reads;
        scans += world.scans;
        failures += world.failures;
        compactions += disk.compactions;
        for (unsigned k = 0; k < REPLICAS; k++) {
            lives += world.followers[k].lives;
            commits += world.followers[k].commits;
        }
        if (world.violations > 0)
            break;
    }
    disk_clear();
    /* Each thing that can happen did. */
    CHECK(crashes > many / 2);
    CHECK(skips > many / 2);
    CHECK(refusals > many);
    CHECK(undone > many / 4);
    CHECK(failures > many / 8);
    CHECK(compactions > many / 2);
    CHECK(reads > many * 5);
    CHECK(scans > many * 5);
    CHECK(lives > many * 10);
    CHECK(commits > many * 200);
}

TEST(store_sim_holds_when_each_is_durable)
{
    run_many(BM_LOG_EACH, 40);
}

TEST(store_sim_holds_in_batches)
{
    run_many(BM_LOG_BATCH, 40);
}

/* Without a new epoch after a crash, followers hold what the owner has given out anew. */
TEST(store_sim_notices_the_lack_of_a_new_epoch)
{
    static struct world world;
    unsigned noticed = 0;
    for (unsigned i = 0; i < 20; i++) {
        disk.no_new_epoch = true;
        run(&world, 7000 + i, BM_LOG_BATCH, STEPS);
        noticed += world.violations > 0;
    }
    disk_clear();
    CHECK(noticed > 10);
}

/* A log that tells of a change before it is durable. */
TEST(store_sim_notices_promises_that_come_early)
{
    static struct world world;
    unsigned noticed = 0;
    for (unsigned i = 0; i < 20; i++) {
        disk.tell_early = true;
        run(&world, 8000 + i, BM_LOG_EACH, STEPS);
        noticed += world.violations > 0;
    }
    disk_clear();
    CHECK(noticed > 10);
}
