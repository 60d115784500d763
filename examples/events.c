/* Events: messages that expect no answer, as many as the receiver keeps up with.
 *
 * The sender never blocks and never queues without end: a send that finds no credit says -EAGAIN
 * and takes nothing, and on_writable tells when to go on. The receiver does nothing for that. */
#include <beam/beam.h>

#include <errno.h>
#include <semaphore.h>
#include <unistd.h>

#define EVENTS 100000

static struct {
    beam_session *session;
    int64_t sent, received, pauses;
    int error;
    sem_t done;
} app;

/* The receiver. */
static void on_temperature(beam_request *request, const beam_message *message, void *arg)
{
    int64_t n;
    if (beam_message_get_int(message, "n", &n) < 0 || n != app.received)
        app.error = -EBADMSG; /* events arrive in order */
    if (++app.received == EVENTS || app.error)
        sem_post(&app.done);
}

/* The sender, on the session's reactor: first by beam_post, later when there is room again. */
static void send_events(void *arg)
{
    while (app.sent < EVENTS) {
        beam_message *event = beam_message_new();
        beam_message_put_int(event, "n", app.sent);
        beam_message_put_float(event, "celsius", 21.5);
        int r = beam_send_event(app.session, "temperature", &event);
        beam_message_free(event); /* NULL when it was taken */
        if (r == -EAGAIN) {
            app.pauses++;
            return;
        }
        if (r < 0) {
            app.error = r;
            sem_post(&app.done);
            return;
        }
        app.sent++;
    }
}

static void on_writable(beam_session *session, void *arg)
{
    send_events(NULL);
}

int main(void)
{
    static const struct beam_session_handlers handlers = {.on_writable = on_writable};
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    char url[64];
    snprintf(url, sizeof(url), "unix:@events-%d", getpid());
    sem_init(&app.done, 0, 0);

    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                             &runtime);
    if (r >= 0)
        r = beam_serve(runtime, "temperature", on_temperature, NULL);
    if (r >= 0)
        r = beam_listen(runtime, url, NULL);
    if (r >= 0)
        r = beam_start(runtime);
    if (r >= 0)
        r = beam_connect_wait(runtime, url, &BEAM_CONNECT_OPTIONS(.handlers = &handlers),
                              &app.session);
    if (r >= 0)
        r = beam_post(runtime, 0, send_events, NULL);
    while (r >= 0 && sem_wait(&app.done) < 0) {
    }
    if (r >= 0)
        r = app.error;
    if (r >= 0)
        printf("%lld events arrived in order; the sender paused %lld times\n",
               (long long)app.received, (long long)app.pauses);
    app.session = beam_session_free(app.session);
    return beam_exit_code(r, stderr);
}
