/* Checks of single header fields: of our own output, once a field, and of the authority of a request.
 * What a field may be made of, whatever carries it, is known to field.c. */
#include "net/proto/h2_fields.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"

/* RFC 9113 section 8.2.2: these speak about a connection, and HTTP/2 has other words for that. */
static const char *const connection_fields[] = {
    "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade",
};

static const char *const pseudo_names[BM_H2_PSEUDO_FIELDS] = {
    [BM_H2_METHOD] = ":method", [BM_H2_SCHEME] = ":scheme",     [BM_H2_AUTHORITY] = ":authority",
    [BM_H2_PATH] = ":path",     [BM_H2_PROTOCOL] = ":protocol", [BM_H2_STATUS] = ":status",
};

static bool is_alpha(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool equals(beam_str a, const char *text)
{
    size_t len = strlen(text);
    return a.len == len && memcmp(a.ptr, text, len) == 0;
}

static bool token_sendable(beam_str token)
{
    return bm_field_is_name(token.ptr, token.len);
}

static bool name_sendable(beam_str name)
{
    if (!token_sendable(name))
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (name.ptr[i] >= 'A' && name.ptr[i] <= 'Z')
            return false;
    for (size_t i = 0; i < BM_ARRAY_LEN(connection_fields); i++)
        if (equals(name, connection_fields[i]))
            return false;
    return true;
}

static bool field_sendable(const struct bm_field *field)
{
    beam_str name = {field->name, field->name_len}, value = {field->value, field->value_len};
    if (!name_sendable(name) || !bm_field_is_value(value.ptr, value.len))
        return false;
    return !equals(name, "te") || equals(value, "trailers");
}

static bool path_sendable(beam_str path)
{
    for (size_t i = 0; i < path.len; i++) {
        unsigned char c = (unsigned char)path.ptr[i];
        if (c <= ' ' || c == 0x7f || c == '#')
            return false;
    }
    return path.len > 0 && (path.ptr[0] == '/' || equals(path, "*"));
}

static bool scheme_sendable(beam_str scheme)
{
    for (size_t i = 0; i < scheme.len; i++) {
        unsigned char c = (unsigned char)scheme.ptr[i];
        bool first = is_alpha(c);
        if (!first && (i == 0 || !(is_digit(c) || strchr("+-.", c) != NULL) || c == '\0'))
            return false;
    }
    return scheme.len > 0;
}

bool bm_h2_authority_ok(beam_str authority)
{
    for (size_t i = 0; i < authority.len; i++) {
        unsigned char c = (unsigned char)authority.ptr[i];
        if (c <= ' ' || c == 0x7f || c == '@' || c == '/' || c == '?' || c == '#' || c == '\\')
            return false;
    }
    return authority.len > 0;
}

bool bm_h2_authority_same(beam_str a, beam_str b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++)
        if (lower(a.ptr[i]) != lower(b.ptr[i]))
            return false;
    return true;
}

int bm_h2_pseudo_of(beam_str name)
{
    if (name.len == 0 || name.ptr[0] != ':')
        return -1;
    for (int i = 0; i < BM_H2_PSEUDO_FIELDS; i++)
        if (equals(name, pseudo_names[i]))
            return i;
    return -1;
}

static void list_pseudo(struct bm_h2_list *list, enum bm_h2_pseudo pseudo, beam_str value)
{
    if (value.len > 0)
        list->fields[list->count++] = (struct bm_field){
            .name = pseudo_names[pseudo],
            .name_len = strlen(pseudo_names[pseudo]),
            .value = value.ptr,
            .value_len = value.len,
        };
}

static int list_fields(struct bm_h2_list *list, const struct bm_field *fields, size_t count)
{
    size_t len = 0;
    if (count > BM_H2_FIELDS_MAX)
        return -EINVAL;
    for (size_t i = 0; i < count; i++) {
        len += fields[i].name_len + fields[i].value_len;
        if (!field_sendable(&fields[i]) || len > BM_H2_FIELDS_LEN_MAX)
            return -EINVAL;
        list->fields[list->count++] = fields[i];
    }
    return 0;
}

int bm_h2_list_request(struct bm_h2_list *list, const struct bm_h2_request *request)
{
    bool plain_connect = request->protocol.len == 0 && equals(request->method, "CONNECT");
    if (!token_sendable(request->method) || !bm_h2_authority_ok(request->authority) ||
        (request->protocol.len > 0 && !token_sendable(request->protocol)))
        return -EINVAL;
    if (plain_connect ? request->scheme.len > 0 || request->path.len > 0
                      : !scheme_sendable(request->scheme) || !path_sendable(request->path))
        return -EINVAL;
    list->count = 0;
    list_pseudo(list, BM_H2_METHOD, request->method);
    list_pseudo(list, BM_H2_SCHEME, request->scheme);
    list_pseudo(list, BM_H2_AUTHORITY, request->authority);
    list_pseudo(list, BM_H2_PATH, request->path);
    list_pseudo(list, BM_H2_PROTOCOL, request->protocol);
    return list_fields(list, request->fields, request->fields_count);
}

int bm_h2_list_response(struct bm_h2_list *list, unsigned status, const struct bm_field *fields,
                        size_t count)
{
    list->count = 0;
    for (unsigned i = 3; i > 0; status /= 10)
        list->status[--i] = (char)('0' + status % 10);
    list_pseudo(list, BM_H2_STATUS, (beam_str){list->status, 3});
    return list_fields(list, fields, count);
}
