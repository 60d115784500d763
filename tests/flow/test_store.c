/* The services of a store: each answer, each error, transactions and what makes them fail. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/kept.h"

FLOW_TEST(each_service_answers)
{
    kept_start(NULL);
    CHECK_ASK("kv.get", "{'key':'a'}", "NOT_FOUND {'now':0}");
    CHECK_ASK("kv.put", "{'key':'a','value':{'x':[1,null]}}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.put", "{'key':'b','value':'two'}", "{'epoch':'EPOCH','rev':2}");
    CHECK_ASK("kv.get", "{'key':'a'}", "{'epoch':'EPOCH','now':2,'rev':1,'value':{'x':[1,null]}}");
    CHECK_ASK("kv.put", "{'key':'a','value':7}", "{'epoch':'EPOCH','rev':3}");
    CHECK_ASK("kv.get", "{'key':'a'}", "{'epoch':'EPOCH','now':3,'rev':3,'value':7}");
    CHECK_ASK("kv.txn", "{'set':{'c':3,'b':true},'delete':['a']}", "{'epoch':'EPOCH','rev':4}");
    CHECK_ASK("kv.get", "{'key':'a'}", "NOT_FOUND {'now':4}");
    CHECK_ASK("kv.get", "{'key':'b'}", "{'epoch':'EPOCH','now':4,'rev':4,'value':true}");
    CHECK_ASK("kv.scan", "{}", "{'entries':{'b':true,'c':3},'epoch':'EPOCH','more':false,'now':4}");
    CHECK_ASK("kv.delete", "{'key':'b'}", "{'epoch':'EPOCH','rev':5}");
    CHECK_ASK("kv.compact", NULL, "FAILED_PRECONDITION {'error':'EOPNOTSUPP'}");
    CHECK_ASK("kv.info", NULL,
              "{'bytes':24,'epoch':'EPOCH','horizon':0,'keys':1,'now':5,'watchers':0}");
}

static bool may_read(beam_str service, const struct beam_peer *peer, void *arg)
{
    static const char *const reads[] = {"kv.get", "kv.scan", "kv.info", "kv.watch"};
    ++*(_Atomic unsigned *)arg;
    for (unsigned i = 0; i < 4; i++)
        if (service.len == strlen(reads[i]) && memcmp(service.ptr, reads[i], service.len) == 0)
            return true;
    return false;
}

FLOW_TEST(who_may_read_may_not_write)
{
    _Atomic unsigned *asked = flow_share(sizeof(*asked));
    kept_start(&BEAM_STORE_OPTIONS(.allow = may_read, .allow_arg = asked));
    CHECK_ASK("kv.get", "{'key':'a'}", "NOT_FOUND {'now':0}");
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "PERMISSION_DENIED");
    CHECK_ASK("kv.txn", "{'set':{'a':1}}", "PERMISSION_DENIED");
    CHECK_ASK("kv.compact", NULL, "PERMISSION_DENIED");
    CHECK_ASK("kv.scan", "{}", "{'entries':{},'epoch':'EPOCH','more':false,'now':0}");
    CHECK(*asked >= 5);
    kept_close();
}

FLOW_TEST(a_change_of_nothing_is_no_revision)
{
    kept_start(NULL);
    CHECK_ASK("kv.delete", "{'key':'a'}", "{'epoch':'EPOCH','rev':0}");
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.txn", "{'delete':['x','y']}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.txn", "{}", "{'epoch':'EPOCH','rev':1}");
    /* The same value is a change. */
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':2}");
}

