/* Descriptors over a session whose carrier passes none: docs/spec/http.md section 3. */
#include "tests/unit/net/session_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE 20000 /* rounds of a millisecond at most; what takes longer hangs */

static struct {
    int fd;         /* what the service was sent */
    unsigned count; /* of descriptors in its last message */
    int answer;     /* what it answers with, or -1 */
} there;

static struct {
    unsigned count;
    enum beam_code code;
    int fd;
} here;

static void on_take(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    there.count = beam_message_fd_count(message);
    there.fd = beam_message_take_fd(message, 0);
    if (there.answer >= 0)
        beam_message_attach_fd(answer, &there.answer);
    beam_reply(request, &answer);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    here.count++;
    here.code = status->code;
    here.fd = message ? beam_message_take_fd(message, 0) : -1;
}

static struct rig_end client, server;

static void begin(void)
{
    rig_begin();
    there.fd = there.answer = here.fd = -1;
    there.count = here.count = 0;
    REQUIRE_INT(beam_serve(rig_runtime, "take", on_take, NULL), 0);
    rig_new(&client, true, false);
    rig_new(&server, false, false);
    rig_talk(&client, &server, 1000);
    REQUIRE_UINT(client.opens, 1);
}

static void end(void)
{
    rig_free(&client);
    rig_free(&server);
    rig_end();
}

static void turn(void)
{
    rig_talk(&client, &server, 4096);
    (void)poll(NULL, 0, 1);
}

/* Sends a descriptor, and waits until the service has one. */
static void give(int *fd)
{
    beam_message *message = beam_message_new();
    beam_message_attach_fd(message, fd);
    CHECK_INT(*fd, -1);
    REQUIRE_INT(beam_call(client.session, "take", &message, on_reply, NULL, NULL), 0);
    for (unsigned i = 0; here.count == 0 && i < PATIENCE; i++)
        turn();
    REQUIRE_UINT(here.count, 1);
    REQUIRE_INT(here.code, BEAM_OK);
}

/* All there is, up to the end of file (0) or an error, which is returned. */
static int read_all(int fd, char *buf, size_t size, size_t *ret_len)
{
    *ret_len = 0;
    for (unsigned i = 0; i < PATIENCE; i++) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        turn();
        if (poll(&ready, 1, 0) == 0)
            continue;
        ssize_t n = read(fd, buf + *ret_len, size - *ret_len);
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        *ret_len += (size_t)n;
    }
    return -ETIMEDOUT;
}

static void expect_text(int fd, const char *text)
{
    char buf[256];
    size_t len;
    CHECK_INT(read_all(fd, buf, sizeof(buf), &len), 0);
    CHECK_MEM(buf, len, text, strlen(text));
}

TEST(a_file_arrives_from_its_offset_to_its_end)
{
    char path[300];
    begin();
    snprintf(path, sizeof(path), "%s/file", test_tmpdir());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE_INT(write(fd, "0123456789", 10), 10);
    REQUIRE_INT(lseek(fd, 3, SEEK_SET), 3);
    give(&fd);
    CHECK_UINT(there.count, 1);
    expect_text(there.fd, "3456789");
    close(there.fd);
    end();
}

TEST(an_empty_file_is_an_end_of_file)
{
    begin();
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    give(&fd);
    expect_text(there.fd, "");
    close(there.fd);
    end();
}

TEST(what_is_written_to_a_pipe_arrives_and_so_does_its_end)
{
    int fds[2];
    begin();
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    give(&fds[0]);
    REQUIRE_INT(write(fds[1], "hello", 5), 5);
    for (unsigned i = 0; i < 20; i++)
        turn();
    REQUIRE_INT(write(fds[1], " there", 6), 6);
    close(fds[1]);
    expect_text(there.fd, "hello there");
    close(there.fd);
    end();
}

TEST(a_pipe_can_be_written_to_from_afar)
{
    int fds[2];
    begin();
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    give(&fds[1]);
    REQUIRE_INT(write(there.fd, "hello", 5), 5);
    close(there.fd);
    expect_text(fds[0], "hello");
    close(fds[0]);
    end();
}

/* The pipe's reader has gone: no signal, and the writer learns of it. */
TEST(a_pipe_that_nobody_reads_breaks_its_writer)
{
    int fds[2];
    begin();
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    give(&fds[1]);
    close(fds[0]);
    ssize_t n = 1;
    for (unsigned i = 0; n > 0 && i < PATIENCE; i++) {
        n = send(there.fd, "x", 1, MSG_NOSIGNAL);
        turn();
    }
    CHECK_INT(n, -1);
    close(there.fd);
    end();
}

