/* Replicas: what is read and told, going on over another session, beginning anew, and owners that are
 * wrong. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/kept.h"

struct told {
    beam_replica *replica;
    char text[1024]; /* changes as "key=type@rev " or "key-@rev ", commits as "|rev " */
    unsigned changes, commits, lives, stales;
    uint64_t skipped;
    enum beam_code code;
    char why[256];
    bool free_in_change, free_in_live, free_in_stale, free_in_commit, attach_in_stale;
    unsigned attach_in_change; /* in the n-th from now on; 0: none */
    bool was_stale_in_change;
    unsigned keys_in_change;
};

__attribute__((__format__(__printf__, 2, 3))) static void note(struct told *told,
                                                               const char *format, ...)
{
    size_t n = strlen(told->text);
    va_list args;
    va_start(args, format);
    vsnprintf(told->text + n, sizeof(told->text) - n, format, args);
    va_end(args);
}

static void attach_again(beam_replica *replica)
{
    /* Else a fault has ended the case. */
    if (flow.session && beam_session_is_open(flow.session))
        CHECK_INT(beam_replica_attach(replica, flow.session), 0);
}

static void free_replica(struct told *told, bool wanted)
{
    if (wanted)
        told->replica = beam_replica_free(told->replica);
}

static void on_change(beam_replica *replica, beam_str key, const beam_kv_value *value, uint64_t rev,
                      void *arg)
{
    struct told *told = arg;
    beam_kv_value found;
    uint64_t found_rev;
    told->changes++;
    if (value)
        note(told, "%.*s=%d@%llu ", BEAM_STR(key), (int)value->type, (unsigned long long)rev);
    else
        note(told, "%.*s-@%llu ", BEAM_STR(key), (unsigned long long)rev);
    /* What is read is the state behind the change. */
    int r = beam_replica_get(replica, key, &found, &found_rev);
    CHECK_INT(r, value ? 0 : -ENOENT);
    struct beam_replica_info info = BEAM_REPLICA_INFO();
    CHECK_INT(beam_replica_info(replica, &info), 0);
    CHECK_UINT(info.rev, rev);
    told->keys_in_change = (unsigned)info.keys;
    told->was_stale_in_change = info.state == BEAM_REPLICA_STALE;
    if (told->attach_in_change > 0 && --told->attach_in_change == 0)
        attach_again(replica);
    free_replica(told, told->free_in_change);
}

/* The owner is where the replica is, or further. */
static void check_owner(const beam_replica *replica)
{
    struct beam_replica_info info = BEAM_REPLICA_INFO();
    CHECK_INT(beam_replica_info(replica, &info), 0);
    CHECK(info.owner_rev >= info.rev);
}

static void on_commit(beam_replica *replica, uint64_t rev, void *arg)
{
    struct told *told = arg;
    check_owner(replica);
    told->commits++;
    note(told, "|%llu ", (unsigned long long)rev);
    free_replica(told, told->free_in_commit);
    flow_tick();
}

static void on_live(beam_replica *replica, uint64_t skipped, void *arg)
{
    struct told *told = arg;
    check_owner(replica);
    told->lives++;
    told->skipped = skipped;
    free_replica(told, told->free_in_live);
    flow_tick();
}

static void on_stale(beam_replica *replica, const struct beam_status *status, void *arg)
{
    struct told *told = arg;
    told->stales++;
    told->code = status->code;
    flow_copy_text(told->why, sizeof(told->why), status->message);
    if (told->attach_in_stale) {
        told->attach_in_stale = false;
        attach_again(replica);
    }
    free_replica(told, told->free_in_stale);
    flow_tick();
}

static const struct beam_replica_handlers handlers = {
    .on_change = on_change,
    .on_commit = on_commit,
    .on_live = on_live,
    .on_stale = on_stale,
};

static void make_replica(struct told *told, const char *prefix)
{
    *told = (struct told){0};
    int r = beam_replica_new(
        &BEAM_REPLICA_OPTIONS(.prefix = prefix, .handlers = &handlers, .arg = told),
        &told->replica);
    REQUIRE_INT(r, 0);
}

