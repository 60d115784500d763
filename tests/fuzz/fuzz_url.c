/* Any text as the URL of a unix socket: it becomes the address that it says, or an error, and nothing is
 * opened. From the address the URL can be had back.
 *
 * Covers: runtime/unix_socket.c:parse_number,bm_unix_address_parse */
#include <stddef.h>
#include <stdbool.h>

#include <beam/error.h>

#include <errno.h>

#include "runtime/unix_socket.h"
#include "tests/fuzz/fuzz.h"

/* What of it is a number in decimal that an int holds, or -1; zeros in front say nothing. */
static int number_of(const char *digits)
{
    size_t len = strlen(digits);
    if (len == 0 || strspn(digits, "0123456789") != len)
        return -1;
    digits += strspn(digits, "0");
    len = strlen(digits);
    if (len > 10 || (len == 10 && strcmp(digits, "2147483647") > 0))
        return -1;
    return (int)strtol(digits, NULL, 10);
}

static void expect_same_url(const char *url, const struct bm_unix_address *address)
{
    static const struct sockaddr_un zero;
    const char *path = url + 5;
    size_t len = strlen(path), start = offsetof(struct sockaddr_un, sun_path);
    bool abstract = path[0] == '@';
    EXPECT(address->inherited_fd == -1 && address->sun.sun_family == AF_UNIX);
    EXPECT(address->len == start + len + !abstract && address->len <= sizeof(address->sun));
    EXPECT(address->sun.sun_path[0] == (abstract ? '\0' : path[0]));
    EXPECT(memcmp(address->sun.sun_path + 1, path + 1, len - 1) == 0);
    EXPECT(memcmp(address->sun.sun_path + len, zero.sun_path, sizeof(zero.sun_path) - len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bm_unix_address address = {.inherited_fd = -2};
    char *url = fuzz_string(data, size);
    int r = bm_unix_address_parse(url, &address);
    EXPECT(r == 0 || address.inherited_fd == -2);
    EXPECT(address.file_dev == 0 && address.file_ino == 0);
    if (strncmp(url, "unix:", 5) != 0 || strcmp(url, "unix:") == 0 || strcmp(url, "unix:@") == 0) {
        EXPECT(r == -BEAM_EURL);
    } else if (strncmp(url, "unix:fd:", 8) == 0) {
        int fd = number_of(url + 8);
        EXPECT(r == (fd >= 0 ? 0 : -BEAM_EURL));
        EXPECT(r < 0 || address.inherited_fd == fd);
    } else if (strlen(url + 5) >= sizeof(address.sun.sun_path)) {
        EXPECT(r == -ENAMETOOLONG);
    } else {
        EXPECT(r == 0);
        expect_same_url(url, &address);
    }
    free(url);
    return 0;
}
