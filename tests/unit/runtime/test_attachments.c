/* Who owns an fd or a channel beside a message, from attach to take or close: exactly one, and each is
 * closed exactly once. */
#define _GNU_SOURCE
#include <errno.h>

#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "runtime/channel.h"
#include "runtime/message.h"
#include "tests/unit/runtime/on_core.h"
#include "tests/unit/runtime/scarce.h"

static void attach_and_free(void)
{
    struct given given[BEAM_MESSAGE_FDS_MAX];
    beam_message *message = beam_message_new();
    for (unsigned i = 0; i < BEAM_MESSAGE_FDS_MAX; i++) {
        given[i] = given_new();
        int fd = given[i].fd;
        beam_message_attach_fd(message, &given[i].fd);
        CHECK_INT(given[i].fd, -1);
        CHECK_UINT(beam_message_fd_count(message), i + 1);
        CHECK_INT(beam_message_peek_fd(message, i), fd);
        CHECK(!given_gone(&given[i]));
    }
    CHECK_INT(beam_message_error(message), 0);
    CHECK_INT(beam_message_peek_fd(message, BEAM_MESSAGE_FDS_MAX), -1);
    CHECK_INT(beam_message_take_fd(message, BEAM_MESSAGE_FDS_MAX), -1);
    CHECK_INT(beam_message_take_fd(message, UINT32_MAX), -1);
    beam_message_free(message);
    for (int i = 0; i < BEAM_MESSAGE_FDS_MAX; i++)
        given_await(&given[i]);
}

TEST(attachments_sixteen_fds_are_the_messages_and_closed_with_it)
{
    off_and_on_a_core(attach_and_free);
}

static void attach_one_too_many(void)
{
    struct given given[BEAM_MESSAGE_FDS_MAX + 2];
    beam_message *message = beam_message_new();
    for (int i = 0; i < BEAM_MESSAGE_FDS_MAX + 2; i++) {
        given[i] = given_new();
        beam_message_attach_fd(message, &given[i].fd);
        CHECK_INT(given[i].fd, -1);
        if (i == BEAM_MESSAGE_FDS_MAX)
            CHECK_INT(beam_message_error(message), -EMSGSIZE);
    }
    CHECK_UINT(beam_message_fd_count(message), BEAM_MESSAGE_FDS_MAX);
    /* The surplus is gone already; the others are still the message's. */
    given_await(&given[BEAM_MESSAGE_FDS_MAX]);
    given_await(&given[BEAM_MESSAGE_FDS_MAX + 1]);
    CHECK(!given_gone(&given[0]));
    CHECK_INT(bm_message_seal(message), -EMSGSIZE);
    beam_message_free(message);
    for (int i = 0; i < BEAM_MESSAGE_FDS_MAX; i++)
        given_await(&given[i]);
}

TEST(attachments_seventeenth_fd_is_closed_and_sticks)
{
    off_and_on_a_core(attach_one_too_many);
}

TEST(attachments_fd_that_is_none_sticks)
{
    int fd = -1;
    beam_message *message = beam_message_new();
    beam_message_attach_fd(message, &fd);
    CHECK_INT(beam_message_error(message), -EBADF);
    CHECK_UINT(beam_message_fd_count(message), 0);
    beam_message_free(message);
}

TEST(attachments_fd_to_a_message_that_has_failed_is_closed)
{
    struct given given = given_new();
    beam_message *message = beam_message_new();
    bm_message_fail(message, -EEXIST);
    beam_message_attach_fd(message, &given.fd);
    CHECK_INT(given.fd, -1);
    given_await(&given);
    CHECK_INT(beam_message_error(message), -EEXIST);
    CHECK_UINT(beam_message_fd_count(message), 0);
    beam_message_free(message);
}

TEST(attachments_fd_without_memory_is_closed_and_sticks)
{
    struct given given = given_new();
    beam_message *message = beam_message_new();
    scarce_begin(0);
    beam_message_attach_fd(message, &given.fd);
    scarce_end();
    CHECK_INT(given.fd, -1);
    given_await(&given);
    CHECK_INT(beam_message_error(message), -ENOMEM);
    CHECK_UINT(beam_message_fd_count(message), 0);
    beam_message_free(message);
}

