/* The thread of the test as a reactor: an embedded runtime, so that what is made here comes from a
 * pool and what is closed here is closed by the ring. */
#ifndef TEST_ON_CORE_H
#define TEST_ON_CORE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <beam/beam.h>

#include "runtime/core.h"
#include "tests/support/test.h"

static beam_runtime *on_core_runtime;

static inline void core_begin(void)
{
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &on_core_runtime), 0);
    REQUIRE(bm_core_current() != NULL);
}

static inline void core_end(void)
{
    on_core_runtime = beam_runtime_free(on_core_runtime);
    CHECK_PTR(bm_core_current(), NULL);
}

/* Runs a body off a reactor and on one. */
static inline void off_and_on_a_core(void (*body)(void))
{
    test_note("off a reactor");
    body();
    core_begin();
    test_note("on a reactor");
    body();
    core_end();
    test_note("%s", "");
}

static inline bool fd_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* A pipe whose write end is given away: `gone` says, from the read end, that no copy of it is left. */
struct given {
    int read_fd;
    int fd;
};

static inline struct given given_new(void)
{
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC), 0);
    return (struct given){fds[0], fds[1]};
}

static inline bool given_gone(const struct given *given)
{
    struct pollfd poll_fd = {.fd = given->read_fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1 && (poll_fd.revents & POLLHUP);
}

/* On a reactor the closing takes a turn. */
static inline void given_await(struct given *given)
{
    struct pollfd poll_fd = {.fd = given->read_fd, .events = POLLIN};
    if (bm_core_current())
        CHECK_INT(beam_runtime_turn(on_core_runtime), 0);
    CHECK_INT(poll(&poll_fd, 1, 10000), 1);
    CHECK(poll_fd.revents & POLLHUP);
    close(given->read_fd);
}

#endif
