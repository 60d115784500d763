/* A fork with everything under way: the child may use and free what it has inherited, on the thread of a
 * reactor as well as on others, and the parent notices nothing: what it had asked for is answered, and
 * what it sends goes on where it was. Its stores are the parent's, and so are the locks of their files, until
 * that has died. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/served.h"

enum { FLYING = 50, WAYS = 2, MESSAGES = 20 };

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

/* One session of reactor 0, over a socket to itself or over a ring to reactor 1. */
struct way {
    beam_session *session;
    beam_channel *channel;
    unsigned asked, answered, other;
    uint32_t sent, echoed, disorder, ends;
    beam_message *kept; /* an answer */
};

static struct {
    beam_runtime *runtime;
    char url[100];
    struct way ways[WAYS];
    beam_timer *timer;
    atomic_uint ticks, held;
    /* Reactor 0's and 1's own. */
    beam_request *requests[2][WAYS * FLYING];
    unsigned request_count[2];
} all;

static void hold(beam_request *request, const beam_message *message, void *arg)
{
    int me = beam_reactor_current();
    (void)message;
    (void)arg;
    all.requests[me][all.request_count[me]++] = request;
    beam_request_keep(request);
    atomic_fetch_add(&all.held, 1);
}

static void echo_back(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    (void)arg;
    CHECK_INT(beam_channel_send_body(channel, body, len), 0);
}

static void talk_ends(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)channel;
    (void)status;
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers talking = {.on_message = echo_back, .on_end = talk_ends};

static void talk(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &talking, request);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct way *way = arg;
    (void)message;
    way->answered += status->code == BEAM_OK;
    way->other += status->code != BEAM_OK;
}

static void on_echo(beam_channel *channel, const beam_message *message, void *arg)
{
    struct way *way = arg;
    size_t len;
    uint32_t number = UINT32_MAX;
    const void *body = beam_message_body(message, &len);
    (void)channel;
    if (len == sizeof(number))
        memcpy(&number, body, len);
    way->disorder += number != way->echoed++;
    if (!way->kept)
        way->kept = beam_message_keep(message);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    (void)channel;
    ((struct way *)arg)->ends += 1 + (status->code != BEAM_OK);
}

static const struct beam_channel_handlers handlers = {.on_message = on_echo, .on_end = on_end};

static void on_tick(void *arg)
{
    (void)arg;
    atomic_fetch_add(&all.ticks, 1);
}

static void send_some(struct way *way)
{
    for (unsigned i = 0; i < MESSAGES; i++, way->sent++)
        CHECK_INT(beam_channel_send_body(way->channel, &way->sent, sizeof(way->sent)), 0);
}

static void begin(void *arg)
{
    (void)arg;
    for (unsigned w = 0; w < WAYS; w++) {
        struct way *way = &all.ways[w];
        REQUIRE_INT(beam_open(way->session, "talk", NULL, &handlers, way, NULL, &way->channel), 0);
        for (unsigned i = 0; i < FLYING; i++) {
            beam_message *message = beam_message_new();
            REQUIRE_INT(beam_call(way->session, "hold", &message, on_reply, way, NULL), 0);
            way->asked++;
        }
        send_some(way);
    }
    REQUIRE_INT(beam_timer_new(NULL, BEAM_MS, BEAM_MS, on_tick, NULL, &all.timer), 0);
}

static void go_on(void *arg)
{
    (void)arg;
    for (unsigned w = 0; w < WAYS; w++)
        send_some(&all.ways[w]);
}

static void answer_all(void *arg)
{
    int me = beam_reactor_current();
    (void)arg;
    while (all.request_count[me] > 0)
        beam_reply(all.requests[me][--all.request_count[me]], NULL);
}

static void end_channels(void *arg)
{
    (void)arg;
    for (unsigned w = 0; w < WAYS; w++)
        beam_channel_end(all.ways[w].channel);
}

