/* What a store says while its disk has not yet kept what it was told: over a log that writes when the
 * case has it write (disk.h). */
#include <beam/beam.h>

#include "runtime/runtime.h"
#include "runtime/session.h"
#include "runtime/store.h"
#include "tests/unit/runtime/disk.h"
#include "tests/unit/runtime/on_core.h"
#include "tests/unit/runtime/scarce.h"

struct answer {
    unsigned count;
    enum beam_code code;
    char text[512]; /* the body, or the details of an error, as JSON */
};

static struct {
    beam_store *store;
    beam_session *session;
    bool closed;
} own;

static struct test_random random_of(void)
{
    return (struct test_random){.state = 1};
}

static void turns(void)
{
    for (unsigned i = 0; i < 20; i++)
        CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
}

static void begin_with(enum bm_log_policy policy, const struct beam_store_options *options)
{
    core_begin();
    disk_new(policy, 5);
    REQUIRE_INT(beam_store_open(on_core_runtime, options, &own.store), 0);
    REQUIRE_INT(beam_store_serve(own.store, NULL), 0);
    REQUIRE_INT(beam_connect(on_core_runtime, "ring:0", NULL, &own.session), 0);
    turns();
}

static void begin(enum bm_log_policy policy)
{
    begin_with(policy, &BEAM_STORE_OPTIONS(.path = "disk"));
}

static void on_closed(int error, uint64_t rev, void *arg)
{
    own.closed = true;
}

static void end(void)
{
    struct test_random random = random_of();
    own.closed = false;
    beam_store_close(own.store, on_closed, NULL);
    disk_end(&random, false);
    CHECK(own.closed);
    own.session = beam_session_free(own.session);
    core_end();
    disk_clear();
}

/* All that waits is written: one at a time is as likely. */
static void write_all(void)
{
    struct test_random random = random_of();
    while (disk.log && !disk.log->error && disk.written < disk.rev)
        disk_write(&random);
    turns();
}

static void on_answer(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct answer *answer = arg;
    size_t len = 0;
    const void *body = message ? beam_message_body(message, &len) : status->details;
    if (!message)
        len = status->details_len;
    answer->count++;
    answer->code = status->code;
    answer->text[0] = '\0';
    if (body && len > 0)
        (void)beam_kv_to_json(body, len, answer->text, sizeof(answer->text), &len);
}

/* What is asked, where each may be missing. */
struct question {
    const char *key, *value, *after;
    int64_t number; /* of a value; 0: none */
    int64_t seen;   /* -1: none */
    int64_t limit;  /* 0: none */
};

static beam_message *message_of(const struct question *question)
{
    static uint8_t room[200 << 10];
    beam_kv_writer w;
    const void *document;
    size_t len;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    if (question->after)
        beam_kv_put_str(&w, "after", question->after);
    if (question->key)
        beam_kv_put_str(&w, "key", question->key);
    if (question->limit > 0)
        beam_kv_put_int(&w, "limit", question->limit);
    if (question->seen >= 0)
        beam_kv_put_int(&w, "seen", question->seen);
    if (question->value)
        beam_kv_put_str(&w, "value", question->value);
    if (question->number > 0)
        beam_kv_put_int(&w, "value", question->number);
    beam_kv_end(&w);
    int r = beam_kv_writer_finish(&w, &document, &len);
    beam_message *message = beam_message_new();
    CHECK_INT(r, 0);
    beam_message_set_body(message, document, len);
    return message;
}

static void ask_with(const char *service, const struct question *question, struct answer *answer)
{
    *answer = (struct answer){0};
    beam_message *message = message_of(question);
    REQUIRE_INT(beam_call(own.session, service, &message, on_answer, answer, NULL), 0);
    turns();
}

/* A request with a key, and a value if it is above 0. */
static void ask(const char *service, const char *key, int64_t value, struct answer *answer)
{
    ask_with(service, &(struct question){.key = key, .number = value, .seen = -1}, answer);
}

