/* Bytes over a stream between two ops of one reactor, in the simulated world. */
#ifndef BEAM_TEST_SIM_BYTES_H
#define BEAM_TEST_SIM_BYTES_H

#include <stdint.h>

/* Whatever happens to the ops: what is said to have gone comes, once and in order, then the end. */
void bytes_run(uint64_t seed);

#endif
