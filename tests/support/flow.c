/* The fixture of tests/flow: see flow.h for what cases may count on.
 *
 * The client's reactor 0 is run by hand on the thread of the case, with what the runtime itself uses
 * (bm_core_open, bm_reactor_run, bm_core_close), so that a case reads from top to bottom although all
 * of it happens on a reactor. It really sleeps in the kernel between events: FLOW_WAIT runs it for at
 * most a millisecond, or until a callback says flow_tick(). Servers run as any program runs them:
 * beam_start in this process, beam_run in another.
 *
 * In a run of a sweep (sweep.h) this is the place where the fault is lifted: before the ends are ended,
 * the service is asked on a session of its own. What no fault excuses is a DEMAND. A runtime that could
 * not be made or started has to say -ENOMEM and to leave nothing; then the case does not begin. */
#include "tests/support/flow.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <beam/net.h>

#include "net/proto/certificate.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "tests/support/run.h"
#include "tests/support/snapshot.h"
#include "tests/support/sweep.h"

#define SERVICES_MAX 16
#define CODECS_MAX 4
#define SHARE_LEN ((size_t)1 << 20)
#define WAIT_NS (60 * BEAM_SEC) /* what takes longer hangs, also where it is slow */
#define TURN_NS BEAM_MS
#define START_MS 20000
#define HEAR_NS (60 * BEAM_SEC) /* 15 MiB through a machine that does much else */
#define ANSWER_NS (20 * BEAM_SEC)
#define WAITS_MAX 8u /* of a case in a run of a sweep, together */
/* What a stop gives sessions that a fault has left half-way. */
#define SWEEP_STOP_NS (100 * BEAM_MS)

#define DEMAND(expr) test_demand((expr) ? true : false, #expr, TEST_AT_)

/* Present where the address sanitizer is linked. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
void __lsan_register_root_region(const void *start, size_t len) __attribute__((weak));

struct flow flow;

static struct {
    struct {
        const char *name;
        beam_handler *handler;
        void *arg;
        bool at_home;
        const struct beam_codec *codec;
        beam_allow_fn *allow;
    } services[SERVICES_MAX];
    unsigned service_count;
    bool has_home;
    const struct beam_codec *codecs[CODECS_MAX];
    unsigned codec_count;
    struct flow_options options;
    uint8_t *share;
    size_t share_len;

    bool started;
    uint64_t give_up_ns;       /* in a run of a sweep: the end of the case's patience */
    struct flow_answer *asked; /* what flow_ask waits for */
    bool turning;              /* the client's reactor is: nothing else can be done with it */
    struct bm_timer timer;
    pthread_t second;
    sem_t second_is_open;
    beam_runtime *server; /* FLOW_UNIX, and over networks */
    struct beam_net_connect connect;
    struct beam_net_listen listen;
    pid_t child; /* FLOW_PROCESS */
} own;

/* Of this program, made before its first case, so that no fault of a sweep is in them. */
static struct {
    struct bm_certificate ca, own;
} certificates;

static beam_runtime *child_runtime;
static _Thread_local bool is_client; /* this thread turns the client's reactor */

void *flow_share(size_t len)
{
    void *p = own.share + own.share_len;
    REQUIRE(!own.started);
    REQUIRE(own.share_len + len <= SHARE_LEN);
    own.share_len += (len + 63) & ~(size_t)63;
    return p;
}

void flow_serve(const char *name, beam_handler *handler, void *arg)
{
    REQUIRE(!own.started && own.service_count < SERVICES_MAX);
    own.services[own.service_count].name = name;
    own.services[own.service_count].handler = handler;
    own.services[own.service_count++].arg = arg;
}

static void on_errand(beam_request *request, const beam_message *message, void *arg);

void flow_serve_at_home(const char *name, beam_handler *handler, void *arg)
{
    if (!own.has_home) {
        own.has_home = true;
        flow_serve_at_home("flow.errand.home", on_errand, NULL);
    }
    flow_serve(name, handler, arg);
    own.services[own.service_count - 1].at_home = true;
}