FLOW_TEST(wrong_arguments_are_refused)
{
    static const struct {
        const char *service, *argument;
    } rows[] = {
        {"kv.get", "{}"},
        {"kv.get", "[]"},
        {"kv.get", "{'key':1}"},
        {"kv.get", "{'key':''}"},
        {"kv.put", "{'key':'a'}"},
        {"kv.put", "{'key':'a','value':1,'seen':'x'}"},
        {"kv.put", "{'key':'a','value':1,'seen':-1}"},
        {"kv.put", "{'key':'a','value':1,'epoch':'x'}"},
        {"kv.put", "{'key':'a','value':1,'epoch':'0123456789ABCDEF'}"},
        {"kv.put", "{'key':'','value':1}"},
        {"kv.delete", "{}"},
        {"kv.txn", "{'set':[]}"},
        {"kv.txn", "{'set':{'':1}}"},
        {"kv.txn", "{'delete':{}}"},
        {"kv.txn", "{'delete':[1]}"},
        {"kv.txn", "{'delete':['']}"},
        {"kv.txn", "{'delete':['a','a']}"},
        {"kv.txn", "{'set':{'b':1},'delete':['b']}"},
        {"kv.txn", "{'set':{'z':1},'delete':['z']}"},
        {"kv.scan", "{'prefix':1}"},
        {"kv.scan", "{'limit':0}"},
        {"kv.watch", "{'prefix':1}"},
        {"kv.watch", "{'rev':'x'}"},
        {"kv.watch", "{'epoch':'x'}"},
    };
    kept_start(NULL);
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.put", "{'key':'b','value':1}", "{'epoch':'EPOCH','rev':2}");
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("%s %s", rows[i].service, rows[i].argument);
        CHECK_ASK(rows[i].service, rows[i].argument, "INVALID_ARGUMENT");
        test_note("%s", "");
    }
    /* And nothing has happened. */
    CHECK_ASK("kv.scan", "{}", "{'entries':{'a':1,'b':1},'epoch':'EPOCH','more':false,'now':2}");
}

FLOW_TEST(a_body_that_is_no_document_is_refused)
{
    kept_start(NULL);
    for (unsigned i = 0; i < 2; i++) {
        uint8_t room[256];
        beam_message *message = beam_message_new();
        beam_message_set_body(message, room, kept_document("{'key':'a'}", room, sizeof(room)));
        if (i == 0)
            beam_message_set_codec(message, BEAM_CODEC_APPLICATION);
        else
            beam_message_set_body(message, "{\"key\":1}", 9);
        struct flow_answer answer = flow_ask("kv.get", message);
        CHECK_INT(answer.code, BEAM_INVALID_ARGUMENT);
        flow_answer_clear(&answer);
    }
}

/* --- in another codec ------------------------------------------------------------------------ */

static struct flow_answer ask_json(const char *service, const char *text)
{
    beam_message *message = beam_message_new();
    beam_message_set_codec(message, BEAM_CODEC_JSON);
    beam_message_set_body(message, text, strlen(text));
    return flow_ask(service, message);
}

static void check_json(const struct flow_answer *answer, const char *part)
{
    char text[512] = "";
    size_t len = 0;
    const void *body = answer->message ? beam_message_body(answer->message, &len) : NULL;
    CHECK_INT(answer->code, BEAM_OK);
    CHECK(answer->message && beam_message_codec(answer->message) == BEAM_CODEC_JSON);
    if (body)
        snprintf(text, sizeof(text), "%.*s", (int)len, (const char *)body);
    const char *found = strstr(text, part);
    CHECK_STR(found ? part : text, part);
}

struct lines {
    unsigned count, other;
    char text[8][256];
};

static void on_line(beam_channel *channel, const beam_message *message, void *arg)
{
    struct lines *lines = arg;
    size_t len = 0;
    const void *body = beam_message_body(message, &len);
    lines->other += beam_message_codec(message) != BEAM_CODEC_JSON;
    if (lines->count < 8)
        snprintf(lines->text[lines->count++], 256, "%.*s", (int)len, (const char *)body);
    flow_tick();
}

FLOW_TEST(a_store_speaks_json)
{
    static const struct beam_channel_handlers handlers = {.on_message = on_line};
    static struct lines lines;
    kept_start(NULL);
    lines = (struct lines){0};
    struct flow_answer answer = ask_json("kv.put", "{\"key\":\"a\",\"value\":[1.5,null]}");
    check_json(&answer, "\"rev\":1}");
    flow_answer_clear(&answer);
    answer = ask_json("kv.get", "{\"key\":\"a\"}");
    check_json(&answer, "\"now\":1,\"rev\":1,\"value\":[1.5,null]}");
    flow_answer_clear(&answer);
    answer = ask_json("kv.get", "{\"key\":");
    CHECK_INT(answer.code, BEAM_INVALID_ARGUMENT);
    flow_answer_clear(&answer);

    beam_channel *channel = NULL;
    beam_message *message = beam_message_new();
    beam_message_set_codec(message, BEAM_CODEC_JSON);
    beam_message_set_body(message, "{\"prefix\":\"\"}", 13);
    int r = beam_open(flow.session, "kv.watch", &message, &handlers, &lines, NULL, &channel);
    beam_message_free(message);
    REQUIRE_INT(r, 0);
    FLOW_WAIT(lines.count == 3);
    CHECK_ASK("kv.delete", "{'key':'a'}", "{'epoch':'EPOCH','rev':2}");
    FLOW_WAIT(lines.count == 4);
    CHECK_UINT(lines.other, 0);
    CHECK_STR(lines.text[1], "{\"kind\":\"snap\",\"rev\":1,\"set\":{\"a\":[1.5,null]}}");
    CHECK_STR(lines.text[2], "{\"kind\":\"live\",\"rev\":1}");
    CHECK_STR(lines.text[3], "{\"delete\":[\"a\"],\"kind\":\"delta\",\"rev\":2}");
    beam_channel_free(channel);
}

