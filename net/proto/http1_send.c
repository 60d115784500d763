/* Heads are measured, checked and then written in one piece, so that nothing is left of one that is
 * refused. Bodies are written by their source into the outbox itself: the length of a chunk stands
 * in front of bytes that are not known yet, so room for its four digits is left, and a short chunk
 * is moved up to it.
 *
 * Whether an exchange is under way at all is for http1.c to know. */
#include "net/proto/http1_send.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/cleanup.h"

#define PIECE 16384u   /* asked of a source at once: a record of TLS */
#define PIECE_MIN 512u /* less room is left unused: a call and a frame cost more */
#define CHUNK_HEAD 6u  /* four digits, CR LF */
#define CHUNK_LAST "0\r\n\r\n"
#define CHUNK_TAIL 7u   /* CR LF, and the last chunk */
#define NUMBERS_LEN 64u /* what a length takes */

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {426, "Upgrade Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {499, "Client Closed Request"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < BM_ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Other";
}

/* Fields that say how a message is framed, and Host of a request: written here and by nobody
 * else. */
static bool is_ours(const struct bm_field *field, bool request)
{
    static const char *const names[] = {"connection", "content-length", "transfer-encoding",
                                        "upgrade",    "keep-alive",     "trailer"};
    for (size_t i = 0; i < BM_ARRAY_LEN(names); i++)
        if (bm_field_same(field->name, field->name_len, names[i]))
            return true;
    return request && (bm_field_same(field->name, field->name_len, "host") ||
                       bm_field_same(field->name, field->name_len, "expect"));
}

static int check_fields(const struct bm_field *fields, size_t count, bool request, size_t *ret_len)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        if (!bm_field_is_name(fields[i].name, fields[i].name_len) ||
            !bm_field_is_value(fields[i].value, fields[i].value_len) ||
            is_ours(&fields[i], request))
            return -EINVAL;
        if (fields[i].name_len > BM_HTTP1_FIELDS_LEN_MAX ||
            fields[i].value_len > BM_HTTP1_FIELDS_LEN_MAX)
            return -EMSGSIZE;
        len += fields[i].name_len + fields[i].value_len + 4;
        if (len > BM_HTTP1_FIELDS_LEN_MAX)
            return -EMSGSIZE;
    }
    *ret_len = len;
    return 0;
}

static int check_body(const struct bm_http1_body *body)
{
    if (body->len < -1 || (body->len == -1 && !body->source) || (body->source && body->bytes) ||
        (body->len > 0 && !body->source && !body->bytes))
        return -EINVAL;
    return body->bytes && (uint64_t)body->len > BM_HTTP1_OUTPUT_MAX ? -EMSGSIZE : 0;
}

/* What is written into room that was measured before. */
struct writer {
    char *start, *pos, *end;
};

static void put(struct writer *w, const char *text, size_t len)
{
    bm_assert(len <= (size_t)(w->end - w->pos));
    memcpy(w->pos, text, len);
    w->pos += len;
}

static void put_text(struct writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static void put_fields(struct writer *w, const struct bm_field *fields, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put(w, fields[i].name, fields[i].name_len);
        put_text(w, ": ");
        put(w, fields[i].value, fields[i].value_len);
        put_text(w, "\r\n");
    }
}

static void put_length(struct writer *w, int64_t len)
{
    char text[NUMBERS_LEN];
    snprintf(text, sizeof(text), "content-length: %lld\r\n", (long long)len);
    put_text(w, text);
}

static void put_upgrade(struct writer *w, const char *upgrade)
{
    if (!upgrade)
        return;
    put_text(w, "upgrade: ");
    put_text(w, upgrade);
    put_text(w, "\r\n");
}

static void put_connection(struct writer *w, bool upgrade, bool close, bool keep_alive)
{
    const char *with = upgrade ? "upgrade, " : "";
    char text[NUMBERS_LEN];
    if (!upgrade && !close && !keep_alive)
        return;
    snprintf(text, sizeof(text), "connection: %s%s", with,
             close        ? "close, "
             : keep_alive ? "keep-alive, "
                          : "");
    put(w, text, strlen(text) - 2); /* without the last comma */
    put_text(w, "\r\n");
}

