/* Whether there is still somebody at the other end, asked while descriptors of its may be here.
 *
 * The kernel tells of a peer's end by the end of the connection. But a descriptor can be the peer's own end of
 * the socket, or lead to it: then whatever holds it keeps the connection from ending, a message that never
 * becomes whole, a request in line, an answer that finds no room. So once descriptors have come the peer is
 * sent a PING every WATCH_NS for as long as any may still be here, and one that says nothing from one to the
 * next has gone (docs/spec/session.md P4). What the application has taken out of its message is its own.
 *
 * Anything that comes is a sign of life; whether it is the answer does not matter. */
#include "base/clock.h"
#include "runtime/core.h"
#include "runtime/unix_session.h"

#define WATCH_NS (60 * BM_NS_PER_S) /* ours; docs/spec/session.md section 9 */

/* With the application, in a message that is not here whole, or in one that has not left again. */
static bool may_hold_fds(const struct bm_unix_session *us)
{
    struct beam_session_stats stats;
    if (!us->fds_came)
        return false;
    beam_session_stats(&us->session, &stats);
    return stats.fds_received > 0 || stats.queue_len > 0 ||
           (!bm_op_idle(&us->send_op) && !us->send_op.quiet);
}

static void ask(beam_session *session)
{
    if (!session->ping_fn) /* else the application's does as well */
        session->ping_sent_ns = bm_clock_now_ns();
    session->ping_due = true;
    bm_session_want_flush(session);
}

static void arm(struct bm_unix_session *us)
{
    struct bm_reactor *reactor = us->session.core->reactor;
    bm_timer_arm(reactor, &us->watch_timer, bm_reactor_now_ns(reactor) + WATCH_NS);
}

static void on_watch(struct bm_timer *timer)
{
    struct bm_unix_session *us = bm_container_of(timer, struct bm_unix_session, watch_timer);
    if (us->closing || !may_hold_fds(us))
        return; /* the next that come begin anew */
    if (!us->heard) {
        bm_session_lost(&us->session, BEAM_UNAVAILABLE,
                        "the peer does not answer, and descriptors of its are here");
        return;
    }
    us->heard = false;
    arm(us);
    ask(&us->session);
}

void bm_unix_watch_init(struct bm_unix_session *us)
{
    bm_timer_init(&us->watch_timer, on_watch);
}

void bm_unix_watch(struct bm_unix_session *us)
{
    /* A timer makes every sleep dearer: none for descriptors that are dealt with at once. */
    if (!us->closing && !bm_timer_armed(&us->watch_timer) && may_hold_fds(us))
        arm(us);
}