static void give_back(void *arg)
{
    (void)arg;
    all.timer = beam_timer_free(all.timer);
    for (unsigned w = 0; w < WAYS; w++) {
        all.ways[w].channel = beam_channel_free(all.ways[w].channel);
        all.ways[w].kept = beam_message_free(all.ways[w].kept);
    }
}

static void is_done(void *arg)
{
    bool *done = arg;
    *done = true;
    for (unsigned w = 0; w < WAYS; w++)
        *done = *done && all.ways[w].ends > 0 &&
                all.ways[w].answered + all.ways[w].other == all.ways[w].asked;
}

static bool done(void)
{
    bool is = false;
    served_run(all.runtime, 0, is_done, &is);
    return is;
}

static void is_echoed(void *arg)
{
    bool *is = arg;
    *is = true;
    for (unsigned w = 0; w < WAYS; w++)
        *is = *is && all.ways[w].echoed == all.ways[w].sent;
}

static bool echoed(void)
{
    bool is = false;
    served_run(all.runtime, 0, is_echoed, &is);
    return is;
}

static void start(void)
{
    char name[80];
    served_need_io_uring();
    memset(&all, 0, sizeof(all));
    raw_name(name, sizeof(name));
    snprintf(all.url, sizeof(all.url), "unix:@%s", name);
    /* Asleep whenever they can be, so that a doorbell is rung for each message. */
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .transports = transports,
                                                       .spin = BEAM_SPIN_OFF),
                                 &all.runtime),
                0);
    REQUIRE_INT(beam_serve(all.runtime, "hold", hold, NULL), 0);
    REQUIRE_INT(beam_serve(all.runtime, "talk", talk, NULL), 0);
    REQUIRE_INT(beam_listen(all.runtime, all.url, NULL), 0);
    REQUIRE_INT(beam_start(all.runtime), 0);
    REQUIRE_INT(beam_connect_wait(all.runtime, all.url, NULL, &all.ways[0].session), 0);
    REQUIRE_INT(beam_connect_wait(all.runtime, "ring:1", NULL, &all.ways[1].session), 0);
    served_run(all.runtime, 0, begin, NULL);
    WAIT_UNTIL(atomic_load(&all.held) == WAYS * FLYING);
    WAIT_UNTIL(echoed());
}

/* The parent goes on as if nothing had been. */
static void finish(void)
{
    unsigned ticks = atomic_load(&all.ticks);
    served_run(all.runtime, 0, go_on, NULL);
    WAIT_UNTIL(atomic_load(&all.ticks) > ticks);
    WAIT_UNTIL(echoed());
    for (unsigned i = 0; i < 2; i++)
        served_run(all.runtime, i, answer_all, NULL);
    served_run(all.runtime, 0, end_channels, NULL);
    WAIT_UNTIL(done());
    served_run(all.runtime, 0, give_back, NULL);
    for (unsigned w = 0; w < WAYS; w++) {
        const struct way *way = &all.ways[w];
        test_note("%s", w ? "ring" : "unix");
        CHECK_UINT(way->answered, FLYING);
        CHECK_UINT(way->other, 0);
        CHECK_UINT(way->echoed, 2 * MESSAGES);
        CHECK_UINT(way->disorder, 0);
        CHECK_UINT(way->ends, 1); /* 2: not an orderly one */
        beam_session_free(way->session);
    }
    beam_runtime_free(all.runtime);
}

static void nothing(void *arg)
{
    (void)arg;
}

/* --- the child --------------------------------------------------------------------------------- */

