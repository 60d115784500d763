/* A session over a connected SOCK_SEQPACKET socket: its ops and its packet. */
#ifndef BM_UNIX_SESSION_H
#define BM_UNIX_SESSION_H

#include <sys/socket.h>
#include <sys/un.h>

#include "runtime/session.h"
#include "runtime/unix_control.h"
#include "runtime/unix_packet.h"
#include "runtime/unix_socket.h"
#include "uring/buffers.h"
#include "uring/op.h"

struct bm_unix_session {
    beam_session session;
    int fd;
    bool closing;    /* abort was called: what is in flight is being cancelled */
    bool finished;   /* ... and nothing is any more */
    bool receiving;  /* the multishot should be armed */
    bool spoken;     /* a packet has left, and with it HELLO */
    bool lingering;  /* shut: closes once the packet under way has left */
    bool reset_seen; /* ECONNRESET once: what lies before it is read first */
    bool deserted;   /* the peer takes nothing more: what it has left is read, nothing is sent */
    bool fds_came;   /* descriptors of the peer's; they may be here still */
    bool heard;      /* something has come since the watch last asked */
    struct bm_op connect_op, receive_op, send_op;
    struct sockaddr_un address;
    struct msghdr receive_form;
    struct bm_buffers_waiter buffers_waiter;
    struct bm_unix_packet packet;
    struct bm_timer retry_timer; /* connect: the backlog is full; send: no memory, or deserted */
    uint64_t retry_ns;
    struct bm_timer receive_timer; /* the kernel had no memory for a receive */
    struct bm_timer watch_timer;   /* unix_watch.c: descriptors of the peer's may be here */
};

static inline struct bm_unix_session *bm_unix_of(beam_session *session)
{
    return bm_container_of(session, struct bm_unix_session, session);
}

/* A session over fd (taken on success); CONNECTING. -ENOMEM. */
int bm_unix_session_new(struct bm_core *core, int *fd, bool opener, struct bm_unix_session **ret);

/* The peer is of this user: bm_core_admit(). false: the session is lost. */
bool bm_unix_session_admit(struct bm_unix_session *us, uint32_t uid);

/* The socket is connected: frames flow. */
void bm_unix_session_up(struct bm_unix_session *us);

/* The multishot receive: readied once, and armed whenever it has ended; unix_receive.c. */
void bm_unix_receive_init(struct bm_unix_session *us);
void bm_unix_receive_start(struct bm_unix_session *us);

/* While descriptors that came may be here the peer has to show that it is. To be called when that may have
 * begun: some have come, or something cannot be sent. */
void bm_unix_watch_init(struct bm_unix_session *us);
void bm_unix_watch(struct bm_unix_session *us);

/* Gives the socket and the carrier's reference back once the session is closing and no op is left. */
void bm_unix_session_finish(struct bm_unix_session *us);

/* The carrier's peer_pidfd; unix_peer.c. */
int bm_unix_peer_pidfd(const beam_session *session);

#endif
