/* The names in a certificate (net/proto/identity.h), from DER that is put together here. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "net/proto/identity.h"
#include "tests/support/test.h"
#include "tests/unit/runtime/scarce.h"

struct der {
    uint8_t data[70000];
    size_t len;
};

static struct der *element(unsigned tag, const void *content, size_t len)
{
    struct der *der = (struct der *)calloc(1, sizeof(*der));
    REQUIRE(der != NULL && len + 5 <= sizeof(der->data));
    der->data[der->len++] = (uint8_t)tag;
    if (len >= 256)
        der->data[der->len++] = 0x82;
    else if (len >= 128)
        der->data[der->len++] = 0x81;
    if (len >= 256)
        der->data[der->len++] = (uint8_t)(len >> 8);
    der->data[der->len++] = (uint8_t)len;
    if (len > 0)
        memcpy(der->data + der->len, content, len);
    der->len += len;
    return der;
}

/* Takes the parts, which end with NULL. */
static struct der *group(unsigned tag, ...)
{
    struct der *all = (struct der *)calloc(1, sizeof(*all)), *part;
    REQUIRE(all != NULL);
    va_list args;
    va_start(args, tag);
    while ((part = va_arg(args, struct der *))) {
        REQUIRE(part->len <= sizeof(all->data) - all->len);
        memcpy(all->data + all->len, part->data, part->len);
        all->len += part->len;
        free(part);
    }
    va_end(args);
    struct der *der = element(tag, all->data, all->len);
    free(all);
    return der;
}

static struct der *string(unsigned tag, const char *text)
{
    return element(tag, text, strlen(text));
}

#define NONE ((struct der *)NULL)

/* A certificate with this common name and these GeneralNames; takes them. */
static struct der *certificate(struct der *common_name, struct der *names)
{
    struct der *alt = group(0x30, string(0x06, "\x55\x1d\x11"), group(0x04, names, NONE), NONE);
    struct der *other = group(0x30, string(0x06, "\x55\x1d\x13"), element(0x01, "\xff", 1),
                              string(0x04, "x"), NONE);
    struct der *subject = group(
        0x30,
        group(0x31, group(0x30, string(0x06, "\x55\x04\x0a"), string(0x0c, "org"), NONE), NONE),
        group(0x31, group(0x30, string(0x06, "\x55\x04\x03"), common_name, NONE), NONE), NONE);
    struct der *body =
        group(0x30, group(0xa0, element(0x02, "\2", 1), NONE), element(0x02, "\1", 1),
              group(0x30, NONE), group(0x30, NONE), group(0x30, NONE), subject, group(0x30, NONE),
              group(0xa3, group(0x30, other, alt, NONE), NONE), NONE);
    return group(0x30, body, group(0x30, NONE), element(0x03, "\0", 1), NONE);
}

/* What comes of it; takes it. */
static int read(struct der *der, struct bm_identity **ret_identity)
{
    uint8_t *copy = (uint8_t *)malloc(der->len);
    REQUIRE(copy != NULL);
    memcpy(copy, der->data, der->len);
    int r = bm_identity_new(ret_identity, NULL, copy, der->len);
    free(copy);
    free(der);
    return r;
}

TEST(identity_has_all_kinds_of_names_in_their_order)
{
    static const uint8_t v6[16] = {[15] = 1};
    struct der *names =
        group(0x30, string(0x82, "a.test"), string(0x86, "spiffe://x/y"), string(0x81, "a@b.test"),
              element(0x87, "\x7f\0\0\1", 4), element(0x87, v6, 16), string(0x88, "\x2a"),
              string(0x82, "b.test"), NONE);
    struct bm_identity *identity = NULL;
    REQUIRE_INT(read(certificate(string(0x0c, "Zo\xc3\xab"), names), &identity), 0);
    static const struct {
        enum bm_identity_kind kind;
        const char *text;
    } expected[] = {
        {BM_IDENTITY_DNS, "a.test"},
        {BM_IDENTITY_URI, "spiffe://x/y"},
        {BM_IDENTITY_EMAIL, "a@b.test"},
        {BM_IDENTITY_IP, "127.0.0.1"},
        {BM_IDENTITY_IP, "::1"},
        {BM_IDENTITY_DNS, "b.test"},
        {BM_IDENTITY_COMMON_NAME, "Zo\xc3\xab"},
    };
    REQUIRE_UINT(identity->count, 7);
    for (size_t i = 0; i < 7; i++) {
        CHECK_INT(identity->names[i].kind, expected[i].kind);
        CHECK_STR(identity->names[i].text, expected[i].text);
    }
    CHECK_STR(bm_identity_find(identity, BM_IDENTITY_DNS), "a.test");
    CHECK_STR(bm_identity_find(NULL, BM_IDENTITY_DNS), NULL);
    CHECK_PTR(bm_identity_free(identity, NULL), NULL);
    CHECK_PTR(bm_identity_free(NULL, NULL), NULL);
}

