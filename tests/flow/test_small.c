/* Small messages, kept: what becomes of one whose content another core holds in its cache must be no
 * different from what becomes of any other. Over a ring the receiver borrows a view of the sender's
 * message, and what he keeps shows it in turn. */
#include "tests/support/flow.h"

#define MESSAGES 40 /* more than are sent home at once */

/* What the server does with each message. */
enum deed {
    SEND_ON,       /* as it is */
    SEND_ON_LATER, /* when all have come */
    SEND_NEW_BODY, /* with another body, the metadata as they were */
    SEND_METADATA, /* with metadata, the body as it was */
};

struct small {
    enum deed deed;
    bool metadata; /* sent with some */
    _Atomic unsigned there, here, wrong;
    beam_request *request; /* the server's */
    beam_message *kept[MESSAGES];
};

static void send_on(beam_channel *channel, const struct small *small, beam_message **message)
{
    if (small->deed == SEND_NEW_BODY)
        beam_message_set_body(*message, "another", 7);
    if (small->deed == SEND_METADATA)
        beam_message_put_uint(*message, "n", 1);
    CHECK_INT(beam_channel_send(channel, message), 0);
    beam_message_free(*message);
}

static void on_there(beam_channel *channel, const beam_message *message, void *arg)
{
    struct small *small = arg;
    beam_message *kept = beam_message_keep(message);
    CHECK(kept != NULL);
    if (!kept)
        return;
    small->kept[small->there] = kept;
    if (small->deed != SEND_ON_LATER)
        send_on(channel, small, &small->kept[small->there]);
    small->there++;
    if (small->deed == SEND_ON_LATER && small->there == MESSAGES)
        for (unsigned i = 0; i < MESSAGES; i++)
            send_on(channel, small, &small->kept[i]);
    flow_tick();
}

static void on_there_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_reply(((struct small *)arg)->request, NULL);
}

static const struct beam_channel_handlers there_handlers = {
    .on_message = on_there,
    .on_end = on_there_end,
};

static void on_small(beam_request *request, const beam_message *message, void *arg)
{
    ((struct small *)arg)->request = request;
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &there_handlers, arg);
}

static void on_here(beam_channel *channel, const beam_message *message, void *arg)
{
    struct small *small = arg;
    size_t len;
    const void *body = beam_message_body(message, &len);
    uint64_t n = 0;
    (void)beam_message_get_uint(message, "n", &n);
    unsigned i = small->here;
    unsigned expected = small->deed == SEND_METADATA ? 1 : small->metadata ? i + 1 : 0;
    char text[16];
    int text_len = snprintf(text, sizeof(text), "body %u", i);
    bool same = small->deed == SEND_NEW_BODY
                    ? len == 7 && memcmp(body, "another", 7) == 0
                    : len == (size_t)text_len && memcmp(body, text, len) == 0;
    if (!same || n != expected || beam_message_codec(message) != 7)
        small->wrong++;
    small->here++;
    flow_tick();
}

static const struct beam_channel_handlers here_handlers = {.on_message = on_here};

static void go_round(enum deed deed, bool metadata)
{
    struct small *small = flow_share(sizeof(*small));
    beam_channel *channel;
    small->deed = deed;
    small->metadata = metadata;
    flow_serve("small", on_small, small);
    flow_start(NULL);
    REQUIRE_INT(beam_open(flow.session, "small", NULL, &here_handlers, small, NULL, &channel), 0);
    flow_settle();
    for (unsigned i = 0; i < MESSAGES; i++) {
        beam_message *message = beam_message_new();
        char text[16];
        beam_message_set_body(message, text, (size_t)snprintf(text, sizeof(text), "body %u", i));
        beam_message_set_codec(message, 7);
        if (metadata)
            beam_message_put_uint(message, "n", i + 1);
        REQUIRE_INT(beam_channel_send(channel, &message), 0);
    }
    FLOW_WAIT(small->there == MESSAGES && small->here == MESSAGES);
    CHECK_UINT(small->wrong, 0);
    beam_channel_end(channel);
    flow_settle();
    beam_channel_free(channel);
}

FLOW_TEST(small_message_that_was_kept_goes_on_as_it_is)
{
    go_round(SEND_ON, false);
}

FLOW_TEST(small_message_with_metadata_that_was_kept_goes_on_as_it_is)
{
    go_round(SEND_ON, true);
}

FLOW_TEST(small_messages_that_were_kept_for_long_go_on_as_they_are)
{
    go_round(SEND_ON_LATER, true);
}

FLOW_TEST(small_message_that_was_kept_may_get_another_body)
{
    go_round(SEND_NEW_BODY, true);
}

FLOW_TEST(small_message_that_was_kept_may_get_metadata)
{
    go_round(SEND_METADATA, false);
}