/* Room for a head whose parts are so long, with what else may be in one. */
static int begin(struct bm_http1_send *send, size_t len, struct writer *ret_w)
{
    size_t room;
    uint8_t *to = bm_outbox_room(&send->outbox, len + 4 * NUMBERS_LEN, 0, &room);
    if (!to)
        return -ENOMEM;
    *ret_w = (struct writer){(char *)to, (char *)to, (char *)to + room};
    return 0;
}

/* The head is written; the bytes of the body stand behind it, or not at all. */
static void end(struct bm_http1_send *send, struct writer *w, const struct bm_http1_body *body,
                bool bodiless)
{
    bool copy = !bodiless && body->bytes && body->len > 0;
    put_text(w, "\r\n");
    if (copy)
        put(w, body->bytes, (size_t)body->len);
    bm_outbox_commit(&send->outbox, (size_t)(w->pos - w->start));
    if (bodiless || body->len == 0 || !body->source)
        return;
    send->source = body->source;
    send->arg = body->arg;
    send->left = body->len;
    send->asleep = false;
}

static bool is_bodiless(int status)
{
    return status < 200 || status == 204 || status == 304;
}

static int check_answer(const struct bm_http1_answer *answer, const struct bm_http1_head *request)
{
    int status = answer->status;
    if ((status < 200 && status != 101) || status > 599)
        return -EINVAL;
    if (status == 101 && !request->message.upgrade)
        return -EINVAL;
    if ((status == 101 || status == 426) != (answer->upgrade != NULL))
        return -EINVAL;
    if (answer->upgrade && !bm_field_is_value(answer->upgrade, strlen(answer->upgrade)))
        return -EINVAL;
    if ((status == 101 || status == 204) && answer->body.len != 0)
        return -EINVAL;
    return check_body(&answer->body);
}

int bm_http1_send_answer(struct bm_http1_send *send, const struct bm_http1_answer *answer,
                         const struct bm_http1_head *request, bool close, bool *ret_until_end)
{
    const struct bm_http1_body *body = &answer->body;
    bool to_head = bm_field_same(request->message.method, request->message.method_len, "HEAD");
    bool bodiless = to_head || is_bodiless(answer->status);
    bool old = request->message.minor_version == 0;
    bool until_end = !bodiless && body->len == -1 && old;
    char line[NUMBERS_LEN];
    struct writer w = {0};
    size_t len;
    int r = check_answer(answer, request);
    if (r == 0)
        r = check_fields(answer->fields, answer->field_count, false, &len);
    if (r == 0 && body->bytes && !bodiless)
        len += (size_t)body->len;
    if (r == 0)
        r = begin(send, len + (answer->upgrade ? strlen(answer->upgrade) : 0), &w);
    if (r < 0)
        return r;
    close = close || until_end;
    snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\n", answer->status, reason(answer->status));
    put_text(&w, line);
    put_fields(&w, answer->fields, answer->field_count);
    if (body->len >= 0 && answer->status != 204 && answer->status != 101 &&
        !(answer->status == 304 && body->len == 0))
        put_length(&w, body->len);
    if (body->len == -1 && !old && !is_bodiless(answer->status))
        put_text(&w, "transfer-encoding: chunked\r\n");
    put_upgrade(&w, answer->upgrade);
    put_connection(&w, answer->upgrade != NULL, close && answer->status != 101, old && !close);
    send->chunked = body->len == -1 && !old;
    *ret_until_end = until_end;
    end(send, &w, body, bodiless);
    return 0;
}

static int check_ask(const struct bm_http1_ask *ask)
{
    if (!bm_field_is_name(ask->method, strlen(ask->method)) ||
        !bm_field_is_value(ask->authority, strlen(ask->authority)) || ask->target[0] == '\0')
        return -EINVAL;
    for (const char *c = ask->target; *c; c++)
        if (*c <= ' ' || *c >= 0x7f || *c == '#')
            return -EINVAL;
    if (ask->upgrade &&
        (ask->body.len != 0 || !bm_field_is_value(ask->upgrade, strlen(ask->upgrade))))
        return -EINVAL;
    if (strlen(ask->target) + strlen(ask->method) + 11 > BM_HTTP1_START_LINE_MAX)
        return -EMSGSIZE;
    return check_body(&ask->body);
}