void flow_serve_in(const struct beam_codec *codec, const char *name, beam_handler *handler,
                   void *arg)
{
    flow_serve(name, handler, arg);
    own.services[own.service_count - 1].codec = codec;
}

void flow_serve_in_at_home(const struct beam_codec *codec, const char *name, beam_handler *handler,
                           void *arg)
{
    flow_serve_at_home(name, handler, arg);
    own.services[own.service_count - 1].codec = codec;
}

void flow_allow(beam_allow_fn *allow)
{
    REQUIRE(!own.started && own.service_count > 0);
    own.services[own.service_count - 1].allow = allow;
}

void flow_register(const struct beam_codec *codec)
{
    REQUIRE(!own.started && own.codec_count < CODECS_MAX);
    own.codecs[own.codec_count++] = codec;
}

beam_runtime *flow_runtime_here(void)
{
    return bm_core_current()->runtime;
}

/* --- the server ------------------------------------------------------------------------------ */

static void nothing(beam_request *request, void *arg)
{
}

struct errand {
    void (*fn)(beam_request *request, void *arg);
    void *arg;
};

static void on_errand(beam_request *request, const beam_message *message, void *arg)
{
    struct errand errand;
    size_t len;
    const void *body = beam_message_body(message, &len);
    REQUIRE_UINT(len, sizeof(errand));
    memcpy(&errand, body, sizeof(errand));
    errand.fn(request, errand.arg);
    beam_reply(request, NULL);
}

static int serve_all(beam_runtime *runtime, unsigned reactors)
{
    /* Sessions over a ring between reactors come in on 1, all others on 0. */
    unsigned home = flow.kind == FLOW_RING ? 0 : reactors - 1;
    int r = beam_serve(runtime, "flow.errand", on_errand, NULL);
    for (unsigned i = 0; i < own.codec_count && r == 0; i++)
        r = beam_codec_register(runtime, own.codecs[i]);
    for (unsigned i = 0; i < own.service_count && r == 0; i++)
        r = beam_serve_with(
            runtime, own.services[i].name, own.services[i].handler, own.services[i].arg,
            &BEAM_SERVE_OPTIONS(.codec = own.services[i].codec, .allow = own.services[i].allow,
                                .on_reactor = own.services[i].at_home,
                                .reactor = own.services[i].at_home ? home : 0));
    return r;
}

/* Whether a step of the start did. A tolerant run may be told that there is no memory for it. */
static bool went_well(int r, const char *text, struct test_at at)
{
    if (!sweep_tolerant())
        test_check_int(r, 0, text, "0", at, true);
    else if (r != -ENOMEM)
        test_demand(r == 0, text, at);
    return r == 0;
}
#define WENT_WELL(expr) went_well((expr), #expr, TEST_AT_)

/* NULL: there was no memory for it. */
static beam_runtime *new_runtime(const struct beam_limits *limits, unsigned reactors)
{
    beam_runtime *runtime = NULL;
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.reactors = reactors, .transports = NULL, .spin = own.options.spin,
                             .limits = *limits, .name = "flow",
                             .stop_timeout_ns = sweep_tolerant() ? SWEEP_STOP_NS : 0);
    static const struct beam_transport *const transports[] = {&beam_unix, &beam_http, &beam_https,
                                                              &beam_wss, NULL};
    options.transports = transports;
    int r = beam_runtime_new(&options, &runtime);
    if (r == 0)
        r = serve_all(runtime, reactors);
    return WENT_WELL(r) ? runtime : beam_runtime_free(runtime);
}

static void on_sigterm(int signal)
{
    (void)signal;
    beam_runtime_stop(child_runtime);
}

static int ready_fd;

