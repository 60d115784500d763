/* See asker.h. */
#include "tests/support/asker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/served.h"
#include "tests/support/test.h"

/* Lent to the runtime for its life. */
static const struct beam_transport *const transports[] = {&beam_unix, NULL};

static void on_open(beam_session *session, void *arg)
{
    (void)session;
    atomic_store(&((struct asker *)arg)->opened, true);
}

static void on_writable(beam_session *session, void *arg)
{
    (void)session;
    atomic_fetch_add(&((struct asker *)arg)->writable, 1);
}

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    struct asker *asker = arg;
    (void)session;
    snprintf(asker->closed_text, sizeof(asker->closed_text), "%.*s", BEAM_STR(status->message));
    atomic_store(&asker->closed, (int)status->code);
}

static const struct beam_session_handlers handlers = {
    .on_open = on_open,
    .on_writable = on_writable,
    .on_close = on_close,
};

struct connecting {
    struct asker *asker;
    const char *url;
    int result;
};

static void connect_here(void *arg)
{
    struct connecting *c = arg;
    c->result = beam_connect(c->asker->runtime, c->url,
                             &BEAM_CONNECT_OPTIONS(.handlers = &handlers, .arg = c->asker),
                             &c->asker->session);
}

void asker_start_towards(struct asker *asker, const struct beam_runtime_options *options,
                         const char *name)
{
    char url[100];
    struct beam_runtime_options wanted = options ? *options : BEAM_RUNTIME_OPTIONS(.name = "asker");
    int listener = asker->listener;
    memset(asker, 0, sizeof(*asker));
    asker->listener = listener;
    asker->peer.fd = -1;
    atomic_store(&asker->closed, ASKER_PENDING);
    wanted.transports = transports;
    wanted.stop_timeout_ns = 100 * BEAM_MS;
    snprintf(url, sizeof(url), "unix:@%s", name);
    REQUIRE_INT(beam_runtime_new(&wanted, &asker->runtime), 0);
    REQUIRE_INT(beam_start(asker->runtime), 0);
    struct connecting c = {asker, url, 0};
    served_run(asker->runtime, 0, connect_here, &c);
    REQUIRE_INT(c.result, 0);
}

void asker_start_at(struct asker *asker, const struct beam_runtime_options *options,
                    const char *name)
{
    asker->listener = -1;
    asker_start_towards(asker, options, name);
    WAIT_UNTIL(atomic_load(&asker->opened));
}

static void start(struct asker *asker, const struct beam_runtime_options *options)
{
    char name[80];
    served_need_io_uring();
    raw_name(name, sizeof(name));
    asker->listener = raw_listen(name, 8);
    asker_start_towards(asker, options, name);
    raw_accept(&asker->peer, asker->listener);
}

void asker_greet(struct asker *asker, const struct bm_hello *hello)
{
    static struct raw_packet packet;
    raw_clear(&packet);
    raw_put_hello_of(&packet, hello);
    raw_send(&asker->peer, &packet);
    REQUIRE_INT(raw_next(&asker->peer, RAW_TIMEOUT_MS), 1);
    REQUIRE_INT(asker->peer.frame.kind, BM_FRAME_HELLO);
    WAIT_UNTIL(atomic_load(&asker->opened));
}

static const struct bm_hello usual = {
    .version = BM_PROTOCOL_VERSION,
    .window = 65536,
    .channels_max = 1024,
    .message_len_max = 16u << 20,
    .fds_max = 64,
};

void asker_start(struct asker *asker, bool greet)
{
    start(asker, NULL);
    if (greet)
        asker_greet(asker, &usual);
}

void asker_start_with(struct asker *asker, const struct beam_runtime_options *options,
                      const struct bm_hello *hello)
{
    start(asker, options);
    asker_greet(asker, hello ? hello : &usual);
}

static void free_session(void *arg)
{
    struct asker *asker = arg;
    asker->session = beam_session_free(asker->session);
}

void asker_stop(struct asker *asker)
{
    served_run(asker->runtime, 0, free_session, asker);
    raw_close(&asker->peer);
    asker->runtime = beam_runtime_free(asker->runtime);
    if (asker->listener >= 0)
        close(asker->listener);
}

/* --- asking ---------------------------------------------------------------------------------- */

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct asked *asked = arg;
    if (message)
        atomic_store(&asked->fds_back, beam_message_fd_count(message));
    atomic_fetch_add(&asked->replies, 1);
    atomic_store(&asked->code, (int)status->code);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    (void)channel;
    (void)message;
    atomic_fetch_add(&((struct asked *)arg)->messages, 1);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct asked *asked = arg;
    (void)channel;
    atomic_fetch_add(&asked->replies, 1);
    atomic_store(&asked->code, (int)status->code);
}

