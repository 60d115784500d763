/* HTTP/1.1 on one connection.
 *
 * Model: bytes come through a gate (http1_line.c) that knows lines and nothing else, then through
 * the parser (http1_parser.c), which knows what they mean; http1_head.c judges the head that comes
 * out. The head is collected and parsed in one piece, so that names and values are spans of one
 * buffer; bodies are handed on where they lie. What the parser says about lengths has to be what
 * the judge says: where two readers differ, the message is refused. What goes out is
 * http1_send.c's.
 *
 *     HEAD ─> LENGTH ──────────────────────────────────────┐
 *        └──> CHUNK ─> CHUNK_DATA ─> CHUNK_END ─┐          │
 *        │      ^ └─────────────────────────────┘          │
 *        │      └──> TRAILERS ─────────────────────────────┤
 *        └──> UNTIL_END (client) ──────────────────────────┤
 *        └─────────────────────────────────────────────> WHOLE ─> HEAD, when both have ended
 *
 * Invariants:
 *   - a parser lives for one message: nothing of one can reach into the next;
 *   - bytes are taken for one exchange at a time; a client that expects no answer takes none;
 *   - callbacks run from what is received and from `settle`, which no answer, ask, hold or resume
 *     calls;
 *   - after an error nothing is taken, no source is asked and nothing is called.
 *
 * It knows no paths, no methods (but HEAD, OPTIONS, CONNECT, and those that must have a length), no
 * content. */
#include "net/proto/http1.h"

#include <beam/error.h>

#include <errno.h>
#include <string.h>

#include "base/assert.h"
#include "base/clock.h"
#include "net/proto/http1_head.h"
#include "net/proto/http1_line.h"
#include "net/proto/http1_parser.h"
#include "net/proto/http1_send.h"

#define HEAD_LEN_FIRST 1024u /* most heads are shorter */
#define HEAD_LEN_KEPT 4096u  /* what a connection that waits may keep */
#define HEAD_LEN_MAX (BM_HTTP1_START_LINE_MAX + BM_HTTP1_FIELDS_LEN_MAX + 4) /* two line ends */
/* Output that is there so long after the last call with a time begins to be waited for: there is
 * none in those that make it. */
#define NOTICE_NS BM_NS_PER_S

enum input {
    IN_HEAD,
    IN_LENGTH,
    IN_CHUNK,
    IN_CHUNK_DATA,
    IN_CHUNK_END,
    IN_TRAILERS,
    IN_UNTIL_END,
    IN_WHOLE,
};

struct bm_http1 {
    struct bm_account *account;
    const struct bm_http1_handlers *handlers;
    void *arg;
    uint64_t body_len_max;
    bool client;

    /* What comes in. */
    struct bm_http1_parser *parser;
    enum input input;
    struct bm_http1_line line;
    uint8_t *bytes; /* the head */
    size_t len, cap;
    size_t start_len; /* of it the first line; 0: not whole */
    unsigned lines;   /* of fields, or of trailers */
    unsigned empty_lines, interims;
    struct bm_http1_head head;
    uint64_t left;
    uint64_t body_len, extensions, trailers_len;
    uint64_t drained; /* of the body, since the answer is complete */

    /* The exchange. */
    bool open;  /* on_message was called, or a request is under way */
    bool asked; /* what is ours has been begun */
    bool sent;  /* ... and is whole in the output */
    bool tell_sent;
    bool keep;          /* another exchange may follow */
    bool owes_continue; /* the peer waits for it before it sends the body */
    bool held;
    bool to_head, to_upgrade; /* what a client asked */
    struct bm_http1_send send;

    /* The connection. */
    int error;
    int broken;    /* the peer has half of something */
    bool draining; /* none shall follow */
    bool done;     /* no exchange follows */
    bool ended;    /* the peer's side */
    bool upgraded;
    bool first;     /* no exchange has been */
    unsigned calls; /* of ours that may call back, under way */

    uint64_t now_ns;
    uint64_t since_ns; /* of waiting for the first byte, the head, the body; 0: not known yet */
    uint64_t rated;    /* bytes of the body since */
    uint64_t stall_ns; /* when output was first seen not to move; 0: not yet */
};

