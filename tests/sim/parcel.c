/* What is in a parcel follows from its number, and nothing else is kept of it. A descriptor is that of a file
 * in memory which holds the number and the place: somebody else's is told apart, and none is a socket, whose
 * way through the kernel is another. */
#define _GNU_SOURCE
#include "tests/sim/parcel.h"

#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/sim/sim.h"

#define FDS_MAX 4u

struct parcel parcel_any(unsigned id, bool with_fds)
{
    static const unsigned lens[] = {0, 40, 300, 4000, 65000, 65536, 200000};
    struct parcel parcel = {.id = id};
    unsigned len = lens[sim_below(sizeof(lens) / sizeof(lens[0]))];
    parcel.len = (unsigned)sim_below(len + 1);
    if (with_fds && sim_below(2) == 0)
        parcel.fds = 1 + (unsigned)sim_below(FDS_MAX);
    return parcel;
}

static unsigned char byte_of(const struct parcel *parcel, size_t i)
{
    return (unsigned char)(parcel->id * 31u + i + (i >> 8) * 7u);
}

static uint64_t mark_of(const struct parcel *parcel, unsigned i)
{
    return (uint64_t)parcel->id << 8 | i;
}

/* A file that holds the mark; -1 where there was no descriptor or memory. */
static int make_fd(uint64_t mark)
{
    int fd = memfd_create("parcel", MFD_CLOEXEC);
    if (fd >= 0 && pwrite(fd, &mark, sizeof(mark), 0) != sizeof(mark))
        sim_fail("a file of one number cannot be written");
    return fd;
}

beam_message *parcel_pack(const struct parcel *parcel)
{
    beam_message *message = beam_message_new();
    beam_message_put_uint(message, "id", parcel->id);
    unsigned char *body = parcel->len ? beam_message_reserve_body(message, parcel->len) : NULL;
    for (size_t i = 0; body && i < parcel->len; i++)
        body[i] = byte_of(parcel, i);
    for (unsigned i = 0; i < parcel->fds; i++) {
        int fd = make_fd(mark_of(parcel, i));
        beam_message_attach_fd(message, &fd);
    }
    return message;
}

unsigned parcel_id(const beam_message *message)
{
    uint64_t id;
    return beam_message_get_uint(message, "id", &id) == 0 ? (unsigned)id : UINT_MAX;
}

static void check_fd(int fd, uint64_t expected, unsigned id)
{
    uint64_t mark;
    if (fd < 0)
        sim_fail("message %u came without one of its descriptors", id);
    if (pread(fd, &mark, sizeof(mark), 0) != sizeof(mark) || mark != expected)
        sim_fail("message %u came with somebody else's descriptor", id);
}

void parcel_check(const beam_message *message, const struct parcel *parcel)
{
    size_t len;
    const unsigned char *body = beam_message_body(message, &len);
    if (parcel_id(message) != parcel->id)
        sim_fail("message %u came instead of %u", parcel_id(message), parcel->id);
    if (len != parcel->len)
        sim_fail("message %u came with %zu bytes instead of %u", parcel->id, len, parcel->len);
    for (size_t i = 0; i < len; i++)
        if (body[i] != byte_of(parcel, i))
            sim_fail("byte %zu of message %u is wrong", i, parcel->id);
    if (beam_message_fd_count(message) != parcel->fds)
        sim_fail("message %u came with %u descriptors instead of %u", parcel->id,
                 beam_message_fd_count(message), parcel->fds);
    for (unsigned i = 0; i < parcel->fds; i++)
        check_fd(beam_message_peek_fd(message, i), mark_of(parcel, i), parcel->id);
}