static void attach(struct told *told, beam_session *session)
{
    int r = beam_replica_attach(told->replica, session);
    if (r < 0)
        told->replica = beam_replica_free(told->replica);
    REQUIRE_INT(r, 0);
}

static struct beam_replica_info info_of(const struct told *told)
{
    struct beam_replica_info info = BEAM_REPLICA_INFO();
    CHECK_INT(beam_replica_info(told->replica, &info), 0);
    return info;
}

static beam_str str(const char *text)
{
    return (beam_str){text, strlen(text)};
}

FLOW_TEST(a_replica_follows)
{
    static struct told told;
    beam_kv_value value;
    uint64_t rev;
    kept_start(NULL);
    CHECK_ASK("kv.txn", "{'set':{'a':1,'b':'two'}}", "{'epoch':'EPOCH','rev':1}");
    make_replica(&told, NULL);
    CHECK_INT(info_of(&told).state, BEAM_REPLICA_EMPTY);
    CHECK_INT(beam_replica_get(told.replica, str("a"), &value, &rev), -ENOENT);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    CHECK_STR(told.text, "a=4@1 b=7@1 ");
    CHECK_INT(info_of(&told).state, BEAM_REPLICA_LIVE);
    CHECK_UINT(info_of(&told).epoch, kept->info.epoch);
    CHECK_UINT(info_of(&told).snapshots, 1);
    CHECK_INT(beam_replica_get(told.replica, str("a"), &value, &rev), 0);
    CHECK_INT(value.i, 1);
    CHECK_UINT(rev, 1);

    told.text[0] = '\0';
    CHECK_ASK("kv.txn", "{'delete':['a'],'set':{'b':2,'c':3}}", "{'epoch':'EPOCH','rev':2}");
    CHECK_ASK("kv.put", "{'key':'d','value':4}", "{'epoch':'EPOCH','rev':3}");
    FLOW_WAIT(told.commits == 2);
    CHECK_STR(told.text, "a-@2 b=4@2 c=4@2 |2 d=4@3 |3 ");
    CHECK_UINT(info_of(&told).rev, 3);
    CHECK_UINT(info_of(&told).owner_rev, 3);
    CHECK_UINT(info_of(&told).keys, 3);
    CHECK_INT(beam_replica_get(told.replica, str("a"), NULL, NULL), -ENOENT);
    char keys[64] = "";
    for (beam_str key = {NULL, 0};
         beam_replica_next(told.replica, str(""), key, &key, &value, &rev) > 0;)
        snprintf(keys + strlen(keys), sizeof(keys) - strlen(keys), "%.*s@%llu ", BEAM_STR(key),
                 (unsigned long long)rev);
    CHECK_STR(keys, "b@2 c@2 d@3 ");
    told.replica = beam_replica_free(told.replica);
}

FLOW_TEST(a_replica_of_a_prefix_advances_by_marks)
{
    static struct told told;
    kept_start(&BEAM_STORE_OPTIONS(.heartbeat_ns = 20 * BEAM_MS));
    CHECK_ASK("kv.txn", "{'set':{'a/1':1,'b':2}}", "{'epoch':'EPOCH','rev':1}");
    make_replica(&told, "a/");
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    CHECK_STR(told.text, "a/1=4@1 ");
    CHECK_ASK("kv.put", "{'key':'b','value':1}", "{'epoch':'EPOCH','rev':2}");
    CHECK_ASK("kv.txn", "{'set':{'a/2':1,'b':2}}", "{'epoch':'EPOCH','rev':3}");
    FLOW_WAIT(told.commits == 1);
    CHECK_STR(told.text, "a/1=4@1 a/2=4@3 |3 ");
    CHECK_ASK("kv.put", "{'key':'b','value':1}", "{'epoch':'EPOCH','rev':4}");
    FLOW_WAIT(info_of(&told).rev == 4);
    CHECK_UINT(told.commits, 1);
    CHECK_UINT(info_of(&told).keys, 2);
    CHECK(info_of(&told).heard_ns > 0);
    told.replica = beam_replica_free(told.replica);
}

