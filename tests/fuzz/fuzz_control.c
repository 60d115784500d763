/* Any bytes as the control messages of a packet, and any messages laid out as the kernel does. Descriptors
 * made of noise are counted, never closed: those of the bytes are handed over, in their order, as far as
 * there is room, and all others closed once. None is missed and none made up.
 *
 * Input: as raw bytes; and as records of a kind, a length and a start, which make a row of messages.
 *
 * Covers: runtime/unix_control.c */
#include <stdbool.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/unix_control.h"
#include "tests/fuzz/fuzz.h"

#define ROOM_LEN 8192
#define FDS_MAX (ROOM_LEN / sizeof(int))

/* Stands before the C library's, so that the parser closes nothing of ours. */
static bool closing_noise;
static size_t noise_closed;
static int closed[FDS_MAX];

int close(int fd)
{
    if (closing_noise) {
        EXPECT(noise_closed < FDS_MAX);
        closed[noise_closed++] = fd;
        return 0;
    }
    return (int)syscall(SYS_close, fd);
}

static void parse(const void *bytes, size_t len, struct bm_unix_control *control)
{
    void *block = fuzz_copy(bytes, len);
    noise_closed = 0;
    closing_noise = true;
    bm_unix_control_parse(block, len, control);
    closing_noise = false;
    free(block);
}

static void try_raw(const uint8_t *data, size_t size)
{
    struct bm_unix_control control;
    parse(data, size, &control);
    EXPECT(control.fd_count <= BM_PACKET_FDS_MAX);
    EXPECT((control.fd_count + noise_closed) * sizeof(int) <= size);
}

enum kind { KIND_RIGHTS, KIND_CREDENTIALS, KIND_PIDFD, KIND_OTHER, KIND_OTHER_LEVEL };

struct row {
    _Alignas(struct cmsghdr) uint8_t bytes[ROOM_LEN];
    size_t len, end; /* with the padding of the last one, and without */
    int next;        /* descriptors are numbers that go up */
    int fds[FDS_MAX], closed[FDS_MAX];
    size_t fd_count, closed_count;
    bool credentials;
    struct ucred who;
};

static void expect_fds(struct row *row, unsigned count, uint8_t *data)
{
    for (unsigned i = 0; i < count; i++) {
        int fd = row->next++;
        memcpy(data + i * sizeof(int), &fd, sizeof(fd));
        if (row->fd_count < BM_PACKET_FDS_MAX)
            row->fds[row->fd_count++] = fd;
        else
            row->closed[row->closed_count++] = fd;
    }
}

static void add(struct row *row, struct fuzz_input *in)
{
    enum kind kind = fuzz_byte(in) % (KIND_OTHER_LEVEL + 1);
    size_t len = fuzz_byte(in);
    if (kind == KIND_RIGHTS)
        len *= sizeof(int);
    else if (kind == KIND_CREDENTIALS && len % 2)
        len = sizeof(struct ucred);
    else if (kind == KIND_PIDFD && len % 2)
        len = sizeof(int);
    if (row->len + CMSG_SPACE(len) > sizeof(row->bytes))
        return;
    struct cmsghdr header = {.cmsg_len = CMSG_LEN(len),
                             .cmsg_level = kind == KIND_OTHER_LEVEL ? SOL_SOCKET + 1 : SOL_SOCKET,
                             .cmsg_type = kind == KIND_RIGHTS || kind == KIND_OTHER_LEVEL
                                              ? SCM_RIGHTS
                                          : kind == KIND_CREDENTIALS ? SCM_CREDENTIALS
                                          : kind == KIND_PIDFD       ? 4 /* SCM_PIDFD */
                                                                     : 77};
    uint8_t *data = row->bytes + row->len + CMSG_LEN(0);
    memcpy(row->bytes + row->len, &header, sizeof(header));
    memset(data, fuzz_byte(in), CMSG_SPACE(len) - CMSG_LEN(0));
    if (kind == KIND_RIGHTS) {
        expect_fds(row, (unsigned)(len / sizeof(int)), data);
    } else if (kind == KIND_PIDFD && len == sizeof(int)) {
        row->closed[row->closed_count++] = row->next;
        memcpy(data, &row->next, sizeof(int));
        row->next++;
    } else if (kind == KIND_CREDENTIALS && len == sizeof(struct ucred)) {
        memcpy(&row->who, data, len);
        row->credentials = true;
    }
    row->end = row->len + CMSG_LEN(len);
    row->len += CMSG_SPACE(len);
}

static void expect_row(const struct row *row, size_t len)
{
    struct bm_unix_control control;
    parse(row->bytes, len, &control);
    EXPECT(control.fd_count == row->fd_count && noise_closed == row->closed_count);
    EXPECT(memcmp(control.fds, row->fds, row->fd_count * sizeof(int)) == 0);
    EXPECT(memcmp(closed, row->closed, row->closed_count * sizeof(int)) == 0);
    EXPECT(control.has_credentials == row->credentials);
    EXPECT(!row->credentials || memcmp(&control.credentials, &row->who, sizeof(row->who)) == 0);
}

static void try_row(const uint8_t *data, size_t size)
{
    static struct row row;
    struct fuzz_input in = {data, data + size};
    memset(&row, 0, sizeof(row));
    while (in.pos < in.end)
        add(&row, &in);
    expect_row(&row, row.len);
    expect_row(&row, row.end); /* the kernel may leave the last padding out */
}

static void try_written(unsigned count)
{
    _Alignas(struct cmsghdr) uint8_t room[BM_UNIX_CONTROL_LEN];
    struct bm_unix_control control;
    int fds[BM_PACKET_FDS_MAX] = {0};
    for (unsigned i = 0; i < count; i++)
        fds[i] = (int)(1000 + i);
    memset(room, 0xa5, sizeof(room));
    size_t len = bm_unix_control_write_fds(fds, count, room);
    EXPECT(len == (count > 0 ? CMSG_SPACE(count * sizeof(int)) : 0));
    parse(room, len, &control);
    EXPECT(control.fd_count == count && noise_closed == 0 && !control.has_credentials);
    EXPECT(memcmp(control.fds, fds, count * sizeof(int)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > ROOM_LEN)
        return 0;
    try_raw(data, size);
    try_row(data, size);
    try_written(size > 0 ? data[0] % (BM_PACKET_FDS_MAX + 1) : 0);
    return 0;
}
