/* Pumps that cannot begin. What they do once they have is in tests/flow/test_stream_fd.c. */
#include <sys/socket.h>

#include "tests/unit/runtime/on_core.h"
#include "tests/unit/runtime/scarce.h"

#define PATIENCE 10000 /* turns of a millisecond at most; what takes longer hangs */

/* What the other end reads: -EAGAIN, as long as nothing has happened. */
static int read_one(int fd, unsigned turns)
{
    ssize_t n = -1;
    char byte;
    for (unsigned i = 0; i < turns; i++) {
        REQUIRE_INT(beam_runtime_turn(on_core_runtime), 0);
        n = recv(fd, &byte, 1, MSG_DONTWAIT);
        if (n >= 0 || errno != EAGAIN)
            break;
        (void)poll(NULL, 0, 1);
    }
    return n < 0 ? -errno : (int)n;
}

/* Nobody else would tell the reader, who may wait for ever. */
TEST(a_pump_without_memory_to_begin_with_breaks_its_descriptor)
{
    bool enough = false;
    unsigned broken = 0;
    core_begin();
    for (int left = 0; !enough; left++) {
        beam_message *message = beam_message_new();
        beam_stream *stream = beam_message_attach_stream(message);
        int fd = -1;
        REQUIRE(stream != NULL && left < 100);
        scarce_begin(left);
        int r = beam_stream_to_fd(&stream, &fd);
        enough = scarce_asked <= left;
        scarce_end();
        if (r < 0) {
            CHECK_INT(r, -ENOMEM);
            beam_stream_free(stream);
            beam_message_free(message);
            continue;
        }
        if (!enough) {
            CHECK_INT(read_one(fd, PATIENCE), -ECONNRESET);
            broken++;
        } else {
            CHECK_INT(read_one(fd, 3), -EAGAIN);
        }
        beam_message_free(message);
        close(fd);
    }
    CHECK_UINT(broken, 1);
    core_end();
}
