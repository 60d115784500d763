/* What those who follow a store cost the reactor that it lives on: how much is done for them in a turn,
 * and for whom. All over one ring of the reactor with itself, so that turns can be counted. */
#include <stdio.h>

#include "runtime/store.h"
#include "tests/unit/runtime/on_core.h"

#define MANY 1000u /* of one session, which has 1024 channels */
#define SESSIONS 8u
#define KEPT_MAX 4096u

/* What one turn may take, in the unit of store_watch.c, and the last step that begins within it. */
#define TURN_WORK_MAX ((512u << 10) + (80u << 10))

struct follower {
    beam_channel *channel;
    unsigned lives, snaps, deltas, marks;
    uint64_t rev;
};

static struct {
    beam_store *store;
    beam_session *sessions[SESSIONS];
    struct follower followers[SESSIONS * MANY];
    unsigned count, received;
    beam_message *kept[KEPT_MAX];
    unsigned kept_count;
    bool keeps;
    unsigned answers;
    bool late; /* a turn may take more than TURN_WORK_MAX */
} own;

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct follower *follower = arg;
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_kv_value map;
    beam_str kind;
    REQUIRE_INT(beam_kv_root(body, len, &map), 0);
    REQUIRE_INT(beam_kv_get_str(&map, "kind", &kind), 0);
    CHECK_INT(beam_kv_get_uint(&map, "rev", &follower->rev), 0);
    own.received++;
    follower->lives += kind.ptr[0] == 'l';
    follower->snaps += kind.ptr[0] == 's';
    follower->deltas += kind.ptr[0] == 'd';
    follower->marks += kind.ptr[0] == 'm';
    if (own.keeps && own.kept_count < KEPT_MAX)
        own.kept[own.kept_count++] = beam_message_keep(message);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    CHECK_INT(status->code, BEAM_OK); /* which it never is: none ends */
}

static const struct beam_channel_handlers handlers = {.on_message = on_message, .on_end = on_end};

static void turn(void)
{
    const struct bm_reactor_stats *stats = bm_reactor_stats(own.store->core->reactor);
    uint64_t before = own.store->watch_work, turns = stats->turns;
    CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
    if (!own.late) /* what its host sees as one turn may be several */
        CHECK(own.store->watch_work - before <= TURN_WORK_MAX * (stats->turns - turns));
}

/* Until nobody has to be told anything, and all of it has arrived. */
static void settle(void)
{
    unsigned quiet = 0;
    while (quiet < 10) {
        uint64_t before = own.store->watch_work;
        unsigned received = own.received;
        turn();
        bool rests = before == own.store->watch_work && received == own.received &&
                     bm_list_empty(&own.store->ready) && own.store->told == own.store->rev;
        quiet = rests ? quiet + 1 : 0;
    }
}

static void begin(const struct beam_store_options *options)
{
    memset(&own, 0, sizeof(own));
    core_begin();
    REQUIRE_INT(beam_store_open(on_core_runtime, options, &own.store), 0);
    REQUIRE_INT(beam_store_serve(own.store, NULL), 0);
    for (unsigned i = 0; i < SESSIONS; i++)
        REQUIRE_INT(beam_connect(on_core_runtime, "ring:0", NULL, &own.sessions[i]), 0);
    settle();
}

static void end(void)
{
    while (own.kept_count > 0)
        beam_message_free(own.kept[--own.kept_count]);
    for (unsigned i = 0; i < own.count; i++)
        beam_channel_free(own.followers[i].channel);
    for (unsigned i = 0; i < SESSIONS; i++)
        beam_session_free(own.sessions[i]);
    core_end();
}

static beam_message *question(const char *key, const char *text)
{
    uint8_t room[256];
    beam_kv_writer w;
    const void *document;
    size_t len;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, key, text);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    beam_message *message = beam_message_new();
    beam_message_set_body(message, document, len);
    return message;
}

static void follow_soon(const char *prefix)
{
    beam_session *session = own.sessions[own.count / MANY];
    struct follower *follower = &own.followers[own.count++];
    beam_message *message = question("prefix", prefix);
    REQUIRE_INT(
        beam_open(session, "kv.watch", &message, &handlers, follower, NULL, &follower->channel), 0);
}

