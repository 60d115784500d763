/* Access: who asks, and whether a listener serves him (docs/spec/http.md section 9). What a listener was
 * told once (struct beam_net_listen), read by all its cores; it never changes.
 *
 * The first that is there decides: a client certificate, a bearer token, what a proxy says. A token that
 * is there and wrong is refused, whatever else there is. A configured proxy's certificate is its own and
 * speaks for none of those who ask through it.
 *
 * Not here: which service somebody may call (beam_serve_options.allow), TLS's own verification, limits. */
#ifndef BM_ACCESS_H
#define BM_ACCESS_H

#include "net/server.h"

/* The identity, with its zero byte, has to fit into struct bm_visitor. */
#define BM_ACCESS_NAME_MAX 255u
#define BM_ACCESS_PROXIES_MAX 256u /* ours */

/* Copies what it needs of the options: authenticate, proxies, identity_header, insecure_anonymous.
 * local: a unix socket whose mode says who may connect (http+unix:): who does is known by that, unless
 * "unix" is one of the proxies. ret_why, 128 bytes or NULL, says what is wrong with the options.
 * -EINVAL: a proxy that is no address or network, a header that is no name, one without the other, too
 * many; -ENOMEM. */
int bm_access_new(struct bm_access **ret_access, const struct beam_net_listen *options, bool local,
                  char *ret_why);
/* Accepts NULL, returns NULL. */
struct bm_access *bm_access_free(struct bm_access *access);

/* bm_access_judge: server.h. */

/* Of an answer 401: "www-authenticate"'s value, or NULL when no token would help. A text for ever. */
const char *bm_access_challenge(const struct bm_access *access);

/* Whether the application must not see this field, because it would take it for a proxy's word: the
 * identity header of somebody who is no configured proxy, written with "_" for "-" too. Anything goes
 * where no header is configured. */
bool bm_access_hides(const struct bm_access *access, const struct bm_connection *connection,
                     beam_str name);

#endif