/* On the thread of a reactor, where all of the interface may be called. */
static int use_all(bool ends_abruptly)
{
    unsigned wrong = 0;
    static const uint8_t large[3000];
    for (unsigned w = 0; w < WAYS; w++) {
        struct way *way = &all.ways[w];
        beam_message *message = beam_message_new();
        beam_channel *channel = NULL;
        wrong += beam_call(way->session, "hold", &message, on_reply, way, NULL) != -BEAM_EFORKED;
        wrong +=
            beam_open(way->session, "talk", NULL, &handlers, way, NULL, &channel) != -BEAM_EFORKED;
        wrong += beam_send_event(way->session, "talk", &message) != -BEAM_EFORKED;
        if (!message)
            return 2;
        beam_message_free(message);
        /* Of what is sent on a channel nothing leaves, whatever it says. */
        for (unsigned i = 0; i < 3000; i++) {
            (void)beam_channel_send_body(way->channel, "child", 5);
            (void)beam_channel_send_body(way->channel, large, sizeof(large));
        }
        message = beam_message_new();
        int fd = dup(0);
        beam_message_attach_fd(message, &fd);
        (void)beam_channel_send(way->channel, &message);
        beam_message_free(message);
        (void)beam_session_ping(way->session, NULL, NULL);
    }
    beam_timer *timer = NULL;
    if (beam_timer_new(NULL, 1, 1, on_tick, NULL, &timer) == 0)
        beam_timer_free(timer);
    wrong += beam_post(all.runtime, 0, nothing, NULL) != -BEAM_EFORKED;
    wrong += beam_post(all.runtime, 1, nothing, NULL) != -BEAM_EFORKED;
    wrong += beam_listen(all.runtime, "unix:@child", NULL) != -BEAM_EFORKED;
    wrong += beam_unlisten(all.runtime, all.url) != -BEAM_EFORKED;
    if (ends_abruptly)
        return wrong ? 1 : 0;
    for (unsigned i = 0; i < all.request_count[0]; i++) {
        if (i % 2)
            beam_reply(all.requests[0][i], NULL);
        else
            beam_fail(all.requests[0][i], BEAM_ABORTED, "by the child");
    }
    for (unsigned w = 0; w < WAYS; w++) {
        struct way *way = &all.ways[w];
        beam_message_free(way->kept);
        beam_channel_reset(way->channel, BEAM_ABORTED, "by the child");
        beam_channel_free(way->channel);
        beam_session_drain(way->session);
        beam_session_close(way->session);
        beam_session_free(way->session);
    }
    beam_timer_free(all.timer);
    beam_runtime_stop(all.runtime);
    beam_runtime_free(all.runtime);
    return wrong ? 1 : 0;
}

static void fork_here(void *arg)
{
    int *status = arg;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        _exit(use_all(*status == 1));
    }
    CHECK_INT(waitpid(pid, status, 0), pid);
}

TEST(a_child_of_a_handler_may_use_and_free_all_it_has_and_the_parent_goes_on)
{
    for (unsigned abrupt = 0; abrupt < 2; abrupt++) {
        int status = (int)abrupt;
        start();
        test_note("the child %s", abrupt ? "leaves all lying" : "frees all");
        served_run(all.runtime, 0, fork_here, &status);
        CHECK_INT(status, 0);
        finish();
    }
}

TEST(a_child_of_another_thread_may_free_all_it_has_and_the_parent_goes_on)
{
    start();
    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        unsigned wrong = 0;
        beam_session *session = NULL;
        alarm(20);
        for (unsigned w = 0; w < WAYS; w++) {
            struct way *way = &all.ways[w];
            beam_message *message = beam_message_new();
            wrong += beam_call_wait(way->session, "hold", &message, NULL, NULL) != -BEAM_EFORKED;
            beam_message_free(message);
            beam_message_free(way->kept);
            beam_session_free(way->session);
        }
        wrong += beam_connect_wait(all.runtime, all.url, NULL, &session) != -BEAM_EFORKED;
        beam_runtime_stop(all.runtime);
        beam_runtime_free(all.runtime);
        _exit(wrong ? 1 : 0);
    }
    int status = -1;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    finish();
}

/* --- a runtime inside its host's loop ---------------------------------------------------------- */

