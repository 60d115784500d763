/* Messages that somebody keeps for a while, whatever becomes of their channel, session and runtime. */
#ifndef BEAM_TEST_SIM_HOARD_H
#define BEAM_TEST_SIM_HOARD_H

#include <beam/beam.h>

/* In a handler: keeps the message, perhaps. */
void hoard_keep(const beam_message *message);
/* Lets some of them go. */
void hoard_thin(void);
/* Lets all go; false: there were none. */
bool hoard_empty(void);

#endif