/* ---- the exchange ---- */

static void begin_head(struct bm_http1 *http)
{
    http->input = IN_HEAD;
    http->line =
        (struct bm_http1_line){.kind = http->client ? BM_HTTP1_LINE_STATUS : BM_HTTP1_LINE_REQUEST};
    if (http->cap > HEAD_LEN_KEPT) {
        http->bytes = bm_free(http->account, http->bytes, http->cap);
        http->cap = 0;
    }
    http->len = http->start_len = 0;
    http->lines = http->empty_lines = 0;
}

/* All of one exchange is over; `keep` says whether another may follow. An error is told while what
 * was lent is still there. */
static void end_exchange(struct bm_http1 *http, int error)
{
    bool open = http->open;
    http->open = http->asked = http->sent = http->tell_sent = false;
    http->owes_continue = http->held = false;
    http->interims = 0;
    http->send.source = NULL;
    http->first = false;
    http->since_ns = 0; /* now_ns may be that of long ago */
    http->done = http->done || !http->keep || http->draining;
    if (open && error < 0)
        http->handlers->on_abort(http, error, http->arg);
    begin_head(http);
}

static bool is_to_head(const struct bm_http1 *http)
{
    const struct bm_http1_message *message = &http->head.message;
    return http->open && bm_field_same(message->method, message->method_len, "HEAD");
}

/* The connection is over for this reason. `status`: what a peer that waits for an answer is told;
 * 0: nothing. */
static int fail(struct bm_http1 *http, int status, int error)
{
    if (http->error)
        return http->error;
    http->error = error;
    if (http->asked && !http->sent)
        http->broken = error;
    else if (!http->client && !http->asked && status > 0)
        (void)bm_http1_send_refusal(&http->send, status,
                                    is_to_head(http)); /* else it is not told */
    http->keep = false;
    end_exchange(http, error);
    return error;
}

/* What status says, as an error. */
static int refuse(struct bm_http1 *http, int status)
{
    switch (status) {
    case 413:
    case 414:
    case 431:
        return fail(http, status, -BEAM_EHTTP_TOO_LARGE);
    case 417:
    case 501:
    case 505:
        return fail(http, status, -BEAM_EHTTP_UNSUPPORTED);
    default:
        return fail(http, status, -BEAM_EHTTP_SYNTAX);
    }
}

/* Calls what is due, and goes on to the next exchange when this one is over. */
static void settle(struct bm_http1 *http)
{
    if (http->error)
        return;
    if (http->tell_sent) {
        http->tell_sent = false;
        if (!http->client)
            http->held = false; /* what is left of the request is in the way of the next */
        http->handlers->on_sent(http, http->arg);
    }
    if (!http->open)
        return;
    bool whole = http->input == IN_WHOLE;
    if (http->sent && whole) {
        end_exchange(http, 0);
    } else if (http->client ? whole : http->sent && !http->keep) {
        http->keep = false;
        if (http->client)
            http->broken = -ECANCELED;
        end_exchange(http, -ECANCELED);
    }
}

static void end_message(struct bm_http1 *http)
{
    http->input = IN_WHOLE;
    if (http->client && http->head.message.status == 101)
        http->upgraded = true;
    http->handlers->on_message_end(http, http->arg);
}

static void begin_body(struct bm_http1 *http)
{
    const struct bm_http1_head *head = &http->head;
    http->body_len = http->extensions = http->trailers_len = http->drained = http->rated = 0;
    http->lines = 0;
    http->since_ns = http->now_ns;
    if (head->chunked) {
        http->input = IN_CHUNK;
        http->line = (struct bm_http1_line){.kind = BM_HTTP1_LINE_CHUNK};
    } else if (head->until_end) {
        http->input = IN_UNTIL_END;
    } else {
        http->left = (uint64_t)head->message.body_len;
        http->input = http->left > 0 ? IN_LENGTH : IN_WHOLE;
    }
}

/* ---- the head ---- */

static bool is_status_line(const char *line, size_t len)
{
    if (len < 12 || memcmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') ||
        line[8] != ' ' || line[9] < '1' || line[9] > '5' || (len > 12 && line[12] != ' '))
        return false;
    return line[10] >= '0' && line[10] <= '9' && line[11] >= '0' && line[11] <= '9';
}

