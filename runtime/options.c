/* See options.h. The caller's struct may be of another version of the library, older or newer: nothing is
 * read beyond the size it tells, and nothing that it wants is passed over. */
#include "runtime/options.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

int bm_options_read(void *to, size_t len, const void *from)
{
    size_t size = sizeof(size);
    memset(to, 0, len);
    if (from) {
        memcpy(&size, from, sizeof(size));
        if (size < sizeof(size))
            return -EINVAL;
        for (size_t i = len; i < size; i++)
            if (((const uint8_t *)from)[i] != 0)
                return -E2BIG;
        memcpy(to, from, size < len ? size : len);
    }
    memcpy(to, &len, sizeof(len));
    return 0;
}

int bm_options_write(void *to, const void *from, size_t len)
{
    size_t size;
    memcpy(&size, to, sizeof(size));
    if (size < sizeof(size))
        return -EINVAL;
    memset(to, 0, size);
    memcpy(to, from, size < len ? size : len);
    memcpy(to, &size, sizeof(size));
    return 0;
}
