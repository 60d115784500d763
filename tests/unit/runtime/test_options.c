/* Options that are older or newer than this library, as its helper and its public functions read them. */
#include "runtime/options.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include <beam/beam.h>

#include "tests/support/test.h"

struct older {
    size_t size;
    uint64_t a;
};

struct ours {
    size_t size;
    uint64_t a, b;
};

struct newer {
    size_t size;
    uint64_t a, b, c;
};

TEST(options_of_none_are_zero)
{
    struct ours ours = {1, 2, 3};
    CHECK_INT(bm_options_read(&ours, sizeof(ours), NULL), 0);
    CHECK_UINT(ours.size, sizeof(ours));
    CHECK_UINT(ours.a + ours.b, 0);
}

TEST(options_that_are_shorter_lack_what_is_zero)
{
    struct ours ours = {1, 2, 3};
    struct older *older = malloc(sizeof(*older)); /* what lies behind it is not read */
    REQUIRE(older != NULL);
    *older = (struct older){sizeof(*older), 7};
    CHECK_INT(bm_options_read(&ours, sizeof(ours), older), 0);
    CHECK_UINT(ours.size, sizeof(ours));
    CHECK_UINT(ours.a, 7);
    CHECK_UINT(ours.b, 0);
    free(older);
    struct ours same = {sizeof(same), 8, 9};
    CHECK_INT(bm_options_read(&ours, sizeof(ours), &same), 0);
    CHECK_UINT(ours.a, 8);
    CHECK_UINT(ours.b, 9);
}

TEST(options_that_are_longer_must_be_zero_behind_ours)
{
    struct ours ours;
    struct newer newer = {sizeof(newer), 1, 2, 0};
    CHECK_INT(bm_options_read(&ours, sizeof(ours), &newer), 0);
    CHECK_UINT(ours.size, sizeof(ours));
    CHECK_UINT(ours.a, 1);
    CHECK_UINT(ours.b, 2);
    newer.c = UINT64_C(1) << 63;
    CHECK_INT(bm_options_read(&ours, sizeof(ours), &newer), -E2BIG);
}

TEST(options_without_a_size_are_none)
{
    struct ours ours, theirs = {0, 1, 2};
    for (; theirs.size < sizeof(size_t); theirs.size++)
        CHECK_INT(bm_options_read(&ours, sizeof(ours), &theirs), -EINVAL);
    CHECK_INT(bm_options_read(&ours, sizeof(ours), &theirs), 0); /* a size, and no more */
    CHECK_UINT(ours.a + ours.b, 0);
}

/* --- as the public functions take them --------------------------------------------------------- */

static int replied;

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    (void)status;
    (void)message;
    (void)arg;
    replied++;
}

#define LONGER(type_)                                                                              \
    struct {                                                                                       \
        struct type_ known;                                                                        \
        uint64_t more;                                                                             \
    }

TEST(every_public_function_reads_the_size_of_its_options)
{
    LONGER(beam_runtime_options) r = {{.size = sizeof(r), .embedded = true}, 1};
    LONGER(beam_connect_options) c = {{.size = sizeof(c)}, 1};
    LONGER(beam_listen_options) l = {{.size = sizeof(l)}, 1};
    LONGER(beam_call_options) a = {{.size = sizeof(a)}, 1};
    beam_runtime *runtime = NULL;
    beam_session *session = NULL;
    beam_channel *channel = NULL;
    beam_message *message = beam_message_new();

    CHECK_INT(beam_runtime_new(&r.known, &runtime), -E2BIG);
    r.more = 0;
    r.known.transports = BEAM_TRANSPORTS(&beam_unix);
    int made = beam_runtime_new(&r.known, &runtime);
    if (made == -BEAM_ENO_IO_URING) {
        beam_message_free(message);
        SKIP("no io_uring");
    }
    REQUIRE_INT(made, 0);
    CHECK_INT(beam_listen(runtime, "unix:@beam-options-of-no-size", &l.known), -E2BIG);
    CHECK_INT(beam_connect(runtime, "ring:0", &c.known, &session), -E2BIG);
    c.known.size = 0;
    CHECK_INT(beam_connect(runtime, "ring:0", &c.known, &session), -EINVAL);
    l.known.size = 0;
    CHECK_INT(beam_listen(runtime, "unix:@beam-options-of-no-size", &l.known), -EINVAL);
    c.known.size = sizeof(c);
    c.more = 0;
    REQUIRE_INT(beam_connect(runtime, "ring:0", &c.known, &session), 0);
    for (unsigned i = 0; i < 2; i++) {
        int error = i == 0 ? -E2BIG : -EINVAL;
        CHECK_INT(beam_call(session, "x", &message, on_reply, NULL, &a.known), error);
        CHECK_INT(beam_open(session, "x", &message, NULL, NULL, &a.known, &channel), error);
        REQUIRE(message != NULL);
        a.known.size = 0;
    }
    a.known.size = sizeof(a);
    a.more = 0;
    CHECK_INT(beam_call(session, "x", &message, on_reply, NULL, &a.known), 0);
    beam_session_free(session);
    beam_runtime_free(runtime);
    CHECK_INT(replied, 1);
}

/* What a function fills in: an older caller gets what it has room for, a newer one zeros behind. */
TEST(options_write_as_much_as_there_is_room_for)
{
    struct {
        size_t size;
        uint64_t a, b;
    } ours = {0, 1, 2}, to = {.size = sizeof(size_t) + sizeof(uint64_t), .a = 7, .b = 7};
    struct {
        size_t size;
        uint64_t a, b, c;
    } newer = {.size = sizeof(newer), .a = 7, .b = 7, .c = 7};
    CHECK_INT(bm_options_write(&to, &ours, sizeof(ours)), 0);
    CHECK_UINT(to.size, sizeof(size_t) + sizeof(uint64_t));
    CHECK_UINT(to.a, 1);
    CHECK_UINT(to.b, 7);
    CHECK_INT(bm_options_write(&newer, &ours, sizeof(ours)), 0);
    CHECK_UINT(newer.size, sizeof(newer));
    CHECK_UINT(newer.a, 1);
    CHECK_UINT(newer.b, 2);
    CHECK_UINT(newer.c, 0);
    to.size = sizeof(size_t) - 1;
    CHECK_INT(bm_options_write(&to, &ours, sizeof(ours)), -EINVAL);
    CHECK_UINT(to.a, 1);
}
