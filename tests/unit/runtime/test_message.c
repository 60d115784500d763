/* A message from its making to its end: its body, who owns it, and what memory it takes with it. */
#define _GNU_SOURCE
#include "runtime/message.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "tests/unit/runtime/on_core.h"
#include "tests/unit/runtime/scarce.h"

static uint8_t bytes[200000];

static void fill_bytes(void)
{
    struct test_random random = test_random(7);
    test_random_fill(&random, bytes, sizeof(bytes));
}

static void check_body(const beam_message *message, const void *expected, size_t expected_len)
{
    size_t len = 77;
    const void *body = beam_message_body(message, &len);
    CHECK_UINT(len, expected_len);
    CHECK_PTR(beam_message_body(message, NULL), body);
    if (expected_len == 0)
        CHECK_PTR(body, NULL);
    else
        CHECK_MEM(body, len, expected, expected_len);
}

static void new_and_empty(void)
{
    size_t len = 77;
    struct beam_kv_value value;
    beam_message *message = beam_message_new();
    CHECK_PTR(message->home, bm_core_current());
    CHECK_INT(beam_message_error(message), 0);
    CHECK_UINT(beam_message_codec(message), BEAM_CODEC_KV);
    check_body(message, NULL, 0);
    CHECK_PTR(beam_message_metadata(message, &len), NULL);
    CHECK_UINT(len, 0);
    CHECK_INT(beam_message_get(message, "key", &value), -ENOENT);
    CHECK_UINT(beam_message_fd_count(message), 0);
    CHECK_UINT(beam_message_channel_count(message), 0);
    CHECK_INT(bm_message_seal(message), 0);
    CHECK_INT(bm_message_cost(message), 64);
    beam_message_set_codec(message, BEAM_CODEC_APPLICATION + 5);
    CHECK_UINT(beam_message_codec(message), 65541);
    CHECK_PTR(beam_message_free(message), NULL);
}

TEST(message_is_new_and_empty)
{
    off_and_on_a_core(new_and_empty);
}

TEST(message_free_accepts_null)
{
    CHECK_PTR(beam_message_free(NULL), NULL);
    beam_message *message = NULL;
    beam_message_freep(&message);
    message = beam_message_new();
    beam_message_freep(&message);
    CHECK_PTR(message, NULL);
}

static void bodies_of_every_length(void)
{
    static const size_t lens[] = {0,   1,   63,   64,   65,    191,   192,   193,
                                  256, 257, 1000, 4096, 65535, 65536, 65537, 200000};
    fill_bytes();
    for (size_t i = 0; i < BM_ARRAY_LEN(lens); i++) {
        beam_message *message = beam_message_new();
        beam_message_set_body(message, bytes, lens[i]);
        check_body(message, bytes, lens[i]);
        CHECK(((message->flags & BM_MESSAGE_BODY_BLOCK) != 0) ==
              (lens[i] > BM_MESSAGE_BODY_INLINE));
        CHECK_INT(bm_message_cost(message), 64 + (int64_t)lens[i]);
        beam_message_free(message);

        message = beam_message_new();
        uint8_t *room = beam_message_reserve_body(message, lens[i]);
        REQUIRE(room != NULL);
        memcpy(room, bytes, lens[i]);
        check_body(message, bytes, lens[i]);
        CHECK_INT(beam_message_error(message), 0);
        beam_message_free(message);
    }
}

TEST(message_body_of_every_length_lies_in_the_message_or_in_a_block)
{
    off_and_on_a_core(bodies_of_every_length);
}

static void replaced_bodies(void)
{
    /* Each length after each other one; the last set is what counts. */
    static const size_t lens[] = {0, 10, 192, 193, 500, 5000, 100000};
    size_t n = BM_ARRAY_LEN(lens);
    fill_bytes();
    for (size_t i = 0; i < n * n * n; i++) {
        beam_message *message = beam_message_new();
        beam_message_set_body(message, bytes, lens[i % n]);
        beam_message_set_body(message, bytes + 1, lens[i / n % n]);
        beam_message_set_body(message, bytes + 2, lens[i / n / n]);
        check_body(message, bytes + 2, lens[i / n / n]);
        beam_message_free(message);
    }
}