static void follow(unsigned count, const char *prefix)
{
    for (unsigned i = 0; i < count; i++) {
        follow_soon(prefix);
        if (i % 32 == 31)
            settle();
    }
    settle();
    while (count > 0)
        REQUIRE_UINT(own.followers[own.count - count--].lives, 1);
}

/* One transaction of `keys` keys "PREFIXn", each a value of len bytes. */
static void put(const char *prefix, unsigned keys, size_t len)
{
    static uint8_t room[1 << 18], bytes[65536];
    beam_kv_writer w;
    beam_kv_value map, set;
    const void *document;
    size_t document_len;
    beam_kv_writer_init(&w, room, sizeof(room));
    beam_kv_begin_map(&w, NULL);
    beam_kv_begin_map(&w, "set");
    for (unsigned i = 0; i < keys; i++) {
        char key[64];
        snprintf(key, sizeof(key), "%s%05u", prefix, i);
        beam_kv_put_bytes(&w, key, bytes, len);
    }
    beam_kv_end(&w);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &document_len), 0);
    REQUIRE_INT(beam_kv_root(document, document_len, &map), 0);
    REQUIRE_INT(beam_kv_get(&map, "set", &set), 0);
    REQUIRE_INT(beam_store_commit(own.store, &BEAM_STORE_TXN(.set = &set), NULL, NULL), 0);
}

static void on_answer(const struct beam_status *status, const beam_message *message, void *arg)
{
    own.answers++;
}

/* How many have been told of one change, and that is this one. */
static unsigned told_of(uint64_t rev)
{
    unsigned count = 0;
    for (unsigned i = 0; i < own.count; i++)
        count += own.followers[i].deltas == 1 && own.followers[i].rev == rev;
    return count;
}

/* Nothing of all this is for those who follow, but it has to be looked at for each. */
TEST(what_a_prefix_filters_out_leaves_time_for_others)
{
    begin(NULL);
    follow(MANY, "z/");
    for (unsigned i = 0; i < 2000; i++)
        put("a", 1, 8);
    uint64_t visits = own.store->watch_visits;
    beam_message *message = question("key", "a00000");
    REQUIRE_INT(beam_call(own.sessions[0], "kv.get", &message, on_answer, NULL, NULL), 0);
    for (unsigned n = 0; own.answers == 0 && n < 20; n++)
        turn();
    CHECK_UINT(own.answers, 1);
    CHECK(!bm_list_empty(&own.store->ready)); /* others still wait for their turn */
    settle();
    CHECK_UINT(own.store->skips, 0);
    /* A visit is for more than one of them. */
    CHECK(own.store->watch_visits - visits <= 2 * MANY * 2000 / 64);
    put("z/", 1, 8);
    settle();
    CHECK_UINT(told_of(2001), MANY);
    end();
}

static void put_again(int error, uint64_t rev, void *arg)
{
    beam_kv_value value = {.type = BEAM_KV_INT, .i = (int64_t)rev};
    if (rev < 500)
        CHECK_INT(beam_store_put(own.store, (beam_str){"a", 1}, &value, put_again, NULL), 0);
}

/* Each is made when the one before is told, which are many in one turn: the bound is for them all. */
TEST(changes_that_cause_each_other_in_a_turn_share_its_time)
{
    begin(NULL);
    follow(MANY, "z/");
    put_again(0, 0, NULL);
    turn();
    CHECK_UINT(own.store->told, 500);
    CHECK(!bm_list_empty(&own.store->ready));
    settle();
    end();
}

TEST(a_long_change_that_is_filtered_counts_by_its_keys)
{
    begin(NULL);
    follow(100, "z/");
    put("a", 2000, 8);
    unsigned turns = 0;
    do {
        turn();
        turns++;
    } while (!bm_list_empty(&own.store->ready));
    /* 100 times 2000 keys, 32 each: more than twelve turns' work, and in the right order of size. */
    CHECK(turns >= 12 && turns <= 40);
    end();
}

/* It was not they who were slow. */
TEST(those_who_would_be_left_behind_get_more_of_a_turn)
{
    begin(&BEAM_STORE_OPTIONS(.history_len = 1u << 20));
    follow(MANY / 4, "z/");
    own.late = true;
    for (unsigned i = 0; i < 100; i++) {
        put("a", 1000, 8);
        turn();
    }
    settle();
    CHECK_UINT(own.store->skips, 0);
    put("z/", 1, 8);
    settle();
    CHECK_UINT(told_of(101), MANY / 4);
    end();
}

