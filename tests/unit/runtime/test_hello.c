/* HELLO: what is written is read back, and is the document of the specification; names are cut and kept
 * valid. Refusals stand in tests/vectors/session.json, which test_frame.c runs. */
#include <stdlib.h>
#include <string.h>

#include "runtime/frame.h"
#include "runtime/hello.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"

#define STR(text) ((beam_str){text, sizeof(text) - 1})

static const struct bm_hello example = {
    .version = BM_PROTOCOL_VERSION,
    .opener = true,
    .window = 65536,
    .channels_max = 1024,
    .message_len_max = 16777216,
    .fds_max = 64,
};

TEST(hello_is_written_as_the_specification_shows)
{
    struct vectors vectors;
    uint8_t document[BM_HELLO_LEN_MAX], frame[BM_HELLO_LEN_MAX + BM_FRAME_HEADER_LEN];
    size_t len = bm_hello_write(&example, document), packet_len = 0;
    uint8_t *end = bm_frame_put_hello(frame, document, (uint32_t)len);

    vectors_load("session.json", &vectors);
    for (size_t i = 0; i < vectors.count; i++) {
        if (strcmp(vector_str(&vectors.items[i], "name"), "example: HELLO of the opener") != 0)
            continue;
        uint8_t *packet = vector_hex(&vectors.items[i], "hex", &packet_len);
        CHECK_MEM(frame, end - frame, packet, packet_len);
        free(packet);
    }
    vectors_free(&vectors);
    CHECK_UINT(packet_len, 168);
}

static void check_round_trip(const struct bm_hello *hello, beam_str name)
{
    uint8_t document[BM_HELLO_LEN_MAX];
    struct bm_hello again;
    size_t len = bm_hello_write(hello, document);
    REQUIRE_INT(bm_hello_parse(document, len, &again), 0);
    CHECK_UINT(again.version, hello->version);
    CHECK_INT(again.opener, hello->opener);
    CHECK_MEM(again.name.ptr, again.name.len, name.ptr, name.len);
    CHECK_UINT(again.window, hello->window);
    CHECK_UINT(again.channels_max, hello->channels_max);
    CHECK_UINT(again.message_len_max, hello->message_len_max);
    CHECK_UINT(again.fds_max, hello->fds_max);
    CHECK_INT(again.fds_refused, hello->fds_refused);
    CHECK_UINT(again.ping_s, hello->ping_s);
}

TEST(hello_is_read_as_it_was_written)
{
    struct bm_hello hello = example;
    check_round_trip(&hello, STR(""));
    hello.opener = false;
    hello.name = STR("worker");
    hello.fds_max = 0;
    check_round_trip(&hello, STR("worker"));
    hello.fds_refused = true;
    hello.ping_s = BM_PING_MAX_S;
    check_round_trip(&hello, STR("worker"));
    hello.version = 7;
    hello.window = BM_WINDOW_MIN;
    hello.channels_max = hello.message_len_max = INT32_MAX;
    check_round_trip(&hello, STR("worker"));
}

TEST(hello_name_is_cut_between_characters)
{
    char text[300];
    struct bm_hello hello = example;

    memset(text, 'n', sizeof(text));
    hello.name = (beam_str){text, 255};
    check_round_trip(&hello, hello.name);
    hello.name.len = 256;
    check_round_trip(&hello, (beam_str){text, 255});
    hello.name.len = sizeof(text);
    check_round_trip(&hello, (beam_str){text, 255});

    /* Two bytes of a three-byte character would fit. */
    memcpy(text + 253, "\xe4\xbd\xa0", 3);
    check_round_trip(&hello, (beam_str){text, 253});
    memset(text + 253, 'n', 3);
    memcpy(text + 252, "\xe4\xbd\xa0", 3);
    check_round_trip(&hello, (beam_str){text, 255});
}

TEST(hello_name_that_is_no_text_is_left_out)
{
    struct bm_hello hello = example;
    hello.name = STR("caf\xe9");
    check_round_trip(&hello, STR(""));
}

TEST(hello_that_is_refused_writes_nothing)
{
    uint8_t document[BM_HELLO_LEN_MAX];
    size_t len = bm_hello_write(&example, document);
    struct bm_hello again, untouched;

    memset(&again, 0xa5, sizeof(again));
    memcpy(&untouched, &again, sizeof(again));
    for (size_t cut = 0; cut < len; cut++) {
        uint8_t *part = malloc(cut ? cut : 1);
        memcpy(part, document, cut);
        test_note("cut at %zu", cut);
        CHECK_INT(bm_hello_parse(part, cut, &again), -BEAM_EHELLO_MALFORMED);
        free(part);
    }
    CHECK_MEM(&again, sizeof(again), &untouched, sizeof(untouched));
}

TEST(hello_of_a_version_beyond_32_bits_is_one_we_can_lower)
{
    uint8_t document[256];
    beam_kv_writer w;
    const void *doc;
    size_t len;
    struct bm_hello hello;

    beam_kv_writer_init(&w, document, sizeof(document));
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_str(&w, "role", "acceptor");
    beam_kv_put_int(&w, "version", INT64_C(1) << 32);
    beam_kv_end(&w);
    REQUIRE_INT(beam_kv_writer_finish(&w, &doc, &len), 0);
    REQUIRE_INT(bm_hello_parse(doc, len, &hello), 0);
    CHECK_UINT(hello.version, UINT32_MAX);
}
