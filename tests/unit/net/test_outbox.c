#include <errno.h>
#include <string.h>

#include "net/proto/outbox.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

static struct bm_account account;
static struct bm_outbox outbox;

static void begin(void)
{
    account = (struct bm_account){0};
    outbox = (struct bm_outbox){.account = &account};
}

static void end(void)
{
    bm_outbox_deinit(&outbox);
    CHECK_UINT(account.used, 0);
}

TEST(outbox_gives_what_it_got_in_order)
{
    struct test_random random = test_random(0);
    uint8_t in = 0, expected = 0, bytes[9000];
    size_t waiting = 0, len, room;
    begin();
    for (unsigned i = 0; i < 5000; i++) {
        size_t n = (size_t)test_random_below(&random, i % 7 == 0 ? sizeof(bytes) : 300);
        if (test_random_below(&random, 2)) {
            for (size_t j = 0; j < n; j++)
                bytes[j] = in++;
            if (i % 2) {
                CHECK_INT(bm_outbox_append(&outbox, bytes, n), 0);
            } else {
                uint8_t *to = bm_outbox_room(&outbox, n, 0, &room);
                REQUIRE(to && room >= n);
                memcpy(to, bytes, n);
                bm_outbox_commit(&outbox, n);
            }
            waiting += n;
        } else {
            const uint8_t *out = bm_outbox_output(&outbox, &len);
            CHECK_INT(out != NULL, waiting > 0);
            n = n < len ? n : len;
            for (size_t j = 0; j < n; j++)
                REQUIRE_INT(out[j], (uint8_t)(expected + j));
            expected = (uint8_t)(expected + n);
            bm_outbox_ack(&outbox, n);
            waiting -= n;
        }
        REQUIRE_UINT(outbox.len, waiting);
    }
    end();
}

TEST(outbox_does_not_move_what_it_has_lent)
{
    uint8_t bytes[3000];
    size_t len;
    memset(bytes, 'a', sizeof(bytes));
    begin();
    CHECK_INT(bm_outbox_append(&outbox, bytes, sizeof(bytes)), 0);
    const uint8_t *out = bm_outbox_output(&outbox, &len);
    CHECK_UINT(len, sizeof(bytes));
    memset(bytes, 'b', sizeof(bytes));
    for (unsigned i = 0; i < 20; i++)
        CHECK_INT(bm_outbox_append(&outbox, bytes, sizeof(bytes)), 0);
    memset(bytes, 'a', sizeof(bytes));
    CHECK_MEM(out, sizeof(bytes), bytes, sizeof(bytes));
    bm_outbox_ack(&outbox, 1000);
    const uint8_t *again = bm_outbox_output(&outbox, &len);
    CHECK_PTR(again, out + 1000);
    end();
}

TEST(outbox_that_is_emptied_each_time_allocates_once)
{
    uint8_t bytes[3000] = {0};
    size_t len;
    begin();
    for (unsigned i = 0; i < 100; i++) {
        CHECK_INT(bm_outbox_append(&outbox, bytes, sizeof(bytes)), 0);
        CHECK(bm_outbox_output(&outbox, &len) != NULL);
        bm_outbox_ack(&outbox, len);
    }
    CHECK_UINT(account.allocs, 1);
    end();
}

TEST(outbox_keeps_no_large_block)
{
    static uint8_t bytes[100000];
    size_t len;
    begin();
    CHECK_INT(bm_outbox_append(&outbox, "a", 1), 0);
    bm_outbox_ack(&outbox, 1);
    CHECK_INT(bm_outbox_append(&outbox, bytes, sizeof(bytes)), 0);
    CHECK(account.used < sizeof(bytes) + 200); /* the small one was given back */
    CHECK(bm_outbox_output(&outbox, &len) != NULL);
    bm_outbox_ack(&outbox, len);
    CHECK_UINT(account.used, 0);
    CHECK_PTR(bm_outbox_output(&outbox, &len), NULL);
    CHECK_UINT(len, 0);
    end();
}

TEST(outbox_that_falls_silent_gives_its_memory_back)
{
    begin();
    CHECK(!bm_outbox_is_idle(&outbox));
    CHECK_INT(bm_outbox_append(&outbox, "ab", 2), 0);
    bm_outbox_ack(&outbox, 1);
    CHECK(!bm_outbox_is_idle(&outbox));
    bm_outbox_trim(&outbox); /* something waits */
    CHECK_UINT(outbox.len, 1);
    bm_outbox_ack(&outbox, 1);
    CHECK(bm_outbox_is_idle(&outbox));
    CHECK(account.used > 0);
    bm_outbox_trim(&outbox);
    CHECK_UINT(account.used, 0);
    CHECK(!bm_outbox_is_idle(&outbox));
    end();
}

TEST(outbox_keeps_a_block_as_large_as_its_owner_says)
{
    static uint8_t bytes[50000];
    size_t len;
    begin();
    outbox.kept_max = sizeof(bytes);
    for (unsigned i = 0; i < 10; i++) {
        CHECK_INT(bm_outbox_append(&outbox, bytes, sizeof(bytes)), 0);
        CHECK(bm_outbox_output(&outbox, &len) != NULL);
        CHECK_UINT(len, sizeof(bytes));
        bm_outbox_ack(&outbox, len);
    }
    CHECK_UINT(account.allocs, 1);
    end();
}

TEST(outbox_without_memory_takes_nothing)
{
    uint8_t bytes[BM_OUTBOX_BLOCK] = {0};
    begin();
    CHECK_INT(bm_outbox_append(&outbox, "a", 1), 0);
    scarce_begin(0);
    CHECK_INT(bm_outbox_append(&outbox, bytes, sizeof(bytes)), -ENOMEM);
    scarce_end();
    CHECK_UINT(outbox.len, 1);
    CHECK_INT(bm_outbox_append(&outbox, bytes, sizeof(bytes)), 0);
    CHECK_UINT(outbox.len, 1 + sizeof(bytes));
    end();
}
