/* A conversation, turn by turn: who asks is turned, in an order that luck gives; between two turns the application
 * acts, and when nobody asks, time goes to the next thing that can happen. When there is none, and somebody still
 * waits, that is a hang. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/audit.h"
#include "tests/sim/call.h"
#include "tests/sim/conversation.h"
#include "tests/sim/hoard.h"
#include "tests/sim/line.h"
#include "tests/sim/mischief.h"
#include "tests/sim/note.h"
#include "tests/support/sim/sim.h"

#define CLIENTS 2u
#define RUNTIMES (CLIENTS + 1u)
#define ACTIONS_MAX 40u
#define FAMINE 300u                 /* steps that "for good" lasts: then the service must answer */
#define STEPS_MAX 400000u           /* turns of one conversation; more is a busy loop */
#define AGE_MAX_NS (120 * BEAM_SEC) /* ... and this, a hang */

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

struct end {
    beam_runtime *runtime; /* NULL: it is away */
    beam_session *session; /* of a client */
    bool open, lost;
    bool leaving; /* is to be gone at the next opportunity */
    bool acting;  /* an action is posted */
    unsigned actions;
    struct notes notes; /* of this session */
};

static struct {
    char url[64];
    struct end ends[RUNTIMES]; /* the last one serves */
    struct beam_limits limits; /* of all ends */
    bool afterwards;           /* faults are over: the service must answer */
    bool swept;                /* one thing is made to go wrong */
    bool troubled;             /* something was made to go wrong on purpose: cuts, departures */
    unsigned steps;
} talk;

static struct end *const server = &talk.ends[CLIENTS];

/* A quarter of the seeds is spared: nothing goes wrong, and nobody gives up. */
static bool is_peaceful(void)
{
    return sim.seed % 4 == 0;
}

/* Nothing went wrong so far, be it on purpose. */
static bool is_calm(void)
{
    return is_peaceful() && !talk.troubled && !talk.swept;
}

/* --- ends ------------------------------------------------------------------------------------ */

/* None of our ends breaks the protocol, so none may say so of another. */
static void check_loss(const struct beam_status *status)
{
    static const char *const complaints[] = {"frame: ", "session: "};
    sim_event("a session ends: %s, %.*s", beam_code_name(status->code), (int)status->message.len,
              status->message.ptr);
    for (unsigned i = 0; i < 2; i++) {
        size_t len = strlen(complaints[i]);
        if (status->message.len >= len && memcmp(status->message.ptr, complaints[i], len) == 0)
            sim_fail("an end calls the other a breaker of the protocol: %.*s",
                     (int)status->message.len, status->message.ptr);
    }
}

static void on_open(beam_session *session, void *arg)
{
    struct end *end = arg;
    (void)session;
    end->open = true;
}

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct end *end = arg;
    (void)session;
    check_loss(status);
    end->open = false;
    end->lost = true;
}

static const struct beam_session_handlers session_handlers = {
    .on_open = on_open,
    .on_close = on_close,
};

static void on_log(enum beam_log_level level, const char *text, void *arg)
{
    (void)level;
    (void)arg;
    if (sim.aloud)
        fprintf(stderr, "        log: %s\n", text);
}

static bool scarce(int r)
{
    return (r == -ENOMEM && sim.scarce);
}

static void arrive(struct end *end)
{
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.embedded = true, .transports = transports, .limits = talk.limits,
                             .name = "simulated", .log = on_log);
    int r = beam_runtime_new(&options, &end->runtime);
    if (r == 0)
        r = calls_serve(end->runtime);
    if (r == 0 && end == server)
        r = beam_listen(end->runtime, talk.url, NULL);
    if (r == 0)
        return;
    if (!scarce(r))
        sim_fail("a runtime cannot be made: %s", beam_strerror(r));
    end->runtime = beam_runtime_free(end->runtime); /* another time */
}

static void leave(struct end *end)
{
    sim_event("an end leaves");
    end->session = beam_session_free(end->session);
    end->runtime = beam_runtime_free(end->runtime);
    end->open = end->lost = end->leaving = end->acting = false;
}

static void reach(struct end *end)
{
    int r = beam_connect(end->runtime, talk.url,
                         &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers, .arg = end,
                                               .timeout_ns = 2 * BEAM_SEC),
                         &end->session);
    notes_begin(&end->notes);
    if (r == 0 || scarce(r))
        return;
    sim_fail("a session cannot be begun: %s", beam_strerror(r));
}

/* --- what clients do ------------------------------------------------------------------------- */

static void on_pong(uint64_t ns, void *arg)
{
    (void)ns;
    (void)arg;
}

