/* Memory as the models see it, on a machine with store buffers (x86: total store order) or, with -DSC, on
 * one without (sequential consistency): what fails on the first alone fails for want of an ordering, and
 * not for another mistake of the model.
 *
 * A plain store goes into the buffer of its processor and reaches memory some time later; a
 * read-modify-write waits until its own buffer is empty. A plain load reads memory: in these models no
 * protocol loads what its own side has stored plainly, and may still have in its buffer.
 *
 * CELLS addresses and PROCESSORS processors are the model's to define. */
byte memory[CELLS];

#ifdef SC
inline store(who, address, value) { memory[address] = value }
#define EMPTY(who) true
#else
chan buffer[PROCESSORS] = [2] of { byte, byte }; /* address, value */

inline store(who, address, value) { buffer[who]!address, value }
#define EMPTY(who) (len(buffer[who]) == 0)

/* Whatever is at the front of a buffer may arrive at any time. */
active proctype arrivals()
{
    byte address, value;
end:
    do
    :: atomic { buffer[0]?address, value -> memory[address] = value }
    :: atomic { buffer[1]?address, value -> memory[address] = value }
#if PROCESSORS > 2
    :: atomic { buffer[2]?address, value -> memory[address] = value }
#endif
    od
}
#endif

inline exchange(who, address, value, old)
{
    atomic { EMPTY(who); old = memory[address]; memory[address] = value }
}

/* old: what it was before. */
inline add(who, address, value, old)
{
    atomic { EMPTY(who); old = memory[address]; memory[address] = memory[address] + value }
}