/* The write that waits in it is the kernel's, which has to let go of it. */
TEST(a_pipe_that_is_full_keeps_no_runtime_from_its_end)
{
    static char bytes[300000];
    int fds[2];
    begin();
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    give(&fds[1]);
    size_t sent = 0, before = 1;
    for (unsigned still = 0; still < 50; turn()) {
        ssize_t n = send(there.fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL);
        before = sent;
        sent += n > 0 ? (size_t)n : 0;
        still = sent == before ? still + 1 : 0;
    }
    CHECK(sent > 65536);
    end();
    char buf[1];
    CHECK(recv(there.fd, buf, 1, 0) <= 0); /* its end has gone */
    close(there.fd);
    close(fds[0]);
}

TEST(a_socket_goes_both_ways_and_is_half_closed)
{
    int fds[2];
    char buf[64];
    size_t len;
    begin();
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    give(&fds[1]);
    REQUIRE_INT(write(fds[0], "question", 8), 8);
    shutdown(fds[0], SHUT_WR);
    CHECK_INT(read_all(there.fd, buf, sizeof(buf), &len), 0);
    CHECK_MEM(buf, len, "question", 8);
    REQUIRE_INT(write(there.fd, "answer", 6), 6);
    close(there.fd);
    expect_text(fds[0], "answer");
    close(fds[0]);
    end();
}

TEST(an_answer_brings_a_descriptor_too)
{
    int fds[2], none = open("/dev/null", O_RDONLY | O_CLOEXEC);
    begin();
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    there.answer = fds[0];
    give(&none);
    REQUIRE_INT(write(fds[1], "back", 4), 4);
    close(fds[1]);
    REQUIRE(here.fd >= 0);
    expect_text(here.fd, "back");
    close(here.fd);
    close(there.fd);
    end();
}

TEST(a_loss_is_no_end_of_file)
{
    char buf[64];
    size_t len;
    int fds[2];
    begin();
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    give(&fds[0]);
    REQUIRE_INT(write(fds[1], "hello", 5), 5);
    while (recv(there.fd, buf, 5, MSG_PEEK | MSG_DONTWAIT) != 5)
        turn();
    rig_close(&server, -ECONNRESET);
    CHECK_INT(read_all(there.fd, buf, sizeof(buf), &len), -ECONNRESET);
    CHECK_UINT(len, 5);
    close(fds[1]);
    close(there.fd);
    end();
}

/* A file that becomes shorter than it said is a loss as well. */
TEST(a_file_that_shrinks_is_no_end_of_file)
{
    char path[300], buf[64];
    size_t len;
    begin();
    snprintf(path, sizeof(path), "%s/file", test_tmpdir());
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    REQUIRE_INT(ftruncate(fd, 1 << 20), 0);
    int again = open(path, O_RDWR | O_CLOEXEC);
    beam_message *message = beam_message_new();
    beam_message_attach_fd(message, &fd);
    REQUIRE_INT(beam_call(client.session, "take", &message, on_reply, NULL, NULL), 0);
    REQUIRE_INT(ftruncate(again, 0), 0);
    for (unsigned i = 0; here.count == 0 && i < PATIENCE; i++)
        turn();
    int r = 0;
    do
        r = read_all(there.fd, buf, sizeof(buf), &len);
    while (r == 0 && len == sizeof(buf)); /* read_all stops at a full buffer */
    CHECK_INT(r, -ECONNRESET);
    close(again);
    close(there.fd);
    end();
}

static void expect_refusal(int fd)
{
    beam_message *message = beam_message_new();
    REQUIRE(fd >= 0);
    beam_message_attach_fd(message, &fd);
    CHECK_INT(beam_call(client.session, "take", &message, on_reply, NULL, NULL), -ENOTSUP);
    REQUIRE(message != NULL);
    CHECK_UINT(beam_message_fd_count(message), 1);
    CHECK(beam_message_peek_fd(message, 0) >= 0);
    beam_message_free(message);
}

TEST(what_is_no_sequence_of_bytes_is_refused_to_its_sender)
{
    begin();
    expect_refusal(epoll_create1(EPOLL_CLOEXEC));
    expect_refusal(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    expect_refusal(open("/dev/null", O_PATH | O_CLOEXEC));
    expect_refusal(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    expect_refusal(memfd_create("shared", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    end();
}

TEST(a_sealed_memory_file_is_sent_as_what_it_holds)
{
    begin();
    int fd = memfd_create("sealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    REQUIRE_INT(write(fd, "abc", 3), 3);
    REQUIRE_INT(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
    REQUIRE_INT(lseek(fd, 0, SEEK_SET), 0);
    give(&fd);
    expect_text(there.fd, "abc");
    close(there.fd);
    end();
}

TEST(descriptors_cost_credit_as_everywhere)
{
    begin();
    int r = 0;
    unsigned sent = 0;
    there.answer = -1;
    for (; r == 0 && sent < 200; sent += r == 0) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        beam_message *message = beam_message_new();
        beam_message_attach_fd(message, &fd);
        r = beam_call(client.session, "hold", &message, on_reply, NULL, NULL);
        beam_message_free(message);
    }
    CHECK_INT(r, -EAGAIN);
    CHECK_UINT(sent, client.ns->session.peer_fds_max);
    end();
}
