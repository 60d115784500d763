/* Lines. Each end sends as long as there is credit, from whichever callback comes; what it sends follows from
 * its number, so that the other end, whose record is at hand, knows what must come. An end that gave up says
 * nothing more and is told nothing more; one that was told OK has received all that the other has sent. */
#include "tests/sim/line.h"

#include <errno.h>
#include <stdlib.h>

#include "tests/sim/hoard.h"
#include "tests/sim/mischief.h"
#include "tests/sim/parcel.h"
#include "tests/support/sim/sim.h"

#define LINES_MAX 512u
#define STREAM_LEN_MAX 300000u

static struct line_end *ends[LINES_MAX];
static unsigned ends_len;

static unsigned char stream_byte(size_t at)
{
    return (unsigned char)(at * 5u + (at >> 9));
}

struct line_end *line_new(struct line_end *ret_other[static 1])
{
    struct line_end *pair = calloc(2, sizeof(*pair));
    if (!pair || ends_len == LINES_MAX)
        sim_fail("too many lines");
    for (unsigned i = 0; i < 2; i++) {
        pair[i].other = &pair[1 - i];
        pair[i].salt = (unsigned)sim_below(100000);
        pair[i].count = (unsigned)sim_below(LINE_LEN_MAX);
        if (sim_below(6) == 0)
            pair[i].give_up_at = 1 + (unsigned)sim_below(LINE_LEN_MAX);
    }
    ends[ends_len++] = pair;
    *ret_other = &pair[1];
    return pair;
}

/* The handle is given back, or the request ended, and nothing more is told. */
static void finish(struct line_end *end, enum beam_code code)
{
    end->over = true;
    if (end->request && code == BEAM_OK)
        beam_reply(end->request, NULL);
    else if (end->request)
        beam_fail(end->request, code, "the line broke");
    else if (end->channel)
        beam_channel_free(end->channel);
    else
        beam_stream_free(end->stream);
    end->channel = NULL;
    end->stream = NULL;
    end->request = NULL;
}

void line_give_up(struct line_end *end)
{
    if (end->over || (!end->channel && !end->stream))
        return;
    sim_event("a line is given up after %u sent, %u received", end->sent, end->received);
    finish(end, BEAM_ABORTED);
}

void line_cancel(struct line_end *end)
{
    end->over = true;
}

static bool tired(struct line_end *end)
{
    if (end->give_up_at == 0 || end->sent + end->received < end->give_up_at)
        return false;
    line_give_up(end);
    return true;
}

/* How a send that was not taken may be told. */
static void check_refusal(int r)
{
    switch (r) {
    case -EAGAIN:
    case -EPIPE:
        return;
    case -ENOMEM:
        if (sim.scarce)
            return;
        /* fallthrough */
    default:
        sim_fail("a send on a line was refused: %s", beam_strerror(r));
    }
}

/* --- channels -------------------------------------------------------------------------------- */

/* The number-th parcel of an end; the other end knows it too. */
static struct parcel parcel_of(const struct line_end *end, unsigned number)
{
    unsigned mix = end->salt + number * 104729u;
    return (struct parcel){
        .id = number,
        .len = mix % 11 == 0 ? 60000 + mix % 9000 : mix % 700,
        .fds = mix % 5 == 0 ? 1 + mix % 2 : 0,
    };
}

/* That of a request ends with its answer. */
static void end_ours(struct line_end *end)
{
    if (!end->ended && end->channel && !end->request)
        beam_channel_end(end->channel);
    end->ended = true;
}

static void pump(struct line_end *end)
{
    while (end->channel && end->sent < end->count && !tired(end)) {
        struct parcel parcel = parcel_of(end, end->sent);
        beam_message *message = parcel_pack(&parcel);
        int r = beam_message_error(message);
        if (r == 0)
            r = beam_channel_send(end->channel, &message);
        beam_message_free(message);
        if (r < 0) {
            check_refusal(r);
            if (r == -ENOMEM)
                line_give_up(end);
            return;
        }
        end->sent++;
    }
    if (end->channel && end->sent == end->count)
        end_ours(end);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct line_end *end = arg;
    (void)channel;
    struct parcel expected = parcel_of(end->other, end->received);
    parcel_check(message, &expected);
    hoard_keep(message);
    end->received++;
    if (!tired(end))
        pump(end);
    mischief(end->home);
}

static void on_writable(beam_channel *channel, void *arg)
{
    struct line_end *end = arg;
    (void)channel;
    pump(end);
    mischief(end->home);
}