TEST(each_answers_once_durable)
{
    struct answer put, get, scan, gone, other, info;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/01", 1, &put);
    ask("kv.get", "k/01", 0, &get);
    ask("kv.scan", NULL, 0, &scan);
    ask("kv.get", "k/02", 0, &other);
    ask("kv.info", NULL, 0, &info);
    CHECK_UINT(put.count, 0);
    CHECK_UINT(get.count, 0);
    CHECK_UINT(scan.count, 0);
    CHECK_INT(other.code, BEAM_NOT_FOUND); /* which has nothing to do with it */
    CHECK_UINT(info.count, 1);
    CHECK(strstr(info.text, "\"now\":0") != NULL);
    write_all();
    CHECK_STR(put.text, "{\"epoch\":\"0000000000000005\",\"rev\":1}");
    CHECK_STR(get.text, "{\"epoch\":\"0000000000000005\",\"now\":1,\"rev\":1,\"value\":1}");
    CHECK(strstr(scan.text, "\"k/01\":1") != NULL);

    ask("kv.delete", "k/01", 0, &put);
    ask("kv.get", "k/01", 0, &gone);
    CHECK_UINT(put.count, 0);
    CHECK_UINT(gone.count, 0);
    /* One that changes nothing waits for what it is about. */
    ask("kv.delete", "k/01", 0, &other);
    CHECK_UINT(other.count, 0);
    write_all();
    CHECK_STR(put.text, "{\"epoch\":\"0000000000000005\",\"rev\":2}");
    CHECK_STR(other.text, "{\"epoch\":\"0000000000000005\",\"rev\":2}");
    CHECK_INT(gone.code, BEAM_NOT_FOUND);
    /* A key that is deleted, durable or not, is not there. */
    ask("kv.put", "k/03", 1, &put);
    write_all();
    ask("kv.delete", "k/03", 0, &put);
    struct bm_txn txn;
    bm_txn_begin(&txn, own.store);
    txn.conditional = true;
    CHECK_INT(bm_txn_set(&txn, (beam_str){"k/03", 4}, BEAM_KV_INT, "12345678", 8), 0);
    txn.seen = 3;
    CHECK_INT(bm_txn_set(&txn, (beam_str){"k/03", 4}, BEAM_KV_INT, "12345678", 8), -ESTALE);
    CHECK_UINT(txn.conflict_rev, 4);
    bm_txn_drop(&txn);
    write_all();
    /* And alone for nothing. */
    ask("kv.delete", "k/01", 0, &other);
    CHECK_STR(other.text, "{\"epoch\":\"0000000000000005\",\"rev\":4}");
    end();
}

static void send_event(const char *service, const char *key, int64_t value)
{
    beam_message *message = message_of(&(struct question){.key = key, .number = value, .seen = -1});
    REQUIRE_INT(beam_send_event(own.session, service, &message), 0);
    turns();
}

/* A revision is written, and no later one. */
static void write_up_to(uint64_t rev)
{
    disk.written = disk.durable = rev;
    disk_tell(disk.log, rev, 0);
    turns();
}

TEST(a_refusal_waits_for_the_change_that_it_names)
{
    struct test_random random = random_of();
    struct answer put, refused, absent, undone;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/01", 1, &put);
    ask_with("kv.put", &(struct question){.key = "k/01", .number = 2, .seen = 0}, &refused);
    ask_with("kv.delete", &(struct question){.key = "k/01", .seen = 0}, &absent);
    CHECK_UINT(refused.count, 0);
    CHECK_UINT(absent.count, 0);
    write_all();
    CHECK_INT(refused.code, BEAM_ABORTED);
    CHECK(strstr(refused.text, "\"key\":\"k/01\"") != NULL);
    CHECK(strstr(refused.text, "\"now\":1,\"rev\":1") != NULL);
    CHECK_INT(absent.code, BEAM_ABORTED);

    /* Of what has been told it is said at once, */
    ask("kv.put", "k/02", 1, &put);
    ask_with("kv.put", &(struct question){.key = "k/01", .number = 2, .seen = 0}, &refused);
    CHECK_INT(refused.code, BEAM_ABORTED);
    write_all();
    /* and of a deletion that waits not before it is told. */
    ask("kv.delete", "k/02", 0, &put);
    ask_with("kv.put", &(struct question){.key = "k/02", .number = 2, .seen = 2}, &refused);
    CHECK_UINT(refused.count, 0);
    write_all();
    CHECK_INT(refused.code, BEAM_ABORTED);
    CHECK(strstr(refused.text, "\"now\":3,\"rev\":3") != NULL);
    /* One that is undone was no reason. */
    ask("kv.put", "k/03", 1, &put);
    ask_with("kv.put", &(struct question){.key = "k/03", .number = 2, .seen = 0}, &undone);
    CHECK_UINT(undone.count, 0);
    disk_fail(&random);
    turns();
    CHECK_INT(put.code, BEAM_UNKNOWN);
    CHECK_INT(undone.code, BEAM_UNAVAILABLE);
    CHECK_UINT(undone.count, 1);
    end();
}

