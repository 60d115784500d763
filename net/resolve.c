/* See resolve.h. getaddrinfo(3) cannot be interrupted and may take half a minute, in which the asker, its
 * core and its runtime may end: so a thread has nothing of theirs but the question itself, and looks at
 * the core under the lock alone. Who cancels takes the core out of the question under that lock.
 *
 *     WAITING  in line                      -> cancel frees it
 *     ASKED    a thread is busy with it     -> cancel leaves it to the thread
 *     ANSWERED posted to the core, or queued on it as a task  -> cancel leaves it to the mail
 *     LOST     the core took no more posts  -> cancel frees it
 *
 * localhost and what ends in .localhost are loopback without asking (RFC 6761 section 6.3), IPv4 first:
 * that is where listeners are that were named so. */
#include "net/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "net/url.h"
#include "runtime/core.h"
#include "uring/forked.h"

#define POST_RETRY_NS BM_NS_PER_MS /* ours: while a core's mailbox is full */

enum state {
    WAITING,
    ASKED,
    ANSWERED,
    LOST,
};

struct answer {
    int error;
    unsigned count;
    struct bm_socket_address addresses[BM_RESOLVE_ADDRESSES_MAX];
};

struct bm_resolve {
    struct bm_list node;
    struct bm_task task;  /* of what is known at once */
    struct bm_core *core; /* NULL: cancelled while it was asked; under the lock */
    enum state state;     /* under the lock */
    bm_resolve_fn *fn;    /* NULL: cancelled when it was answered; the core's */
    void *arg;
    struct bm_url url;
    struct answer answer;
};

static struct {
    pthread_mutex_t lock;
    struct bm_list waiting;
    unsigned count, threads;
    uint64_t epoch; /* of the process whose threads they are */
} line = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock_line(void)
{
    pthread_mutex_lock(&line.lock);
    uint64_t epoch = bm_fork_epoch_seen();
    if (line.waiting.next && line.epoch == epoch)
        return;
    bm_list_init(&line.waiting);
    line.count = line.threads = 0;
    line.epoch = epoch;
}

static void unlock_line(void)
{
    pthread_mutex_unlock(&line.lock);
}

static void resolve_free(struct bm_resolve *resolve)
{
    bm_free(NULL, resolve, sizeof(*resolve));
}

/* --- answers --------------------------------------------------------------------------------- */

static bool is_local(const char *host)
{
    static const char local[] = "localhost";
    size_t len = strlen(host), local_len = sizeof(local) - 1;
    if (len < local_len || strcmp(host + len - local_len, local) != 0)
        return false;
    return len == local_len || host[len - local_len - 1] == '.';
}

/* Without asking anybody. */
static bool answer_at_once(const struct bm_url *url, struct answer *answer)
{
    if (bm_socket_address_of(url, &answer->addresses[0]) == 0) {
        answer->count = 1;
        return true;
    }
    if (!is_local(url->host))
        return false;
    answer->addresses[0].in = (struct sockaddr_in){.sin_family = AF_INET};
    answer->addresses[0].in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    answer->addresses[0].len = sizeof(struct sockaddr_in);
    answer->addresses[1].in6 =
        (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    answer->addresses[1].len = sizeof(struct sockaddr_in6);
    answer->count = 2;
    return true;
}

static int error_of(int code)
{
    switch (code) {
    case EAI_NONAME:
    case EAI_NODATA:
    case EAI_ADDRFAMILY:
        return -ENOENT;
    case EAI_MEMORY:
        return -ENOMEM;
    case EAI_SYSTEM:
        return errno > 0 ? -errno : -EIO;
    default: /* EAI_AGAIN, EAI_FAIL */
        return -EHOSTUNREACH;
    }
}

static void ask(const char *host, struct answer *answer)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *all = NULL;
    int code = getaddrinfo(host, NULL, &hints, &all);
    if (code != 0) {
        answer->error = error_of(code);
        return;
    }
    for (struct addrinfo *a = all; a && answer->count < BM_RESOLVE_ADDRESSES_MAX; a = a->ai_next) {
        struct bm_socket_address *address = &answer->addresses[answer->count];
        if ((a->ai_family != AF_INET && a->ai_family != AF_INET6) ||
            a->ai_addrlen > sizeof(address->in6))
            continue;
        memcpy(&address->any, a->ai_addr, a->ai_addrlen);
        address->len = a->ai_addrlen;
        answer->count++;
    }
    freeaddrinfo(all);
    if (answer->count == 0)
        answer->error = -ENOENT;
}

static void set_ports(struct answer *answer, uint16_t port)
{
    for (unsigned i = 0; i < answer->count; i++)
        bm_socket_set_port(&answer->addresses[i], port);
}

