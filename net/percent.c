/* See percent.h. */
#include "net/percent.h"

#include <errno.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int bm_percent_decode(beam_str text, bool plus, char *out, size_t cap, size_t *ret_len)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '%') {
            int high = text.len - i > 2 ? digit(text.ptr[i + 1]) : -1;
            int low = high >= 0 ? digit(text.ptr[i + 2]) : -1;
            if (low < 0)
                return -EINVAL;
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (len == cap)
            return -EMSGSIZE;
        out[len++] = c;
    }
    *ret_len = len;
    return 0;
}
