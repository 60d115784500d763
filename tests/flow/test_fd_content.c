/* What a descriptor brings, whatever carries it: the same one in this process or through the kernel, or its
 * bytes over a network. The other end reads and writes it on a thread of its own, as a program would. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/flow.h"

#define LONG_LEN 300000u

struct there {
    _Atomic bool done;
    _Atomic uint64_t bytes, wrong;
    _Atomic int last; /* of read(2): 0, or -errno */
    _Atomic int fd;
    bool echoes; /* writes back what it has read */
};

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 13 + (i >> 9));
}

static void *read_all(void *arg)
{
    struct there *there = arg;
    uint8_t buf[8192];
    ssize_t n;
    while ((n = read(there->fd, buf, sizeof(buf))) > 0) {
        for (ssize_t i = 0; i < n; i++)
            there->wrong += buf[i] != byte_at(there->bytes + (uint64_t)i);
        there->bytes += (uint64_t)n;
        for (ssize_t done = 0; there->echoes && done < n;) {
            ssize_t w = send(there->fd, buf + done, (size_t)(n - done), MSG_NOSIGNAL);
            if (w < 0)
                break;
            done += w;
        }
    }
    there->last = n < 0 ? -errno : 0;
    close(there->fd);
    there->done = true;
    return NULL;
}

static void on_take(beam_request *request, const beam_message *message, void *arg)
{
    struct there *there = arg;
    pthread_t thread;
    there->fd = beam_message_take_fd(message, 0);
    int r = there->fd < 0 ? -EBADF : -pthread_create(&thread, NULL, read_all, there);
    if (r == 0)
        pthread_detach(thread);
    if (r == 0)
        beam_reply(request, NULL);
    else
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "%s", beam_strerror(r));
}

static struct there *start(bool echoes)
{
    signal(SIGPIPE, SIG_IGN);
    struct there *there = flow_share(sizeof(*there));
    there->echoes = echoes;
    flow_serve("take", on_take, there);
    flow_start(NULL);
    return there;
}

/* false: a fault has been in the way. */
static bool give(int *fd)
{
    beam_message *message = beam_message_new();
    beam_message_attach_fd(message, fd);
    struct flow_answer answer = flow_ask("take", message);
    bool taken = answer.code == BEAM_OK;
    flow_answer_clear(&answer);
    return taken;
}

/* Writes len bytes where reading may need the reactor to turn. */
static void write_all(int fd, uint64_t len)
{
    uint8_t buf[4096];
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    for (uint64_t done = 0; done < len;) {
        size_t part = len - done < sizeof(buf) ? (size_t)(len - done) : sizeof(buf);
        for (size_t i = 0; i < part; i++)
            buf[i] = byte_at(done + i);
        ssize_t n = -1;
        FLOW_WAIT((n = write(fd, buf, part)) >= 0 || errno != EAGAIN);
        if (n < 0)
            return; /* a fault has closed the other end, which the reader's count shows */
        done += (uint64_t)n;
    }
}

static void expect_all(struct there *there, uint64_t len)
{
    FLOW_WAIT(there->done);
    CHECK_UINT(there->bytes, len);
    CHECK_UINT(there->wrong, 0);
    CHECK_INT(there->last, 0);
}

FLOW_TEST(fd_of_a_file_brings_what_is_behind_its_offset)
{
    struct there *there = start(false);
    char path[300];
    snprintf(path, sizeof(path), "%s/file", test_tmpdir());
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    REQUIRE_INT(write(fd, "header", 6), 6);
    write_all(fd, LONG_LEN);
    REQUIRE_INT(lseek(fd, 6, SEEK_SET), 6);
    if (give(&fd))
        expect_all(there, LONG_LEN);
}

FLOW_TEST(fd_of_a_pipe_brings_what_is_written_later)
{
    struct there *there = start(false);
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    if (give(&fds[0])) {
        write_all(fds[1], LONG_LEN);
        close(fds[1]);
        expect_all(there, LONG_LEN);
    } else {
        close(fds[1]);
    }
}

FLOW_TEST(fd_of_a_socket_goes_both_ways)
{
    struct there *there = start(true);
    int fds[2];
    uint64_t bytes = 0, wrong = 0;
    ssize_t n = -1;
    uint8_t buf[8192];
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    if (give(&fds[1])) {
        write_all(fds[0],
                  20000); /* less than the buffers on the way: nobody waits for us to read */
        shutdown(fds[0], SHUT_WR);
        do {
            FLOW_WAIT((n = read(fds[0], buf, sizeof(buf))) >= 0 || errno != EAGAIN);
            for (ssize_t i = 0; i < n; i++)
                wrong += buf[i] != byte_at(bytes + (uint64_t)i);
            bytes += n > 0 ? (uint64_t)n : 0;
        } while (n > 0);
        CHECK_INT(n, 0);
        CHECK_UINT(bytes, 20000);
        CHECK_UINT(wrong, 0);
        expect_all(there, 20000);
    }
    close(fds[0]);
}

/* A descriptor that crossed a network is of its session, and must not end as if all had been said. */
FLOW_TEST(fd_whose_session_is_lost_does_not_end)
{
    struct there *there = start(false);
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    bool given = give(&fds[0]);
    if (given && flow.network) {
        write_all(fds[1], 1000);
        FLOW_WAIT(there->bytes == 1000);
        beam_session_close(flow.session);
        FLOW_WAIT(there->done);
        CHECK_INT(there->last, -ECONNRESET);
    }
    close(fds[1]);
    if (given)
        FLOW_WAIT(there->done);
    CHECK_UINT(there->wrong, 0);
}

FLOW_TEST(fd_that_is_no_sequence_of_bytes_does_not_cross_a_network)
{
    flow_start(NULL);
    int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    beam_message *message = beam_message_new();
    struct flow_answer answer = {0};
    beam_message_attach_fd(message, &fd);
    int r = beam_call(flow.session, "nobody", &message, flow_on_reply, &answer, NULL);
    if (flow.network)
        CHECK(r == -ENOTSUP || r == -ENOMEM);
    if (r == 0)
        FLOW_WAIT(answer.count == 1);
    CHECK(flow.network || r == 0 || r == -ENOMEM);
    flow_answer_clear(&answer);
    beam_message_free(message);
}
