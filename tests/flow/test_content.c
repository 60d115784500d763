/* What a message holds: metadata of every type, bodies of every length up to the limits of both ends,
 * and that it arrives as it left. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/flow.h"

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *kept = beam_message_keep(message);
    beam_reply(request, &kept);
}

/* --- metadata -------------------------------------------------------------------------------- */

static const uint8_t bytes[] = {0, 1, 0xff, 0};

static void put_one_of_each(beam_message *m)
{
    beam_message_put_str(m, "str", "gr\xc3\xbc\xc3\x9f");
    beam_message_put_strn(m, "strn", "abcdef", 3);
    beam_message_put_nil(m, "nil");
    beam_message_put_bool(m, "yes", true);
    beam_message_put_bool(m, "no", false);
    beam_message_put_int(m, "least", INT64_MIN);
    beam_message_put_uint(m, "most", UINT64_MAX);
    beam_message_put_float(m, "float", 0.5);
    beam_message_put_float(m, "whole", 3.0);
    beam_message_put_bytes(m, "bytes", bytes, sizeof(bytes));
    beam_message_putf(m, "format", "%d-%s", 7, "x");
}

static void check_one_of_each(const beam_message *m)
{
    beam_str str;
    int64_t i = 0;
    double d = 0;
    bool b = false;
    struct beam_kv_value value;
    CHECK_INT(beam_message_get_str(m, "str", &str), 0);
    CHECK_MEM(str.ptr, str.len, "gr\xc3\xbc\xc3\x9f", 6);
    CHECK_INT(beam_message_get_str(m, "strn", &str), 0);
    CHECK_MEM(str.ptr, str.len, "abc", 3);
    CHECK_INT(beam_message_get_str(m, "format", &str), 0);
    CHECK_MEM(str.ptr, str.len, "7-x", 3);
    CHECK_INT(beam_message_get(m, "nil", &value), 0);
    CHECK_INT(value.type, BEAM_KV_NIL);
    CHECK_INT(beam_message_get_bool(m, "yes", &b), 0);
    CHECK(b);
    CHECK_INT(beam_message_get_bool(m, "no", &b), 0);
    CHECK(!b);
    CHECK_INT(beam_message_get_int(m, "least", &i), 0);
    CHECK_INT(i, INT64_MIN);
    CHECK_INT(beam_message_get(m, "most", &value), 0);
    CHECK_INT(beam_message_get_int(m, "most", &i), -ERANGE);
    CHECK_INT(beam_message_get_float(m, "float", &d), 0);
    CHECK(d == 0.5);
    CHECK_INT(beam_message_get_int(m, "float", &i), -ERANGE);
    CHECK_INT(beam_message_get_int(m, "whole", &i), 0);
    CHECK_INT(i, 3);
    CHECK_INT(beam_message_get(m, "bytes", &value), 0);
    CHECK_INT(value.type, BEAM_KV_BYTES);
    CHECK_INT(beam_message_get_str(m, "missing", &str), -ENOENT);
    CHECK_INT(beam_message_get_str(m, "yes", &str), -EINVAL);
}

FLOW_TEST(metadata_of_every_type_arrives)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    beam_message *question = beam_message_new();
    put_one_of_each(question);
    beam_message_set_codec(question, BEAM_CODEC_APPLICATION + 7);
    struct flow_answer answer = flow_ask("echo", question);
    REQUIRE_INT(answer.code, BEAM_OK);
    REQUIRE(answer.message != NULL);
    check_one_of_each(answer.message);
    CHECK_UINT(beam_message_codec(answer.message), BEAM_CODEC_APPLICATION + 7);

    /* And a value may be passed on as it was read, whole maps included. */
    size_t len;
    const void *document = beam_message_metadata(answer.message, &len);
    struct beam_kv_value map;
    REQUIRE_INT(beam_kv_root(document, len, &map), 0);
    question = beam_message_new();
    beam_message_put(question, (beam_str){"all", 3}, &map);
    struct flow_answer second = flow_ask("echo", question);
    REQUIRE_INT(second.code, BEAM_OK);
    struct beam_kv_value all;
    int64_t least = 0;
    CHECK_INT(beam_message_get(second.message, "all", &all), 0);
    CHECK_INT(beam_kv_get_int(&all, "least", &least), 0);
    CHECK_INT(least, INT64_MIN);
    flow_answer_clear(&second);
    flow_answer_clear(&answer);
}

