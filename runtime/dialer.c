/* See <beam/dialer.h>. Each attempt has a session of its own, known by a *line* to the dialer; the last line
 * is the current one, those before it drain or are closing. A line goes when its session has ended.
 *
 * Invariants: a dialer has a current line, or its timer is armed, or the runtime is stopping; the wait begins
 * anew once a session was up. */
#include <errno.h>
#include <string.h>

#include <beam/dialer.h>

#include "base/clock.h"
#include "runtime/core.h"
#include "runtime/dialers.h"
#include "runtime/options.h"
#include "runtime/runtime.h"
#include "runtime/session.h"

struct line {
    struct bm_list node; /* dialer->lines */
    beam_dialer *dialer;
    beam_session *session;
};

struct beam_dialer {
    struct bm_list node; /* core->dialers */
    struct bm_core *core;
    char *url; /* a block of url_len + 1 */
    size_t url_len;
    struct beam_connect_options options;
    const struct beam_dialer_handlers *handlers;
    void *arg;
    struct bm_list lines;
    struct line *current; /* NULL: the timer will make one */
    bool up;              /* the current one is open */
    uint64_t wait_ns;     /* before the next attempt, at most */
    struct bm_timer timer;
    unsigned calling; /* handlers that run */
    bool freed;       /* ... and have freed it */
};

/* --- telling --------------------------------------------------------------------------------- */

static void release(beam_dialer *dialer)
{
    bm_list_unlink(&dialer->node);
    bm_free(NULL, dialer->url, dialer->url_len + 1);
    bm_free(NULL, dialer, sizeof(*dialer));
}

/* false: the dialer has gone. */
static bool called(beam_dialer *dialer)
{
    if (--dialer->calling == 0 && dialer->freed) {
        release(dialer);
        return false;
    }
    return !dialer->freed;
}

static bool tell_down(beam_dialer *dialer, const struct beam_status *status, uint64_t retry_ns)
{
    dialer->calling++;
    if (dialer->handlers && dialer->handlers->on_down)
        dialer->handlers->on_down(dialer, status, retry_ns, dialer->arg);
    return called(dialer);
}

/* --- dialling -------------------------------------------------------------------------------- */

static int dial(beam_dialer *dialer);

static void drop_line(struct line *line)
{
    bm_list_unlink(&line->node);
    beam_session_free(line->session);
    bm_free(NULL, line, sizeof(*line));
}

/* Between a half and the whole of what it is to wait, which then is twice as long. */
static uint64_t next_wait(beam_dialer *dialer)
{
    uint64_t random;
    bm_random(&random, sizeof(random));
    uint64_t half = dialer->wait_ns / 2;
    dialer->wait_ns *= 2;
    if (dialer->wait_ns > BEAM_DIALER_RETRY_LAST_NS)
        dialer->wait_ns = BEAM_DIALER_RETRY_LAST_NS;
    return half + random % (half + 1);
}

/* There is no current line any more. */
static void went_down(beam_dialer *dialer, const struct beam_status *status)
{
    struct bm_reactor *reactor = dialer->core->reactor;
    uint64_t wait = UINT64_MAX;
    dialer->current = NULL;
    dialer->up = false;
    if (!dialer->core->stopping) {
        wait = next_wait(dialer);
        bm_timer_arm(reactor, &dialer->timer, bm_clock_after(bm_reactor_now_ns(reactor), wait));
    }
    (void)tell_down(dialer, status, wait);
}

static void on_timer(struct bm_timer *timer)
{
    beam_dialer *dialer = bm_list_entry(timer, beam_dialer, timer);
    int r = dial(dialer);
    if (r == 0)
        return;
    const char *text = beam_strerror(r);
    const struct beam_status status = {.code = BEAM_UNAVAILABLE, .message = {text, strlen(text)}};
    went_down(dialer, &status);
}

static void on_open(beam_session *session, void *arg)
{
    struct line *line = arg;
    beam_dialer *dialer = line->dialer;
    if (line != dialer->current)
        return;
    dialer->up = true;
    dialer->wait_ns = BEAM_DIALER_RETRY_FIRST_NS;
    dialer->calling++;
    if (dialer->handlers && dialer->handlers->on_up)
        dialer->handlers->on_up(dialer, session, dialer->arg);
    (void)called(dialer);
}

