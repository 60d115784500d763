/* See served.h. */
#include "tests/support/served.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Lent to the runtime for its life. */
static const struct beam_transport *const transports[] = {&beam_unix, NULL};

static struct served *of(void *arg)
{
    return arg;
}

void served_nap(void)
{
    poll(NULL, 0, 1);
}

/* --- services -------------------------------------------------------------------------------- */

static void echo(beam_request *request, const beam_message *message, void *arg)
{
    struct served *served = of(arg);
    beam_message *reply = beam_message_new();
    size_t len;
    const void *body = beam_message_body(message, &len);
    beam_message_set_body(reply, body, len);
    for (unsigned i = 0; i < beam_message_fd_count(message); i++) {
        int fd = beam_message_take_fd(message, i);
        beam_message_attach_fd(reply, &fd);
    }
    atomic_fetch_add(&served->echoes, 1);
    beam_reply(request, &reply);
}

static void on_cancel(beam_request *request, void *arg)
{
    struct served *served = of(arg);
    int me = beam_reactor_current();
    atomic_fetch_add(&served->cancels, 1);
    for (unsigned i = 0; i < served->request_count[me]; i++) {
        if (served->requests[me][i] != request)
            continue;
        served->requests[me][i] = served->requests[me][--served->request_count[me]];
        break;
    }
    beam_fail(request, BEAM_CANCELLED, NULL);
}

static void hold(beam_request *request, const beam_message *message, void *arg)
{
    struct served *served = of(arg);
    int me = beam_reactor_current();
    (void)message;
    if (served->request_count[me] == SERVED_HELD_MAX) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "the test holds no more");
        return;
    }
    served->requests[me][served->request_count[me]++] = request;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, served);
    atomic_fetch_add(&served->held, 1);
}

static void talk_message(beam_channel *channel, const beam_message *message, void *arg)
{
    (void)channel;
    (void)message;
    atomic_fetch_add(&of(arg)->messages, 1);
}

static void keep(struct served *served, const beam_message *message)
{
    int me = beam_reactor_current();
    if (served->kept_count[me] == SERVED_HELD_MAX)
        return;
    beam_message *kept = beam_message_keep(message);
    if (kept)
        served->kept[me][served->kept_count[me]++] = kept;
}

static void deaf_message(beam_channel *channel, const beam_message *message, void *arg)
{
    (void)channel;
    keep(of(arg), message);
    atomic_fetch_add(&of(arg)->messages, 1);
}

/* The conversation's request is found by its channel: both are one for the runtime, but not for its
 * users, so that a note of the pairs is kept. */
struct talk {
    struct served *served;
    beam_request *request;
    bool deaf;
};

static void talk_on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    const struct talk *talk = arg;
    if (talk->deaf)
        deaf_message(channel, message, talk->served);
    else
        talk_message(channel, message, talk->served);
}

static void talk_on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct talk *talk = arg;
    (void)channel;
    atomic_fetch_add(&talk->served->ends, 1);
    if (status->code == BEAM_OK)
        beam_reply(talk->request, NULL);
    else
        beam_fail(talk->request, BEAM_CANCELLED, NULL);
    free(talk);
}

static const struct beam_channel_handlers talk_handlers = {
    .on_message = talk_on_message,
    .on_end = talk_on_end,
};

static void start_talk(beam_request *request, struct served *served, bool deaf)
{
    if (!beam_request_is_open(request)) {
        beam_reply(request, NULL);
        return;
    }
    struct talk *talk = malloc(sizeof(*talk));
    if (!talk)
        abort();
    *talk = (struct talk){served, request, deaf};
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &talk_handlers, talk);
    atomic_fetch_add(&served->held, 1);
}

static void talk(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    start_talk(request, of(arg), false);
}

static void deaf(beam_request *request, const beam_message *message, void *arg)
{
    keep(of(arg), message);
    start_talk(request, of(arg), true);
}

static void listen_events(beam_request *request, const beam_message *message, void *arg)
{
    (void)request;
    (void)message;
    atomic_fetch_add(&of(arg)->events, 1);
}

static void take(beam_request *request, const beam_message *message, void *arg)
{
    atomic_fetch_add(&of(arg)->fds, beam_message_fd_count(message));
    keep(of(arg), message);
    beam_reply(request, NULL);
}

static void chat_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    (void)arg;
    (void)beam_channel_send_body(channel, body, len);
}

static void chat_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)status;
    atomic_fetch_sub(&of(arg)->channels, 1);
    beam_channel_free(channel);
}

static const struct beam_channel_handlers chat_handlers = {
    .on_message = chat_message,
    .on_end = chat_end,
};

static void chat(beam_request *request, const beam_message *message, void *arg)
{
    for (unsigned i = 0; i < beam_message_channel_count(message); i++) {
        beam_channel *channel = beam_message_take_channel(message, i);
        if (!channel)
            continue;
        atomic_fetch_add(&of(arg)->channels, 1);
        beam_channel_set_handlers(channel, &chat_handlers, arg);
    }
    beam_reply(request, NULL);
}

/* --- life ------------------------------------------------------------------------------------ */

