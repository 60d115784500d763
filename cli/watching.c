/* Watching: a request that stays open, and a function for each message that comes on it.
 *
 * Messages are printed by the reactor's thread as they come. While standard output is full (a
 * pager), that thread waits, nothing is read, and the service learns it by its credit. */
#include "cli/watching.h"

#include "cli/output.h"
#include "cli/verbs.h"

#include <errno.h>
#include <semaphore.h>
#include <signal.h>
#include <string.h>

static sem_t done;

static void on_signal(int signal)
{
    sem_post(&done); /* on the list of signal-safety(7) */
}

/* The second signal ends the program at once, also while it is stuck in a write: SA_RESETHAND. */
static void end_on_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND | SA_RESTART};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static void finish(struct watching *watching, int status)
{
    watching->status = status;
    watching->channel = beam_channel_free(watching->channel);
    sem_post(&done);
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    struct watching *watching = arg;
    int r = watching->on_message(message, watching->arg);
    if (r >= 0 && fflush(stdout) != 0)
        r = -errno;
    if (r == -EPROTO)
        fprintf(stderr, "beam: %s: it sends what is not expected of it\n", watching->service);
    else if (r < 0)
        fprintf(stderr, "beam: %s: printing: %s\n", watching->verb, beam_strerror(r));
    if (r != 0)
        finish(watching, r < 0 ? EXIT_OTHER : EXIT_OK);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    struct watching *watching = arg;
    if (status->code != BEAM_OK) {
        fprintf(stderr, "beam: %s: %s%s", watching->service, beam_code_text(status->code),
                status->message.len > 0 ? ": " : "");
        output_text(stderr, status->message);
        fputc('\n', stderr);
    }
    finish(watching, beam_exit_code((int)status->code, NULL));
}

/* On the reactor, as all that touches the channel. Without it, losing the session would be reported
 * as the end of the channel. */
static void close_channel(void *arg)
{
    struct watching *watching = arg;
    watching->channel = beam_channel_free(watching->channel);
}

static void open_channel(void *arg)
{
    static const struct beam_channel_handlers handlers = {
        .on_message = on_message,
        .on_end = on_end,
    };
    struct watching *watching = arg;
    int r = beam_open(watching->session, watching->service, &watching->message, &handlers, watching,
                      NULL, &watching->channel);
    if (r < 0)
        finish(watching, fail_at(watching->service, watching->url, r));
}

int watching_run(struct watching *watching, beam_runtime *runtime, beam_message **message)
{
    sem_init(&done, 0, 0);
    end_on_signals();
    watching->message = *message;
    *message = NULL;
    int r = beam_post(runtime, 0, open_channel, watching);
    if (r >= 0) {
        while (sem_wait(&done) < 0 && errno == EINTR) {
        }
        r = beam_post(runtime, 0, close_channel, watching);
    }
    watching->session = beam_session_free(watching->session);
    beam_runtime_free(runtime); /* its threads have ended: watching is ours again */
    beam_message_free(watching->message);
    return r < 0 ? beam_exit_code(r, stderr) : watching->status;
}
