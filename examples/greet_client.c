/* A client that simply waits: connect, call, print. See greet_server.c.
 *
 * Calls that end in _wait are for threads like this one, outside the runtime. What is declared with
 * BEAM_CLEANUP is freed when main returns, in reverse order, whatever has happened by then. */
#include <beam/beam.h>

int main(int argc, char **argv)
{
    if (argc != 3) {
        printf("usage: greet_client URL NAME, for example unix:/tmp/greet.sock ada\n");
        return 0;
    }
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *question = beam_message_new();
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;

    int r = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_unix)),
                             &runtime);
    if (r >= 0)
        r = beam_start(runtime);
    if (r >= 0)
        r = beam_connect_wait(runtime, argv[1], NULL, &session);

    beam_message_put_str(question, "name", argv[2]);
    if (r >= 0)
        r = beam_call_wait(session, "greet", &question,
                           &BEAM_CALL_OPTIONS(.timeout_ns = 500 * BEAM_MS), &answer);

    beam_str text = {"", 0};
    if (r > 0) { /* the server's word, not ours */
        if (answer)
            beam_message_get_str(answer, "message", &text);
        fprintf(stderr, "refused, %s: %.*s\n", beam_code_text((unsigned)r), BEAM_STR(text));
        return 1;
    }
    if (r == 0 && answer && beam_message_get_str(answer, "text", &text) == 0)
        printf("%.*s\n", BEAM_STR(text));
    return beam_exit_code(r, stderr);
}