TEST(message_body_set_again_replaces_the_one_before)
{
    off_and_on_a_core(replaced_bodies);
}

TEST(message_body_block_is_used_again_while_it_is_large_enough)
{
    beam_message *message = beam_message_new();
    void *block = beam_message_reserve_body(message, 4000);
    struct bm_alloc_totals totals = bm_alloc_totals();
    CHECK_PTR(beam_message_reserve_body(message, 193), block);
    CHECK_PTR(beam_message_reserve_body(message, 4096), block);
    CHECK(beam_message_reserve_body(message, 192) != block);
    CHECK_PTR(beam_message_reserve_body(message, 4096), block);
    CHECK_UINT(bm_alloc_totals().allocs, totals.allocs);
    CHECK(beam_message_reserve_body(message, 4097) != NULL);
    CHECK_UINT(bm_alloc_totals().live_blocks, totals.live_blocks); /* the old one went */
    beam_message_free(message);
}

TEST(message_body_that_no_frame_can_announce_sticks_as_an_error)
{
    beam_message *message = beam_message_new();
    beam_message_set_body(message, "abc", 3);
    CHECK_PTR(beam_message_reserve_body(message, (size_t)INT32_MAX + 1), NULL);
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    CHECK_INT(bm_message_seal(message), -EMSGSIZE);
    beam_message_set_body(message, "d", 1);
    CHECK_PTR(beam_message_reserve_body(message, SIZE_MAX), NULL);
    check_body(message, "abc", 3);
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    beam_message_free(message);
}

TEST(message_body_without_memory_sticks_and_leaves_the_one_before)
{
    beam_message *message = beam_message_new();
    beam_message_set_body(message, "abc", 3);
    scarce_begin(0);
    beam_message_set_body(message, bytes, 193);
    CHECK_INT(beam_message_error(message), -ENOMEM);
    beam_message_set_body(message, "d", 1); /* too late: one that cannot be sent anyway */
    scarce_end();
    check_body(message, "abc", 3);
    beam_message_free(message);
}

TEST(message_first_error_sticks)
{
    beam_message *message = beam_message_new();
    bm_message_fail(message, -EINVAL);
    bm_message_fail(message, -ENOMEM);
    beam_message_put_int(message, NULL, 1);
    CHECK_INT(beam_message_error(message), -EINVAL);
    CHECK_INT(bm_message_seal(message), -EINVAL);
    beam_message_free(message);
}

/* --- without memory -------------------------------------------------------------------------- */

static void build_on_nothing(void)
{
    struct given given = given_new();
    size_t len = 77;
    struct beam_kv_value value;
    scarce_begin(0);
    beam_message *message = beam_message_new();
    scarce_end();
    REQUIRE(message != NULL);
    CHECK(message->flags & BM_MESSAGE_STATIC);
    CHECK_INT(beam_message_error(message), -ENOMEM);

    /* With memory again: it still takes nothing. */
    beam_message_put_int(message, "key", 1);
    beam_message_put_int(message, NULL, 1);
    beam_message_putf(message, "key", "%d", 1);
    beam_message_set_body(message, "abc", 3);
    CHECK_PTR(beam_message_reserve_body(message, 3), NULL);
    beam_message_set_codec(message, 5);
    beam_message_attach_fd(message, &given.fd);
    CHECK_INT(given.fd, -1);
    given_await(&given);
    CHECK_PTR(beam_message_attach_channel(message), NULL);
    CHECK_PTR(beam_message_attach_stream(message), NULL);

    CHECK_INT(beam_message_error(message), -ENOMEM);
    CHECK_INT(bm_message_seal(message), -ENOMEM);
    CHECK_UINT(beam_message_codec(message), 0);
    check_body(message, NULL, 0);
    CHECK_PTR(beam_message_metadata(message, &len), NULL);
    CHECK_INT(beam_message_get(message, "key", &value), -ENOENT);
    CHECK_UINT(beam_message_fd_count(message), 0);
    CHECK_UINT(beam_message_channel_count(message), 0);
    CHECK_PTR(beam_message_keep(message), message);
    CHECK_PTR(beam_message_free(message), NULL);
    CHECK_PTR(beam_message_free(message), NULL);
}

