/* What can be seen of a session and of the library from outside. */
#include <poll.h>
#include <unistd.h>

#include "tests/support/flow.h"

#define LARGE 200000

static void on_keep(beam_request *request, const beam_message *message, void *arg)
{
    _Atomic(beam_request *) *kept = arg;
    beam_request_keep(request);
    atomic_store(kept, request);
}

/* An fd, and a body that is longer than a frame. */
static void answer_kept(beam_request *request, void *arg)
{
    _Atomic(beam_request *) *kept = arg;
    beam_message *message = flow_message_of(LARGE, 2);
    int fds[2];
    REQUIRE_INT(pipe(fds), 0);
    close(fds[1]);
    beam_message_attach_fd(message, &fds[0]);
    beam_reply(atomic_load(kept), &message);
}

FLOW_TEST_FDS_ONE_PROCESS(session_shows_what_it_holds)
{
    _Atomic(beam_request *) *kept = flow_share(sizeof(*kept));
    struct beam_session_stats none, stats;
    flow_serve("keep", on_keep, kept);
    flow_start(NULL);
    beam_session_stats(flow.session, &none);
    CHECK_UINT(none.queue_len, 0);
    CHECK_UINT(none.large_len, 0);
    CHECK_UINT(none.channels, 0);
    CHECK_UINT(none.fds_received, 0);
    CHECK(none.memory_len > 0);

    struct flow_answer answer = {0};
    beam_message *message = flow_message_of(LARGE, 1);
    CHECK_INT(beam_call(flow.session, "keep", &message, flow_on_reply, &answer, NULL), 0);
    beam_session_stats(flow.session, &stats);
    CHECK_UINT(stats.channels, 1);
    CHECK_UINT(stats.queue_len, LARGE + 64);
    CHECK(stats.memory_len >= none.memory_len + LARGE);
    FLOW_WAIT(atomic_load(kept) != NULL);
    beam_session_stats(flow.session, &stats);
    CHECK_UINT(stats.queue_len, 0);

    /* What comes back is held until it is freed. */
    flow_at_server(answer_kept, kept);
    FLOW_WAIT(answer.count == 1);
    beam_session_stats(flow.session, &stats);
    CHECK_UINT(stats.channels, 0);
    CHECK_UINT(stats.fds_received, 1);
    CHECK_UINT(stats.large_len, flow.one_runtime ? 0 : LARGE); /* a ring moves a pointer */
    flow_answer_clear(&answer);
    beam_session_stats(flow.session, &stats);
    CHECK_UINT(stats.fds_received, 0);
    CHECK_UINT(stats.large_len, 0);
}

FLOW_TEST(pidfd_names_the_process_of_the_peer)
{
    flow_start(NULL);
    int pidfd = beam_session_peer_pidfd(flow.session);
    if (flow.one_runtime || flow.network || !beam_platform()->pidfd) {
        CHECK_INT(pidfd, -ENOTSUP);
        return;
    }
    REQUIRE(pidfd >= 0);
    struct pollfd pfd = {.fd = pidfd, .events = POLLIN};
    CHECK_INT(poll(&pfd, 1, 0), 0); /* readable when the process has ended: pidfd_open(2) */
    close(pidfd);
    beam_session_close(flow.session);
    /* Until the socket is closed, a few turns later, it may still say. */
    FLOW_WAIT((pidfd = beam_session_peer_pidfd(flow.session)) < 0 || close(pidfd) < 0);
    CHECK_INT(pidfd, -ESHUTDOWN);
}

TEST(limits_are_those_of_the_specification)
{
    struct beam_limits limits;
    beam_limits_default(&limits);
    CHECK_UINT(limits.size, sizeof(limits));
    CHECK_UINT(limits.window, 65536);
    CHECK_UINT(limits.channels_max, 1024);
    CHECK_UINT(limits.message_len_max, 16u << 20);
    CHECK_UINT(limits.large_len_max, 32u << 20);
    CHECK_UINT(limits.queue_len_max, 4u << 20);
    CHECK_UINT(limits.fds_max, 64);
    CHECK(!limits.fds_refused);
    CHECK_UINT(limits.sessions_uid_max, 256);
    CHECK_UINT(limits.aborts_per_s, 100);
}

TEST(metadata_is_read_as_the_type_that_is_asked_for)
{
    beam_message *message = beam_message_new();
    uint64_t number = 0;
    beam_bytes bytes = {0};
    beam_message_put_uint(message, "u", UINT64_MAX);
    beam_message_put_int(message, "i", -1);
    beam_message_put_bytes(message, "b", "\0\1", 2);
    CHECK_INT(beam_message_get_uint(message, "u", &number), 0);
    CHECK_UINT(number, UINT64_MAX);
    CHECK_INT(beam_message_get_uint(message, "i", &number), -ERANGE);
    CHECK_INT(beam_message_get_uint(message, "b", &number), -EINVAL);
    CHECK_INT(beam_message_get_uint(message, "x", &number), -ENOENT);
    CHECK_INT(beam_message_get_bytes(message, "b", &bytes), 0);
    CHECK_MEM(bytes.ptr, bytes.len, "\0\1", 2);
    CHECK_INT(beam_message_get_bytes(message, "u", &bytes), -EINVAL);
    beam_message_free(message);
}