TEST(info_is_of_what_has_been_told)
{
    struct test_random random = random_of();
    struct answer put, before, info, after;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/01", 1, &put);
    ask("kv.put", "k/02", 1, &put);
    write_all();
    ask("kv.info", NULL, 0, &before);
    CHECK(strstr(before.text, "\"bytes\":48,") != NULL);
    CHECK(strstr(before.text, "\"keys\":2,") != NULL);
    ask("kv.put", "k/03", 1, &put);
    ask("kv.delete", "k/01", 0, &put);
    ask("kv.delete", "k/02", 0, &put);
    ask_with("kv.put",
             &(struct question){.key = "k/02", .value = "twenty bytes of text", .seen = -1}, &put);
    ask("kv.info", NULL, 0, &info);
    CHECK_STR(info.text, before.text);
    write_up_to(4);
    ask("kv.info", NULL, 0, &info);
    CHECK(strstr(info.text, "\"bytes\":48,") != NULL); /* k/02, k/03 */
    CHECK(strstr(info.text, "\"keys\":2,\"now\":4") != NULL);
    write_all();
    ask("kv.info", NULL, 0, &info);
    CHECK(strstr(info.text, "\"bytes\":56,") != NULL);
    CHECK(strstr(info.text, "\"keys\":2,\"now\":6") != NULL);
    CHECK_UINT(own.store->told_keys, bm_state_keys(&own.store->state));
    CHECK_UINT(own.store->told_len, own.store->state.tree.data_len);
    ask("kv.delete", "k/03", 0, &put);
    disk_fail(&random);
    turns();
    ask("kv.info", NULL, 0, &after);
    CHECK(strstr(after.text, "\"keys\":2,\"now\":6") != NULL);
    CHECK_UINT(own.store->told_keys, bm_state_keys(&own.store->state));
    CHECK_UINT(own.store->told_len, own.store->state.tree.data_len);
    end();
}

/* That there are more keys tells of the next one. */
TEST(a_scan_waits_for_what_is_behind_its_end)
{
    struct test_random random = random_of();
    struct answer put, scan;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/01", 1, &put);
    write_all();
    ask("kv.put", "k/02", 1, &put);
    ask_with("kv.scan", &(struct question){.limit = 1, .seen = -1}, &scan);
    CHECK_UINT(scan.count, 0);
    write_all();
    CHECK(strstr(scan.text, "\"more\":true,\"now\":2") != NULL);
    ask("kv.put", "k/03", 1, &put);
    ask_with("kv.scan", &(struct question){.limit = 1, .seen = -1}, &scan);
    CHECK(strstr(scan.text, "\"more\":true,\"now\":2") != NULL); /* for k/02 is there */
    ask_with("kv.scan", &(struct question){.limit = 2, .seen = -1}, &scan);
    CHECK_UINT(scan.count, 0);
    disk_fail(&random);
    turns();
    CHECK_INT(scan.code, BEAM_UNAVAILABLE);
    end();
}

/* "a0000" to "a9999" are set, "b" too; or those with a number are removed. */
static void commit_many(bool removed)
{
    beam_buffer buffer;
    beam_kv_writer w;
    beam_kv_value root;
    const void *document;
    size_t len;
    beam_buffer_init(&buffer, 1 << 20);
    beam_kv_writer_init_buffer(&w, &buffer);
    if (removed)
        beam_kv_begin_list(&w, NULL);
    else
        beam_kv_begin_map(&w, NULL);
    for (unsigned i = 0; i < 10000; i++) {
        char key[16];
        snprintf(key, sizeof(key), "a%04u", i);
        if (removed)
            beam_kv_put_str(&w, NULL, key);
        else
            beam_kv_put_nil(&w, key);
    }
    if (!removed)
        beam_kv_put_int(&w, "b", 1);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    REQUIRE_INT(beam_kv_root(document, len, &root), 0);
    struct beam_store_txn txn =
        BEAM_STORE_TXN(.set = removed ? NULL : &root, .remove = removed ? &root : NULL);
    REQUIRE_INT(beam_store_commit(own.store, &txn, NULL, NULL), 0);
    beam_buffer_deinit(&buffer);
}

