/* The client process of `./dev demo`: what the program `beam` cannot show from a shell.
 *
 *     demo_client URL [SERVICE DIR PATH]...
 *
 * On one session to a server of `beam serve`:
 *   1. each SERVICE (of kind file:DIR) opens PATH for us: what its fd holds, read to the end, has
 *      the same XXH3 as DIR/PATH opened here, and it is the same file;
 *   2. the server calls back a service that only this process has;
 *   3. ten thousand requests wait at the server at once.
 *
 * One line each; the exit code is 1 as soon as one of them does not hold. */
#include <beam/beam.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_LEN ((size_t)1 << 20)
#define FLOOD 10000

static double seconds_since(uint64_t ns)
{
    return (double)(beam_now_ns() - ns) / 1e9;
}

static int complain(const char *what, int r, const beam_message *details)
{
    beam_str text = {"", 0};
    if (r > 0 && details)
        (void)beam_message_get_str(details, "message", &text);
    fprintf(stderr, "demo_client: %s: %s %.*s\n", what,
            r > 0 ? beam_code_text((unsigned)r) : beam_strerror(r), BEAM_STR(text));
    return -1;
}

/* 1. Files. */

static int hash_fd(int fd, uint64_t *ret_hash, uint64_t *ret_len)
{
    beam_xxh3_state state;
    uint64_t len = 0;
    ssize_t n;
    char *buffer = malloc(READ_LEN);
    if (!buffer)
        return -ENOMEM;
    beam_xxh3_init(&state);
    while ((n = read(fd, buffer, READ_LEN)) > 0) {
        beam_xxh3_update(&state, buffer, (size_t)n);
        len += (uint64_t)n;
    }
    int r = n < 0 ? -errno : 0;
    free(buffer);
    *ret_hash = beam_xxh3_final(&state);
    *ret_len = len;
    return r;
}

static int hash_path(const char *dir, const char *path, struct stat *ret_stat, uint64_t *ret_hash)
{
    char name[4096];
    uint64_t len;
    snprintf(name, sizeof(name), "%s/%s", dir, path);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int r = fstat(fd, ret_stat) < 0 ? -errno : hash_fd(fd, ret_hash, &len);
    close(fd);
    return r;
}

static int show_file(beam_session *session, const char *service, const char *dir, const char *path)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    struct stat ours, theirs;
    uint64_t hash, direct_hash, len;

    beam_message_put_str(question, "path", path);
    uint64_t begin_ns = beam_now_ns();
    int r = beam_call_wait(session, service, &question, NULL, &answer);
    double call_us = seconds_since(begin_ns) * 1e6;
    if (r != 0)
        return complain(path, r, answer);
    int fd = beam_message_take_fd(answer, 0);
    if (fd < 0)
        return complain(path, -EBADMSG, NULL);

    begin_ns = beam_now_ns();
    r = fstat(fd, &theirs) < 0 ? -errno : hash_fd(fd, &hash, &len);
    double read_s = seconds_since(begin_ns);
    close(fd);
    if (r >= 0)
        r = hash_path(dir, path, &ours, &direct_hash);
    if (r < 0)
        return complain(path, r, NULL);

    bool same_file = ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
    bool same = same_file && hash == direct_hash && len == (uint64_t)ours.st_size;
    printf("  %s/%s: fd after %.0f us, %.1f MB read through it at %.1f GB/s,\n"
           "    XXH3 %016" PRIx64 " %s a direct read, %s\n",
           dir, path, call_us, (double)len / 1e6, (double)len / 1e9 / read_s, hash,
           hash == direct_hash ? "equals" : "DIFFERS FROM",
           same_file ? "the same inode: nothing was copied" : "ANOTHER INODE");
    return same ? 0 : -1;
}

/* 2. The server calls us. */

static void on_secret(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    beam_message_put_int(answer, "pid", getpid());
    beam_message_put_uint(answer, "depth", beam_request_depth(request));
    beam_reply(request, &answer);
}

static int show_callback(beam_session *session)
{
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    int64_t pid = 0, depth = 0;
    beam_message_put_str(question, "service", "secret");
    int r = beam_call_wait(session, "reverse", &question, NULL, &answer);
    if (r != 0)
        return complain("reverse", r, answer);
    if (answer) {
        (void)beam_message_get_int(answer, "pid", &pid);
        (void)beam_message_get_int(answer, "depth", &depth);
    }
    if (pid != getpid() || depth != 1) {
        fprintf(stderr, "demo_client: called back as pid %" PRId64 ", depth %" PRId64 "\n", pid,
                depth);
        return -1;
    }
    printf("  while serving our request, the server called our service \"secret\" on the same\n"
           "    session (depth %" PRId64 ") and passed its answer on: pid %" PRId64 "\n",
           depth, pid);
    return 0;
}