static void serve_as_child(void)
{
    struct test_snapshot before = test_snapshot_take();
    child_runtime = new_runtime(&own.options.server, own.has_home ? 2 : 1);
    bool starts = child_runtime && WENT_WELL(beam_listen(child_runtime, flow.url, NULL));
    if (starts) {
        struct sigaction action = {.sa_handler = on_sigterm};
        REQUIRE_INT(sigaction(SIGTERM, &action, NULL), 0);
        REQUIRE_INT(write(ready_fd, "", 1), 1);
        starts = WENT_WELL(beam_run(child_runtime));
        signal(SIGTERM, SIG_IGN); /* one that ended by itself is told all the same */
    }
    if (!starts)
        atomic_store(&sweep_run->server_not_started, true);
    beam_runtime_free(child_runtime);
    if (sweep_run && atomic_load(&sweep_run->end) >= SWEEP_LEFT)
        return; /* and what the case had there with it */
    struct test_snapshot after = test_snapshot_take();
    DEMAND(test_snapshot_same(&before, &after));
    test_snapshot_free(&before);
    test_snapshot_free(&after);
}

static bool start_process(void)
{
    int fds[2];
    REQUIRE_INT(pipe(fds), 0);
    fflush(NULL);
    own.child = fork();
    REQUIRE(own.child >= 0);
    if (own.child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        is_client = false;
        close(fds[0]);
        ready_fd = fds[1];
        if (sweep_run) {
            fault_set(&sweep_run->fault, 1);
            sweep_set_finish(NULL);
        }
        enum test_outcome outcome = test_run_body(serve_as_child);
        fflush(NULL);
        _exit(outcome == TEST_PASSED ? 0 : 1);
    }
    close(fds[1]);
    struct pollfd p = {.fd = fds[0], .events = POLLIN};
    char byte;
    int n = poll(&p, 1, START_MS);
    ssize_t len = n == 1 ? read(fds[0], &byte, 1) : -1;
    close(fds[0]);
    if (len != 1 && sweep_run && atomic_load(&sweep_run->server_not_started))
        return false;
    DEMAND(len == 1); /* else it ended, and has said why */
    return true;
}

static void make_certificate(enum bm_certificate_use use, const struct bm_certificate *issuer,
                             struct bm_certificate *ret)
{
    static const char *const names[] = {"ip:127.0.0.1", NULL};
    int r = bm_certificate_make(ret, &(struct bm_certificate_options){
                                         .size = sizeof(struct bm_certificate_options),
                                         .use = use,
                                         .common_name = "flow",
                                         .names = issuer ? names : NULL,
                                         .issuer = issuer,
                                     });
    if (r < 0) {
        fprintf(stderr, "no certificate: %s\n", beam_strerror(r));
        abort();
    }
}

__attribute__((constructor)) static void make_certificates(void)
{
    make_certificate(BM_CERTIFICATE_CA, NULL, &certificates.ca);
    make_certificate(BM_CERTIFICATE_SERVER, &certificates.ca, &certificates.own);
}

static struct beam_pem pem(const char *text)
{
    return (struct beam_pem){.data = text, .len = strlen(text)};
}

static void choose_network(void)
{
    own.connect.size = sizeof(own.connect);
    own.listen.size = sizeof(own.listen);
    own.listen.insecure_anonymous = true;
    own.listen.connections_address_per_s = 10000;
    if (flow.secure) {
        own.connect.ca = pem(certificates.ca.pem);
        own.listen.certificate = pem(certificates.own.pem);
        own.listen.key = pem(certificates.own.key);
    }
    snprintf(flow.url, sizeof(flow.url), "%s://127.0.0.1:0",
             flow.kind == FLOW_H2    ? "http"
             : flow.kind == FLOW_H2S ? "https"
                                     : "wss");
}

