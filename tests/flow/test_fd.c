/* File descriptors that travel with messages: each arrives as the same file, belongs to one owner at a
 * time and is closed once. That none is left over, the runner sees after every case, here and in the
 * other process. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/flow.h"

struct file {
    _Atomic uint64_t dev, ino;
    _Atomic bool cloexec;
};

static void note_file(int fd, struct file *file)
{
    struct stat st;
    REQUIRE_INT(fstat(fd, &st), 0);
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    /* docs/spec/session.md U4 */
    file->cloexec = fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

static int new_file(void)
{
    int fd = memfd_create("flow", MFD_CLOEXEC);
    REQUIRE(fd >= 0);
    return fd;
}

/* The write end of a pipe is attached; that all copies of it are closed shows at the read end. */
static int attach_pipe(beam_message *message)
{
    int fds[2];
    REQUIRE_INT(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    beam_message_attach_fd(message, &fds[1]);
    CHECK_INT(fds[1], -1);
    return fds[0];
}

static bool is_hung_up(int fd)
{
    char byte;
    return read(fd, &byte, 1) == 0;
}

/* --- identity -------------------------------------------------------------------------------- */

struct seen {
    struct file files[BEAM_MESSAGE_FDS_MAX];
    _Atomic unsigned count, body_right;
};

static void on_look(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    unsigned count = beam_message_fd_count(message);
    CHECK_INT(beam_message_take_fd(message, count), -1);
    CHECK_INT(beam_message_peek_fd(message, count), -1);
    for (unsigned i = 0; i < count; i++) {
        int peeked = beam_message_peek_fd(message, i);
        int fd = beam_message_take_fd(message, i);
        CHECK_INT(fd, peeked);
        CHECK(fd >= 0);
        CHECK_INT(beam_message_take_fd(message, i), -1);
        note_file(fd, &seen->files[i]);
        close(fd);
    }
    seen->count = count;
    beam_reply(request, NULL);
}

static void attach_files(beam_message *message, unsigned count, struct file *files)
{
    for (unsigned i = 0; i < count; i++) {
        int fd = new_file();
        note_file(fd, &files[i]);
        beam_message_attach_fd(message, &fd);
        CHECK_INT(fd, -1);
    }
    CHECK_UINT(beam_message_fd_count(message), count);
}

static void check_files(const struct seen *seen, const struct file *files, unsigned count)
{
    CHECK_UINT(seen->count, count);
    for (unsigned i = 0; i < count; i++) {
        test_note("fd %u", i);
        CHECK_UINT(seen->files[i].ino, files[i].ino);
        CHECK_UINT(seen->files[i].dev, files[i].dev);
        CHECK(seen->files[i].cloexec);
    }
}

static void look_at(unsigned count, struct seen *seen)
{
    struct file files[BEAM_MESSAGE_FDS_MAX];
    beam_message *message = beam_message_new();
    attach_files(message, count, files);
    struct flow_answer answer = flow_ask("look", message);
    CHECK_INT(answer.code, BEAM_OK);
    check_files(seen, files, count);
    flow_answer_clear(&answer);
}

FLOW_TEST_FDS(fd_arrives_as_the_same_file)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve("look", on_look, seen);
    flow_start(NULL);
    look_at(1, seen);
}

FLOW_TEST_FDS(sixteen_fds_arrive_in_their_order)
{
    struct seen *seen = flow_share(sizeof(*seen));
    flow_serve("look", on_look, seen);
    flow_start(NULL);
    look_at(16, seen);
    look_at(3, seen);
}

FLOW_TEST_FDS(seventeenth_fd_sticks_and_all_are_closed)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct file files[17];
    struct flow_answer answer = {0};
    flow_serve("look", on_look, seen);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    attach_files(message, 16, files);
    int pipe_end = attach_pipe(message);
    CHECK_INT(beam_message_error(message), -EMSGSIZE);
    FLOW_WAIT(is_hung_up(pipe_end)); /* it was closed there and then */
    close(pipe_end);
    pipe_end = attach_pipe(message); /* and so is any after an error */
    FLOW_WAIT(is_hung_up(pipe_end));
    close(pipe_end);
    CHECK_INT(beam_call(flow.session, "look", &message, flow_on_reply, &answer, NULL), -EMSGSIZE);
    REQUIRE(message != NULL);
    beam_message_free(message);
    message = beam_message_new();
    int none = -1;
    beam_message_attach_fd(message, &none);
    CHECK_INT(beam_message_error(message), -EBADF);
    beam_message_free(message);
}

