/* Calls, at both ends. Each has a record that its caller and its handler write to, found by the number in
 * its message: so that it is known at once when one runs twice, is told twice, or comes with what belongs to
 * another. What a call may end with depends on what went wrong in the run; calls_check() has the table. */
#include "tests/sim/call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/hoard.h"
#include "tests/sim/mischief.h"
#include "tests/sim/note.h"
#include "tests/support/sim/sim.h"

#define CALLS_MAX 2000u
#define SLOW_NS_MAX (60 * BEAM_MS)
#define PATIENCE_NS (4 * BEAM_SEC) /* of the calls that have time */

static struct call *calls[CALLS_MAX];
static unsigned calls_len;
static bool strict;

static const char *const names[] = {
    [CALL_ECHO] = "echo", [CALL_NESTED] = "nested", [CALL_SLOW] = "slow",
    [CALL_TALK] = "talk", [CALL_GIFT] = "gift",     [CALL_NOBODY] = "nobody",
};

/* What waits for the end of a call. */
struct waiter {
    unsigned id;
    beam_runtime *home;
    void (*then)(void *arg, enum beam_code code);
    void *arg;
};

static struct call *call_of(const beam_message *message)
{
    unsigned id = parcel_id(message);
    if (id >= calls_len)
        sim_fail("a request came that nobody made");
    return calls[id];
}

/* --- told ------------------------------------------------------------------------------------ */

static void tell(unsigned id, enum beam_code code)
{
    struct call *call = calls[id];
    sim_event("call %u (%s) ends with %s", id, names[call->kind], beam_code_name(code));
    if (call->told++ > 0)
        sim_fail("call %u was told its end twice", id);
    call->code = code;
    if (call->strict && code != BEAM_OK)
        sim_fail("call %u, of a time without faults, ends with %s", id, beam_code_name(code));
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct waiter waiter = *(struct waiter *)arg;
    const struct call *call = calls[waiter.id];
    free(arg);
    tell(waiter.id, status->code);
    if (status->code == BEAM_OK && call->kind == CALL_ECHO)
        parcel_check(message, &call->parcel);
    if (message)
        hoard_keep(message);
    if (waiter.then)
        waiter.then(waiter.arg, status->code);
    mischief(waiter.home);
}

/* --- making ---------------------------------------------------------------------------------- */

static unsigned call_new(enum call_kind kind)
{
    struct call *call = calloc(1, sizeof(*call));
    if (!call || calls_len == CALLS_MAX)
        sim_fail("too many calls");
    call->kind = kind;
    call->parcel = parcel_any(calls_len, kind == CALL_ECHO);
    if (kind != CALL_ECHO && kind != CALL_GIFT)
        call->parcel.len %= 1000;
    calls[calls_len] = call;
    return calls_len++;
}

static struct line_end *attach(struct call *call, unsigned i)
{
    return line_new(&call->theirs[i]);
}

static void attach_lines(struct call *call, beam_runtime *runtime, beam_message *message)
{
    struct line_end *ours = attach(call, 0);
    beam_channel *channel = beam_message_attach_channel(message);
    if (channel)
        line_take_channel(ours, runtime, channel, NULL);
    else
        line_cancel(ours);
    ours = attach(call, 1);
    beam_stream *stream = beam_message_attach_stream(message);
    if (stream)
        line_take_stream(ours, runtime, stream);
    else
        line_cancel(ours);
}

static uint64_t patience(struct call *call, const beam_request *parent)
{
    bool soon = !strict && sim_below(4) == 0;
    call->hurried = soon || parent;
    return soon ? sim_below(20 * BEAM_MS) + 1 : PATIENCE_NS;
}

bool call_may_be_refused(int r)
{
    return r == -EAGAIN || r == -ESHUTDOWN || r == -ECANCELED || r == -ETIMEDOUT || r == -ELOOP ||
           (r == -ENOMEM && sim.scarce);
}

static void open_line(beam_runtime *runtime, beam_session *session, unsigned id,
                      beam_message **message, const struct beam_call_options *options, int *ret_r)
{
    static const struct beam_channel_handlers none;
    struct line_end *ours = attach(calls[id], 0);
    beam_channel *channel = NULL;
    int r = beam_open(session, names[CALL_TALK], message, &none, NULL, options, &channel);
    if (r == 0)
        line_take_channel(ours, runtime, channel, NULL);
    else
        line_cancel(ours);
    *ret_r = r;
}

