/* What <beam/net.h> tells of the TLS library, and certificates for trying things, from net/proto. */
#include <beam/net.h>

#include <errno.h>
#include <string.h>

#include "net/proto/certificate.h"
#include "net/proto/tls.h"
#include "runtime/options.h"

#define DAYS_MAX 36500u

const char *beam_tls_library(void)
{
    return bm_tls_library();
}

const char *beam_tls_library_warning(void)
{
    return bm_tls_library_warning();
}

int beam_certificate_make(struct beam_certificate *ret_certificate,
                          const struct beam_certificate_options *options)
{
    static const enum bm_certificate_use uses[] = {
        [BEAM_CERTIFICATE_CA] = BM_CERTIFICATE_CA,
        [BEAM_CERTIFICATE_SERVER] = BM_CERTIFICATE_SERVER,
        [BEAM_CERTIFICATE_CLIENT] = BM_CERTIFICATE_CLIENT,
    };
    _Static_assert(sizeof(struct beam_certificate) == sizeof(struct bm_certificate),
                   "one is copied over the other");
    struct beam_certificate_options wanted;
    struct bm_certificate made = {0}, issuer = {0};
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r < 0)
        return r;
    if (wanted.use < BEAM_CERTIFICATE_CA || wanted.use > BEAM_CERTIFICATE_CLIENT ||
        wanted.days > DAYS_MAX)
        return -EINVAL;
    if (wanted.issuer) {
        memcpy(&issuer, wanted.issuer, sizeof(issuer));
        issuer.pem[sizeof(issuer.pem) - 1] = issuer.key[sizeof(issuer.key) - 1] = '\0';
    }
    r = bm_certificate_make(&made, &(struct bm_certificate_options){
                                       .size = sizeof(struct bm_certificate_options),
                                       .use = uses[wanted.use],
                                       .common_name = wanted.common_name,
                                       .names = wanted.names,
                                       .days = wanted.days,
                                       .issuer = wanted.issuer ? &issuer : NULL,
                                   });
    if (r == 0)
        memcpy(ret_certificate, &made, sizeof(made));
    explicit_bzero(&made, sizeof(made));
    explicit_bzero(&issuer, sizeof(issuer));
    return r;
}