static void trouble(struct end *client)
{
    struct line_end *line;
    switch (sim_below(8)) {
    case 0:
        talk.troubled |= sim_cut(client->runtime);
        break;
    case 1:
        talk.troubled = true;
        beam_session_close(client->session);
        break;
    case 2:
        talk.troubled = true;
        beam_session_drain(client->session);
        break;
    case 3:
        talk.troubled = true;
        client->leaving = true;
        break;
    default:
        line = line_any_open(client->runtime);
        if (line)
            line_give_up(line);
        break;
    }
}

#define MISCHIEF 100u /* one callback of so many */

void mischief(beam_runtime *home)
{
    if (is_peaceful() || talk.swept || talk.afterwards || sim_below(MISCHIEF) > 0)
        return;
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct end *client = &talk.ends[i];
        if (client->runtime == home && client->session && sim_below(4) == 0) {
            talk.troubled = true;
            sim_event("a session is closed in a callback");
            beam_session_close(client->session);
            return;
        }
    }
    struct line_end *line = line_any_open(home);
    if (line)
        line_give_up(line);
}

/* The service answers, be it on another session. */
static void ask_again(struct end *client)
{
    if (call_make(client->runtime, client->session, CALL_ECHO, 0, NULL, NULL, NULL))
        client->actions--;
    else
        beam_session_close(client->session);
}

/* On the client's reactor. */
static void act(void *arg)
{
    struct end *client = arg;
    static const enum call_kind kinds[] = {CALL_ECHO, CALL_ECHO, CALL_NESTED, CALL_NESTED,
                                           CALL_SLOW, CALL_TALK, CALL_GIFT,   CALL_NOBODY};
    client->acting = false;
    if (!client->open)
        return;
    if (talk.afterwards) {
        ask_again(client);
        return;
    }
    client->actions--;
    unsigned what = (unsigned)sim_below(12);
    if (what < 8)
        call_make(client->runtime, client->session, kinds[what], (unsigned)sim_below(8), NULL, NULL,
                  NULL);
    else if (what == 8)
        (void)beam_session_ping(client->session, on_pong, NULL);
    else if (what < 11 || is_peaceful())
        notes_send(&client->notes, client->session);
    else
        trouble(client);
}

/* --- the world goes on ----------------------------------------------------------------------- */

static bool asks(const struct end *end)
{
    struct pollfd pfd = {.fd = beam_runtime_fd(end->runtime), .events = POLLIN};
    return poll(&pfd, 1, 0) > 0 || sim_chance(sim.odds.spurious);
}

/* Turns one of those that ask; false: none does. */
static bool turn_one(void)
{
    struct end *asking[RUNTIMES];
    unsigned n = 0;
    sim_notice();
    for (unsigned i = 0; i < RUNTIMES; i++)
        if (talk.ends[i].runtime && asks(&talk.ends[i]))
            asking[n++] = &talk.ends[i];
    if (n == 0)
        return false;
    struct end *end = asking[sim_below(n)];
    int r = beam_runtime_turn(end->runtime);
    if (r < 0)
        sim_fail("a turn fails: %s", beam_strerror(r));
    line_check_all(talk.limits.window);
    audit(end->runtime);
    if (++talk.steps > STEPS_MAX)
        sim_fail("no end after %u turns: somebody is busy for nothing", talk.steps);
    return true;
}

static bool busy(void)
{
    if (calls_open() > 0 || line_count_open() > 0 || (is_calm() && notes_under_way() > 0))
        return true;
    for (unsigned i = 0; i < CLIENTS; i++)
        if (talk.ends[i].actions > 0)
            return true;
    return false;
}

/* What the application does between two turns. */
static void attend(void)
{
    if (sim_below(8) == 0)
        hoard_thin();
    for (unsigned i = 0; i < RUNTIMES; i++) {
        struct end *end = &talk.ends[i];
        if (end->leaving)
            leave(end);
        if (end->lost) {
            end->session = beam_session_free(end->session);
            end->lost = false;
        }
        if (!end->runtime && (end == server || end->actions > 0))
            arrive(end);
        if (end == server || !end->runtime || end->actions == 0)
            continue;
        if (!end->session)
            reach(end);
        else if (end->open && !end->acting && sim_below(4) == 0)
            end->acting = beam_post(end->runtime, 0, act, end) == 0;
    }
}

/* Somebody has something to do who only has not come to it yet. */
static bool wants_to_act(void)
{
    for (unsigned i = 0; i < CLIENTS; i++)
        if (talk.ends[i].actions > 0 && (talk.ends[i].open || !talk.ends[i].session))
            return true;
    return false;
}

