/* The handshake of WebSocket, both sides: which fields a request and its answer have, and whether
 * those of the peer are good. Over HTTP/1.1 as RFC 6455 section 4 has it; over HTTP/2 (RFC 8441)
 * the same without key and upgrade. Pure functions but for the random key. */
#ifndef BM_WEBSOCKET_HANDSHAKE_H
#define BM_WEBSOCKET_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>

#include "net/proto/field.h"
#include "net/proto/websocket_accept.h"

#define BM_WEBSOCKET_PROTOCOL "beam.v1"
#define BM_WEBSOCKET_UPGRADE "websocket" /* the token of Upgrade, and of :protocol */

/* A request, as its carrier has it. */
struct bm_websocket_request {
    bool extended; /* CONNECT with :protocol "websocket", which the caller has seen */
    bool upgrade;  /* of HTTP/1.1: it may be answered with 101 */
    const char *method, *authority;
    size_t method_len, authority_len;
    const struct bm_field *fields;
    size_t field_count;
};

/* Who may ask. A browser says in Origin on whose behalf it does, and nothing else keeps a page from
 * using the cookies of its visitor; whoever is no browser says nothing. */
struct bm_websocket_policy {
    const char *const *origins; /* as "https://app.example.com:8443"; */
    size_t origin_count;        /* 0: the host that was asked itself, with any scheme */
};

/* What to answer. */
struct bm_websocket_answer {
    int status;          /* 101 or 200: go on with frames. 400, 403, 405, 426, 500: not */
    const char *upgrade; /* for 101 and 426 */
    struct bm_field fields[2];
    size_t field_count;
    char accept[BM_WEBSOCKET_ACCEPT_LEN + 1]; /* `fields` points here: the answer must not move */
};

/* Looks at all of it: the method; version 13 (else 426, with the version that is spoken); key;
 * Connection and Upgrade; that beam.v1 is among the protocols; and the origin (else 403).
 * Extensions are declined. */
void bm_websocket_judge(const struct bm_websocket_request *request,
                        const struct bm_websocket_policy *policy,
                        struct bm_websocket_answer *ret_answer);

/* What a client asks with, beside the method (GET, or CONNECT), Upgrade and its own fields. */
struct bm_websocket_offer {
    bool extended;
    char key[BM_WEBSOCKET_KEY_LEN + 1]; /* `fields` points here: the offer must not move */
    struct bm_field fields[3];
    size_t field_count;
};

/* 0 or -EIO. */
int bm_websocket_offer_init(struct bm_websocket_offer *offer, bool extended);
/* Whether the server took it: 0, or -BEAM_EWEBSOCKET_HANDSHAKE for another status (which may be
 * worth a look), a missing or wrong Sec-WebSocket-Accept, another protocol than beam.v1, an
 * extension. */
int bm_websocket_offer_verify(const struct bm_websocket_offer *offer, int status,
                              const struct bm_field *fields, size_t field_count);

#endif
