/* A stream: bytes without boundaries or a limit, attached to a request.
 *
 * The client sends 64 MiB beside its question, faster than anyone could hold them; the server
 * hashes them as they come. Neither ever has more in memory than the channel's window (64 KiB) and
 * what the session queues: beam_stream_write takes what fits and on_writable tells when to go
 * on. */
#include <beam/beam.h>

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#define TOTAL ((size_t)64 << 20)

static unsigned char chunk[65536];

/* The server. */

struct upload {
    beam_request *request;
    size_t len;
    beam_xxh3_state hash;
};

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    struct upload *upload = arg;
    upload->len += len;
    beam_xxh3_update(&upload->hash, data, len);
}

static void on_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    struct upload *upload = arg;
    if (status->code == BEAM_OK) {
        beam_message *answer = beam_message_new();
        beam_message_put_uint(answer, "len", upload->len);
        beam_message_put_uint(answer, "xxh3", beam_xxh3_final(&upload->hash));
        beam_reply(upload->request, &answer);
    } else { /* the connection broke: an end that was not sent is never taken for one */
        beam_fail(upload->request, status->code, "the upload broke off");
    }
    beam_stream_free(stream);
    free(upload);
}

static void on_digest(beam_request *request, const beam_message *message, void *arg)
{
    static const struct beam_stream_handlers handlers = {.on_data = on_data, .on_end = on_end};
    beam_stream *stream = beam_message_take_stream(message, 0);
    struct upload *upload = stream ? aligned_alloc(64, sizeof(*upload)) : NULL;
    if (!upload) {
        beam_stream_free(stream);
        beam_fail(request, BEAM_INVALID_ARGUMENT, "a stream is missing");
        return;
    }
    upload->request = request;
    upload->len = 0;
    beam_xxh3_init(&upload->hash);
    beam_request_keep(request);
    beam_stream_set_handlers(stream, &handlers, upload);
}

/* The client. */

static struct {
    beam_session *session;
    beam_stream *stream;
    size_t sent;
    beam_xxh3_state hash;
    bool same;
    sem_t done;
} app;

static void on_writable(beam_stream *stream, void *arg)
{
    while (app.sent < TOTAL) {
        size_t want = TOTAL - app.sent < sizeof(chunk) ? TOTAL - app.sent : sizeof(chunk);
        ssize_t n = beam_stream_write(stream, chunk, want);
        if (n < 0)
            return; /* -EAGAIN: called again; anything else: the reply tells */
        beam_xxh3_update(&app.hash, chunk, (size_t)n);
        app.sent += (size_t)n;
    }
    beam_stream_end(stream);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_kv_value value;
    uint64_t hash = 0;
    if (status->code == BEAM_OK && beam_message_get(message, "xxh3", &value) == 0)
        beam_kv_as_uint(&value, &hash);
    app.same = status->code == BEAM_OK && hash == beam_xxh3_final(&app.hash);
    printf("%s: sent %zu MiB, XXH3 %016llx, the server's is %s\n", beam_code_text(status->code),
           app.sent >> 20, (unsigned long long)hash, app.same ? "the same" : "another");
    app.stream = beam_stream_free(app.stream);
    sem_post(&app.done);
}

static void begin(void *arg)
{
    static const struct beam_stream_handlers handlers = {.on_writable = on_writable};
    beam_message *question = beam_message_new();
    app.stream = beam_message_attach_stream(question);
    int r = beam_call(app.session, "digest", &question, on_reply, NULL, NULL);
    if (r < 0) {
        fprintf(stderr, "%s\n", beam_strerror(r));
        beam_message_free(question);
        sem_post(&app.done);
        return;
    }
    beam_stream_set_handlers(app.stream, &handlers, NULL);
    on_writable(app.stream, NULL);
}

int main(void)
{
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    char url[64];
    snprintf(url, sizeof(url), "unix:@stream-%d", getpid());
    sem_init(&app.done, 0, 0);
    beam_xxh3_init(&app.hash);
    for (size_t i = 0; i < sizeof(chunk); i++)
        chunk[i] = (unsigned char)(i * 2654435761u >> 13);

    int r = beam_runtime_new(
        &BEAM_RUNTIME_OPTIONS(.reactors = 2, .transports = BEAM_TRANSPORTS(&beam_unix)), &runtime);
    if (r >= 0)
        r = beam_serve(runtime, "digest", on_digest, NULL);
    if (r >= 0)
        r = beam_listen(runtime, url, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    if (r >= 0)
        r = beam_connect_wait(runtime, url, NULL, &app.session);
    if (r >= 0)
        r = beam_post(runtime, 0, begin, NULL);
    while (r >= 0 && sem_wait(&app.done) < 0) {
    }
    app.session = beam_session_free(app.session);
    if (r < 0)
        return beam_exit_code(r, stderr);
    return app.same ? 0 : 1;
}
