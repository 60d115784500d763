/* Reading is done once, when a context is made, with a limit, and from a file of any kind (a pipe has no
 * length beforehand). What is inside is the library's to understand; here it is only taken apart at its
 * BEGIN and END lines (RFC 7468 2). */
#define _GNU_SOURCE
#include "net/proto/pem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FIRST_LEN 8192u

static void wipe(struct bm_account *account, uint8_t *data, size_t cap)
{
    if (data) {
        explicit_bzero(data, cap);
        bm_free(account, data, cap);
    }
}

/* Moves by hand, so that the old place is wiped. */
static int grow(struct bm_account *account, uint8_t **data, size_t *cap, size_t wanted)
{
    uint8_t *fresh = (uint8_t *)bm_alloc(account, wanted);
    if (!fresh)
        return -ENOMEM;
    if (*data)
        memcpy(fresh, *data, *cap < wanted ? *cap : wanted);
    wipe(account, *data, *cap);
    *data = fresh;
    *cap = wanted;
    return 0;
}

static int read_all(int fd, struct bm_account *account, uint8_t **data, size_t *cap, size_t *len,
                    size_t len_max)
{
    for (;;) {
        if (*len == *cap) {
            int r = *len > len_max ? -EFBIG : grow(account, data, cap, *cap ? *cap * 2 : FIRST_LEN);
            if (r < 0)
                return r;
        }
        ssize_t n = read(fd, *data + *len, *cap - *len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        *len += (size_t)n;
    }
    return *len > len_max ? -EFBIG : *len == 0 ? -ENODATA : 0;
}

int bm_pem_load(struct bm_pem *ret_pem, struct bm_account *account, const char *path,
                const void *data, size_t len, size_t len_max)
{
    uint8_t *bytes = NULL;
    size_t cap = 0, used = 0;
    int r = 0;
    if (path) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        r = read_all(fd, account, &bytes, &cap, &used, len_max);
        close(fd);
    } else if (data) {
        r = len > len_max ? -EFBIG : len == 0 ? -ENODATA : 0;
        if (r == 0 && (bytes = (uint8_t *)bm_alloc(account, len))) {
            memcpy(bytes, data, len);
            cap = used = len;
        } else if (r == 0) {
            r = -ENOMEM;
        }
    }
    if (r == 0 && used < cap) /* the block's length is what it is freed with */
        r = grow(account, &bytes, &cap, used);
    if (r < 0) {
        wipe(account, bytes, cap);
        return r;
    }
    *ret_pem = (struct bm_pem){bytes, used};
    return 0;
}

void bm_pem_deinit(struct bm_pem *pem, struct bm_account *account)
{
    wipe(account, pem->data, pem->len);
    *pem = (struct bm_pem){0};
}

int bm_pem_next(const struct bm_pem *pem, const char *name, size_t *at, const uint8_t **ret_block,
                size_t *ret_len)
{
    char begin[64], end[64];
    snprintf(begin, sizeof(begin), "-----BEGIN %s-----", name);
    snprintf(end, sizeof(end), "-----END %s-----", name);
    if (!pem->data)
        return 1;
    const uint8_t *from =
        (const uint8_t *)memmem(pem->data + *at, pem->len - *at, begin, strlen(begin));
    if (!from)
        return 1;
    size_t left = pem->len - (size_t)(from - pem->data);
    const uint8_t *to = (const uint8_t *)memmem(from, left, end, strlen(end));
    if (!to)
        return 1;
    to += strlen(end);
    *ret_block = from;
    *ret_len = (size_t)(to - from);
    *at = (size_t)(to - pem->data);
    return 0;
}
