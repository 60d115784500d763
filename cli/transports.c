/* See transports.h. */
#include "cli/transports.h"

#include <beam/net.h>
#include <string.h>

const struct beam_transport *const transports_all[] = {
    &beam_unix, &beam_https, &beam_http, &beam_http_unix, &beam_wss, &beam_ws, NULL};

static bool begins(const char *url, const char *scheme)
{
    return strncmp(url, scheme, strlen(scheme)) == 0;
}

bool transport_is_secure(const char *url)
{
    return begins(url, "https:") || begins(url, "wss:");
}

bool transport_is_tcp(const char *url)
{
    return transport_is_secure(url) || begins(url, "http:") || begins(url, "ws:");
}

bool transport_is_net(const char *url)
{
    return transport_is_tcp(url) || begins(url, "http+unix:");
}
