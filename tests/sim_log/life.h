/* The lives of a log, one after the other, in the simulated world: appended to, synced, compacted, closed,
 * left behind when the process ends or power is lost, and opened again. What has to hold: truth.h, and what
 * kv/log.h says of errors. */
#ifndef SIM_LOG_LIFE_H
#define SIM_LOG_LIFE_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/support/sim/sim.h"

struct fault {
    enum sim_fault kind;
    uint64_t at;
    unsigned variant;
};

/* All that follows from a seed, in a directory that is made and removed. Returns the trace. */
uint64_t lives_run(uint64_t seed, bool aloud, struct fault fault);

#endif
