/* The services that the program brings. */
#ifndef CLI_SERVICES_H
#define CLI_SERVICES_H

#include <beam/beam.h>

/* One kind of service. add() offers it under `name`; `argument` is what follows the colon, or
 * NULL. */
struct service_kind {
    const char *name;
    const char *argument; /* "DIR", or NULL when it takes none */
    const char *summary;  /* one line for --help */
    int (*add)(beam_runtime *runtime, const char *name, const char *argument);
};

extern const struct service_kind service_echo, service_file, service_clock, service_reverse,
    service_kv, service_whoami;

/* Offers what "[NAME=]KIND[:ARGUMENT]" says. Prints what is wrong; returns an enum exit_status. */
int service_add(beam_runtime *runtime, const char *text);

/* Where `kv` keeps what it is given, "none" or NULL: in memory; and when a change is done, NULL: each.
 * Before it is added. Prints what is wrong; -EINVAL. */
int service_kv_options(const char *store, const char *sync);

/* What became of it once the runtime ran, which it stopped if it could not begin: an enum exit_status. */
int service_kv_status(void);

/* One line for each kind. */
void service_list(FILE *out);

#endif