static beam_message *message_with_keys(unsigned count)
{
    beam_message *m = beam_message_new();
    for (unsigned i = 0; i < count; i++) {
        char key[16];
        /* Not in order of the alphabet, which is the document's. */
        snprintf(key, sizeof(key), "key%u", (i * 37) % 97);
        beam_message_put_uint(m, key, i);
    }
    return m;
}

/* The sticky error comes out of every call that sends. */
static void check_refused(beam_message *m, int error)
{
    struct flow_answer answer = {0};
    beam_channel *channel = NULL;
    CHECK_INT(beam_call(flow.session, "echo", &m, flow_on_reply, &answer, NULL), error);
    CHECK_INT(beam_send_event(flow.session, "echo", &m), error);
    CHECK_INT(beam_open(flow.session, "echo", &m, NULL, NULL, NULL, &channel), error);
    CHECK(m != NULL);
    CHECK_INT(beam_message_error(m), error);
    beam_message_free(m);
}

FLOW_TEST(sixty_four_keys_travel_and_one_more_is_too_many)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("echo", message_with_keys(64));
    REQUIRE_INT(answer.code, BEAM_OK);
    for (unsigned i = 0; i < 64; i++) {
        char key[16];
        int64_t value = -1;
        snprintf(key, sizeof(key), "key%u", (i * 37) % 97);
        test_note("%s", key);
        REQUIRE(answer.message != NULL);
        CHECK_INT(beam_message_get_int(answer.message, key, &value), 0);
        CHECK_INT(value, i);
    }
    flow_answer_clear(&answer);
    check_refused(message_with_keys(65), -EMSGSIZE);
}

/* A map header of 8, an entry header of 8, the value and the key "k" together padded to 8. */
static beam_message *message_with_metadata(size_t value_len)
{
    beam_message *m = beam_message_new();
    char *value = malloc(value_len);
    memset(value, 'v', value_len);
    beam_message_put_strn(m, "k", value, value_len);
    free(value);
    return m;
}

FLOW_TEST(metadata_travels_up_to_its_limit)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    for (size_t value_len = BEAM_METADATA_LEN_MAX - 40; value_len <= BEAM_METADATA_LEN_MAX;
         value_len++) {
        beam_message *m = message_with_metadata(value_len);
        size_t len = 0;
        test_note("value of %zu bytes", value_len);
        if (value_len + 1 + 16 > BEAM_METADATA_LEN_MAX) {
            check_refused(m, -EMSGSIZE);
            continue;
        }
        beam_message_metadata(m, &len);
        CHECK(len <= BEAM_METADATA_LEN_MAX);
        struct flow_answer answer = flow_ask("echo", m);
        beam_str value;
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        CHECK_INT(beam_message_get_str(answer.message, "k", &value), 0);
        CHECK_UINT(value.len, value_len);
        flow_answer_clear(&answer);
    }
}

FLOW_TEST(a_key_twice_and_puts_after_sealing_stick)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    beam_message *m = beam_message_new();
    beam_message_put_int(m, "a", 1);
    beam_message_put_int(m, "b", 1);
    beam_message_put_str(m, "a", "again");
    check_refused(m, -EEXIST);

    m = beam_message_new();
    beam_message_put_int(m, "a", 1);
    int64_t a = 0;
    CHECK_INT(beam_message_get_int(m, "a", &a), 0);
    CHECK_INT(a, 1);
    beam_message_put_int(m, "b", 1);
    check_refused(m, -EINVAL);

    m = beam_message_new();
    beam_message_put_str(m, "bad", "\xc3");
    check_refused(m, -BEAM_EKV_UTF8);
}

