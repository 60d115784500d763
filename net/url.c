/* See url.h. Strict on purpose: each text has one meaning. What other programs would repair or guess (an
 * address of three numbers or in hexadecimal, dots in a path, percent signs) is refused, because two
 * that guess differently is how a filter is passed by. */
#include "net/url.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <beam/error.h>

#include "base/cleanup.h"

static const struct {
    const char *text;
    enum bm_url_scheme scheme;
    uint16_t port;
    bool secure, websocket;
} schemes[] = {
    {"https://", BM_URL_HTTPS, 443, true, false},  {"http://", BM_URL_HTTP, 80, false, false},
    {"http+unix:", BM_URL_HTTP_UNIX, 0, 0, false}, {"wss://", BM_URL_WSS, 443, true, true},
    {"ws://", BM_URL_WS, 80, false, true},
};

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* --- the host -------------------------------------------------------------------------------- */

static const char *check_label(const char *label, size_t len)
{
    if (len == 0)
        return "empty label in the host";
    if (len > BM_URL_LABEL_MAX)
        return "label of the host is over 63 bytes";
    for (size_t i = 0; i < len; i++) {
        if (label[i] & 0x80)
            return "host is not ASCII: write its xn-- form";
        if (!is_letter(label[i]) && !is_digit(label[i]) && label[i] != '-' && label[i] != '_')
            return "character that no host has";
    }
    if (label[0] == '-' || label[len - 1] == '-')
        return "hyphen at an end of a label";
    return NULL;
}

/* A last label that inet_aton(3) would take for a number makes the whole an address, or nothing. */
static bool looks_numeric(const char *label, size_t len)
{
    if (len >= 2 && label[0] == '0' && (label[1] == 'x' || label[1] == 'X'))
        return true;
    for (size_t i = 0; i < len; i++)
        if (!is_digit(label[i]))
            return false;
    return true;
}

static const char *check_name(struct bm_url *url, size_t len)
{
    const char *label = url->host;
    for (;;) {
        const char *dot = strchr(label, '.');
        size_t label_len = dot ? (size_t)(dot - label) : len - (size_t)(label - url->host);
        const char *why = check_label(label, label_len);
        if (why)
            return why;
        if (!dot && looks_numeric(label, label_len)) {
            struct in_addr address;
            url->kind = BM_URL_IPV4;
            return inet_pton(AF_INET, url->host, &address) == 1 ? NULL : "no IPv4 address";
        }
        if (!dot)
            break;
        label = dot + 1;
    }
    url->kind = BM_URL_NAME;
    for (size_t i = 0; i < len; i++)
        if (is_letter(url->host[i]))
            url->host[i] |= 0x20;
    return NULL;
}

static const char *check_ipv6(struct bm_url *url)
{
    struct in6_addr address;
    url->kind = BM_URL_IPV6;
    if (strchr(url->host, '%'))
        return "IPv6 address with a zone";
    if (inet_pton(AF_INET6, url->host, &address) != 1)
        return "no IPv6 address";
    inet_ntop(AF_INET6, &address, url->host, sizeof(url->host)); /* one form (RFC 5952) */
    return NULL;
}

static const char *parse_host(struct bm_url *url, const char **at)
{
    bool brackets = **at == '[';
    const char *host = *at + (brackets ? 1 : 0);
    size_t len = brackets ? strcspn(host, "]/?#@") : strcspn(host, ":/?#@");
    if (host[len] == '@')
        return "user in a URL";
    if (brackets && host[len] != ']')
        return "bracket without its other";
    if (len == 0)
        return "no host";
    if (len > BM_URL_HOST_MAX)
        return "host is over 253 bytes";
    memcpy(url->host, host, len);
    url->host[len] = '\0';
    *at = host + len + (brackets ? 1 : 0);
    return brackets ? check_ipv6(url) : check_name(url, len);
}

static const char *parse_port(struct bm_url *url, const char **at)
{
    if (**at != ':')
        return NULL;
    const char *digits = *at + 1;
    size_t len = strspn(digits, "0123456789");
    unsigned port = 0;
    if (digits[len] == '@' || strchr(digits, '@'))
        return "user in a URL";
    if (len == 0 || len > 5)
        return "no port";
    for (size_t i = 0; i < len; i++)
        port = 10 * port + (unsigned)(digits[i] - '0');
    if (port > UINT16_MAX)
        return "no port";
    url->port = (uint16_t)port;
    *at = digits + len;
    return NULL;
}