/* 3. Ten thousand at once.
 *
 * Each asks the service clock for a single tick, a second away, and so waits that second at the
 * server. A tick carries the server's time: if the last comes less than a second after the first,
 * then there was a moment at which all of them were there. */

static struct {
    beam_session *session;
    unsigned sent, answered, failed;
    uint64_t begin_ns, sent_ns, end_ns;
    uint64_t first_tick_ns, last_tick_ns;
    unsigned code;
    int error;
    sem_t done;
} flood;

static void on_tick(const struct beam_status *status, const beam_message *message, void *arg)
{
    int64_t ns;
    if (status->code == BEAM_OK && message && beam_message_get_int(message, "ns", &ns) == 0) {
        if ((uint64_t)ns < flood.first_tick_ns)
            flood.first_tick_ns = (uint64_t)ns;
        if ((uint64_t)ns > flood.last_tick_ns)
            flood.last_tick_ns = (uint64_t)ns;
    } else {
        flood.failed++;
        flood.code = status->code;
    }
    if (++flood.answered == FLOOD) {
        flood.end_ns = beam_now_ns();
        sem_post(&flood.done);
    }
}

/* On the reactor, once by beam_post and then, should a limit be reached, by on_writable. */
static void send_flood(void *arg)
{
    while (flood.sent < FLOOD) {
        beam_message *question = beam_message_new();
        beam_message_put_int(question, "rate", 1);
        beam_message_put_int(question, "count", 1);
        int r = beam_call(flood.session, "clock", &question, on_tick, NULL, NULL);
        beam_message_free(question);
        if (r == -EAGAIN)
            return;
        if (r < 0) {
            flood.error = r;
            sem_post(&flood.done);
            return;
        }
        if (++flood.sent == FLOOD)
            flood.sent_ns = beam_now_ns();
    }
}

static void on_writable(beam_session *session, void *arg)
{
    if (flood.session)
        send_flood(NULL);
}

/* What was not sent by then is answered by nobody. */
static void on_close(beam_session *session, const struct beam_status *status, void *arg)
{
    if (flood.session && flood.sent < FLOOD) {
        flood.error = -ECONNRESET;
        sem_post(&flood.done);
    }
}

static void begin_flood(void *session)
{
    flood.session = session;
    flood.begin_ns = beam_now_ns();
    flood.first_tick_ns = UINT64_MAX;
    send_flood(NULL);
}

static int show_flood(beam_runtime *runtime, beam_session *session)
{
    sem_init(&flood.done, 0, 0);
    int r = beam_post(runtime, 0, begin_flood, session);
    while (r >= 0 && sem_wait(&flood.done) < 0) {
    }
    if (r < 0 || flood.error < 0)
        return complain("clock", r < 0 ? r : flood.error, NULL);
    if (flood.failed > 0) {
        fprintf(stderr, "demo_client: %u of %d requests failed: %s\n", flood.failed, FLOOD,
                beam_code_text(flood.code));
        return -1;
    }
    double apart = (double)(flood.last_tick_ns - flood.first_tick_ns) / 1e9;
    if (apart >= 1) {
        fprintf(
            stderr,
            "demo_client: the %d requests were not in flight together: %.2f s apart; the server "
            "needs --channels 16384\n",
            FLOOD, apart);
        return -1;
    }
    printf("  %d requests on one session, sent within %.1f ms, all waiting at the server at once\n"
           "    (the first and the last were answered %.0f ms apart, after a second), none lost,\n"
           "    all back after %.2f s\n",
           FLOOD, (double)(flood.sent_ns - flood.begin_ns) / 1e6, apart * 1e3,
           (double)(flood.end_ns - flood.begin_ns) / 1e9);
    return 0;
}

static int run(beam_runtime *runtime, beam_session *session, int count, char **words)
{
    printf("files, by their descriptors:\n");
    for (int i = 0; i + 2 < count; i += 3)
        if (show_file(session, words[i], words[i + 1], words[i + 2]) < 0)
            return -1;
    printf("a call back:\n");
    if (show_callback(session) < 0)
        return -1;
    printf("ten thousand at once (the server runs with --channels 16384; the default is 1024):\n");
    return show_flood(runtime, session);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        printf("usage: demo_client URL [SERVICE DIR PATH]...; examples/demo.sh starts it\n");
        return 0;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    static const struct beam_session_handlers handlers = {
        .on_writable = on_writable,
        .on_close = on_close,
    };
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                             &runtime);
    if (r >= 0)
        r = beam_serve(runtime, "secret", on_secret, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    if (r >= 0)
        r = beam_connect_wait(runtime, argv[1], &BEAM_CONNECT_OPTIONS(.handlers = &handlers),
                              &session);
    if (r < 0)
        return beam_exit_code(r, stderr);
    return run(runtime, session, argc - 2, argv + 2) < 0 ? 1 : 0;
}
