/* A service that lives on one core, asked for on another. */
#ifndef BM_FORWARD_H
#define BM_FORWARD_H

#include <beam/message.h>

/* Takes a request (or event) to the core its service runs on: one ring hop. The message is the
 * dispatch's, as with a handler. */
void bm_forward(beam_channel *channel, beam_message *message);

#endif
