/* HTTP/2 with memory that runs out: at each allocation once, a conversation fails in order or goes
 * on, and everything is given back. */
#include "net/proto/h2.h"
#include "tests/unit/net/h2_ends.h"
#include "tests/support/memory.h"

static struct end client, server;

/* The n-th allocation fails, or it and all behind it. */
static unsigned asked, failing;
static bool for_ever;

static void *failing_realloc(void *ptr, size_t old_len, size_t new_len, void *arg)
{
    if (new_len > 0 && (++asked == failing || (for_ever && asked > failing)))
        return NULL;
    return test_memory_realloc(ptr, old_len, new_len);
}

static void drain_end(struct end *end)
{
    if (!end->h2)
        return;
    int over = bm_h2_over(end->h2);
    if (over < 0)
        CHECK_INT(over, -ENOMEM);
    bm_h2_lost(end->h2, BM_H2_CANCEL);
    CHECK_UINT(bm_h2_streams(end->h2), 0);
    end_close(end);
}

static void raise_and_answer(struct bm_h2_stream *stream, struct end *end)
{
    static struct says answers[8];
    struct says *answer = &answers[end->requests % BM_ARRAY_LEN(answers)];
    *answer = (struct says){.left = 100000};
    bm_h2_stream_set_arg(stream, answer);
    bm_h2_stream_window(stream, BM_H2_WINDOW_SESSION);
    bm_h2_inform(stream, 103, NULL, 0);
    const struct bm_field fields[] = {FIELD("content-type", "text/plain")};
    bm_h2_respond(stream, 200, fields, 1, says_read);
}

/* All that the engine allocates for; how far it comes depends on the memory there is. */
static void converse(void)
{
    struct says question = {.left = 300000};
    struct bm_h2_stream *stream;
    memset(&client, 0, sizeof(client));
    memset(&server, 0, sizeof(server));
    client.consumes = server.consumes = true;
    client.quiet = server.quiet = true;
    server.on_request = raise_and_answer;
    if (end_open_with(&client, (struct bm_h2_options){.server = false}) < 0 ||
        end_open_with(&server, (struct bm_h2_options){.server = true}) < 0)
        return;
    for (unsigned i = 0; i < 3; i++) {
        if (end_request(&client, "POST", "/path", i == 1 ? &question : NULL, &stream) < 0)
            continue;
        bm_h2_stream_window(stream, BM_H2_WINDOW_SESSION);
        if (i == 2)
            bm_h2_stream_reset(stream, BM_H2_CANCEL);
    }
    bm_h2_ping(client.h2, 1);
    ends_talk(&client, &server);
    bm_h2_drain(server.h2);
    ends_talk(&client, &server);
}

static void sweep(bool persistent)
{
    for_ever = persistent;
    for (failing = 1;; failing++) {
        test_note("allocation %u%s", failing, persistent ? " and all behind it" : "");
        asked = 0;
        bm_alloc_set(&(struct bm_allocator){.realloc = failing_realloc});
        converse();
        bool all = asked < failing;
        if (all) {
            CHECK_INT(bm_h2_over(client.h2), 1);
            CHECK_INT(bm_h2_over(server.h2), 1);
            CHECK_UINT(server.requests, 2);
            CHECK_UINT(client.data_len, 200000);
            CHECK_UINT(server.data_len, 300000);
            CHECK(failing > 50);
        }
        drain_end(&client);
        drain_end(&server);
        bm_alloc_set(NULL);
        if (all)
            break;
    }
}

TEST(h2_memory_may_be_missing_once_anywhere)
{
    sweep(false);
}

TEST(h2_memory_may_be_missing_from_anywhere_on)
{
    sweep(true);
}

TEST(h2_limit_of_an_account_ends_the_connection)
{
    struct bm_h2_stream *stream;
    memset(&client, 0, sizeof(client));
    memset(&server, 0, sizeof(server));
    ends_open(&client, &server);
    REQUIRE_INT(end_request(&client, "GET", "/", NULL, &stream), 0);
    ends_talk(&client, &server);
    end_said(&server);
    client.now_ns += BM_H2_OUTPUT_KEPT_NS;
    REQUIRE_INT(bm_h2_tick(client.h2, client.now_ns), 0); /* nothing is kept */
    client.account.limit = 1;
    CHECK_INT(end_request(&client, "GET", "/", NULL, &stream), -ENOMEM); /* the stream itself */
    CHECK_INT(bm_h2_over(client.h2), 0);
    CHECK_INT(bm_h2_ping(client.h2, 1), -ENOMEM); /* in nghttp2 */
    CHECK_INT(bm_h2_over(client.h2), -ENOMEM);
    CHECK(bm_h2_output_more(client.h2));
    CHECK_INT(end_request(&client, "GET", "/", NULL, &stream), -ESHUTDOWN);
    CHECK_UINT(client.closes, 0); /* not inside a call that begins something */
    client.account.limit = 0;
    CHECK_STR(end_frames(&client), "GOAWAY 0 2; ");
    CHECK_UINT(client.closes, 1);
    CHECK_UINT(client.close_code, BM_H2_INTERNAL_ERROR);
    CHECK(!bm_h2_output_more(client.h2));
    CHECK_INT(bm_h2_tick(client.h2, client.now_ns), -ENOMEM);
    ends_close(&client, &server);
}
