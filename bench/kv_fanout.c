/* kv-fanout: one store in memory, and row->depth watches of all its keys over unix sessions of another
 * process. The store's own process makes a change; when all watches have been told of it, the other side
 * says so, and the next is made; CHANGES are under way. An operation is a change that one watch was told.
 *
 *     here: store, changes, time          there: SESSIONS sessions, the watches
 *     put ------------------ delta, to each watch ------------------> count
 *     put the next <------------- event "seen", one a change -------- all have it */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "bench/beam_client.h"
#include "bench/contenders.h"
#include "bench/store_run.h"

#define CHANGES 16u /* ours: enough for both sides to have work */
#define SESSIONS 8u /* ours: a session has 1024 channels by default */
#define WATCHES_MAX 2048u
#define HERE 0
#define THERE 1

static struct {
    struct store_run in;
    char url[64];
    int listening[2]; /* a pipe: a byte when the store can be reached */
    char value[128];
    uint64_t rss_before;
    uint64_t start[CHANGES];
    uint64_t made, seen;
    bool live;
} owner;

/* There. */

struct watch {
    uint64_t rev; /* the last that it was told */
    bool live;
};

static struct {
    struct bench_run *run;
    beam_runtime *runtime;
    beam_session *session[SESSIONS];
    struct watch watch[WATCHES_MAX];
    unsigned opened, lives;
    unsigned told[CHANGES]; /* how many watches have the change */
} followers;

static void follow_fail(const char *what, const char *why)
{
    bench_fail(followers.run, "%s: %s", what, why);
}

/* All have it; before that: all are live. */
static void say_seen(void)
{
    struct bench_side *side = &followers.run->result->side[THERE];
    struct bench_counters now = {0};
    runtime_count(followers.runtime, &now);
    /* Relaxed: the event that follows orders them. */
    atomic_store_explicit(&side->syscalls, now.syscalls, memory_order_relaxed);
    atomic_store_explicit(&side->allocs, now.allocs, memory_order_relaxed);
    BEAM_CLEANUP(beam_message_freep) beam_message *message = beam_message_new();
    int r = beam_send_event(followers.session[0], "seen", &message);
    if (r < 0)
        follow_fail("event", beam_strerror(r));
}

static void watch_delta(struct watch *watch, uint64_t rev)
{
    if (!watch->live || rev != watch->rev + 1) {
        follow_fail("watch", "a change is missing");
        return;
    }
    watch->rev = rev;
    if (++followers.told[rev % CHANGES] < followers.run->row->depth)
        return;
    followers.told[rev % CHANGES] = 0;
    say_seen();
}

static void watch_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct watch *watch = arg;
    beam_kv_value map;
    beam_str kind;
    int64_t rev;
    size_t len;
    const void *body = beam_message_body(message, &len);
    if (beam_kv_root(body, len, &map) < 0 || beam_kv_get_str(&map, "kind", &kind) < 0 ||
        beam_kv_get_int(&map, "rev", &rev) < 0) {
        follow_fail("watch", "no message of a watch");
        return;
    }
    if (kind.len == 5 && memcmp(kind.ptr, "delta", 5) == 0) {
        watch_delta(watch, (uint64_t)rev);
    } else if (kind.len == 4 && memcmp(kind.ptr, "live", 4) == 0) {
        if (watch->live)
            follow_fail("watch", "it has fallen behind");
        watch->live = true;
        watch->rev = (uint64_t)rev;
        if (++followers.lives == followers.run->row->depth)
            say_seen();
    }
}

static void watch_on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    follow_fail("watch", beam_code_name(status->code));
}

static void session_on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    follow_fail("session", beam_code_name(status->code));
}

/* The watches are dealt out to the sessions as these open. */
static void session_on_open(beam_session *session, void *arg)
{
    static const struct beam_channel_handlers handlers = {
        .on_message = watch_on_message,
        .on_end = watch_on_end,
    };
    unsigned depth = followers.run->row->depth;
    unsigned count = (depth + SESSIONS - 1) / SESSIONS;
    for (unsigned i = 0; i < count && followers.opened < depth; i++) {
        beam_channel *channel;
        int r = beam_open(session, "kv.watch", NULL, &handlers,
                          &followers.watch[followers.opened++], NULL, &channel);
        if (r < 0) {
            follow_fail("open", beam_strerror(r));
            return;
        }
    }
}