FLOW_TEST(seen_refuses_a_changed_key)
{
    kept_start(NULL);
    /* Only if it is not there. */
    CHECK_ASK("kv.put", "{'key':'a','value':1,'seen':0}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.put", "{'key':'a','value':2,'seen':0}", "ABORTED {'key':'a','now':1,'rev':1}");
    CHECK_ASK("kv.put", "{'key':'a','value':2,'seen':1}", "{'epoch':'EPOCH','rev':2}");
    CHECK_ASK("kv.put", "{'key':'a','value':3,'seen':1}", "ABORTED {'key':'a','now':2,'rev':2}");
    CHECK_ASK("kv.delete", "{'key':'a','seen':1}", "ABORTED {'key':'a','now':2,'rev':2}");
    CHECK_ASK("kv.put", "{'key':'b','value':1}", "{'epoch':'EPOCH','rev':3}");
    /* All or nothing: b has not changed since 3, a has since 1. */
    CHECK_ASK("kv.txn", "{'set':{'b':2},'delete':['a'],'seen':1}",
              "ABORTED {'key':'b','now':3,'rev':3}");
    CHECK_ASK("kv.txn", "{'set':{'b':2},'delete':['a'],'seen':3}", "{'epoch':'EPOCH','rev':4}");
    /* Deleted behind what was seen, and never there. */
    CHECK_ASK("kv.put", "{'key':'a','value':1,'seen':3}", "ABORTED {'key':'a','now':4,'rev':4}");
    CHECK_ASK("kv.put", "{'key':'c','value':1,'seen':3}", "{'epoch':'EPOCH','rev':5}");
    CHECK_ASK("kv.put", "{'key':'a','value':1,'seen':4}", "{'epoch':'EPOCH','rev':6}");
    CHECK_ASK("kv.delete", "{'key':'a'}", "{'epoch':'EPOCH','rev':7}");
    CHECK_ASK("kv.put", "{'key':'a','value':9,'seen':0}", "{'epoch':'EPOCH','rev':8}");
}

FLOW_TEST(deletions_long_ago_are_refused_rather_than_guessed)
{
    kept_start(NULL);
    kept_fill("k", 0, 1100, 1);
    char text[128];
    for (unsigned i = 0; i < 1100; i += 100) {
        static char list[8192];
        size_t n = (size_t)sprintf(list, "{'delete':[");
        for (unsigned k = 0; k < 100; k++)
            n += (size_t)sprintf(list + n, "%s'k%u'", k ? "," : "", i + k);
        sprintf(list + n, "]}");
        snprintf(text, sizeof(text), "{'epoch':'EPOCH','rev':%u}", 1101 + i / 100);
        CHECK_ASK("kv.txn", list, text);
    }
    /* k1099 went at 1111 and k0 at 1101, which is forgotten: some later one stands for it. */
    CHECK_ASK("kv.put", "{'key':'k1099','value':1,'seen':1110}",
              "ABORTED {'key':'k1099','now':1111,'rev':1111}");
    CHECK_ASK("kv.put", "{'key':'k0','value':1,'seen':1100}",
              "ABORTED {'key':'k0','now':1111,'rev':1101}");
    CHECK_ASK("kv.put", "{'key':'never','value':1,'seen':1100}",
              "ABORTED {'key':'never','now':1111,'rev':1101}");
    CHECK_ASK("kv.put", "{'key':'never','value':1,'seen':1111}", "{'epoch':'EPOCH','rev':1112}");
}

