/* The calls of a run, and what is known of each: both ends write it down, since both are here. */
#ifndef BEAM_TEST_SIM_CALL_H
#define BEAM_TEST_SIM_CALL_H

#include <beam/beam.h>

#include "tests/sim/line.h"
#include "tests/sim/parcel.h"

enum call_kind {
    CALL_ECHO,   /* the parcel comes back */
    CALL_NESTED, /* the one who is asked asks back, down to a depth */
    CALL_SLOW,   /* answered late, or never */
    CALL_TALK,   /* a request that stays open: a line */
    CALL_GIFT,   /* with a channel and a stream attached: two lines */
    CALL_NOBODY, /* for a service that nobody serves */
};

struct call {
    enum call_kind kind;
    struct parcel parcel;
    unsigned depth;
    bool hurried;               /* has a deadline that may well pass, or ends with its parent */
    bool strict;                /* made when nothing went wrong any more */
    unsigned ran;               /* how often a handler has seen it */
    unsigned made, told;        /* beam_call said 0; on_reply, or on_end of the line, has run */
    enum beam_code code;        /* as told */
    struct line_end *theirs[2]; /* TALK, GIFT: the ends that the server is to take */
};

/* Makes one and has it sent over a session of a runtime, on its reactor; parent may be NULL. false: it was
 * refused; `then` has run all the same. */
bool call_make(beam_runtime *runtime, beam_session *session, enum call_kind kind, unsigned depth,
               beam_request *parent, void (*then)(void *arg, enum beam_code code), void *arg);

/* Whether a call, or an event, may be refused so as things are. */
bool call_may_be_refused(int r);

/* Serves what calls ask for. */
int calls_serve(beam_runtime *runtime);

/* From now on calls have time, and no fault is put up with: each must end with OK. */
void calls_be_strict(void);

unsigned calls_open(void);
/* Every call was told its end once, and what it was told is true. calm: nothing went wrong in this run. */
void calls_check(bool calm);
void calls_print_open(void);
void calls_forget(void);

#endif