static void follow(void *arg)
{
    static const struct beam_session_handlers handlers = {
        .on_open = session_on_open,
        .on_close = session_on_close,
    };
    for (unsigned i = 0; i < SESSIONS; i++) {
        int r = beam_connect(followers.runtime, owner.url,
                             &BEAM_CONNECT_OPTIONS(.handlers = &handlers), &followers.session[i]);
        if (r < 0)
            follow_fail("connect", beam_strerror(r));
    }
}

/* Until it is killed. */
static void peer(struct bench_run *run, void *arg)
{
    char byte;
    followers.run = run;
    close(owner.listening[THERE]);
    if (read(owner.listening[HERE], &byte, 1) != 1 || runtime_new(run, 1, &followers.runtime) < 0)
        return;
    int r = beam_post(followers.runtime, 0, follow, NULL);
    if (r >= 0)
        r = beam_start(followers.runtime);
    if (r < 0) {
        follow_fail("start", beam_strerror(r));
        return;
    }
    for (;;)
        pause();
}

/* Here. */

/* Pages of ours that are in memory, in bytes (proc(5), statm); 0: nobody knows. */
static uint64_t rss(void)
{
    char text[128];
    unsigned long long pages = 0;
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t r = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (r <= 0)
        return 0;
    text[r] = 0;
    if (sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void change(void)
{
    beam_kv_value value = {.type = BEAM_KV_STR, .str = {owner.value, owner.in.run->row->size}};
    owner.start[owner.made++ % CHANGES] = bench_ticks();
    int r = beam_store_put(owner.in.store, (beam_str){"changed", 7}, &value, NULL, NULL);
    if (r < 0)
        store_run_fail(&owner.in, "put", r);
}

static void note_memory(void)
{
    struct beam_store_info info = BEAM_STORE_INFO();
    double watches = owner.in.run->row->depth;
    int r = beam_store_info(owner.in.store, &info);
    if (r < 0 || info.watchers != owner.in.run->row->depth) {
        store_run_fail(&owner.in, "not all watch", r);
        return;
    }
    bench_note(owner.in.run, "memory_per_watcher", (double)info.memory_len / watches);
    bench_note(owner.in.run, "rss_per_watcher",
               ((double)rss() - (double)owner.rss_before) / watches);
}

static void seen(beam_request *request, const beam_message *message, void *arg)
{
    uint64_t now = bench_ticks();
    if (owner.in.over)
        return;
    if (!owner.live) {
        owner.live = true;
        note_memory();
        bench_start(owner.in.run);
        for (unsigned i = 0; i < CHANGES; i++)
            change();
        return;
    }
    if (owner.in.run->result->error[0] != 0 ||
        !bench_batch(owner.in.run, now, now - owner.start[owner.seen++ % CHANGES]))
        store_run_end(&owner.in);
    else
        change();
}

static void begin(void *arg)
{
    int r = beam_store_open(owner.in.runtime, NULL, &owner.in.store);
    if (r >= 0)
        r = beam_store_serve(owner.in.store, NULL);
    if (r >= 0)
        r = beam_serve(owner.in.runtime, "seen", seen, NULL);
    owner.rss_before = rss();
    if (r >= 0)
        r = beam_listen(owner.in.runtime, owner.url, NULL);
    if (r < 0)
        store_run_fail(&owner.in, "store", r);
    else if (write(owner.listening[THERE], "", 1) != 1)
        store_run_fail(&owner.in, "pipe", -errno);
}

int kv_fanout(struct bench_run *run)
{
    const struct bench_row *row = run->row;
    if (row->depth > WATCHES_MAX || row->size > sizeof(owner.value))
        return bench_fail(run, "no such row");
    memset(owner.value, 'v', sizeof(owner.value));
    snprintf(owner.url, sizeof(owner.url), "unix:@beam-bench-%d", (int)getpid());
    if (pipe2(owner.listening, O_CLOEXEC) < 0)
        return bench_fail(run, "pipe: %s", strerror(errno));
    if (bench_peer_start(run, peer, NULL) < 0)
        return -1;
    close(owner.listening[HERE]);
    return store_run(&owner.in, run, begin, NULL);
}
