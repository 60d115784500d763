/* Names to addresses: at once, by asking, by nobody who answers; cancelled, and at the end of all. The
 * asking is the C library's, or, where a case says so, what it puts in its place. */
#include <arpa/inet.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "net/resolve.h"
#include "net/url.h"
#include "runtime/core.h"
#include "runtime/runtime.h"
#include "tests/support/served.h"
#include "tests/support/test.h"

/* --- in place of the C library's ------------------------------------------------------------- */

typedef int ask_fn(const char *host, const char *service, const struct addrinfo *hints,
                   struct addrinfo **ret);
typedef void free_fn(struct addrinfo *all);

static atomic_bool replaced;     /* by what follows */
static atomic_int answer_code;   /* EAI_… */
static atomic_int answer_count;  /* addresses, 192.0.2.1 and so on */
static atomic_bool answer_waits; /* for go_on */
static atomic_int asked, asked_now, asked_most, done;
static sem_t go_on;

static void free_made_up(struct addrinfo *all)
{
    while (all) {
        struct addrinfo *next = all->ai_next;
        free(all);
        all = next;
    }
}

static int make_up(struct addrinfo **ret)
{
    struct addrinfo *all = NULL;
    for (int i = atomic_load(&answer_count); i > 0; i--) {
        struct {
            struct addrinfo info;
            struct sockaddr_in in;
        } *one = calloc(1, sizeof(*one));
        if (!one)
            abort();
        one->in.sin_family = AF_INET;
        one->in.sin_addr.s_addr = htonl(0xc0000200u + (unsigned)i);
        one->info = (struct addrinfo){.ai_family = AF_INET,
                                      .ai_addr = (struct sockaddr *)&one->in,
                                      .ai_addrlen = sizeof(one->in),
                                      .ai_next = all};
        all = &one->info;
    }
    *ret = all;
    return 0;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    if (!atomic_load(&replaced)) {
        ask_fn *real = (ask_fn *)dlsym(RTLD_NEXT, "getaddrinfo");
        return real(host, service, hints, ret);
    }
    int now = atomic_fetch_add(&asked_now, 1) + 1;
    int most = atomic_load(&asked_most);
    while (now > most && !atomic_compare_exchange_weak(&asked_most, &most, now))
        ;
    atomic_fetch_add(&asked, 1);
    if (atomic_load(&answer_waits))
        while (sem_wait(&go_on) < 0)
            ;
    atomic_fetch_sub(&asked_now, 1);
    int code = atomic_load(&answer_code);
    if (code == EAI_SYSTEM)
        errno = EMFILE;
    int r = code ? code : make_up(ret);
    atomic_fetch_add(&done, 1);
    return r;
}

void freeaddrinfo(struct addrinfo *all)
{
    if (!atomic_load(&replaced)) {
        free_fn *real = (free_fn *)dlsym(RTLD_NEXT, "freeaddrinfo");
        real(all);
        return;
    }
    free_made_up(all);
}

static void replace(int code, int count, bool waits)
{
    atomic_store(&answer_code, code);
    atomic_store(&answer_count, count);
    atomic_store(&answer_waits, waits);
    atomic_store(&asked, 0);
    atomic_store(&asked_most, 0);
    atomic_store(&done, 0);
    sem_init(&go_on, 0, 0);
    atomic_store(&replaced, true);
}

/* --- questions ------------------------------------------------------------------------------- */

struct question {
    const char *url;
    struct bm_resolve *resolve;
    int result; /* of the start */
    int error;
    unsigned count;
    struct bm_socket_address addresses[BM_RESOLVE_ADDRESSES_MAX];
    bool inside; /* the start */
    atomic_int answers;
};

static beam_runtime *runtime;
static size_t blocks_before;

static void begin(void)
{
    served_need_io_uring();
    blocks_before = bm_alloc_totals().live_blocks;
    REQUIRE_INT(beam_runtime_new(NULL, &runtime), 0);
    REQUIRE_INT(beam_start(runtime), 0);
}

/* The threads may be a little behind. */
static void end(void)
{
    runtime = beam_runtime_free(runtime);
    WAIT_UNTIL(bm_alloc_totals().live_blocks == blocks_before);
    atomic_store(&replaced, false);
}

static void on_answer(int error, const struct bm_socket_address *addresses, unsigned count,
                      void *arg)
{
    struct question *question = arg;
    CHECK(!question->inside);
    CHECK(beam_reactor_current() == 0);
    question->error = error;
    question->count = count;
    memcpy(question->addresses, addresses, count * sizeof(addresses[0]));
    question->resolve = NULL;
    atomic_fetch_add(&question->answers, 1);
}

static void start_here(void *arg)
{
    struct question *question = arg;
    struct bm_url url;
    REQUIRE_INT(bm_url_parse(question->url, &url, NULL), 0);
    question->inside = true;
    question->result =
        bm_resolve_start(&runtime->cores[0], &url, on_answer, question, &question->resolve);
    question->inside = false;
}

static void cancel_here(void *arg)
{
    struct question *question = arg;
    question->resolve = bm_resolve_cancel(question->resolve);
}