static void on_writable(beam_session *session, void *arg)
{
    struct line *line = arg;
    beam_dialer *dialer = line->dialer;
    if (line != dialer->current || !dialer->up)
        return;
    dialer->calling++;
    if (dialer->handlers && dialer->handlers->on_writable)
        dialer->handlers->on_writable(dialer, session, dialer->arg);
    (void)called(dialer);
}

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct line *line = arg;
    beam_dialer *dialer = line->dialer;
    bool current = line == dialer->current;
    (void)session;
    drop_line(line);
    if (current)
        went_down(dialer, status);
}

/* What is under way with it finishes; who asks from now on asks another. */
static void on_draining(beam_session *session, void *arg)
{
    static const char text[] = "the peer takes no more requests";
    const struct beam_status status = {.message = {text, sizeof(text) - 1}};
    struct line *line = arg;
    beam_dialer *dialer = line->dialer;
    (void)session;
    if (line == dialer->current)
        went_down(dialer, &status);
}

static const struct beam_session_handlers session_handlers = {
    .on_open = on_open,
    .on_writable = on_writable,
    .on_close = on_close,
    .on_draining = on_draining,
};

static int dial(beam_dialer *dialer)
{
    struct line *line = bm_alloc_zero(NULL, sizeof(*line));
    if (!line)
        return -ENOMEM;
    struct beam_connect_options options = dialer->options;
    options.handlers = &session_handlers;
    options.arg = line;
    line->dialer = dialer;
    int r = beam_connect(dialer->core->runtime, dialer->url, &options, &line->session);
    if (r < 0) {
        bm_free(NULL, line, sizeof(*line));
        return r;
    }
    bm_list_push_back(&dialer->lines, &line->node);
    dialer->current = line;
    return 0;
}

/* --- life ------------------------------------------------------------------------------------ */

int beam_dialer_new(beam_runtime *runtime, const char *url,
                    const struct beam_connect_options *options,
                    const struct beam_dialer_handlers *handlers, void *arg,
                    beam_dialer **ret_dialer)
{
    struct bm_core *core = bm_core_here(runtime);
    struct beam_connect_options wanted;
    if (!core)
        return -EPERM;
    if (!url)
        return -EINVAL;
    int r = bm_options_read(&wanted, sizeof(wanted), options);
    if (r < 0)
        return r;
    beam_dialer *dialer = bm_alloc_zero(NULL, sizeof(*dialer));
    if (!dialer)
        return -ENOMEM;
    dialer->core = core;
    dialer->options = wanted;
    dialer->options.size = sizeof(wanted);
    dialer->handlers = handlers;
    dialer->arg = arg;
    dialer->wait_ns = BEAM_DIALER_RETRY_FIRST_NS;
    dialer->url_len = strlen(url);
    bm_list_init(&dialer->lines);
    bm_timer_init(&dialer->timer, on_timer);
    dialer->url = bm_alloc(NULL, dialer->url_len + 1);
    if (dialer->url)
        memcpy(dialer->url, url, dialer->url_len + 1);
    r = dialer->url ? dial(dialer) : -ENOMEM;
    if (r < 0) {
        if (dialer->url)
            bm_free(NULL, dialer->url, dialer->url_len + 1);
        bm_free(NULL, dialer, sizeof(*dialer));
        return r;
    }
    bm_list_push_back(&core->dialers, &dialer->node);
    *ret_dialer = dialer;
    return 0;
}

beam_session *beam_dialer_session(const beam_dialer *dialer)
{
    return dialer->up ? dialer->current->session : NULL;
}

beam_dialer *beam_dialer_free(beam_dialer *dialer)
{
    struct bm_list *node;
    if (!dialer || dialer->freed)
        return NULL;
    bm_timer_cancel(dialer->core->reactor, &dialer->timer);
    while ((node = bm_list_front(&dialer->lines)))
        drop_line(bm_list_entry(node, struct line, node));
    dialer->current = NULL;
    dialer->up = false;
    if (dialer->calling > 0)
        dialer->freed = true;
    else
        release(dialer);
    return NULL;
}

void bm_dialers_free(struct bm_core *core)
{
    struct bm_list *node;
    while ((node = bm_list_front(&core->dialers)))
        beam_dialer_free(bm_list_entry(node, beam_dialer, node));
}
