/* Following a store: what is told, in which order; going on and beginning anew; the slow and the ended. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/kept.h"

/* A watch is large, and a sweep leaves cases by a jump. */
static struct kept_watch *fresh_watch(void)
{
    struct kept_watch *watch = flow_share(sizeof(*watch));
    return watch;
}

static const char *watch_from(unsigned long long epoch, unsigned long long rev)
{
    static char text[128];
    snprintf(text, sizeof(text), "{'epoch':'%016llx','rev':%llu}", epoch, rev);
    return text;
}

FLOW_TEST(a_watch_tells_the_state_and_then_each_change)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    CHECK_ASK("kv.txn", "{'set':{'a':1,'b':2}}", "{'epoch':'EPOCH','rev':1}");
    kept_watch(watch, "{}");
    FLOW_WAIT(watch->lives == 1);
    CHECK_ASK("kv.txn", "{'delete':['a','none'],'set':{'b':[true],'c':null}}",
              "{'epoch':'EPOCH','rev':2}");
    CHECK_ASK("kv.delete", "{'key':'c'}", "{'epoch':'EPOCH','rev':3}");
    FLOW_WAIT(watch->rev == 3);
    CHECK_UINT(watch->count, 5);
    CHECK_STR(watch->lines[0], "{'epoch':'EPOCH','heartbeat_ms':5000,'kind':'head',"
                               "'resume':false,'rev':1}");
    CHECK_STR(watch->lines[1], "{'kind':'snap','rev':1,'set':{'a':1,'b':2}}");
    CHECK_STR(watch->lines[2], "{'kind':'live','rev':1}");
    CHECK_STR(watch->lines[3],
              "{'delete':['a'],'kind':'delta','rev':2,'set':{'b':[true],'c':null}}");
    CHECK_STR(watch->lines[4], "{'delete':['c'],'kind':'delta','rev':3}");
    CHECK_UINT(kept_info()->watchers, 1);
    kept_watch_end(watch);
    flow_settle();
    CHECK_UINT(kept_info()->watchers, 0);
}

FLOW_TEST(a_watch_of_nothing_is_live_at_once)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    kept_watch(watch, NULL);
    FLOW_WAIT(watch->lives == 1);
    CHECK_UINT(watch->count, 2);
    CHECK_STR(watch->lines[1], "{'kind':'live','rev':0}");
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    FLOW_WAIT(watch->rev == 1);
    kept_watch_end(watch);
}

FLOW_TEST(a_prefix_filters)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    CHECK_ASK("kv.txn", "{'set':{'a':1,'b/':2,'b/1':3,'b/2':4,'c':5}}",
              "{'epoch':'EPOCH','rev':1}");
    kept_watch(watch, "{'prefix':'b/'}");
    FLOW_WAIT(watch->lives == 1);
    CHECK_STR(watch->lines[1], "{'kind':'snap','rev':1,'set':{'b/':2,'b/1':3,'b/2':4}}");
    CHECK_ASK("kv.txn", "{'set':{'a':0,'b':0,'b/1':0,'b0':0},'delete':['b/2','c']}",
              "{'epoch':'EPOCH','rev':2}");
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':3}");
    CHECK_ASK("kv.delete", "{'key':'b/1'}", "{'epoch':'EPOCH','rev':4}");
    CHECK_ASK("kv.delete", "{'key':'a'}", "{'epoch':'EPOCH','rev':5}");
    CHECK_ASK("kv.put", "{'key':'b/9','value':9}", "{'epoch':'EPOCH','rev':6}");
    FLOW_WAIT(watch->rev == 6);
    CHECK_UINT(watch->count, 6);
    CHECK_STR(watch->lines[3], "{'delete':['b/2'],'kind':'delta','rev':2,'set':{'b/1':0}}");
    CHECK_STR(watch->lines[4], "{'delete':['b/1'],'kind':'delta','rev':4}");
    CHECK_STR(watch->lines[5], "{'kind':'delta','rev':6,'set':{'b/9':9}}");
    kept_watch_end(watch);
}

FLOW_TEST(resume_goes_on_behind_a_revision)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    kept_fill("k", 0, 5, 8);
    watch->rev = 2;
    kept_watch(watch, watch_from(kept->info.epoch, 2));
    FLOW_WAIT(watch->rev == 5);
    CHECK_STR(watch->lines[0], "{'epoch':'EPOCH','heartbeat_ms':5000,'kind':'head',"
                               "'resume':true,'rev':5}");
    CHECK_UINT(watch->count, 4);
    CHECK_UINT(watch->deltas, 3);
    CHECK_UINT(watch->bad, 0);
    kept_watch_end(watch);
    /* From the present, there is nothing to be told. */
    kept_watch(watch, watch_from(kept->info.epoch, 5));
    FLOW_WAIT(watch->heads == 2);
    flow_settle();
    CHECK_UINT(watch->count, 5);
    kept_watch_end(watch);
}

