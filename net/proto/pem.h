/* Certificates, keys and lists as a program names them: in memory, or in a file. */
#ifndef BM_PEM_H
#define BM_PEM_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

/* Bytes that may be a secret: wiped before they are freed. */
struct bm_pem {
    uint8_t *data; /* NULL: nothing was named */
    size_t len;
};

/* Copies data, or reads the file at path; both NULL: leaves it empty. -EFBIG: over len_max; -ENODATA:
 * empty; an errno of opening or reading; -ENOMEM. Blocks. */
int bm_pem_load(struct bm_pem *ret_pem, struct bm_account *account, const char *path,
                const void *data, size_t len, size_t len_max);
void bm_pem_deinit(struct bm_pem *pem, struct bm_account *account);

/* The first block "-----BEGIN name-----" to its END line, from *at on, which moves behind it. 0, or 1:
 * there is none. */
int bm_pem_next(const struct bm_pem *pem, const char *name, size_t *at, const uint8_t **ret_block,
                size_t *ret_len);

#endif
