/* The file of a store: there is none yet. */
#include "runtime/store.h"

#include <errno.h>

int bm_store_log_open(beam_store *store)
{
    return -ENOTSUP;
}

int bm_store_log_append(struct bm_commit *commit)
{
    return -ENOTSUP;
}

void bm_store_log_close(beam_store *store)
{
}

void bm_store_log_free(beam_store *store)
{
}

uint64_t bm_store_log_len(const beam_store *store)
{
    return 0;
}

void bm_store_log_look(beam_store *store)
{
}

int beam_store_compact(beam_store *store, beam_store_fn *fn, void *arg)
{
    return -ENOTSUP;
}
