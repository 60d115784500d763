/* As an ordinary user, whom the kernel's limits and ours hold for: sessions counted by user, and fds that
 * pass beside a peer who takes his and reads no more. Root is exempt from most of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/served.h"
#include "tests/support/snapshot.h"

/* The thread sanitizer would rather end a child of a threaded process that starts threads of its own. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

static const struct beam_transport *const transports[] = {&beam_unix, NULL};
static struct raw_packet packet;

/* --- sessions counted by user ------------------------------------------------------------------ */

static struct {
    char name[80], url[100];
    unsigned max;
} crowd;

static bool raw_is_let_in(struct raw_peer *peer)
{
    raw_connect(peer, crowd.name);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    raw_put_ping(&packet, 1);
    (void)raw_try_send(peer, &packet, RAW_TIMEOUT_MS);
    raw_clear(&packet);
    return raw_find(peer, BM_FRAME_PING, 0);
}

/* So many are let in, whichever reactors they come to, and each that leaves makes room for one. */
static void fill_and_leave(void)
{
    static struct raw_peer peers[6], late;
    for (unsigned i = 0; i < crowd.max; i++) {
        test_note("session %u of %u", i, crowd.max);
        CHECK(raw_is_let_in(&peers[i]));
    }
    for (unsigned round = 0; round < 4; round++) {
        CHECK(!raw_is_let_in(&late));
        raw_close(&late);
    }
    for (unsigned round = 0; round < 4; round++) {
        struct raw_peer *leaves = &peers[round % crowd.max];
        raw_close(leaves);
        bool in = false;
        for (unsigned tries = 0; tries < 1000 && !in; tries++) {
            in = raw_is_let_in(leaves);
            if (!in) {
                raw_close(leaves);
                served_nap();
            }
        }
        CHECK(in);
        CHECK(!raw_is_let_in(&late));
        raw_close(&late);
    }
    for (unsigned i = 0; i < crowd.max; i++) {
        CHECK(raw_echo(&peers[i], 1, "in", 2));
        raw_close(&peers[i]);
    }
}

TEST(another_user_has_so_many_sessions_over_all_reactors)
{
    static const struct {
        unsigned reactors, max;
    } rows[] = {{1, 3}, {2, 1}, {2, 3}, {2, 5}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct served *served =
            served_start(&BEAM_RUNTIME_OPTIONS(.name = "served", .reactors = rows[i].reactors,
                                               .limits.sessions_uid_max = rows[i].max));
        snprintf(crowd.name, sizeof(crowd.name), "%s", served->name);
        crowd.max = rows[i].max;
        test_note("%u reactors", rows[i].reactors);
        test_run_as_nobody(fill_and_leave);
        served_check_clean(served);
        served_stop(served);
    }
}

/* Who connects and says nothing counts too: his socket costs a descriptor like any other. */
static void connect_and_say_nothing(void)
{
    static struct raw_peer peers[3], late;
    for (unsigned i = 0; i < 3; i++)
        raw_connect(&peers[i], crowd.name);
    raw_connect(&late, crowd.name);
    raw_expect_end(&late);
    raw_close(&late);
    /* He was not given up with those who never spoke: they still may. */
    for (unsigned i = 0; i < 3; i++) {
        raw_clear(&packet);
        raw_put_hello(&packet, true);
        raw_send(&peers[i], &packet);
        CHECK(raw_echo(&peers[i], 1, "in", 2));
        raw_close(&peers[i]);
    }
}

TEST(sessions_of_another_user_count_before_he_has_said_anything)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.name = "served", .limits.sessions_uid_max = 3));
    snprintf(crowd.name, sizeof(crowd.name), "%s", served->name);
    test_run_as_nobody(connect_and_say_nothing);
    served_check_clean(served);
    served_stop(served);
}

/* A socket that we made may be in the hands of another user: he counts from his first word on. */
static int handed_out[2];