static bool start_server(void)
{
    const struct beam_listen_options listen =
        BEAM_LISTEN_OPTIONS(.net = flow.network ? &own.listen : NULL);
    char url[sizeof(flow.url)];
    own.server = new_runtime(&own.options.server, own.has_home ? 2 : 1);
    if (!own.server || !WENT_WELL(beam_listen(own.server, flow.url, &listen)))
        return false;
    if (flow.network) {
        REQUIRE_INT(beam_listen_url(own.server, flow.url, url, sizeof(url)), 0);
        memcpy(flow.url, url, sizeof(url));
    }
    return WENT_WELL(beam_start(own.server));
}

/* --- the client ------------------------------------------------------------------------------ */

static struct bm_reactor *reactor(void)
{
    return flow.runtime->cores[0].reactor;
}

static void on_turn_over(struct bm_timer *timer)
{
    (void)timer;
    bm_reactor_stop(reactor());
}

void flow_tick(void)
{
    if (is_client && flow.runtime)
        bm_reactor_stop(reactor());
}

void flow_turn(void)
{
    /* A loop of a case that a fault keeps from its end. */
    if (own.started && sweep_tolerant() && beam_now_ns() > own.give_up_ns)
        sweep_leave(true);
    bm_timer_arm(reactor(), &own.timer, beam_now_ns() + TURN_NS);
    own.turning = true;
    int r = bm_reactor_run(reactor());
    own.turning = false;
    DEMAND(r == 0);
}

uint64_t flow_wait_limit_ns(void)
{
    return beam_now_ns() + (sweep_tolerant() ? sweep_run->wait_ns : WAIT_NS);
}

unsigned flow_many(unsigned many, unsigned in_sweep)
{
    return sweep_run ? in_sweep : many;
}

static void *run_second(void *arg)
{
    struct bm_core *core = arg;
    bool opens = WENT_WELL(bm_core_open(core));
    if (opens)
        bm_runtime_open_core(core);
    sem_post(&own.second_is_open);
    if (opens)
        DEMAND(bm_reactor_run(core->reactor) == 0);
    bm_core_close(core);
    return NULL;
}

static bool start_client(void)
{
    is_client = true;
    bool has_second = flow.kind == FLOW_RING || (flow.kind == FLOW_SELF && own.has_home);
    flow.runtime = new_runtime(flow.one_runtime ? &own.options.server : &own.options.client,
                               has_second ? 2 : 1);
    if (!flow.runtime || !WENT_WELL(bm_core_open(&flow.runtime->cores[0])))
        return false;
    bm_runtime_open_core(&flow.runtime->cores[0]);
    bm_timer_init(&own.timer, on_turn_over);
    if (has_second) {
        struct bm_core *second = &flow.runtime->cores[1];
        sem_init(&own.second_is_open, 0, 0);
        REQUIRE_INT(pthread_create(&own.second, NULL, run_second, second), 0);
        while (sem_wait(&own.second_is_open) < 0)
            ;
        sem_destroy(&own.second_is_open);
        if (!second->reactor) {
            pthread_join(own.second, NULL);
            bm_core_close(&flow.runtime->cores[0]);
            return false;
        }
    }
    flow.runtime->state = BM_RUNTIME_RUNNING;
    return true;
}

static void stop_client(void)
{
    beam_runtime *runtime = flow.runtime;
    uint64_t until = beam_now_ns() + WAIT_NS;
    beam_runtime_stop(runtime);
    /* acquire; partner: the count of cores that are quiet. */
    while (atomic_load_explicit(&runtime->quiet_count, memory_order_acquire) <
               runtime->core_count &&
           beam_now_ns() < until)
        flow_turn();
    DEMAND(atomic_load_explicit(&runtime->quiet_count, memory_order_acquire) ==
           runtime->core_count);
    bm_timer_cancel(reactor(), &own.timer);
    flow.runtime = NULL;
    bm_core_close(&runtime->cores[0]);
    if (runtime->core_count > 1)
        pthread_join(own.second, NULL);
    runtime->state = BM_RUNTIME_STOPPED;
    beam_runtime_free(runtime);
}

static void on_open(beam_session *session, void *arg)
{
    flow.opens++;
    flow_tick();
}