TEST(message_that_found_no_memory_is_one_that_carries_enomem_and_nothing_else)
{
    build_on_nothing();
    core_begin();
    /* What the pool keeps would serve: take it away. */
    bm_pool_deinit(&bm_core_current()->pool);
    build_on_nothing();
    core_end();
}

static void *read_nothing(void *arg)
{
    beam_message *message = arg;
    for (int i = 0; i < 1000; i++) {
        beam_message_put_int(message, "key", i);
        beam_message_set_body(message, "abc", 3);
        beam_message_set_codec(message, (uint32_t)i);
        CHECK_INT(beam_message_error(message), -ENOMEM);
        beam_message_free(message);
    }
    return NULL;
}

TEST(message_that_found_no_memory_may_be_everybodys_at_once)
{
    pthread_t thread;
    scarce_begin(0);
    beam_message *message = beam_message_new();
    CHECK_PTR(beam_message_new(), message);
    scarce_end();
    REQUIRE_INT(pthread_create(&thread, NULL, read_nothing, message), 0);
    read_nothing(message);
    pthread_join(thread, NULL);
}

static void build_with(int left)
{
    struct given given = given_new();
    scarce_begin(left);
    beam_message *message = beam_message_new();
    for (int i = 0; i < 40; i++) {
        char key[8];
        snprintf(key, sizeof(key), "key %d", i);
        beam_message_put_strn(message, key, (const char *)"0123456789abcdefghijklmnopqrst", 30);
    }
    beam_message_putf(message, "long", "%2000d", 1);
    beam_message_set_body(message, bytes, 500);
    beam_message_set_body(message, bytes, 100000);
    beam_message_attach_fd(message, &given.fd);
    int r = bm_message_seal(message);
    CHECK(r == 0 || r == -ENOMEM);
    CHECK_INT(beam_message_error(message), r);
    CHECK_INT(given.fd, -1);
    if (r == 0) {
        check_body(message, bytes, 100000);
        CHECK_UINT(beam_message_fd_count(message), 1);
    }
    beam_message_free(message);
    scarce_end();
    given_await(&given);
}

TEST(message_survives_every_failing_allocation)
{
    int left = 0;
    fill_bytes();
    for (; left < 100; left++) {
        test_note("%d allocations succeed", left);
        build_with(left);
        if (scarce_left > 0)
            break;
    }
    CHECK(left >= 6);
    CHECK(left < 100);
    core_begin();
    for (left = 0; left < 100; left++) {
        test_note("on a reactor, %d allocations succeed", left);
        bm_pool_deinit(&bm_core_current()->pool);
        build_with(left);
        if (scarce_left > 0)
            break;
    }
    CHECK(left >= 6);
    CHECK(left < 100);
    core_end();
}

/* --- borrowing and keeping ------------------------------------------------------------------- */

TEST(message_that_is_nobodys_loan_is_kept_as_it_is)
{
    beam_message *message = beam_message_new();
    beam_message_set_body(message, "abc", 3);
    CHECK_PTR(beam_message_keep(message), message);
    CHECK_PTR(beam_message_keep(message), message);
    check_body(message, "abc", 3);
    beam_message_free(message);
}

TEST(message_lent_and_kept_is_the_borrowers_and_the_lender_is_told)
{
    bool kept = true;
    beam_message *message = beam_message_new();
    beam_message_set_body(message, bytes, 300);
    bm_message_lend(message, &kept);
    CHECK(!kept);
    CHECK_PTR(beam_message_keep(message), message);
    CHECK(kept);
    kept = false;
    CHECK_PTR(beam_message_keep(message),
              message); /* its own now: the lender's word is not touched */
    CHECK(!kept);
    CHECK_PTR(message->next, NULL);
    CHECK(!(message->flags & BM_MESSAGE_LENT));
    kept = true;
    bm_message_return(message, &kept); /* the lender keeps its hands off */
    check_body(message, bytes, 300);
    beam_message_free(message);
}