static void speak_on_what_was_handed_out(void)
{
    static struct raw_peer first, second;
    CHECK(raw_is_let_in(&first));
    close(handed_out[0]); /* the copy of the server's end */
    raw_wrap(&second, handed_out[1]);
    raw_put_hello(&packet, true);
    raw_put_ping(&packet, 1);
    (void)raw_try_send(&second, &packet, RAW_TIMEOUT_MS);
    raw_clear(&packet);
    CHECK(!raw_find(&second, BM_FRAME_PING, 0));
    CHECK(raw_echo(&first, 1, "in", 2));
    raw_close(&first);
    raw_close(&second);
}

TEST(sessions_of_another_user_on_a_socket_of_ours_count_from_his_hello)
{
    char url[40];
    int *pair = handed_out, on = 1;
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.name = "served", .limits.sessions_uid_max = 1));
    snprintf(crowd.name, sizeof(crowd.name), "%s", served->name);
    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    REQUIRE_INT(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    snprintf(url, sizeof(url), "unix:fd:%d", pair[0]);
    REQUIRE_INT(beam_listen(served->runtime, url, NULL), 0);
    test_run_as_nobody(speak_on_what_was_handed_out);
    close(pair[1]);
    served_check_clean(served);
    served_stop(served);
}

/* A client of the library, another user's than the server: it learns that it is one too many, and what
 * it has goes on. Its own limit is on those who come to it, not on where it goes. */
static void connect_too_often(void)
{
    beam_runtime *runtime;
    beam_session *sessions[3] = {0}, *one_more = NULL;
    struct test_snapshot before = test_snapshot_take();
    REQUIRE_INT(beam_runtime_new(
                    &BEAM_RUNTIME_OPTIONS(.transports = transports, .limits.sessions_uid_max = 1),
                    &runtime),
                0);
    REQUIRE_INT(beam_start(runtime), 0);
    for (unsigned i = 0; i < 3; i++)
        CHECK_INT(beam_connect_wait(runtime, crowd.url, NULL, &sessions[i]), 0);
    for (unsigned i = 0; i < 3; i++)
        REQUIRE_INT(beam_connect_wait(runtime, crowd.url, NULL, &one_more), -ECONNABORTED);
    for (unsigned i = 0; i < 3 && sessions[i]; i++) {
        beam_message *message = beam_message_new(), *reply = NULL;
        size_t len;
        CHECK_UINT(beam_session_peer(sessions[i])->uid, 0);
        beam_message_set_body(message, "in", 2);
        CHECK_INT(beam_call_wait(sessions[i], "echo", &message, NULL, &reply), 0);
        const void *body = beam_message_body(reply, &len);
        CHECK_MEM(body, len, "in", 2);
        beam_message_free(reply);
        beam_session_free(sessions[i]);
    }
    beam_runtime_free(runtime);
    struct test_snapshot after = test_snapshot_take();
    CHECK(test_snapshot_same(&before, &after));
    test_snapshot_free(&before);
    test_snapshot_free(&after);
}

TEST(a_client_of_another_user_is_told_that_it_is_one_too_many)
{
    struct served *served =
        served_start(&BEAM_RUNTIME_OPTIONS(.name = "served", .limits.sessions_uid_max = 3));
    snprintf(crowd.url, sizeof(crowd.url), "%s", served->url);
    test_run_as_nobody(connect_too_often);
    served_check_clean(served);
    served_stop(served);
}

/* --- fds beside one who reads no more ---------------------------------------------------------- */

enum {
    FILES = 128,       /* RLIMIT_NOFILE: so many files, and so many fds under way of the user */
    ELSEWHERE = 100,   /* ... of them between others of his programs */
    STUCK_CREDIT = 16, /* what the stuck one takes */
    EACH = 4,          /* fds of a request */
};

