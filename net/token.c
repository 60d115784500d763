/* Comparing secrets. The TLS library's own way to (ConstantCompare) is private to it, and the C library
 * has none. */
#include <beam/net.h>

#include <stdint.h>

bool beam_token_equal(beam_str a, beam_str b)
{
    /* volatile: or a compiler may see that one difference settles it, and stop there. */
    volatile uint8_t difference = a.len != b.len;
    size_t len = a.len < b.len ? a.len : b.len;
    for (size_t i = 0; i < len; i++)
        difference = (uint8_t)(difference | ((uint8_t)a.ptr[i] ^ (uint8_t)b.ptr[i]));
    return difference == 0;
}