TEST(identity_refuses_names_that_two_readers_read_differently)
{
    static const struct {
        unsigned tag;
        const char *text;
        size_t len;
    } rows[] = {
        {0x82, "good.test\0.evil.test", 20},
        {0x82, "", 0},
        {0x82, "a\nb", 3},
        {0x86, "uri:\x7f", 5},
        {0x81, "\xc3\xab", 2},
        {0x87, "123", 3},
        {0x87, "12345", 5},
    };
    struct bm_identity *identity = NULL;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu", i);
        struct der *names = group(0x30, element(rows[i].tag, rows[i].text, rows[i].len), NONE);
        CHECK_INT(read(certificate(string(0x0c, "x"), names), &identity), -EBADMSG);
    }
    CHECK_INT(read(certificate(element(0x0c, "admin\0x", 7), group(0x30, NONE)), &identity),
              -EBADMSG);
    CHECK_INT(read(certificate(string(0x0c, "a\rb"), group(0x30, NONE)), &identity), -EBADMSG);
    CHECK_PTR(identity, NULL);
}

TEST(identity_keeps_to_its_limits)
{
    struct bm_identity *identity = NULL;
    char name[BM_IDENTITY_NAME_LEN_MAX + 1];
    memset(name, 'a', sizeof(name));
    struct der *names = group(0x30, element(0x86, name, BM_IDENTITY_NAME_LEN_MAX), NONE);
    CHECK_INT(read(certificate(string(0x0c, "x"), names), &identity), 0);
    CHECK_UINT(strlen(bm_identity_find(identity, BM_IDENTITY_URI)), BM_IDENTITY_NAME_LEN_MAX);
    identity = bm_identity_free(identity, NULL);
    names = group(0x30, element(0x86, name, BM_IDENTITY_NAME_LEN_MAX + 1), NONE);
    CHECK_INT(read(certificate(string(0x0c, "x"), names), &identity), -E2BIG);

    for (unsigned count = BM_IDENTITY_NAMES_MAX - 1; count <= BM_IDENTITY_NAMES_MAX; count++) {
        struct der *list = (struct der *)calloc(1, sizeof(*list));
        REQUIRE(list != NULL);
        for (unsigned i = 0; i < count; i++) {
            memcpy(list->data + list->len, "\x82\1a", 3);
            list->len += 3;
        }
        struct der *all = group(0x30, list, NONE);
        int r = read(certificate(string(0x0c, "x"), all), &identity); /* and the common name */
        CHECK_INT(r, count < BM_IDENTITY_NAMES_MAX ? 0 : -E2BIG);
        identity = bm_identity_free(identity, NULL);
    }
}

TEST(identity_speaks_for_the_hosts_in_it)
{
    static const struct {
        uint8_t tag;
        const char *name;
        size_t len;
        const char *host;
        bool is;
    } rows[] = {
        {0x82, "a.test", 6, "a.test", true},
        {0x82, "A.Test", 6, "a.tesT", true},
        {0x82, "a.test", 6, "b.test", false},
        {0x82, "a.test", 6, "a.test.evil", false},
        {0x82, "a.test", 6, "x.a.test", false},
        {0x82, "*.a.test", 8, "x.a.test", true}, /* one label, and there has to be one */
        {0x82, "*.a.test", 8, "y.x.a.test", false},
        {0x82, "*.a.test", 8, "a.test", false},
        {0x82, "*.a.test", 8, ".a.test", false},
        {0x82, "*.test", 6, "a.test", false}, /* that would be all of a country */
        {0x82, "x*.a.test", 9, "xy.a.test", false},
        {0x82, "10.0.0.7", 8, "10.0.0.7", false}, /* a name is no address */
        {0x87, "\x0a\0\0\7", 4, "10.0.0.7", true},
        {0x87, "\x0a\0\0\7", 4, "10.0.0.8", false},
        {0x87, "\x0a\0\0\7", 4, "a00:7::", false}, /* the same four bytes */
        {0x87, "\x0a\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0", 16, "a00:7::", true},
        {0x87, "\x0a\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0", 16, "A00:7:0::0", true},
        {0x87, "\x0a\0\0\7\0\0\0\0\0\0\0\0\0\0\0\0", 16, "10.0.0.7", false},
        {0x86, "https://a.test", 14, "a.test", false},
    };
    struct bm_identity *identity = NULL;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu: %s", i, rows[i].host);
        struct der *names = group(0x30, element(rows[i].tag, rows[i].name, rows[i].len), NONE);
        REQUIRE_INT(read(certificate(string(0x0c, "b.test"), names), &identity), 0);
        CHECK_INT(bm_identity_is_for_host(identity, rows[i].host), rows[i].is);
        identity = bm_identity_free(identity, NULL);
    }
    CHECK(!bm_identity_is_for_host(NULL, "a.test"));
}

TEST(identity_of_a_part_of_a_certificate_is_none)
{
    struct der *names = group(0x30, string(0x82, "a.test"), NONE);
    struct der *whole = certificate(string(0x0c, "x"), names);
    struct bm_identity *identity = NULL;
    for (size_t len = 0; len < whole->len; len++) {
        struct der *part = (struct der *)calloc(1, sizeof(*part));
        REQUIRE(part != NULL);
        memcpy(part->data, whole->data, len);
        part->len = len;
        CHECK_INT(read(part, &identity), -EBADMSG);
    }
    scarce_begin(0);
    CHECK_INT(bm_identity_new(&identity, NULL, whole->data, whole->len), -ENOMEM);
    scarce_end();
    CHECK_PTR(identity, NULL);
    free(whole);
}