static void on_writable(beam_session *session, void *arg)
{
    flow.writables++;
    flow_tick();
}

static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    flow.closes++;
    flow.closed = *status;
    flow_copy_text(flow.closed_text, sizeof(flow.closed_text), status->message);
    flow_tick();
}

static const struct beam_session_handlers session_handlers = {
    .on_open = on_open, .on_writable = on_writable, .on_close = on_close};

static int connect_with(const struct beam_session_handlers *handlers, void *arg,
                        beam_session **ret_session)
{
    const struct beam_connect_options options =
        BEAM_CONNECT_OPTIONS(.handlers = handlers, .arg = arg,
                             .net = flow.network ? &own.connect : NULL);
    return beam_connect(flow.runtime, flow.url, &options, ret_session);
}

beam_session *flow_connect(const struct beam_session_handlers *handlers, void *arg)
{
    beam_session *session = NULL;
    int r = connect_with(handlers, arg, &session);
    REQUIRE_INT(r, 0);
    return session;
}

static void stop_process(void)
{
    int status = 0;
    kill(own.child, SIGTERM);
    pid_t waited;
    do
        waited = waitpid(own.child, &status, 0);
    while (waited < 0 && errno == EINTR);
    DEMAND(waited == own.child);
    own.child = 0;
    /* A wait status: 256 is a failed check, below that a signal. */
    if (sweep_tolerant())
        DEMAND(status == 0);
    else
        CHECK_INT(status, 0);
}

/* A fault has kept one of the two from being: nothing may be left of either. */
static void not_started(struct test_snapshot *before)
{
    flow.runtime = beam_runtime_free(flow.runtime);
    own.server = beam_runtime_free(own.server);
    if (own.child > 0)
        stop_process();
    struct test_snapshot after = test_snapshot_take();
    DEMAND(test_snapshot_same(before, &after));
    atomic_store(&sweep_run->compared, true);
    sweep_end(SWEEP_NOT_STARTED);
}

static _Atomic int came_in_on; /* relaxed would do: the answer comes behind it */

static void note_reactor(beam_request *request, void *arg)
{
    atomic_store(&came_in_on, beam_reactor_current());
}

static bool comes_in_at_home(void)
{
    flow_at_server(note_reactor, NULL);
    return atomic_load(&came_in_on) == 1;
}

void flow_start(const struct flow_options *options)
{
    static const struct flow_options defaults;
    own.options = options ? *options : defaults;
    own.started = true;
    switch (flow.kind) {
    case FLOW_SELF:
        snprintf(flow.url, sizeof(flow.url), "ring:0");
        break;
    case FLOW_RING:
        snprintf(flow.url, sizeof(flow.url), "ring:1");
        break;
    case FLOW_UNIX:
    case FLOW_PROCESS: {
        uint64_t random[2];
        REQUIRE_INT(getrandom(random, sizeof(random), 0), sizeof(random));
        snprintf(flow.url, sizeof(flow.url), "unix:@beam-flow-%016llx%016llx",
                 (unsigned long long)random[0], (unsigned long long)random[1]);
        break;
    }
    case FLOW_H2:
    case FLOW_H2S:
    case FLOW_WSS:
        choose_network();
        break;
    case FLOW_KINDS:
        break;
    }
    struct test_snapshot before = test_snapshot_take();
    bool starts = true;
    if (flow.kind == FLOW_PROCESS)
        starts = start_process();
    else if (flow.kind == FLOW_UNIX || flow.network)
        starts = start_server();
    if (!starts || !start_client())
        not_started(&before);
    test_snapshot_free(&before);
    if (own.options.unconnected)
        return;
    flow.session = flow_connect(&session_handlers, NULL);
    if (own.options.unawaited)
        return;
    FLOW_WAIT(flow.opens == 1);
    /* Over a network the kernel deals sessions out, and a hop needs one that comes in elsewhere. */
    while (flow.network && own.has_home && comes_in_at_home()) {
        flow.session = beam_session_free(flow.session);
        flow.opens = 0;
        flow.session = flow_connect(&session_handlers, NULL);
        FLOW_WAIT(flow.opens == 1);
    }
}

