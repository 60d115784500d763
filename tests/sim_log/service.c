/* One seed: some lives of a store (service.h). The runtime is embedded, and its session leads to itself, so
 * that all is on this thread.
 *
 * What the store appends to its log is seen on its way there (bm_log_append and bm_log_open are wrapped), and
 * is the truth; what it recovers is compared with that. The log is given small steps, so that states of the
 * disk are short. */
#include "tests/sim_log/service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/beam.h>

#include "base/clock.h"
#include "tests/sim_log/home.h"
#include "tests/sim_log/truth.h"
#include "tests/support/sim/inner.h"

#define LIVES_MAX 4u
#define STEPS_MAX 60u
#define STEPS_SWEPT 25u
#define OPENS_MAX 20u
#define TURNS_MAX 20000u

struct bm_reactor;

int __real_bm_log_open(struct bm_reactor *reactor, const struct bm_log_options *options,
                       bm_log_record_fn *on_record, void *arg, struct bm_log **ret_log,
                       struct bm_log_found *ret_found);
int __wrap_bm_log_open(struct bm_reactor *reactor, const struct bm_log_options *options,
                       bm_log_record_fn *on_record, void *arg, struct bm_log **ret_log,
                       struct bm_log_found *ret_found);
int __real_bm_log_append(struct bm_log *log, const void *entries, size_t len,
                         struct bm_log_wait *wait, uint64_t *ret_rev);
int __wrap_bm_log_append(struct bm_log *log, const void *entries, size_t len,
                         struct bm_log_wait *wait, uint64_t *ret_rev);

static struct service {
    bool on; /* the log is a store's */
    bool calm, swept;
    bool power; /* was lost before the next open */
    bool gone;  /* what is told now binds nobody */
    bool each;
    beam_runtime *runtime;
    beam_store *store;
    beam_session *session;
    beam_replica *replica;
    bool attached, closing, closed;
    int close_error;
    unsigned waiting; /* for answers */
} service;

/* --- between the store and its log ---------------------------------------------------------------- */

struct reader {
    bm_log_record_fn *fn;
    void *arg;
    struct truth_reading reading;
};

static int read_both(void *arg, const struct bm_record *record)
{
    struct reader *reader = arg;
    (void)truth_read(&reader->reading, record);
    return reader->fn(reader->arg, record);
}

int __wrap_bm_log_open(struct bm_reactor *reactor, const struct bm_log_options *options,
                       bm_log_record_fn *on_record, void *arg, struct bm_log **ret_log,
                       struct bm_log_found *ret_found)
{
    if (!service.on)
        return __real_bm_log_open(reactor, options, on_record, arg, ret_log, ret_found);
    struct reader reader = {.fn = on_record, .arg = arg};
    struct bm_log_options small = *options;
    small.step_len = 4096;
    small.queue_len_max = 20000;
    small.record_len_max = TRUTH_BODY_LEN;
    int r = __real_bm_log_open(reactor, &small, read_both, &reader, ret_log, ret_found);
    if (r == 0)
        truth_reopened(ret_found, &reader.reading, service.power);
    return r;
}

int __wrap_bm_log_append(struct bm_log *log, const void *entries, size_t len,
                         struct bm_log_wait *wait, uint64_t *ret_rev)
{
    uint64_t rev;
    int r = __real_bm_log_append(log, entries, len, wait, &rev);
    if (r < 0 || !service.on)
        return r < 0 ? r : (ret_rev ? (*ret_rev = rev, 0) : 0);
    if (ret_rev)
        *ret_rev = rev;
    truth_append(entries, len);
    if (rev != truth.rev)
        sim_fail("an append became revision %llu", (unsigned long long)rev);
    return 0;
}

/* --- what is told --------------------------------------------------------------------------------- */

static bool is_epoch(beam_str text)
{
    char hex[17];
    snprintf(hex, sizeof(hex), "%016llx", (unsigned long long)truth.epoch);
    return text.len == 16 && memcmp(text.ptr, hex, 16) == 0;
}

/* Somebody knows of this revision now. */
static void learn(uint64_t rev, const char *from)
{
    if (rev > truth.rev)
        sim_fail("%s tells of revision %llu, and there are %llu", from, (unsigned long long)rev,
                 (unsigned long long)truth.rev);
    truth_tell(rev);
    if (service.each)
        truth_promise(rev);
    home_judge("after something was told");
}