/* 0, or a status. */
static int parse_head(struct bm_http1 *http)
{
    const char *line = (const char *)http->bytes;
    if (!http->client) {
        int bad = bm_http1_head_check_version(line, http->start_len - 2);
        if (bad > 0)
            return bad;
    } else if (!is_status_line(line, http->start_len - 2)) {
        return 400;
    }
    bm_http1_head_init(&http->head);
    http->head.answer = http->client;
    http->head.to_head = http->to_head;
    http->head.to_upgrade = http->to_upgrade;
    int status = bm_http1_parser_head(http->parser, http->bytes, http->len, &http->head);
    if (status == 0)
        status = bm_http1_head_judge(&http->head, http->body_len_max);
    if (status > 0)
        return status;
    return bm_http1_parser_agrees(http->parser, &http->head) ? 0 : 400;
}

static int head_is_whole(struct bm_http1 *http)
{
    int status = parse_head(http);
    if (status > 0)
        return refuse(http, status);
    if (http->client && http->head.message.status < 200 && http->head.message.status != 101) {
        begin_head(http);
        return ++http->interims <= BM_HTTP1_INTERIMS_MAX ? 0 : refuse(http, 431);
    }
    http->open = true; /* a client's is already */
    http->keep = http->head.keep_alive;
    http->owes_continue = http->head.expects_continue;
    begin_body(http);
    bool whole = http->input == IN_WHOLE;
    http->handlers->on_message(http, &http->head.message, http->arg);
    if (whole)
        end_message(http);
    return 0;
}

static int keep_bytes(struct bm_http1 *http, const uint8_t *bytes, size_t len)
{
    if (http->cap - http->len < len) {
        size_t cap = http->cap > 0 ? http->cap * 2 : HEAD_LEN_FIRST;
        while (cap < http->len + len)
            cap *= 2;
        if (cap > HEAD_LEN_MAX)
            cap = HEAD_LEN_MAX;
        uint8_t *grown = bm_realloc(http->account, http->bytes, http->cap, cap);
        if (!grown)
            return fail(http, 503, -ENOMEM);
        http->bytes = grown;
        http->cap = cap;
    }
    memcpy(http->bytes + http->len, bytes, len);
    http->len += len;
    return 0;
}

static bool head_is_too_long(const struct bm_http1 *http, size_t more)
{
    if (http->start_len == 0)
        return http->line.len > BM_HTTP1_START_LINE_MAX + 2;
    return http->len + more - http->start_len > BM_HTTP1_FIELDS_LEN_MAX + 2;
}

static int take_head(struct bm_http1 *http, const uint8_t *bytes, size_t len, size_t *ret_used)
{
    if (http->client && !http->open)
        return refuse(http, 400); /* an answer to nothing */
    if (http->len == 0 && http->line.len == 0)
        http->since_ns = http->now_ns;
    bool first = http->start_len == 0;
    int r = bm_http1_line_scan(&http->line, bytes, len, ret_used);
    if (r < 0)
        return refuse(http, 400);
    if (head_is_too_long(http, *ret_used))
        return refuse(http, first ? 414 : 431);
    int kept = keep_bytes(http, bytes, *ret_used);
    if (kept < 0 || r == BM_HTTP1_LINE_GOES_ON)
        return kept;
    if (first && r == BM_HTTP1_LINE_EMPTY) { /* RFC 9112 section 2.2: one is passed over */
        http->len = 0;
        http->line = (struct bm_http1_line){.kind = http->line.kind};
        return ++http->empty_lines <= 1 ? 0 : refuse(http, 400);
    }
    http->line = (struct bm_http1_line){.kind = BM_HTTP1_LINE_FIELD};
    if (first) {
        http->start_len = http->len;
        return 0;
    }
    if (r == BM_HTTP1_LINE_EMPTY)
        return head_is_whole(http);
    return ++http->lines <= BM_HTTP1_FIELDS_MAX ? 0 : refuse(http, 431);
}

/* ---- the body ---- */