/* --- who closes ------------------------------------------------------------------------------ */

static void on_ignore(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

FLOW_TEST_FDS(fds_that_nobody_takes_are_closed)
{
    flow_serve("ignore", on_ignore, NULL);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    int a = attach_pipe(message), b = attach_pipe(message);
    CHECK(!is_hung_up(a));
    struct flow_answer answer = flow_ask("ignore", message);
    CHECK_INT(answer.code, BEAM_OK);
    FLOW_WAIT(is_hung_up(a));
    FLOW_WAIT(is_hung_up(b));
    close(a);
    close(b);
    flow_answer_clear(&answer);
}

FLOW_TEST_FDS(fds_of_a_message_freed_unsent_are_closed)
{
    flow_start(NULL);
    beam_message *message = beam_message_new();
    int a = attach_pipe(message);
    CHECK(!is_hung_up(a));
    beam_message_free(message);
    FLOW_WAIT(is_hung_up(a));
    close(a);
}

FLOW_TEST_FDS(fds_for_a_missing_service_are_closed)
{
    flow_start(NULL);
    for (unsigned i = 0; i < 100; i++) { /* more than the fd credit: it comes back too */
        beam_message *message = beam_message_new();
        int a = attach_pipe(message);
        struct flow_answer answer = flow_ask("nobody", message);
        CHECK_INT(answer.code, BEAM_NOT_FOUND);
        FLOW_WAIT(is_hung_up(a));
        close(a);
        flow_answer_clear(&answer);
    }
}

FLOW_TEST_FDS(fds_on_their_way_when_the_session_ends_are_closed)
{
    flow_serve("ignore", on_ignore, NULL);
    flow_start(NULL);
    int ends[40];
    struct flow_answer answers[40] = {0};
    for (unsigned i = 0; i < 40; i++) {
        beam_message *message = beam_message_new();
        ends[i] = attach_pipe(message);
        REQUIRE_INT(beam_call(flow.session, "ignore", &message, flow_on_reply, &answers[i], NULL),
                    0);
    }
    flow_turn();
    beam_session_close(flow.session);
    for (unsigned i = 0; i < 40; i++) {
        FLOW_WAIT(answers[i].count == 1);
        FLOW_WAIT(is_hung_up(ends[i]));
        close(ends[i]);
        flow_answer_clear(&answers[i]);
    }
}

static int kept_fd = -1;

static void on_keep_fd(beam_request *request, const beam_message *message, void *arg)
{
    kept_fd = beam_message_take_fd(message, 0);
    CHECK(kept_fd >= 0);
    beam_reply(request, NULL);
}

static void write_to_kept(beam_request *request, void *arg)
{
    CHECK_INT(write(kept_fd, "over the fd", 11), 11);
    close(kept_fd);
    kept_fd = -1;
}

FLOW_TEST_FDS(taken_fd_outlives_message_request_and_session)
{
    flow_serve("keep", on_keep_fd, NULL);
    flow_start(NULL);
    beam_message *message = beam_message_new();
    int end = attach_pipe(message);
    struct flow_answer answer = flow_ask("keep", message);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    flow.session = beam_session_free(flow.session);
    flow.session = flow_connect(NULL, NULL);
    flow_at_server(write_to_kept, NULL);
    char text[32] = "";
    FLOW_WAIT(read(end, text, sizeof(text)) == 11);
    CHECK_STR(text, "over the fd");
    FLOW_WAIT(is_hung_up(end));
    close(end);
}

/* --- answers, large messages, channels ------------------------------------------------------- */

static void on_give(beam_request *request, const beam_message *message, void *arg)
{
    struct file *files = arg;
    int64_t count = 0, len = 0;
    (void)beam_message_get_int(message, "count", &count);
    (void)beam_message_get_int(message, "len", &len);
    beam_message *answer = flow_message_of((size_t)len, 4);
    attach_files(answer, (unsigned)count, files);
    beam_reply(request, &answer);
    CHECK_PTR(answer, NULL);
}

static void give(unsigned count, size_t len, struct file *files)
{
    beam_message *question = beam_message_new();
    beam_message_put_uint(question, "count", count);
    beam_message_put_uint(question, "len", len);
    struct flow_answer answer = flow_ask("give", question);
    REQUIRE_INT(answer.code, BEAM_OK);
    CHECK(flow_body_is_right(answer.message, len, 4));
    REQUIRE(answer.message != NULL);
    CHECK_UINT(beam_message_fd_count(answer.message), count);
    for (unsigned i = 0; i < count; i++) {
        struct file file;
        int fd = beam_message_take_fd(answer.message, i);
        REQUIRE(fd >= 0);
        note_file(fd, &file);
        CHECK_UINT(file.ino, files[i].ino);
        CHECK(file.cloexec);
        close(fd);
    }
    flow_answer_clear(&answer);
}

FLOW_TEST_FDS(fds_come_with_answers_small_and_large)
{
    struct file *files = flow_share(BEAM_MESSAGE_FDS_MAX * sizeof(*files));
    flow_serve("give", on_give, files);
    flow_start(NULL);
    give(1, 0, files);
    give(16, 10, files);
    give(2, 65400, files);
    give(3, 1 << 20, files);
    for (unsigned i = 0; i < 200; i++)
        give(1, 100, files);
}

static void on_pass_on(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *kept = beam_message_keep(message);
    beam_reply(request, &kept);
}

FLOW_TEST_FDS(fds_travel_on_with_a_message_that_is_passed_on)
{
    struct file files[5], file;
    flow_serve("pass.on", on_pass_on, NULL);
    flow_start(NULL);
    for (unsigned round = 0; round < 50; round++) {
        beam_message *message = beam_message_new();
        attach_files(message, 5, files);
        struct flow_answer answer = flow_ask("pass.on", message);
        REQUIRE_INT(answer.code, BEAM_OK);
        REQUIRE(answer.message != NULL);
        REQUIRE_UINT(beam_message_fd_count(answer.message), 5);
        for (unsigned i = 0; i < 5; i++) {
            note_file(beam_message_peek_fd(answer.message, i), &file);
            CHECK_UINT(file.ino, files[i].ino);
        }
        flow_answer_clear(&answer);
        flow_settle(); /* the credit of the fds may come behind the answer that took them along */
    }
}

static void on_look_large(beam_request *request, const beam_message *message, void *arg)
{
    struct seen *seen = arg;
    seen->body_right = flow_body_is_right(message, 1 << 20, 6);
    on_look(request, message, arg);
}

FLOW_TEST_FDS(fds_travel_with_a_message_of_several_frames)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct file files[3];
    flow_serve("look", on_look_large, seen);
    flow_start(NULL);
    beam_message *message = flow_message_of(1 << 20, 6);
    attach_files(message, 3, files);
    struct flow_answer answer = flow_ask("look", message);
    CHECK_INT(answer.code, BEAM_OK);
    CHECK(seen->body_right);
    check_files(seen, files, 3);
    flow_answer_clear(&answer);
}