static void take_some(void)
{
    struct given given[3];
    int fds[3];
    beam_message *message = beam_message_new();
    for (int i = 0; i < 3; i++) {
        given[i] = given_new();
        fds[i] = given[i].fd;
        beam_message_attach_fd(message, &given[i].fd);
    }
    CHECK_INT(beam_message_peek_fd(message, 1), fds[1]);
    CHECK_INT(beam_message_peek_fd(message, 1), fds[1]); /* a look takes nothing */
    CHECK_INT(beam_message_take_fd(message, 1), fds[1]);
    CHECK_INT(beam_message_take_fd(message, 1), -1);
    CHECK_INT(beam_message_peek_fd(message, 1), -1);
    CHECK_UINT(beam_message_fd_count(message), 3); /* the others keep their index */
    CHECK_INT(beam_message_take_fd(message, 2), fds[2]);

    /* The number of the second goes to another file while the message still lives. */
    close(fds[1]);
    given_await(&given[1]);
    int again = fcntl(given[0].read_fd, F_DUPFD_CLOEXEC, fds[1]);
    CHECK_INT(again, fds[1]);
    beam_message_free(message);
    given_await(&given[0]);
    CHECK(fd_is_open(again));
    CHECK(fd_is_open(fds[2]));
    CHECK(!given_gone(&given[2]));
    close(again);
    close(fds[2]);
    close(given[2].read_fd);
}

TEST(attachments_fd_taken_is_the_takers_and_not_closed_again)
{
    off_and_on_a_core(take_some);
}

TEST(attachments_fds_close_ranks)
{
    /* Every set of taken ones out of five. */
    for (unsigned taken = 0; taken < 32; taken++) {
        struct bm_attachments att = {.fd_count = 5, .fds = {10, 11, 12, 13, 14}};
        unsigned n = 0;
        test_note("taken: %#x", taken);
        for (int i = 0; i < 5; i++)
            if (taken & 1u << i)
                att.fds[i] = -1;
        bm_attachments_close_ranks(&att);
        CHECK_UINT(att.fd_count, 5 - (unsigned)__builtin_popcount(taken));
        for (int i = 0; i < 5; i++)
            if (!(taken & 1u << i))
                CHECK_INT(att.fds[n++], 10 + i);
    }
}

static void close_then_reuse(void)
{
    /* What a refused message goes through: closed while it lives, its memory still its own. */
    struct given given = given_new();
    beam_message *message = beam_message_new();
    beam_message_attach_fd(message, &given.fd);
    bm_attachments_close(message);
    given_await(&given);
    CHECK_UINT(beam_message_fd_count(message), 0);
    given = given_new();
    beam_message_attach_fd(message, &given.fd);
    CHECK_UINT(beam_message_fd_count(message), 1);
    beam_message_free(message);
    given_await(&given);
}

TEST(attachments_closed_may_be_filled_again)
{
    off_and_on_a_core(close_then_reuse);
}

TEST(attachments_close_more_fds_than_the_ring_holds)
{
    enum { MESSAGES = 40 }; /* 640 fds, the submission queue has 256 entries */
    int read_end[2];
    core_begin();
    REQUIRE_INT(pipe2(read_end, O_CLOEXEC), 0);
    beam_message *messages[MESSAGES];
    for (int i = 0; i < MESSAGES; i++) {
        messages[i] = beam_message_new();
        for (int k = 0; k < BEAM_MESSAGE_FDS_MAX; k++) {
            int fd = fcntl(read_end[1], F_DUPFD_CLOEXEC, 0);
            beam_message_attach_fd(messages[i], &fd);
        }
    }
    struct given given = {read_end[0], read_end[1]};
    close(given.fd);
    for (int i = 0; i < MESSAGES; i++) {
        CHECK(!given_gone(&given));
        beam_message_free(messages[i]);
    }
    for (int i = 0; i < 8 && !given_gone(&given); i++)
        beam_runtime_turn(on_core_runtime);
    given_await(&given);
    core_end();
}

/* --- channels -------------------------------------------------------------------------------- */

