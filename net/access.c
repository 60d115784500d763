/* Who asks: the rules I1 to I3 in the order they have there.
 *
 * Invariants: nobody gets an identity by something that stands in a request twice, and none by a header
 * of somebody who is no configured proxy. An identity is 1 to 255 bytes of UTF-8 without control
 * characters, whoever gave it. */
#include "net/access.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kv/utf8.h"
#include "net/bearer.h"
#include "net/network.h"

#define WHY_LEN 128u

struct bm_access {
    beam_authenticate_fn *authenticate;
    void *authenticate_arg;
    bool local, anonymous, unix_proxy;
    char header[64]; /* in lower case; "": none is believed */
    size_t room, proxy_count;
    struct bm_network proxies[];
};

static size_t size_with(size_t proxies)
{
    return sizeof(struct bm_access) + proxies * sizeof(struct bm_network);
}

__attribute__((__format__(__printf__, 2, 3))) static int complain(char *ret_why, const char *format,
                                                                  ...)
{
    va_list args;
    va_start(args, format);
    if (ret_why)
        vsnprintf(ret_why, WHY_LEN, format, args);
    va_end(args);
    return -EINVAL;
}

static int set_header(struct bm_access *access, const char *name, char *ret_why)
{
    size_t len = strlen(name);
    if (!bm_field_is_name(name, len) || len >= sizeof(access->header))
        return complain(ret_why, "identity_header is no name of a field of at most 63 bytes");
    for (size_t i = 0; i < len; i++)
        access->header[i] = (char)(name[i] >= 'A' && name[i] <= 'Z' ? name[i] + 32 : name[i]);
    if (strcmp(access->header, "authorization") == 0)
        return complain(ret_why, "identity_header cannot be authorization");
    return 0;
}

static int set_proxies(struct bm_access *access, const char *const *proxies, char *ret_why)
{
    for (; proxies && *proxies; proxies++) {
        if (strcmp(*proxies, "unix") == 0) {
            access->unix_proxy = true;
            continue;
        }
        if (bm_network_read(&access->proxies[access->proxy_count], *proxies) < 0)
            return complain(
                ret_why,
                "proxies: %.64s is neither an address, a network (10.0.0.0/8) nor \"unix\"",
                *proxies);
        access->proxy_count++;
    }
    return 0;
}

int bm_access_new(struct bm_access **ret_access, const struct beam_net_listen *options, bool local,
                  char *ret_why)
{
    size_t count = 0;
    while (options->proxies && options->proxies[count])
        count++;
    if (count > BM_ACCESS_PROXIES_MAX)
        return complain(ret_why, "proxies: more than %u", BM_ACCESS_PROXIES_MAX);
    if ((count > 0) != (options->identity_header != NULL))
        return complain(ret_why, "proxies and identity_header go together");
    struct bm_access *access = (struct bm_access *)bm_alloc_zero(NULL, size_with(count));
    if (!access)
        return -ENOMEM;
    access->room = count;
    access->authenticate = options->authenticate;
    access->authenticate_arg = options->authenticate_arg;
    access->anonymous = options->insecure_anonymous;
    access->local = local;
    int r = count > 0 ? set_header(access, options->identity_header, ret_why) : 0;
    if (r == 0)
        r = set_proxies(access, options->proxies, ret_why);
    if (r < 0) {
        bm_free(NULL, access, size_with(count));
        return r;
    }
    *ret_access = access;
    return 0;
}

struct bm_access *bm_access_free(struct bm_access *access)
{
    if (access)
        bm_free(NULL, access, size_with(access->room));
    return NULL;
}

const char *bm_access_challenge(const struct bm_access *access)
{
    return access->authenticate ? "Bearer" : NULL;
}

static bool is_unix(const char *address)
{
    return strcmp(address, "unix") == 0;
}

static bool is_proxy(const struct bm_access *access, const char *address)
{
    if (is_unix(address))
        return access->unix_proxy;
    for (size_t i = 0; i < access->proxy_count; i++)
        if (bm_network_has(&access->proxies[i], address))
            return true;
    return false;
}

bool bm_access_hides(const struct bm_access *access, const struct bm_connection *connection,
                     beam_str name)
{
    size_t len = strlen(access->header);
    if (len == 0 || name.len != len)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name.ptr[i];
        c = (char)(c == '_' ? '-' : c >= 'A' && c <= 'Z' ? c + 32 : c);
        if (c != (access->header[i] == '_' ? '-' : access->header[i]))
            return false;
    }
    return !is_proxy(access, bm_connection_address(connection)) ||
           memcmp(name.ptr, access->header, len) != 0;
}