/* --- the core's side ------------------------------------------------------------------------- */

static void deliver(void *arg)
{
    struct bm_resolve *resolve = arg;
    struct answer *answer = &resolve->answer;
    set_ports(answer, resolve->url.port);
    if (resolve->fn)
        resolve->fn(answer->error, answer->addresses, answer->count, resolve->arg);
    resolve_free(resolve);
}

static void deliver_task(struct bm_task *task)
{
    deliver(bm_container_of(task, struct bm_resolve, task));
}

/* --- the threads ----------------------------------------------------------------------------- */

static void nap(void)
{
    struct timespec time = {.tv_nsec = POST_RETRY_NS};
    nanosleep(&time, NULL);
}

/* Under the lock, so that the core is there as long as it has not been taken out. */
static void hand_over(struct bm_resolve *resolve)
{
    while (resolve->core) {
        resolve->state = ANSWERED;
        int r = bm_mailbox_post(resolve->core->reactor, deliver, resolve);
        if (r == 0)
            return; /* and it may be gone by now */
        resolve->state = r == -EAGAIN ? ASKED : LOST;
        if (resolve->state == LOST)
            return;
        unlock_line();
        nap();
        lock_line();
    }
    resolve_free(resolve);
}

static void *serve_line(void *arg)
{
    struct bm_list *node;
    (void)arg;
    lock_line();
    while ((node = bm_list_pop_front(&line.waiting))) {
        struct bm_resolve *resolve = bm_list_entry(node, struct bm_resolve, node);
        line.count--;
        resolve->state = ASKED;
        unlock_line();
        ask(resolve->url.host, &resolve->answer);
        lock_line();
        hand_over(resolve);
    }
    line.threads--;
    unlock_line();
    return NULL;
}

/* Signals are the application's, and none of its threads is ours. */
static int start_thread(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&thread, &attributes, serve_line, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -r;
}

/* Under the lock. */
static int join_line(struct bm_resolve *resolve)
{
    if (line.count == BM_RESOLVE_WAITING_MAX)
        return -EAGAIN;
    if (line.threads < BM_RESOLVE_THREADS_MAX) {
        int r = start_thread();
        if (r == 0)
            line.threads++;
        else if (line.threads == 0)
            return r;
    }
    bm_list_push_back(&line.waiting, &resolve->node);
    line.count++;
    return 0;
}

/* --- for askers ------------------------------------------------------------------------------ */

int bm_resolve_start(struct bm_core *core, const struct bm_url *url, bm_resolve_fn *fn, void *arg,
                     struct bm_resolve **ret_resolve)
{
    struct bm_resolve *resolve = bm_alloc_zero(NULL, sizeof(*resolve));
    int r = 0;
    if (!resolve)
        return -ENOMEM;
    resolve->core = core;
    resolve->fn = fn;
    resolve->arg = arg;
    resolve->url = *url;
    if (answer_at_once(url, &resolve->answer)) {
        resolve->state = ANSWERED;
        resolve->task.fn = deliver_task;
        bm_task_queue(core->reactor, &resolve->task);
    } else {
        lock_line();
        r = join_line(resolve);
        unlock_line();
    }
    if (r < 0) {
        resolve_free(resolve);
        return r;
    }
    *ret_resolve = resolve;
    return 0;
}

struct bm_resolve *bm_resolve_cancel(struct bm_resolve *resolve)
{
    if (!resolve)
        return NULL;
    bool ours = false;
    lock_line();
    switch (resolve->state) {
    case WAITING:
        bm_list_unlink(&resolve->node);
        line.count--;
        ours = true;
        break;
    case ASKED:
        resolve->core = NULL;
        break;
    case ANSWERED:
        ours = resolve->task.fn != NULL;
        resolve->fn = NULL;
        break;
    case LOST:
        ours = true;
        break;
    }
    unlock_line();
    if (!ours)
        return NULL;
    bm_task_cancel(&resolve->task);
    resolve_free(resolve);
    return NULL;
}

int bm_resolve_wait(const struct bm_url *url, struct bm_socket_address *ret_address)
{
    struct answer answer = {0};
    unsigned choice = 0;
    if (!answer_at_once(url, &answer)) {
        if (bm_reactor_current())
            return -EDEADLK;
        ask(url->host, &answer);
    }
    if (answer.error)
        return answer.error;
    while (choice < answer.count && answer.addresses[choice].any.sa_family != AF_INET)
        choice++;
    set_ports(&answer, url->port);
    *ret_address = answer.addresses[choice < answer.count ? choice : 0];
    return 0;
}