/* Lost and resumed: what it missed, and no snapshot. */
FLOW_TEST(a_replica_goes_on_over_another_session)
{
    static struct told told;
    kept_start(NULL);
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    make_replica(&told, NULL);
    beam_session *session = flow_connect(NULL, NULL);
    attach(&told, session);
    FLOW_WAIT(told.lives == 1);
    beam_session_close(session);
    FLOW_WAIT(told.stales == 1);
    CHECK(told.code == BEAM_UNAVAILABLE || told.code == BEAM_UNKNOWN);
    CHECK_INT(info_of(&told).state, BEAM_REPLICA_STALE);
    CHECK_INT(beam_replica_get(told.replica, str("a"), NULL, NULL), 0);
    beam_session_free(session);
    told.text[0] = '\0';
    CHECK_ASK("kv.put", "{'key':'b','value':1}", "{'epoch':'EPOCH','rev':2}");
    CHECK_ASK("kv.delete", "{'key':'a'}", "{'epoch':'EPOCH','rev':3}");
    attach(&told, flow.session);
    FLOW_WAIT(told.commits == 2);
    CHECK_STR(told.text, "b=4@2 |2 a-@3 |3 ");
    CHECK_UINT(told.lives, 2);
    CHECK_UINT(told.skipped, 0);
    CHECK_UINT(info_of(&told).snapshots, 1);
    CHECK_INT(info_of(&told).state, BEAM_REPLICA_LIVE);
    told.replica = beam_replica_free(told.replica);
}

/* Another epoch: the old state is read until the new one is whole, and only differences are told. */
FLOW_TEST(a_replica_begins_anew_and_tells_differences)
{
    static struct told told;
    kept_start(NULL);
    CHECK_ASK("kv.txn", "{'set':{'a':1,'b':2,'c':3}}", "{'epoch':'EPOCH','rev':1}");
    make_replica(&told, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    kept_close();
    FLOW_WAIT(told.stales == 1);
    CHECK_INT(told.code, BEAM_UNAVAILABLE);
    uint64_t epoch = kept->info.epoch;
    kept_open(NULL, NULL);
    CHECK(kept->info.epoch != epoch);
    CHECK_ASK("kv.put", "{'key':'x','value':1}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.txn", "{'set':{'b':2,'c':4,'d':5}}", "{'epoch':'EPOCH','rev':2}");
    CHECK_INT(info_of(&told).state, BEAM_REPLICA_STALE);
    CHECK_UINT(info_of(&told).keys, 3);
    told.text[0] = '\0';
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 2);
    CHECK_STR(told.text, "a-@2 c=4@2 d=4@2 x=4@2 ");
    CHECK(told.was_stale_in_change);
    CHECK_UINT(told.keys_in_change, 4);
    CHECK_UINT(info_of(&told).epoch, kept->info.epoch);
    CHECK_UINT(info_of(&told).snapshots, 2);
    told.replica = beam_replica_free(told.replica);
}

FLOW_TEST(a_replica_behind_the_horizon_skips)
{
    static struct told told;
    kept_start(&BEAM_STORE_OPTIONS(.history_len = 4096));
    kept_fill("k", 0, 10, 100);
    make_replica(&told, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    beam_session *session = flow_connect(NULL, NULL);
    attach(&told, session); /* a watch that it had is given up */
    FLOW_WAIT(told.lives == 2);
    CHECK_UINT(told.stales, 0);
    beam_session_free(session);
    FLOW_WAIT(told.stales == 1);
    kept_fill("k", 0, 100, 100);
    told.changes = 0;
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 3);
    CHECK_UINT(told.skipped, 100);
    CHECK_UINT(info_of(&told).skipped, 100);
    CHECK_UINT(info_of(&told).rev, 110);
    CHECK_UINT(info_of(&told).keys, 100);
    CHECK_UINT(told.changes, 90); /* the others are as they were */
    told.replica = beam_replica_free(told.replica);
}

