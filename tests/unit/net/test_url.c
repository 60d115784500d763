/* URLs of networks: what each means, and what means nothing. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <beam/error.h>

#include "base/cleanup.h"
#include "net/url.h"
#include "tests/support/test.h"

static const struct {
    const char *text;
    enum bm_url_scheme scheme;
    enum bm_url_host kind;
    const char *host;
    uint16_t port;
    const char *prefix, *authority;
} good[] = {
    {"https://example.com", BM_URL_HTTPS, BM_URL_NAME, "example.com", 443, "/beam", "example.com"},
    {"https://example.com/", BM_URL_HTTPS, BM_URL_NAME, "example.com", 443, "/beam", "example.com"},
    {"http://example.com", BM_URL_HTTP, BM_URL_NAME, "example.com", 80, "/beam", "example.com"},
    {"wss://example.com", BM_URL_WSS, BM_URL_NAME, "example.com", 443, "/beam", "example.com"},
    {"ws://example.com", BM_URL_WS, BM_URL_NAME, "example.com", 80, "/beam", "example.com"},
    {"https://Example.COM:8443", BM_URL_HTTPS, BM_URL_NAME, "example.com", 8443, "/beam",
     "example.com:8443"},
    {"http://h:443", BM_URL_HTTP, BM_URL_NAME, "h", 443, "/beam", "h:443"},
    {"http://h:0", BM_URL_HTTP, BM_URL_NAME, "h", 0, "/beam", "h:0"},
    {"http://h:65535/", BM_URL_HTTP, BM_URL_NAME, "h", 65535, "/beam", "h:65535"},
    {"http://h:00080", BM_URL_HTTP, BM_URL_NAME, "h", 80, "/beam", "h"},
    {"https://h/api", BM_URL_HTTPS, BM_URL_NAME, "h", 443, "/api", "h"},
    {"https://h/api/", BM_URL_HTTPS, BM_URL_NAME, "h", 443, "/api", "h"},
    {"https://h:1/api/v2/Beam", BM_URL_HTTPS, BM_URL_NAME, "h", 1, "/api/v2/Beam", "h:1"},
    {"https://h/.../a:b@c;d=e", BM_URL_HTTPS, BM_URL_NAME, "h", 443, "/.../a:b@c;d=e", "h"},
    {"https://192.0.2.7", BM_URL_HTTPS, BM_URL_IPV4, "192.0.2.7", 443, "/beam", "192.0.2.7"},
    {"http://127.0.0.1:8080", BM_URL_HTTP, BM_URL_IPV4, "127.0.0.1", 8080, "/beam",
     "127.0.0.1:8080"},
    {"https://[::1]", BM_URL_HTTPS, BM_URL_IPV6, "::1", 443, "/beam", "[::1]"},
    {"https://[2001:DB8:0::7]:444/p", BM_URL_HTTPS, BM_URL_IPV6, "2001:db8::7", 444, "/p",
     "[2001:db8::7]:444"},
    {"https://[::ffff:192.0.2.7]", BM_URL_HTTPS, BM_URL_IPV6, "::ffff:192.0.2.7", 443, "/beam",
     "[::ffff:192.0.2.7]"},
    {"https://xn--bcher-kva.example", BM_URL_HTTPS, BM_URL_NAME, "xn--bcher-kva.example", 443,
     "/beam", "xn--bcher-kva.example"},
    {"https://a_b-c.1d", BM_URL_HTTPS, BM_URL_NAME, "a_b-c.1d", 443, "/beam", "a_b-c.1d"},
    {"https://1.2.3.4.example", BM_URL_HTTPS, BM_URL_NAME, "1.2.3.4.example", 443, "/beam",
     "1.2.3.4.example"},
    {"http+unix:/run/x.sock", BM_URL_HTTP_UNIX, BM_URL_SOCKET_FILE, "", 0, "/beam", "localhost"},
    {"http+unix:@name", BM_URL_HTTP_UNIX, BM_URL_SOCKET_FILE, "", 0, "/beam", "localhost"},
};

TEST(url_is_taken_apart)
{
    for (size_t i = 0; i < BM_ARRAY_LEN(good); i++) {
        struct bm_url url;
        char authority[BM_URL_AUTHORITY_LEN];
        test_note("%s", good[i].text);
        REQUIRE_INT(bm_url_parse(good[i].text, &url, NULL), 0);
        CHECK_INT(url.scheme, good[i].scheme);
        CHECK_INT(url.kind, good[i].kind);
        CHECK_STR(url.host, good[i].host);
        CHECK_INT(url.port, good[i].port);
        CHECK_STR(url.prefix, good[i].prefix);
        CHECK_INT(url.secure, url.scheme == BM_URL_HTTPS || url.scheme == BM_URL_WSS);
        CHECK_INT(url.websocket, url.scheme == BM_URL_WSS || url.scheme == BM_URL_WS);
        bm_url_authority(&url, authority);
        CHECK_STR(authority, good[i].authority);
    }
}

static const struct {
    const char *text, *why;
} bad[] = {
    {"", "scheme"},
    {"https", "scheme"},
    {"https:", "scheme"},
    {"https:/h", "scheme"},
    {"HTTPS://h", "scheme"},
    {" https://h", "scheme"},
    {"ftp://h", "scheme"},
    {"unix:/h", "scheme"},
    {"http+unix//h", "scheme"},
    {"https://", "no host"},
    {"https:///p", "no host"},
    {"https://:80", "no host"},
    {"https://[]", "no host"},
    {"https://b\xc3\xbc"
     "cher.example",
     "ASCII"},
    {"https://a..b", "empty label"},
    {"https://.a", "empty label"},
    {"https://a.", "empty label"},
    {"https://-a", "hyphen"},
    {"https://a-.b", "hyphen"},
    {"https://a b", "character"},
    {"https://a%41", "character"},
    {"https://a\tb", "character"},
    {"https://a*b", "character"},
    {"https://a\\b", "character"},
    {"https://user@h", "user"},
    {"https://user:1@h", "user"},
    {"https://user:pass@h", "user"},
    {"https://1.2.3", "IPv4"},
    {"https://1.2.3.256", "IPv4"},
    {"https://1.2.3.4.5", "IPv4"},
    {"https://2130706433", "IPv4"},
    {"https://0x7f000001", "IPv4"},
    {"https://127.0.0.0x1", "IPv4"},
    {"https://0177.0.0.1", "IPv4"},
    {"https://[::1", "bracket"},
    {"https://[::1%25lo]", "zone"},
    {"https://[fe80::1%lo]", "zone"},
    {"https://[::g]", "IPv6"},
    {"https://[1.2.3.4]", "IPv6"},
    {"https://[::1]x", "character"},
    {"https://::1", "no host"},
    {"https://h:", "port"},
    {"https://h:/p", "port"},
    {"https://h:65536", "port"},
    {"https://h:000080", "port"},
    {"https://h:-1", "port"},
    {"https://h:+1", "port"},
    {"https://h:80x", "character"},
    {"https://h:80:80", "character"},
    {"https://h/a//b", "empty segment"},
    {"https://h//", "empty segment"},
    {"https://h/a//", "empty segment"},
    {"https://h/.", "dots"},
    {"https://h/a/..", "dots"},
    {"https://h/../a", "dots"},
    {"https://h/./", "dots"},
    {"https://h/a%2fb", "character"},
    {"https://h/a b", "character"},
    {"https://h/\xc3\xbc", "character"},
    {"https://h/a?b", "query"},
    {"https://h/a#b", "query"},
    {"https://h?b", "character"},
    {"https://h#b", "character"},
    {"http+unix:", "http+unix"},
    {"http+unix:/", "http+unix"},
    {"http+unix:@", "http+unix"},
    {"http+unix:relative", "http+unix"},
};

TEST(url_that_means_nothing_is_refused_with_a_reason)
{
    for (size_t i = 0; i < BM_ARRAY_LEN(bad); i++) {
        struct bm_url url = {.port = 77};
        const char *why = NULL;
        test_note("%s", bad[i].text);
        CHECK_INT(bm_url_parse(bad[i].text, &url, &why), -BEAM_EURL);
        CHECK_INT(url.port, 77);
        REQUIRE(why != NULL);
        test_note("%s: %s", bad[i].text, why);
        CHECK(strstr(why, bad[i].why));
        CHECK_INT(bm_url_parse(bad[i].text, &url, NULL), -BEAM_EURL);
    }
}

/* "https://" and len times c, with a dot behind each `every`. */
static const char *long_host(size_t len, size_t every)
{
    static char text[1000];
    strcpy(text, "https://");
    for (size_t i = 0; i < len; i++)
        text[8 + i] = every && i % (every + 1) == every ? '.' : 'a';
    text[8 + len] = '\0';
    return text;
}