/* Hands on what the parser has just taken for a part of the body, too. */
static int take_data(struct bm_http1 *http, const uint8_t *bytes, size_t len)
{
    size_t content = 0;
    if (!bm_http1_parser_body(http->parser, bytes, len, &content) || content != len)
        return refuse(http, 400);
    http->body_len += len;
    http->rated += len;
    http->owes_continue = false;
    if (!http->client && http->sent) {
        http->drained += len;
        if (http->drained > BM_HTTP1_DRAIN_MAX)
            return refuse(http, 413);
    }
    http->handlers->on_body(http, bytes, len, http->arg);
    return http->error;
}

static int take_length(struct bm_http1 *http, const uint8_t *bytes, size_t len, size_t *ret_used)
{
    size_t n = len < http->left ? len : (size_t)http->left;
    *ret_used = n;
    http->left -= n;
    int r = take_data(http, bytes, n);
    if (r < 0 || http->left > 0)
        return r;
    if (http->input == IN_CHUNK_DATA) {
        http->input = IN_CHUNK_END;
        http->line = (struct bm_http1_line){.kind = BM_HTTP1_LINE_CHUNK_END};
        return 0;
    }
    if (!bm_http1_parser_whole(http->parser))
        return refuse(http, 400);
    end_message(http);
    return 0;
}

static int take_until_end(struct bm_http1 *http, const uint8_t *bytes, size_t len, size_t *ret_used)
{
    *ret_used = len;
    if (len > http->body_len_max - http->body_len)
        return refuse(http, 413);
    return take_data(http, bytes, len);
}

static int chunk_has_begun(struct bm_http1 *http)
{
    http->left = bm_http1_parser_chunk_len(http->parser);
    http->extensions += http->line.extensions;
    if (http->extensions > BM_HTTP1_EXTENSIONS_MAX)
        return refuse(http, 400);
    if (http->left > http->body_len_max - http->body_len)
        return refuse(http, 413);
    if (http->left > 0) {
        http->input = IN_CHUNK_DATA;
        return 0;
    }
    http->input = IN_TRAILERS;
    http->line = (struct bm_http1_line){.kind = BM_HTTP1_LINE_FIELD};
    return 0;
}

/* A line of the framing: of a chunk, behind one, or of trailers. */
static int take_line(struct bm_http1 *http, const uint8_t *bytes, size_t len, size_t *ret_used)
{
    int r = bm_http1_line_scan(&http->line, bytes, len, ret_used);
    http->owes_continue = false;
    if (r < 0)
        return refuse(http, 400);
    if (http->input == IN_TRAILERS) {
        http->trailers_len += *ret_used;
        if (http->trailers_len > BM_HTTP1_TRAILERS_LEN_MAX)
            return refuse(http, 431);
    }
    size_t content = 0;
    if (!bm_http1_parser_body(http->parser, bytes, *ret_used, &content) || content != 0)
        return refuse(http, 400);
    if (r == BM_HTTP1_LINE_GOES_ON)
        return 0;
    if (http->input == IN_CHUNK)
        return chunk_has_begun(http);
    if (http->input == IN_CHUNK_END) {
        http->input = IN_CHUNK;
        http->line = (struct bm_http1_line){.kind = BM_HTTP1_LINE_CHUNK};
        return 0;
    }
    http->line = (struct bm_http1_line){.kind = BM_HTTP1_LINE_FIELD};
    if (r == BM_HTTP1_LINE_WHOLE)
        return ++http->lines <= BM_HTTP1_FIELDS_MAX ? 0 : refuse(http, 431);
    if (!bm_http1_parser_whole(http->parser))
        return refuse(http, 400);
    end_message(http);
    return 0;
}

static int take(struct bm_http1 *http, const uint8_t *bytes, size_t len, size_t *ret_used)
{
    switch (http->input) {
    case IN_HEAD:
        return take_head(http, bytes, len, ret_used);
    case IN_LENGTH:
    case IN_CHUNK_DATA:
        return take_length(http, bytes, len, ret_used);
    case IN_UNTIL_END:
        return take_until_end(http, bytes, len, ret_used);
    case IN_CHUNK:
    case IN_CHUNK_END:
    case IN_TRAILERS:
        return take_line(http, bytes, len, ret_used);
    case IN_WHOLE:
        break;
    }
    *ret_used = 0;
    return 0;
}

