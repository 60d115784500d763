/* What a client shows over a network, and whom it trusts: the options that verbs with a URL share. */
#ifndef CLI_CREDENTIALS_H
#define CLI_CREDENTIALS_H

#include <beam/net.h>

#include "cli/arguments.h"

#define CREDENTIALS_TOKEN_MAX 8192 /* docs/spec/http.md, I1 */

/* Zeroed, then filled in by options and credentials_take(). */
struct credentials {
    const char *ca, *certificate, *key, *server_name;
    const char *token, *token_file;
    char *from_file; /* what the file holds; for credentials_free */
    struct beam_net_connect net;
};

/* Rows of a table of options. */
#define CREDENTIALS_OPTIONS(credentials)                                                           \
    {"--ca", OPTION_TEXT, &(credentials)->ca, 0, 0},                                               \
        {"--cert", OPTION_TEXT, &(credentials)->certificate, 0, 0},                                \
        {"--key", OPTION_TEXT, &(credentials)->key, 0, 0},                                         \
        {"--token", OPTION_TEXT, &(credentials)->token, 0, 0},                                     \
        {"--token-file", OPTION_TEXT, &(credentials)->token_file, 0, 0},                           \
        {"--server-name", OPTION_TEXT, &(credentials)->server_name, 0, 0},

/* What they mean, in the words of --help. */
#define CREDENTIALS_HELP                                                                           \
    "    --ca FILE            https: and wss:, whom to trust instead of those the system does\n"   \
    "    --cert FILE, --key FILE   our own certificate and its key, for servers that ask\n"        \
    "    --token-file FILE    a bearer token, the last word of FILE's first line that has one\n"   \
    "    --token TOKEN        the same; others on this machine can see it in the command line\n"   \
    "    --server-name NAME   the name that the server's certificate is for, unless the URL's\n"

/* For this URL. -EINVAL after saying what is wrong: of a URL that leads over no network none is taken. */
int credentials_take(struct credentials *credentials, const char *verb, const char *url);

/* The value of beam_connect_options.net, as long as the credentials; NULL for other URLs. */
const struct beam_net_connect *credentials_net(const struct credentials *credentials,
                                               const char *url);
void credentials_free(struct credentials *credentials);

#endif