bool call_make(beam_runtime *runtime, beam_session *session, enum call_kind kind, unsigned depth,
               beam_request *parent, void (*then)(void *arg, enum beam_code code), void *arg)
{
    unsigned id = call_new(kind);
    struct call *call = calls[id];
    call->depth = depth;
    call->strict = strict && !parent;
    beam_message *message = parcel_pack(&call->parcel);
    beam_message_put_uint(message, "depth", depth);
    if (kind == CALL_GIFT)
        attach_lines(call, runtime, message);
    struct beam_call_options options =
        BEAM_CALL_OPTIONS(.timeout_ns = patience(call, parent), .parent = parent);

    int r = beam_message_error(message);
    if (r == 0 && kind == CALL_TALK) {
        open_line(runtime, session, id, &message, &options, &r);
        call->told = r == 0; /* the line tells the rest */
    } else if (r == 0) {
        struct waiter *waiter = malloc(sizeof(*waiter));
        if (!waiter)
            sim_fail("no memory for the test itself");
        *waiter = (struct waiter){id, runtime, then, arg};
        r = beam_call(session, names[kind], &message, on_reply, waiter, &options);
        if (r < 0)
            free(waiter);
    }
    beam_message_free(message);
    sim_event("call %u (%s), %u bytes, %u fds: %s", id, names[kind], call->parcel.len,
              call->parcel.fds, beam_error_name(r));
    if (r == 0) {
        call->made = 1;
        return true;
    }
    if (!call_may_be_refused(r))
        sim_fail("call %u was refused: %s", id, beam_strerror(r));
    if (then)
        then(arg, BEAM_RESOURCE_EXHAUSTED);
    return false;
}

/* --- serving --------------------------------------------------------------------------------- */

static struct call *begin(const beam_message *message)
{
    struct call *call = call_of(message);
    if (call->ran++ > 0)
        sim_fail("call %u ran twice", call->parcel.id);
    sim_event("call %u (%s) runs", call->parcel.id, names[call->kind]);
    parcel_check(message, &call->parcel);
    return call;
}

static void answer(beam_request *request, const struct call *call)
{
    beam_message *reply = parcel_pack(&call->parcel);
    beam_reply(request, &reply);
}

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    const struct call *call = begin(message);
    hoard_keep(message);
    answer(request, call);
    mischief(arg);
}

/* A request that waits for a call of its own. */
struct nested {
    beam_request *request;
    const struct call *call;
};

static void on_nested_end(void *arg, enum beam_code code)
{
    struct nested nested = *(struct nested *)arg;
    free(arg);
    if (code == BEAM_OK)
        answer(nested.request, nested.call);
    else
        beam_fail(nested.request, code, "it went wrong below");
}

static void on_nested(beam_request *request, const beam_message *message, void *arg)
{
    const struct call *call = begin(message);
    beam_session *session = beam_request_session(request);
    if (call->depth == 0 || !session) {
        answer(request, call);
        return;
    }
    struct nested *nested = malloc(sizeof(*nested));
    if (!nested)
        sim_fail("no memory for the test itself");
    *nested = (struct nested){request, call};
    beam_request_keep(request);
    (void)call_make(arg, session, call->depth % 2 ? CALL_NESTED : CALL_ECHO, call->depth - 1,
                    request, on_nested_end, nested);
}

struct slow {
    beam_request *request;
    const struct call *call;
    beam_timer *timer;
};

static void on_slow_time(void *arg)
{
    struct slow slow = *(struct slow *)arg;
    free(arg);
    beam_timer_free(slow.timer);
    answer(slow.request, slow.call);
}

static void on_slow_cancel(beam_request *request, void *arg)
{
    struct slow slow = *(struct slow *)arg;
    free(arg);
    beam_timer_free(slow.timer);
    beam_fail(request, BEAM_CANCELLED, NULL);
}