static bool is_readable(int fd)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    return poll(&pfd, 1, 0) == 1;
}

TEST(a_child_of_an_embedded_runtimes_host_does_not_wake_its_parent)
{
    beam_runtime *runtime;
    beam_session *session;
    beam_channel *channel;
    served_need_io_uring();
    memset(&all, 0, sizeof(all));
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &runtime), 0);
    REQUIRE_INT(beam_serve(runtime, "talk", talk, NULL), 0);
    REQUIRE_INT(beam_connect(runtime, "ring:0", NULL, &session), 0);
    struct way *way = &all.ways[0];
    REQUIRE_INT(beam_open(session, "talk", NULL, &handlers, way, NULL, &channel), 0);
    way->channel = channel;
    send_some(way);
    int fd = beam_runtime_fd(runtime);
    while (way->echoed < way->sent || is_readable(fd))
        CHECK_INT(beam_runtime_turn(runtime), 0);

    fflush(NULL);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        beam_timer *timer = NULL;
        beam_message *message = beam_message_new();
        alarm(20);
        bool refused = beam_runtime_turn(runtime) == -BEAM_EFORKED &&
                       beam_call(session, "talk", &message, NULL, NULL, NULL) == -BEAM_EFORKED;
        (void)beam_channel_send_body(channel, "child", 5);
        (void)beam_timer_new(runtime, 0, 0, on_tick, NULL, &timer);
        beam_message_free(message);
        beam_channel_free(channel);
        beam_session_free(session);
        beam_runtime_stop(runtime);
        beam_runtime_free(runtime);
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    CHECK_INT(waitpid(pid, &status, 0), pid);
    CHECK_INT(status, 0);
    CHECK(!is_readable(fd));

    send_some(way);
    while (way->echoed < way->sent)
        CHECK_INT(beam_runtime_turn(runtime), 0);
    CHECK_UINT(way->disorder, 0);
    beam_channel_end(channel);
    while (way->ends == 0)
        CHECK_INT(beam_runtime_turn(runtime), 0);
    CHECK_UINT(way->ends, 1);
    beam_message_free(way->kept);
    beam_channel_free(channel);
    beam_session_free(session);
    beam_runtime_free(runtime);
}

/* --- stores -------------------------------------------------------------------------------------- */

static struct {
    beam_runtime *runtime;
    beam_store *store;
    beam_session *session;
    beam_replica *replica;
    char path[300];
    unsigned done, failed;
} kept;

static void on_done(int error, uint64_t rev, void *arg)
{
    (void)rev;
    (void)arg;
    kept.done++;
    kept.failed += error != 0;
}

static const beam_str key = {"key", 3};

static int put(void)
{
    beam_kv_value value = {.type = BEAM_KV_INT, .i = 7};
    return beam_store_put(kept.store, key, &value, on_done, NULL);
}

static int turn_until(unsigned done)
{
    int r = 0;
    for (unsigned i = 0; r == 0 && kept.done < done && i < RAW_TIMEOUT_MS; i++) {
        r = beam_runtime_turn(kept.runtime);
        if (kept.done < done)
            served_nap();
    }
    return r < 0 ? r : kept.done < done || kept.failed > 0 ? -ETIMEDOUT : 0;
}

/* A store with a file, on this thread, and a key in it. */
static int keep(const char *directory)
{
    memset(&kept, 0, sizeof(kept));
    snprintf(kept.path, sizeof(kept.path), "%s/kept.kv", directory);
    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &kept.runtime);
    if (r == 0)
        r = beam_store_open(kept.runtime, &BEAM_STORE_OPTIONS(.path = kept.path), &kept.store);
    if (r == 0)
        r = put();
    return r < 0 ? r : turn_until(1);
}