static void on_look_both(beam_request *request, const beam_message *message, void *arg)
{
    beam_channel *channel = beam_message_take_channel(message, 1);
    REQUIRE(channel != NULL);
    beam_stream *stream = beam_message_take_stream(message, 0);
    REQUIRE(stream != NULL);
    CHECK(channel != NULL && stream != NULL);
    beam_channel_free(channel);
    beam_stream_free(stream);
    on_look(request, message, arg);
}

FLOW_TEST_FDS(fds_and_channels_travel_together)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct file files[4];
    flow_serve("look", on_look_both, seen);
    flow_start(NULL);
    for (unsigned round = 0; round < 20; round++) {
        beam_message *message = beam_message_new();
        beam_stream *stream = beam_message_attach_stream(message);
        REQUIRE(stream != NULL);
        attach_files(message, 4, files);
        beam_channel *channel = beam_message_attach_channel(message);
        REQUIRE(channel != NULL);
        CHECK_INT(beam_channel_send_body(channel, "early", 5), 0);
        CHECK_INT(beam_stream_write(stream, "early", 5), 5);
        struct flow_answer answer = flow_ask("look", message);
        CHECK_INT(answer.code, BEAM_OK);
        check_files(seen, files, 4);
        FLOW_WAIT(beam_channel_send_body(channel, "late", 4) == -EPIPE);
        beam_channel_free(channel);
        beam_stream_free(stream);
        flow_answer_clear(&answer);
    }
}

