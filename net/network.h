/* Networks: an address, or all that begin like it ("192.0.2.7", "10.0.0.0/8", "2001:db8::/32"). */
#ifndef BM_NETWORK_H
#define BM_NETWORK_H

#include <stdbool.h>
#include <stdint.h>

struct bm_network {
    uint8_t bytes[16]; /* as IPv6; IPv4 mapped (RFC 4291 2.5.5.2) */
    uint8_t bits;      /* 0 to 128: how many of them count; the rest is zero */
};

/* -EINVAL: neither an address nor a network, or one with bits behind those that count. */
int bm_network_read(struct bm_network *ret_network, const char *text);

/* Whether an address, as bm_connection_address gives it (with a port or without), is in it. */
bool bm_network_has(const struct bm_network *network, const char *address);

#endif