TEST(message_lent_and_kept_may_be_freed_before_the_lender_looks)
{
    bool kept;
    beam_message *message = beam_message_new();
    bm_message_lend(message, &kept);
    beam_message_free(beam_message_keep(message));
    bm_message_return(message, &kept); /* the sanitizer sees who touches it */
    CHECK(kept);
}

TEST(message_lent_and_not_kept_ends_with_the_loan)
{
    bool kept;
    struct given given = given_new();
    size_t blocks = bm_alloc_totals().live_blocks;
    beam_message *message = beam_message_new();
    beam_message_set_body(message, bytes, 1000);
    beam_message_attach_fd(message, &given.fd);
    bm_message_lend(message, &kept);
    bm_message_return(message, &kept);
    CHECK(!kept);
    CHECK_UINT(bm_alloc_totals().live_blocks, blocks);
    given_await(&given);
}

/* A view as the receive path makes one: over somebody's bytes, with a document and attachments. */
static uint8_t buffer[2000], document[1000];

static size_t document_of(size_t body_len)
{
    beam_kv_writer w;
    const void *doc;
    size_t len;
    static char text[BEAM_METADATA_LEN_MAX];
    memset(text, 'x', sizeof(text));
    beam_kv_writer_init(&w, document, sizeof(document));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_int(&w, "n", 5);
    beam_kv_put_strn(&w, "text", text, body_len);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    memmove(document, doc, len);
    return len;
}

static void view_of(beam_message *view, size_t body_len, size_t text_len, int *fd)
{
    fill_bytes();
    memcpy(buffer, bytes, body_len);
    bm_message_view_init(view, buffer, body_len);
    view->metadata_len = (uint32_t)document_of(text_len);
    view->metadata = document;
    view->codec = 70000;
    if (fd) {
        struct bm_attachments *att = bm_message_attachments(view);
        REQUIRE(att != NULL);
        att->fds[att->fd_count++] = bm_take_fd(fd);
    }
}

static void keep_views(void)
{
    static const size_t lens[] = {0, 1, 192, 193, 2000};
    static const size_t text_lens[] = {0, 80, 100, 900};
    for (size_t i = 0; i < BM_ARRAY_LEN(lens) * BM_ARRAY_LEN(text_lens); i++) {
        size_t len = lens[i % 5], text_len = text_lens[i / 5], view_len;
        struct given given = given_new();
        int64_t n = 0;
        beam_str text = {0};
        beam_message view;
        view_of(&view, len, text_len, &given.fd);
        beam_message *copy = beam_message_keep(&view);
        REQUIRE(copy != NULL);
        CHECK(copy != &view);
        CHECK(!(copy->flags & BM_MESSAGE_VIEW));
        CHECK_UINT(beam_message_fd_count(&view), 0); /* moved */
        beam_message_body(&view, &view_len);
        CHECK_UINT(view_len, len); /* what was borrowed stays readable until the callback returns */
        bm_message_done(&view);
        memset(buffer, 0xee, sizeof(buffer)); /* the kernel has its buffer again */
        memset(document, 0xee, sizeof(document));

        check_body(copy, bytes, len);
        CHECK_INT(beam_message_get_int(copy, "n", &n), 0);
        CHECK_INT(n, 5);
        CHECK_INT(beam_message_get_str(copy, "text", &text), 0);
        CHECK_UINT(text.len, text_len);
        CHECK_UINT(beam_message_codec(copy), 70000);
        CHECK_UINT(beam_message_fd_count(copy), 1);
        CHECK(!given_gone(&given));
        beam_message_put_int(copy, "m", 1);
        CHECK_INT(beam_message_error(copy), -EINVAL); /* sealed already */
        beam_message_free(copy);
        given_await(&given);
    }
}

TEST(message_kept_from_a_view_is_a_copy_with_what_was_attached)
{
    off_and_on_a_core(keep_views);
}

TEST(message_view_that_is_not_kept_closes_what_was_attached)
{
    struct given given = given_new();
    beam_message view;
    view_of(&view, 100, 10, &given.fd);
    bm_message_done(&view);
    CHECK_PTR(view.attachments, NULL);
    given_await(&given);
}

