/* What is said of attached channels on networks, against tests/vectors/http_frames.json: the error of each
 * invalid frame, the summary of each valid one; and that what is written is read again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <beam/error.h>

#include "runtime/attached_about.h"
#include "tests/support/test.h"
#include "tests/support/vectors.h"

static const char *const kinds[] = {"file", "pipe", "socket"};

/* One entry, as the summaries have it. */
static int say(const struct bm_attached *attached, char *out, size_t size, size_t *pos)
{
    struct bm_about about;
    const char *mode = attached->mode == BM_MODE_BYTES ? "bytes" : "messages";
    int r = bm_about_parse(attached->about, attached->about_len, attached->mode, &about);
    if (r < 0)
        return r;
    *pos += (size_t)snprintf(out + *pos, size - *pos, "%s%llu ", *pos > 0 ? ", " : "",
                             (unsigned long long)attached->id);
    if (attached->mode != BM_MODE_FD)
        *pos += (size_t)snprintf(out + *pos, size - *pos, "%s", mode);
    else
        *pos += (size_t)snprintf(out + *pos, size - *pos, "%s %s%s", kinds[about.kind],
                                 about.readable ? "r" : "", about.writable ? "w" : "");
    if (attached->mode == BM_MODE_FD && about.length != BM_PUMP_TO_END)
        *pos +=
            (size_t)snprintf(out + *pos, size - *pos, " %llu", (unsigned long long)about.length);
    if (about.dedicated)
        *pos += (size_t)snprintf(out + *pos, size - *pos, " token %02x..%02x", about.token[0],
                                 about.token[BM_TOKEN_LEN - 1]);
    return 0;
}

static int read_frame(const uint8_t *bytes, size_t len, char *out, size_t size)
{
    struct bm_bytes packet = bm_bytes(bytes, len);
    struct bm_frame frame;
    struct bm_message_head head;
    size_t pos = 0;
    int r = bm_frame_next(&packet, &frame);
    REQUIRE(r == 1 || r < 0);
    if (r == 1)
        r = bm_frame_parse_network_message(&frame, &head);
    for (unsigned i = 0; r == 0 && i < head.attached; i++) {
        struct bm_attached attached;
        r = bm_frame_parse_attached(&head, i, &attached);
        if (r == 0)
            r = say(&attached, out, size, &pos);
    }
    return r;
}

TEST(frames_of_networks_say_what_is_attached)
{
    struct vectors vectors;
    vectors_load("http_frames.json", &vectors);
    CHECK(vectors.count >= 20);
    for (size_t i = 0; i < vectors.count; i++) {
        const struct vector *v = &vectors.items[i];
        const char *error = vector_str(v, "error");
        char summary[512] = "";
        size_t len;
        uint8_t *bytes = vector_hex(v, "hex", &len);
        test_note("%s", vector_str(v, "name"));
        int r = read_frame(bytes, len, summary, sizeof(summary));
        if (error) {
            CHECK_STR(r < 0 ? beam_error_name(r) : "nothing", error);
        } else {
            CHECK_INT(r, 0);
            CHECK_STR(summary, vector_str(v, "summary"));
        }
        free(bytes);
    }
    vectors_free(&vectors);
}

TEST(what_is_written_is_read_again)
{
    for (unsigned kind = 0; kind < 3; kind++)
        for (unsigned access = 1; access < 4; access++) {
            _Alignas(8) uint8_t document[BM_ABOUT_LEN_MAX];
            struct bm_about about = {.kind = (enum bm_pump_kind)kind,
                                     .readable = access & 1,
                                     .writable = access & 2,
                                     .length = kind == 0 ? INT64_MAX : BM_PUMP_TO_END};
            struct bm_about again;
            uint32_t len = bm_about_write(&about, BM_MODE_FD, document);
            REQUIRE_INT(bm_about_parse(document, len, BM_MODE_FD, &again), 0);
            CHECK_UINT(again.kind, about.kind);
            CHECK_UINT(again.readable, about.readable);
            CHECK_UINT(again.writable, about.writable);
            CHECK_UINT(again.length, about.length);
        }
}

/* On a unix socket the words of an entry are what they were. */
TEST(entries_of_unix_frames_say_nothing_more)
{
    static const uint8_t frame_bytes[] = {3, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 2, 4,
                                          0, 1, 5, 0, 0, 0, 0, 0, 0,  0, 2, 0, 0, 0,
                                          0, 0, 0, 0, 0, 0, 0, 0, 0,  0, 0, 0};
    _Alignas(8) uint8_t bytes[sizeof(frame_bytes)];
    struct bm_frame frame;
    struct bm_message_head head;
    struct bm_attached attached;
    memcpy(bytes, frame_bytes, sizeof(bytes));
    struct bm_bytes packet = bm_bytes(bytes, sizeof(bytes));
    REQUIRE_INT(bm_frame_next(&packet, &frame), 1);
    REQUIRE_INT(bm_frame_parse_message(&frame, &head), 0);
    CHECK_INT(bm_frame_parse_attached(&head, 0, &attached), -BEAM_EFRAME_ATTACHMENT);
}
