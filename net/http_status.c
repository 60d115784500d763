/* See http_status.h. As gRPC has it, so that what proxies say is read the same way: 404 is no missing thing
 * but a server that knows nothing of Beam. */
#include "net/http_status.h"

enum beam_code bm_http_status_code(unsigned status)
{
    switch (status) {
    case 400:
        return BEAM_INTERNAL;
    case 401:
        return BEAM_UNAUTHENTICATED;
    case 403:
        return BEAM_PERMISSION_DENIED;
    case 404:
        return BEAM_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return BEAM_UNAVAILABLE;
    default:
        return BEAM_UNKNOWN;
    }
}
