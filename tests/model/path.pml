/* A full ring between two reactors (runtime/ring.c, runtime/path.h): the producer asks for room by
 * `want_room` and sleeps, the consumer answers it when it has published its head. Both sleep by the
 * protocol of sleep.pml. A ring of ROOM slots, through which MESSAGES go; whoever waits for ever is an
 * invalid end state.
 *
 * VARIANT 0 is the protocol. Each other one takes one thing away and must fail:
 *   1  the consumer looks at `want_room` plainly instead of taking it         (not with -DSC)
 *   2  the producer stores `want_room` plainly instead of exchanging it       (not with -DSC)
 *   3  the producer asks when it finds the ring full, and not again when it counts as asleep: the
 *      question is taken for room that it has had
 *   4  the producer does not ask at all */
#ifndef VARIANT
#define VARIANT 0
#endif

#define ROOM 2
#define MESSAGES 5
#define PRODUCER 0
#define CONSUMER 1
#define PROCESSORS 2

#define TAIL 0 /* how many slots are filled; the sequence number of the last one */
#define HEAD 1 /* head_shared */
#define WANT 2
#define SLEEPING 3 /* ... of the producer; and of the consumer */
#define CELLS 5

#include "memory.pml"

byte bells[2];

inline wake(me, whom, old)
{
    exchange(me, SLEEPING + whom, 0, old);
    if
    :: old -> bells[whom]++
    :: else
    fi
}

/* Counted as asleep by now: unless there is something after all. */
inline doze(me, again, old)
{
    if
    :: again -> exchange(me, SLEEPING + me, 0, old)
    :: else ->
        d_step { bells[me] > 0 -> bells[me] = 0 }
        if
        :: memory[SLEEPING + me] -> exchange(me, SLEEPING + me, 0, old)
        :: else
        fi
    fi
}

inline ask(old)
{
#if VARIANT == 2
    store(PRODUCER, WANT, 1)
#else
    exchange(PRODUCER, WANT, 1, old)
#endif
}

active proctype producer()
{
    byte sent = 0, head = 0, old;
    do
    :: sent == MESSAGES -> break
    :: sent < MESSAGES && sent - head < ROOM ->
        sent++;
        store(PRODUCER, TAIL, sent);
        wake(PRODUCER, CONSUMER, old)
    :: else ->
        head = memory[HEAD];
        if
        :: sent - head < ROOM
        :: else ->
#if VARIANT == 3
            ask(old);
#endif
            wake(PRODUCER, CONSUMER, old);
            exchange(PRODUCER, SLEEPING + PRODUCER, 1, old);
#if VARIANT != 3 && VARIANT != 4
            ask(old);
#endif
            doze(PRODUCER, sent - memory[HEAD] < ROOM, old)
        fi
    od
}

active proctype consumer()
{
    byte got = 0, old;
    do
    :: got == MESSAGES -> break
    :: got < MESSAGES && memory[TAIL] > got ->
        got++;
        store(CONSUMER, HEAD, got);
#if VARIANT == 1
        old = memory[WANT];
        if
        :: old -> exchange(CONSUMER, WANT, 0, old)
        :: else
        fi;
#else
        exchange(CONSUMER, WANT, 0, old);
#endif
        if
        :: old -> wake(CONSUMER, PRODUCER, old)
        :: else
        fi
    :: else ->
        exchange(CONSUMER, SLEEPING + CONSUMER, 1, old);
        doze(CONSUMER, memory[TAIL] > got, old)
    od
}