TEST(message_kept_from_a_view_without_memory_leaves_the_view_whole)
{
    int left = 0;
    for (; left < 10; left++) {
        struct given given = given_new();
        beam_message view;
        test_note("%d allocations succeed", left);
        view_of(&view, 2000, 900, &given.fd);
        scarce_begin(left);
        beam_message *copy = beam_message_keep(&view);
        scarce_end();
        if (!copy) {
            CHECK_UINT(beam_message_fd_count(&view), 1);
            CHECK(!given_gone(&given));
            check_body(&view, bytes, 2000);
        }
        bm_message_done(&view);
        beam_message_free(copy);
        given_await(&given);
        if (copy)
            break;
    }
    CHECK_INT(left, 3); /* the message, its body, its metadata */
}

TEST(message_view_takes_nothing_and_is_never_freed)
{
    struct given given = given_new();
    beam_message view;
    view_of(&view, 100, 10, NULL);
    beam_message_put_int(&view, "m", 1);
    beam_message_set_body(&view, "abc", 3);
    CHECK_PTR(beam_message_reserve_body(&view, 3), NULL);
    beam_message_set_codec(&view, 1);
    beam_message_attach_fd(&view, &given.fd);
    CHECK_INT(given.fd, -1);
    given_await(&given);
    CHECK_PTR(beam_message_free(&view), NULL);
    CHECK_INT(beam_message_error(&view), 0);
    check_body(&view, bytes, 100);
    CHECK_UINT(beam_message_codec(&view), 70000);
}

TEST(message_passed_on_keeps_the_fds_nobody_took_without_gaps)
{
    struct given given[4];
    beam_message *message = beam_message_new();
    for (int i = 0; i < 4; i++) {
        given[i] = given_new();
        beam_message_attach_fd(message, &given[i].fd);
    }
    int first = beam_message_take_fd(message, 0), third = beam_message_take_fd(message, 2);
    int second = beam_message_peek_fd(message, 1), fourth = beam_message_peek_fd(message, 3);
    message->attachments->received = true;
    CHECK_INT(bm_message_make_ours(message), 0);
    CHECK_UINT(beam_message_fd_count(message), 2);
    CHECK_INT(beam_message_peek_fd(message, 0), second);
    CHECK_INT(beam_message_peek_fd(message, 1), fourth);
    CHECK(!message->attachments->received);
    beam_message_free(message);
    close(first);
    close(third);
    for (int i = 0; i < 4; i++)
        given_await(&given[i]);
}

/* --- threads --------------------------------------------------------------------------------- */

static void *free_it(void *arg)
{
    CHECK_PTR(bm_core_current(), NULL);
    beam_message_free(arg);
    return NULL;
}

static void on_another_thread(void *(*fn)(void *arg), void *arg)
{
    pthread_t thread;
    REQUIRE_INT(pthread_create(&thread, NULL, fn, arg), 0);
    pthread_join(thread, NULL);
}

static beam_message *message_of_blocks(void)
{
    beam_message *message = beam_message_new();
    beam_message_set_body(message, bytes, 1000);
    for (int i = 0; i < 20; i++) {
        char key[8];
        snprintf(key, sizeof(key), "key %d", i);
        beam_message_put_int(message, key, i);
    }
    return message;
}

static unsigned free_blocks_of(const struct bm_pool *pool)
{
    unsigned n = 0;
    for (unsigned i = 0; i < BM_POOL_CLASSES; i++)
        n += pool->classes[i].free_count;
    return n;
}

TEST(message_of_a_reactor_is_freed_on_a_thread_without_one)
{
    struct given given = given_new();
    core_begin();
    beam_message *message = message_of_blocks();
    beam_message_attach_fd(message, &given.fd);
    unsigned before = free_blocks_of(&bm_core_current()->pool);
    size_t blocks = bm_alloc_totals().live_blocks;
    on_another_thread(free_it, message);
    CHECK_UINT(free_blocks_of(&bm_core_current()->pool), before); /* not its pool to touch */
    CHECK(bm_alloc_totals().live_blocks < blocks);
    CHECK(given_gone(&given)); /* closed there and then */
    close(given.read_fd);
    core_end();
}