/* More changes in one turn than the history has room for: on the same session, and told. */
FLOW_TEST(a_replica_that_falls_behind_says_so)
{
    static struct told told;
    kept_start(&BEAM_STORE_OPTIONS(.history_len = 4096));
    make_replica(&told, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    kept_fill("k", 0, 100, 200);
    FLOW_WAIT(told.lives == 2);
    CHECK_UINT(told.stales, 1);
    CHECK_INT(told.code, BEAM_OK);
    CHECK_UINT(told.skipped, 100);
    CHECK_UINT(info_of(&told).keys, 100);
    CHECK_UINT(info_of(&told).rev, 100);
    told.replica = beam_replica_free(told.replica);
}

FLOW_TEST(a_replica_is_freed_by_its_handlers)
{
    kept_start(NULL);
    CHECK_ASK("kv.txn", "{'set':{'a':1,'b':2,'c':3}}", "{'epoch':'EPOCH','rev':1}");
    for (unsigned i = 0; i < 5; i++) {
        static struct told told;
        make_replica(&told, NULL);
        told.free_in_change = i == 0; /* of the snapshot */
        told.free_in_live = i == 1;
        attach(&told, flow.session);
        if (i >= 2) {
            FLOW_WAIT(told.lives == 1);
            told.free_in_change = i == 2; /* of a delta */
            told.free_in_commit = i == 3;
            told.free_in_stale = i == 4;
            told.changes = 0;
            (void)kept_ask("kv.txn", "{'set':{'a':1,'b':2,'c':3}}");
            if (i == 4) {
                FLOW_WAIT(told.changes == 3); /* who has the answer may close before all are told */
                kept_close();
            }
        }
        FLOW_WAIT(told.replica == NULL);
        CHECK_UINT(told.changes, i == 0 || i == 2 ? 1 : 3);
        flow_settle();
    }
}

FLOW_TEST(a_replica_is_attached_by_its_handler)
{
    static struct told told;
    kept_start(NULL);
    make_replica(&told, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    told.attach_in_stale = true;
    kept_close();
    FLOW_WAIT(told.stales == 2); /* there is nobody to be attached to */
    CHECK_INT(told.code, BEAM_NOT_FOUND);
    kept_open(NULL, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 2);
    told.replica = beam_replica_free(told.replica);
}

/* Whatever is attached meanwhile, a transaction is told whole, and so is what a snapshot has changed. */
FLOW_TEST(a_replica_attached_in_a_change_is_told_the_rest)
{
    static struct told told;
    kept_start(NULL);
    CHECK_ASK("kv.txn", "{'set':{'a':1,'b':2,'c':3}}", "{'epoch':'EPOCH','rev':1}");
    for (unsigned nth = 1; nth <= 3; nth++) {
        make_replica(&told, NULL);
        told.attach_in_change = nth; /* of the snapshot */
        attach(&told, flow.session);
        FLOW_WAIT(told.lives == 1);
        CHECK_STR(told.text, "a=4@1 b=4@1 c=4@1 ");
        CHECK_UINT(info_of(&told).snapshots, 1);
        CHECK_UINT(told.stales, 0);
        told.replica = beam_replica_free(told.replica);
    }
    make_replica(&told, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    for (unsigned nth = 1; nth <= 3; nth++) {
        char expected[64];
        told.text[0] = '\0';
        told.attach_in_change = nth; /* of a delta */
        unsigned rev = nth + 1;
        (void)kept_ask("kv.txn", "{'set':{'a':1,'b':2,'c':3}}");
        FLOW_WAIT(told.lives == 1 + nth && told.commits == nth);
        snprintf(expected, sizeof(expected), "a=4@%u b=4@%u c=4@%u |%u ", rev, rev, rev, rev);
        CHECK_STR(told.text, expected);
        CHECK_INT(info_of(&told).state, BEAM_REPLICA_LIVE);
        CHECK_UINT(info_of(&told).rev, rev);
    }
    CHECK_UINT(told.stales, 0);
    told.replica = beam_replica_free(told.replica);
}

/* What was passed over is told, though the first of the changes begins another watch. */
FLOW_TEST(a_replica_attached_in_a_change_hears_what_it_skipped)
{
    static struct told told;
    kept_start(&BEAM_STORE_OPTIONS(.history_len = 4096));
    make_replica(&told, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    told.attach_in_change = 1;
    kept_fill("k", 0, 100, 200);
    FLOW_WAIT(told.lives == 2);
    CHECK_UINT(told.skipped, 100);
    CHECK_UINT(told.changes, 100);
    CHECK_UINT(info_of(&told).skipped, 100);
    CHECK_UINT(info_of(&told).snapshots, 2);
    told.replica = beam_replica_free(told.replica);
}

FLOW_TEST(a_replica_without_memory_is_stale)
{
    static struct told told;
    kept_start(NULL);
    kept_fill("k", 0, 20, 1000);
    make_replica(&told, NULL);
    beam_replica_free(told.replica);
    int r = beam_replica_new(
        &BEAM_REPLICA_OPTIONS(.memory_len_max = 30000, .handlers = &handlers, .arg = &told),
        &told.replica);
    REQUIRE_INT(r, 0);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    kept_fill("k", 20, 20, 1000);
    FLOW_WAIT(told.stales == 1);
    CHECK_INT(told.code, BEAM_RESOURCE_EXHAUSTED);
    CHECK(info_of(&told).rev > 20);
    CHECK_UINT(info_of(&told).keys, info_of(&told).rev);
    CHECK(info_of(&told).memory_len < 31000);
    attach(&told, flow.session);
    FLOW_WAIT(told.stales == 2);
    told.replica = beam_replica_free(told.replica);
}

static void at_stop(beam_request *request, void *arg)
{
    beam_runtime_stop(flow_runtime_here());
}

FLOW_TEST_UNIX(a_replica_outlives_its_owner)
{
    static struct told told;
    kept_start(NULL);
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    make_replica(&told, NULL);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1);
    kept_at(at_stop);
    FLOW_WAIT(told.stales == 1 && flow.closes == 1);
    CHECK_INT(told.code, BEAM_UNAVAILABLE);
    CHECK_INT(beam_replica_get(told.replica, str("a"), NULL, NULL), 0);
    CHECK_INT(beam_replica_attach(told.replica, flow.session), -ESHUTDOWN);
    told.replica = beam_replica_free(told.replica);
}

/* --- an owner that says what it likes -------------------------------------------------------- */

struct story {
    const char *lines[5];
    enum beam_code code; /* OK: nothing is wrong with it, but that it ends */
};

static const struct story stories[] = {
    {{"{'kind':'head','epoch':'0000000000000001','rev':1,'resume':false}",
      "{'kind':'live','rev':1}", "{'kind':'other','rev':'x'}", "{'kind':'mark','rev':1}"},
     BEAM_OK},
    {{"[]"}, BEAM_DATA_LOSS},
    {{"{'rev':1}"}, BEAM_DATA_LOSS},
    {{"{'kind':1}"}, BEAM_DATA_LOSS},
    {{"{'kind':'live','rev':1}"}, BEAM_DATA_LOSS},
    {{"{'kind':'snap','rev':1,'set':{}}"}, BEAM_DATA_LOSS},
    {{"{'kind':'delta','rev':1}"}, BEAM_DATA_LOSS},
    {{"{'kind':'mark','rev':1}"}, BEAM_DATA_LOSS},
    {{"{'kind':'head','epoch':'0000000000000001','rev':1,'resume':true}"}, BEAM_DATA_LOSS},
    {{"{'kind':'head','epoch':'1','rev':1,'resume':false}"}, BEAM_DATA_LOSS},
    {{"{'kind':'head','epoch':'0000000000000001','resume':false}"}, BEAM_DATA_LOSS},
#define HEAD "{'kind':'head','epoch':'0000000000000001','rev':1,'resume':false}"
    {{HEAD, "{'kind':'live','rev':0}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'snap','rev':1,'set':[]}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'delta','rev':1}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'delta','rev':3}"}, BEAM_DATA_LOSS},
#define LIVE "{'kind':'live','rev':1}"
    {{HEAD, LIVE, LIVE}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'snap','rev':1,'set':{}}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':3}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':1}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'set':[]}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':[1]}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':['a'],'set':{'a':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'mark','rev':2}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'mark','rev':0}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'head','epoch':'0000000000000001','rev':1,'resume':true}"},
     BEAM_DATA_LOSS},
