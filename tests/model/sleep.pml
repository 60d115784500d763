/* The sleep protocol of uring/sleep.c: two producers publish MESSAGES each, the consumer has to see them
 * all; a lost wake-up is a consumer that blocks for ever: an invalid end state.
 *
 * Each message is published in a ring of its producer's own (uring/spsc.h) or, with -DMAILBOX, in one box
 * of all (uring/mailbox.c): there the producers take positions, and the consumer gets no further than the
 * first that is taken and not filled. And each is told by bm_reactor_wake(), or by bm_reactor_wake_soon()
 * and, at the end of the turn, bm_wake_dirty().
 *
 * VARIANT 0 is the protocol. Each other one takes one thing away and must fail:
 *   1  the consumer stores `sleeping` plainly instead of exchanging it        (not with -DSC)
 *   2  the producer looks at `sleeping` plainly, and at no other time         (not with -DSC)
 *   3  the consumer does not look again after it has set `sleeping`
 *   4  a producer that took the flag does not ring before it returns, but only at the end of its turn,
 *      for which it waits until the consumer has seen what the other producer published */
#ifndef VARIANT
#define VARIANT 0
#endif

#define PRODUCERS 2
#define MESSAGES 2
#define ALL (PRODUCERS * MESSAGES)
#define CONSUMER PRODUCERS
#define PROCESSORS (PRODUCERS + 1)

/* Addresses: slots (of the box, or one after the other of each ring), the flag, the next position. */
#define SLEEPING ALL
#define TAIL (ALL + 1)
#define CELLS (ALL + 2)

#include "memory.pml"

byte bells; /* doorbells in the completion queue: the kernel's, and ordered */
byte seen[PRODUCERS]; /* of each ring; the box: all in the first */

#ifdef MAILBOX
#define NEXT(p) (seen[0] < ALL && memory[seen[0]])
#define SEEN_ALL (seen[0] == ALL)
#define OTHER_SEEN(me) (seen[0] >= MESSAGES)
#else
#define NEXT(p) (seen[p] < MESSAGES && memory[(p) * MESSAGES + seen[p]])
#define SEEN_ALL (seen[0] == MESSAGES && seen[1] == MESSAGES)
#define OTHER_SEEN(me) (seen[1 - me] == MESSAGES)
#endif

/* bm_reactor_wake(), and what bm_wake_dirty() does for each. */
inline wake(me, old)
{
    exchange(me, SLEEPING, 0, old);
    if
    :: old ->
#if VARIANT == 4
        OTHER_SEEN(me);
#endif
        bells++
    :: else
    fi
}

inline wake_soon(me, old, dirty)
{
    if
    :: memory[SLEEPING] -> wake(me, old)
    :: else -> dirty = 1
    fi
}

proctype producer(byte me)
{
    byte n = 0, old, at, dirty = 0;
    do
    :: n == MESSAGES -> break
    :: else ->
#ifdef MAILBOX
        add(me, TAIL, 1, at);
#else
        at = me * MESSAGES + n;
#endif
        n++;
        store(me, at, 1);
        if
#if VARIANT != 2
        :: wake(me, old)
        :: dirty -> dirty = 0; wake(me, old) /* the turn ends */
#endif
        :: wake_soon(me, old, dirty)
        fi
    od;
#if VARIANT != 2
    if
    :: dirty -> wake(me, old)
    :: else
    fi
#endif
}

active proctype consumer()
{
    byte old;
    do
    :: NEXT(0) -> seen[0]++
#ifndef MAILBOX
    :: NEXT(1) -> seen[1]++
#endif
    :: SEEN_ALL -> break
    :: else ->
#if VARIANT == 1
        store(CONSUMER, SLEEPING, 1);
#else
        exchange(CONSUMER, SLEEPING, 1, old);
#endif
        if
#if VARIANT != 3
        :: NEXT(0) || NEXT(1) -> exchange(CONSUMER, SLEEPING, 0, old)
#endif
        :: else ->
            d_step { bells > 0 -> bells = 0 } /* the kernel: sleeps until there is a completion */
            if
            :: memory[SLEEPING] -> exchange(CONSUMER, SLEEPING, 0, old)
            :: else
            fi
        fi
    od
}

init { atomic { run producer(0); run producer(1) } }
