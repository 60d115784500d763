/* A world of one thread for the production code: a kernel (kernel.c, behind uring/kernel.h), a clock,
 * luck, and memory that remembers what was freed. Everything that happens in it follows from a seed.
 *
 * What is simulated is *when* and *whether*: operations are late, refused, reordered and cancelled in the
 * wrong moment, multishots end, buffers and descriptors run out, the completion queue overflows, as far as
 * io_uring may do that to us. What an operation does once its time has come is real: it is a system call
 * on a real socket, so the rules of unix(7) need not be played, and descriptors that leak are real ones.
 * A packet of SOCK_SEQPACKET comes whole or not at all; what can be short is the fds that came with it.
 * Files are real, too, and what of them a loss of power would leave is known to disk.h.
 *
 * The host turns embedded runtimes one after the other (sim_turn); between two turns time may pass. A
 * broken rule prints the seed and ends the process: see sim_fail(). */
#ifndef BEAM_TEST_SIM_H
#define BEAM_TEST_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include <beam/beam.h>

#define SIM_NEVER UINT64_MAX

/* How often, in 10 000 opportunities, each kind of trouble comes. */
struct sim_odds {
    unsigned late;       /* an operation waits, although it could be done */
    unsigned refused;    /* an operation fails as it may at any time: no memory, interrupted, ... */
    unsigned no_buffer;  /* a receive is told that there is no buffer */
    unsigned ends_early; /* a multishot ends after one of its results */
    unsigned no_fds; /* a receive finds the table of descriptors full (MSG_CTRUNC), an accept too */
    unsigned many_refs;   /* a send of descriptors is told ETOOMANYREFS */
    unsigned enter;       /* an enter is refused, or takes only a part of the queue */
    unsigned reorder;     /* deferred work is done in another order */
    unsigned cancel_race; /* a cancellation comes too late, or half too late */
    unsigned no_memory;   /* an allocation fails */
    unsigned spurious;    /* a runtime is turned although it has not asked */
    unsigned short_write; /* a write to a file is told that only a part went */
    unsigned short_send;  /* a stream takes only a part of what is sent */
    unsigned short_recv;  /* a receive from a stream gets only a part of what is there */
    unsigned blocking;    /* a call that blocks on a file fails (disk.h) */
    unsigned no_room;     /* ... and one that sets room aside in it */
    unsigned stuck;       /* what is done to a file takes twenty seconds */
    bool small_ring;      /* the completion queue holds four, so that it overflows */
};

/* One thing that goes wrong at a certain place, beside what the odds bring. Places are counted from 1. */
enum sim_fault {
    SIM_NO_FAULT,
    SIM_ALLOCATION,  /* the allocation of this number is refused, */
    SIM_ALLOCATIONS, /* ... and all that come after it */
    SIM_OPERATION,   /* the attempt of this number to do an operation fails; calls that block on a
                        file count, too */
};

struct sim {
    uint64_t seed;
    uint64_t now_ns;
    struct sim_odds odds;
    enum sim_fault fault;
    uint64_t fault_at;
    unsigned fault_variant;           /* which of the errors it can have, from 1; 0: any */
    uint64_t allocations, operations; /* so far */
    bool scarce;                      /* an allocation has been refused */
    uint64_t trace;                   /* digest of all that happened: equal for equal seeds */
    uint64_t events;
    bool aloud; /* print the events */
};
extern struct sim sim;

/* Puts clock, luck and memory in place; the world begins without trouble, until sim.odds is set. */
void sim_start(uint64_t seed, bool aloud);
/* Everything given back, descriptors and memory as they were before sim_start()? Puts the real clock and memory
 * back. */
void sim_stop(void);

/* Luck, the same for the same seed. */
uint64_t sim_below(uint64_t bound);
bool sim_chance(unsigned of_10000);

/* Something happened: goes into the trace, and is printed when that was asked for. Nothing that differs
 * from run to run (an address, a process id) may be in it. */
__attribute__((format(printf, 1, 2))) void sim_event(const char *format, ...);

/* A rule was broken: says which, with the seed and how to run it again, and ends the process with 1. */
__attribute__((format(printf, 1, 2), noreturn)) void sim_fail(const char *format, ...);

/* Options that a run needs besides, with a blank behind each. */
extern const char *sim_again;
/* Called before that, if it is set: to remove what would stay behind. */
extern void (*sim_on_fail)(void);

/* Has the kernels see what has become possible, and tells their runtimes. */
void sim_notice(void);
/* The time at which the next operation is due; SIM_NEVER. */
uint64_t sim_next_ns(void);
void sim_advance(uint64_t to_ns);

/* Breaks one connection of this runtime, whichever it is, as the death of its peer would: both ends read
 * what has arrived, then the end. Sometimes only one direction breaks. false: it has none. */
bool sim_cut(beam_runtime *runtime);

#endif
