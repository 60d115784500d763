/* The sleep protocol of uring/sleep.c on a machine with store buffers (x86: total store order).
 *
 * A plain store goes into the buffer of its processor and reaches memory some time later; a
 * read-modify-write waits until the buffer is empty. Two producers publish MESSAGES each, the consumer
 * has to see them all; a lost wake-up is a consumer that blocks for ever: an invalid end state.
 *
 * VARIANT 0 is the protocol. Each other one takes one thing away and must fail:
 *   1  the consumer stores `sleeping` plainly instead of exchanging it
 *   2  the producer looks at `sleeping` without a read-modify-write
 *   3  the consumer does not look again after it has set `sleeping`
 *   4  a producer that took the flag does not ring before it returns, but only at the end of its turn,
 *      for which it waits until the consumer has seen what the other producer published */
#ifndef VARIANT
#define VARIANT 0
#endif

#define PRODUCERS 2
#define MESSAGES 2
#define CONSUMER PRODUCERS
#define SLEEPING PRODUCERS /* address of the flag; the data of producer p is at address p */

byte memory[PRODUCERS + 1];
chan buffer[PRODUCERS + 1] = [2] of { byte, byte }; /* address, value */
byte bells; /* doorbells in the completion queue: the kernel's, and ordered */
byte seen[PRODUCERS];

inline store(who, address, value) { buffer[who]!address, value }

inline exchange(who, value, old)
{
    atomic {
        len(buffer[who]) == 0;
        old = memory[SLEEPING];
        memory[SLEEPING] = value
    }
}

/* The memory system: whatever is at the front of a buffer may arrive at any time. */
active proctype arrivals()
{
    byte address, value;
end:
    do
    :: atomic { buffer[0]?address, value -> memory[address] = value }
    :: atomic { buffer[1]?address, value -> memory[address] = value }
    :: atomic { buffer[CONSUMER]?address, value -> memory[address] = value }
    od
}

proctype producer(byte me)
{
    byte n = 0, old;
    do
    :: n == MESSAGES -> break
    :: else ->
        n++;
        store(me, me, n);
#if VARIANT == 2
        old = memory[SLEEPING];
        if
        :: old -> store(me, SLEEPING, 0)
        :: else
        fi;
#else
        exchange(me, 0, old);
#endif
        if
        :: old ->
#if VARIANT == 4
            seen[1 - me] == MESSAGES;
#endif
            bells++
        :: else
        fi
    od
}

inline drain()
{
    d_step { seen[0] = memory[0]; seen[1] = memory[1] }
}

active proctype consumer()
{
    byte old;
    do
    :: drain();
        if
        :: seen[0] == MESSAGES && seen[1] == MESSAGES -> break
        :: else
        fi;
#if VARIANT == 1
        store(CONSUMER, SLEEPING, 1);
#else
        exchange(CONSUMER, 1, old);
#endif
        if
#if VARIANT != 3
        :: memory[0] != seen[0] || memory[1] != seen[1] -> exchange(CONSUMER, 0, old)
#endif
        :: else ->
            d_step { bells > 0 -> bells = 0 } /* the kernel: sleeps until there is a completion */
            if
            :: memory[SLEEPING] -> exchange(CONSUMER, 0, old)
            :: else
            fi
        fi
    od
}

init { atomic { run producer(0); run producer(1) } }
