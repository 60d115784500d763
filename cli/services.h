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

extern const struct service_kind service_echo, service_file, service_clock, service_reverse;

/* Offers what "[NAME=]KIND[:ARGUMENT]" says. Prints what is wrong; returns an enum exit_status. */
int service_add(beam_runtime *runtime, const char *text);

/* One line for each kind. */
void service_list(FILE *out);

#endif
