/* A line: a channel over which each end sends numbered parcels as credit allows, then ends its
 * direction; or a stream of bytes that are known by their place. Either end may give up at any time. */
#ifndef BEAM_TEST_SIM_LINE_H
#define BEAM_TEST_SIM_LINE_H

#include <beam/beam.h>

#define LINE_LEN_MAX 24u

struct line_end {
    struct line_end *other;
    beam_channel *channel; /* one of these */
    beam_stream *stream;
    beam_runtime *home;    /* whose reactor it lives on */
    beam_request *request; /* ended with the line; NULL: the handle is freed then */
    unsigned salt;         /* of what it sends */
    unsigned count;        /* of parcels, or bytes */
    unsigned sent, received;
    unsigned give_up_at; /* after so many sent or received; 0: never */
    bool ended;          /* our direction was ended in order */
    bool over;           /* nothing more is told */
};

/* Two ends that know each other, of which none has a channel yet. */
struct line_end *line_new(struct line_end *ret_other[static 1]);

/* On the reactor of home. */
void line_take_channel(struct line_end *end, beam_runtime *home, beam_channel *channel,
                       beam_request *request);
void line_take_stream(struct line_end *end, beam_runtime *home, beam_stream *stream);

/* An end that will never come about. */
void line_cancel(struct line_end *end);
/* Gives up a line from outside of its handlers. */
void line_give_up(struct line_end *end);

/* All of the run: ends that are not over, for the report of a hang; and freeing. */
unsigned line_count_open(void);
/* Nobody may send more than this without an answer. */
void line_check_all(uint32_t window);
/* One of those that are open on this reactor, whichever; NULL. */
struct line_end *line_any_open(const beam_runtime *home);
void lines_free(void);

#endif
