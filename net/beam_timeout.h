/* The value of the field `beam-timeout`: "500ms". Pure. */
#ifndef BM_BEAM_TIMEOUT_H
#define BM_BEAM_TIMEOUT_H

#include <stdint.h>

#include <beam/kv.h>

/* Digits and ns, us, ms, s, m or h. What does not fit 64 bits of nanoseconds is UINT64_MAX: never.
 * -EINVAL: something else. */
int bm_beam_timeout_read(beam_str text, uint64_t *ret_ns);

#endif
