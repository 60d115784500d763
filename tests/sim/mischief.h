/* What an application may do in any of its callbacks. main.c has it. */
#ifndef BEAM_TEST_SIM_MISCHIEF_H
#define BEAM_TEST_SIM_MISCHIEF_H

#include <beam/beam.h>

/* On a reactor of this runtime, at the end of a callback: mostly nothing. */
void mischief(beam_runtime *home);

#endif
