/* One ring hop (to be written in full below). */
#include "runtime/forward.h"

#include "runtime/channel.h"

void bm_forward(beam_channel *channel, beam_message *message)
{
    (void)message;
    bm_channel_abort(channel, BEAM_UNIMPLEMENTED, "not yet");
}