FLOW_TEST(another_epoch_is_refused)
{
    static const char *const arguments[] = {
        "{'epoch':'0000000000000001','rev':3}", /* another one */
        "{'rev':3}",
        "{'epoch':'0000000000000001'}",
        NULL, /* ours, of the future */
        NULL, /* ours, without a revision */
    };
    kept_start(NULL);
    kept_fill("k", 0, 3, 8);
    for (unsigned i = 0; i < 5; i++) {
        struct kept_watch watch = {0};
        char text[128];
        snprintf(text, sizeof(text), "{'epoch':'%016llx'%s}", (unsigned long long)kept->info.epoch,
                 i == 3 ? ",'rev':4" : "");
        kept_watch(&watch, arguments[i] ? arguments[i] : text);
        FLOW_WAIT(watch.lives == 1);
        CHECK_UINT(watch.snaps, 1);
        CHECK_STR(watch.lines[0], "{'epoch':'EPOCH','heartbeat_ms':5000,'kind':'head',"
                                  "'resume':false,'rev':3}");
        kept_watch_end(&watch);
    }
}

FLOW_TEST(behind_the_horizon_is_a_snapshot)
{
    kept_start(&BEAM_STORE_OPTIONS(.history_len = 4096));
    kept_fill("k", 0, 100, 200);
    uint64_t horizon = kept_info()->horizon;
    CHECK(horizon > 50 && horizon < 99);
    for (unsigned i = 0; i < 2; i++) {
        struct kept_watch watch = {.rev = horizon - i};
        kept_watch(&watch, watch_from(kept->info.epoch, horizon - i));
        FLOW_WAIT(watch.rev == 100 && (watch.lives == 1 || i == 0));
        CHECK_UINT(watch.lives, i);
        CHECK_UINT(watch.heads, 1);
        CHECK_UINT(watch.deltas, i == 0 ? 100 - horizon : 0);
        CHECK_UINT(watch.skipped, i == 0 ? 0 : 101 - horizon);
        kept_watch_end(&watch);
    }
}

/* More than one part, and changes between them. */
FLOW_TEST(a_snapshot_comes_in_parts)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    kept_fill("k", 0, 300, 1000);
    watch->hold = true;
    kept_watch(watch, "{}");
    FLOW_WAIT(watch->held_count >= 2); /* of which one is a part, and there is no room for all */
    flow_settle();
    CHECK_UINT(watch->lives, 0);
    kept_fill("k", 100, 50, 10);
    kept_fill("l", 0, 50, 10);
    CHECK_UINT(watch->lives, 0);
    kept_watch_release(watch);
    FLOW_WAIT(watch->lives == 1);
    CHECK_UINT(watch->rev, 400);
    CHECK(watch->snaps >= 7);
    CHECK_UINT(watch->deltas, 100);
    CHECK_UINT(watch->heads, 1);
    CHECK_UINT(watch->bad, 0);
    kept_watch_end(watch);
}

/* Left behind in the midst of a snapshot, it begins with the first key again. */
FLOW_TEST(a_snapshot_that_is_left_behind_begins_again)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(&BEAM_STORE_OPTIONS(.history_len = 8192));
    kept_fill("k", 0, 300, 1000);
    watch->hold = true;
    kept_watch(watch, "{}");
    FLOW_WAIT(watch->held_count >= 2);
    flow_settle();
    CHECK_UINT(watch->lives, 0);
    kept_fill("k", 0, 50, 1000);
    kept_watch_release(watch);
    FLOW_WAIT(watch->lives == 1);
    CHECK_UINT(watch->heads, 2);
    CHECK_UINT(watch->snap_keys, 300);
    CHECK(watch->skipped > 0);
    CHECK_UINT(watch->rev, 350);
    CHECK_UINT(watch->bad, 0);
    kept_watch_end(watch);
}

/* More than one turn's worth for one follower, and it is told without anything else happening. */
FLOW_TEST(many_changes_at_once_are_all_told)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    kept_watch(watch, "{}");
    FLOW_WAIT(watch->lives == 1);
    kept_fill("k", 0, 200, 8);
    FLOW_WAIT(watch->rev == 200);
    CHECK_UINT(watch->deltas, 200);
    CHECK_UINT(watch->bad, 0);
    kept_watch_end(watch);
}

/* One that takes nothing is left behind by the history; memory does not grow, and another one sees every
 * change. Then it gets the latest state. */
