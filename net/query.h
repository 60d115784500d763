/* What stands behind "?" in a path, or is the body of a form: pairs (WHATWG URL, section 5.1;
 * application/x-www-form-urlencoded). And where a path ends and its query begins. Pure. */
#ifndef BM_QUERY_H
#define BM_QUERY_H

#include <stdbool.h>

#include <beam/kv.h>

/* The path without its query, and that without the "?". */
void bm_query_split(beam_str target, beam_str *ret_path, beam_str *ret_query);

/* The next pair, still encoded; *rest is what is left and begins as the whole query. false: there are no
 * more. Empty ones ("a&&b") are passed over; a key without "=" has an empty value. */
bool bm_query_next(beam_str *rest, beam_str *ret_key, beam_str *ret_value);

#endif
