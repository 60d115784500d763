/* The way out: sessions to where a URL of a network leads (the ladder of docs/spec/http.md, section 6). */
#ifndef BM_NET_CONNECT_H
#define BM_NET_CONNECT_H

#include <beam/session.h>

#include "net/url.h"

struct bm_core;

/* transport.h connect. Core's thread. A session that is CONNECTING; options are complete and borrowed. */
int bm_net_connect(struct bm_core *core, const struct bm_url *url,
                   const struct beam_connect_options *options, beam_session **ret_session);

#endif