FLOW_TEST(another_epoch_refuses_a_change)
{
    kept_start(NULL);
    CHECK_ASK("kv.put", "{'key':'a','value':1,'epoch':'0123456789abcdef'}",
              "ABORTED {'epoch':'EPOCH'}");
    char text[128];
    snprintf(text, sizeof(text), "{'key':'a','value':1,'epoch':'%016llx'}",
             (unsigned long long)kept->info.epoch);
    CHECK_ASK("kv.put", text, "{'epoch':'EPOCH','rev':1}");
}

FLOW_TEST(limits_are_kept)
{
    static char text[40000];
    kept_start(&BEAM_STORE_OPTIONS(.txn_len_max = 2000));
    /* Keys of 1024 bytes, and of one more. */
    memset(text, 'k', sizeof(text));
    memcpy(text, "{'value':1,'key':'", 18);
    strcpy(text + 18 + 1024, "'}");
    CHECK_ASK("kv.put", text, "{'epoch':'EPOCH','rev':1}");
    memset(text + 18, 'k', 1030);
    strcpy(text + 18 + 1025, "'}");
    CHECK_ASK("kv.put", text, "INVALID_ARGUMENT");
    CHECK_ASK("kv.get", text, "INVALID_ARGUMENT");
    CHECK_ASK("kv.delete", text, "INVALID_ARGUMENT");
    /* A transaction of 2000 bytes as entries, and of some more. */
    memset(text, 'v', sizeof(text));
    memcpy(text, "{'key':'k','value':'", 20);
    strcpy(text + 20 + 1984, "'}");
    CHECK_ASK("kv.put", text, "{'epoch':'EPOCH','rev':2}");
    memset(text + 20, 'v', 3000);
    strcpy(text + 20 + 1992, "'}");
    CHECK_ASK("kv.put", text, "INVALID_ARGUMENT");
    /* A value of depth 30, and of 31. */
    for (unsigned depth = 30; depth <= 31; depth++) {
        size_t n = (size_t)sprintf(text, "{'key':'deep','value':");
        memset(text + n, '[', depth);
        memset(text + n + depth, ']', depth);
        strcpy(text + n + 2 * depth, "}");
        CHECK_ASK("kv.put", text, depth == 30 ? "{'epoch':'EPOCH','rev':3}" : "INVALID_ARGUMENT");
    }
    struct kept_watch watch = {0};
    kept_watch(&watch, "{'prefix':'deep'}");
    FLOW_WAIT(watch.lives == 1);
    CHECK_UINT(watch.bad, 0);
    kept_watch_end(&watch);
}

FLOW_TEST(scan_goes_on_behind_a_key)
{
    kept_start(NULL);
    CHECK_ASK("kv.txn", "{'set':{'a':1,'a/b':2,'a/c':3,'a/d':4,'b':5}}",
              "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.scan", "{'prefix':'a/'}",
              "{'entries':{'a/b':2,'a/c':3,'a/d':4},'epoch':'EPOCH','more':false,'now':1}");
    CHECK_ASK("kv.scan", "{'prefix':'a/','limit':2}",
              "{'entries':{'a/b':2,'a/c':3},'epoch':'EPOCH','more':true,'now':1}");
    CHECK_ASK("kv.scan", "{'prefix':'a/','limit':2,'after':'a/c'}",
              "{'entries':{'a/d':4},'epoch':'EPOCH','more':false,'now':1}");
    CHECK_ASK("kv.scan", "{'after':'a/d'}",
              "{'entries':{'b':5},'epoch':'EPOCH','more':false,'now':1}");
    CHECK_ASK("kv.scan", "{'after':'a','prefix':'a/','limit':1}",
              "{'entries':{'a/b':2},'epoch':'EPOCH','more':true,'now':1}");
    CHECK_ASK("kv.scan", "{'after':'b'}", "{'entries':{},'epoch':'EPOCH','more':false,'now':1}");
    CHECK_ASK("kv.scan", "{'prefix':'c'}", "{'entries':{},'epoch':'EPOCH','more':false,'now':1}");
    /* What does not fit goes into the next answer. */
    kept_fill("x", 0, 5, 20000);
    struct flow_answer answer = {0};
    kept_ask_later("kv.scan", "{'prefix':'x'}", &answer);
    FLOW_WAIT(answer.count == 1);
    size_t len = 0;
    const void *body = answer.message ? beam_message_body(answer.message, &len) : NULL;
    beam_kv_value map, entries;
    bool more = false;
    REQUIRE(body && beam_kv_root(body, len, &map) == 0);
    CHECK_INT(beam_kv_get_bool(&map, "more", &more), 0);
    CHECK(more);
    CHECK_INT(beam_kv_get(&map, "entries", &entries), 0);
    CHECK(entries.bytes.len > 40000 && entries.bytes.len < 49152);
    flow_answer_clear(&answer);
}