TEST(message_of_no_reactor_is_freed_on_one)
{
    beam_message *message = message_of_blocks();
    CHECK_PTR(message->home, NULL);
    core_begin();
    beam_message_free(message);
    core_end();
}

TEST(message_outlives_its_reactor)
{
    core_begin();
    beam_message *message = message_of_blocks();
    core_end();
    check_body(message, bytes, 1000);
    on_another_thread(free_it, message);
}

static void *build_on(void *arg)
{
    beam_message *message = arg;
    char text[300];
    memset(text, 'x', sizeof(text));
    for (int i = 0; i < 2000; i++) {
        beam_message_set_body(message, bytes, 193 + (size_t)i * 50);
        if (i < BEAM_METADATA_KEYS_MAX - 20) {
            char key[16];
            snprintf(key, sizeof(key), "key %d", 100 + i);
            beam_message_put_strn(message, key, text, (size_t)i * 5);
        }
    }
    CHECK_INT(bm_message_seal(message), 0);
    return NULL;
}

TEST(message_of_a_reactor_is_built_on_elsewhere_without_its_pool)
{
    /* Kept there, finished here: the thread that owns the message is not the one that owns the pool. */
    pthread_t thread;
    fill_bytes();
    core_begin();
    beam_message *message = message_of_blocks();
    struct bm_pool *pool = &bm_core_current()->pool;
    REQUIRE_INT(pthread_create(&thread, NULL, build_on, message), 0);
    /* Meanwhile the owner of the pool goes about its business: a race, were it shared. */
    for (int i = 0; i < 2000; i++) {
        uint32_t cap;
        void *block = bm_pool_get(pool, 193 + (size_t)i * 50, &cap);
        bm_pool_put(pool, block, cap);
    }
    pthread_join(thread, NULL);
    beam_message_free(message);

    bm_pool_deinit(pool);
    message = beam_message_new();
    on_another_thread(build_on, message);
    CHECK_UINT(free_blocks_of(pool), 0);
    check_body(message, bytes, 193 + 1999 * 50);
    beam_message_free(message);
    core_end();
}

/* --- between reactors ------------------------------------------------------------------------ */

#define ROUNDS 2000u

static struct {
    beam_runtime *runtime;
    beam_session *session;
    unsigned round;
    uint64_t allocs; /* of reactor 0, after half of the rounds */
    _Atomic bool done;
} travel;

static void begin_round(void *arg);

static void end_round(void *arg)
{
    CHECK_INT(beam_reactor_current(), 1);
    beam_message_free(arg); /* its memory goes home, if there is a way */
    CHECK_INT(beam_post(travel.runtime, 0, begin_round, NULL), 0);
}

static void begin_round(void *arg)
{
    (void)arg;
    if (travel.round == ROUNDS / 2)
        travel.allocs = bm_alloc_count_thread();
    if (travel.round++ < ROUNDS) {
        CHECK_INT(beam_post(travel.runtime, 1, end_round, message_of_blocks()), 0);
        return;
    }
    if (travel.session) {
        /* Three blocks a message; a batch more may be on its way home than in the first half. */
        CHECK(bm_alloc_count_thread() - travel.allocs <= 3 * BM_RETURNS_BATCH);
        beam_session_free(travel.session);
    }
    travel.done = true;
}

static void connect_and_begin(void *arg)
{
    CHECK_INT(beam_connect(travel.runtime, "ring:1", NULL, &travel.session), 0);
    begin_round(arg);
}

static void travel_with(beam_post_fn *begin)
{
    travel.round = 0;
    travel.done = false;
    travel.session = NULL;
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2), &travel.runtime), 0);
    REQUIRE_INT(beam_start(travel.runtime), 0);
    CHECK_INT(beam_post(travel.runtime, 0, begin, NULL), 0);
    while (!travel.done)
        sched_yield();
    travel.runtime = beam_runtime_free(travel.runtime);
}

TEST(message_freed_on_another_reactor_goes_home_and_serves_again)
{
    travel_with(connect_and_begin);
}

TEST(message_freed_on_a_reactor_without_a_way_home_is_just_freed)
{
    travel_with(begin_round);
}