static void start_and_cancel_here(void *arg)
{
    size_t blocks = bm_alloc_totals().live_blocks;
    start_here(arg);
    cancel_here(arg);
    CHECK_UINT(bm_alloc_totals().live_blocks, blocks); /* it is gone, and waits for no turn */
}

/* The threads of this process. */
static unsigned threads(void)
{
    unsigned count = 0;
    DIR *dir = opendir("/proc/self/task");
    REQUIRE(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

static void start(struct question *question, const char *url)
{
    *question = (struct question){.url = url, .error = 77};
    served_run(runtime, 0, start_here, question);
}

static void cancel(struct question *question)
{
    served_run(runtime, 0, cancel_here, question);
}

static void answered(struct question *question)
{
    WAIT_UNTIL(atomic_load(&question->answers) > 0);
    CHECK_INT(atomic_load(&question->answers), 1);
}

static void check_text(const struct bm_socket_address *address, const char *expected)
{
    char text[BM_SOCKET_TEXT_LEN];
    bm_socket_text(address, text);
    CHECK_STR(text, expected);
}

/* --- at once --------------------------------------------------------------------------------- */

TEST(resolve_knows_addresses_and_localhost_without_asking)
{
    static const struct {
        const char *url, *first, *second;
    } rows[] = {
        {"https://192.0.2.7", "192.0.2.7:443", NULL},
        {"http://[2001:db8::1]:81", "[2001:db8::1]:81", NULL},
        {"http+unix:/run/x", "unix", NULL},
        {"http://localhost:8080", "127.0.0.1:8080", "[::1]:8080"},
        {"http://LOCALHOST", "127.0.0.1:80", "[::1]:80"},
        {"ws://a.localhost", "127.0.0.1:80", "[::1]:80"},
    };
    replace(EAI_FAIL, 0, false);
    begin();
    for (size_t i = 0; i < BM_ARRAY_LEN(rows); i++) {
        struct question question;
        struct bm_url url;
        struct bm_socket_address address;
        test_note("%s", rows[i].url);
        start(&question, rows[i].url);
        CHECK_INT(question.result, 0);
        answered(&question);
        CHECK_INT(question.error, 0);
        REQUIRE_UINT(question.count, rows[i].second ? 2 : 1);
        check_text(&question.addresses[0], rows[i].first);
        if (rows[i].second)
            check_text(&question.addresses[1], rows[i].second);

        REQUIRE_INT(bm_url_parse(rows[i].url, &url, NULL), 0);
        CHECK_INT(bm_resolve_wait(&url, &address), 0);
        check_text(&address, rows[i].first);
    }
    CHECK_INT(atomic_load(&asked), 0);
    struct question question;
    start(&question, "http://notlocalhost");
    answered(&question);
    CHECK_INT(question.error, -EHOSTUNREACH);
    CHECK_INT(atomic_load(&asked), 1);
    end();
}

TEST(resolve_of_what_is_known_can_be_cancelled)
{
    begin();
    struct question question = {.url = "http://127.0.0.1"};
    served_run(runtime, 0, start_and_cancel_here, &question);
    CHECK_INT(question.result, 0);
    start(&question, "http://127.0.0.1"); /* behind it */
    answered(&question);
    end();
}

/* --- by asking ------------------------------------------------------------------------------- */

TEST(resolve_asks_the_system)
{
    begin();
    struct question question;
    start(&question, "http://nonexistent.invalid"); /* RFC 6761: there never is one */
    CHECK_INT(question.result, 0);
    answered(&question);
    CHECK(question.error == -ENOENT || question.error == -EHOSTUNREACH);
    CHECK_UINT(question.count, 0);
    end();
}

TEST(resolve_gives_the_first_addresses_in_their_order)
{
    replace(0, 20, false);
    begin();
    struct question question;
    start(&question, "https://many.example:81");
    answered(&question);
    CHECK_INT(question.error, 0);
    REQUIRE_UINT(question.count, BM_RESOLVE_ADDRESSES_MAX);
    for (unsigned i = 0; i < question.count; i++) {
        char text[32];
        snprintf(text, sizeof(text), "192.0.2.%u:81", i + 1);
        check_text(&question.addresses[i], text);
    }
    end();
}

TEST(resolve_tells_what_went_wrong)
{
    static const struct {
        int code, error;
    } rows[] = {
        {EAI_NONAME, -ENOENT},         {EAI_NODATA, -ENOENT}, {EAI_AGAIN, -EHOSTUNREACH},
        {EAI_FAIL, -EHOSTUNREACH},     {EAI_MEMORY, -ENOMEM}, {EAI_SYSTEM, -EMFILE},
        {0 /* no address */, -ENOENT},
    };
    for (size_t i = 0; i < BM_ARRAY_LEN(rows); i++) {
        struct question question;
        struct bm_url url;
        struct bm_socket_address address;
        replace(rows[i].code, 0, false);
        begin();
        start(&question, "https://a.example");
        answered(&question);
        CHECK_INT(question.error, rows[i].error);
        CHECK_UINT(question.count, 0);
        REQUIRE_INT(bm_url_parse("https://a.example", &url, NULL), 0);
        CHECK_INT(bm_resolve_wait(&url, &address), rows[i].error);
        end();
    }
}

TEST(resolve_cancelled_while_asked_ends_with_the_asking)
{
    replace(0, 1, true);
    begin();
    struct question question;
    start(&question, "http://slow.example");
    WAIT_UNTIL(atomic_load(&asked) == 1);
    cancel(&question);
    runtime = beam_runtime_free(runtime); /* nothing waits for the thread */
    CHECK_INT(atomic_load(&done), 0);
    sem_post(&go_on);
    end();
    CHECK_INT(atomic_load(&done), 1);
    CHECK_INT(atomic_load(&question.answers), 0);
}

TEST(resolve_asks_few_at_once_and_the_others_stand_in_line)
{
    enum { QUESTIONS = BM_RESOLVE_THREADS_MAX + 5 };
    static struct question questions[QUESTIONS];
    replace(0, 1, true);
    begin();
    for (unsigned i = 0; i < QUESTIONS; i++) {
        start(&questions[i], "http://slow.example");
        CHECK_INT(questions[i].result, 0);
    }
    WAIT_UNTIL(atomic_load(&asked) == BM_RESOLVE_THREADS_MAX);
    cancel(&questions[QUESTIONS - 1]); /* in line: nobody will ask for it */
    for (unsigned i = 0; i < QUESTIONS - 1; i++)
        sem_post(&go_on);
    for (unsigned i = 0; i < QUESTIONS - 1; i++)
        answered(&questions[i]);
    CHECK_INT(atomic_load(&asked_most), BM_RESOLVE_THREADS_MAX);
    CHECK_INT(atomic_load(&asked), QUESTIONS - 1);
    CHECK_INT(atomic_load(&questions[QUESTIONS - 1].answers), 0);
    end();
}

struct crowd {
    struct bm_resolve *resolves[BM_RESOLVE_THREADS_MAX + BM_RESOLVE_WAITING_MAX + 1];
    unsigned count;
    int result;
};

static void never(int error, const struct bm_socket_address *addresses, unsigned count, void *arg)
{
    (void)error, (void)addresses, (void)count, (void)arg;
    CHECK(false);
}

static void crowd_here(void *arg)
{
    struct crowd *crowd = arg;
    struct bm_url url;
    REQUIRE_INT(bm_url_parse("http://slow.example", &url, NULL), 0);
    while (crowd->count < BM_ARRAY_LEN(crowd->resolves)) {
        crowd->result =
            bm_resolve_start(&runtime->cores[0], &url, never, NULL, &crowd->resolves[crowd->count]);
        if (crowd->result < 0)
            break;
        crowd->count++;
    }
}

static void disperse_here(void *arg)
{
    struct crowd *crowd = arg;
    for (unsigned i = 0; i < crowd->count; i++)
        bm_resolve_cancel(crowd->resolves[i]);
}

TEST(resolve_has_a_limit_for_those_who_wait)
{
    static struct crowd crowd;
    memset(&crowd, 0, sizeof(crowd));
    replace(0, 1, true);
    begin();
    served_run(runtime, 0, crowd_here, &crowd);
    CHECK_INT(crowd.result, -EAGAIN);
    CHECK(crowd.count >= BM_RESOLVE_WAITING_MAX);
    int busy = 0;
    WAIT_UNTIL((busy = atomic_load(&asked)) == BM_RESOLVE_THREADS_MAX);
    served_run(runtime, 0, disperse_here, &crowd);
    for (int i = 0; i < busy; i++)
        sem_post(&go_on);
    end();
    CHECK_INT(atomic_load(&asked), busy); /* those in line were asked for by nobody */
}

/* --- at the end ------------------------------------------------------------------------------ */

TEST(resolve_answered_when_the_core_takes_no_more_is_the_askers_to_cancel)
{
    replace(0, 1, true);
    begin();
    unsigned threads_before = threads();
    struct question question;
    start(&question, "http://slow.example");
    WAIT_UNTIL(atomic_load(&asked) == 1);
    bm_reactor_shut(runtime->cores[0].reactor);
    sem_post(&go_on);
    WAIT_UNTIL(threads() == threads_before); /* it has found that out, and gone */
    question.resolve = bm_resolve_cancel(question.resolve);
    CHECK_INT(atomic_load(&question.answers), 0);
    end();
}

static void wait_here(void *arg)
{
    struct bm_url url;
    struct bm_socket_address address;
    REQUIRE_INT(bm_url_parse("http://a.example", &url, NULL), 0);
    *(int *)arg = bm_resolve_wait(&url, &address);
    REQUIRE_INT(bm_url_parse("http://localhost", &url, NULL), 0);
    CHECK_INT(bm_resolve_wait(&url, &address), 0);
}

TEST(resolve_wait_does_not_hold_up_a_reactor)
{
    int r = 0;
    replace(0, 1, false);
    begin();
    served_run(runtime, 0, wait_here, &r);
    CHECK_INT(r, -EDEADLK);
    CHECK_INT(atomic_load(&asked), 0);
    end();
}