static bool is_locked(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(kept.path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_INT(fcntl(fd, F_OFD_GETLK, &lock), 0);
    close(fd);
    return lock.l_type != F_UNLCK;
}

/* How many of the calls are not refused. */
static unsigned use_stores(void)
{
    unsigned wrong = 0;
    struct beam_store_info info = BEAM_STORE_INFO();
    struct beam_replica_info replica_info = BEAM_REPLICA_INFO();
    const beam_str none = {NULL, 0};
    beam_kv_value value;
    beam_str next;
    uint64_t rev;
    beam_store *store = NULL;
    beam_replica *replica = NULL;
    wrong += beam_store_open(kept.runtime, NULL, &store) != -BEAM_EFORKED;
    wrong += beam_store_serve(kept.store, "other") != -BEAM_EFORKED;
    wrong += beam_store_get(kept.store, key, &value, &rev) != -BEAM_EFORKED;
    wrong += beam_store_next(kept.store, none, none, &next, NULL, NULL) != -BEAM_EFORKED;
    wrong += beam_store_info(kept.store, &info) != -BEAM_EFORKED;
    wrong += put() != -BEAM_EFORKED;
    wrong += beam_store_delete(kept.store, key, on_done, NULL) != -BEAM_EFORKED;
    wrong +=
        beam_store_commit(kept.store, &BEAM_STORE_TXN(.set = NULL), on_done, NULL) != -BEAM_EFORKED;
    wrong += beam_store_compact(kept.store, on_done, NULL) != -BEAM_EFORKED;
    wrong += beam_replica_new(NULL, &replica) != -BEAM_EFORKED;
    wrong += beam_replica_attach(kept.replica, kept.session) != -BEAM_EFORKED;
    wrong += beam_replica_get(kept.replica, key, &value, &rev) != -BEAM_EFORKED;
    wrong += beam_replica_next(kept.replica, none, none, &next, NULL, NULL) != -BEAM_EFORKED;
    wrong += beam_replica_info(kept.replica, &replica_info) != -BEAM_EFORKED;
    return wrong;
}

TEST(a_child_is_refused_the_stores_of_its_parent_who_keeps_them_locked)
{
    beam_kv_value value;
    served_need_io_uring();
    REQUIRE_INT(keep(test_tmpdir()), 0);
    REQUIRE_INT(beam_store_serve(kept.store, NULL), 0);
    REQUIRE_INT(beam_connect(kept.runtime, "ring:0", NULL, &kept.session), 0);
    REQUIRE_INT(beam_replica_new(NULL, &kept.replica), 0);
    REQUIRE_INT(beam_replica_attach(kept.replica, kept.session), 0);
    while (beam_replica_get(kept.replica, key, &value, NULL) < 0)
        REQUIRE_INT(beam_runtime_turn(kept.runtime), 0);

    for (unsigned way = 0; way < 2; way++) {
        fflush(NULL);
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            alarm(20);
            unsigned wrong = use_stores();
            if (way == 0)
                beam_store_close(kept.store, on_done, NULL);
            wrong += use_stores() + (kept.done != 1);
            beam_replica_free(kept.replica);
            beam_session_free(kept.session);
            beam_runtime_free(kept.runtime);
            _exit((int)wrong);
        }
        int status = -1;
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK_INT(status, 0);
        CHECK(is_locked());
    }
    CHECK_INT(put(), 0);
    CHECK_INT(turn_until(2), 0);
    while (beam_replica_get(kept.replica, key, &value, NULL) < 0)
        REQUIRE_INT(beam_runtime_turn(kept.runtime), 0);
    beam_replica_free(kept.replica);
    beam_session_free(kept.session);
    beam_store_close(kept.store, on_done, NULL);
    CHECK_INT(turn_until(3), 0);
    CHECK(!is_locked());
    beam_runtime_free(kept.runtime);
}

enum way_to_leave {
    BY_CLOSE,
    BY_FREE,
    BY_FREE_DURING_A_COMPACTION,
    BY_FREE_ON_ANOTHER_THREAD,
    WAYS_TO_LEAVE
};