void served_need_io_uring(void)
{
    if (!beam_platform()->io_uring)
        SKIP("io_uring is not available here");
}

struct served *served_start(const struct beam_runtime_options *options)
{
    static struct served the_one;
    struct served *served = &the_one;
    struct beam_runtime_options wanted =
        options ? *options : BEAM_RUNTIME_OPTIONS(.name = "served");
    served_need_io_uring();
    memset(served, 0, sizeof(*served));
    served->good.fd = -1;
    wanted.transports = transports;
    served->reactors = wanted.reactors ? wanted.reactors : 1;
    REQUIRE(served->reactors <= 2);
    if (wanted.stop_timeout_ns == 0)
        wanted.stop_timeout_ns = 100 * BEAM_MS;
    raw_name(served->name, sizeof(served->name));
    snprintf(served->url, sizeof(served->url), "unix:@%s", served->name);

    REQUIRE_INT(beam_runtime_new(&wanted, &served->runtime), 0);
    static const struct {
        const char *name;
        beam_handler *handler;
    } services[] = {
        {"echo", echo}, {"hold", hold}, {"talk", talk}, {"deaf", deaf}, {"listen", listen_events},
        {"take", take}, {"chat", chat}};
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
        REQUIRE_INT(beam_serve(served->runtime, services[i].name, services[i].handler, served), 0);
    REQUIRE_INT(beam_listen(served->runtime, served->url, NULL), 0);
    REQUIRE_INT(beam_start(served->runtime), 0);
    raw_open_session(&served->good, served->name);
    served->good_id = 1;
    return served;
}

void served_check(struct served *served)
{
    char body[32];
    snprintf(body, sizeof(body), "still there %llu", (unsigned long long)served->good_id);
    CHECK(raw_echo(&served->good, served->good_id, body, (uint32_t)strlen(body)));
    served->good_id += 2;
}

struct stats_query {
    beam_runtime *runtime;
    struct beam_stats stats;
};

static void read_stats(void *arg)
{
    struct stats_query *query = arg;
    CHECK_INT(beam_runtime_stats(query->runtime, (unsigned)beam_reactor_current(), &query->stats),
              0);
}

struct beam_stats served_stats_of(beam_runtime *runtime, unsigned reactor)
{
    struct stats_query query = {.runtime = runtime};
    served_run(runtime, reactor, read_stats, &query);
    return query.stats;
}

struct beam_stats served_stats(const struct served *served, unsigned reactor)
{
    return served_stats_of(served->runtime, reactor);
}

static bool only_good_one(const struct served *served)
{
    uint64_t sessions = 0, channels = 0;
    for (unsigned i = 0; i < served->reactors; i++) {
        struct beam_stats stats = served_stats(served, i);
        sessions += stats.sessions;
        channels += stats.channels;
    }
    return sessions == 1 && channels == 0;
}

static bool one_session(const struct served *served)
{
    uint64_t sessions = 0;
    for (unsigned i = 0; i < served->reactors; i++)
        sessions += served_stats(served, i).sessions;
    return sessions == 1;
}

void served_check_clean(struct served *served)
{
    WAIT_UNTIL(one_session(served));
    served_drop(served); /* what is kept keeps its channel's memory */
    WAIT_UNTIL(only_good_one(served));
    if (only_good_one(served))
        return;
    for (unsigned i = 0; i < served->reactors; i++) {
        CHECK_UINT(served_stats(served, i).channels, 0);
        CHECK_UINT(served_stats(served, i).sessions, i == 0);
    }
}

struct errand {
    void (*fn)(void *arg);
    void *arg;
    sem_t done;
};

static void run_errand(void *arg)
{
    struct errand *errand = arg;
    errand->fn(errand->arg);
    sem_post(&errand->done);
}

void served_run(beam_runtime *runtime, unsigned reactor, void (*fn)(void *arg), void *arg)
{
    struct errand errand = {.fn = fn, .arg = arg};
    sem_init(&errand.done, 0, 0);
    REQUIRE_INT(beam_post(runtime, reactor, run_errand, &errand), 0);
    while (sem_wait(&errand.done) < 0)
        ;
    sem_destroy(&errand.done);
}

static void release_here(void *arg)
{
    struct served *served = arg;
    int me = beam_reactor_current();
    while (served->request_count[me] > 0)
        beam_reply(served->requests[me][--served->request_count[me]], NULL);
}

void served_release(struct served *served)
{
    for (unsigned i = 0; i < served->reactors; i++)
        served_run(served->runtime, i, release_here, served);
}

static void drop_here(void *arg)
{
    struct served *served = arg;
    int me = beam_reactor_current();
    while (served->kept_count[me] > 0)
        beam_message_free(served->kept[me][--served->kept_count[me]]);
}

void served_drop(struct served *served)
{
    for (unsigned i = 0; i < served->reactors; i++)
        served_run(served->runtime, i, drop_here, served);
}

void served_stop(struct served *served)
{
    served_check(served);
    served_drop(served);
    served_release(served);
    raw_close(&served->good);
    served->runtime = beam_runtime_free(served->runtime);
}
