/* The two ends of one stream: each writes a run of bytes whose values are known, and judges what comes. */
#ifndef TEST_STREAM_SIDES_H
#define TEST_STREAM_SIDES_H

#include <stdio.h>

#include <beam/beam.h>

#include "runtime/channel.h"
#include "runtime/dedicated.h"
#include "tests/support/test.h"

struct side {
    beam_stream *stream;
    uint64_t wants, wrote; /* bytes; then it ends */
    bool stays;            /* ... but for this */
    bool holds;            /* what comes is not done with */
    uint64_t held;
    uint64_t got, wrong;
    unsigned ends;
    enum beam_code code;
    char text[256];
    bool apart, together; /* bytes came by a stream of its own; in the session */
};

static inline uint8_t side_byte(uint64_t i)
{
    return (uint8_t)(i * 7 + (i >> 8));
}

static inline void side_write(struct side *side)
{
    uint8_t bytes[10000];
    while (side->wrote < side->wants) {
        size_t len = sizeof(bytes) < side->wants - side->wrote
                         ? sizeof(bytes)
                         : (size_t)(side->wants - side->wrote);
        for (size_t i = 0; i < len; i++)
            bytes[i] = side_byte(side->wrote + i);
        ssize_t n = beam_stream_write(side->stream, bytes, len);
        if (n < 0)
            return; /* on_writable, or on_end */
        side->wrote += (uint64_t)n;
    }
    if (!side->stays)
        beam_stream_end(side->stream);
}

static void side_on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct side *side = arg;
    const uint8_t *bytes = data;
    bool apart = ((const beam_channel *)stream)->dedicated_state == BM_DEDICATED_FLOWS;
    for (size_t i = 0; i < len; i++)
        side->wrong += bytes[i] != side_byte(side->got + i);
    side->got += len;
    side->apart |= apart;
    side->together |= !apart;
    if (side->holds) {
        beam_stream_hold(stream);
        side->held += len;
    }
}

static void side_on_writable(beam_stream *stream, void *arg)
{
    (void)stream;
    side_write(arg);
}

static void side_on_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    struct side *side = arg;
    (void)stream;
    side->ends++;
    side->code = status->code;
    snprintf(side->text, sizeof(side->text), "%.*s", BEAM_STR(status->message));
}

static const struct beam_stream_handlers side_handlers = {side_on_data, side_on_writable,
                                                          side_on_end};

static inline void side_take(struct side *side, beam_stream *stream)
{
    REQUIRE(stream != NULL);
    side->stream = stream;
    beam_stream_set_handlers(stream, &side_handlers, side);
    if (side->wants > 0)
        side_write(side);
}

static inline void side_release(struct side *side)
{
    uint64_t held = side->held;
    side->holds = false;
    side->held = 0;
    beam_stream_release(side->stream, (size_t)held);
}

#endif
