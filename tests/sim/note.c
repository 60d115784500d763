/* Events of a session share one channel, so they keep their order. Behind one that was refused for want of
 * memory a new channel begins: numbers may be missing then, and never go back. */
#include "tests/sim/note.h"

#include "tests/sim/call.h"
#include "tests/support/sim/sim.h"

#define SESSIONS_MAX 1000u

static struct {
    unsigned sent, came;
    uint64_t last; /* the number that came last, + 1 */
} sessions[SESSIONS_MAX];
static unsigned sessions_len;

void notes_begin(struct notes *notes)
{
    if (sessions_len == SESSIONS_MAX)
        sim_fail("too many sessions");
    *notes = (struct notes){.session = sessions_len++};
}

void notes_send(struct notes *notes, beam_session *session)
{
    beam_message *message = beam_message_new();
    beam_message_put_uint(message, "session", notes->session);
    beam_message_put_uint(message, "number", notes->sent);
    int r = beam_message_error(message);
    if (r == 0)
        r = beam_send_event(session, "note", &message);
    beam_message_free(message);
    if (r == 0)
        sessions[notes->session].sent = ++notes->sent;
    else if (!call_may_be_refused(r))
        sim_fail("an event was refused: %s", beam_strerror(r));
}

void notes_take(beam_request *request, const beam_message *message, void *arg)
{
    uint64_t session, number;
    (void)request;
    (void)arg;
    if (beam_message_get_uint(message, "session", &session) < 0 || session >= sessions_len ||
        beam_message_get_uint(message, "number", &number) < 0)
        sim_fail("an event came without its numbers");
    sim_event("event %llu of session %llu", (unsigned long long)number,
              (unsigned long long)session);
    if (number < sessions[session].last || number >= sessions[session].sent)
        sim_fail("event %llu came behind event %llu", (unsigned long long)number,
                 (unsigned long long)sessions[session].last);
    sessions[session].last = number + 1;
    sessions[session].came++;
}

unsigned notes_under_way(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < sessions_len; i++)
        n += sessions[i].sent - sessions[i].came;
    return n;
}

void notes_forget(void)
{
    while (sessions_len > 0) {
        sessions_len--;
        sessions[sessions_len].sent = sessions[sessions_len].came = 0;
        sessions[sessions_len].last = 0;
    }
}
