/* Whom a server lets in over a network: the options of `beam serve` for that. */
#ifndef CLI_GATE_H
#define CLI_GATE_H

#include <beam/net.h>

#include "cli/arguments.h"

struct tokens;

/* Zeroed, then filled in by options and gate_take(). */
struct gate {
    const char *certificate, *key, *client_ca, *token_file, *header;
    struct texts proxies;
    bool anonymous;
    uint64_t address_connections, address_rate; /* 0: the defaults */
    struct tokens *tokens;
    const char *proxy_list[TEXTS_MAX + 1]; /* NULL behind the last */
};

/* Rows of a table of options. */
#define GATE_OPTIONS(gate)                                                                         \
    {"--cert", OPTION_TEXT, &(gate)->certificate, 0, 0},                                           \
        {"--key", OPTION_TEXT, &(gate)->key, 0, 0},                                                \
        {"--client-ca", OPTION_TEXT, &(gate)->client_ca, 0, 0},                                    \
        {"--token-file", OPTION_TEXT, &(gate)->token_file, 0, 0},                                  \
        {"--trust-proxy", OPTION_TEXTS, &(gate)->proxies, 0, 0},                                   \
        {"--identity-header", OPTION_TEXT, &(gate)->header, 0, 0},                                 \
        {"--insecure-anonymous", OPTION_FLAG, &(gate)->anonymous, 0, 0},                           \
        {"--address-connections", OPTION_COUNT, &(gate)->address_connections, 1, 65536},           \
        {"--address-rate", OPTION_COUNT, &(gate)->address_rate, 1, 65536},

/* What they mean, in the words of --help. */
#define GATE_HELP                                                                                  \
    "    --cert FILE, --key FILE   of https: and wss:, the server's certificate and its key;\n"    \
    "                         `beam cert` makes them for trying\n"                                 \
    "    --client-ca FILE     of https: and wss:, every client needs a certificate that one of\n"  \
    "                         these has signed; it says who it is\n"                               \
    "    --token-file FILE    bearer tokens, a line each: NAME TOKEN\n"                            \
    "    --trust-proxy ADDRESS   a proxy that says who asks: an address, a network "               \
    "(10.0.0.0/8)\n"                                                                               \
    "                         or unix; may be repeated\n"                                          \
    "    --identity-header NAME   ... in this field, which is believed of nobody else\n"           \
    "    --insecure-anonymous   serve also those whom nobody knows\n"                              \
    "    --address-connections N   connections from one address (256); behind a proxy all have\n"  \
    "                         its address\n"                                                       \
    "    --address-rate N     ... and new ones in a second, twice that in a burst (50)\n"

/* For these URLs, with the file of tokens read. -EINVAL, after saying what is missing or wrong. */
int gate_take(struct gate *gate, const struct texts *urls);

/* The value of beam_listen_options.net for a URL, at *net, as long as that and the gate; NULL for a URL that
 * is of no network. */
const struct beam_net_listen *gate_listen(const struct gate *gate, const char *url,
                                          struct beam_net_listen *net);

/* Says why nobody can listen at a URL; returns the exit code. */
int gate_fail(const struct gate *gate, const char *url, int error);

void gate_free(struct gate *gate);

#endif
