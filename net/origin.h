/* Whether a page may ask: `origin` (RFC 6454), which browsers set and scripts cannot. Pure. */
#ifndef BM_ORIGIN_H
#define BM_ORIGIN_H

#include "net/exchange.h"

/* A request without an origin comes from no page, and is no matter of this. One with: it has to be one of
 * those given or, if none are, that of the host that was asked; as for a WebSocket (rule B1). */
bool bm_origin_allows(const struct bm_exchange_request *request, const char *const *origins,
                      size_t count);

#endif
