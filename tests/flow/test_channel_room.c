/* Messages with channels attached, when the other end takes only so many: they are refused until others
 * have gone, and their sender hears of it then and not before. */
#include "tests/support/flow.h"

enum { ROOM = 4, ATTACHED = 2 };

static struct flow_options room_for_few(void)
{
    /* Both ends of a ring have the server's limits, and those hold for what either opens. */
    return (struct flow_options){.client = {.channels_max = ROOM},
                                 .server = {.channels_max = ROOM}};
}

struct counts {
    _Atomic unsigned kept, messages;
};

static beam_request *kept[2]; /* the server's */
static unsigned kept_count;

static void on_hold(beam_request *request, const beam_message *message, void *arg)
{
    REQUIRE(kept_count < 2);
    beam_request_keep(request);
    kept[kept_count++] = request;
    ((struct counts *)arg)->kept++;
}

/* The word to answer what is held comes on a channel that is open anyway. */
static void on_word(beam_channel *channel, const beam_message *message, void *arg)
{
    while (kept_count > 0)
        beam_reply(kept[--kept_count], NULL);
    ((struct counts *)arg)->messages++;
}

static beam_request *word_request;

static void on_word_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_reply(word_request, NULL);
}

static const struct beam_channel_handlers word_handlers = {
    .on_message = on_word,
    .on_end = on_word_end,
};

static void on_words(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    word_request = request;
    beam_channel_set_handlers(beam_request_channel(request), &word_handlers, arg);
}

static unsigned channel_writables;

static void on_writable(beam_channel *channel, void *arg)
{
    channel_writables++;
    flow_tick();
}

static const struct beam_channel_handlers words = {.on_writable = on_writable};

struct few {
    struct counts *counts;
    beam_channel *channel; /* one of the four */
    struct flow_answer answer;
    beam_message *message;
    beam_channel *attached[ATTACHED];
};

/* Three of the four are open: one more would fit, and a message that brings two does not. */
static struct few start_few(struct flow_answer *held)
{
    struct few few = {.counts = flow_share(sizeof(struct counts))};
    struct flow_options options = room_for_few();
    kept_count = channel_writables = 0;
    flow_serve("hold", on_hold, few.counts);
    flow_serve("words", on_words, few.counts);
    flow_start(&options);
    REQUIRE_INT(beam_open(flow.session, "words", NULL, &words, NULL, NULL, &few.channel), 0);
    for (unsigned i = 0; i < 2; i++) {
        beam_message *question = beam_message_new();
        REQUIRE_INT(beam_call(flow.session, "hold", &question, flow_on_reply, &held[i], NULL), 0);
    }
    FLOW_WAIT(few.counts->kept == 2);
    few.message = beam_message_new();
    for (unsigned i = 0; i < ATTACHED; i++) {
        few.attached[i] = beam_message_attach_channel(few.message);
        REQUIRE(few.attached[i] != NULL);
    }
    return few;
}

static void finish_few(struct few *few)
{
    for (unsigned i = 0; i < ATTACHED; i++)
        beam_channel_free(few->attached[i]);
    beam_channel_end(few->channel);
    flow_settle();
    beam_channel_free(few->channel);
}

FLOW_TEST(sender_refused_for_its_attached_channels_hears_when_others_have_gone)
{
    struct flow_answer held[2] = {0};
    struct few few = start_few(held);
    CHECK_INT(beam_channel_send(few.channel, &few.message), -EAGAIN);
    REQUIRE(few.message != NULL);
    flow_settle();
    CHECK_UINT(channel_writables, 0);
    CHECK_INT(beam_channel_send_body(few.channel, "go", 2), 0);
    FLOW_WAIT(held[0].count == 1 && held[1].count == 1);
    FLOW_WAIT(channel_writables == 1);
    CHECK_INT(beam_channel_send(few.channel, &few.message), 0);
    FLOW_WAIT(few.counts->messages == 2);
    flow_settle();
    CHECK_UINT(channel_writables, 1);
    finish_few(&few);
}

FLOW_TEST(caller_refused_for_its_attached_channels_hears_when_others_have_gone)
{
    struct flow_answer held[2] = {0}, answer = {0};
    struct few few = start_few(held);
    CHECK_INT(beam_call(flow.session, "nobody", &few.message, flow_on_reply, &answer, NULL),
              -EAGAIN);
    REQUIRE(few.message != NULL);
    flow_settle();
    CHECK_UINT(flow.writables, 0);
    CHECK_INT(beam_channel_send_body(few.channel, "go", 2), 0);
    FLOW_WAIT(held[0].count == 1 && held[1].count == 1);
    FLOW_WAIT(flow.writables == 1);
    CHECK_INT(beam_call(flow.session, "nobody", &few.message, flow_on_reply, &answer, NULL), 0);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_NOT_FOUND);
    flow_settle();
    CHECK_UINT(flow.writables, 1);
    finish_few(&few);
}