/* --- bodies ---------------------------------------------------------------------------------- */

static const size_t body_lens[] = {
    0,     1,     7,     8,     9,     39,     40,     41,     48,     191,    192,
    193,   255,   256,   257,   4095,  4096,   4097,   16384,  32768,  65000,  65400,
    65472, 65480, 65488, 65495, 65496, 65497,  65503,  65504,  65505,  65512,  65519,
    65520, 65521, 65535, 65536, 65537, 131000, 131008, 131009, 131072, 200000, 1 << 20,
};

FLOW_TEST(bodies_of_every_length_arrive_and_return)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    for (unsigned i = 0; i < sizeof(body_lens) / sizeof(body_lens[0]); i++)
        for (unsigned keys = 0; keys < 2; keys++) {
            test_note("body of %zu bytes, %u keys", body_lens[i], keys);
            beam_message *m = flow_message_of(body_lens[i], i);
            if (keys)
                beam_message_put_str(m, "key", "value");
            struct flow_answer answer = flow_ask("echo", m);
            REQUIRE_INT(answer.code, BEAM_OK);
            flow_body_is_right(answer.message, body_lens[i], i);
            beam_str value;
            if (answer.message)
                CHECK_INT(beam_message_get_str(answer.message, "key", &value), keys ? 0 : -ENOENT);
            flow_answer_clear(&answer);
        }
}

FLOW_TEST(body_with_most_metadata_arrives)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    for (size_t len = 49000; len < 49200; len += 9) {
        beam_message *m = flow_message_of(len, 5);
        char value[16000];
        memset(value, 'v', sizeof(value));
        beam_message_put_strn(m, "k", value, sizeof(value));
        test_note("body of %zu bytes", len);
        struct flow_answer answer = flow_ask("echo", m);
        REQUIRE_INT(answer.code, BEAM_OK);
        CHECK(flow_body_is_right(answer.message, len, 5));
        flow_answer_clear(&answer);
    }
}

FLOW_TEST(body_of_sixteen_mebibytes_arrives_and_returns)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("echo", flow_message_of((size_t)16 << 20, 3));
    CHECK_INT(answer.code, BEAM_OK);
    CHECK_STR(answer.text, "");
    CHECK(flow_body_is_right(answer.message, (size_t)16 << 20, 3));
    flow_answer_clear(&answer);
}

FLOW_TEST(message_over_the_limit_of_the_peer_is_refused_by_the_sender)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(&(struct flow_options){.server = {.message_len_max = 100000}});
    struct flow_answer answer = {0};
    beam_message *m = flow_message_of(100001, 0);
    CHECK_INT(beam_call(flow.session, "echo", &m, flow_on_reply, &answer, NULL), -EMSGSIZE);
    CHECK(m != NULL);
    beam_message_free(m);
    answer = flow_ask("echo", flow_message_of(100000, 1));
    CHECK_INT(answer.code, BEAM_OK);
    CHECK(flow_body_is_right(answer.message, 100000, 1));
    flow_answer_clear(&answer);
}

static void on_make(beam_request *request, const beam_message *message, void *arg)
{
    int64_t len = 0;
    CHECK_INT(beam_message_get_int(message, "len", &len), 0);
    beam_message *answer = flow_message_of((size_t)len, 9);
    beam_reply(request, &answer);
    CHECK_PTR(answer, NULL);
}

static struct flow_answer ask_for(size_t len)
{
    beam_message *m = beam_message_new();
    beam_message_put_uint(m, "len", len);
    return flow_ask("make", m);
}

FLOW_TEST(answer_over_the_limit_of_the_caller_becomes_an_error)
{
    flow_serve("make", on_make, NULL);
    flow_start(&(struct flow_options){.client = {.message_len_max = 50000},
                                      .server = {.message_len_max = 50000}});
    struct flow_answer answer = ask_for(50001);
    CHECK_INT(answer.code, BEAM_RESOURCE_EXHAUSTED);
    CHECK(answer.text[0] != '\0');
    flow_answer_clear(&answer);
    answer = ask_for(50000);
    CHECK_INT(answer.code, BEAM_OK);
    CHECK(flow_body_is_right(answer.message, 50000, 9));
    flow_answer_clear(&answer);
}

