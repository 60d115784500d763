/* Going to sleep without missing anything, and waking who sleeps. */
#ifndef BM_SLEEP_H
#define BM_SLEEP_H

#include <stdbool.h>
#include <stdint.h>

struct bm_reactor;

/* The consumer's half of the protocol. begin: false when there is work, and then we are awake. */
bool bm_sleep_begin(struct bm_reactor *reactor);
void bm_sleep_end(struct bm_reactor *reactor);

/* Sleeps until something comes, the next timer is due, or at once when something is there. */
void bm_reactor_sleep(struct bm_reactor *reactor);

/* The full protocol for every peer that bm_reactor_wake_soon() only looked at. */
void bm_wake_dirty(struct bm_reactor *from);

/* Writes the target's eventfd; any thread, async-signal-safe. */
void bm_doorbell_eventfd(struct bm_reactor *to);

/* Completions of doorbells. rang_ns: the sender's clock, 0 when it is not known. */
void bm_doorbell_taken(struct bm_reactor *reactor, uint64_t rang_ns);
void bm_doorbell_failed(struct bm_reactor *to);

#endif
