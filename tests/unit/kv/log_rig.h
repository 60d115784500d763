/* A log on a reactor, with what its owner would keep beside it. */
#ifndef TEST_LOG_RIG_H
#define TEST_LOG_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kv/log.h"
#include "tests/unit/kv/map_model.h"
#include "tests/unit/uring/rig.h"

/* Transactions: entries for one body, in key order. */
struct body {
    uint8_t bytes[4096];
    size_t len;
};

static inline void body_add(struct body *body, uint8_t type, const char *key, const void *value,
                            size_t value_len)
{
    size_t key_len = strlen(key), len = (size_t)bm_entry_len(value_len, key_len);
    REQUIRE(body->len + len <= sizeof(body->bytes));
    uint8_t *to = body->bytes + body->len;
    memset(to, 0, len);
    bm_put_u64(to, value_len | (uint64_t)key_len << 32 | (uint64_t)type << 48);
    memcpy(to + 8, value, value_len);
    memcpy(to + 8 + value_len, key, key_len);
    body->len += len;
}

static inline void body_put(struct body *body, const char *key, int64_t value)
{
    body_add(body, BEAM_KV_INT, key, &value, sizeof(value));
}

static inline void body_del(struct body *body, const char *key)
{
    body_add(body, BM_ENTRY_DEL, key, "", 0);
}

/* Waits that remember. */
struct told {
    struct bm_log_wait wait;
    int calls, res;
};

static inline void told_fn(struct bm_log_wait *wait, int res)
{
    struct told *told = bm_container_of(wait, struct told, wait);
    told->calls++;
    told->res = res;
}

static inline void told_init(struct told *told)
{
    *told = (struct told){.wait.fn = told_fn};
}

/* The state is changed when an append returns; it is the source of compactions. */
struct log_rig {
    struct rig rig;
    struct bm_log *log;
    struct bm_log_options options;
    struct bm_log_found found;
    struct map_model map;
    char path[512];
    int rooms, failures, failure;

    struct bm_log_source source;
    size_t part_len; /* entries a part; 0: as many as fit */
    char source_key[64];
    bool source_begun;
    uint8_t *part;
};

static inline void log_rig_on_room(void *arg)
{
    ((struct log_rig *)arg)->rooms++;
}

static inline void log_rig_on_failed(void *arg, int error)
{
    struct log_rig *rig = arg;
    rig->failures++;
    rig->failure = error;
}

static inline int log_rig_apply(void *arg, const struct bm_record *record)
{
    map_model_apply(&((struct log_rig *)arg)->map, record);
    return 0;
}

/* A path of its own, and the defaults; the reactor never spins. */
static inline void log_rig_init(struct log_rig *rig)
{
    memset(rig, 0, sizeof(*rig));
    snprintf(rig->path, sizeof(rig->path), "%s/store.kv", test_tmpdir());
    rig->options = (struct bm_log_options){
        .path = rig->path,
        .step_len = 64 << 10, /* what is looked at byte by byte is short */
        .on_room = log_rig_on_room,
        .on_failed = log_rig_on_failed,
        .arg = rig,
    };
    rig_open(&rig->rig);
}

static inline int log_rig_try_open(struct log_rig *rig)
{
    map_model_deinit(&rig->map);
    return bm_log_open(rig->rig.reactor, &rig->options, log_rig_apply, rig, &rig->log, &rig->found);
}

static inline void log_rig_open(struct log_rig *rig)
{
    int r = log_rig_try_open(rig);
    if (r < 0)
        test_note("%s", rig->found.message);
    REQUIRE_INT(r, 0);
}

/* Turns until *calls is no longer what it was, or the watchdog says it never will. */
static inline void log_rig_until(struct log_rig *rig, const int *calls)
{
    uint64_t end_ns = bm_clock_now_ns() + WATCHDOG_NS;
    int before = *calls;
    while (*calls == before && bm_clock_now_ns() < end_ns)
        bm_reactor_turn(rig->rig.reactor);
    REQUIRE(*calls != before);
}

static inline int log_rig_append(struct log_rig *rig, const struct body *body, struct told *told,
                                 uint64_t *ret_rev)
{
    if (told)
        told_init(told);
    int r = bm_log_append(rig->log, body->bytes, body->len, told ? &told->wait : NULL, ret_rev);
    if (r == 0)
        map_model_change(&rig->map, body->bytes, body->len);
    return r;
}

/* Appends one int and waits for what the policy promises. */
static inline void log_rig_put(struct log_rig *rig, const char *key, int64_t value)
{
    struct told told;
    struct body body = {.len = 0};
    body_put(&body, key, value);
    REQUIRE_INT(log_rig_append(rig, &body, &told, NULL), 0);
    log_rig_until(rig, &told.calls);
    CHECK_INT(told.res, 0);
}

static inline int log_rig_close(struct log_rig *rig)
{
    struct told closed;
    told_init(&closed);
    bm_log_close(rig->log, &closed.wait);
    log_rig_until(rig, &closed.calls);
    rig->log = NULL;
    return closed.res;
}

/* As if the process had died, between two operations. */
static inline void log_rig_drop(struct log_rig *rig)
{
    rig_settle(&rig->rig);
    rig->log = bm_log_free(rig->log);
}

static inline void log_rig_deinit(struct log_rig *rig)
{
    if (rig->log)
        log_rig_drop(rig);
    map_model_deinit(&rig->map);
    free(rig->part);
    rig_close(&rig->rig);
}

/* --- compaction ----------------------------------------------------------------------------------- */

static inline int log_rig_next_part(struct bm_log_source *source, size_t len_max,
                                    const void **ret_entries, size_t *ret_len, uint64_t *ret_rev)
{
    struct log_rig *rig = bm_container_of(source, struct log_rig, source);
    const struct map_model *map = &rig->map;
    bool there = false;
    size_t at = rig->source_begun
                    ? map_model_find(map, rig->source_key, strlen(rig->source_key), &there)
                    : 0;
    size_t len = 0, count = 0;
    at += there;
    *ret_rev = bm_log_state(rig->log).rev;
    free(rig->part);
    rig->part = malloc(len_max);
    for (; at < map->len && (rig->part_len == 0 || count < rig->part_len); at++, count++) {
        struct bm_entry e = bm_entry_at(map->items[at].entry);
        if (len + e.len > len_max)
            break;
        memcpy(rig->part + len, map->items[at].entry, e.len);
        len += e.len;
        snprintf(rig->source_key, sizeof(rig->source_key), "%.*s", (int)e.key_len,
                 (const char *)bm_entry_key(&e));
        rig->source_begun = true;
    }
    *ret_entries = rig->part;
    *ret_len = len;
    return count > 0;
}

static inline int log_rig_start_compaction(struct log_rig *rig, struct told *told)
{
    told_init(told);
    rig->source.next = log_rig_next_part;
    rig->source_begun = false;
    return bm_log_compact(rig->log, &rig->source, &told->wait);
}

/* --- files ---------------------------------------------------------------------------------------- */

static inline void file_write(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE(fd >= 0);
    if (len > 0)
        REQUIRE_INT(write(fd, bytes, len), len);
    close(fd);
}

/* For free(3). */
static inline uint8_t *file_read(const char *path, size_t *ret_len)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    REQUIRE_INT(fstat(fd, &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size + 1);
    REQUIRE_INT(read(fd, bytes, (size_t)st.st_size), st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return bytes;
}

static inline bool file_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

#endif
