/* Networks of both versions of IP, compared as one: a socket of IPv6 that takes IPv4 too shows mapped
 * addresses, and an IPv4 network has to match those. No names, no zones: an address with a zone is in no
 * network. */
#include "net/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

/* len bytes of text; ret_v4: it was written as IPv4. */
static int read_address(uint8_t ret_bytes[16], const char *text, size_t len, bool *ret_v4)
{
    char copy[INET6_ADDRSTRLEN];
    if (len >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, text, len);
    copy[len] = '\0';
    *ret_v4 = inet_pton(AF_INET, copy, ret_bytes + 12) == 1;
    if (*ret_v4) {
        memset(ret_bytes, 0, 10);
        memset(ret_bytes + 10, 0xff, 2);
        return 0;
    }
    return inet_pton(AF_INET6, copy, ret_bytes) == 1 ? 0 : -EINVAL;
}

/* The first bits of the two are the same. */
static bool same_bits(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

int bm_network_read(struct bm_network *ret_network, const char *text)
{
    struct bm_network network = {.bits = 128};
    bool v4;
    size_t len = strcspn(text, "/");
    if (read_address(network.bytes, text, len, &v4) < 0)
        return -EINVAL;
    if (text[len] == '/') {
        unsigned bits = 0, digits = 0;
        for (const char *p = text + len + 1; *p; p++, digits++) {
            if (*p < '0' || *p > '9' || digits == 3)
                return -EINVAL;
            bits = bits * 10 + (unsigned)(*p - '0');
        }
        if (digits == 0 || bits > (v4 ? 32u : 128u))
            return -EINVAL;
        network.bits = (uint8_t)(v4 ? bits + 96 : bits);
    }
    /* 10.0.0.1/8 is a slip: of what was meant, an address or a network, nobody knows. */
    for (unsigned i = network.bits; i < 128; i++)
        if (network.bytes[i / 8] & (0x80 >> (i % 8)))
            return -EINVAL;
    *ret_network = network;
    return 0;
}

bool bm_network_has(const struct bm_network *network, const char *address)
{
    uint8_t bytes[16];
    bool v4;
    size_t len = strlen(address);
    const char *colon = strchr(address, ':');
    if (address[0] == '[') {
        address++;
        len = strcspn(address, "]");
    } else if (colon && !strchr(colon + 1, ':')) { /* one colon: IPv4 and a port */
        len = (size_t)(colon - address);
    }
    return read_address(bytes, address, len, &v4) == 0 &&
           same_bits(bytes, network->bytes, network->bits);
}
