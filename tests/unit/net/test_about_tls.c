/* What <beam/net.h> makes and tells for trying things. That its certificates are taken by others:
 * tests/cli/test_cert.py. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <beam/net.h>

#include "tests/support/test.h"

static int make(struct beam_certificate *ret, struct beam_certificate_options options)
{
    return beam_certificate_make(ret, &options);
}

TEST(certificate_is_made_and_signed)
{
    static const char *const names[] = {"dns:localhost", "ip:::1", NULL};
    struct beam_certificate ca, server;
    REQUIRE_INT(
        make(&ca, BEAM_CERTIFICATE_OPTIONS(.use = BEAM_CERTIFICATE_CA, .common_name = "CA")), 0);
    REQUIRE_INT(make(&server, BEAM_CERTIFICATE_OPTIONS(.use = BEAM_CERTIFICATE_SERVER,
                                                       .common_name = "localhost", .names = names,
                                                       .days = 36500, .issuer = &ca)),
                0);
    static const char begin[] = "-----BEGIN CERTIFICATE-----\n",
                      secret[] = "-----BEGIN PRIVATE KEY-----\n";
    CHECK_INT(strncmp(server.pem, begin, sizeof(begin) - 1), 0);
    CHECK_INT(strncmp(server.key, secret, sizeof(secret) - 1), 0);
    CHECK(strcmp(ca.key, server.key) != 0);
}

TEST(certificate_options_that_are_none)
{
    static const char *const bad[] = {"nothing:x", NULL};
    struct beam_certificate made, broken;
    const struct beam_certificate_options good =
        BEAM_CERTIFICATE_OPTIONS(.use = BEAM_CERTIFICATE_SERVER, .common_name = "x");
    memset(&made, 'm', sizeof(made));
    memset(&broken, 'x', sizeof(broken)); /* texts without an end */
    struct beam_certificate_options wrong[7];
    for (size_t i = 0; i < 7; i++)
        wrong[i] = good;
    wrong[0].use = 0;
    wrong[1].use = 4;
    wrong[2].common_name = NULL;
    wrong[3].common_name = "";
    wrong[4].names = bad;
    wrong[5].days = 36501;
    wrong[6].issuer = &broken;
    for (size_t i = 0; i < 7; i++) {
        test_note("row %zu", i);
        CHECK_INT(make(&made, wrong[i]), -EINVAL);
    }
    CHECK_INT(beam_certificate_make(&made, NULL), -EINVAL);
    CHECK_INT(beam_certificate_make(&made, &(struct beam_certificate_options){0}), -EINVAL);
    CHECK_INT(made.pem[0], 'm'); /* written on success alone */
    CHECK_INT(made.key[511], 'm');
}

TEST(tls_library_has_a_name)
{
    CHECK_INT(strncmp(beam_tls_library(), "wolfSSL ", 8), 0);
    CHECK_PTR(beam_tls_library(), beam_tls_library());
    const char *warning = beam_tls_library_warning();
    CHECK(!warning || strlen(warning) > 10);
}
