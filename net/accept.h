/* The field `accept` (RFC 9110 section 12.5.1): which media types an answer may have. Pure. */
#ifndef BM_ACCEPT_H
#define BM_ACCEPT_H

#include <beam/kv.h>

#include "net/proto/field.h"

/* How much a type is wanted. */
struct bm_accept {
    unsigned quality; /* in thousandths; 0: not at all */
    unsigned place;   /* of the range that speaks of it, 0 first */
    bool exact;       /* it names the type, without a wildcard */
};

/* What the fields named `accept` say of a type ("application/json"): the most specific range that fits it
 * counts. Without any such field everything is wanted. Parameters other than q are not looked at, and a
 * range that is none is passed over. */
struct bm_accept bm_accept_find(const struct bm_field *fields, size_t count, const char *type);

/* There is no `accept`, or one that says nothing, as most programs have it. */
bool bm_accept_is_anything(const struct bm_field *fields, size_t count);

/* The type that the value of `content-type` begins with, without parameters; empty: it names none. */
beam_str bm_accept_type_of(beam_str content_type);

#endif
