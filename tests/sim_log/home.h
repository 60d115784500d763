/* The directory on the simulated disk that a seed has, one after the other as power is lost. */
#ifndef SIM_LOG_HOME_H
#define SIM_LOG_HOME_H

#include <stdbool.h>

#include "tests/support/sim/disk.h"

#define HOME_NAME "store.kv" /* the file in it */

/* Makes it, empty. */
void home_begin(uint64_t seed);
void home_end(void);

const char *home_path(void); /* of the file */

/* Judges states that a loss of power would leave now, unless power is gone. home_doing: for the finding. */
extern const char *home_doing;
extern bool home_without_power;
void home_judge(const char *when);

/* Power is lost, and another directory has what is left; in between nothing reaches a disk. */
void home_lose_power(void);
void home_get_power(void);

/* At most the file, and one that was to become it. */
void home_check_names(bool new_allowed);

#endif