/* 0, or 403: it is no name. */
static int take_name(struct bm_visitor *visitor, const char *prefix, const char *name, size_t len)
{
    size_t prefix_len = strlen(prefix);
    if (len == 0 || prefix_len + len > BM_ACCESS_NAME_MAX || !bm_utf8_valid(name, len))
        return 403;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] < ' ' || name[i] == 0x7f)
            return 403;
    memcpy(visitor->name, prefix, prefix_len);
    memmove(visitor->name + prefix_len, name, len);
    visitor->name[prefix_len + len] = '\0';
    visitor->known = true;
    return 0;
}

static int by_certificate(struct bm_visitor *visitor, const struct bm_identity *identity)
{
    static const struct {
        enum bm_identity_kind kind;
        const char *prefix;
    } order[] = {
        {BM_IDENTITY_URI, "uri:"},
        {BM_IDENTITY_DNS, "dns:"},
        {BM_IDENTITY_EMAIL, "email:"},
        {BM_IDENTITY_COMMON_NAME, "cn:"},
    };
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        const char *name = bm_identity_find(identity, order[i].kind);
        if (name)
            return take_name(visitor, order[i].prefix, name, strlen(name));
    }
    return 403;
}

static int by_token(const struct bm_access *access, struct bm_visitor *visitor, beam_str token)
{
    char name[sizeof(visitor->name)] = "";
    int r = access->authenticate(token, name, sizeof(name), access->authenticate_arg);
    if (r < 0)
        return r == -EACCES ? 401 : 503;
    return take_name(visitor, "token:", name, strnlen(name, sizeof(name)));
}

/* Of a configured proxy. Two of them: one is the proxy's, and nobody knows which. */
static int by_header(const struct bm_access *access, struct bm_visitor *visitor,
                     const struct bm_exchange_request *request)
{
    size_t count = bm_field_count(request->fields, request->field_count, access->header);
    if (count == 0)
        return 0;
    const struct bm_field *field =
        bm_field_find(request->fields, request->field_count, access->header);
    if (count > 1)
        return 403;
    return field->value_len == 0 ? 0 : take_name(visitor, "proxy:", field->value, field->value_len);
}

/* 0, with or without a name, or the status to refuse with. */
static int find_name(const struct bm_access *access, const struct bm_connection *connection,
                     const struct bm_exchange_request *request, struct bm_visitor *visitor)
{
    const char *address = bm_connection_address(connection);
    const struct bm_tls *tls = bm_connection_tls(connection);
    const struct bm_identity *identity = tls ? bm_tls_peer(tls) : NULL;
    bool proxied = is_proxy(access, address);
    if (identity && !proxied)
        return by_certificate(visitor, identity);
    if (access->authenticate) {
        struct bm_bearer bearer;
        int r = bm_bearer_find(&bearer, request->fields, request->field_count);
        int status = r == -EMSGSIZE ? 431 : r < 0 ? 401 : 0;
        if (r > 0)
            status = by_token(access, visitor, bearer.token);
        bm_bearer_deinit(&bearer);
        if (r != 0)
            return status;
    }
    if (proxied)
        return by_header(access, visitor, request);
    if (access->local && is_unix(address))
        return take_name(visitor, "", "unix", 4);
    return 0;
}

int bm_access_judge(const struct bm_access *access, const struct bm_exchange *exchange,
                    const struct bm_exchange_request *request, struct bm_visitor *ret_visitor)
{
    const struct bm_connection *connection = bm_exchange_connection(exchange);
    memset(ret_visitor, 0, sizeof(*ret_visitor));
    int status = find_name(access, connection, request, ret_visitor);
    if (status != 0) {
        ret_visitor->known = false;
        ret_visitor->name[0] = '\0';
    }
    ret_visitor->peer = (struct beam_peer){
        .kind = BEAM_PEER_NET,
        .uid = UINT32_MAX,
        .gid = UINT32_MAX,
        .pid = -1,
        .identity = {ret_visitor->name, strlen(ret_visitor->name)},
        .address = {bm_connection_address(connection), strlen(bm_connection_address(connection))},
    };
    ret_visitor->admitted = status == 0 && (ret_visitor->known || access->anonymous);
    return status == 0 && !ret_visitor->admitted ? 401 : status;
}
