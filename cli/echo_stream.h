/* A stream on which what comes goes back. */
#ifndef CLI_ECHO_STREAM_H
#define CLI_ECHO_STREAM_H

#include <beam/beam.h>

/* Takes the stream: its bytes come back until the caller ends it, then it is ended and freed. Reset
 * at once without memory. Reactor's thread, within the callback that brought the stream. */
void echo_stream_start(beam_stream *stream);

#endif
