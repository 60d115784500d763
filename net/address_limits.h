/* How many connections each address has with a listener, and how fast it makes new ones; and the same of the
 * sessions of each identity. Over all cores, by IPv4 address or IPv6 /64 (what one customer gets, RFC 6177), and by user over a unix socket. Any
 * thread. Nobody is exempt: behind a proxy all have one address, which is what the limits of struct
 * beam_net_listen are for. */
#ifndef BM_ADDRESS_LIMITS_H
#define BM_ADDRESS_LIMITS_H

#include <pthread.h>
#include <stdint.h>

#include <beam/kv.h>

#include "base/list.h"

struct bm_socket_address;

#define BM_ADDRESS_CONNECTIONS_MAX 256u    /* spec section 10 */
#define BM_ADDRESS_CONNECTIONS_PER_S 50u   /* spec section 10; twice that in a burst */
#define BM_IDENTITY_SESSIONS_MAX 256u      /* spec section 10 */
#define BM_IDENTITY_SESSIONS_PER_S 50u     /* spec section 10; twice that in a burst */
#define BM_ADDRESS_CONNECTIONS_LIMIT 65536 /* what may be asked for, of both */
#define BM_ADDRESSES_IDLE_MAX 4096u /* addresses that are remembered without a connection; ours */
#define BM_ADDRESS_LIST_COUNT 1024u /* ours: a table of 16 KiB */

struct bm_address_key {
    uint8_t bytes[16];
};

struct bm_address_limits {
    pthread_mutex_t lock;
    uint32_t max, per_s;
    uint64_t seed; /* so that nobody can choose addresses that meet in one list */
    struct bm_list lists[BM_ADDRESS_LIST_COUNT];
    struct bm_list idle; /* without a connection, the one that was left first in front */
    unsigned idle_count;
    uint64_t refused;
};

/* 0: the defaults. */
void bm_address_limits_init(struct bm_address_limits *limits, uint32_t max, uint32_t per_s);
/* All have left. */
void bm_address_limits_deinit(struct bm_address_limits *limits);

/* uid: of a peer on a unix socket. */
void bm_address_key(const struct bm_socket_address *address, uint32_t uid,
                    struct bm_address_key *ret_key);

/* Of a name, 1 byte at least; in a table of its own. */
void bm_identity_key(const struct bm_address_limits *limits, beam_str identity,
                     struct bm_address_key *ret_key);

/* One more connection, to be given back with leave. -EAGAIN: it has as many as it may, or has made too
 * many just now. -ENOMEM. *ret_refused, on failure: how many were refused so far. */
int bm_address_limits_enter(struct bm_address_limits *limits, const struct bm_address_key *key,
                            uint64_t now_ns, uint64_t *ret_refused);
void bm_address_limits_leave(struct bm_address_limits *limits, const struct bm_address_key *key);

#endif