static void on_broken_answer(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    beam_message_put_int(answer, "a", 1);
    beam_message_put_int(answer, "a", 1);
    beam_reply(request, &answer);
    CHECK_PTR(answer, NULL);
}

FLOW_TEST(answer_with_a_sticky_error_becomes_an_error)
{
    flow_serve("broken", on_broken_answer, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("broken", NULL);
    CHECK_INT(answer.code, BEAM_INTERNAL);
    CHECK_STR(answer.text, beam_strerror(-EEXIST));
    flow_answer_clear(&answer);
}

/* --- large among small ----------------------------------------------------------------------- */

#define LARGE 6

/* In the order of arrival, on the server: which message it was. */
struct order {
    _Atomic unsigned count;
    _Atomic unsigned large_done, small_done, small_before_last_large;
};

static void on_count(beam_request *request, const beam_message *message, void *arg)
{
    struct order *order = arg;
    size_t len;
    beam_message_body(message, &len);
    if (len > 65536) {
        order->large_done++;
    } else {
        order->small_done++;
        if (order->large_done < LARGE)
            order->small_before_last_large++;
    }
    beam_reply(request, NULL);
}

FLOW_TEST_UNIX(small_messages_overtake_large_ones)
{
    struct order *order = flow_share(sizeof(*order));
    flow_serve("count", on_count, order);
    flow_start(&(struct flow_options){.client = {.queue_len_max = 64u << 20}});
    struct flow_answer answers[LARGE + 20] = {0};
    const size_t len = (size_t)3 << 20;
    for (unsigned i = 0; i < LARGE; i++) {
        beam_message *m = flow_message_of(len, i);
        REQUIRE_INT(beam_call(flow.session, "count", &m, flow_on_reply, &answers[i], NULL), 0);
    }
    for (unsigned i = LARGE; i < LARGE + 20; i++) {
        beam_message *m = flow_message_of(100, i);
        REQUIRE_INT(beam_call(flow.session, "count", &m, flow_on_reply, &answers[i], NULL), 0);
    }
    for (unsigned i = 0; i < LARGE + 20; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_OK);
        flow_answer_clear(&answers[i]);
    }
    CHECK_UINT(order->large_done, LARGE);
    CHECK_UINT(order->small_done, 20);
    CHECK_UINT(order->small_before_last_large, 20);
}

/* A receiver that holds two whole messages refuses nothing: never are more than two begun, and each is
 * done with before a third begins. */
FLOW_TEST_UNIX(two_large_messages_at_most_are_under_way)
{
    flow_serve("echo", on_echo, NULL);
    const uint32_t len = 1u << 20;
    struct beam_limits two = {
        .message_len_max = len, .large_len_max = 2 * len, .queue_len_max = 64u << 20};
    flow_start(&(struct flow_options){.client = {.queue_len_max = 64u << 20}, .server = two});
    struct flow_answer answers[8] = {0};
    for (unsigned i = 0; i < 8; i++) {
        beam_message *m = flow_message_of(len, i);
        REQUIRE_INT(beam_call(flow.session, "flow.nobody", &m, flow_on_reply, &answers[i], NULL),
                    0);
    }
    for (unsigned i = 0; i < 8; i++) {
        test_note("message %u", i);
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_NOT_FOUND);
        flow_answer_clear(&answers[i]);
    }
}

static void on_drop(beam_request *request, const beam_message *message, void *arg)
{
    _Atomic unsigned *dropped = arg;
    dropped[0]++;
    beam_reply(request, NULL);
}

