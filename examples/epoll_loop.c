/* Beam inside somebody else's loop: one fd to poll, one function to call.
 *
 * The loop here is epoll with a timer of its own. There is no second thread: this one is the
 * reactor, so everything may be used right here, and every callback runs inside
 * beam_runtime_turn. */
#include <beam/beam.h>

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

static bool done;

static void on_greet(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    beam_message_put_str(answer, "text", "hello from inside the loop");
    beam_reply(request, &answer);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_str text = status->message;
    if (status->code == BEAM_OK)
        beam_message_get_str(message, "text", &text);
    printf("%s: %.*s\n", beam_code_text(status->code), BEAM_STR(text));
    done = status->code == BEAM_OK;
}

/* Offers a service, connects to it and calls it; all of that happens in later turns. */
static int begin(beam_runtime *runtime, beam_session **ret_session)
{
    char url[64];
    snprintf(url, sizeof(url), "unix:@epoll-%d", getpid());
    int r = beam_serve(runtime, "greet", on_greet, NULL);
    if (r >= 0)
        r = beam_listen(runtime, url, NULL);
    if (r >= 0)
        r = beam_connect(runtime, url, NULL, ret_session);
    if (r < 0)
        return r;
    beam_message *question = beam_message_new();
    r = beam_call(*ret_session, "greet", &question, on_reply, NULL, NULL);
    beam_message_free(question);
    return r;
}

static void watch(int epoll, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
        abort();
}

int main(void)
{
    beam_runtime *runtime = NULL;
    beam_session *session = NULL;
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.embedded = true, .transports = BEAM_TRANSPORTS(&beam_unix));
    int r = beam_runtime_new(&options, &runtime);
    if (r >= 0)
        r = begin(runtime, &session);
    if (r < 0)
        return beam_exit_code(r, stderr);

    struct itimerspec in_ten_seconds = {.it_value.tv_sec = 10};
    int epoll = epoll_create1(EPOLL_CLOEXEC), timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    timerfd_settime(timer, 0, &in_ten_seconds, NULL);
    watch(epoll, timer);
    watch(epoll, beam_runtime_fd(runtime));

    bool late = false;
    while (!done && !late) {
        struct epoll_event event;
        if (epoll_wait(epoll, &event, 1, -1) != 1)
            continue; /* a signal */
        if (event.data.fd == timer)
            late = true;
        else
            beam_runtime_turn(runtime);
    }

    beam_session_free(session);
    beam_runtime_free(runtime);
    close(timer);
    close(epoll);
    return done ? 0 : 1;
}
