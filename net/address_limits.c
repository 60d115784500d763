/* See address_limits.h. An address is in the table as long as it has a connection, and a while longer,
 * because its bucket of tokens has to fill again; of those without a connection the oldest is forgotten
 * when there are too many, which forgives it a burst and nothing else. */
#include "net/address_limits.h"

#include <errno.h>
#include <string.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "net/stream_socket.h"

#define BURST_S 2u /* ours: so many seconds' worth at once */

struct peer {
    struct bm_list node;      /* of its list */
    struct bm_list idle_node; /* ... and of `idle` while count is 0 */
    struct bm_address_key key;
    uint32_t count;
    uint64_t full_ns; /* when its bucket will be full again */
};

void bm_address_limits_init(struct bm_address_limits *limits, uint32_t max, uint32_t per_s)
{
    *limits = (struct bm_address_limits){
        .max = max ? max : BM_ADDRESS_CONNECTIONS_MAX,
        .per_s = per_s ? per_s : BM_ADDRESS_CONNECTIONS_PER_S,
    };
    pthread_mutex_init(&limits->lock, NULL);
    bm_random(&limits->seed, sizeof(limits->seed));
    for (unsigned i = 0; i < BM_ADDRESS_LIST_COUNT; i++)
        bm_list_init(&limits->lists[i]);
    bm_list_init(&limits->idle);
}

static void forget(struct bm_address_limits *limits, struct peer *peer)
{
    bm_list_unlink(&peer->node);
    bm_list_unlink(&peer->idle_node);
    limits->idle_count--;
    bm_free(NULL, peer, sizeof(*peer));
}

void bm_address_limits_deinit(struct bm_address_limits *limits)
{
    struct bm_list *node;
    while ((node = bm_list_front(&limits->idle)))
        forget(limits, bm_list_entry(node, struct peer, idle_node));
    for (unsigned i = 0; i < BM_ADDRESS_LIST_COUNT; i++)
        bm_assert(bm_list_empty(&limits->lists[i]));
    pthread_mutex_destroy(&limits->lock);
}

void bm_address_key(const struct bm_socket_address *address, uint32_t uid,
                    struct bm_address_key *ret_key)
{
    struct bm_address_key key = {{0}};
    if (address->any.sa_family == AF_INET) {
        key.bytes[10] = key.bytes[11] = 0xff;
        memcpy(key.bytes + 12, &address->in.sin_addr, 4);
    } else if (address->any.sa_family == AF_INET6) {
        const struct in6_addr *in6 = &address->in6.sin6_addr;
        memcpy(key.bytes, in6, IN6_IS_ADDR_V4MAPPED(in6) ? 16 : 8);
    } else {
        memset(key.bytes, 0xff, 8); /* multicast: nobody's */
        memcpy(key.bytes + 12, &uid, sizeof(uid));
    }
    *ret_key = key;
}

/* 128 bits of which nobody can say what gives the same. */
void bm_identity_key(const struct bm_address_limits *limits, beam_str identity,
                     struct bm_address_key *ret_key)
{
    for (uint64_t half = 0; half < 2; half++) {
        const uint64_t secret[2] = {limits->seed, half};
        beam_xxh3_state state;
        beam_xxh3_init(&state);
        beam_xxh3_update(&state, secret, sizeof(secret));
        beam_xxh3_update(&state, identity.ptr, identity.len);
        uint64_t sum = beam_xxh3_final(&state);
        memcpy(ret_key->bytes + 8 * half, &sum, sizeof(sum));
    }
}

static struct bm_list *list_of(struct bm_address_limits *limits, const struct bm_address_key *key)
{
    uint64_t halves[2];
    memcpy(halves, key->bytes, sizeof(halves));
    uint64_t mixed = (halves[0] ^ limits->seed) * UINT64_C(0x9e3779b97f4a7c15);
    mixed =
        (mixed ^ (mixed >> 32) ^ halves[1] ^ (limits->seed << 1)) * UINT64_C(0xbf58476d1ce4e5b9);
    return &limits->lists[(mixed >> 32) % BM_ADDRESS_LIST_COUNT];
}

static struct peer *find(struct bm_list *list, const struct bm_address_key *key)
{
    for (struct bm_list *n = list->next; n != list; n = n->next) {
        struct peer *peer = bm_list_entry(n, struct peer, node);
        if (memcmp(&peer->key, key, sizeof(*key)) == 0)
            return peer;
    }
    return NULL;
}

static struct peer *add(struct bm_address_limits *limits, struct bm_list *list,
                        const struct bm_address_key *key)
{
    struct peer *peer = bm_alloc_zero(NULL, sizeof(*peer));
    if (!peer)
        return NULL;
    peer->key = *key;
    bm_list_push_back(list, &peer->node);
    bm_list_push_back(&limits->idle, &peer->idle_node);
    limits->idle_count++;
    return peer;
}

/* A bucket that is filled at a constant rate is known by when it will be full. */
static bool take_token(struct peer *peer, uint32_t per_s, uint64_t now_ns)
{
    uint64_t token_ns = BM_NS_PER_S / per_s;
    uint64_t full_ns = peer->full_ns > now_ns ? peer->full_ns : now_ns;
    if (full_ns + token_ns - now_ns > BURST_S * BM_NS_PER_S)
        return false;
    peer->full_ns = full_ns + token_ns;
    return true;
}

static int enter(struct bm_address_limits *limits, const struct bm_address_key *key,
                 uint64_t now_ns)
{
    struct bm_list *list = list_of(limits, key);
    struct peer *peer = find(list, key);
    if (!peer)
        peer = add(limits, list, key);
    if (!peer)
        return -ENOMEM;
    bool room = peer->count < limits->max && take_token(peer, limits->per_s, now_ns);
    if (room && peer->count++ == 0) {
        bm_list_unlink(&peer->idle_node);
        limits->idle_count--;
    }
    if (limits->idle_count > BM_ADDRESSES_IDLE_MAX)
        forget(limits, bm_list_entry(limits->idle.next, struct peer, idle_node));
    return room ? 0 : -EAGAIN;
}

int bm_address_limits_enter(struct bm_address_limits *limits, const struct bm_address_key *key,
                            uint64_t now_ns, uint64_t *ret_refused)
{
    pthread_mutex_lock(&limits->lock);
    int r = enter(limits, key, now_ns);
    if (r < 0)
        *ret_refused = ++limits->refused;
    pthread_mutex_unlock(&limits->lock);
    return r;
}

void bm_address_limits_leave(struct bm_address_limits *limits, const struct bm_address_key *key)
{
    pthread_mutex_lock(&limits->lock);
    struct peer *peer = find(list_of(limits, key), key);
    bm_assert(peer && peer->count > 0);
    if (--peer->count == 0) {
        bm_list_push_back(&limits->idle, &peer->idle_node);
        limits->idle_count++;
        if (limits->idle_count > BM_ADDRESSES_IDLE_MAX)
            forget(limits, bm_list_entry(limits->idle.next, struct peer, idle_node));
    }
    pthread_mutex_unlock(&limits->lock);
}
