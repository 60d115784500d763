/* A service that lives on one core, asked for on another: one ring hop. */
#ifndef BM_FORWARD_H
#define BM_FORWARD_H

#include <beam/message.h>

struct bm_core;

/* Takes a request (or event) to the core its service runs on. The message is the dispatch's, as with
 * a handler. */
void bm_forward(beam_channel *channel, beam_message *message);

/* The sender of forwarded events is done. */
void bm_forward_events_ended(beam_channel *channel);

#endif
