/* The transports of the program, and what can be told from a URL. */
#ifndef CLI_TRANSPORTS_H
#define CLI_TRANSPORTS_H

#include <beam/beam.h>

/* The value of beam_runtime_options.transports. */
extern const struct beam_transport *const transports_all[];

/* https:, http:, wss:, ws: or http+unix:. */
bool transport_is_net(const char *url);
/* https: or wss:. */
bool transport_is_secure(const char *url);
/* The peer may be on another machine. */
bool transport_is_tcp(const char *url);

#endif
