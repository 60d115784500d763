/* The end of a mailbox, and its room (uring/mailbox.c): two posters and a consumer that shuts the box at
 * some time, waits until nobody is inside and runs what was accepted. The box has one slot, so that
 * posters wait for room (bm_mailbox_post_wait). What was accepted must have run, and nobody waits for ever.
 *
 * VARIANT 0 is the protocol. Each other one takes one thing away and must fail:
 *   1  a poster comes in by a plain store                                     (not with -DSC)
 *   2  a poster looks whether the box is shut before it has come in
 *   3  a poster reads `room` when it has already found the box full
 *   4  the consumer looks plainly for waiters when it has made room           (not with -DSC)
 *   5  the box that is shut does not announce room, for those who wait
 *   6  the consumer looks who is inside before it shuts the box
 *
 * `inside` has a cell for each poster here, which for read-modify-writes is the same. */
#ifndef VARIANT
#define VARIANT 0
#endif

#define POSTERS 2
#define CONSUMER POSTERS
#define PROCESSORS (POSTERS + 1)

#define FREE 0 /* the slot's sequence number: how often it has been given back */
#define FULL 1 /* ... and filled */
#define TAIL 2
#define SHUT 3
#define WAITERS 4
#define ROOM 5   /* the futex */
#define INSIDE 6 /* of the first poster; and of the second */
#define CELLS 8

#include "memory.pml"

byte accepted, ran, over;

inline announce_room(old) { add(CONSUMER, ROOM, 1, old) }

/* done: it is in; else the box was full. */
inline put(me, done, at)
{
    atomic {
        EMPTY(me);
        if
        :: memory[FREE] == memory[TAIL] -> at = memory[TAIL]; memory[TAIL] = at + 1; done = 1
        :: else -> done = 0
        fi
    };
    if
    :: done -> store(me, FULL, at + 1)
    :: else
    fi
}

proctype poster(byte me)
{
    byte old, room, at, done = 0, shut;
#if VARIANT == 2
    shut = memory[SHUT];
    add(me, INSIDE + me, 1, old);
#elif VARIANT == 1
    store(me, INSIDE + me, 1);
    shut = memory[SHUT];
#else
    add(me, INSIDE + me, 1, old);
    shut = memory[SHUT];
#endif
    if
    :: shut
    :: else ->
        put(me, done, at);
        if
        :: done
        :: else ->
            add(me, WAITERS, 1, old);
            do
            :: true ->
#if VARIANT != 3
                room = memory[ROOM];
#endif
                if
                :: memory[SHUT] -> break
                :: else
                fi;
                put(me, done, at);
                if
                :: done -> break
                :: else
                fi;
#if VARIANT == 3
                room = memory[ROOM];
#endif
                memory[ROOM] != room /* FUTEX_WAIT */
            od;
            add(me, WAITERS, -1, old)
        fi
    fi;
    accepted = accepted + done;
    add(me, INSIDE + me, -1, old);
    over++
}

/* One call, if there is one: the slot is given back before it runs. */
inline run_one(old)
{
    store(CONSUMER, FREE, memory[FULL]);
    ran++;
#if VARIANT == 4
    old = memory[WAITERS];
#else
    add(CONSUMER, WAITERS, 0, old);
#endif
    if
    :: old > 0 -> announce_room(old)
    :: else
    fi
}

inline shut_box(old)
{
    exchange(CONSUMER, SHUT, 1, old);
#if VARIANT != 5
    announce_room(old)
#endif
}

inline settle() { memory[INSIDE] == 0 && memory[INSIDE + 1] == 0 }

active proctype consumer()
{
    byte old;
    do
    :: memory[FULL] > ran -> run_one(old)
    :: memory[FULL] == ran && ran < POSTERS -> memory[FULL] > ran /* it sleeps: not all have posted */
    :: true -> break /* it ends */
    od;
#if VARIANT == 6
    settle();
    shut_box(old);
#else
    shut_box(old);
    settle();
#endif
    do
    :: memory[FULL] > ran -> run_one(old)
    :: else -> break
    od;
    over++
}

init
{
    atomic { run poster(0); run poster(1) };
    over == POSTERS + 1;
    assert(ran == accepted)
}
