/* See crossing.h. Each core keeps one session to each core it has to do with, opened at the first
 * crossing; what finds no room on it (it is not open yet, or too much is under way) waits in line. That
 * session has no limits of its own for channels and resets: each of its channels stands for one that was
 * counted where it came in, and what one caller does must not be at the expense of the others. */
#include "runtime/crossing.h"

#include <errno.h>

#include "runtime/core.h"

/* What waits is opened when there is room, in order; but those that wait for fd credit, on which a service
 * may sit, do not hold up the others. */
static void on_session_writable(beam_session *session, void *arg)
{
    struct bm_hops *hops = arg;
    struct bm_list waiting;
    struct bm_list *node;
    bool full = false;
    bm_list_init(&waiting);
    bm_list_splice_back(&waiting, &hops->waiting);
    while ((node = bm_list_pop_front(&waiting))) {
        struct bm_crossing *crossing = bm_list_entry(node, struct bm_crossing, node);
        bool fds = crossing->fds;
        int r = full ? -EAGAIN : crossing->open(crossing, session);
        if (r == -EAGAIN)
            bm_list_push_back(&hops->waiting, node);
        else if (r < 0)
            crossing->fail(crossing, r);
        full |= r == -EAGAIN && !fds;
    }
}

static void on_session_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct bm_hops *hops = arg;
    struct bm_list *node;
    (void)status;
    hops->session = NULL;
    beam_session_free(session);
    while ((node = bm_list_pop_front(&hops->waiting))) {
        struct bm_crossing *crossing = bm_list_entry(node, struct bm_crossing, node);
        crossing->fail(crossing, -ESHUTDOWN);
    }
}

static const struct beam_session_handlers session_handlers = {
    .on_writable = on_session_writable,
    .on_close = on_session_close,
};

static int connect_to(struct bm_core *core, unsigned to, struct bm_hops *hops)
{
    if (hops->session)
        return 0;
    if (!hops->waiting.next)
        bm_list_init(&hops->waiting);
    return bm_core_join(core, to, &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers, .arg = hops),
                        &hops->session);
}

void bm_crossing_start(struct bm_crossing *crossing, struct bm_core *core, unsigned to)
{
    struct bm_hops *hops = &core->hops[to];
    int r = connect_to(core, to, hops);
    if (r == 0)
        r = crossing->open(crossing, hops->session);
    if (r == -EAGAIN)
        bm_list_push_back(&hops->waiting, &crossing->node);
    else if (r < 0)
        crossing->fail(crossing, r);
}

void bm_crossing_cancel(struct bm_crossing *crossing)
{
    bm_list_unlink(&crossing->node);
}
