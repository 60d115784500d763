/* The servers that are measured: Beam, and those that others have written, each as its manual has it for one
 * processor. All answer a POST of some bytes with as many, in HTTP/2, in cleartext with prior knowledge or over TLS with one
 * certificate (ECDSA P-256); but h2o, whose files take no POST and are fetched by GET. */
#ifndef BENCH_NET_SERVER_H
#define BENCH_NET_SERVER_H

#include "bench/contest.h"

#define NET_LARGE_LEN 100000000 /* of the large file */

struct net_server {
    const char *name;
    const char *folder; /* the run's */
    const char *body;   /* a file of as many bytes as the row has */
    unsigned port;
    bool tls;
    bool takes_post;
    bool is_beam;
};

/* Whether the contender's program, and those that drive it in this row, are installed. */
bool net_server_is_here(const struct bench_row *row, const char *contender);

/* Starts the contender's server as the peer of the run; it listens. */
int net_server_start(struct bench_run *run, struct net_server *ret_server);

/* Its own memory: pages that belong to no file. */
int net_server_memory(struct bench_run *run, uint64_t *ret_bytes);

#endif