/* Keys that no store has, in each place where one can be. */
#define KEY64 "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
#define KEY256 KEY64 KEY64 KEY64 KEY64
#define KEY1024 KEY256 KEY256 KEY256 KEY256
    {{HEAD, "{'kind':'snap','rev':1,'set':{'" KEY1024 "':1}}"}, BEAM_OK},
    {{HEAD, "{'kind':'snap','rev':1,'set':{'k" KEY1024 "':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'snap','rev':1,'set':{'':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'delta','rev':2,'set':{'':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'delta','rev':2,'delete':['']}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'set':{'':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'set':{'k" KEY1024 "':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':['']}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':['k" KEY1024 "']}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':['" KEY1024 "']}"}, BEAM_OK},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':'a'}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':{'a':'a'}}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':null}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':['b','a']}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':['a','a']}"}, BEAM_DATA_LOSS},
    /* Revisions that leave a gap, or go back. */
    {{HEAD, "{'kind':'live','rev':2}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'snap','rev':2,'set':{'a':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'snap','rev':0,'set':{'a':1}}"}, BEAM_DATA_LOSS},
    /* And such as there are none (Y1). */
    {{"{'kind':'head','epoch':'0000000000000001','rev':9223372036854775808,'resume':false}"},
     BEAM_DATA_LOSS},
};