FLOW_TEST(a_slow_follower_skips)
{
    struct kept_watch *slow = fresh_watch(), *quick = fresh_watch();
    kept_start(&BEAM_STORE_OPTIONS(.history_len = 32768));
    kept_fill("k", 0, 10, 1000);
    kept_watch(slow, "{}");
    kept_watch(quick, "{}");
    FLOW_WAIT(slow->lives == 1 && quick->lives == 1);
    slow->hold = true;
    unsigned rounds = flow_many(40, 12);
    uint64_t memory = 0;
    for (unsigned i = 0; i < rounds; i++) {
        kept_fill("k", 0, 10, 1000);
        if (i == 8)
            memory = kept_info()->memory_len;
    }
    uint64_t now = 10 + 10 * (uint64_t)rounds;
    FLOW_WAIT(quick->rev == now);
    CHECK_UINT(quick->deltas, 10 * rounds);
    CHECK_UINT(quick->heads, 1);
    CHECK(slow->rev < now);
    CHECK(kept_info()->memory_len < memory + 16384);
    CHECK_UINT(slow->heads, 1);
    kept_watch_release(slow);
    FLOW_WAIT(slow->rev == now && slow->lives == 2);
    CHECK_UINT(slow->heads, 2);
    CHECK_UINT(slow->skipped + slow->deltas + 10, now);
    CHECK(slow->skipped > 0);
    CHECK_UINT(slow->bad, 0);
    CHECK_UINT(kept_info()->skips, 1);
    kept_fill("k", 0, 10, 1000);
    FLOW_WAIT(slow->rev == now + 10 && quick->rev == now + 10);
    CHECK_UINT(slow->heads, 2);
    kept_watch_end(slow);
    kept_watch_end(quick);
}

FLOW_TEST(marks_keep_the_revision_near)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(&BEAM_STORE_OPTIONS(.heartbeat_ns = 20 * BEAM_MS));
    kept_watch(watch, "{'prefix':'a'}");
    FLOW_WAIT(watch->marks >= 2);
    CHECK_STR(watch->lines[2], "{'kind':'mark','now':0,'rev':0}");
    CHECK_ASK("kv.put", "{'key':'b','value':1}", "{'epoch':'EPOCH','rev':1}");
    FLOW_WAIT(watch->rev == 1);
    CHECK_UINT(watch->deltas, 0);
    CHECK_UINT(watch->bad, 0);
    /* And from there it may go on. */
    uint64_t epoch = kept->info.epoch;
    kept_watch_end(watch);
    kept_watch(watch, watch_from(epoch, 1));
    FLOW_WAIT(watch->heads == 2);
    CHECK_UINT(watch->lives, 1);
    kept_watch_end(watch);
}

FLOW_TEST(too_many_followers_are_refused)
{
    struct kept_watch *watches[3];
    for (unsigned i = 0; i < 3; i++)
        watches[i] = fresh_watch();
    kept_start(&BEAM_STORE_OPTIONS(.watchers_max = 2));
    for (unsigned i = 0; i < 3; i++)
        kept_watch(watches[i], NULL);
    FLOW_WAIT(watches[2]->ends == 1);
    CHECK_INT(watches[2]->code, BEAM_RESOURCE_EXHAUSTED);
    FLOW_WAIT(watches[0]->lives == 1 && watches[1]->lives == 1);
    kept_watch_end(watches[0]);
    kept_watch_end(watches[2]);
    flow_settle();
    kept_watch(watches[0], NULL);
    FLOW_WAIT(watches[0]->lives == 2);
    kept_watch_end(watches[0]);
    kept_watch_end(watches[1]);
}

FLOW_TEST(a_closed_store_ends_those_who_follow)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    kept_watch(watch, NULL);
    FLOW_WAIT(watch->lives == 1);
    kept_close();
    FLOW_WAIT(watch->ends == 1);
    CHECK_INT(watch->code, BEAM_UNAVAILABLE);
    kept_watch_end(watch);
}

static void at_stop(beam_request *request, void *arg)
{
    beam_runtime_stop(flow_runtime_here());
}

/* A watch is not what a stop waits for. */
FLOW_TEST_UNIX(a_stopping_owner_ends_those_who_follow)
{
    struct kept_watch *watch = fresh_watch();
    kept_start(NULL);
    kept_watch(watch, NULL);
    FLOW_WAIT(watch->lives == 1);
    kept_at(at_stop);
    FLOW_WAIT(watch->ends == 1);
    CHECK_INT(watch->code, BEAM_UNAVAILABLE);
    FLOW_WAIT(flow.closes == 1);
    CHECK_INT(flow.closed.code, BEAM_OK); /* drained, not cut off by the time-out of the stop */
    kept_watch_end(watch);
}

FLOW_TEST(a_change_longer_than_the_session_takes_ends_a_watch)
{
    struct kept_watch *watch = fresh_watch();
    struct flow_options options = {.client.message_len_max = 65536,
                                   .server.message_len_max = 65536};
    kept_share();
    flow_start(&options);
    kept_open(NULL, NULL);
    kept_watch(watch, NULL);
    FLOW_WAIT(watch->lives == 1);
    kept_fill("k", 0, 1, 100000);
    FLOW_WAIT(watch->ends == 1);
    CHECK_INT(watch->code, BEAM_RESOURCE_EXHAUSTED);
    kept_watch_end(watch);
}