static void open_there(void *arg)
{
    *(int *)arg =
        beam_store_open(kept.runtime, &BEAM_STORE_OPTIONS(.path = kept.path), &kept.store);
}

/* The same on a reactor of its own. */
static int keep_there(const char *directory)
{
    memset(&kept, 0, sizeof(kept));
    snprintf(kept.path, sizeof(kept.path), "%s/kept.kv", directory);
    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2), &kept.runtime);
    if (r == 0)
        r = beam_start(kept.runtime);
    if (r == 0)
        served_run(kept.runtime, 1, open_there, &r);
    return r;
}

static bool says(int fd, char what)
{
    return write(fd, &what, 1) == 1;
}

static bool hears(int fd, char what)
{
    char heard = '\0';
    return read(fd, &heard, 1) == 1 && heard == what;
}

/* Until it is told to, the child of the owner calls nothing. */
static int outlive(enum way_to_leave way, int to_test, int from_test)
{
    alarm(30);
    if (!says(to_test, 'b') || !hears(from_test, 'g'))
        return 1;
    if (way == BY_CLOSE)
        beam_store_close(kept.store, NULL, NULL);
    else
        beam_runtime_free(kept.runtime);
    return says(to_test, 'l') && hears(from_test, 'e') ? 0 : 1;
}

/* Dies with its store open and a child left. */
static int own(enum way_to_leave way, const char *directory, int to_test, int from_test)
{
    char new_path[310];
    alarm(20);
    if ((way == BY_FREE_ON_ANOTHER_THREAD ? keep_there : keep)(directory) < 0)
        return 2;
    snprintf(new_path, sizeof(new_path), "%s.new", kept.path);
    if (way == BY_FREE_DURING_A_COMPACTION) {
        if (beam_store_compact(kept.store, on_done, NULL) < 0)
            return 3;
        while (access(new_path, F_OK) < 0 && kept.done == 1)
            if (beam_runtime_turn(kept.runtime) < 0)
                return 4;
        if (kept.done != 1)
            return 5;
    }
    pid_t pid = fork();
    if (pid == 0)
        _exit(outlive(way, to_test, from_test));
    if (pid < 0 || (way == BY_FREE_DURING_A_COMPACTION && turn_until(2) < 0))
        return 6;
    return 0;
}

TEST(a_child_lets_go_of_the_lock_of_a_parent_that_has_died)
{
    char directory[200];
    served_need_io_uring();
    for (enum way_to_leave way = 0; way < WAYS_TO_LEAVE; way++) {
        int from_child[2], to_child[2], status = -1;
        test_note("way %u", (unsigned)way);
        snprintf(directory, sizeof(directory), "%s", test_tmpdir());
        REQUIRE_INT(pipe(from_child), 0);
        REQUIRE_INT(pipe(to_child), 0);
        fflush(NULL);
        pid_t pid = fork();
        REQUIRE(pid >= 0);
        if (pid == 0) {
            close(from_child[0]);
            close(to_child[1]);
            _exit(own(way, directory, from_child[1], to_child[0]));
        }
        close(from_child[1]);
        close(to_child[0]);
        memset(&kept, 0, sizeof(kept));
        snprintf(kept.path, sizeof(kept.path), "%s/kept.kv", directory);
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK_INT(status, 0);
        CHECK(hears(from_child[0], 'b'));
        CHECK(is_locked()); /* which cannot be helped */
        CHECK(says(to_child[1], 'g'));
        CHECK(hears(from_child[0], 'l'));
        WAIT_UNTIL(!is_locked());
        REQUIRE_INT(keep(directory), 0);
        beam_store_close(kept.store, on_done, NULL);
        CHECK_INT(turn_until(2), 0);
        beam_runtime_free(kept.runtime);
        CHECK(says(to_child[1], 'e'));
        CHECK(!hears(from_child[0], 'e')); /* it has ended */
        close(from_child[0]);
        close(to_child[1]);
    }
}
