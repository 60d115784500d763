/* A listener of a network: sockets, one a core or one for all, certificates, and the connections that come
 * of it. The slots of struct beam_transport, but for connect, are the same for all five schemes. */
#ifndef BM_NET_LISTENER_H
#define BM_NET_LISTENER_H

#include "runtime/transport.h"

int bm_net_listen(beam_runtime *runtime, const char *url, const struct beam_listen_options *options,
                  struct bm_listener **ret_listener);
void bm_net_listener_start(struct bm_listener *listener, struct bm_core *core);
void bm_net_listener_stop(struct bm_listener *listener);
void bm_net_listener_free(struct bm_listener *listener);

#endif