TEST(url_lengths_have_limits)
{
    struct bm_url url;
    char text[300];
    CHECK_INT(bm_url_parse(long_host(63, 0), &url, NULL), 0);
    CHECK_INT(bm_url_parse(long_host(64, 0), &url, NULL), -BEAM_EURL);
    CHECK_INT(bm_url_parse(long_host(253, 49), &url, NULL), 0);
    CHECK_INT((int)strlen(url.host), 253);
    CHECK_INT(bm_url_parse(long_host(254, 49), &url, NULL), -BEAM_EURL);

    snprintf(text, sizeof(text), "https://h/%063d/", 0);
    CHECK_INT(bm_url_parse(text, &url, NULL), 0);
    CHECK_INT((int)strlen(url.prefix), BM_URL_PREFIX_MAX);
    snprintf(text, sizeof(text), "https://h/%064d", 0);
    CHECK_INT(bm_url_parse(text, &url, NULL), -BEAM_EURL);

    snprintf(text, sizeof(text), "http+unix:/%0106d", 0);
    CHECK_INT(bm_url_parse(text, &url, NULL), 0);
    CHECK_STR(url.sun.sun_path, text + 10);
    CHECK_UINT(url.sun_len, sizeof(struct sockaddr_un));
    snprintf(text, sizeof(text), "http+unix:/%0107d", 0);
    CHECK_INT(bm_url_parse(text, &url, NULL), -ENAMETOOLONG);
    snprintf(text, sizeof(text), "http+unix:@%0106d", 0);
    CHECK_INT(bm_url_parse(text, &url, NULL), 0);
    CHECK_INT(url.sun.sun_path[0], 0);
    CHECK_UINT(url.sun_len, sizeof(struct sockaddr_un) - 1);
}
