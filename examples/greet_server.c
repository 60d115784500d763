/* A server: one service on one socket, two threads.
 *
 *     greet_server unix:/tmp/greet.sock &
 *     greet_client unix:/tmp/greet.sock ada
 *     beam call unix:/tmp/greet.sock greet name=ada
 *
 * The handler runs on whichever reactor the caller's session was dealt to. It shares nothing with
 * the other one, so there is nothing to lock. */
#include <beam/beam.h>

#include <signal.h>

static beam_runtime *runtime;

static void on_signal(int signal)
{
    beam_runtime_stop(runtime);
}

static void on_greet(beam_request *request, const beam_message *message, void *arg)
{
    beam_str name; /* pointer and length: texts in messages carry no terminator */
    if (beam_message_get_str(message, "name", &name) < 0) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "name is missing");
        return;
    }
    beam_message *answer = beam_message_new(); /* never NULL */
    beam_message_putf(answer, "text", "hello, %.*s", BEAM_STR(name));
    beam_reply(request, &answer);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        printf("usage: greet_server URL, for example unix:/tmp/greet.sock\n");
        return 0;
    }
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.reactors = 2, .transports = BEAM_TRANSPORTS(&beam_unix));
    int r = beam_runtime_new(&options, &runtime);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    if (r >= 0)
        r = beam_serve(runtime, "greet", on_greet, NULL);
    if (r >= 0)
        r = beam_listen(runtime, argv[1], NULL);
    if (r >= 0)
        r = beam_run(runtime); /* until beam_runtime_stop */
    runtime = beam_runtime_free(runtime);
    return beam_exit_code(r, stderr);
}
