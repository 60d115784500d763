/* A REST API that was there before, with Beam mounted in it: one port, and whatever is not below /beam is
 * the application's own.
 *
 *     rest_and_beam http://localhost:8080 &
 *     curl -X PUT -d 'a lamp' http://localhost:8080/items/7
 *     curl http://localhost:8080/items/7
 *     curl -d item=7 http://localhost:8080/beam/call/describe
 *     curl http://localhost:8080/beam/services
 *
 * Without a URL it listens on a socket file, asks these four things itself, and ends. The service and the
 * handler of the API run on the same reactor, and share the items without a lock. */
#include <beam/beam.h>
#include <beam/net.h>

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ITEMS 100

static char items[ITEMS][64];
static beam_runtime *runtime;

/* --- what was there before: PUT and GET of /items/N ---------------------------------------------- */

static int item_of(beam_str path)
{
    char text[32];
    char *end;
    if (path.len <= 7 || path.len - 7 >= sizeof(text) || memcmp(path.ptr, "/items/", 7) != 0)
        return -1;
    memcpy(text, path.ptr + 7, path.len - 7);
    text[path.len - 7] = '\0';
    long n = strtol(text, &end, 10);
    return *end || n < 0 || n >= ITEMS ? -1 : (int)n;
}

static void on_rest(beam_http_request *request, void *arg)
{
    static const struct beam_http_field type[] = {{{"content-type", 12}, {"text/plain", 10}}};
    beam_str method = beam_http_method(request), body = beam_http_body(request);
    int n = item_of(beam_http_path(request));
    unsigned status = 404;
    const char *answer = "";
    if (n >= 0 && method.len == 3 && memcmp(method.ptr, "PUT", 3) == 0) {
        snprintf(items[n], sizeof(items[n]), "%.*s", BEAM_STR(body));
        status = 204;
    } else if (n >= 0 && items[n][0]) {
        answer = items[n];
        status = 200;
    }
    /* It cannot fail here but for want of memory; then it is still ours, and is answered shorter. */
    if (beam_http_respond(request, status, type, status == 200, answer, strlen(answer)) < 0)
        (void)beam_http_respond(request, 503, NULL, 0, NULL, 0);
}

/* --- what Beam adds: a service, for sessions and for curl --------------------------------------- */

static void on_describe(beam_request *request, const beam_message *message, void *arg)
{
    beam_str text;
    char number[16] = "";
    int64_t n = -1;
    if (beam_message_get_str(message, "item", &text) == 0) { /* from a query or a form */
        snprintf(number, sizeof(number), "%.*s", BEAM_STR(text));
        n = atoi(number);
    } else {
        (void)beam_message_get_int(message, "item", &n); /* from JSON, or over a session */
    }
    if (n < 0 || n >= ITEMS || !items[n][0]) {
        beam_fail(request, BEAM_NOT_FOUND, "there is no such item");
        return;
    }
    beam_message *answer = beam_message_new();
    beam_message_putf(answer, "text", "item %d is %s", (int)n, items[n]);
    beam_reply(request, &answer);
}

/* --- asking it all ------------------------------------------------------------------------------ */

/* Sends a request of HTTP/1.1 to a socket file and prints the body of the answer. */
static int ask(const char *path, const char *method, const char *target, const char *body)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char text[4096];
    size_t len = 0;
    ssize_t n;
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int error = -errno;
        close(fd);
        return error;
    }
    dprintf(fd,
            "%s %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            "content-type: application/x-www-form-urlencoded\r\ncontent-length: %zu\r\n\r\n%s",
            method, target, strlen(body), body);
    while (len < sizeof(text) - 1 && (n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    close(fd);
    const char *answer = strstr(text, "\r\n\r\n");
    printf("%-4s %-21s -> %.3s %s\n", method, target, len > 12 ? text + 9 : "no answer",
           answer ? answer + 4 : "");
    return answer ? 0 : -ECONNRESET;
}

static int ask_all(const char *path)
{
    int r = beam_start(runtime);
    if (r >= 0)
        r = ask(path, "PUT", "/items/7", "a lamp");
    if (r >= 0)
        r = ask(path, "GET", "/items/7", "");
    if (r >= 0)
        r = ask(path, "POST", "/beam/call/describe", "item=7");
    if (r >= 0)
        r = ask(path, "GET", "/beam/services", "");
    return r;
}

static void on_signal(int signal)
{
    beam_runtime_stop(runtime);
}

int main(int argc, char **argv)
{
    char path[80], own[100];
    snprintf(path, sizeof(path), "/tmp/rest-and-beam-%d.sock", getpid());
    snprintf(own, sizeof(own), "http+unix:%s", path);
    const char *url = argc == 2 ? argv[1] : own;

    int r = beam_runtime_new(
        &BEAM_RUNTIME_OPTIONS(.transports = BEAM_TRANSPORTS(&beam_http, &beam_http_unix)),
        &runtime);
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    if (r >= 0)
        r = beam_serve(runtime, "describe", on_describe, NULL);
    if (r >= 0) /* for trying: without TLS, and for anybody who reaches it */
        r = beam_listen(runtime, url,
                        &BEAM_LISTEN_OPTIONS(.net = &BEAM_NET_LISTEN(.insecure_anonymous = true,
                                                                     .on_request = on_rest)));
    if (r >= 0)
        r = argc == 2 ? beam_run(runtime) : ask_all(path);
    runtime = beam_runtime_free(runtime);
    return beam_exit_code(r, stderr);
}
