/* Every case of attached channels once more, whose streams have streams of their own where a carrier has
 * such (beam_stream_dedicate): what is promised is the same. */
#include "tests/support/flow.h"

static beam_stream *attach_dedicated(beam_message *message)
{
    beam_stream *stream = beam_message_attach_stream(message);
    if (stream)
        beam_stream_dedicate(stream);
    return stream;
}

#define beam_message_attach_stream attach_dedicated
#define WITHOUT_CREDIT
#include "tests/flow/test_attached.c"
