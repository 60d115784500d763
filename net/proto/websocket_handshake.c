/* Both sides of the handshake, from fields to fields.
 *
 * Each field that decides something has to be there once: of two, somebody in the middle may have
 * read the other. Sec-WebSocket-Protocol is a list, and may hold more than our name: browsers have
 * no other place for a token. */
#include "net/proto/websocket_handshake.h"

#include <beam/error.h>

#include <string.h>
#include <strings.h>

#define VERSION "13"

static const struct bm_field *find_once(const struct bm_field *fields, size_t count,
                                        const char *name)
{
    return bm_field_count(fields, count, name) == 1 ? bm_field_find(fields, count, name) : NULL;
}

static bool is_exactly(const struct bm_field *field, const char *value)
{
    size_t len = strlen(value);
    return field && field->value_len == len && memcmp(field->value, value, len) == 0;
}

/* 16 bytes in base 64: the 22nd character has two bits of them. */
static bool is_key(const struct bm_field *field)
{
    if (!field || field->value_len != BM_WEBSOCKET_KEY_LEN)
        return false;
    for (size_t i = 0; i < BM_WEBSOCKET_KEY_LEN - 2; i++) {
        char c = field->value[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              c == '+' || c == '/'))
            return false;
    }
    char last = field->value[BM_WEBSOCKET_KEY_LEN - 3];
    return (last == 'A' || last == 'Q' || last == 'g' || last == 'w') &&
           memcmp(field->value + BM_WEBSOCKET_KEY_LEN - 2, "==", 2) == 0;
}

static bool is_own_host(const struct bm_field *origin, const struct bm_websocket_request *request)
{
    static const char mark[] = "://";
    const char *end = origin->value + origin->value_len;
    const char *host = memmem(origin->value, origin->value_len, mark, sizeof(mark) - 1);
    if (!host)
        return false;
    host += sizeof(mark) - 1;
    return host < end && (size_t)(end - host) == request->authority_len &&
           strncasecmp(host, request->authority, request->authority_len) == 0;
}

static bool may_ask(const struct bm_websocket_request *request,
                    const struct bm_websocket_policy *policy)
{
    size_t count = bm_field_count(request->fields, request->field_count, "origin");
    if (count != 1)
        return count == 0;
    const struct bm_field *origin = bm_field_find(request->fields, request->field_count, "origin");
    if (policy->origin_count == 0)
        return is_own_host(origin, request);
    for (size_t i = 0; i < policy->origin_count; i++)
        if (bm_field_same(origin->value, origin->value_len, policy->origins[i]))
            return true;
    return false;
}

static void add(struct bm_websocket_answer *answer, const char *name, const char *value)
{
    answer->fields[answer->field_count++] = BM_FIELD(name, value);
}

static int judge(const struct bm_websocket_request *request,
                 const struct bm_websocket_policy *policy, struct bm_websocket_answer *answer)
{
    const struct bm_field *fields = request->fields;
    size_t count = request->field_count;
    if (!request->extended) {
        if (request->method_len != 3 || memcmp(request->method, "GET", 3) != 0)
            return 405;
        if (!request->upgrade ||
            !bm_field_lists(fields, count, "upgrade", BM_WEBSOCKET_UPGRADE, false))
            return 426;
    }
    if (!is_exactly(find_once(fields, count, "sec-websocket-version"), VERSION))
        return 426;
    const struct bm_field *key = find_once(fields, count, "sec-websocket-key");
    if (!request->extended && !is_key(key))
        return 400;
    if (!may_ask(request, policy))
        return 403;
    if (!bm_field_lists(fields, count, "sec-websocket-protocol", BM_WEBSOCKET_PROTOCOL, true))
        return 400;
    if (request->extended)
        return 200;
    return bm_websocket_make_accept(key->value, answer->accept) < 0 ? 500 : 101;
}

void bm_websocket_judge(const struct bm_websocket_request *request,
                        const struct bm_websocket_policy *policy,
                        struct bm_websocket_answer *ret_answer)
{
    *ret_answer = (struct bm_websocket_answer){0};
    int status = judge(request, policy, ret_answer);
    if (status == 426 && request->extended)
        status = 400; /* there is nothing to upgrade */
    ret_answer->status = status;
    if (status == 101 || status == 426)
        ret_answer->upgrade = BM_WEBSOCKET_UPGRADE;
    if (status == 101)
        add(ret_answer, "sec-websocket-accept", ret_answer->accept);
    if (status == 101 || status == 200)
        add(ret_answer, "sec-websocket-protocol", BM_WEBSOCKET_PROTOCOL);
    if (status == 426 || (status == 400 && request->extended))
        add(ret_answer, "sec-websocket-version", VERSION);
    if (status == 405)
        add(ret_answer, "allow", "GET");
}

int bm_websocket_offer_init(struct bm_websocket_offer *offer, bool extended)
{
    *offer = (struct bm_websocket_offer){.extended = extended};
    offer->fields[offer->field_count++] = BM_FIELD("sec-websocket-version", VERSION);
    offer->fields[offer->field_count++] = BM_FIELD("sec-websocket-protocol", BM_WEBSOCKET_PROTOCOL);
    if (extended)
        return 0;
    int r = bm_websocket_make_key(offer->key);
    if (r == 0)
        offer->fields[offer->field_count++] = BM_FIELD("sec-websocket-key", offer->key);
    return r;
}

int bm_websocket_offer_verify(const struct bm_websocket_offer *offer, int status,
                              const struct bm_field *fields, size_t field_count)
{
    char accept[BM_WEBSOCKET_ACCEPT_LEN + 1];
    bool good = status == (offer->extended ? 200 : 101);
    if (!offer->extended) {
        const struct bm_field *upgrade = find_once(fields, field_count, "upgrade");
        good = good && upgrade &&
               bm_field_same(upgrade->value, upgrade->value_len, BM_WEBSOCKET_UPGRADE) &&
               bm_field_lists(fields, field_count, "connection", "upgrade", false) &&
               bm_websocket_make_accept(offer->key, accept) == 0 &&
               is_exactly(find_once(fields, field_count, "sec-websocket-accept"), accept);
    }
    good = good && is_exactly(find_once(fields, field_count, "sec-websocket-protocol"),
                              BM_WEBSOCKET_PROTOCOL);
    good = good && !bm_field_find(fields, field_count, "sec-websocket-extensions");
    return good ? 0 : -BEAM_EWEBSOCKET_HANDSHAKE;
}