FLOW_TEST_FDS(fds_keep_to_their_messages_when_many_leave_at_once)
{
    struct seen *seen = flow_share(60 * sizeof(*seen));
    struct file files[60][2];
    struct flow_answer answers[60] = {0};
    char names[4][8];
    for (unsigned i = 0; i < 4; i++) {
        snprintf(names[i], sizeof(names[i]), "look%u", i);
        flow_serve(names[i], on_look, &seen[i]);
    }
    flow_start(NULL);
    for (unsigned round = 0; round < 15; round++) {
        for (unsigned i = 0; i < 4; i++) {
            beam_message *message = flow_message_of(i * 700, i);
            unsigned count = (round + i) % 3;
            attach_files(message, count, files[i]);
            REQUIRE_INT(
                beam_call(flow.session, names[i], &message, flow_on_reply, &answers[i], NULL), 0);
        }
        for (unsigned i = 0; i < 4; i++) {
            FLOW_WAIT(answers[i].count == 1);
            CHECK_INT(answers[i].code, BEAM_OK);
            check_files(&seen[i], files[i], (round + i) % 3);
            flow_answer_clear(&answers[i]);
        }
    }
}

/* --- credit ---------------------------------------------------------------------------------- */

#define CREDIT 4

static beam_message *hoard[64];
static unsigned hoarded;

static void on_hoard(beam_request *request, const beam_message *message, void *arg)
{
    _Atomic unsigned *count = arg;
    hoard[hoarded++] = beam_message_keep(message);
    (*count)++;
    beam_reply(request, NULL);
    flow_tick();
}

static void free_hoard(beam_request *request, void *arg)
{
    while (hoarded > 0)
        beam_message_free(hoard[--hoarded]);
}

static void take_hoard(beam_request *request, void *arg)
{
    for (unsigned i = 0; i < hoarded; i++)
        close(beam_message_take_fd(hoard[i], 0));
}

static const struct flow_options four_fds = {.client = {.fds_max = CREDIT},
                                             .server = {.fds_max = CREDIT}};

static void use_up(_Atomic unsigned *count)
{
    for (unsigned i = 0; i < CREDIT; i++) {
        beam_message *message = beam_message_new();
        int fd = new_file();
        beam_message_attach_fd(message, &fd);
        struct flow_answer answer = flow_ask("hoard", message);
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
    }
    CHECK_UINT(*count, CREDIT);
}

static void check_fd_credit(void (*give_back)(beam_request *, void *))
{
    _Atomic unsigned *count = flow_share(sizeof(*count));
    struct flow_answer answer = {0};
    hoarded = 0;
    flow_serve("hoard", on_hoard, count);
    flow_start(&four_fds);
    use_up(count);
    flow_settle();
    beam_message *message = beam_message_new();
    int end = attach_pipe(message);
    CHECK_INT(beam_call(flow.session, "hoard", &message, flow_on_reply, &answer, NULL), -EAGAIN);
    REQUIRE(message != NULL);
    CHECK_UINT(beam_message_fd_count(message), 1);
    CHECK(!is_hung_up(end)); /* still the message's */
    /* Without an fd there is nothing to wait for. */
    struct flow_answer other = flow_ask("nobody", NULL);
    CHECK_INT(other.code, BEAM_NOT_FOUND);
    flow_answer_clear(&other);

    CHECK_UINT(flow.writables, 0);
    flow_at_server(give_back, NULL);
    FLOW_WAIT(flow.writables == 1);
    CHECK_INT(beam_call(flow.session, "hoard", &message, flow_on_reply, &answer, NULL), 0);
    FLOW_WAIT(answer.count == 1);
    CHECK_INT(answer.code, BEAM_OK);
    flow_at_server(free_hoard, NULL);
    FLOW_WAIT(is_hung_up(end));
    close(end);
    flow_answer_clear(&answer);
}

