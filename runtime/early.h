/* What comes on a channel before its owner can hear it: see early.c. Core's thread. */
#ifndef BM_EARLY_H
#define BM_EARLY_H

#include <beam/channel.h>

/* Whether what comes now has to wait: because nobody can hear it, or behind what waits already. */
bool bm_early_applies(const beam_channel *channel);
/* Takes over a message that waits. NULL: there was no memory to keep it, and the channel is
 * aborted. */
void bm_early_put(beam_channel *channel, beam_message *message);
/* Bytes of a stream, copied. */
void bm_early_put_bytes(beam_channel *channel, const uint8_t *bytes, uint32_t len);
/* The end of the channel waits too, behind the messages. */
void bm_early_end(beam_channel *channel, const struct beam_status *status);
/* There is somebody to hear it now: has the notify task call bm_early_tell(). */
void bm_early_tell_later(beam_channel *channel);
/* Tells what waits, in its order. */
void bm_early_tell(beam_channel *channel);
/* Frees the messages that wait: nobody will ever hear them. */
void bm_early_drop(beam_channel *channel);

#endif
