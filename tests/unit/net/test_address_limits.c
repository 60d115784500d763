/* Connections counted by address. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "net/address_limits.h"
#include "net/stream_socket.h"
#include "net/url.h"
#include "tests/support/test.h"

static struct bm_address_limits limits;

static struct bm_address_key key_of(const char *text, uint32_t uid)
{
    struct bm_url url;
    struct bm_socket_address address;
    struct bm_address_key key;
    REQUIRE_INT(bm_url_parse(text, &url, NULL), 0);
    REQUIRE_INT(bm_socket_address_of(&url, &address), 0);
    bm_address_key(&address, uid, &key);
    return key;
}

static bool same(const char *a, const char *b)
{
    struct bm_address_key first = key_of(a, 1), second = key_of(b, 1);
    return memcmp(&first, &second, sizeof(first)) == 0;
}

TEST(addresses_are_told_apart_by_who_has_them)
{
    CHECK(same("http://192.0.2.7:1", "http://192.0.2.7:2"));
    CHECK(!same("http://192.0.2.7", "http://192.0.2.8"));
    CHECK(!same("http://192.0.2.7", "http://193.0.2.7"));
    CHECK(same("http://[::ffff:192.0.2.7]", "http://192.0.2.7"));
    CHECK(!same("http://[::ffff:192.0.2.7]", "http://[::ffff:192.0.2.8]"));
    CHECK(same("http://[2001:db8:1:2::3]", "http://[2001:db8:1:2:ffff::]"));
    CHECK(!same("http://[2001:db8:1:2::3]", "http://[2001:db8:1:3::3]"));
    CHECK(!same("http://[::1]", "http://127.0.0.1"));
    struct bm_address_key one = key_of("http+unix:@a", 1), two = key_of("http+unix:@a", 2);
    CHECK(memcmp(&one, &two, sizeof(one)) != 0);
}

static int enter(const struct bm_address_key *key, uint64_t now_ns)
{
    uint64_t refused;
    return bm_address_limits_enter(&limits, key, now_ns, &refused);
}

TEST(addresses_have_so_many_connections_each)
{
    struct bm_address_key one = key_of("http://192.0.2.1", 0), two = key_of("http://192.0.2.2", 0);
    uint64_t now = BM_NS_PER_S, refused = 0;
    bm_address_limits_init(&limits, 3, 1000);
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(enter(&one, now), 0);
    CHECK_INT(bm_address_limits_enter(&limits, &one, now, &refused), -EAGAIN);
    CHECK_INT(bm_address_limits_enter(&limits, &one, now, &refused), -EAGAIN);
    CHECK_UINT(refused, 2);
    CHECK_INT(enter(&two, now), 0);
    bm_address_limits_leave(&limits, &one);
    CHECK_INT(enter(&one, now), 0);
    CHECK_INT(enter(&one, now), -EAGAIN);
    for (unsigned i = 0; i < 3; i++)
        bm_address_limits_leave(&limits, &one);
    bm_address_limits_leave(&limits, &two);
    bm_address_limits_deinit(&limits);
}

TEST(addresses_make_connections_only_so_fast)
{
    struct bm_address_key key = key_of("http://192.0.2.1", 0), other = key_of("http://[::1]", 0);
    uint64_t now = BM_NS_PER_S;
    bm_address_limits_init(&limits, 0, 0);
    for (unsigned i = 0; i < 2 * BM_ADDRESS_CONNECTIONS_PER_S; i++) {
        CHECK_INT(enter(&key, now), 0);
        bm_address_limits_leave(&limits, &key); /* being gone does not help */
    }
    CHECK_INT(enter(&key, now), -EAGAIN);
    CHECK_INT(enter(&other, now), 0);
    now += BM_NS_PER_S / BM_ADDRESS_CONNECTIONS_PER_S;
    CHECK_INT(enter(&key, now - 1), -EAGAIN);
    CHECK_INT(enter(&key, now), 0);
    CHECK_INT(enter(&key, now), -EAGAIN);
    now += 3600 * BM_NS_PER_S; /* no more than the burst, however long it was */
    for (unsigned i = 0; i < 2 * BM_ADDRESS_CONNECTIONS_PER_S; i++)
        CHECK_INT(enter(&key, now), 0);
    CHECK_INT(enter(&key, now), -EAGAIN);
    for (unsigned i = 0; i < 2 * BM_ADDRESS_CONNECTIONS_PER_S + 1; i++)
        bm_address_limits_leave(&limits, &key);
    bm_address_limits_leave(&limits, &other);
    bm_address_limits_deinit(&limits);
}

TEST(addresses_have_the_connections_of_the_defaults)
{
    struct bm_address_key key = key_of("http://192.0.2.1", 0);
    uint64_t now = BM_NS_PER_S;
    bm_address_limits_init(&limits, 0, 0);
    for (unsigned i = 0; i < BM_ADDRESS_CONNECTIONS_MAX; i++)
        CHECK_INT(enter(&key, now += BM_NS_PER_S), 0);
    CHECK_INT(enter(&key, now += BM_NS_PER_S), -EAGAIN);
    for (unsigned i = 0; i < BM_ADDRESS_CONNECTIONS_MAX; i++)
        bm_address_limits_leave(&limits, &key);
    bm_address_limits_deinit(&limits);
}

static struct bm_address_key numbered(uint32_t number)
{
    struct bm_address_key key = {{0}};
    memcpy(key.bytes, &number, sizeof(number));
    return key;
}

TEST(addresses_without_a_connection_are_remembered_up_to_a_limit)
{
    uint64_t now = BM_NS_PER_S;
    bm_address_limits_init(&limits, 1, 1);
    size_t before = bm_alloc_totals().live_blocks;
    for (uint32_t i = 0; i < 3 * BM_ADDRESSES_IDLE_MAX; i++) {
        struct bm_address_key key = numbered(i);
        CHECK_INT(enter(&key, now), 0);
        if (i % 3 == 0)
            CHECK_INT(enter(&key, now), -EAGAIN);
        bm_address_limits_leave(&limits, &key);
    }
    CHECK_UINT(bm_alloc_totals().live_blocks - before, BM_ADDRESSES_IDLE_MAX);
    /* Also those who get no connection at all. */
    struct bm_address_key last = numbered(3 * BM_ADDRESSES_IDLE_MAX - 1);
    CHECK_INT(enter(&last, now), 0); /* the second of its burst */
    bm_address_limits_leave(&limits, &last);
    CHECK_INT(enter(&last, now), -EAGAIN);
    CHECK_UINT(bm_alloc_totals().live_blocks - before, BM_ADDRESSES_IDLE_MAX);
    bm_address_limits_deinit(&limits);
    CHECK_UINT(bm_alloc_totals().live_blocks, before);
}

enum { THREADS = 3, ROUNDS = 5000 };

static void *come_and_go(void *arg)
{
    struct test_random random = *(const struct test_random *)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct bm_address_key key = numbered((uint32_t)test_random_below(&random, 50));
        if (enter(&key, (i + 1) * BM_NS_PER_S) == 0)
            bm_address_limits_leave(&limits, &key);
    }
    return NULL;
}

TEST(addresses_come_from_all_reactors)
{
    pthread_t threads[THREADS];
    struct test_random randoms[THREADS];
    bm_address_limits_init(&limits, 2, 1000);
    for (unsigned i = 0; i < THREADS; i++) {
        randoms[i] = test_random(i + 1);
        REQUIRE_INT(pthread_create(&threads[i], NULL, come_and_go, &randoms[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    bm_address_limits_deinit(&limits); /* asserts that all have left */
    CHECK(true);
}
