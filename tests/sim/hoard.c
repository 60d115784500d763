/* A few places, filled and emptied by luck. What lies in one holds its credit, and outlives what it came by. */
#include "tests/sim/hoard.h"

#include "tests/support/sim/sim.h"

#define HOARD_MAX 12u

static beam_message *hoard[HOARD_MAX];

void hoard_keep(const beam_message *message)
{
    beam_message **place = &hoard[sim_below(HOARD_MAX)];
    if (*place || sim_below(4) > 0)
        return;
    *place = beam_message_keep(message); /* NULL without memory */
}

void hoard_thin(void)
{
    beam_message **place = &hoard[sim_below(HOARD_MAX)];
    *place = beam_message_free(*place);
}

bool hoard_empty(void)
{
    bool any = false;
    for (unsigned i = 0; i < HOARD_MAX; i++) {
        any |= hoard[i] != NULL;
        hoard[i] = beam_message_free(hoard[i]);
    }
    return any;
}
