/* One thing that goes wrong: the n-th allocation of a process, once or with all behind it, or the n-th
 * completion. What has been counted and what has been done lies in the struct, which may be shared
 * between processes; each has its own count, and only the one at the right place is struck.
 *
 * Completions that count are those of operations with an outcome: accepting, connecting, sending,
 * receiving, and what is done to files: writing, syncing, renaming; a file that failed has changed all
 * the same. Not the cancelled ones, and no send whose descriptors the kernel has closed behind it: it
 * cannot be made to have failed. A receive that goes on in the kernel is cancelled, and its last
 * completion is the one that fails: nothing received is hidden. What is hidden of an accept is closed. A
 * send that failed has left all the same, so that of its errors those are chosen after which it is not
 * tried again: the peer would see it twice. */
#ifndef BEAM_TEST_FAULT_H
#define BEAM_TEST_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum fault_kind {
    FAULT_ALLOCATION,  /* the n-th returns NULL */
    FAULT_ALLOCATIONS, /* and all behind it, until it is lifted */
    FAULT_COMPLETION,  /* the n-th ends with an error that its kind of operation can have */
    FAULT_KINDS,
};

enum { FAULT_PLACES = 2 }; /* 0: the process of the case; 1: the one that serves it */

#define FAULT_VARIANTS 3u /* errors for each kind of operation */

struct fault {
    enum fault_kind kind;
    unsigned place;
    int wanted;          /* the error of a completion; 0: one of its kind's, */
    unsigned variant;    /* which error; below FAULT_VARIANTS */
    bool traced;         /* say where it strikes, if a sanitizer is there to do it */
    _Atomic unsigned at; /* counted from 1; 0: none, only count */
    _Atomic bool lifted; /* nothing is counted or goes wrong any more */
    _Atomic bool struck; /* it has gone wrong */
    _Atomic int error;   /* of the completion that was struck, */
    _Atomic unsigned op; /* and its enum bm_op_kind */
    _Atomic unsigned allocations[FAULT_PLACES], completions[FAULT_PLACES];
};

/* From now on, in this process. While no other thread allocates and no reactor runs; fault stays. */
void fault_set(struct fault *fault, unsigned place);

/* Back to what it was. Under the same conditions. */
void fault_unset(void);

/* An error that an operation of this enum bm_op_kind can end with, or 0. */
int fault_error_of(unsigned op_kind, unsigned variant);

#endif
