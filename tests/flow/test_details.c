/* Details: what an error says to programs, besides its code and its text. */
#include <stdlib.h>

#include "tests/support/flow.h"

/* What to fail with; every one of these is a document of its own. */
struct wanted {
    uint8_t details[20000];
    size_t len;
    char text[256]; /* empty: no format */
    /* Whose turn it is: a socket passes it on, and is not seen to (tsan). */
    _Atomic unsigned written, read;
};

static struct wanted *wanted;

static void on_fail(beam_request *request, const beam_message *message, void *arg)
{
    struct wanted *w = arg;
    if (w->written > 0 && w->text[0])
        beam_fail_with(request, BEAM_ABORTED, w->details, w->len, "%s", w->text);
    else
        beam_fail_with(request, BEAM_ABORTED, w->details, w->len, NULL);
    w->read++;
}

/* A map with a number, a list, and bytes that bring it to `len` bytes if that is not 0. */
static void write_details(const char *text, size_t len, const char *message)
{
    beam_kv_writer writer;
    const void *document;
    static const uint8_t zeros[sizeof(wanted->details)];
    beam_kv_writer_init(&writer, wanted->details, sizeof(wanted->details));
    beam_kv_begin_map(&writer, NULL);
    beam_kv_put_uint(&writer, "rev", 7);
    beam_kv_begin_list(&writer, "names");
    beam_kv_put_str(&writer, NULL, "kv");
    beam_kv_end(&writer);
    if (message)
        beam_kv_put_str(&writer, "message", message);
    if (len > 0)
        beam_kv_put_bytes(&writer, "z", zeros, len - 73);
    beam_kv_end(&writer);
    REQUIRE_INT(beam_kv_writer_finish(&writer, &document, &wanted->len), 0);
    snprintf(wanted->text, sizeof(wanted->text), "%s", text);
}

struct heard {
    unsigned count;
    enum beam_code code;
    char text[256];
    size_t len; /* of the details */
    uint64_t rev;
    bool names;
    char message[256]; /* in them */
};

static void hear(struct heard *heard, const struct beam_status *status)
{
    beam_kv_value map;
    beam_kv_value names;
    beam_str message;
    heard->count++;
    heard->code = status->code;
    heard->len = status->details_len;
    flow_copy_text(heard->text, sizeof(heard->text), status->message);
    flow_tick();
    if (!status->details)
        return;
    CHECK_INT(beam_kv_check(status->details, status->details_len, NULL), 0);
    REQUIRE_INT(beam_kv_root(status->details, status->details_len, &map), 0);
    (void)beam_kv_get_uint(&map, "rev", &heard->rev);
    heard->names = beam_kv_get(&map, "names", &names) == 0 && names.type == BEAM_KV_LIST;
    if (beam_kv_get_str(&map, "message", &message) == 0)
        flow_copy_text(heard->message, sizeof(heard->message), message);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    hear(arg, status);
}

static struct heard ask(const char *service)
{
    static struct heard heard;
    beam_message *message = beam_message_new();
    memset(&heard, 0, sizeof(heard));
    wanted->written++;
    int r = beam_call(flow.session, service, &message, on_reply, &heard, NULL);
    beam_message_free(message);
    REQUIRE_INT(r, 0);
    FLOW_WAIT(heard.count == 1);
    CHECK(wanted->read > 0);
    CHECK_INT(heard.code, BEAM_ABORTED);
    return heard;
}

static const char *const ways[] = {"here", "home"};

static void serve(void)
{
    wanted = flow_share(sizeof(*wanted));
    flow_serve("here", on_fail, wanted);
    flow_serve_at_home("home", on_fail, wanted);
    flow_start(NULL);
}

FLOW_TEST(details_of_an_error_reach_the_caller_with_its_text_also_over_a_hop)
{
    serve();
    write_details("changed meanwhile", 0, "not this");
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        struct heard heard = ask(ways[i]);
        CHECK_STR(heard.text, "changed meanwhile");
        CHECK_STR(heard.message, "changed meanwhile");
        CHECK_UINT(heard.rev, 7);
        CHECK(heard.names);
    }
}

FLOW_TEST(details_without_a_text_keep_their_own)
{
    serve();
    write_details("", 0, "as it stands");
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        struct heard heard = ask(ways[i]);
        CHECK_STR(heard.text, "as it stands");
        CHECK_STR(heard.message, "as it stands");
        CHECK_UINT(heard.rev, 7);
    }
    write_details("", 0, NULL);
    struct heard heard = ask("home");
    CHECK_STR(heard.text, "");
    CHECK_STR(heard.message, "");
    CHECK_UINT(heard.rev, 7);
}

/* docs/spec/session.md F3: 16 384 bytes, the text among them. */
FLOW_TEST(details_that_are_none_are_left_out_and_the_error_comes_all_the_same)
{
    serve();
    const size_t text = 24; /* an entry: header, "message", and up to 9 bytes of text */
    for (unsigned i = 0; i < 2; i++) {
        test_note("%s", ways[i]);
        write_details("as it is", 16384 - text, NULL);
        CHECK_UINT(wanted->len, 16384 - text);
        struct heard heard = ask(ways[i]);
        CHECK_UINT(heard.len, 16384);
        CHECK_UINT(heard.rev, 7);
        CHECK_STR(heard.message, "as it is");

        write_details("as it is", 16384 - text + 8, NULL);
        heard = ask(ways[i]);
        CHECK_UINT(heard.rev, 0);
        CHECK_STR(heard.text, "as it is");

        write_details("as it is", 0, NULL);
        wanted->details[8] ^= 1; /* no valid document any more */
        heard = ask(ways[i]);
        CHECK_UINT(heard.rev, 0);
        CHECK_STR(heard.text, "as it is");

        write_details("as it is", 0, NULL);
        wanted->len = 0;
        heard = ask(ways[i]);
        CHECK_STR(heard.text, "as it is");
    }
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    hear(arg, status);
}

FLOW_TEST(details_of_an_error_end_an_open_channel_too)
{
    static const struct beam_channel_handlers handlers = {.on_end = on_end};
    static struct heard heard;
    serve();
    write_details("no more", 0, NULL);
    for (unsigned i = 0; i < 2; i++) {
        beam_channel *channel = NULL;
        test_note("%s", ways[i]);
        memset(&heard, 0, sizeof(heard));
        wanted->written++;
        REQUIRE_INT(beam_open(flow.session, ways[i], NULL, &handlers, &heard, NULL, &channel), 0);
        FLOW_WAIT(heard.count == 1);
        CHECK_INT(heard.code, BEAM_ABORTED);
        CHECK_UINT(heard.rev, 7);
        CHECK_STR(heard.message, "no more");
        CHECK(wanted->read > 0);
        beam_channel_free(channel);
    }
}
