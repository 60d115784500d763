/* A look into the books of a runtime: whatever goes wrong, credit is neither made nor given twice. */
#ifndef BEAM_TEST_SIM_AUDIT_H
#define BEAM_TEST_SIM_AUDIT_H

#include <beam/beam.h>

/* Between two turns. Ends the run if the books of a session or a channel cannot be true. */
void audit(const beam_runtime *runtime);

#endif
