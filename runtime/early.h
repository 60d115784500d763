/* What comes on a channel before its owner can take it. */
#ifndef BM_EARLY_H
#define BM_EARLY_H

#include <beam/channel.h>

/* Whether what comes now has to wait. */
bool bm_early_applies(const beam_channel *channel);
/* A message that waits, taken over; NULL: there was no memory for it, and the channel ends. */
void bm_early_put(beam_channel *channel, beam_message *message);
/* The peer's end of its direction waits too. */
void bm_early_end(beam_channel *channel, const struct beam_status *status);
/* What waited is due, by the core's notify task, which calls bm_early_tell(). */
void bm_early_tell_later(beam_channel *channel);
void bm_early_tell(beam_channel *channel);
/* Nobody will ever take it. */
void bm_early_drop(beam_channel *channel);

#endif
