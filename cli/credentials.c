/* Credentials: from options to the library's. */
#include "cli/credentials.h"

#include "cli/tokens.h"
#include "cli/transports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

__attribute__((__format__(__printf__, 2, 3))) static int complain(const char *verb,
                                                                  const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "beam: %s: ", verb);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return -EINVAL;
}

/* Which of them was given first; NULL: none. */
static const char *given(const struct credentials *c)
{
    return c->ca            ? "--ca"
           : c->certificate ? "--cert"
           : c->key         ? "--key"
           : c->server_name ? "--server-name"
           : c->token       ? "--token"
           : c->token_file  ? "--token-file"
                            : NULL;
}

int credentials_take(struct credentials *credentials, const char *verb, const char *url)
{
    const char *option = given(credentials);
    if (option && !transport_is_net(url))
        return complain(verb, "%s is for https: and its like, and %s needs none", option, url);
    if (!transport_is_secure(url) && (credentials->ca || credentials->certificate ||
                                      credentials->key || credentials->server_name))
        return complain(verb, "%s is for https: and wss:, and %s has no TLS", option, url);
    if (!credentials->certificate != !credentials->key)
        return complain(verb, "--cert and --key go together");
    if (credentials->token && credentials->token_file)
        return complain(verb, "--token or --token-file, please, not both");
    if (credentials->token_file &&
        tokens_read_one(credentials->token_file, &credentials->from_file) < 0)
        return -EINVAL;
    const char *token = credentials->from_file ? credentials->from_file : credentials->token;
    if (token && !tokens_is_one(token)) {
        credentials_free(credentials);
        return complain(verb, "%s: a token is 1 to %d letters, digits and -._~+/ (RFC 6750)",
                        credentials->token ? "--token" : credentials->token_file,
                        CREDENTIALS_TOKEN_MAX);
    }
    credentials->net =
        BEAM_NET_CONNECT_OPTIONS(.ca = {.path = credentials->ca},
                                 .certificate = {.path = credentials->certificate},
                                 .key = {.path = credentials->key},
                                 .server_name = credentials->server_name, .token = token);
    return 0;
}

const struct beam_net_connect *credentials_net(const struct credentials *credentials,
                                               const char *url)
{
    return transport_is_net(url) ? &credentials->net : NULL;
}

void credentials_free(struct credentials *credentials)
{
    if (credentials->from_file)
        explicit_bzero(credentials->from_file, strlen(credentials->from_file));
    free(credentials->from_file);
    credentials->from_file = NULL;
}
