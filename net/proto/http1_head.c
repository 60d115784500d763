/* What a head means, strictly.
 *
 * The rules are those of RFC 9112 sections 3.2 (target and Host), 6 (length of the body) and 9.3
 * (persistence). Where they let a recipient repair or choose, the message is refused instead: two
 * recipients that choose differently are a smuggled request. So: one Content-Length of digits only;
 * Transfer-Encoding is "chunked", once, and never beside a length or in HTTP/1.0; one Host; an
 * absolute target names the same host. */
#include "net/proto/http1_head.h"

#include <string.h>
#include <strings.h>

#define LENGTH_DIGITS_MAX 18u /* what fits into an int64_t whatever the digits are */

#define FIND(head, name) bm_field_find((head)->fields, (head)->message.field_count, (name))
#define COUNT(head, name) bm_field_count((head)->fields, (head)->message.field_count, (name))
#define LISTS(head, name, token)                                                                   \
    bm_field_lists((head)->fields, (head)->message.field_count, (name), (token), false)

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

int bm_http1_head_check_version(const char *line, size_t len)
{
    static const char name[] = "HTTP/";
    if (len < 8)
        return 400;
    const char *version = line + len - 8;
    if (memcmp(version, name, 5) != 0 || !is_digit(version[5]) || version[6] != '.' ||
        !is_digit(version[7]) || (len > 8 && version[-1] != ' '))
        return 400;
    return version[5] == '1' && version[7] <= '1' ? 0 : 505;
}

static bool is_method(const struct bm_http1_head *head, const char *method)
{
    size_t len = strlen(method);
    return head->message.method_len == len && memcmp(head->message.method, method, len) == 0;
}

/* Of a registered name (RFC 3986 section 3.2.2) but for commas, which would make a list of it. */
static bool is_name_char(char c)
{
    if (bm_field_is_token_char((unsigned char)c))
        return c != '#' && c != '^' && c != '`' && c != '|';
    return c == '(' || c == ')' || c == ';' || c == '=';
}

/* host [":" port] of RFC 3986 without user information. What is a name is left to whoever looks it
 * up. */
static bool is_authority(const char *text, size_t len)
{
    const char *end = text + len;
    if (len > 0 && *text == '[') {
        text = memchr(text, ']', len);
        if (!text)
            return false;
        text++;
    } else {
        while (text < end && *text != ':') {
            if (!is_name_char(*text))
                return false;
            text++;
        }
    }
    if (text < end && *text++ != ':')
        return false;
    while (text < end)
        if (!is_digit(*text++))
            return false;
    return true;
}

static bool starts_with(const char *text, size_t len, const char *prefix)
{
    size_t prefix_len = strlen(prefix);
    return len >= prefix_len && bm_field_same(text, prefix_len, prefix);
}

static void set_authority(struct bm_http1_head *head, const char *authority, size_t len)
{
    head->message.authority = authority;
    head->message.authority_len = len;
}

static void set_path(struct bm_http1_head *head, const char *path, size_t len)
{
    head->message.path = path;
    head->message.path_len = len;
}

/* Takes an absolute target apart. The host is written twice then, and has to be the same. */
static int judge_absolute(struct bm_http1_head *head, size_t scheme_len)
{
    const char *from = head->target + scheme_len;
    size_t len = head->target_len - scheme_len;
    const char *slash = memchr(from, '/', len);
    size_t authority_len = slash ? (size_t)(slash - from) : len;
    if (authority_len == 0 || !is_authority(from, authority_len))
        return 400;
    if (head->message.authority_len > 0 &&
        (head->message.authority_len != authority_len ||
         strncasecmp(head->message.authority, from, authority_len) != 0))
        return 400;
    set_authority(head, from, authority_len);
    if (slash)
        set_path(head, slash, len - authority_len);
    else if (is_method(head, "OPTIONS"))
        set_path(head, "*", 1); /* RFC 9112 section 3.2.4 */
    else
        set_path(head, "/", 1);
    return 0;
}

static int judge_target(struct bm_http1_head *head)
{
    const char *target = head->target;
    size_t len = head->target_len;
    if (is_method(head, "CONNECT")) /* we are no proxy; its target would be an authority */
        return 501;
    if (len == 0 || memchr(target, '#', len))
        return 400;
    if (target[0] == '/') {
        set_path(head, target, len);
        return 0;
    }
    if (len == 1 && target[0] == '*' && is_method(head, "OPTIONS")) {
        set_path(head, target, len);
        return 0;
    }
    if (starts_with(target, len, "http://"))
        return judge_absolute(head, 7);
    if (starts_with(target, len, "https://"))
        return judge_absolute(head, 8);
    return 400;
}

