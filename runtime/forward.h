/* A *hop*: a service that runs on one core, asked for on another. Core's thread, the one on which
 * the request came in. */
#ifndef BM_FORWARD_H
#define BM_FORWARD_H

#include <beam/message.h>

struct bm_core;

/* Takes a request, or an event, to the core its service runs on. The message is borrowed, as by a
 * handler. */
void bm_forward(beam_channel *channel, beam_message *message);

/* The sender of events that have been forwarded has ended its channel, or is lost. */
void bm_forward_events_ended(beam_channel *channel, enum beam_code code);

#endif