/* An orderly end tells that everything has come; and so the sender must have meant it. */
static void check_end(const struct line_end *end, const struct beam_status *status)
{
    if (status->code != BEAM_OK)
        return;
    if (!end->other->ended)
        sim_fail("a line ended with OK, and its sender did not end it");
    if (end->received != end->other->count)
        sim_fail("a line ended with OK after %u of %u", end->received, end->other->count);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct line_end *end = arg;
    (void)channel;
    if (end->over)
        sim_fail("a line that was given back was told its end");
    check_end(end, status);
    if (status->code == BEAM_OK && !end->ended) {
        /* Ours could go on; there is nobody to tell us when it has ended, so we stop here. */
        end->count = end->sent;
        end_ours(end);
    }
    finish(end, status->code);
    mischief(end->home);
}

static const struct beam_channel_handlers handlers = {
    .on_message = on_message,
    .on_writable = on_writable,
    .on_end = on_end,
};

void line_take_channel(struct line_end *end, beam_runtime *home, beam_channel *channel,
                       beam_request *request)
{
    end->home = home;
    end->channel = channel;
    end->request = request;
    beam_channel_set_handlers(channel, &handlers, end);
    pump(end);
}

/* --- streams --------------------------------------------------------------------------------- */

static void pump_stream(struct line_end *end)
{
    unsigned char bytes[5000];
    while (end->stream && end->sent < end->count && !tired(end)) {
        size_t len = 1 + (size_t)sim_below(sizeof(bytes));
        if (len > end->count - end->sent)
            len = end->count - end->sent;
        for (size_t i = 0; i < len; i++)
            bytes[i] = stream_byte(end->sent + i);
        ssize_t n = beam_stream_write(end->stream, bytes, len);
        if (n < 0) {
            check_refusal((int)n);
            if (n == -ENOMEM)
                line_give_up(end);
            return;
        }
        end->sent += (unsigned)n;
    }
    if (end->stream && !end->ended && end->sent == end->count) {
        end->ended = true;
        beam_stream_end(end->stream);
    }
}

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct line_end *end = arg;
    const unsigned char *bytes = data;
    (void)stream;
    for (size_t i = 0; i < len; i++)
        if (bytes[i] != stream_byte(end->received + i))
            sim_fail("byte %zu of a stream is wrong", end->received + i);
    end->received += (unsigned)len;
    if (!tired(end))
        pump_stream(end);
    mischief(end->home);
}

static void on_stream_writable(beam_stream *stream, void *arg)
{
    (void)stream;
    pump_stream(arg);
}

static void on_stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    struct line_end *end = arg;
    (void)stream;
    check_end(end, status);
    if (status->code == BEAM_OK && !end->ended) {
        end->count = end->sent;
        end->ended = true;
        beam_stream_end(end->stream);
    }
    finish(end, status->code);
}

static const struct beam_stream_handlers stream_handlers = {
    .on_data = on_data,
    .on_writable = on_stream_writable,
    .on_end = on_stream_end,
};

void line_take_stream(struct line_end *end, beam_runtime *home, beam_stream *stream)
{
    end->home = home;
    end->stream = stream;
    end->count *= STREAM_LEN_MAX / LINE_LEN_MAX;
    if (end->give_up_at > 0)
        end->give_up_at *= STREAM_LEN_MAX / LINE_LEN_MAX;
    beam_stream_set_handlers(stream, &stream_handlers, end);
    pump_stream(end);
}

/* --- all of them ----------------------------------------------------------------------------- */

static bool is_open(const struct line_end *end)
{
    return !end->over && (end->channel || end->stream);
}

unsigned line_count_open(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < 2 * ends_len; i++)
        n += is_open(&ends[i / 2][i % 2]);
    return n;
}

struct line_end *line_any_open(const beam_runtime *home)
{
    struct line_end *chosen = NULL;
    unsigned n = 0;
    for (unsigned i = 0; i < 2 * ends_len; i++) {
        struct line_end *end = &ends[i / 2][i % 2];
        if (is_open(end) && end->home == home && sim_below(++n) == 0)
            chosen = end;
    }
    return chosen;
}

void line_check_all(uint32_t window)
{
    for (unsigned i = 0; i < 2 * ends_len; i++) {
        const struct line_end *end = &ends[i / 2][i % 2];
        if (!is_open(end) || !end->channel)
            continue;
        int64_t credit = beam_channel_credit(end->channel);
        if (credit > (int64_t)window)
            sim_fail("a channel has credit for %lld bytes; the window is %u", (long long)credit,
                     window);
    }
}

void lines_free(void)
{
    while (ends_len > 0)
        free(ends[--ends_len]);
}