/* Whether the server answers, on a session that it has not seen before. */
static bool answers(uint64_t within_ns)
{
    static struct flow_answer answer; /* it may come when nobody waits for it any more */
    struct errand errand = {nothing, NULL};
    beam_session *session = NULL;
    if (connect_with(NULL, NULL, &session) < 0)
        return false;
    beam_message *message = beam_message_new();
    beam_message_set_body(message, &errand, sizeof(errand));
    int r = beam_call(session, "flow.errand", &message, flow_on_reply, &answer, NULL);
    uint64_t until = beam_now_ns() + within_ns;
    while (r == 0 && answer.count == 0 && beam_now_ns() < until)
        flow_turn();
    bool well = answer.count == 1 && answer.code == BEAM_OK;
    if (!well)
        fprintf(stderr, "    asked afterwards: %d, %u answers, %s: %s\n", r, answer.count,
                beam_code_name(answer.code), answer.text);
    beam_message_free(message);
    beam_session_free(session);
    flow_answer_clear(&answer);
    return well;
}

/* The fault is over: the server is well, unless it was never there. */
static void lift(void)
{
    struct sweep_run *run = sweep_run;
    atomic_store(&run->fault.lifted, true);
    bool well = answers(run->tolerant ? ANSWER_NS : 2 * BEAM_SEC);
    atomic_store(&run->answered, well);
    if (atomic_load(&run->gave_up))
        sweep_end(SWEEP_GIVEN_UP);
    if (atomic_load(&run->server_not_started)) {
        sweep_say_end(SWEEP_NOT_STARTED);
        return;
    }
    test_demand(well || !run->answer_expected, "the service answers", TEST_AT_);
}

/* What flow_ask was waiting for comes by itself: an answer, or the loss of its session. */
static void hear(void)
{
    uint64_t until = beam_now_ns() + HEAR_NS;
    while (own.asked && own.asked->count == 0 && beam_now_ns() < until)
        flow_turn();
    DEMAND(!own.asked || own.asked->count > 0);
}

void flow_stop(void)
{
    if (!own.started)
        return;
    own.started = false;
    if (sweep_run) {
        lift();
        hear();
    }
    flow.session = beam_session_free(flow.session);
    stop_client();
    own.server = beam_runtime_free(own.server);
    if (own.child > 0)
        stop_process();
}

/* A REQUIRE has ended the body: see sweep.h. */
static void leave_body(void)
{
    if (own.turning)
        sweep_give_up();
    sweep_say_end(SWEEP_LEFT);
    flow_stop();
    DEMAND(!own.asked || own.asked->count == 1);
    DEMAND(flow.opens <= 1 && flow.closes <= 1);
    /* What the body holds is on the stack below, and no leak; nor is what both ends share. */
    if (__lsan_do_recoverable_leak_check) {
        __lsan_register_root_region(own.share, SHARE_LEN);
        DEMAND(__lsan_do_recoverable_leak_check() == 0);
        atomic_store(&sweep_run->compared, true);
    }
    sweep_end(SWEEP_LEFT);
}

