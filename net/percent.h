/* Percent-encoding (RFC 3986 section 2.1), as it stands in paths and queries. Pure. */
#ifndef BM_PERCENT_H
#define BM_PERCENT_H

#include <stdbool.h>
#include <stddef.h>

#include <beam/kv.h>

/* Decodes text into out, of cap bytes; never longer than it came. plus: "+" is a blank, as forms have it.
 * -EINVAL: "%" without two hexadecimal digits behind it. -EMSGSIZE: cap is too little. */
int bm_percent_decode(beam_str text, bool plus, char *out, size_t cap, size_t *ret_len);

#endif