static void see_time(struct bm_http1 *http, uint64_t now_ns)
{
    http->now_ns = now_ns;
    if (http->since_ns == 0)
        http->since_ns = now_ns;
}

/* ---- what may be called ---- */

int bm_http1_new(const struct bm_http1_options *options, struct bm_http1 **ret_http)
{
    struct bm_http1 *http = bm_alloc_zero(options->account, sizeof(*http));
    if (!http)
        return -ENOMEM;
    int r = bm_http1_parser_new(options->account, options->client, &http->parser);
    if (r < 0) {
        bm_free(options->account, http, sizeof(*http));
        return r;
    }
    http->account = http->send.outbox.account = options->account;
    http->handlers = options->handlers;
    http->arg = options->arg;
    http->client = options->client;
    http->body_len_max = options->body_len_max ? options->body_len_max : BM_HTTP1_BODY_MAX;
    http->now_ns = http->since_ns = options->now_ns;
    http->first = http->keep = true;
    begin_head(http);
    *ret_http = http;
    return 0;
}

struct bm_http1 *bm_http1_free(struct bm_http1 *http)
{
    if (!http)
        return NULL;
    bm_assert(http->calls == 0);
    bm_outbox_deinit(&http->send.outbox);
    bm_http1_parser_free(http->parser);
    bm_free(http->account, http->bytes, http->cap);
    return bm_free(http->account, http, sizeof(*http));
}

bool bm_http1_wants_input(const struct bm_http1 *http)
{
    if (http->error || http->done || http->ended || http->upgraded)
        return false;
    if (http->input == IN_HEAD)
        return http->client || http->send.outbox.len < BM_HTTP1_OUTPUT_MAX;
    return http->input != IN_WHOLE && !http->held;
}

int bm_http1_receive(struct bm_http1 *http, const uint8_t *bytes, size_t len, uint64_t now_ns,
                     size_t *ret_used)
{
    size_t used = 0;
    int r = http->error;
    see_time(http, now_ns);
    http->calls++;
    while (r == 0 && used < len && bm_http1_wants_input(http)) {
        size_t n = 0;
        r = take(http, bytes + used, len - used, &n);
        used += n;
        settle(http);
    }
    http->calls--;
    if (r < 0)
        return r;
    *ret_used = used;
    return http->upgraded ? BM_HTTP1_UPGRADED : 0;
}

int bm_http1_receive_end(struct bm_http1 *http)
{
    int r = http->error;
    if (r < 0 || http->ended || http->upgraded)
        return r;
    http->calls++;
    if (http->input == IN_UNTIL_END) {
        end_message(http);
    } else if (http->input == IN_HEAD && http->len == 0 && !http->open) {
        http->done = true;
    } else if (http->input != IN_WHOLE) {
        r = fail(http, 400, -BEAM_EHTTP_CUT);
    }
    http->ended = true;
    http->keep = false;
    settle(http);
    http->calls--;
    return r;
}

void bm_http1_hold(struct bm_http1 *http, bool held)
{
    if (http->held && !held) { /* the peer was not to blame meanwhile */
        http->since_ns = 0;
        http->rated = 0;
    }
    http->held = held;
}

/* What is ours stands in the output, or its source has been noted. */
static void begin_sending(struct bm_http1 *http)
{
    http->asked = true;
    http->sent = http->tell_sent = !http->send.source;
}

int bm_http1_answer(struct bm_http1 *http, const struct bm_http1_answer *answer)
{
    bool until_end;
    if (http->error || http->client || !http->open || http->asked)
        return -ENOTCONN;
    bool close = answer->close || !http->keep || http->draining || http->owes_continue;
    int r = bm_http1_send_answer(&http->send, answer, &http->head, close, &until_end);
    if (r < 0)
        return r;
    http->keep = !close && !until_end;
    http->upgraded = answer->status == 101;
    begin_sending(http);
    return 0;
}