TEST(changes_of_one_turn_are_one_visit_to_each)
{
    begin(NULL);
    follow(10, "a");
    uint64_t visits = own.store->watch_visits;
    for (unsigned i = 0; i < 30; i++)
        put("a", 1, 8);
    settle();
    CHECK_UINT(own.store->watch_visits - visits, 10);
    for (unsigned i = 0; i < 10; i++)
        CHECK_UINT(own.followers[i].deltas, 30);
    end();
}

TEST(transactions_without_a_change_are_no_visit)
{
    begin(NULL);
    follow(10, "a");
    put("a", 1, 8);
    settle();
    uint64_t visits = own.store->watch_visits;
    for (unsigned i = 0; i < 30; i++) {
        CHECK_INT(beam_store_delete(own.store, (beam_str){"none", 4}, NULL, NULL), 0);
        turn();
    }
    settle();
    CHECK_UINT(own.store->watch_visits - visits, 0);
    end();
}

TEST(who_has_no_room_is_not_visited)
{
    begin(&BEAM_STORE_OPTIONS(.history_len = 64u << 20));
    follow(1, "a");
    own.keeps = true;
    for (unsigned i = 0; i < 100; i++) {
        put("a", 1, 60000);
        settle();
    }
    CHECK(own.followers[0].deltas < 100);
    uint64_t visits = own.store->watch_visits;
    for (unsigned i = 0; i < 30; i++) {
        put("a", 1, 8);
        settle();
    }
    CHECK_UINT(own.store->watch_visits - visits, 0);
    own.keeps = false;
    while (own.kept_count > 0)
        beam_message_free(own.kept[--own.kept_count]);
    settle();
    CHECK_UINT(own.followers[0].deltas, 130);
    end();
}

/* All are due at once, and yet sent within what a turn may take, which turn() checks. */
TEST(marks_are_sent_in_turns)
{
    begin(NULL);
    follow(SESSIONS * MANY, "z/"); /* more than all turns could send that its host sees as one */
    uint64_t before = own.store->watch_work;
    for (unsigned i = 0; i < 2; i++) /* to those who were sent nothing since the first */
        own.store->heartbeat.fn(&own.store->heartbeat);
    CHECK_UINT(own.store->watch_work, before);
    settle();
    unsigned marked = 0;
    for (unsigned i = 0; i < own.count; i++)
        marked += own.followers[i].marks == 1;
    CHECK_UINT(marked, own.count);
    end();
}

/* A snapshot passes over keys that are about to go, as many as there are. */
TEST(a_snapshot_passes_over_thousands_of_keys_that_go)
{
    enum { KEYS = 10000 };
    char path[512];
    snprintf(path, sizeof(path), "%s/store.kv", test_tmpdir());
    begin(&BEAM_STORE_OPTIONS(.path = path));
    put("a", KEYS, 0);
    put("z", 1, 8);
    settle();

    beam_buffer buffer;
    beam_kv_writer w;
    beam_kv_value remove;
    const void *document;
    size_t len;
    beam_buffer_init(&buffer, 1 << 20);
    beam_kv_writer_init_buffer(&w, &buffer);
    beam_kv_begin_list(&w, NULL);
    for (unsigned i = 0; i < KEYS; i++) {
        char key[16];
        snprintf(key, sizeof(key), "a%05u", i);
        beam_kv_put_str(&w, NULL, key);
    }
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &document, &len), 0);
    REQUIRE_INT(beam_kv_root(document, len, &remove), 0);
    /* It begins while they wait for the disk. */
    follow_soon("");
    CHECK_INT(beam_store_commit(own.store, &BEAM_STORE_TXN(.remove = &remove), NULL, NULL), 0);
    beam_buffer_deinit(&buffer);
    while (own.followers[0].lives == 0)
        turn();
    CHECK_UINT(own.followers[0].snaps, 1);
    CHECK_UINT(own.followers[0].deltas, 1);
    CHECK_UINT(own.followers[0].rev, 3);
    end();
}