/* --- the prefix ------------------------------------------------------------------------------ */

/* RFC 3986: unreserved, sub-delims, ':' and '@'; no percent sign, so that it is compared as it is. */
static bool is_path_char(char c)
{
    return is_letter(c) || is_digit(c) || (c != '\0' && strchr("-._~!$&'()*+,;=:@", c));
}

static const char *parse_prefix(struct bm_url *url, const char *at)
{
    if (*at == '\0' || strcmp(at, "/") == 0)
        at = BM_URL_PREFIX;
    if (*at != '/')
        return "character that no host or port has";
    size_t len = strlen(at);
    if (at[len - 1] == '/')
        len--;
    if (len > BM_URL_PREFIX_MAX)
        return "prefix is over 64 bytes";
    for (size_t i = 0; i < len;) {
        size_t begin = ++i; /* behind a slash */
        for (; i < len && at[i] != '/'; i++)
            if (!is_path_char(at[i]))
                return at[i] == '?' || at[i] == '#' ? "query or fragment in a URL"
                                                    : "character that no prefix has";
        size_t segment = i - begin;
        if (segment == 0)
            return "empty segment in the prefix";
        if (strspn(at + begin, ".") >= segment && segment <= 2)
            return "dots as a segment of the prefix";
    }
    memcpy(url->prefix, at, len);
    url->prefix[len] = '\0';
    return NULL;
}

/* --- the whole ------------------------------------------------------------------------------- */

static int parse_socket_file(struct bm_url *url, const char *path, const char **ret_why)
{
    size_t len = strlen(path);
    bool abstract = path[0] == '@';
    url->kind = BM_URL_SOCKET_FILE;
    if ((!abstract && path[0] != '/') || len < 2) {
        *ret_why = "neither /path nor @name behind http+unix:";
        return -BEAM_EURL;
    }
    if (len >= sizeof(url->sun.sun_path))
        return -ENAMETOOLONG;
    url->sun.sun_family = AF_UNIX;
    memcpy(url->sun.sun_path, path, len);
    if (abstract)
        url->sun.sun_path[0] = '\0';
    /* With the end of a path; an abstract name is as long as it is said to be. */
    url->sun_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + (abstract ? 0 : 1));
    strcpy(url->prefix, BM_URL_PREFIX);
    return 0;
}

int bm_url_parse(const char *text, struct bm_url *ret_url, const char **ret_why)
{
    struct bm_url url = {0};
    const char *why = "no scheme of a network";
    int r = -BEAM_EURL;
    for (size_t i = 0; i < BM_ARRAY_LEN(schemes); i++) {
        size_t len = strlen(schemes[i].text);
        if (strncmp(text, schemes[i].text, len) != 0)
            continue;
        const char *at = text + len;
        url.scheme = schemes[i].scheme;
        url.port = schemes[i].port;
        url.secure = schemes[i].secure;
        url.websocket = schemes[i].websocket;
        if (url.scheme == BM_URL_HTTP_UNIX) {
            r = parse_socket_file(&url, at, &why);
            break;
        }
        why = parse_host(&url, &at);
        if (!why)
            why = parse_port(&url, &at);
        if (!why)
            why = parse_prefix(&url, at);
        r = why ? -BEAM_EURL : 0;
        break;
    }
    if (r == 0)
        *ret_url = url;
    else if (ret_why)
        *ret_why = r == -BEAM_EURL ? why : "name of the socket is too long";
    return r;
}

void bm_url_authority(const struct bm_url *url, char *ret_authority)
{
    uint16_t usual = url->secure ? 443 : 80;
    if (url->kind == BM_URL_SOCKET_FILE) {
        strcpy(ret_authority, "localhost");
        return;
    }
    bool brackets = url->kind == BM_URL_IPV6;
    int len = snprintf(ret_authority, BM_URL_AUTHORITY_LEN, "%s%s%s", brackets ? "[" : "",
                       url->host, brackets ? "]" : "");
    if (url->port != usual)
        snprintf(ret_authority + len, BM_URL_AUTHORITY_LEN - (size_t)len, ":%u", url->port);
}
