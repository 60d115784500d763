/* A store of a runtime in the simulated world, its file on the simulated disk: asked and changed over a
 * session, and followed by a replica, while things go wrong. What has to hold is the same as of a log
 * alone (truth.h), but counts from what a client is told: an answer, a value that is read, a change that the
 * replica has. */
#ifndef SIM_LOG_SERVICE_H
#define SIM_LOG_SERVICE_H

#include "tests/sim_log/life.h"

/* All that follows from a seed. Returns the trace. */
uint64_t services_run(uint64_t seed, bool aloud, struct fault fault);

#endif