static uint64_t digest_of(const beam_kv_value *value)
{
    uint8_t number[8];
    if (value->type == BEAM_KV_INT) {
        bm_put_u64(number, (uint64_t)value->i);
        return truth_digest(BEAM_KV_INT, number, sizeof(number));
    }
    if (value->type != BEAM_KV_BYTES)
        sim_fail("a value of type %d was read", value->type);
    return truth_digest(BEAM_KV_BYTES, value->str.ptr, value->str.len);
}

static void check_status(const struct beam_status *status)
{
    sim_event("an answer: %s", beam_code_name(status->code));
    service.waiting--;
    if (status->code == BEAM_OK || status->code == BEAM_NOT_FOUND ||
        (service.closing && status->code == BEAM_UNAVAILABLE))
        return;
    if (status->code == BEAM_INVALID_ARGUMENT || status->code == BEAM_INTERNAL ||
        (service.calm && !service.gone))
        sim_fail("a request ended with %s: %.*s", beam_code_name(status->code),
                 (int)status->message.len, status->message.ptr);
}

static bool read_answer(const beam_message *message, beam_kv_value *map)
{
    size_t len;
    const void *body = message ? beam_message_body(message, &len) : NULL;
    beam_str epoch;
    return body && beam_kv_root(body, len, map) == 0 &&
           beam_kv_get_str(map, "epoch", &epoch) == 0 && is_epoch(epoch);
}

static void on_changed(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_kv_value map;
    uint64_t rev;
    (void)arg;
    check_status(status);
    if (service.gone || status->code != BEAM_OK)
        return;
    if (!read_answer(message, &map) || beam_kv_get_uint(&map, "rev", &rev) < 0)
        sim_fail("a change was answered with no revision of this epoch");
    learn(rev, "an answer");
}

static void on_got(const struct beam_status *status, const beam_message *message, void *arg)
{
    unsigned key = (unsigned)(uintptr_t)arg;
    beam_kv_value map, value;
    uint64_t now;
    check_status(status);
    if (service.gone || status->code != BEAM_OK)
        return;
    if (!read_answer(message, &map) || beam_kv_get_uint(&map, "now", &now) < 0 ||
        beam_kv_get(&map, "value", &value) < 0)
        sim_fail("a get was answered with no value");
    learn(now, "a get");
    if (digest_of(&value) != truth.states[now].digests[key])
        sim_fail("k%u had another value at revision %llu", key, (unsigned long long)now);
}

static void check_replica(void)
{
    struct beam_replica_info info = BEAM_REPLICA_INFO();
    beam_replica_info(service.replica, &info);
    if (service.gone || info.state == BEAM_REPLICA_EMPTY || info.epoch != truth.epoch)
        return;
    learn(info.rev, "a replica");
    for (unsigned key = 0; key < TRUTH_KEYS; key++) {
        char name[3] = {'k', (char)('0' + key), '\0'};
        beam_kv_value value;
        int r = beam_replica_get(service.replica, (beam_str){name, 2}, &value, NULL);
        uint64_t digest = r == 0 ? digest_of(&value) : 0;
        if (digest != truth.states[info.rev].digests[key])
            sim_fail("k%u of the replica is not that of revision %llu", key,
                     (unsigned long long)info.rev);
    }
}

static void on_commit(beam_replica *replica, uint64_t rev, void *arg)
{
    (void)replica, (void)rev, (void)arg;
    check_replica();
}

static void on_live(beam_replica *replica, uint64_t skipped, void *arg)
{
    (void)replica, (void)skipped, (void)arg;
    check_replica();
}

static void on_stale(beam_replica *replica, const struct beam_status *status, void *arg)
{
    (void)replica, (void)arg;
    if (status->code != BEAM_OK)
        service.attached = false;
    if (status->code == BEAM_DATA_LOSS)
        sim_fail("messages of a watch came out of order");
}

static const struct beam_replica_handlers handlers = {
    .on_commit = on_commit, .on_live = on_live, .on_stale = on_stale};

/* --- what is asked -------------------------------------------------------------------------------- */