static void step(uint64_t end_ns)
{
    if (turn_one() || wants_to_act())
        return;
    uint64_t next = sim_next_ns();
    bool stuck = next == SIM_NEVER || next > end_ns;
    if ((stuck || is_peaceful() || sim_below(4) == 0) && hoard_empty())
        return; /* somebody may have waited for just that */
    if (stuck) {
        calls_print_open();
        sim_fail(
            "nothing will ever happen again: %u calls and %u ends of lines wait, %u events are "
            "under way",
            calls_open(), line_count_open(), notes_under_way());
    }
    sim_advance(next);
}

/* --- a conversation -------------------------------------------------------------------------- */

static unsigned odds_of(unsigned most)
{
    return sim_below(3) == 0 ? (unsigned)sim_below(most) + 1 : 0;
}

static struct sim_odds draw_odds(void)
{
    if (is_peaceful())
        return (struct sim_odds){.late = 2000, .reorder = 5000, .spurious = 500};
    return (struct sim_odds){
        .late = odds_of(5000),
        .refused = odds_of(1000),
        .no_buffer = odds_of(1000),
        .ends_early = odds_of(3000),
        .no_fds = odds_of(2000),
        .many_refs = odds_of(5000),
        .enter = odds_of(1000),
        .reorder = odds_of(10000),
        .cancel_race = odds_of(10000),
        .no_memory = odds_of(100),
        .spurious = odds_of(2000),
        .small_ring = sim_below(4) == 0,
    };
}

/* Tight, so that what is counted is counted out. */
static struct beam_limits draw_limits(void)
{
    struct beam_limits limits;
    beam_limits_default(&limits);
    if (sim_below(2) == 0)
        limits.window = 16384;
    if (sim_below(2) == 0)
        limits.fds_max = 4 + (uint32_t)sim_below(8);
    if (sim_below(4) == 0)
        limits.channels_max = 6 + (uint32_t)sim_below(20);
    if (sim_below(4) == 0)
        limits.queue_len_max = 100000;
    return limits;
}

/* The server says GOAWAY; what happens then has up to so many turns. */
static void say_goodbye(unsigned turns)
{
    if (server->runtime)
        beam_runtime_stop(server->runtime);
    for (unsigned i = (unsigned)sim_below(turns); i > 0 && turn_one(); i--)
        ;
}

static void converse(void)
{
    uint64_t end_ns = beam_now_ns() + AGE_MAX_NS;
    talk.limits = draw_limits();
    sim.odds = draw_odds();
    for (unsigned i = 0; i < CLIENTS; i++)
        talk.ends[i].actions = 1 + (unsigned)sim_below(ACTIONS_MAX);
    unsigned famine = 0;
    bool restarts = !is_peaceful() && sim_below(3) == 0;
    while (busy()) {
        attend();
        step(end_ns);
        if (sim.fault == SIM_ALLOCATIONS && sim.scarce && famine++ == FAMINE)
            sim.fault = SIM_NO_FAULT;
        if (restarts && server->runtime && sim_below(500) == 0) {
            restarts = false;
            talk.troubled = true;
            say_goodbye(50);
            leave(server);
        }
    }
    sim_event("all is done; from now on nothing goes wrong");
    sim.odds = (struct sim_odds){0};
    sim.fault = SIM_NO_FAULT;
    talk.afterwards = true;
    calls_be_strict();
    (void)hoard_empty();
    for (unsigned i = 0; i < CLIENTS; i++) {
        struct end *client = &talk.ends[i];
        client->actions = 1;
        client->session =
            beam_session_free(client->session); /* may be broken, and not know it yet */
        client->open = client->lost = false;
    }
    while (busy()) {
        attend();
        step(end_ns);
    }
    /* The end in order: first the server says GOAWAY, then all leave. */
    sim_event("the end");
    say_goodbye(100);
    for (unsigned i = 0; i < RUNTIMES; i++)
        if (talk.ends[i].runtime)
            leave(&talk.ends[i]);
    (void)hoard_empty();
    calls_check(is_calm());
}

uint64_t conversation_run(uint64_t seed, bool aloud, struct fault fault)
{
    memset(&talk, 0, sizeof(talk));
    snprintf(talk.url, sizeof(talk.url), "unix:@beam-sim-%d", (int)getpid());
    sim_start(seed, aloud);
    sim.fault = fault.kind;
    sim.fault_at = fault.at;
    talk.swept = fault.kind != SIM_NO_FAULT;
    converse();
    calls_forget();
    notes_forget();
    lines_free();
    sim_stop();
    return sim.trace;
}
