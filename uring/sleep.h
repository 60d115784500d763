/* Going to sleep without missing anything, and waking who sleeps. */
#ifndef BM_SLEEP_H
#define BM_SLEEP_H

#include <stdbool.h>
#include <stdint.h>

struct bm_reactor;

/* The consumer's half of the protocol. After true the caller may block, and wakes ring a doorbell;
 * false: there is work, and the reactor counts as awake. */
bool bm_sleep_begin(struct bm_reactor *reactor);
/* Awake again, however it came about. */
void bm_sleep_end(struct bm_reactor *reactor);

/* Submits and sleeps until something comes or the next timer is due; not at all if there is work. */
void bm_reactor_sleep(struct bm_reactor *reactor);

/* Wakes, by the full protocol, every peer that bm_reactor_wake_soon() has put off. */
void bm_wake_dirty(struct bm_reactor *from);

/* Writes the target's eventfd; any thread, async-signal-safe. */
void bm_doorbell_eventfd(struct bm_reactor *to);

/* Completions of doorbells. rang_ns: the sender's clock, 0 when it is not known. */
void bm_doorbell_taken(struct bm_reactor *reactor, uint64_t rang_ns);
void bm_doorbell_failed(struct bm_reactor *to);

#endif