static void call(const char *name, beam_kv_writer *w, beam_reply_fn *fn, void *arg)
{
    const void *document;
    size_t len;
    beam_kv_end(w);
    if (beam_kv_writer_finish(w, &document, &len) < 0)
        sim_fail("a request that is no document");
    beam_message *message = beam_message_new();
    if (!message)
        return;
    beam_message_set_body(message, document, len);
    if (beam_call(service.session, name, &message, fn, arg, NULL) == 0)
        service.waiting++;
    else
        beam_message_free(message);
}

static void key_name(unsigned key, char *name)
{
    memcpy(name, "k0", 3);
    name[1] = (char)('0' + key);
}

static void change_some(void)
{
    static uint8_t room[4096];
    static const uint8_t zeros[700];
    uint64_t kinds[TRUTH_KEYS];
    char name[3];
    beam_kv_writer w;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_begin_map(&w, "set");
    unsigned large = 0;
    for (unsigned key = 0; key < TRUTH_KEYS; key++) {
        kinds[key] = sim_below(8);
        key_name(key, name);
        if (kinds[key] == 0 && large++ < 2)
            beam_kv_put_bytes(&w, name, zeros, (size_t)sim_below(sizeof(zeros)));
        else if (kinds[key] == 1)
            beam_kv_put_int(&w, name, (int64_t)sim_below(1000));
    }
    beam_kv_end(&w);
    beam_kv_begin_list(&w, "delete");
    for (unsigned key = 0; key < TRUTH_KEYS; key++) {
        key_name(key, name);
        if (kinds[key] == 2)
            beam_kv_put_str(&w, NULL, name);
    }
    beam_kv_end(&w);
    call("kv.txn", &w, on_changed, NULL);
}

static void get_one(void)
{
    uint8_t room[128];
    char name[3];
    beam_kv_writer w;
    unsigned key = (unsigned)sim_below(TRUTH_KEYS);
    key_name(key, name);
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "key", name);
    call("kv.get", &w, on_got, (void *)(uintptr_t)key);
}

static void turn(void)
{
    if (beam_runtime_turn(service.runtime) < 0)
        sim_fail("the runtime does not turn");
    sim_notice();
    sim_advance(sim.now_ns + sim_below(BM_NS_PER_MS));
}

static void attach(void)
{
    if (!service.attached && service.session)
        service.attached = beam_replica_attach(service.replica, service.session) == 0;
}

static void step(void)
{
    switch (sim_below(16)) {
    case 0:
        sim_event("a compaction: %d", beam_store_compact(service.store, NULL, NULL));
        break;
    case 1:
        turn();
        sim_advance(sim.now_ns + 1100 * BM_NS_PER_MS);
        break;
    case 2:
        attach();
        break;
    case 3:
    case 4:
        get_one();
        break;
    case 5:
    case 6:
    case 7:
    case 8:
    case 9:
        for (uint64_t n = 1 + sim_below(3); n > 0; n--)
            change_some();
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
    if (service.swept)
        return;
    odds->late = (unsigned)sim_below(6000);
    odds->enter = sim_below(2) ? (unsigned)sim_below(1000) : 0;
    odds->stuck = sim_below(4) == 0 ? 20 : 0;
    odds->short_write = sim_below(2) ? (unsigned)sim_below(3000) : 0;
    if (service.calm)
        return;
    odds->refused = sim_below(2) ? (unsigned)sim_below(300) : 20;
    odds->blocking = sim_below(2) ? (unsigned)sim_below(1000) : 0;
    odds->no_room = sim_below(2) ? (unsigned)sim_below(1000) : 0;
}

/* In a sweep one allocation fails, once. */
static void check_made(unsigned tries, const char *what)
{
    if (!service.swept || tries > 1)
        sim_fail("there is no %s", what);
}

static void open_store(void)
{
    struct sim_odds odds = sim.odds;
    static const enum beam_store_sync syncs[] = {BEAM_STORE_SYNC_EACH, BEAM_STORE_SYNC_EACH,
                                                 BEAM_STORE_SYNC_BATCH, BEAM_STORE_SYNC_NONE};
    enum beam_store_sync sync = syncs[sim_below(4)];
    int r = -EIO;
    service.each = sync == BEAM_STORE_SYNC_EACH;
    home_doing = "during an open";
    for (unsigned i = 0; r < 0; i++) {
        if (i == OPENS_MAX)
            sim.odds.blocking = sim.odds.no_room = 0;
        r = beam_store_open(service.runtime,
                            &BEAM_STORE_OPTIONS(.path = home_path(), .sync = sync,
                                                .batch_ns = 1 + sim_below(20 * BM_NS_PER_MS)),
                            &service.store);
        sim_event("an open: %d", r);
        if (r < 0 && (service.calm || i > OPENS_MAX || r <= -4000))
            sim_fail("a store cannot be opened: %d", r);
    }
    sim.odds = odds;
    service.power = service.gone = service.closing = false;
    for (unsigned i = 0; beam_store_serve(service.store, NULL) < 0; i++)
        check_made(i, "service");
    home_doing = "in between";
    home_judge("after an open");
}

static void begin_life(void)
{
    unsigned i = 0;
    while (beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &service.runtime) < 0)
        check_made(i++, "runtime");
    open_store();
    while (beam_connect(service.runtime, "ring:0", NULL, &service.session) < 0)
        check_made(i++, "session");
    while (beam_replica_new(&BEAM_REPLICA_OPTIONS(.prefix = "", .handlers = &handlers),
                            &service.replica) < 0)
        check_made(i++, "replica");
    service.attached = false;
    attach();
}