/* To one who follows "a/". */
static const struct story stories_of_a_part[] = {
    {{HEAD, "{'kind':'snap','rev':1,'set':{'a/1':1}}"}, BEAM_OK},
    {{HEAD, "{'kind':'snap','rev':1,'set':{'a':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'snap','rev':1,'set':{'a/1':1,'b':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'set':{'b':1}}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':2,'delete':['b']}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':7,'delete':['a/']}"}, BEAM_OK},
    {{HEAD, "{'kind':'live','rev':2}"}, BEAM_OK},
    {{HEAD, "{'kind':'snap','rev':3,'set':{'a/1':1}}"}, BEAM_OK},
    {{HEAD, "{'kind':'snap','rev':3,'set':{'a/1':1}}", "{'kind':'live','rev':2}"}, BEAM_DATA_LOSS},
    {{HEAD, "{'kind':'snap','rev':3,'set':{'a/1':1}}", "{'kind':'delta','rev':3}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'delta','rev':9223372036854775808}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'mark','rev':18446744073709551615}"}, BEAM_DATA_LOSS},
    {{HEAD, LIVE, "{'kind':'mark','rev':9223372036854775807}"}, BEAM_OK},
};
#define STORIES (sizeof(stories) / sizeof(stories[0]))
#define STORIES_OF_A_PART (sizeof(stories_of_a_part) / sizeof(stories_of_a_part[0]))

static const struct story *story_of(unsigned index)
{
    return index < STORIES ? &stories[index] : &stories_of_a_part[index - STORIES];
}

static void on_told(beam_request *request, const beam_message *message, void *arg)
{
    static uint8_t room[4096];
    const struct story *story = story_of(*(_Atomic unsigned *)arg);
    beam_request_keep(request);
    for (unsigned i = 0; i < 5 && story->lines[i]; i++) {
        size_t len = kept_document(story->lines[i], room, sizeof(room));
        CHECK_INT(beam_channel_send_body(beam_request_channel(request), room, len), 0);
    }
    beam_reply(request, NULL); /* which is wrong as well: a watch has no end of its own */
}