FLOW_TEST_UNIX(large_messages_within_the_budget_are_all_taken)
{
    _Atomic unsigned *dropped = flow_share(sizeof(*dropped));
    flow_serve("drop", on_drop, dropped);
    const uint32_t len = 1u << 20;
    struct beam_limits two = {.message_len_max = len, .large_len_max = 2 * len};
    flow_start(&(struct flow_options){.client = {.queue_len_max = 64u << 20}, .server = two});
    struct flow_answer answers[8] = {0};
    for (unsigned i = 0; i < 8; i++) {
        beam_message *m = flow_message_of(len, i);
        REQUIRE_INT(beam_call(flow.session, "drop", &m, flow_on_reply, &answers[i], NULL), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        test_note("message %u", i);
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_OK);
        CHECK_STR(answers[i].text, "");
        flow_answer_clear(&answers[i]);
    }
    CHECK_UINT(*dropped, 8);
}

static beam_request *hoard_requests[8];
static beam_message *hoard_messages[8];
static unsigned hoard_count;

static void on_hoard(beam_request *request, const beam_message *message, void *arg)
{
    _Atomic unsigned *count = arg;
    beam_request_keep(request);
    hoard_requests[hoard_count] = request;
    hoard_messages[hoard_count++] = beam_message_keep(message);
    (*count)++;
}

static void free_hoard(beam_request *request, void *arg)
{
    for (unsigned i = 0; i < hoard_count; i++) {
        CHECK(flow_body_is_right(hoard_messages[i], 1u << 20, i));
        beam_message_free(hoard_messages[i]);
        beam_reply(hoard_requests[i], NULL);
    }
    hoard_count = 0;
}

FLOW_TEST_UNIX(large_message_beyond_the_budget_is_refused_and_the_next_fits_again)
{
    _Atomic unsigned *count = flow_share(sizeof(*count));
    const uint32_t len = 1u << 20;
    hoard_count = 0;
    flow_serve("hoard", on_hoard, count);
    flow_serve("drop", on_drop, flow_share(sizeof(unsigned)));
    flow_start(
        &(struct flow_options){.server = {.message_len_max = len, .large_len_max = 2 * len}});
    struct flow_answer answers[2] = {0};
    for (unsigned i = 0; i < 2; i++) {
        beam_message *m = flow_message_of(len, i);
        REQUIRE_INT(beam_call(flow.session, "hoard", &m, flow_on_reply, &answers[i], NULL), 0);
        FLOW_WAIT(*count == i + 1);
    }
    struct flow_answer refused = flow_ask("drop", flow_message_of(len, 2));
    CHECK_INT(refused.code, BEAM_RESOURCE_EXHAUSTED);
    flow_answer_clear(&refused);
    /* What fits a frame needs no budget. */
    struct flow_answer small = flow_ask("drop", flow_message_of(1000, 2));
    CHECK_INT(small.code, BEAM_OK);
    flow_answer_clear(&small);

    flow_at_server(free_hoard, NULL);
    FLOW_WAIT(answers[0].count == 1 && answers[1].count == 1);
    struct flow_answer taken = flow_ask("drop", flow_message_of(len, 3));
    CHECK_INT(taken.code, BEAM_OK);
    flow_answer_clear(&taken);
}

FLOW_TEST_UNIX(large_answers_kept_past_their_request_give_the_budget_back)
{
    const uint32_t len = 1u << 20;
    flow_serve("make", on_make, NULL);
    flow_start(
        &(struct flow_options){.client = {.message_len_max = len, .large_len_max = 2 * len}});
    struct flow_answer a = ask_for(len), b = ask_for(len);
    CHECK_INT(a.code, BEAM_OK);
    CHECK_INT(b.code, BEAM_OK);
    struct flow_answer refused = ask_for(len);
    CHECK_INT(refused.code, BEAM_RESOURCE_EXHAUSTED);
    flow_answer_clear(&refused);
    flow_answer_clear(&a);
    flow_answer_clear(&b);
    for (unsigned i = 0; i < 10; i++) {
        a = ask_for(len);
        CHECK_INT(a.code, BEAM_OK);
        CHECK(flow_body_is_right(a.message, len, 9));
        flow_answer_clear(&a);
    }
}
