/* The service `clock`: messages at a rate, on the channel of the request.
 *
 *     {"rate": per second (1), "count": how many (0: until cancelled)}
 *     -> {"n": 1, "ns": time on the monotonic clock, "missed": so far}  ...
 *
 * The last message of a count is the answer. A reader that is too slow costs itself messages, which
 * are counted, and nobody else anything: there is no queue, a tick either leaves at once or
 * never. */
#include "cli/services.h"

#include <errno.h>
#include <stdlib.h>

#define RATE_MAX 1000.0        /* ours: more is a benchmark, and `beam bench` is a better one */
#define RATE_MIN (1 / 86400.0) /* ours: once a day */

struct clock {
    beam_request *request;
    beam_timer *timer;
    int64_t n, count, missed;
};

static void clock_free(struct clock *clock)
{
    beam_timer_free(clock->timer);
    free(clock);
}

static void on_cancel(beam_request *request, void *arg)
{
    clock_free(arg);
    beam_fail(request, BEAM_CANCELLED, "nobody is listening any more");
}

static void on_tick(void *arg)
{
    struct clock *clock = arg;
    beam_message *tick = beam_message_new();
    beam_message_put_int(tick, "n", ++clock->n);
    beam_message_put_uint(tick, "ns", beam_now_ns());
    if (clock->missed > 0)
        beam_message_put_int(tick, "missed", clock->missed);
    if (clock->n == clock->count) {
        beam_reply(clock->request, &tick);
        clock_free(clock);
        return;
    }
    if (beam_channel_send(beam_request_channel(clock->request), &tick) < 0)
        clock->missed++;
    beam_message_free(tick);
}

/* The number under a key, or `missing` when there is none; -EINVAL when it is something else. */
static int get_number(const beam_message *message, const char *key, double missing, double *ret)
{
    int r = beam_message_get_float(message, key, ret);
    if (r == -ENOENT)
        *ret = missing;
    return r == -ENOENT ? 0 : r;
}

static void on_request(beam_request *request, const beam_message *message, void *arg)
{
    beam_runtime *runtime = arg;
    double rate, count;
    if (get_number(message, "rate", 1, &rate) < 0 || !(rate >= RATE_MIN && rate <= RATE_MAX)) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "rate is a number per second, up to %g",
                  RATE_MAX);
        return;
    }
    if (get_number(message, "count", 0, &count) < 0 || !(count >= 0 && count <= 0x1p53) ||
        count != (double)(int64_t)count) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "count is a whole number, 0 for no end");
        return;
    }
    struct clock *clock = malloc(sizeof(*clock));
    uint64_t period_ns = (uint64_t)((double)BEAM_SEC / rate);
    if (clock)
        *clock = (struct clock){.request = request, .count = (int64_t)count};
    if (!clock ||
        beam_timer_new(runtime, period_ns, period_ns, on_tick, clock, &clock->timer) < 0) {
        free(clock);
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory for a clock");
        return;
    }
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, clock);
}

static int add(beam_runtime *runtime, const char *name, const char *argument)
{
    return beam_serve(runtime, name, on_request, runtime);
}

const struct service_kind service_clock = {
    .name = "clock",
    .summary = "messages at a rate: rate:=10 per second, count:=5 in all",
    .add = add,
};