void flow_run(enum flow_kind kind, void (*body)(void))
{
    /* What a case that failed halfway left running is not waited for. */
    if (own.child > 0) {
        kill(own.child, SIGKILL);
        waitpid(own.child, NULL, 0);
    }
    memset(&flow, 0, sizeof(flow));
    memset(&own, 0, sizeof(own));
    flow.kind = kind;
    flow.one_runtime = kind == FLOW_SELF || kind == FLOW_RING;
    flow.one_process = kind != FLOW_PROCESS;
    flow.network = kind == FLOW_H2 || kind == FLOW_H2S || kind == FLOW_WSS;
    flow.secure = kind == FLOW_H2S || kind == FLOW_WSS;
    own.share = mmap(NULL, SHARE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(own.share != MAP_FAILED);
    if (sweep_run) {
        atomic_store(&sweep_run->is_flow, true);
        sweep_set_finish(leave_body);
        own.give_up_ns = beam_now_ns() + WAITS_MAX * sweep_run->wait_ns;
    }
    body();
    flow_stop();
    sweep_set_finish(NULL);
    munmap(own.share, SHARE_LEN);
}

/* --- helpers --------------------------------------------------------------------------------- */

void flow_copy_text(char *to, size_t size, beam_str text)
{
    snprintf(to, size, "%.*s", BEAM_STR(text));
}

void flow_on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    struct flow_answer *answer = arg;
    answer->count++;
    answer->code = status->code;
    flow_copy_text(answer->text, sizeof(answer->text), status->message);
    if (answer == own.asked && sweep_tolerant())
        DEMAND(answer->count == 1);
    if (message) {
        CHECK_PTR(answer->message, NULL);
        answer->message = beam_message_keep(message);
    }
    flow_tick();
}

void flow_answer_clear(struct flow_answer *answer)
{
    answer->message = beam_message_free(answer->message);
    *answer = (struct flow_answer){0};
}

struct flow_answer flow_ask(const char *service, beam_message *message)
{
    struct flow_answer answer = {0};
    if (!message)
        message = beam_message_new();
    int r = beam_call(flow.session, service, &message, flow_on_reply, &answer, NULL);
    REQUIRE_INT(r, 0);
    CHECK_PTR(message, NULL);
    own.asked = &answer;
    FLOW_WAIT(answer.count > 0);
    own.asked = NULL;
    CHECK_UINT(answer.count, 1);
    return answer;
}

static void run_errand(const char *service, void (*fn)(beam_request *request, void *arg), void *arg)
{
    struct errand errand = {fn, arg};
    beam_message *message = beam_message_new();
    beam_message_set_body(message, &errand, sizeof(errand));
    struct flow_answer answer = flow_ask(service, message);
    REQUIRE_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
}

void flow_at_server(void (*fn)(beam_request *request, void *arg), void *arg)
{
    run_errand("flow.errand", fn, arg);
}

void flow_at_home(void (*fn)(beam_request *request, void *arg), void *arg)
{
    run_errand("flow.errand.home", fn, arg);
}

static void on_pong(uint64_t ns, void *arg)
{
    *(bool *)arg = true;
    flow_tick();
}

void flow_settle(void)
{
    /* A ping overtakes what waits for credit, and the answer to a message is a message: several. */
    for (unsigned i = 0; i < 4; i++) {
        bool ponged = false;
        int r = beam_session_ping(flow.session, on_pong, &ponged);
        REQUIRE_INT(r, 0);
        FLOW_WAIT(ponged);
        for (unsigned n = 0; n < 4; n++)
            flow_turn();
    }
}

static uint8_t byte_at(size_t i, unsigned seed)
{
    return (uint8_t)((i * 31 + (i >> 8) * 7 + (i >> 16) + seed * 101) & 0xff);
}

beam_message *flow_message_of(size_t len, unsigned seed)
{
    beam_message *message = beam_message_new();
    uint8_t *body = beam_message_reserve_body(message, len);
    REQUIRE(body != NULL || beam_message_error(message) < 0);
    for (size_t i = 0; body && i < len; i++)
        body[i] = byte_at(i, seed);
    return message;
}

bool flow_body_is_right(const beam_message *message, size_t expected, unsigned seed)
{
    size_t len = 0;
    const uint8_t *body = message ? beam_message_body(message, &len) : NULL;
    CHECK_UINT(len, expected);
    if (len != expected)
        return false;
    for (size_t i = 0; i < len; i++)
        if (body[i] != byte_at(i, seed)) {
            CHECK_UINT(i, len); /* where the first wrong byte is */
            CHECK_UINT(body[i], byte_at(i, seed));
            return false;
        }
    return true;
}
