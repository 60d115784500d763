/* A peer that speaks bytes: one end of a SOCK_SEQPACKET socket, driven by the test's own thread.
 *
 * It follows no rule of the protocol by itself: what it sends is what the test packed, packets are
 * whole frames only if the test wants that. It keeps the fds it is given until raw_close. Everything
 * that waits has a deadline and fails the case (REQUIRE) when that passes, unless it says otherwise. */
#ifndef BEAM_TEST_RAW_PEER_H
#define BEAM_TEST_RAW_PEER_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/frame.h"
#include "runtime/hello.h"

#define RAW_PACKET_MAX 69632 /* more than a packet may be, so that too long ones can be made */
#define RAW_FDS_MAX 512
#define RAW_TIMEOUT_MS 10000

/* A packet being made. fds are borrowed. */
struct raw_packet {
    size_t len;
    unsigned fd_count;
    int fds[256];
    _Alignas(8) uint8_t bytes[RAW_PACKET_MAX];
};

struct raw_peer {
    int fd;
    bool ended;
    struct bm_bytes rest;  /* frames of the last packet not yet looked at */
    struct bm_frame frame; /* of raw_next */
    unsigned fd_count;
    int fds[RAW_FDS_MAX]; /* received */
    _Alignas(8) uint8_t packet[RAW_PACKET_MAX];
};

/* --- making packets: each adds a frame --- */
void raw_clear(struct raw_packet *packet);
void raw_put_hello(struct raw_packet *packet, bool opener);
void raw_put_hello_of(struct raw_packet *packet, const struct bm_hello *hello);
/* MSG OPEN towards a service; flags are added to OPEN. No metadata. */
void raw_put_open(struct raw_packet *packet, uint64_t id, uint8_t flags, const char *service,
                  const void *body, uint32_t len);
/* MSG on an open channel. */
void raw_put_message(struct raw_packet *packet, uint64_t id, uint8_t flags, const void *body,
                     uint32_t len);
/* The first frame of a message with everything; attached may be NULL. */
void raw_put_head(struct raw_packet *packet, uint64_t id, uint8_t flags, uint8_t fds,
                  const struct bm_message_head *head, const struct bm_attached *attached);
void raw_put_bytes(struct raw_packet *packet, uint64_t id, uint8_t flags, const void *bytes,
                   uint32_t len);
void raw_put_end(struct raw_packet *packet, uint64_t id, uint8_t flags, uint32_t code);
void raw_put_credit(struct raw_packet *packet, uint64_t id, uint64_t amount);
void raw_put_ping(struct raw_packet *packet, uint64_t token);
void raw_put_goaway(struct raw_packet *packet, uint64_t last_id, uint32_t code);
void raw_put(struct raw_packet *packet, const void *bytes, size_t len);
void raw_add_fd(struct raw_packet *packet, int fd);

/* --- the socket --- */

/* An abstract name nobody else has, without the '@'. */
void raw_name(char *out, size_t cap);
/* name: of an abstract socket, or a path when it begins with '/'. 0 or -errno. */
int raw_try_connect(struct raw_peer *peer, const char *name);
void raw_connect(struct raw_peer *peer, const char *name);
/* The same in two steps: a socket, and later its connection. */
void raw_socket(struct raw_peer *peer);
int raw_try_connect_on(struct raw_peer *peer, const char *name);
/* A listening socket. */
int raw_listen(const char *name, int backlog);
void raw_accept(struct raw_peer *peer, int listener);
void raw_wrap(struct raw_peer *peer, int fd); /* takes it */
/* Closes the socket and the fds that came. */
void raw_close(struct raw_peer *peer);

/* 0, or -errno (-ETIMEDOUT when it did not fit in time). */
int raw_try_send(struct raw_peer *peer, const struct raw_packet *packet, int timeout_ms);
/* The same, required, and the packet is cleared. */
void raw_send(struct raw_peer *peer, struct raw_packet *packet);

/* The next frame: 1 and peer->frame, 0 at the end of the connection, -ETIMEDOUT. */
int raw_next(struct raw_peer *peer, int timeout_ms);
/* The next frame of this kind and channel (0: any channel); others are passed over. false at the end. */
bool raw_find(struct raw_peer *peer, uint8_t kind, uint64_t channel);
/* Sends PING and waits for its ACK: all that was sent before has been looked at. */
void raw_sync(struct raw_peer *peer);

/* --- the usual --- */

/* Connected, HELLO sent and received. */
void raw_open_session(struct raw_peer *peer, const char *name);
/* Reads up to GOAWAY, whose details must name this error and whose code must fit it; then the end of
 * the connection must come. */
void raw_expect_goaway(struct raw_peer *peer, const char *error);
/* Reads up to the end of the connection. */
void raw_expect_end(struct raw_peer *peer);
/* Calls `service` on channel id with this body; true when the answer is OK with the same body. */
bool raw_echo(struct raw_peer *peer, uint64_t id, const void *body, uint32_t len);
/* The code of the END (or MSG END) frame in peer->frame. */
uint32_t raw_end_code(const struct raw_peer *peer);

#endif
