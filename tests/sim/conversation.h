/* A conversation in the simulated world.
 *
 * A server and two clients, three runtimes on one thread, sessions over unix sockets. The clients call, are
 * called back, open lines, attach channels and descriptors, send events, give up, break connections, leave
 * and come back; the server may go and come again (GOAWAY). What goes wrong besides follows from the seed: a
 * quarter of the seeds has no trouble at all, and there everything must succeed. When all is done the
 * trouble ends, and the service must answer new sessions.
 *
 * In the end everything made has been told its end, once and truly, and descriptors and memory are what
 * they were. Whatever is broken, sim_fail() says so with the seed. */
#ifndef BEAM_TEST_SIM_CONVERSATION_H
#define BEAM_TEST_SIM_CONVERSATION_H

#include "tests/support/sim/sim.h"

/* One thing that goes wrong besides, and where. */
struct fault {
    enum sim_fault kind;
    uint64_t at;
};

/* Returns the digest of all that happened. */
uint64_t conversation_run(uint64_t seed, bool aloud, struct fault fault);

#endif