int bm_http1_send_ask(struct bm_http1_send *send, const struct bm_http1_ask *ask)
{
    const struct bm_http1_body *body = &ask->body;
    struct writer w = {0};
    size_t len;
    int r = check_ask(ask);
    if (r == 0)
        r = check_fields(ask->fields, ask->field_count, true, &len);
    if (r < 0)
        return r;
    len += strlen(ask->method) + strlen(ask->target) + strlen(ask->authority);
    len += (ask->upgrade ? strlen(ask->upgrade) : 0) + (body->bytes ? (size_t)body->len : 0);
    r = begin(send, len, &w);
    if (r < 0)
        return r;
    put_text(&w, ask->method);
    put_text(&w, " ");
    put_text(&w, ask->target);
    put_text(&w, " HTTP/1.1\r\nhost: ");
    put_text(&w, ask->authority);
    put_text(&w, "\r\n");
    put_fields(&w, ask->fields, ask->field_count);
    if (body->len == -1)
        put_text(&w, "transfer-encoding: chunked\r\n");
    else if (body->len > 0 || strcmp(ask->method, "POST") == 0 || strcmp(ask->method, "PUT") == 0)
        put_length(&w, body->len); /* RFC 9110 section 8.6 */
    put_upgrade(&w, ask->upgrade);
    put_connection(&w, ask->upgrade != NULL, false, false);
    send->chunked = body->len == -1;
    end(send, &w, body, false);
    return 0;
}

int bm_http1_send_refusal(struct bm_http1_send *send, int status, bool to_head)
{
    struct writer w = {0};
    char line[NUMBERS_LEN], text[NUMBERS_LEN];
    int r = begin(send, sizeof(line) + sizeof(text), &w);
    if (r < 0)
        return r;
    snprintf(line, sizeof(line), "HTTP/1.1 %d %s\r\n", status, reason(status));
    snprintf(text, sizeof(text), "%d %s\n", status, reason(status));
    put_text(&w, line);
    put_text(&w, "content-type: text/plain\r\n");
    put_length(&w, (int64_t)strlen(text));
    put_connection(&w, false, true, false);
    end(send, &w, &(struct bm_http1_body){.len = (int64_t)strlen(text), .bytes = text}, to_head);
    return 0;
}

/* The frame of a chunk around `len` bytes that stand behind its head. Returns its whole length. */
static size_t frame_chunk(uint8_t *to, size_t len, bool last)
{
    char head[CHUNK_HEAD + 1];
    size_t head_len = 0;
    size_t all = 0;
    if (len > 0) {
        head_len = (size_t)snprintf(head, sizeof(head), "%x\r\n", (unsigned)len);
        if (head_len < CHUNK_HEAD)
            memmove(to + head_len, to + CHUNK_HEAD, len);
        memcpy(to, head, head_len);
        memcpy(to + head_len + len, "\r\n", 2);
        all = head_len + len + 2;
    }
    if (last) {
        memcpy(to + all, CHUNK_LAST, sizeof(CHUNK_LAST) - 1);
        all += sizeof(CHUNK_LAST) - 1;
    }
    return all;
}

/* One question to the source. 1: the body has ended. */
static int pull_piece(struct bm_http1_send *send)
{
    size_t most = send->left >= 0 && send->left < PIECE ? (size_t)send->left : PIECE;
    size_t least = most < PIECE_MIN ? most : PIECE_MIN;
    size_t head = send->chunked ? CHUNK_HEAD : 0;
    size_t frame = head + CHUNK_TAIL;
    size_t room;
    bool ended = false;
    uint8_t *to = bm_outbox_room(&send->outbox, frame + least, frame + most, &room);
    if (!to)
        return -ENOMEM;
    size_t ask = room - frame < most ? room - frame : most;
    ssize_t n = send->source->read(send->arg, to + head, ask, &ended);
    if (n < 0)
        return (int)n;
    bm_assert((size_t)n <= ask);
    if (n == 0 && !ended) {
        send->asleep = true;
        return 0;
    }
    if (send->left >= 0) {
        send->left -= n;
        if (ended && send->left > 0)
            return -EPROTO;
        ended = send->left == 0;
    }
    bm_outbox_commit(&send->outbox, send->chunked ? frame_chunk(to, (size_t)n, ended) : (size_t)n);
    return ended;
}

int bm_http1_send_pull(struct bm_http1_send *send)
{
    int r = 0;
    while (r == 0 && send->source && !send->asleep && send->outbox.len < BM_HTTP1_OUTPUT_MAX)
        r = pull_piece(send);
    if (r != 0)
        send->source = NULL;
    return r;
}