static void put_echo_of_fds(struct raw_packet *to, uint64_t id, unsigned count, const int *fds)
{
    struct bm_message_head head = {.open = true, .name = {"echo", 4}};
    raw_clear(to);
    raw_put_head(to, id, BM_MSG_OPEN | BM_MSG_END, (uint8_t)count, &head, NULL);
    for (unsigned i = 0; i < count; i++)
        raw_add_fd(to, fds[i]);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* Asks for its fds back and reads nothing but HELLO: one part of them lies in its socket, the rest waits
 * for credit at the server. */
static void ask_and_read_no_more(struct served *served, struct raw_peer *stuck)
{
    const struct bm_hello hello = {.opener = true,
                                   .version = BM_PROTOCOL_VERSION,
                                   .window = 65536,
                                   .channels_max = 100,
                                   .message_len_max = 65536,
                                   .fds_max = STUCK_CREDIT};
    int fds[EACH] = {2, 2, 2, 2};
    raw_connect(stuck, served->name);
    raw_clear(&packet);
    raw_put_hello_of(&packet, &hello);
    raw_send(stuck, &packet);
    CHECK(raw_find(stuck, BM_FRAME_HELLO, 0));
    for (unsigned i = 0; i < 2 * STUCK_CREDIT / EACH; i++) {
        unsigned echoes = atomic_load(&served->echoes);
        put_echo_of_fds(&packet, 1 + 2 * i, EACH, fds);
        raw_send(stuck, &packet);
        /* Then the credit is back, although we do not read of it. */
        WAIT_UNTIL(atomic_load(&served->echoes) == echoes + 1);
        served_run(served->runtime, 0, nothing, NULL);
    }
}

static ino_t ino_of(int fd)
{
    struct stat st;
    REQUIRE_INT(fstat(fd, &st), 0);
    return st.st_ino;
}

/* A request with fds, whose answer brings the same ones. */
static void pass_fds(struct raw_peer *peer, uint64_t id)
{
    int pipes[EACH / 2][2], fds[EACH];
    for (unsigned i = 0; i < EACH; i += 2) {
        REQUIRE_INT(pipe2(pipes[i / 2], O_CLOEXEC), 0);
        fds[i] = pipes[i / 2][0];
        fds[i + 1] = pipes[i / 2][1];
    }
    put_echo_of_fds(&packet, id, EACH, fds);
    raw_put_credit(&packet, 0, EACH); /* of those that came last */
    raw_send(peer, &packet);
    REQUIRE(raw_find(peer, BM_FRAME_MSG, id));
    CHECK_INT(peer->frame.fds, EACH);
    REQUIRE_INT(peer->fd_count, EACH);
    for (unsigned i = 0; i < EACH; i++) {
        CHECK_UINT(ino_of(peer->fds[i]), ino_of(fds[i]));
        close(peer->fds[i]);
        close(fds[i]);
    }
    peer->fd_count = 0;
}

static void fds_pass_beside_a_stuck_one(void)
{
    static struct raw_peer stuck, elsewhere;
    struct test_snapshot before = test_snapshot_take();
    struct rlimit low = {FILES, FILES};
    int pair[2];
    REQUIRE_INT(setrlimit(RLIMIT_NOFILE, &low), 0);
    struct served *served = served_start(NULL);

    REQUIRE_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    raw_wrap(&elsewhere, pair[0]);
    raw_clear(&packet);
    raw_put_ping(&packet, 1);
    for (unsigned i = 0; i < ELSEWHERE; i++)
        raw_add_fd(&packet, 2);
    raw_send(&elsewhere, &packet);

    ask_and_read_no_more(served, &stuck);
    for (unsigned i = 0; i < 100; i++) {
        pass_fds(&served->good, served->good_id);
        served->good_id += 2;
    }

    raw_close(&stuck);
    raw_close(&elsewhere);
    close(pair[1]);
    served_check_clean(served);
    served_stop(served);
    struct test_snapshot after = test_snapshot_take();
    CHECK(test_snapshot_same(&before, &after));
    test_snapshot_free(&before);
    test_snapshot_free(&after);
}

TEST(fds_pass_beside_a_peer_that_has_taken_all_its_fds_and_reads_no_more)
{
    test_run_as_nobody(fds_pass_beside_a_stuck_one);
    CHECK(true);
}
