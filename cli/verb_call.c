/* The verb `call`: one request, one answer.
 *
 * Standard output has either the body or, when there is none, the metadata, so that `beam call … >
 * out.png` is a picture; with --json it has all of it. What a person should see besides goes to
 * standard error. */
#include "cli/arguments.h"
#include "cli/credentials.h"
#include "cli/input.h"
#include "cli/verbs.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/save.h"
#include "cli/services.h"
#include "cli/transports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char call_help[] =
    "usage: beam call URL SERVICE [KEY=VALUE...] [OPTION...]\n"
    "\n"
    "Calls SERVICE at URL and prints the answer: its body as it is, its metadata as KEY=VALUE "
    "lines\n"
    "(to stderr when there is a body).\n"
    "\n"
    "    KEY=TEXT             a text\n"
    "    KEY:=VALUE           a number, true, false or null\n"
    "    --body FILE          send FILE as the body; - is standard input\n"
    "    --codec FORMAT       what the body is: kv (if not given), json, msgpack, xml, protobuf, "
    "or\n"
    "                         the number of another; a service that knows several answers in it\n"
    "    --send-fd FILE       open FILE and send the descriptor; - is standard input; repeatable\n"
    "    --save-fd FILE       what the first descriptor of the answer holds goes to FILE; - is\n"
    "                         standard output. FILE appears when it is complete\n"
    "    --timeout TIME       give up after TIME: 500ms, 2s, 1m; the service is "
    "told\n" CREDENTIALS_HELP
    "    --serve SERVICE      offer SERVICE to the other side meanwhile, as `beam serve` does\n"
    "    --json               print {\"body\":..., \"fds\":N, \"metadata\":{...}}, and an error "
    "as\n"
    "                         {\"code\":..., \"details\":{...}, \"message\":...}\n"
    "\n"
    "The exit code tells how it went; `beam --help` has the table.\n"
    "\n"
    "examples:\n"
    "    beam call unix:/tmp/b.sock echo text=hi count:=3\n"
    "    beam call unix:/tmp/b.sock echo --body photo.jpg > copy.jpg\n"
    "    echo '{\"key\":\"a\"}' | beam call unix:/tmp/kv.sock kv.get --body - --codec json\n"
    "    beam call unix:@photos photos path=2024/a.jpg --save-fd a.jpg --timeout 2s\n"
    "    beam call unix:/tmp/b.sock reverse service=echo text=hi --serve echo\n";

struct call {
    const char *url, *service, *body, *codec, *save_fd;
    uint32_t codec_number;
    struct texts send_fd, serve;
    uint64_t timeout_ns;
    bool json;
    struct credentials credentials;
};

#define NET_WINDOW (1u << 20) /* what is on the way: 64 KiB a round trip is little over a network */
static int read_arguments(int argc, char **argv, struct call *call, char ***ret_pairs)
{
    const struct option options[] = {
        {"--body", OPTION_TEXT, &call->body, 0, 0},
        {"--codec", OPTION_TEXT, &call->codec, 0, 0},
        {"--send-fd", OPTION_TEXTS, &call->send_fd, 0, 0},
        {"--save-fd", OPTION_TEXT, &call->save_fd, 0, 0},
        {"--timeout", OPTION_DURATION, &call->timeout_ns, 1, INT64_MAX},
        {"--serve", OPTION_TEXTS, &call->serve, 0, 0},
        {"--json", OPTION_FLAG, &call->json, 0, 0},
        CREDENTIALS_OPTIONS(&call->credentials){NULL, OPTION_FLAG, NULL, 0, 0},
    };
    char **words;
    int count = arguments_read(argc, argv, options, call_help, &words);
    if (count < 0)
        return count;
    if (count < 2) {
        fprintf(stderr, "beam: call: please name a URL and a service, as in\n"
                        "    beam call unix:/tmp/b.sock echo text=hi\n");
        return -EINVAL;
    }
    if (call->codec && argument_codec("call", call->codec, &call->codec_number) < 0)
        return -EINVAL;
    call->url = words[0];
    call->service = words[1];
    *ret_pairs = words + 2;
    if (argument_url("call", call->url) < 0 ||
        credentials_take(&call->credentials, "call", call->url) < 0)
        return -EINVAL;
    return count - 2;
}

static int put_body(beam_message *message, const char *path)
{
    char *body = NULL;
    size_t len = 0;
    int fd = input_open(path);
    if (fd < 0)
        return fd;
    int r = input_read(fd, &body, &len);
    close(fd);
    if (r < 0)
        fprintf(stderr, "beam: %s: %s\n", path, strerror(-r));
    else
        beam_message_set_body(message, body, len);
    free(body);
    return r;
}

