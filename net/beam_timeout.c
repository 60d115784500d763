/* See beam_timeout.h. */
#include "net/beam_timeout.h"

#include <errno.h>
#include <string.h>

static const struct {
    const char *name;
    uint64_t ns;
} units[] = {
    {"ns", 1},
    {"us", 1000},
    {"ms", 1000000},
    {"s", 1000000000},
    {"m", UINT64_C(60) * 1000000000},
    {"h", UINT64_C(3600) * 1000000000},
};

static uint64_t unit_named(beam_str name)
{
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
        if (name.len == strlen(units[i].name) && memcmp(name.ptr, units[i].name, name.len) == 0)
            return units[i].ns;
    return 0;
}

int bm_beam_timeout_read(beam_str text, uint64_t *ret_ns)
{
    uint64_t ns = 0;
    size_t i = 0;
    bool never = false;
    for (; i < text.len && text.ptr[i] >= '0' && text.ptr[i] <= '9'; i++)
        never |= __builtin_mul_overflow(ns, 10, &ns) ||
                 __builtin_add_overflow(ns, (uint64_t)(text.ptr[i] - '0'), &ns);
    uint64_t unit = i > 0 ? unit_named((beam_str){text.ptr + i, text.len - i}) : 0;
    if (unit == 0)
        return -EINVAL;
    never |= __builtin_mul_overflow(ns, unit, &ns);
    *ret_ns = never ? UINT64_MAX : ns;
    return 0;
}
