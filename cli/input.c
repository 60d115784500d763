/* Input: a file or standard input, to its end. */
#include "cli/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int input_open(const char *path)
{
    int fd = strcmp(path, "-") == 0 ? fcntl(0, F_DUPFD_CLOEXEC, 3)
                                    : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0)
        return fd;
    int r = -errno;
    fprintf(stderr, "beam: %s: %s\n", path, strerror(-r));
    return r;
}

int input_read(int fd, char **buffer, size_t *ret_len)
{
    size_t len = 0, cap = 0;
    for (;;) {
        if (len == cap) {
            cap = cap ? 2 * cap : 65536;
            char *larger = cap <= INPUT_LEN_MAX ? realloc(*buffer, cap) : NULL;
            if (!larger)
                return cap <= INPUT_LEN_MAX ? -ENOMEM : -EFBIG;
            *buffer = larger;
        }
        ssize_t n = read(fd, *buffer + len, cap - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *ret_len = len;
    return 0;
}
