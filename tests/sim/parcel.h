/* Messages that can be known again: a number, a body that follows from it, and descriptors of files that
 * hold it. */
#ifndef BEAM_TEST_SIM_PARCEL_H
#define BEAM_TEST_SIM_PARCEL_H

#include <beam/beam.h>

struct parcel {
    unsigned id;
    unsigned len;
    unsigned fds;
};

/* Sizes as they come: empty, inline, a frame, several frames. */
struct parcel parcel_any(unsigned id, bool with_fds);

/* A message, or one whose error sticks where memory was short. */
beam_message *parcel_pack(const struct parcel *parcel);

/* The number of a message; UINT_MAX when it has none. */
unsigned parcel_id(const beam_message *message);

/* Ends the run if the message is not this parcel, whole. Its fds stay in it. */
void parcel_check(const beam_message *message, const struct parcel *parcel);

#endif
