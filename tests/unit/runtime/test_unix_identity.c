/* Who a peer is comes from the kernel, with the packet of its HELLO (docs/spec/session.md U3). */
#include <sys/socket.h>

#include "runtime/unix_session.h"
#include "tests/support/raw_peer.h"
#include "tests/unit/runtime/on_core.h"

#define TURNS_MAX 1000

static struct raw_peer peer;
static struct raw_packet packet;

/* A session that is the acceptor, and its peer. */
static beam_session *open_pair(bool with_credentials)
{
    struct bm_unix_session *us;
    int fds[2], on = with_credentials;
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    REQUIRE_INT(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    raw_wrap(&peer, fds[1]);
    REQUIRE_INT(bm_unix_session_new(bm_core_current(), &fds[0], false, &us), 0);
    bm_unix_session_up(us);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    raw_send(&peer, &packet);
    return &us->session;
}

/* The next frame of that kind, the session's reactor turning meanwhile. */
static bool find(uint8_t kind)
{
    for (unsigned i = 0; i < TURNS_MAX && !peer.ended; i++) {
        CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
        if (raw_next(&peer, 0) == 1 && peer.frame.kind == kind)
            return true;
    }
    return false;
}

TEST(a_peer_is_who_the_kernel_says)
{
    core_begin();
    beam_session *session = open_pair(true);
    raw_put_ping(&packet, 1);
    raw_send(&peer, &packet);
    REQUIRE(find(BM_FRAME_PING));
    CHECK_UINT(beam_session_peer(session)->uid, getuid());
    CHECK_UINT(beam_session_peer(session)->gid, getgid());
    CHECK_INT(beam_session_peer(session)->pid, getpid());
    raw_close(&peer);
    core_end();
}

TEST(a_hello_without_credentials_ends_the_session)
{
    struct bm_frame_goaway goaway;
    beam_kv_value details;
    beam_str error;
    core_begin();
    open_pair(false);
    REQUIRE(find(BM_FRAME_GOAWAY));
    bm_frame_parse_goaway(&peer.frame, &goaway);
    CHECK_UINT(goaway.why.code, BEAM_INVALID_ARGUMENT);
    REQUIRE_INT(beam_kv_root(goaway.why.details, goaway.why.details_len, &details), 0);
    REQUIRE_INT(beam_kv_get_str(&details, "error", &error), 0);
    CHECK_MEM(error.ptr, error.len, "PEER_IDENTITY", 13);
    raw_close(&peer);
    core_end();
}
