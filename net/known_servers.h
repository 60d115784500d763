/* What a core remembers of the servers it has had sessions to: which way worked (docs/spec/http.md L2), and a
 * ticket to resume TLS with. For ten minutes, of so many servers, and no longer than the core runs.
 *
 * Core's thread. */
#ifndef BM_KNOWN_SERVERS_H
#define BM_KNOWN_SERVERS_H

#include <stddef.h>
#include <stdint.h>

#include <beam/net.h>

struct bm_core;
struct bm_url;

#define BM_KNOWN_SERVERS_MAX 64u /* ours, of a core; the one that was of use longest ago goes */
#define BM_KNOWN_SERVERS_NS (600 * BM_NS_PER_S) /* docs/spec/http.md L2 */

/* The way that worked last; BEAM_NET_ANY: nothing is known. */
enum beam_net_way bm_known_servers_way(struct bm_core *core, const struct bm_url *url);
/* This way has worked; BEAM_NET_ANY: the one that is remembered has not. */
void bm_known_servers_learn(struct bm_core *core, const struct bm_url *url, enum beam_net_way way);

/* A ticket, copied: it is a secret. Of a server of which nothing is known it is not kept. */
void bm_known_servers_keep_ticket(struct bm_core *core, const struct bm_url *url,
                                  const void *ticket, size_t len);
/* Takes it out, to be used once (RFC 8446 C.4): the caller frees *ret_len bytes without an account. NULL:
 * there is none. */
uint8_t *bm_known_servers_take_ticket(struct bm_core *core, const struct bm_url *url,
                                      size_t *ret_len);

#endif