static int judge_host(struct bm_http1_head *head)
{
    size_t hosts = COUNT(head, "host");
    set_authority(head, "", 0);
    if (hosts > 1 || (hosts == 0 && head->message.minor_version > 0))
        return 400;
    if (hosts == 0)
        return 0;
    const struct bm_field *host = FIND(head, "host");
    if (!is_authority(host->value, host->value_len))
        return 400;
    set_authority(head, host->value, host->value_len);
    return 0;
}

/* Digits only, as many as cannot overflow. */
static int read_length(const struct bm_field *field, int64_t *ret_length)
{
    int64_t length = 0;
    if (field->value_len == 0)
        return 400;
    for (size_t i = 0; i < field->value_len; i++)
        if (!is_digit(field->value[i]))
            return 400;
    if (field->value_len > LENGTH_DIGITS_MAX)
        return 413;
    for (size_t i = 0; i < field->value_len; i++)
        length = length * 10 + (field->value[i] - '0');
    *ret_length = length;
    return 0;
}

/* What the fields say of the body, before it is asked whether there is one at all. */
static int judge_length(struct bm_http1_head *head, bool *ret_stated, int64_t *ret_length)
{
    size_t lengths = COUNT(head, "content-length");
    size_t codings = COUNT(head, "transfer-encoding");
    *ret_stated = false;
    *ret_length = 0;
    if (lengths > 1 || codings > 1 || (lengths > 0 && codings > 0))
        return 400;
    if (codings > 0) {
        const struct bm_field *coding = FIND(head, "transfer-encoding");
        if (head->message.minor_version == 0)
            return 400; /* RFC 9112 section 6.1 */
        if (!bm_field_same(coding->value, coding->value_len, "chunked"))
            return 501;
        head->chunked = true;
    }
    if (lengths > 0) {
        *ret_stated = true;
        return read_length(FIND(head, "content-length"), ret_length);
    }
    return 0;
}

static int judge_body(struct bm_http1_head *head, uint64_t body_len_max)
{
    int status = head->message.status;
    int64_t length;
    bool stated;
    int r = judge_length(head, &stated, &length);
    if (r > 0)
        return r;
    if (head->answer && (head->to_head || status < 200 || status == 204 || status == 304)) {
        if (head->chunked && status < 200)
            return 400; /* RFC 9112 section 6.1 */
        head->chunked = false;
        return 0;
    }
    if (!head->answer && !stated && !head->chunked && head->message.minor_version == 0 &&
        (is_method(head, "POST") || is_method(head, "PUT")))
        return 411; /* RFC 1945 section 7.2.2 */
    head->until_end = head->answer && !stated && !head->chunked;
    head->message.body_len = head->chunked || head->until_end ? -1 : length;
    return length > 0 && (uint64_t)length > body_len_max ? 413 : 0;
}

static int judge_expectation(struct bm_http1_head *head)
{
    size_t count = COUNT(head, "expect");
    if (head->answer || head->message.minor_version == 0 || count == 0)
        return 0;
    const struct bm_field *expect = FIND(head, "expect");
    if (count > 1 || !bm_field_same(expect->value, expect->value_len, "100-continue"))
        return 417;
    head->expects_continue = head->message.body_len != 0;
    return 0;
}

static void judge_connection(struct bm_http1_head *head)
{
    bool old = head->message.minor_version == 0;
    head->keep_alive = !LISTS(head, "connection", "close") &&
                       (!old || LISTS(head, "connection", "keep-alive")) && !head->until_end;
    head->message.upgrade = !old && LISTS(head, "connection", "upgrade") && FIND(head, "upgrade") &&
                            head->message.body_len == 0;
}

int bm_http1_head_judge(struct bm_http1_head *head, uint64_t body_len_max)
{
    int r = 0;
    head->message.fields = head->fields;
    if (!head->answer)
        r = judge_host(head);
    if (r == 0 && !head->answer)
        r = judge_target(head);
    if (r == 0)
        r = judge_body(head, body_len_max);
    if (r == 0)
        r = judge_expectation(head);
    if (r == 0)
        judge_connection(head);
    if (r == 0 && head->message.status == 101 && !(head->to_upgrade && head->message.upgrade))
        r = 400;
    return r;
}
