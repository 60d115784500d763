/* A service that speaks one codec to callers of any: docs/spec/session.md section 13. What passes
 * between them is converted on the core that runs the handler, so that a hop sees nothing of it.
 * Core's thread. */
#ifndef BM_TRANSCODE_H
#define BM_TRANSCODE_H

#include "runtime/channel.h"
#include "runtime/message.h"

/* A request or an event of a service that has a codec: runs its handler (bm_request_run_handler) with
 * the message in that codec, or refuses it. The message is lent. */
void bm_transcode_run(beam_channel *channel, beam_message *message);

/* beam_channel_set_handlers() on a request of such a service (channel->transcodes): on_message gets
 * what the handler would have got. */
void bm_transcode_set_handlers(beam_request *request, const struct beam_channel_handlers *handlers,
                               void *arg);

/* bm_channel_may_send() and bm_outgoing_admit() of a sealed message, which is in the caller's codec
 * then. Errors as theirs and those of beam_convert(), and the message is as it was. */
int bm_transcode_admit(beam_channel *channel, beam_message *message);

/* Brings a sealed answer into the caller's codec. false: that cannot be; the request has been ended with
 * what stands in its way, and the message is still the caller's. */
bool bm_transcode_answer(beam_request *request, beam_message *message);

#endif