static void on_closed(int error, uint64_t rev, void *arg)
{
    (void)arg;
    sim_event("closed: %d, revision %llu", error, (unsigned long long)rev);
    service.closed = true;
    service.close_error = error;
    if (error == 0 && !service.gone)
        truth_promise(rev);
}

static void close_store(void)
{
    service.closed = false;
    service.closing = true;
    home_doing = "during a close";
    beam_store_close(service.store, on_closed, NULL);
    for (unsigned i = 0; !service.closed || service.waiting > 0; i++) {
        turn();
        if (i == TURNS_MAX)
            sim_fail("%u answers and the end of a close never come", service.waiting);
        if (i > 100)
            sim_advance(sim.now_ns + 10 * BM_NS_PER_MS);
    }
    if (service.calm && service.close_error < 0)
        sim_fail("a store in a calm world was closed with %d", service.close_error);
    home_check_names(service.close_error < 0);
    home_judge("after a close");
}

static void end_runtime(void)
{
    service.replica = beam_replica_free(service.replica);
    service.session = beam_session_free(service.session);
    service.runtime = beam_runtime_free(service.runtime);
    if (service.waiting > 0)
        sim_fail("%u requests were never answered", service.waiting);
}

static void end_life(void)
{
    switch (sim_below(4)) {
    case 0: /* the store alone is another */
        close_store();
        open_store();
        attach();
        for (uint64_t steps = sim_below(STEPS_MAX); steps > 0; steps--)
            step();
        close_store();
        end_runtime();
        break;
    case 1:
        close_store();
        end_runtime();
        break;
    default:
        home_lose_power();
        service.power = service.gone = true;
        end_runtime();
        home_get_power();
        break;
    }
}

static void live(void)
{
    unsigned lives = service.swept ? LIVES_MAX : 2 + (unsigned)sim_below(LIVES_MAX - 1);
    for (unsigned n = 0; n < lives; n++) {
        begin_life();
        uint64_t steps = service.swept ? STEPS_SWEPT : sim_below(STEPS_MAX);
        for (; steps > 0; steps--)
            step();
        end_life();
    }
    sim.odds = (struct sim_odds){0};
    sim.fault = SIM_NO_FAULT;
    begin_life();
    change_some();
    close_store();
    end_runtime();
    if (service.close_error < 0)
        sim_fail("in a good world, too, the store has failed: %d", service.close_error);
}

uint64_t services_run(uint64_t seed, bool aloud, struct fault fault)
{
    sim_start(seed, aloud);
    sim.fault = fault.kind;
    sim.fault_at = fault.at;
    sim.fault_variant = fault.variant;
    service = (struct service){
        .on = true,
        .swept = fault.kind != SIM_NO_FAULT,
        .calm = fault.kind == SIM_NO_FAULT && seed % 4 == 0,
    };
    truth_begin();
    home_begin(seed);
    set_trouble();
    live();
    home_end();
    truth_end();
    service.on = false;
    sim_stop();
    return sim.trace;
}