static void on_attached_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct asked *asked = arg;
    for (unsigned i = 0; i < 4; i++)
        if (asked->channels[i] == channel)
            atomic_store(&asked->channel_codes[i], (int)status->code);
}

static const struct beam_channel_handlers channel_handlers = {
    .on_message = on_message,
    .on_end = on_end,
};
static const struct beam_channel_handlers attached_handlers = {
    .on_message = on_message,
    .on_end = on_attached_end,
};

static void ask_here(void *arg)
{
    struct asked *asked = arg;
    beam_message *message = beam_message_new();
    beam_message_set_body(message, asked->body, asked->body_len);
    for (unsigned i = 0; i < asked->fd_count; i++)
        beam_message_attach_fd(message, &asked->fds[i]);
    for (unsigned i = 0; i < asked->channel_count; i++) {
        asked->channels[i] = beam_message_attach_channel(message);
        if (!asked->channels[i])
            continue;
        beam_channel_set_handlers(asked->channels[i], &attached_handlers, asked);
        (void)beam_channel_send_body(asked->channels[i], "first", 5);
    }
    struct beam_call_options options = BEAM_CALL_OPTIONS(.timeout_ns = asked->timeout_ns);
    if (asked->open)
        asked->result = beam_open(asked->asker->session, asked->service, &message,
                                  &channel_handlers, asked, &options, &asked->channel);
    else
        asked->result =
            beam_call(asked->asker->session, asked->service, &message, on_reply, asked, &options);
    beam_message_free(message);
}

void asker_ask(struct asker *asker, struct asked *asked)
{
    asked->asker = asker;
    atomic_store(&asked->code, ASKER_PENDING);
    for (unsigned i = 0; i < 4; i++)
        atomic_store(&asked->channel_codes[i], ASKER_PENDING);
    served_run(asker->runtime, 0, ask_here, asked);
}

struct sending {
    struct asked *asked;
    const void *body;
    size_t len;
    const int *fds;
    unsigned count;
    bool last;
    int result;
};

static void send_here(void *arg)
{
    struct sending *s = arg;
    beam_message *message = beam_message_new();
    beam_message_set_body(message, s->body, s->len);
    for (unsigned i = 0; i < s->count; i++) {
        int fd = s->fds[i];
        beam_message_attach_fd(message, &fd);
    }
    s->result = s->last ? beam_channel_send_last(s->asked->channel, &message)
                        : beam_channel_send(s->asked->channel, &message);
    beam_message_free(message);
}

int asker_send(struct asked *asked, const void *body, size_t len, const int *fds, unsigned count,
               bool last)
{
    struct sending s = {asked, body, len, fds, count, last, 0};
    served_run(asked->asker->runtime, 0, send_here, &s);
    return s.result;
}

static void free_channel(void *arg)
{
    struct asked *asked = arg;
    asked->channel = beam_channel_free(asked->channel);
}

void asker_free_channel(struct asked *asked)
{
    served_run(asked->asker->runtime, 0, free_channel, asked);
}

static void free_channels(void *arg)
{
    struct asked *asked = arg;
    for (unsigned i = 0; i < 4; i++)
        asked->channels[i] = beam_channel_free(asked->channels[i]);
}

void asker_free_channels(struct asked *asked)
{
    served_run(asked->asker->runtime, 0, free_channels, asked);
}

/* --- the server's side ----------------------------------------------------------------------- */

bool asker_next(struct asker *asker, struct bm_message_head *ret_head)
{
    while (raw_find(&asker->peer, BM_FRAME_MSG, 0)) {
        const struct bm_frame *frame = &asker->peer.frame;
        struct bm_attached attached;
        if (bm_frame_parse_message(frame, ret_head) != 0) {
            test_check(false, "a frame that reads as a message", TEST_AT_, false);
            return false;
        }
        if (ret_head->open) {
            CHECK(frame->channel > asker->last_id);
            asker->last_id = frame->channel;
        } else {
            CHECK(frame->channel <= asker->last_id);
        }
        for (unsigned i = 0; i < ret_head->attached; i++) {
            CHECK_INT(bm_frame_parse_attached(ret_head, i, &attached), 0);
            CHECK(attached.id > asker->last_id);
            asker->last_id = attached.id;
        }
        return true;
    }
    return false;
}

void asker_answer(struct asker *asker, uint64_t id)
{
    static struct raw_packet packet;
    raw_clear(&packet);
    raw_put_message(&packet, id, BM_MSG_END, NULL, 0);
    raw_send(&asker->peer, &packet);
}
