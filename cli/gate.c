/* The gate: from options to what a listener is told, and what would shut everybody out, or nobody, told
 * before it is found out the hard way. */
#include "cli/gate.h"

#include "cli/tokens.h"
#include "cli/transports.h"
#include "cli/verbs.h"

#include <errno.h>
#include <string.h>

__attribute__((__format__(__printf__, 1, 2))) static int complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("beam: serve: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return -EINVAL;
}

/* Which of them was given first; NULL: none. */
static const char *given(const struct gate *gate)
{
    return gate->certificate           ? "--cert"
           : gate->key                 ? "--key"
           : gate->client_ca           ? "--client-ca"
           : gate->token_file          ? "--token-file"
           : gate->proxies.count       ? "--trust-proxy"
           : gate->header              ? "--identity-header"
           : gate->anonymous           ? "--insecure-anonymous"
           : gate->address_connections ? "--address-connections"
           : gate->address_rate        ? "--address-rate"
                                       : NULL;
}

static bool is_loopback(const char *url)
{
    const char *host = strstr(url, "://");
    host = host ? host + 3 : url;
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "[::1]", 5) == 0 ||
           strncmp(host, "localhost", 9) == 0;
}

static int judge(const struct gate *gate, const char *url)
{
    bool secure = transport_is_secure(url);
    if (secure && !gate->certificate)
        return complain(
            "%s needs --cert FILE and --key FILE; `beam cert DIR` makes some for trying", url);
    if (!transport_is_tcp(url) || gate->anonymous || gate->token_file || gate->proxies.count > 0 ||
        (secure && gate->client_ca))
        return 0;
    return complain("%s would serve nobody, because nobody can say who he is: --token-file FILE, "
                    "%s--trust-proxy ADDRESS, or --insecure-anonymous",
                    url, secure ? "--client-ca FILE, " : "");
}

int gate_take(struct gate *gate, const struct texts *urls)
{
    bool net = false, secure = false;
    for (unsigned i = 0; i < urls->count; i++) {
        net |= transport_is_net(urls->items[i]);
        secure |= transport_is_secure(urls->items[i]);
    }
    const char *option = given(gate);
    if (option && !net)
        return complain("%s is for https: and its like, and none is listened at", option);
    if ((gate->certificate || gate->key || gate->client_ca) && !secure)
        return complain("%s is for https: and wss:, and none is listened at", option);
    if (!gate->certificate != !gate->key)
        return complain("--cert and --key go together");
    if (!gate->header != !gate->proxies.count)
        return complain("--trust-proxy and --identity-header go together");
    for (unsigned i = 0; i < urls->count; i++)
        if (transport_is_net(urls->items[i]) && judge(gate, urls->items[i]) < 0)
            return -EINVAL;
    for (unsigned i = 0; i < gate->proxies.count; i++)
        gate->proxy_list[i] = gate->proxies.items[i];
    if (gate->token_file && tokens_read(gate->token_file, &gate->tokens) < 0)
        return -EINVAL;
    for (unsigned i = 0; i < urls->count && gate->tokens; i++)
        if (transport_is_tcp(urls->items[i]) && !transport_is_secure(urls->items[i]) &&
            !is_loopback(urls->items[i]))
            fprintf(stderr, "beam: warning: %s: tokens can be read on the way; https: has TLS\n",
                    urls->items[i]);
    return 0;
}

const struct beam_net_listen *gate_listen(const struct gate *gate, const char *url,
                                          struct beam_net_listen *net)
{
    bool secure = transport_is_secure(url);
    if (!transport_is_net(url))
        return NULL;
    *net = BEAM_NET_LISTEN(.certificate = {.path = secure ? gate->certificate : NULL},
                           .key = {.path = secure ? gate->key : NULL},
                           .client_ca = {.path = secure ? gate->client_ca : NULL},
                           .authenticate = gate->tokens ? tokens_authenticate : NULL,
                           .authenticate_arg = gate->tokens,
                           .proxies = gate->proxies.count > 0 ? gate->proxy_list : NULL,
                           .identity_header = gate->header, .insecure_anonymous = gate->anonymous,
                           .connections_address_max = (uint32_t)gate->address_connections,
                           .connections_address_per_s = (uint32_t)gate->address_rate);
    return net;
}

int gate_fail(const struct gate *gate, const char *url, int error)
{
    bool net = transport_is_net(url);
    if (net && error == -BEAM_ETLS_CONFIGURATION)
        fprintf(stderr,
                "beam: %s: --cert, --key or --client-ca cannot be used: is it PEM, and is "
                "the key the certificate's?\n",
                url);
    else if (net && error == -EINVAL)
        fprintf(stderr,
                "beam: %s: --trust-proxy is an address, a network (10.0.0.0/8) or unix, "
                "and --identity-header a name of a field\n",
                url);
    else
        (void)fail_at("listening", url, error);
    return net && error == -EINVAL ? EXIT_USAGE : exit_status_of_file(error);
}

void gate_free(struct gate *gate)
{
    gate->tokens = tokens_free(gate->tokens);
}
