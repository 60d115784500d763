/* Makes certificates for trying things, and for tests: ECDSA with P-256, a CA of one's own and what it
 * signs. For trying: keys are made where they are used and nothing is ever revoked. */
#ifndef BM_CERTIFICATE_H
#define BM_CERTIFICATE_H

#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

#define BM_CERTIFICATE_PEM_MAX 4096u
#define BM_CERTIFICATE_KEY_MAX 512u

enum bm_certificate_use {
    BM_CERTIFICATE_CA,
    BM_CERTIFICATE_SERVER,
    BM_CERTIFICATE_CLIENT,
};

/* PEM texts, zero behind the last byte. The key is a secret. */
struct bm_certificate {
    char pem[BM_CERTIFICATE_PEM_MAX];
    char key[BM_CERTIFICATE_KEY_MAX];
};

struct bm_certificate_options {
    size_t size; /* sizeof(struct bm_certificate_options) */
    enum bm_certificate_use use;
    const char *common_name;  /* up to 63 bytes */
    const char *const *names; /* "dns:localhost", "ip:::1", "uri:…", "email:…"; NULL last */
    int64_t not_before_s, not_after_s;   /* since 1970; both 0: from a day ago, for `days` */
    unsigned days;                       /* 0: 365 */
    const struct bm_certificate *issuer; /* NULL: signs itself */
    struct bm_account *account;          /* pays meanwhile; or NULL */
};

/* -EINVAL: a name that is none; -E2BIG: more than there is room for; -ENOMEM; -EIO: the library would
 * not. Takes about a millisecond: not on a reactor that has connections. */
int bm_certificate_make(struct bm_certificate *ret_certificate,
                        const struct bm_certificate_options *options);

/* Whether an elliptic key is the one in the first certificate: wolfSSL looks at the curve alone. Both are
 * PEM. 0: it is, or it is no such key;
 * -BEAM_ETLS_CONFIGURATION: it is not, or the payer (payer.h) under which this is called has refused;
 * -ENOMEM. */
int bm_certificate_check_key(const uint8_t *certificate, size_t certificate_len, const uint8_t *key,
                             size_t key_len, struct bm_account *account);

#endif
