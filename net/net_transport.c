/* The schemes of networks. What differs between them is in the URL (url.h): connecting is
 * net_connect.c's, listening net_listener.c's. */
#include <errno.h>

#include <beam/net.h>

#include "net/net_connect.h"
#include "net/net_listener.h"
#include "net/url.h"
#include "runtime/transport.h"

static int net_connect(struct bm_core *core, const char *url,
                       const struct beam_connect_options *options, beam_session **ret_session)
{
    struct bm_url parsed;
    int r = bm_url_parse(url, &parsed, NULL);
    if (r == 0 && parsed.port == 0 && parsed.kind != BM_URL_SOCKET_FILE)
        r = -BEAM_EURL; /* a port of 0 is for listening */
    return r < 0 ? r : bm_net_connect(core, &parsed, options, ret_session);
}

#define TRANSPORT(scheme_)                                                                         \
    {                                                                                              \
        .scheme = scheme_, .connect = net_connect, .listen = bm_net_listen,                        \
        .start = bm_net_listener_start, .stop = bm_net_listener_stop,                              \
        .free = bm_net_listener_free,                                                              \
    }

const struct beam_transport beam_https = TRANSPORT("https:");
const struct beam_transport beam_http = TRANSPORT("http:");
const struct beam_transport beam_http_unix = TRANSPORT("http+unix:");
const struct beam_transport beam_wss = TRANSPORT("wss:");
const struct beam_transport beam_ws = TRANSPORT("ws:");