/* Keys whose deletion waits for the disk are still in the map. An answer says how far it has looked. */
TEST(a_scan_passes_over_so_many_keys_and_no_more)
{
#define SO_FAR "\"epoch\":\"0000000000000005\",\"more\":true,\"now\":2}"
#define ALL "\"epoch\":\"0000000000000005\",\"more\":false,\"now\":2}"
    struct answer first, second, third, last;
    begin(BM_LOG_EACH);
    commit_many(false);
    write_all();
    commit_many(true);
    ask_with("kv.scan", &(struct question){.seen = -1}, &first);
    ask_with("kv.scan", &(struct question){.seen = -1, .after = "a4095"}, &second);
    ask_with("kv.scan", &(struct question){.seen = -1, .after = "a8191"}, &third);
    ask_with("kv.scan", &(struct question){.seen = -1, .after = "a5903"}, &last);
    CHECK_UINT(first.count + second.count + third.count + last.count, 0);
    write_all();
    CHECK_STR(first.text, "{\"after\":\"a4095\",\"entries\":{}," SO_FAR);
    CHECK_STR(second.text, "{\"after\":\"a8191\",\"entries\":{}," SO_FAR);
    CHECK_STR(third.text, "{\"entries\":{\"b\":1}," ALL);
    CHECK_STR(last.text, "{\"after\":\"a9999\",\"entries\":{}," SO_FAR);
    ask_with("kv.scan", &(struct question){.seen = -1, .after = "a9999"}, &last);
    CHECK_STR(last.text, "{\"entries\":{\"b\":1}," ALL);
    end();
}

TEST(an_answer_tells_what_was_so_when_it_was_asked)
{
    struct answer put, get, scan, second, gone, late;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/01", 1, &put);
    ask("kv.put", "k/02", 1, &put);
    ask("kv.get", "k/01", 0, &get);
    ask("kv.scan", NULL, 0, &scan);
    ask("kv.put", "k/01", 2, &put);
    ask("kv.get", "k/01", 0, &second);
    ask("kv.delete", "k/01", 0, &put);
    ask("kv.get", "k/01", 0, &gone);
    ask("kv.put", "k/01", 3, &put);
    ask("kv.delete", "k/02", 0, &put);
    ask("kv.scan", NULL, 0, &late);
    write_up_to(1);
    CHECK_STR(get.text, "{\"epoch\":\"0000000000000005\",\"now\":1,\"rev\":1,\"value\":1}");
    CHECK_UINT(scan.count, 0);
    write_up_to(2);
    CHECK_STR(scan.text, "{\"entries\":{\"k/01\":1,\"k/02\":1},\"epoch\":\"0000000000000005\","
                         "\"more\":false,\"now\":2}");
    CHECK_UINT(second.count, 0);
    write_up_to(3);
    CHECK_STR(second.text, "{\"epoch\":\"0000000000000005\",\"now\":3,\"rev\":3,\"value\":2}");
    CHECK_UINT(gone.count, 0);
    write_up_to(6);
    CHECK_INT(gone.code, BEAM_NOT_FOUND);
    CHECK_STR(gone.text, "{\"message\":\"no such key\",\"now\":4}");
    CHECK_STR(late.text, "{\"entries\":{\"k/01\":3},\"epoch\":\"0000000000000005\","
                         "\"more\":false,\"now\":6}");
    end();
}

/* Events of one name share a request: the end of one is not that of another, which still waits, also
 * when their sender has gone. */
TEST(events_change_a_store_each_for_itself)
{
    begin(BM_LOG_EACH);
    send_event("kv.put", "k/01", 1);
    send_event("kv.put", "k/02", 0); /* has no value, and is ended at once */
    send_event("kv.put", "k/03", 1);
    send_event("kv.get", "k/01", 0);
    send_event("kv.get", "k/09", 0);
    send_event("kv.watch", "k/01", 0);
    struct beam_store_info info = BEAM_STORE_INFO();
    CHECK_INT(beam_store_info(own.store, &info), 0);
    CHECK_UINT(info.watchers, 0); /* nobody would hear */
    own.session = beam_session_free(own.session);
    turns();
    /* What was theirs may be somebody else's memory by now. */
    struct answer put;
    REQUIRE_INT(beam_connect(on_core_runtime, "ring:0", NULL, &own.session), 0);
    ask("kv.put", "k/05", 1, &put);
    disk.written = disk.durable = 2;
    disk_tell(disk.log, 2, 0);
    turns();
    CHECK_UINT(put.count, 0);
    write_all();
    CHECK_STR(put.text, "{\"epoch\":\"0000000000000005\",\"rev\":3}");
    CHECK_INT(beam_store_info(own.store, &info), 0);
    CHECK_UINT(info.rev, 3);
    CHECK_UINT(info.keys, 3);
    end();
}