FLOW_TEST_ONE_PROCESS(a_replica_believes_no_nonsense)
{
    static struct told told;
    _Atomic unsigned *index = flow_share(sizeof(*index));
    flow_serve("wrong.watch", on_told, index);
    kept_share();
    flow_start(NULL);
    for (unsigned i = 0; i < STORIES + STORIES_OF_A_PART; i++) {
        const struct story *story = story_of(i);
        unsigned last = 0;
        while (last < 4 && story->lines[last + 1])
            last++;
        test_note("story %u: %.100s", i, story->lines[last]);
        *index = i;
        told = (struct told){0};
        int r = beam_replica_new(&BEAM_REPLICA_OPTIONS(.service = "wrong",
                                                       .prefix = i < STORIES ? NULL : "a/",
                                                       .handlers = &handlers, .arg = &told),
                                 &told.replica);
        REQUIRE_INT(r, 0);
        attach(&told, flow.session);
        FLOW_WAIT(told.stales == 1);
        CHECK_INT(told.code, story->code == BEAM_OK ? BEAM_UNKNOWN : story->code);
        CHECK_UINT(info_of(&told).keys, 0);
        told.replica = beam_replica_free(told.replica);
        flow_settle();
    }
    test_note("%s", "");
}

/* Asked to go on behind a revision, it says that it does, from one before. */
static void on_gone_back(beam_request *request, const beam_message *message, void *arg)
{
    static const char *const lines[2][3] = {
        {"{'kind':'head','epoch':'0000000000000001','rev':5,'resume':false}",
         "{'kind':'snap','rev':5,'set':{'a':1}}", "{'kind':'live','rev':5}"},
        {"{'kind':'head','epoch':'0000000000000001','rev':4,'resume':true}",
         "{'kind':'delta','rev':6}", NULL},
    };
    static uint8_t room[256];
    unsigned time = atomic_fetch_add((_Atomic unsigned *)arg, 1);
    beam_request_keep(request);
    for (unsigned i = 0; i < 3 && lines[time][i]; i++) {
        size_t len = kept_document(lines[time][i], room, sizeof(room));
        CHECK_INT(beam_channel_send_body(beam_request_channel(request), room, len), 0);
    }
    beam_reply(request, NULL);
}

FLOW_TEST_ONE_PROCESS(a_replica_believes_no_owner_that_has_gone_back)
{
    static struct told told;
    _Atomic unsigned *times = flow_share(sizeof(*times));
    flow_serve("wrong.watch", on_gone_back, times);
    kept_share();
    flow_start(NULL);
    told = (struct told){0};
    int r = beam_replica_new(
        &BEAM_REPLICA_OPTIONS(.service = "wrong", .handlers = &handlers, .arg = &told),
        &told.replica);
    REQUIRE_INT(r, 0);
    attach(&told, flow.session);
    FLOW_WAIT(told.lives == 1 && told.stales == 1);
    attach(&told, flow.session);
    FLOW_WAIT(told.stales == 2);
    CHECK_INT(told.code, BEAM_DATA_LOSS);
    CHECK_UINT(told.lives, 1);
    CHECK_INT(info_of(&told).state, BEAM_REPLICA_STALE);
    CHECK_UINT(info_of(&told).rev, 5);
    CHECK_UINT(info_of(&told).keys, 1);
    told.replica = beam_replica_free(told.replica);
}

FLOW_TEST(a_replica_is_not_made_of_nonsense)
{
    beam_replica *replica = NULL;
    char name[1100];
    memset(name, 'n', sizeof(name));
    kept_start(NULL);
    name[1025] = '\0';
    CHECK_INT(beam_replica_new(&BEAM_REPLICA_OPTIONS(.prefix = name), &replica), -EINVAL);
    CHECK_INT(beam_replica_new(&BEAM_REPLICA_OPTIONS(.prefix = "\xff"), &replica), -EINVAL);
    name[250] = '\0';
    CHECK_INT(beam_replica_new(&BEAM_REPLICA_OPTIONS(.service = name), &replica), -EINVAL);
    CHECK_INT(beam_replica_new(&BEAM_REPLICA_OPTIONS(.service = ""), &replica), -EINVAL);
    CHECK_PTR(replica, NULL);
    name[249] = '\0';
    int r = beam_replica_new(&BEAM_REPLICA_OPTIONS(.service = name), &replica);
    REQUIRE_INT(r, 0);
    CHECK_INT(beam_replica_info(replica, &(struct beam_replica_info){.size = 0}), -EINVAL);
    replica = beam_replica_free(replica);
    CHECK_INT(beam_replica_new(NULL, &replica), 0);
    beam_replica_freep(&replica);
    beam_replica_free(NULL);
}
