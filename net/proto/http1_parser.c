/* llhttp, its callbacks, and what they collect.
 *
 * Model: llhttp runs over the bytes and calls back with spans. A head is in one piece, so each
 * element is one span. It begins anew with each message: nothing of one reaches into the next, and
 * that a message asks for an upgrade or is the last of its connection is not its concern.
 *
 * It is not relied upon for what it is lenient in, whatever its version: http1_line.c stands in
 * front. */
#include "net/proto/http1_parser.h"

#include <errno.h>
#include <llhttp.h>

struct bm_http1_parser {
    struct bm_account *account;
    llhttp_t llhttp;
    bool answers;
    struct bm_http1_head *head; /* under way; NULL: behind it */
    bool to_head;
    bool whole;
    size_t content;
};

static struct bm_http1_parser *of(llhttp_t *llhttp)
{
    return llhttp->data;
}

static int on_method(llhttp_t *llhttp, const char *at, size_t len)
{
    of(llhttp)->head->message.method = at;
    of(llhttp)->head->message.method_len = len;
    return 0;
}

static int on_url(llhttp_t *llhttp, const char *at, size_t len)
{
    of(llhttp)->head->target = at;
    of(llhttp)->head->target_len = len;
    return 0;
}

static int on_header_field(llhttp_t *llhttp, const char *at, size_t len)
{
    struct bm_http1_head *head = of(llhttp)->head;
    if (!head)
        return 0; /* a trailer's */
    if (head->message.field_count == BM_HTTP1_FIELDS_MAX)
        return -1; /* there are not so many lines */
    head->fields[head->message.field_count++] =
        (struct bm_field){.name = at, .name_len = len, .value = at + len, .value_len = 0};
    return 0;
}

static int on_header_value(llhttp_t *llhttp, const char *at, size_t len)
{
    struct bm_http1_head *head = of(llhttp)->head;
    if (!head || head->message.field_count == 0)
        return 0;
    struct bm_field *field = &head->fields[head->message.field_count - 1];
    while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '\t'))
        len--;
    field->value = at;
    field->value_len = len;
    return 0;
}

static int on_headers_complete(llhttp_t *llhttp)
{
    const struct bm_http1_parser *parser = of(llhttp);
    int status = llhttp->status_code;
    /* 1: no body, whatever the fields say (RFC 9112 section 6.3) */
    return parser->answers && (parser->to_head || status < 200 || status == 204 || status == 304);
}

static int on_body(llhttp_t *llhttp, const char *at, size_t len)
{
    of(llhttp)->content += len;
    return 0;
}

static int on_message_complete(llhttp_t *llhttp)
{
    of(llhttp)->whole = true;
    return 0;
}

static const llhttp_settings_t settings = {
    .on_method = on_method,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

static bool run(struct bm_http1_parser *parser, const uint8_t *bytes, size_t len)
{
    llhttp_errno_t r = llhttp_execute(&parser->llhttp, (const char *)bytes, len);
    return r == HPE_OK || (r == HPE_PAUSED_UPGRADE && parser->whole);
}

int bm_http1_parser_new(struct bm_account *account, bool answers,
                        struct bm_http1_parser **ret_parser)
{
    struct bm_http1_parser *parser = bm_alloc_zero(account, sizeof(*parser));
    if (!parser)
        return -ENOMEM;
    parser->account = account;
    parser->answers = answers;
    *ret_parser = parser;
    return 0;
}

struct bm_http1_parser *bm_http1_parser_free(struct bm_http1_parser *parser)
{
    return parser ? bm_free(parser->account, parser, sizeof(*parser)) : NULL;
}

static void lower_names(uint8_t *bytes, const struct bm_http1_head *head)
{
    for (size_t i = 0; i < head->message.field_count; i++) {
        const struct bm_field *field = &head->fields[i];
        uint8_t *name = bytes + (field->name - (const char *)bytes);
        for (size_t j = 0; j < field->name_len; j++)
            if (name[j] >= 'A' && name[j] <= 'Z')
                name[j] = (uint8_t)(name[j] + 32);
    }
}

int bm_http1_parser_head(struct bm_http1_parser *parser, uint8_t *bytes, size_t len,
                         struct bm_http1_head *head)
{
    llhttp_init(&parser->llhttp, parser->answers ? HTTP_RESPONSE : HTTP_REQUEST, &settings);
    parser->llhttp.data = parser;
    parser->to_head = head->to_head;
    parser->whole = false;
    parser->head = head;
    bool good = run(parser, bytes, len);
    parser->head = NULL;
    if (!good)
        return llhttp_get_errno(&parser->llhttp) == HPE_INVALID_METHOD ? 501 : 400;
    head->message.minor_version = parser->llhttp.http_minor;
    head->message.status = parser->answers ? parser->llhttp.status_code : 0;
    lower_names(bytes, head);
    return 0;
}

bool bm_http1_parser_agrees(const struct bm_http1_parser *parser, const struct bm_http1_head *head)
{
    if (head->message.body_len == 0)
        return parser->whole;
    if (parser->whole || !head->chunked != !(parser->llhttp.flags & F_CHUNKED))
        return false;
    return head->message.body_len < 0 ||
           parser->llhttp.content_length == (uint64_t)head->message.body_len;
}

bool bm_http1_parser_body(struct bm_http1_parser *parser, const uint8_t *bytes, size_t len,
                          size_t *ret_content)
{
    parser->content = 0;
    if (parser->whole || !run(parser, bytes, len)) /* nothing may begin another message here */
        return false;
    *ret_content = parser->content;
    return true;
}

uint64_t bm_http1_parser_chunk_len(const struct bm_http1_parser *parser)
{
    return parser->llhttp.content_length;
}

bool bm_http1_parser_whole(const struct bm_http1_parser *parser)
{
    return parser->whole;
}
