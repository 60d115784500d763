/* Streams of their own between the client and the server of dial_rig.h: a service that takes a stream, or
 * gives one, and both ends of it. */
#ifndef TEST_DEDICATED_RIG_H
#define TEST_DEDICATED_RIG_H

#include "net/dedicated_stream.h"
#include "net/proto/h2.h"
#include "tests/unit/net/dial_rig.h"
#include "tests/unit/net/stream_sides.h"

static struct side here, there; /* the client's end, the server's */
static bool serves;             /* the server attaches the stream, else the client */
static struct rig_answer answer;

static void on_take(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *reply = beam_message_new();
    (void)arg;
    if (serves) {
        beam_stream *stream = beam_message_attach_stream(reply);
        if (stream) {
            beam_stream_dedicate(stream);
            side_take(&there, stream);
        }
    } else {
        side_take(&there, beam_message_take_stream(message, 0));
    }
    beam_reply(request, &reply);
}

static void on_taken(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)arg;
    answer.count++;
    answer.code = status->code;
    if (serves && status->code == BEAM_OK)
        side_take(&here, beam_message_take_stream(message, 0));
}

static inline void begin(struct beam_net_connect *net)
{
    here = there = (struct side){0};
    serves = false;
    rig_begin(false);
    REQUIRE_INT(beam_serve(rig.runtime, "take", on_take, NULL), 0);
    rig_connect("http", net);
    RIG_UNTIL(rig.opens > 0);
}

/* Attaches a stream, and sends the message. */
static inline int attach(bool dedicate)
{
    beam_message *message = beam_message_new();
    answer = (struct rig_answer){0};
    if (!serves) {
        beam_stream *stream = beam_message_attach_stream(message);
        if (stream && dedicate)
            beam_stream_dedicate(stream);
        if (stream)
            side_take(&here, stream);
    }
    int r = beam_call(rig.session, "take", &message, on_taken, NULL, NULL);
    beam_message_free(message);
    return r;
}

static inline void free_sides(void)
{
    here.stream = beam_stream_free(here.stream);
    there.stream = beam_stream_free(there.stream);
}

static inline void end(void)
{
    free_sides();
    rig_end();
}

static inline struct bm_net_session *client(void)
{
    return bm_net_session_of(rig.session);
}

/* The channel of an end, for as long as it has a handle. */
static inline beam_channel *channel_of(const struct side *side)
{
    return (beam_channel *)side->stream;
}

static inline struct bm_dedicated_stream *stream_of(const struct side *side)
{
    struct bm_dedicated *way = channel_of(side)->dedicated;
    return way ? bm_container_of(way, struct bm_dedicated_stream, way) : NULL;
}

static inline void expect_all(bool apart)
{
    RIG_UNTIL(here.ends > 0 && there.ends > 0);
    CHECK_INT(here.code, BEAM_OK);
    CHECK_INT(there.code, BEAM_OK);
    CHECK_UINT(there.got, here.wants);
    CHECK_UINT(here.got, there.wants);
    CHECK_UINT(here.wrong + there.wrong, 0);
    CHECK(here.wants == 0 || there.apart == apart);
    CHECK(here.wants == 0 || there.together == !apart);
    CHECK(there.wants == 0 || here.apart == apart);
    CHECK(there.wants == 0 || here.together == !apart);
}

#endif
