/* See origin.h. */
#include "net/origin.h"

#include <string.h>

/* "https://host:port", of which the port is left out if it is the scheme's own; the host that was asked
 * stands without a scheme, and a proxy may have ended TLS: what stands behind "://" is compared. */
static bool is_of_host(const struct bm_field *origin, beam_str authority)
{
    for (size_t i = 0; i + 3 <= origin->value_len; i++)
        if (memcmp(origin->value + i, "://", 3) == 0) {
            size_t len = origin->value_len - i - 3;
            return authority.len > 0 && len == authority.len &&
                   strncasecmp(origin->value + i + 3, authority.ptr, len) == 0;
        }
    return false;
}

bool bm_origin_allows(const struct bm_exchange_request *request, const char *const *origins,
                      size_t count)
{
    const struct bm_field *origin = bm_field_find(request->fields, request->field_count, "origin");
    if (!origin)
        return true;
    if (bm_field_count(request->fields, request->field_count, "origin") > 1)
        return false;
    for (size_t i = 0; i < count; i++)
        if (bm_field_same(origin->value, origin->value_len, origins[i]))
            return true;
    return count == 0 && is_of_host(origin, request->authority);
}