FLOW_TEST(a_closed_store_is_unavailable)
{
    kept_start(NULL);
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    kept_close();
    CHECK_ASK("kv.get", "{'key':'a'}", "NOT_FOUND");
    /* The name may be served anew. */
    kept_open(NULL, NULL);
    CHECK_ASK("kv.get", "{'key':'a'}", "NOT_FOUND {'now':0}");
}

FLOW_TEST(a_store_is_served_by_its_name)
{
    kept_share();
    strcpy(kept->prefix, "settings");
    flow_start(NULL);
    kept_open(NULL, NULL);
    CHECK_ASK("settings.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.get", "{'key':'a'}", "NOT_FOUND");
}

static void on_hop(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

FLOW_TEST(a_store_is_one_hop_away)
{
    struct kept_watch watch = {0};
    kept_share();
    kept->at_home = true;
    flow_serve_at_home("hop", on_hop, NULL);
    flow_start(NULL);
    kept_open(NULL, NULL);
    kept_watch(&watch, "{}");
    CHECK_ASK("kv.put", "{'key':'a','value':1,'seen':0}", "{'epoch':'EPOCH','rev':1}");
    CHECK_ASK("kv.put", "{'key':'a','value':1,'seen':0}", "ABORTED {'key':'a','now':1,'rev':1}");
    CHECK_ASK("kv.get", "{'key':'a'}", "{'epoch':'EPOCH','now':1,'rev':1,'value':1}");
    FLOW_WAIT(watch.rev == 1);
    kept_watch_end(&watch);
}

/* --- from inside ----------------------------------------------------------------------------- */

struct inside {
    _Atomic unsigned done;
    _Atomic int errors[8];
    _Atomic uint64_t revs[8];
};

static struct inside *inside;

static void on_done(int error, uint64_t rev, void *arg)
{
    unsigned i = (unsigned)(uintptr_t)arg;
    inside->errors[i] = error;
    inside->revs[i] = rev;
    inside->done++;
    flow_tick();
}

static beam_str str(const char *text)
{
    return (beam_str){text, strlen(text)};
}

static void at_use(beam_request *request, void *arg)
{
    beam_store *store = kept->store;
    uint8_t room[512], list_room[512];
    beam_kv_value set, remove, value, number = {.type = BEAM_KV_FLOAT, .f = 1.5};
    uint64_t rev = 0;
    size_t len = kept_document("{'a':1,'b':[2],'c':'x'}", room, sizeof(room));
    CHECK_INT(beam_kv_root(room, len, &set), 0);
    CHECK_INT(beam_store_commit(store, &BEAM_STORE_TXN(.set = &set), on_done, (void *)0), 0);
    /* Seen at once, told later. */
    CHECK_INT(beam_store_get(store, str("b"), &value, &rev), 0);
    CHECK_INT(value.type, BEAM_KV_LIST);
    CHECK_UINT(rev, 1);
    CHECK_UINT(inside->done, 0);
    CHECK_INT(beam_store_put(store, str("d"), &number, on_done, (void *)1), 0);
    CHECK_INT(beam_store_delete(store, str("a"), on_done, (void *)2), 0);
    CHECK_INT(beam_store_get(store, str("a"), &value, NULL), -ENOENT);
    CHECK_INT(beam_store_delete(store, str("a"), on_done, (void *)3), 0);
    len = kept_document("['b','b']", list_room, sizeof(list_room));
    CHECK_INT(beam_kv_root(list_room, len, &remove), 0);
    CHECK_INT(beam_store_commit(store, &BEAM_STORE_TXN(.remove = &remove), NULL, NULL), -EINVAL);
    CHECK_INT(beam_store_commit(store, &BEAM_STORE_TXN(.set = &remove), NULL, NULL), -EINVAL);
    CHECK_INT(beam_store_commit(store, &BEAM_STORE_TXN(.remove = &set), NULL, NULL), -EINVAL);
    CHECK_INT(beam_store_commit(
                  store, &BEAM_STORE_TXN(.set = &set, .if_unchanged = true, .seen = 2), NULL, NULL),
              -ESTALE);
    CHECK_INT(beam_store_put(store, str(""), &number, NULL, NULL), -ENAMETOOLONG);
    CHECK_INT(beam_store_put(store, str("\xff"), &number, NULL, NULL), -BEAM_EKV_UTF8);
    value = (beam_kv_value){.type = BEAM_KV_STR, .str = {"\xff", 1}};
    CHECK_INT(beam_store_put(store, str("e"), &value, NULL, NULL), -BEAM_EKV_UTF8);
    value = (beam_kv_value){.type = BEAM_KV_MAP, .bytes = {"12345678", 8}};
    CHECK(beam_store_put(store, str("e"), &value, NULL, NULL) < -4000);
    CHECK_INT(beam_store_compact(store, NULL, NULL), -ENOTSUP);
    CHECK_INT(beam_store_serve(store, "again"), -EALREADY);
    char keys[64] = "";
    for (beam_str key = {NULL, 0}; beam_store_next(store, str(""), key, &key, &value, &rev) > 0;)
        snprintf(keys + strlen(keys), sizeof(keys) - strlen(keys), "%.*s@%llu ", BEAM_STR(key),
                 (unsigned long long)rev);
    CHECK_STR(keys, "b@1 c@1 d@2 ");
}

FLOW_TEST(a_store_is_used_from_inside)
{
    inside = flow_share(sizeof(*inside));
    kept_start(NULL);
    kept_at(at_use);
    FLOW_WAIT(inside->done == 4);
    for (unsigned i = 0; i < 4; i++)
        CHECK_INT(inside->errors[i], 0);
    CHECK_UINT(inside->revs[0], 1);
    CHECK_UINT(inside->revs[1], 2);
    CHECK_UINT(inside->revs[2], 3);
    CHECK_UINT(inside->revs[3], 3);
    CHECK_UINT(kept_info()->keys, 3);
    CHECK_UINT(kept->info.rev, 3);
}

static void at_bad_open(beam_request *request, void *arg)
{
    beam_runtime *runtime = flow_runtime_here();
    beam_store *store = NULL;
    CHECK_INT(beam_store_open(NULL, NULL, &store), -EPERM);
    CHECK_INT(beam_store_open(runtime, &BEAM_STORE_OPTIONS(.sync = 3), &store), -EINVAL);
    CHECK_INT(beam_store_open(runtime, &BEAM_STORE_OPTIONS(.txn_len_max = 17 << 20), &store),
              -EINVAL);
    CHECK_INT(beam_store_open(runtime, &BEAM_STORE_OPTIONS(.compact_percent = 100), &store),
              -EINVAL);
    CHECK_INT(beam_store_open(runtime, &BEAM_STORE_OPTIONS(.heartbeat_ns = 1), &store), -EINVAL);
    CHECK_PTR(store, NULL);
    CHECK_INT(beam_store_open(runtime, NULL, &store), 0);
    if (!store)
        return;
    char name[300];
    memset(name, 'n', sizeof(name));
    name[241] = '\0';
    CHECK_INT(beam_store_serve(store, name), -EINVAL);
    CHECK_INT(beam_store_serve(store, ""), -EINVAL);
    CHECK_INT(beam_store_serve(store, NULL), -EEXIST); /* the other one is */
    beam_store_close(store, NULL, NULL);
    beam_store_close(NULL, NULL, NULL);
}

FLOW_TEST(a_store_is_not_opened_with_nonsense)
{
    kept_start(NULL);
    kept_at(at_bad_open);
    CHECK_ASK("kv.put", "{'key':'a','value':1}", "{'epoch':'EPOCH','rev':1}");
}

/* What one large value took for a while is given back. */
FLOW_TEST(a_large_value_leaves_no_memory_behind)
{
    kept_start(&BEAM_STORE_OPTIONS(.history_len = 4096));
    kept_fill("k", 0, 10, 100);
    uint64_t before = kept_info()->memory_len;
    kept_fill("large", 0, 1, 900000);
    struct flow_answer answer = {0};
    kept_ask_later("kv.get", "{'key':'large0'}", &answer);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    CHECK(kept_info()->memory_len > before + 900000);
    CHECK_ASK("kv.delete", "{'key':'large0'}", "{'epoch':'EPOCH','rev':12}");
    kept_fill("k", 0, 10, 100);
    CHECK(kept_info()->memory_len < before + 20000);
}
