/* Names to addresses without holding up a reactor: addresses and localhost at once, other names by
 * getaddrinfo(3) in a thread that lives while there is something to ask. */
#ifndef BM_RESOLVE_H
#define BM_RESOLVE_H

#include "net/stream_socket.h"

struct bm_core;
struct bm_url;
struct bm_resolve; /* a question under way */

#define BM_RESOLVE_ADDRESSES_MAX 8u  /* ours: more are not tried */
#define BM_RESOLVE_THREADS_MAX 8u    /* ours, in a process; who finds them busy stands in line */
#define BM_RESOLVE_WAITING_MAX 1024u /* ours, in a process */

/* error 0: count (> 0) addresses with the URL's port, in the order in which they are to be tried,
 * borrowed. -ENOENT: there is no such name. -EHOSTUNREACH: nobody answers who could know. -ENOMEM, and
 * what else the system says. The question is over. */
typedef void bm_resolve_fn(int error, const struct bm_socket_address *addresses, unsigned count,
                           void *arg);

/* Core's thread. fn runs once, from the loop. The question is the caller's until then; who goes before,
 * or before the core closes, cancels it. -EAGAIN: too many wait, or there can be no thread. -ENOMEM. */
int bm_resolve_start(struct bm_core *core, const struct bm_url *url, bm_resolve_fn *fn, void *arg,
                     struct bm_resolve **ret_resolve);
/* fn will not run. Accepts NULL, returns NULL. What is being asked goes on being asked, for nobody. */
struct bm_resolve *bm_resolve_cancel(struct bm_resolve *resolve);

/* Waiting, for who begins to listen: the first IPv4 address, else the first. Errors as of fn. -EDEADLK:
 * a name that would have to be asked for, on a reactor. */
int bm_resolve_wait(const struct bm_url *url, struct bm_socket_address *ret_address);

#endif
