/* Clock, luck, the trace, and what a broken rule looks like. Also poll(2) as the library calls it: a
 * wait of the host, in which time passes and the kernels work. */
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "runtime/runtime.h"
#include "tests/support/sim/inner.h"
#include "tests/support/snapshot.h"
#include "tests/support/test.h"
#include "uring/reactor_inner.h"

#define BEGIN_NS (1000 * BM_NS_PER_S)

int __real_poll(struct pollfd *fds, nfds_t count, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout);

struct sim sim;
void (*sim_on_fail)(void);
const char *sim_again = "";
static struct test_snapshot before; /* the world */
static struct test_random luck;     /* of the world */
static struct test_random
    secrets; /* what bm_random() gives: another stream, so that one more or less
                                      of these changes nothing else */

static uint64_t now_ns(void *arg)
{
    (void)arg;
    return sim.now_ns;
}

static void fill_random(void *buf, size_t len, void *arg)
{
    (void)arg;
    test_random_fill(&secrets, buf, len);
}

void sim_start(uint64_t seed, bool aloud)
{
    before = test_snapshot_take();
    sim = (struct sim){.seed = seed, .now_ns = BEGIN_NS, .trace = seed, .aloud = aloud};
    luck = (struct test_random){seed * 2 + 1};
    secrets = (struct test_random){~seed};
    bm_clock_set(&(struct bm_clock){.now_ns = now_ns, .random = fill_random});
    sim_memory_start();
}

void sim_stop(void)
{
    if (!bm_list_empty(sim_kernels()))
        sim_fail("a ring is left at the end");
    sim.odds = (struct sim_odds){0};
    sim_memory_stop();
    bm_clock_set(NULL);
    struct test_snapshot after = test_snapshot_take();
    if (!test_snapshot_same(&before, &after))
        sim_fail("something was left behind");
    test_snapshot_free(&before);
    test_snapshot_free(&after);
}

uint64_t sim_below(uint64_t bound)
{
    return test_random_below(&luck, bound);
}

bool sim_chance(unsigned of_10000)
{
    return of_10000 > 0 && sim_below(10000) < of_10000;
}

void sim_event(const char *format, ...)
{
    char text[200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sim.events++;
    for (const char *c = text; *c; c++)
        sim.trace = (sim.trace ^ (unsigned char)*c) * 1099511628211u;
    if (sim.aloud)
        fprintf(stderr, "%12.6f ms  %s\n", (double)(sim.now_ns - BEGIN_NS) / 1e6, text);
}

void sim_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "seed %llu, at %.3f ms: ", (unsigned long long)sim.seed,
            (double)(sim.now_ns - BEGIN_NS) / 1e6);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n    run it again, aloud, with %s--seed %llu", sim_again,
            (unsigned long long)sim.seed);
    if (sim.fault_at > 0)
        fprintf(stderr, " and --at %llu", (unsigned long long)sim.fault_at);
    if (sim.fault_variant > 0)
        fprintf(stderr, " --variant %u", sim.fault_variant);
    fprintf(stderr, "\n");
    fflush(NULL);
    if (sim_on_fail)
        sim_on_fail();
    _exit(1);
}

void sim_advance(uint64_t to_ns)
{
    if (to_ns > sim.now_ns)
        sim.now_ns = to_ns;
}

/* A wait of the host for one descriptor. Only the kernels work meanwhile, not the other runtimes: they
 * are on this thread. */
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    uint64_t until_ns = timeout < 0 ? SIM_NEVER : sim.now_ns + (uint64_t)timeout * BM_NS_PER_MS;
    for (;;) {
        sim_notice();
        int n = __real_poll(fds, count, 0);
        if (n != 0)
            return n;
        uint64_t next = sim_next_ns();
        if (next > until_ns)
            next = until_ns;
        if (next == SIM_NEVER)
            sim_fail("a wait of the host that nothing can end");
        sim_advance(next);
        if (next == until_ns)
            return 0;
    }
}

/* --- death of a peer ------------------------------------------------------------------------- */

static bool is_session(const struct sim_request *request)
{
    return request->sqe.opcode == IORING_OP_RECVMSG;
}

bool sim_cut(beam_runtime *runtime)
{
    struct bm_kernel *kernel = runtime->cores[0].reactor->kernel;
    struct sim_request *chosen = NULL;
    unsigned n = 0;
    struct bm_list *node;
    for (node = kernel->requests.next; node != &kernel->requests; node = node->next) {
        struct sim_request *request = bm_list_entry(node, struct sim_request, node);
        if (is_session(request) && sim_below(++n) == 0)
            chosen = request;
    }
    if (!chosen)
        return false;
    sim_event("kernel %u: the connection on %d breaks", kernel->number, chosen->sqe.fd);
    chosen->reset = sim_chance(5000);
    static const int hows[] = {SHUT_RDWR, SHUT_RDWR, SHUT_RD, SHUT_WR};
    shutdown(chosen->sqe.fd, hows[sim_below(4)]);
    return true;
}