FLOW_TEST_FDS(fd_credit_returns_when_the_message_is_freed)
{
    check_fd_credit(free_hoard);
}

FLOW_TEST_FDS(fd_credit_returns_when_the_fds_are_taken)
{
    check_fd_credit(take_hoard);
}

static void on_drop(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

/* Small grants: what is owed for the first message is less than half of them, and the second wants all. */
FLOW_TEST_FDS(a_message_with_as_many_fds_as_are_granted_never_waits_for_credit_that_is_owed)
{
    beam_message *message;
    struct flow_answer answer = {0};
    flow_serve("drop", on_drop, NULL);
    flow_start(&four_fds);
    for (unsigned fds = 1; fds <= CREDIT; fds += CREDIT - 1) {
        message = beam_message_new();
        for (unsigned i = 0; i < fds; i++) {
            int fd = new_file();
            beam_message_attach_fd(message, &fd);
        }
        int r = -EAGAIN;
        FLOW_WAIT((r = beam_call(flow.session, "drop", &message, flow_on_reply, &answer, NULL)) !=
                  -EAGAIN);
        CHECK_INT(r, 0);
        FLOW_WAIT(answer.count == 1);
        CHECK_INT(answer.code, BEAM_OK);
        flow_answer_clear(&answer);
    }
}

static unsigned channel_writables;

static void on_channel_writable(beam_channel *channel, void *arg)
{
    channel_writables++;
    flow_tick();
}

static const struct beam_channel_handlers channel_handlers = {.on_writable = on_channel_writable};

static void on_hoard_message(beam_channel *channel, const beam_message *message, void *arg)
{
    _Atomic unsigned *count = arg;
    hoard[hoarded++] = beam_message_keep(message);
    (*count)++;
    flow_tick();
}

static const struct beam_channel_handlers hoard_handlers = {.on_message = on_hoard_message};
static beam_request *open_request;

static void on_open_hoard(beam_request *request, const beam_message *message, void *arg)
{
    beam_request_keep(request);
    open_request = request;
    beam_channel_set_handlers(beam_request_channel(request), &hoard_handlers, arg);
}

static void end_open(beam_request *request, void *arg)
{
    beam_reply(open_request, NULL);
}

FLOW_TEST_FDS(channel_waits_for_fd_credit_and_hears_when_it_returns)
{
    _Atomic unsigned *count = flow_share(sizeof(*count));
    beam_channel *channel = NULL;
    hoarded = channel_writables = 0;
    flow_serve("hoard", on_open_hoard, count);
    flow_start(&four_fds);
    REQUIRE_INT(beam_open(flow.session, "hoard", NULL, &channel_handlers, NULL, NULL, &channel), 0);
    int ends[CREDIT + 1];
    beam_message *message = NULL;
    for (unsigned i = 0; i <= CREDIT; i++) {
        message = beam_message_new();
        ends[i] = attach_pipe(message);
        REQUIRE_INT(beam_channel_send(channel, &message), i < CREDIT ? 0 : -EAGAIN);
    }
    FLOW_WAIT(*count == CREDIT);
    flow_settle();
    CHECK_UINT(channel_writables, 0);
    flow_at_server(free_hoard, NULL);
    FLOW_WAIT(channel_writables == 1);
    CHECK_INT(beam_channel_send(channel, &message), 0);
    FLOW_WAIT(*count == CREDIT + 1);
    flow_at_server(free_hoard, NULL);
    flow_settle();
    CHECK_UINT(channel_writables, 1);
    for (unsigned i = 0; i <= CREDIT; i++) {
        FLOW_WAIT(is_hung_up(ends[i]));
        close(ends[i]);
    }
    flow_at_server(end_open, NULL);
    beam_channel_free(channel);
}

FLOW_TEST_FDS(answer_with_fds_waits_for_fd_credit)
{
    struct file *files = flow_share(BEAM_MESSAGE_FDS_MAX * sizeof(*files));
    struct flow_answer answers[CREDIT + 2] = {0};
    flow_serve("give", on_give, files);
    flow_start(&four_fds);
    for (unsigned i = 0; i < CREDIT + 2; i++) {
        beam_message *question = beam_message_new();
        beam_message_put_uint(question, "count", 1);
        REQUIRE_INT(beam_call(flow.session, "give", &question, flow_on_reply, &answers[i], NULL),
                    0);
    }
    unsigned answered = 0;
    for (unsigned i = 0; i < CREDIT; i++)
        FLOW_WAIT(answers[i].count == 1);
    flow_settle();
    for (unsigned i = 0; i < CREDIT + 2; i++)
        answered += answers[i].count;
    CHECK_UINT(answered, CREDIT);
    for (unsigned i = 0; i < CREDIT; i++)
        flow_answer_clear(&answers[i]); /* closes: the credit returns */
    for (unsigned i = CREDIT; i < CREDIT + 2; i++) {
        FLOW_WAIT(answers[i].count == 1);
        CHECK_INT(answers[i].code, BEAM_OK);
        REQUIRE(answers[i].message != NULL);
        CHECK_UINT(beam_message_fd_count(answers[i].message), 1);
        flow_answer_clear(&answers[i]);
    }
}

FLOW_TEST_FDS(a_peer_that_takes_no_fds_is_known_at_once)
{
    struct seen *seen = flow_share(sizeof(*seen));
    struct file *files = flow_share(BEAM_MESSAGE_FDS_MAX * sizeof(*files));
    struct flow_answer answer = {0};
    beam_channel *channel = NULL;
    flow_serve("look", on_look, seen);
    flow_serve("give", on_give, files);
    flow_start(
        &(struct flow_options){.client = {.fds_refused = true}, .server = {.fds_refused = true}});
    beam_message *message = beam_message_new();
    int end = attach_pipe(message);
    CHECK_INT(beam_call(flow.session, "look", &message, flow_on_reply, &answer, NULL), -EPERM);
    REQUIRE_INT(beam_open(flow.session, "look", NULL, NULL, NULL, NULL, &channel), 0);
    CHECK_INT(beam_channel_send(channel, &message), -EPERM);
    CHECK_UINT(beam_message_fd_count(message), 1);
    beam_message_free(message);
    FLOW_WAIT(is_hung_up(end));
    close(end);
    beam_channel_free(channel);
    beam_message *question = beam_message_new();
    beam_message_put_uint(question, "count", 1);
    answer = flow_ask("give", question);
    CHECK_INT(answer.code, BEAM_FAILED_PRECONDITION);
    flow_answer_clear(&answer);
}

/* --- many ------------------------------------------------------------------------------------ */

FLOW_TEST_FDS(two_thousand_fds_pass_with_some_cancelled_on_their_way)
{
    enum { N = 2000, FLYING = 40 };
    struct flow_answer *answers = calloc(N, sizeof(*answers));
    struct test_random random = test_random(0);
    flow_serve("ignore", on_ignore, NULL);
    flow_start(NULL);
    unsigned begun = 0, ended = 0;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    REQUIRE(null >= 0);
    while (ended < N && (flow.closes == 0 || ended < begun)) {
        while (begun < N && begun - ended < FLYING && flow.closes == 0) {
            beam_message *message = beam_message_new();
            int fd = dup(null);
            REQUIRE(fd >= 0);
            beam_message_attach_fd(message, &fd);
            int r = beam_call(
                flow.session, "ignore", &message, flow_on_reply, &answers[begun],
                test_random_below(&random, 4) == 0 ? &BEAM_CALL_OPTIONS(.timeout_ns = 1) : NULL);
            beam_message_free(message);
            if (r == -EAGAIN)
                break;
            REQUIRE_INT(r, 0);
            begun++;
        }
        flow_turn();
        while (ended < begun && answers[ended].count == 1) {
            CHECK(answers[ended].code == BEAM_OK || answers[ended].code == BEAM_DEADLINE_EXCEEDED);
            flow_answer_clear(&answers[ended]);
            ended++;
        }
    }
    close(null);
    free(answers);
    CHECK_UINT(ended, N);
    CHECK_STR(flow.closed_text, "");
}