static void other_handler(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

/* One of its names is taken: none of the others was ever there, as the table of services keeps each for good. */
TEST(a_serve_that_is_refused_leaves_nothing)
{
    core_begin();
    disk_new(BM_LOG_EACH, 5);
    REQUIRE_INT(beam_store_open(on_core_runtime, NULL, &own.store), 0);
    CHECK_INT(beam_serve(on_core_runtime, "kv.delete", other_handler, NULL), 0);
    unsigned served = bm_runtime_services(on_core_runtime)->count;
    CHECK_INT(beam_store_serve(own.store, NULL), -EEXIST);
    CHECK_UINT(bm_runtime_services(on_core_runtime)->count, served);
    CHECK_INT(beam_unserve(on_core_runtime, "kv.delete"), 0);
    CHECK_INT(beam_store_serve(own.store, NULL), 0);
    beam_store_close(own.store, NULL, NULL);
    turns();
    core_end();
    disk_clear();
}

TEST(a_store_that_is_closed_ends_its_own_services_alone)
{
    core_begin();
    disk_new(BM_LOG_EACH, 5);
    REQUIRE_INT(beam_store_open(on_core_runtime, NULL, &own.store), 0);
    CHECK_INT(beam_store_serve(own.store, NULL), 0);
    CHECK_INT(beam_unserve(on_core_runtime, "kv.info"), 0);
    CHECK_INT(beam_serve(on_core_runtime, "kv.info", other_handler, NULL), 0);
    beam_store_close(own.store, NULL, NULL);
    turns();
    CHECK_INT(beam_unserve(on_core_runtime, "kv.get"), -ENOENT);
    CHECK_INT(beam_unserve(on_core_runtime, "kv.info"), 0);
    core_end();
    disk_clear();
}

TEST(a_failed_disk_undoes_what_was_pending)
{
    struct test_random random = random_of();
    struct answer kept, put, get, scan, after;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/01", 1, &kept);
    ask("kv.put", "k/02", 1, &kept);
    write_all();
    CHECK_INT(kept.code, BEAM_OK);
    ask("kv.put", "k/01", 2, &put);
    ask("kv.put", "k/01", 3, &put);
    ask("kv.get", "k/01", 0, &get);
    ask("kv.delete", "k/02", 0, &kept);
    ask("kv.put", "k/03", 1, &after);
    ask("kv.scan", NULL, 0, &scan);
    disk_fail(&random);
    turns();
    CHECK_INT(put.code, BEAM_UNKNOWN);
    CHECK_INT(kept.code, BEAM_UNKNOWN);
    CHECK_INT(after.code, BEAM_UNKNOWN);
    CHECK_INT(get.code, BEAM_UNAVAILABLE);
    CHECK_INT(scan.code, BEAM_UNAVAILABLE);
    /* What was durable can still be read, nothing can be changed. */
    ask("kv.scan", NULL, 0, &scan);
    CHECK_STR(scan.text, "{\"entries\":{\"k/01\":1,\"k/02\":1},\"epoch\":\"0000000000000005\","
                         "\"more\":false,\"now\":2}");
    ask("kv.put", "k/01", 4, &put);
    CHECK_INT(put.code, BEAM_FAILED_PRECONDITION);
    struct beam_store_info info = BEAM_STORE_INFO();
    CHECK_INT(beam_store_info(own.store, &info), 0);
    CHECK_INT(info.error, -EIO);
    CHECK_UINT(info.rev, 2);
    CHECK_INT(beam_store_compact(own.store, NULL, NULL), -EROFS);
    end();
}

/* --- what may wait --------------------------------------------------------------------------- */

static uint64_t memory_len(void)
{
    struct beam_store_info info = BEAM_STORE_INFO();
    CHECK_INT(beam_store_info(own.store, &info), 0);
    return info.memory_len;
}

/* The end of our session at which the store is. */
static beam_session *serving(void)
{
    struct bm_core *core = bm_core_current();
    for (struct bm_list *n = core->sessions.next; n != &core->sessions; n = n->next) {
        beam_session *session = bm_list_entry(n, beam_session, node);
        if (session != own.session && session->state == BM_SESSION_OPEN)
            return session;
    }
    return NULL;
}

#define LARGE (100u << 10)

static const char *large_text(void)
{
    static char text[LARGE + 1];
    memset(text, 'x', LARGE);
    return text;
}

static void put_large(struct answer *answer)
{
    ask_with("kv.put", &(struct question){.key = "k/01", .value = large_text(), .seen = -1},
             answer);
}

/* A hundred who wait for a large value have its address, and are told it all the same. */
TEST(answers_that_wait_hold_no_values)
{
    static struct answer gets[100], scans[100];
    struct answer put;
    unsigned told = 0;
    begin(BM_LOG_EACH);
    put_large(&put);
    size_t before = bm_alloc_totals().live_bytes;
    for (unsigned i = 0; i < 100; i++) {
        ask("kv.get", "k/01", 0, &gets[i]);
        ask("kv.scan", NULL, 0, &scans[i]);
    }
    CHECK(bm_alloc_totals().live_bytes - before < 10 * LARGE);
    CHECK(serving()->answers_held >= 200 * sizeof(void *));
    write_all();
    for (unsigned i = 0; i < 100; i++)
        told += gets[i].code == BEAM_OK && gets[i].count + scans[i].count == 2 &&
                scans[i].code == BEAM_OK;
    CHECK_UINT(told, 100);
    CHECK_UINT(serving()->answers_held, 0);
    end();
}

/* For who sends an event no answer is made. */
TEST(events_that_ask_hold_nothing)
{
    struct answer put;
    begin(BM_LOG_EACH);
    put_large(&put);
    send_event("kv.get", "k/01", 0);
    send_event("kv.scan", NULL, 0);
    send_event("kv.info", NULL, 0);
    uint64_t before = memory_len();
    size_t bytes = bm_alloc_totals().live_bytes;
    for (unsigned i = 0; i < 100; i++) {
        send_event("kv.get", "k/01", 0);
        send_event("kv.scan", NULL, 0);
        send_event("kv.get", "k/02", 0);
        beam_message *refused =
            message_of(&(struct question){.key = "k/01", .number = 2, .seen = 0});
        REQUIRE_INT(beam_send_event(own.session, "kv.put", &refused), 0);
        turns();
    }
    CHECK_UINT(memory_len(), before);
    CHECK(bm_alloc_totals().live_bytes - bytes < LARGE);
    write_all();
    CHECK_INT(put.code, BEAM_OK);
    end();
}

TEST(answers_that_wait_have_the_limit_of_their_session)
{
    enum { LIMIT = 64 << 20 };
    struct answer put, get, refused, scan, other;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/02", 1, &put);
    ask_with("kv.put", &(struct question){.key = "k/03", .value = large_text(), .seen = -1}, &put);
    write_all();
    ask("kv.put", "k/01", 1, &put);
    ask("kv.get", "k/01", 0, &get);
    uint64_t held = serving()->answers_held;
    CHECK(held > 0);
    serving()->answers_held = LIMIT - held / 2; /* as if so many did */
    uint64_t before = memory_len();
    ask("kv.get", "k/01", 0, &refused);
    ask("kv.scan", NULL, 0, &scan);
    CHECK_INT(refused.code, BEAM_RESOURCE_EXHAUSTED);
    CHECK_INT(scan.code, BEAM_RESOURCE_EXHAUSTED);
    ask_with("kv.put", &(struct question){.key = "k/01", .number = 2, .seen = 0}, &refused);
    CHECK_INT(refused.code, BEAM_RESOURCE_EXHAUSTED);
    CHECK_UINT(memory_len(), before);
    ask("kv.get", "k/02", 0, &other); /* which has nothing to wait for */
    CHECK_INT(other.code, BEAM_OK);
    /* Between two reactors it would be at the expense of others. */
    serving()->inner = true;
    ask("kv.get", "k/01", 0, &other);
    CHECK_UINT(other.count, 0);
    CHECK(serving()->answers_held > LIMIT);
    ask("kv.get", "k/03", 0, &other);
    CHECK_INT(other.code, BEAM_OK);
    serving()->inner = false;
    ask("kv.get", "k/03", 0, &other);
    CHECK_INT(other.code,
              BEAM_RESOURCE_EXHAUSTED); /* longer than a frame, and has nothing to wait for */
    serving()->answers_held = 2 * held;
    ask("kv.scan", NULL, 0, &scan);
    CHECK_UINT(scan.count, 0);
    write_all();
    CHECK_INT(get.code, BEAM_OK);
    CHECK_INT(scan.code, BEAM_OK);
    CHECK_UINT(serving()->answers_held, 0);
    end();
}

static void on_nothing(beam_channel *channel, const struct beam_status *status, void *arg)
{
    *(unsigned *)arg += 1;
}

/* Who waits no longer holds nothing either, whether he says so or is lost. */
TEST(answers_that_nobody_waits_for_are_given_up)
{
    static const struct beam_channel_handlers handlers = {.on_end = on_nothing};
    struct answer put, get;
    beam_channel *channel;
    unsigned ends = 0;
    begin(BM_LOG_EACH);
    ask("kv.put", "k/01", 1, &put);
    uint64_t before = memory_len();
    for (unsigned i = 0; i < 10; i++) {
        beam_message *message = message_of(&(struct question){.key = "k/01", .seen = -1});
        REQUIRE_INT(beam_open(own.session, "kv.get", &message, &handlers, &ends, NULL, &channel),
                    0);
        turns();
        CHECK(memory_len() > before);
        CHECK(serving()->answers_held > 0);
        beam_channel_reset(channel, BEAM_CANCELLED, "of no interest any more");
        beam_channel_free(channel);
        turns();
        CHECK_UINT(memory_len(), before);
        CHECK_UINT(serving()->answers_held, 0);
    }
    ask("kv.get", "k/01", 0, &get);
    CHECK(memory_len() > before);
    own.session = beam_session_free(own.session);
    turns();
    CHECK_UINT(memory_len(), before);
    CHECK_UINT(get.count, 1);
    write_all();
    REQUIRE_INT(beam_connect(on_core_runtime, "ring:0", NULL, &own.session), 0);
    ask("kv.get", "k/01", 0, &get);
    CHECK_INT(get.code, BEAM_OK);
    end();
}

/* A change of nothing waits for those before it, and counts as they do. */
TEST(changes_of_nothing_have_the_limit_of_changes)
{
    enum { LIMIT = 64 << 10 };
    struct answer put, gone;
    begin_with(BM_LOG_EACH, &BEAM_STORE_OPTIONS(.path = "disk", .pending_len_max = LIMIT));
    ask("kv.put", "k/01", 1, &put);
    uint64_t before = memory_len();
    for (unsigned i = 0; i < 2000; i++)
        send_event("kv.delete", "k/02", 0);
    CHECK(memory_len() - before <= 2 * LIMIT);
    ask("kv.delete", "k/02", 0, &gone);
    CHECK_INT(gone.code, BEAM_RESOURCE_EXHAUSTED);
    CHECK_UINT(put.count, 0);
    write_all();
    CHECK_INT(put.code, BEAM_OK);
    ask("kv.delete", "k/02", 0, &gone);
    CHECK_INT(gone.code, BEAM_OK);
    end();
}

/* --- who follows ----------------------------------------------------------------------------- */

struct told {
    unsigned lives, stales, commits;
};

static void on_live(beam_replica *replica, uint64_t skipped, void *arg)
{
    ((struct told *)arg)->lives++;
}

static void on_stale(beam_replica *replica, const struct beam_status *status, void *arg)
{
    ((struct told *)arg)->stales++;
}

static void on_commit(beam_replica *replica, uint64_t rev, void *arg)
{
    ((struct told *)arg)->commits++;
}

static const struct beam_replica_handlers handlers = {
    .on_live = on_live, .on_stale = on_stale, .on_commit = on_commit};

static beam_replica *follow(struct told *told)
{
    beam_replica *replica = NULL;
    *told = (struct told){0};
    REQUIRE_INT(
        beam_replica_new(&BEAM_REPLICA_OPTIONS(.handlers = &handlers, .arg = told), &replica), 0);
    REQUIRE_INT(beam_replica_attach(replica, own.session), 0);
    turns();
    return replica;
}

static void put_inside(unsigned key, int64_t value)
{
    char name[8];
    beam_kv_value number = {.type = BEAM_KV_INT, .i = value};
    disk_key_name(key, name);
    CHECK_INT(beam_store_put(own.store, (beam_str){name, 4}, &number, NULL, NULL), 0);
}

static uint64_t rev_of(const beam_replica *replica)
{
    struct beam_replica_info info = BEAM_REPLICA_INFO();
    CHECK_INT(beam_replica_info(replica, &info), 0);
    return info.rev;
}

TEST(each_is_published_once_durable)
{
    struct told early, late;
    begin(BM_LOG_EACH);
    put_inside(1, 1);
    write_all();
    beam_replica *first = follow(&early);
    CHECK_UINT(early.lives, 1);
    put_inside(1, 2);
    put_inside(2, 2);
    turns();
    CHECK_UINT(rev_of(first), 1);
    /* One that comes now gets what is pending in its snapshot, and is not live before that is durable. */
    beam_replica *second = follow(&late);
    CHECK_UINT(late.lives, 0);
    write_all();
    CHECK_UINT(late.lives, 1);
    CHECK_UINT(rev_of(first), 3);
    CHECK_UINT(rev_of(second), 3);
    CHECK_UINT(early.commits, 2);
    beam_replica_free(first);
    beam_replica_free(second);
    end();
}

TEST(a_snapshot_of_what_was_undone_begins_anew)
{
    struct test_random random = random_of();
    struct told told;
    begin(BM_LOG_EACH);
    put_inside(1, 1);
    put_inside(3, 1);
    write_all();
    put_inside(1, 2);
    put_inside(2, 2);
    CHECK_INT(beam_store_delete(own.store, (beam_str){"k/03", 4}, NULL, NULL), 0);
    beam_replica *replica = follow(&told);
    CHECK_UINT(told.lives, 0);
    disk_fail(&random);
    turns();
    CHECK_UINT(told.lives, 1);
    CHECK_UINT(rev_of(replica), 2);
    beam_kv_value value;
    CHECK_INT(beam_replica_get(replica, (beam_str){"k/01", 4}, &value, NULL), 0);
    CHECK_INT(value.i, 1);
    CHECK_INT(beam_replica_get(replica, (beam_str){"k/02", 4}, &value, NULL), -ENOENT);
    CHECK_INT(beam_replica_get(replica, (beam_str){"k/03", 4}, &value, NULL), 0);
    beam_replica_free(replica);
    end();
}

TEST(a_batch_is_told_before_it_is_durable)
{
    struct answer put;
    struct told told;
    begin(BM_LOG_BATCH);
    beam_replica *replica = follow(&told);
    ask("kv.put", "k/01", 1, &put);
    write_all();
    CHECK_INT(put.code, BEAM_OK);
    CHECK_UINT(put.count, 1);
    CHECK_UINT(rev_of(replica), 1);
    CHECK_UINT(disk.durable, 0);
    beam_replica_free(replica);
    end();
}

/* --- memory ---------------------------------------------------------------------------------- */

/* Each allocation of a transaction fails once: the state is as it was, and nothing is told. */
TEST(a_transaction_without_memory_has_not_been)
{
    uint8_t room[4096];
    beam_kv_writer w;
    const void *document;
    size_t len;
    beam_kv_value map, set, remove;
    char name[8];
    begin(BM_LOG_EACH);
    for (unsigned i = 0; i < 20; i++)
        put_inside(i, 1);
    write_all();
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_begin_map(&w, "set");
    for (unsigned i = 10; i < 40; i++) {
        disk_key_name(i, name);
        beam_kv_put_int(&w, name, 2);
    }
    beam_kv_end(&w);
    beam_kv_begin_list(&w, "remove");
    for (unsigned i = 9; i > 0; i--) {
        disk_key_name(i, name);
        beam_kv_put_str(&w, NULL, name);
    }
    beam_kv_end(&w);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    REQUIRE_INT(beam_kv_root(document, len, &map), 0);
    REQUIRE_INT(beam_kv_get(&map, "set", &set), 0);
    REQUIRE_INT(beam_kv_get(&map, "remove", &remove), 0);
    struct beam_store_info before = BEAM_STORE_INFO(), after = BEAM_STORE_INFO();
    CHECK_INT(beam_store_info(own.store, &before), 0);
    unsigned refused = 0;
    for (int left = 0;; left++) {
        scarce_begin(left);
        int r = beam_store_commit(own.store, &BEAM_STORE_TXN(.set = &set, .remove = &remove), NULL,
                                  NULL);
        scarce_end();
        if (r == 0)
            break;
        refused++;
        CHECK_INT(r, -ENOMEM);
        CHECK_INT(beam_store_info(own.store, &after), 0);
        CHECK_UINT(after.keys, before.keys);
        CHECK_UINT(after.data_len, before.data_len);
        CHECK_UINT(disk.rev, 20);
    }
    CHECK(refused > 40);
    write_all();
    CHECK_INT(beam_store_info(own.store, &after), 0);
    CHECK_UINT(after.keys, 31);
    CHECK_UINT(after.rev, 21);
    end();
}