int bm_http1_ask(struct bm_http1 *http, const struct bm_http1_ask *ask)
{
    if (http->error || !http->client || http->done || http->ended || http->upgraded)
        return -ENOTCONN;
    if (http->open)
        return -EBUSY;
    int r = bm_http1_send_ask(&http->send, ask);
    if (r < 0)
        return r;
    http->to_head = strcmp(ask->method, "HEAD") == 0;
    http->to_upgrade = ask->upgrade != NULL;
    http->open = true;
    begin_sending(http);
    return 0;
}

void bm_http1_resume(struct bm_http1 *http)
{
    http->send.asleep = false;
}

void bm_http1_drain(struct bm_http1 *http)
{
    http->draining = true;
    http->done = http->done || (!http->open && http->len == 0 && http->line.len == 0);
}

static void put_continue(struct bm_http1 *http)
{
    static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
    if (!http->owes_continue || http->held || http->asked || !http->open)
        return;
    if (bm_outbox_append(&http->send.outbox, text, sizeof(text) - 1) == 0)
        http->owes_continue = false; /* else at the next chance */
}

const uint8_t *bm_http1_output(struct bm_http1 *http, size_t *ret_len)
{
    http->calls++;
    if (!http->error) {
        put_continue(http);
        int r = bm_http1_send_pull(&http->send);
        if (r < 0)
            (void)fail(http, 0, r);
        else if (r > 0)
            http->sent = http->tell_sent = true;
        settle(http);
    }
    http->calls--;
    return bm_outbox_output(&http->send.outbox, ret_len);
}

size_t bm_http1_output_len(const struct bm_http1 *http)
{
    return http->send.outbox.len;
}

void bm_http1_output_ack(struct bm_http1 *http, size_t len)
{
    bm_outbox_ack(&http->send.outbox, len);
    if (len > 0)
        http->stall_ns = 0;
}

void bm_http1_trim(struct bm_http1 *http)
{
    bm_outbox_trim(&http->send.outbox);
}

bool bm_http1_upgraded(const struct bm_http1 *http)
{
    return http->upgraded && !http->error;
}

int bm_http1_over(const struct bm_http1 *http)
{
    if (http->send.outbox.len > 0)
        return 0;
    if (http->broken)
        return http->broken;
    if (http->error)
        return 1;
    return http->done && !http->upgraded;
}

/* ---- time ---- */

/* When what is waited for has to be there. */
static uint64_t input_deadline(const struct bm_http1 *http)
{
    bool begun = http->len > 0 || http->line.len > 0;
    if (http->client || http->done || http->upgraded || http->input == IN_WHOLE)
        return UINT64_MAX;
    if (http->held && http->input != IN_HEAD)
        return UINT64_MAX;
    if (http->since_ns == 0)
        return bm_clock_after(http->now_ns, NOTICE_NS);
    if (http->input == IN_HEAD)
        return bm_clock_after(http->since_ns,
                              begun || http->first ? BM_HTTP1_HEAD_NS : BM_HTTP1_IDLE_NS);
    return bm_clock_after(http->since_ns,
                          BM_HTTP1_BODY_NS + http->rated * (BM_NS_PER_S / BM_HTTP1_BODY_RATE_MIN));
}

int bm_http1_tick(struct bm_http1 *http, uint64_t now_ns)
{
    see_time(http, now_ns);
    if (http->error)
        return http->error;
    int r = 0;
    http->calls++;
    if (http->send.outbox.len == 0)
        http->stall_ns = 0;
    else if (http->stall_ns == 0)
        http->stall_ns = now_ns;
    else if (now_ns - http->stall_ns >= BM_HTTP1_STALL_NS)
        r = fail(http, 0, -ETIMEDOUT);
    if (r == 0 && now_ns >= input_deadline(http))
        r = fail(http, http->input == IN_HEAD && http->len == 0 ? 0 : 408, -ETIMEDOUT);
    http->calls--;
    return r;
}

uint64_t bm_http1_next_ns(const struct bm_http1 *http)
{
    if (http->error)
        return UINT64_MAX;
    uint64_t input = input_deadline(http);
    uint64_t output = UINT64_MAX;
    if (http->send.outbox.len > 0)
        output = http->stall_ns ? bm_clock_after(http->stall_ns, BM_HTTP1_STALL_NS)
                                : bm_clock_after(http->now_ns, NOTICE_NS);
    return input < output ? input : output;
}
