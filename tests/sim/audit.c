/* Credit is a sum: what is granted is owed, still to be used, or out. What a wrong addition would break is
 * looked at between two turns, when the sums must be right whatever is under way. */
#include "tests/sim/audit.h"

#include "runtime/channel.h"
#include "runtime/runtime.h"
#include "runtime/session.h"
#include "tests/support/sim/sim.h"

/* What is granted is owed, still to be used, or under way and in the application's hands. */
static void audit_fds(const beam_session *session)
{
    int64_t held =
        (int64_t)session->fds_granted - session->fds_recv_credit - (int64_t)session->fds_owed;
    if (held < 0)
        sim_fail("more fds were given back than came: %lld of %u granted are out", (long long)held,
                 session->fds_granted);
}

static void audit_channel(const beam_channel *channel, uint32_t window)
{
    if (channel->recv_credit + channel->owed > (int64_t)window)
        sim_fail("channel %llu gives more credit than its window of %u: %lld and %lld owed",
                 (unsigned long long)channel->id, window, (long long)channel->recv_credit,
                 (long long)channel->owed);
}

void audit(const beam_runtime *runtime)
{
    const struct bm_list *sessions = &runtime->cores[0].sessions;
    for (const struct bm_list *s = sessions->next; s != sessions; s = s->next) {
        const beam_session *session = bm_list_entry(s, const beam_session, node);
        const struct bm_list *channels = &session->channels;
        audit_fds(session);
        for (const struct bm_list *c = channels->next; c != channels; c = c->next)
            audit_channel(bm_list_entry(c, const beam_channel, session_node),
                          session->limits.window);
    }
}