static int put_fds(beam_message *message, const struct texts *paths)
{
    for (unsigned i = 0; i < paths->count; i++) {
        int fd = input_open(paths->items[i]);
        if (fd < 0)
            return fd;
        beam_message_attach_fd(message, &fd);
    }
    return 0;
}

static int print_answer(const struct call *call, const beam_message *answer)
{
    size_t len, body_len;
    const void *metadata = beam_message_metadata(answer, &len);
    const void *body = beam_message_body(answer, &body_len);
    bool fd_to_stdout = call->save_fd && strcmp(call->save_fd, "-") == 0;
    FILE *rest = body_len > 0 || fd_to_stdout ? stderr : stdout;
    int r = 0;
    if (call->json)
        r = output_json(fd_to_stdout ? stderr : stdout, answer);
    else
        r = output_pairs(rest, metadata, len, '\n');
    if (!call->json && r > 0)
        fputc('\n', rest);
    if (!call->json && body_len > 0)
        fwrite(body, 1, body_len, stdout);
    if (r >= 0 && (fflush(stdout) != 0 || ferror(stdout)))
        r = -EIO;
    if (r < 0)
        fprintf(stderr, "beam: printing the answer: %s\n", beam_strerror(r));
    return r;
}

static int take_answer(const struct call *call, const beam_message *answer)
{
    if (print_answer(call, answer) < 0)
        return EXIT_OTHER;
    if (!call->save_fd)
        return EXIT_OK;
    int fd = beam_message_take_fd(answer, 0);
    if (fd < 0) {
        fprintf(stderr,
                "beam: %s answered without a file descriptor, so there is nothing to save\n",
                call->service);
        return EXIT_OTHER;
    }
    int r = save_fd(fd, call->save_fd);
    close(fd);
    return r < 0 ? exit_status_of_file(r) : EXIT_OK;
}

/* Time left of --timeout, which covers connecting too; 0 when none was given. */
static uint64_t time_left(const struct call *call, uint64_t since_ns)
{
    uint64_t used = beam_now_ns() - since_ns;
    if (call->timeout_ns == 0)
        return 0;
    return used < call->timeout_ns ? call->timeout_ns - used : 1;
}

static int make_call(const struct call *call, beam_runtime *runtime, beam_message **message)
{
    BEAM_CLEANUP(beam_session_freep) beam_session *session = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *answer = NULL;
    uint64_t since_ns = beam_now_ns();
    progress_wait_begin();
    int r = beam_connect_wait(
        runtime, call->url,
        &BEAM_CONNECT_OPTIONS(.timeout_ns = call->timeout_ns,
                              .net = credentials_net(&call->credentials, call->url)),
        &session);
    if (r < 0) {
        progress_wait_end();
        return fail_at("connecting", call->url, r);
    }
    r = beam_call_wait(session, call->service, message,
                       &BEAM_CALL_OPTIONS(.timeout_ns = time_left(call, since_ns)), &answer);
    progress_wait_end();
    if (r < 0)
        return fail_at(call->service, call->url, r);
    if (r > 0)
        return output_error(call->service, (unsigned)r, answer, call->json);
    if (answer)
        return take_answer(call, answer);
    BEAM_CLEANUP(beam_message_freep) beam_message *empty = beam_message_new();
    return take_answer(call, empty);
}

static void end_call(struct call *call)
{
    credentials_free(&call->credentials);
}

int call_main(int argc, char **argv)
{
    BEAM_CLEANUP(beam_runtime_freep) beam_runtime *runtime = NULL;
    BEAM_CLEANUP(beam_message_freep) beam_message *message = beam_message_new();
    BEAM_CLEANUP(end_call) struct call call = {0};
    char **pairs;
    int count = read_arguments(argc, argv, &call, &pairs);
    if (count < 0)
        return count == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (arguments_put(message, pairs, count) < 0)
        return EXIT_USAGE;
    beam_message_set_codec(message, call.codec_number);
    int r = call.body ? put_body(message, call.body) : 0;
    if (r >= 0)
        r = put_fds(message, &call.send_fd);
    if (r < 0)
        return exit_status_of_file(r);

    enum beam_log_level level = BEAM_LOG_ERROR;
    struct beam_runtime_options options =
        BEAM_RUNTIME_OPTIONS(.transports = transports_all, .log = log_to_stderr, .log_arg = &level,
                             .limits = {.window = transport_is_net(call.url) ? NET_WINDOW : 0});
    r = beam_runtime_new(&options, &runtime);
    for (unsigned i = 0; r >= 0 && i < call.serve.count; i++) {
        int status = service_add(runtime, call.serve.items[i]);
        if (status != EXIT_OK)
            return status;
    }
    if (r >= 0)
        r = beam_start(runtime);
    if (r < 0)
        return beam_exit_code(r, stderr);
    return make_call(&call, runtime, &message);
}
