/* How long a reactor looks for work before it sleeps: a budget that has to be earned. Reactor's
 * thread. */
#ifndef BM_SPINNER_H
#define BM_SPINNER_H

#include <stdbool.h>
#include <stdint.h>

struct bm_reactor;

struct bm_spinner {
    bool always;
    bool adaptive;
    bool proven;         /* a spin has hit since the budget was granted */
    uint32_t short_run;  /* short sleeps in a row */
    uint32_t short_need; /* so many of them grant a budget; doubles with every failure */
    uint32_t spins;
    uint64_t budget_ns;
    uint64_t wake_ns; /* moving median of the measured cost of a wake; 0: not measured */
};

void bm_spinner_init(struct bm_spinner *spinner, bool always, bool adaptive);

/* Measures the cost of a wake with a few timed sleeps, if spinning is a question at all. */
void bm_spinner_calibrate(struct bm_reactor *reactor);

/* A sleep has ended: runs of short ones grant a budget. */
void bm_spinner_slept(struct bm_spinner *spinner, uint64_t slept_ns);
/* What a wake has cost this time. */
void bm_spinner_sample_wake(struct bm_spinner *spinner, uint64_t wake_ns);

/* Looks for work for as long as the budget lasts; true when there is some. */
bool bm_reactor_spin(struct bm_reactor *reactor);

#endif