TEST(attachments_channel_off_a_reactor_sticks)
{
    beam_message *message = beam_message_new();
    CHECK_PTR(beam_message_attach_channel(message), NULL);
    CHECK_INT(beam_message_error(message), -EPERM);
    CHECK_UINT(beam_message_channel_count(message), 0);
    CHECK_PTR(beam_message_take_channel(message, 0), NULL);
    CHECK_PTR(beam_message_take_stream(message, 0), NULL);
    beam_message_free(message);
    message = beam_message_new();
    CHECK_PTR(beam_message_attach_stream(message), NULL);
    CHECK_INT(beam_message_error(message), -EPERM);
    beam_message_free(message);
}

TEST(attachments_sixty_four_channels_and_one_more_sticks)
{
    beam_channel *channels[BEAM_MESSAGE_CHANNELS_MAX];
    core_begin();
    beam_message *message = beam_message_new();
    for (unsigned i = 0; i < BEAM_MESSAGE_CHANNELS_MAX; i++) {
        channels[i] = beam_message_attach_channel(message);
        REQUIRE(channels[i] != NULL);
        CHECK_UINT(beam_message_channel_count(message), i + 1);
        CHECK_PTR(beam_message_take_channel(message, i), NULL); /* the peer's to be, not ours */
    }
    CHECK_INT(beam_message_error(message), 0);
    CHECK_PTR(beam_message_attach_stream(message), NULL);
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    CHECK_PTR(beam_message_attach_channel(message), NULL);
    CHECK_UINT(beam_message_channel_count(message), BEAM_MESSAGE_CHANNELS_MAX);
    beam_message_free(message);
    beam_runtime_turn(on_core_runtime);
    for (unsigned i = 0; i < BEAM_MESSAGE_CHANNELS_MAX; i++)
        beam_channel_free(channels[i]);
    core_end();
}

TEST(attachments_channel_of_the_other_kind_or_index_is_not_taken)
{
    core_begin();
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    beam_stream *stream = beam_message_attach_stream(message);
    CHECK_UINT(beam_message_channel_count(message), 2);
    message->attachments->received = true;
    CHECK_PTR(beam_message_take_channel(message, 1), NULL);
    CHECK_PTR(beam_message_take_stream(message, 0), NULL);
    CHECK_PTR(beam_message_take_channel(message, 2), NULL);
    CHECK_PTR(beam_message_take_stream(message, 64), NULL);
    message->attachments->received = false;
    beam_message_free(message);
    beam_channel_free(channel);
    beam_stream_free(stream);
    core_end();
}

TEST(attachments_channel_without_memory_sticks_and_leaves_the_others)
{
    int failed = 0;
    core_begin();
    for (int left = 0; left < 20; left++) {
        test_note("%d allocations succeed", left);
        beam_message *message = beam_message_new();
        bm_pool_deinit(&bm_core_current()->pool);
        scarce_begin(left);
        beam_channel *first = beam_message_attach_channel(message);
        beam_stream *second = beam_message_attach_stream(message);
        scarce_end();
        CHECK_UINT(beam_message_channel_count(message), (first != NULL) + (second != NULL));
        CHECK(first != NULL || second == NULL);
        CHECK_INT(beam_message_error(message), second ? 0 : -ENOMEM);
        failed += second == NULL;
        beam_message_free(message);
        beam_runtime_turn(on_core_runtime);
        if (first)
            beam_channel_free(first);
        if (second)
            beam_stream_free(second);
        beam_runtime_turn(on_core_runtime);
        if (second)
            break;
    }
    CHECK(failed >= 4); /* the attachments, the channels' table, each channel */
    CHECK(failed < 20);
    core_end();
}

TEST(attachments_channel_of_a_freed_message_ends_cancelled)
{
    core_begin();
    beam_message *message = beam_message_new();
    beam_channel *channel = beam_message_attach_channel(message);
    CHECK_PTR(bm_channel_core(bm_attachments_channel(message)), bm_core_current());
    beam_message_free(message);
    beam_runtime_turn(on_core_runtime);
    beam_message *late = beam_message_new();
    int r = beam_channel_send(channel, &late);
    CHECK(r < 0);
    CHECK(late != NULL);
    beam_message_free(late);
    beam_channel_free(channel);
    core_end();
}