static void on_slow(beam_request *request, const beam_message *message, void *arg)
{
    struct slow *slow = malloc(sizeof(*slow));
    if (!slow)
        sim_fail("no memory for the test itself");
    *slow = (struct slow){request, begin(message), NULL};
    uint64_t delay_ns = sim_below(3) == 0 ? 3600 * BEAM_SEC : sim_below(SLOW_NS_MAX) + 1;
    int r = beam_timer_new(arg, delay_ns, 0, on_slow_time, slow, &slow->timer);
    if (r < 0) {
        free(slow);
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no timer");
        return;
    }
    beam_request_keep(request);
    beam_request_on_cancel(request, on_slow_cancel, slow);
}

static void on_talk(beam_request *request, const beam_message *message, void *arg)
{
    struct call *call = begin(message);
    beam_request_keep(request);
    line_take_channel(call->theirs[0], arg, beam_request_channel(request), request);
}

static void on_gift(beam_request *request, const beam_message *message, void *arg)
{
    struct call *call = begin(message);
    beam_channel *channel = beam_message_take_channel(message, 0);
    beam_stream *stream = beam_message_take_stream(message, 1);
    if (!channel || !stream)
        sim_fail("call %u came without its channels", call->parcel.id);
    line_take_channel(call->theirs[0], arg, channel, NULL);
    line_take_stream(call->theirs[1], arg, stream);
    answer(request, call);
}

int calls_serve(beam_runtime *runtime)
{
    static const struct {
        const char *name;
        beam_handler *handler;
    } services[] = {{"echo", on_echo}, {"nested", on_nested}, {"slow", on_slow},
                    {"talk", on_talk}, {"gift", on_gift},     {"note", notes_take}};
    int r = 0;
    for (unsigned i = 0; i < sizeof(services) / sizeof(services[0]) && r >= 0; i++)
        r = beam_serve(runtime, services[i].name, services[i].handler, runtime);
    return r;
}

/* --- all of them ----------------------------------------------------------------------------- */

unsigned calls_open(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < calls_len; i++)
        n += calls[i]->made > 0 && calls[i]->told == 0;
    return n;
}

void calls_print_open(void)
{
    for (unsigned i = 0; i < calls_len; i++)
        if (calls[i]->made > 0 && calls[i]->told == 0)
            fprintf(stderr, "    call %u (%s) has run %u times and was told nothing\n", i,
                    names[calls[i]->kind], calls[i]->ran);
}

static bool may_end_so(const struct call *call, enum beam_code code, bool calm)
{
    if (call->kind == CALL_NOBODY && code == BEAM_NOT_FOUND)
        return true;
    if (call->kind != CALL_NOBODY && code == BEAM_OK)
        return true;
    if (code == BEAM_DEADLINE_EXCEEDED)
        return call->hurried || call->kind == CALL_SLOW || call->kind == CALL_NESTED || !calm;
    if (code == BEAM_CANCELLED || code == BEAM_RESOURCE_EXHAUSTED)
        return call->hurried || call->kind == CALL_NESTED || !calm;
    if (code == BEAM_INTERNAL)
        return sim.scarce; /* an answer for which there was none */
    return !calm && (code == BEAM_UNKNOWN || code == BEAM_UNAVAILABLE);
}

void calls_check(bool calm)
{
    for (unsigned i = 0; i < calls_len; i++) {
        const struct call *call = calls[i];
        if (call->made != call->told)
            sim_fail("call %u was made %u times and told its end %u times", i, call->made,
                     call->told);
        if (!call->made && call->ran > 0)
            sim_fail("call %u was refused here, and ran", i);
        if (!call->told || call->kind == CALL_TALK)
            continue;
        if (call->code == BEAM_OK && call->ran != 1)
            sim_fail("call %u was answered and never ran", i);
        if (call->code == BEAM_UNAVAILABLE && call->ran > 0 && call->kind != CALL_NESTED)
            sim_fail("call %u was called surely not run, and ran", i);
        if (!may_end_so(call, call->code, calm))
            sim_fail("call %u (%s) ended with %s", i, names[call->kind],
                     beam_code_name(call->code));
    }
}

void calls_be_strict(void)
{
    strict = true;
}

void calls_forget(void)
{
    strict = false;
    while (calls_len > 0)
        free(calls[--calls_len]);
}
