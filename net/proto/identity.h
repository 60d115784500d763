/* Who a certificate speaks for: the names in its subject, read from DER (RFC 5280 4.1, 4.2.1.6).
 *
 * Reads only; whether the certificate is genuine has been decided before. The bytes may be any. */
#ifndef BM_IDENTITY_H
#define BM_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/alloc.h"

#define BM_IDENTITY_NAMES_MAX 64u /* a certificate with more of them speaks for nobody here */
#define BM_IDENTITY_NAME_LEN_MAX                                                                   \
    2048u /* bytes of one: the longest are URIs, and SPIFFE's at most this */

enum bm_identity_kind {
    BM_IDENTITY_URI,
    BM_IDENTITY_DNS,
    BM_IDENTITY_EMAIL,
    BM_IDENTITY_IP,          /* as text */
    BM_IDENTITY_COMMON_NAME, /* of the subject; says nothing about hosts */
};

struct bm_identity_name {
    enum bm_identity_kind kind;
    const char
        *text; /* ends with a zero byte and has no other; printable ASCII, a common name UTF-8 */
};

struct bm_identity {
    size_t len; /* of the block, names and all */
    size_t count;
    struct bm_identity_name names[];
};

/* -EBADMSG: not a certificate, or with a name that is none (a zero byte in it, a control character);
 * -E2BIG: over one of the limits; -ENOMEM. */
int bm_identity_new(struct bm_identity **ret_identity, struct bm_account *account, const void *der,
                    size_t len);
/* The account it was made with. Accepts NULL, returns NULL. */
struct bm_identity *bm_identity_free(struct bm_identity *identity, struct bm_account *account);

/* The first name of this kind, or NULL. */
const char *bm_identity_find(const struct bm_identity *identity, enum bm_identity_kind kind);

/* Whether it speaks for this host, a name or an address (RFC 9525 section 6): a name in it is the same
 * without regard to case, or has "*" for the leftmost label; an address is the same. Common names are not
 * looked at. NULL speaks for nobody. */
bool bm_identity_is_for_host(const struct bm_identity *identity, const char *host);

#endif
