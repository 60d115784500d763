/* Very many fds pass there and back while calls are given up at random moments; in the end as many are
 * open as before. BEAM_FD_PASSES sets how many; the case's own comparison of /proc/self/fd is the check. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/support/served.h"

#define PASSES 20000
#define UNDER_WAY 48 /* fewer than the 64 fds a peer takes at once */

static const struct beam_transport *const transports[] = {&beam_unix, NULL};

struct pass {
    struct passing *passing;
    beam_channel *channel;
    unsigned cancel_after; /* steps; 0: never */
    bool busy;
};

struct passing {
    beam_runtime *runtime;
    const char *url;
    beam_session *session;
    struct pass passes[UNDER_WAY];
    struct test_random random;
    unsigned long begun, wanted, came_back, cancelled, failed, refused;
    unsigned busy;
    atomic_bool over;
    unsigned idle_steps;
};

static void give_back(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *reply = beam_message_new();
    (void)arg;
    for (unsigned i = 0; i < beam_message_fd_count(message); i++) {
        int fd = beam_message_take_fd(message, i);
        beam_message_attach_fd(reply, &fd);
    }
    beam_reply(request, &reply);
}

static void finish(struct pass *pass)
{
    pass->channel = beam_channel_free(pass->channel);
    pass->busy = false;
    pass->passing->busy--;
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct pass *pass = arg;
    (void)channel;
    /* Half of them are taken, the others left to the message. */
    if (beam_message_fd_count(message) > 0 && test_random_below(&pass->passing->random, 2)) {
        int fd = beam_message_take_fd(message, 0);
        if (fd >= 0)
            close(fd);
    }
    pass->passing->came_back++;
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct pass *pass = arg;
    (void)channel;
    if (status->code != BEAM_OK)
        pass->passing->failed++;
    finish(pass);
}

static const struct beam_channel_handlers handlers = {
    .on_message = on_message,
    .on_end = on_end,
};

static bool begin(struct pass *pass)
{
    struct passing *p = pass->passing;
    beam_message *message = beam_message_new();
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    beam_message_attach_fd(message, &fd);
    int r = beam_open(p->session, "give back", &message, &handlers, pass, NULL, &pass->channel);
    beam_message_free(message);
    if (r < 0) {
        CHECK_INT(r, -EAGAIN);
        p->refused++;
        return false;
    }
    beam_channel_end(pass->channel);
    pass->busy = true;
    pass->cancel_after = test_random_below(&p->random, 2) /* 0: a good one */
                             ? 0
                             : (unsigned)test_random_below(&p->random, 10);
    p->busy++;
    p->begun++;
    if (pass->cancel_after == 1) { /* before it could leave */
        p->cancelled++;
        finish(pass);
    }
    return true;
}

static void step(void *arg)
{
    struct passing *p = arg;
    unsigned long before = p->begun;
    for (unsigned i = 0; i < UNDER_WAY; i++) {
        struct pass *pass = &p->passes[i];
        if (pass->busy && pass->cancel_after > 1 && --pass->cancel_after == 1) {
            p->cancelled++;
            finish(pass);
        }
        if (!pass->busy && p->begun < p->wanted && !begin(pass))
            break;
    }
    if (p->begun < p->wanted || p->busy > 0) {
        /* No fd credit for ever would be a leak of it. */
        p->idle_steps = p->begun == before ? p->idle_steps + 1 : 0;
        if (p->idle_steps < 2000000 && beam_post(p->runtime, 0, step, p) == 0)
            return;
        CHECK_UINT(p->begun, p->wanted);
    }
    p->session = beam_session_free(p->session);
    atomic_store(&p->over, true);
}

static void on_open(beam_session *session, void *arg)
{
    (void)session;
    step(arg);
}

static void start(void *arg)
{
    static const struct beam_session_handlers session_handlers = {.on_open = on_open};
    struct passing *p = arg;
    REQUIRE_INT(beam_connect(p->runtime, p->url,
                             &BEAM_CONNECT_OPTIONS(.handlers = &session_handlers, .arg = p),
                             &p->session),
                0);
}

static void pass_fds(const char *url, unsigned reactors)
{
    static struct passing p;
    const char *wanted = getenv("BEAM_FD_PASSES");
    char name[80], unix_url[100];
    served_need_io_uring();
    p = (struct passing){.url = url, .random = test_random(0)};
    p.wanted = wanted ? strtoul(wanted, NULL, 10) : PASSES;
    for (unsigned i = 0; i < UNDER_WAY; i++)
        p.passes[i].passing = &p;
    REQUIRE_INT(
        beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports, .reactors = reactors,
                                               .limits.aborts_per_s = 100000000),
                         &p.runtime),
        0);
    REQUIRE_INT(beam_serve(p.runtime, "give back", give_back, NULL), 0);
    if (!url) {
        raw_name(name, sizeof(name));
        snprintf(unix_url, sizeof(unix_url), "unix:@%s", name);
        p.url = unix_url;
        REQUIRE_INT(beam_listen(p.runtime, p.url, NULL), 0);
    }
    REQUIRE_INT(beam_start(p.runtime), 0);
    served_run(p.runtime, 0, start, &p);
    while (!atomic_load(&p.over))
        served_nap();
    p.runtime = beam_runtime_free(p.runtime);
    CHECK_UINT(p.begun, p.wanted);
    CHECK_UINT(p.failed, 0);
    CHECK(p.cancelled > p.wanted / 4);
    CHECK(p.came_back > p.wanted / 4);
    fprintf(stderr, "    %lu begun, %lu came back, %lu cancelled, %lu times no credit\n", p.begun,
            p.came_back, p.cancelled, p.refused);
}

TEST(fds_pass_on_one_reactor_by_socket_and_none_is_lost)
{
    pass_fds(NULL, 1);
}

TEST(fds_pass_between_two_reactors_by_socket_and_none_is_lost)
{
    pass_fds(NULL, 2);
}

TEST(fds_pass_between_two_reactors_by_ring_and_none_is_lost)
{
    pass_fds("ring:1", 2);
}
