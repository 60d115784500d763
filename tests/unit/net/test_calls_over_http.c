/* Calls over real connections: HTTP/1.1 and HTTP/2, with TLS and without; a client of bytes; curl. */
#include <beam/net.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "net/server.h"
#include "tests/unit/net/connection_rig.h"

static struct bm_server server;
static struct bm_visitor visitor;
static struct {
    beam_request *kept;
    unsigned asked, cancels;
} seen;

static void on_greet(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    beam_str name = {"nobody", 6};
    (void)arg;
    seen.asked++;
    (void)beam_message_get_str(message, "name", &name);
    beam_message_putf(answer, "text", "hello, %.*s", BEAM_STR(name));
    beam_reply(request, &answer);
}

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *answer = beam_message_new();
    size_t len;
    const void *body = beam_message_body(message, &len);
    (void)arg;
    beam_message_set_body(answer, body, len);
    beam_message_set_codec(answer, beam_message_codec(message));
    beam_reply(request, &answer);
}

static void on_cancel(beam_request *request, void *arg)
{
    (void)request;
    (void)arg;
    seen.cancels++;
}

static void on_keep(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, NULL);
    seen.kept = request;
}

static void on_several(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    for (int i = 0; i < 3; i++) {
        beam_message *one = beam_message_new();
        beam_message_put_int(one, "n", i);
        CHECK_INT(beam_channel_send(beam_request_channel(request), &one), 0);
    }
    beam_reply(request, NULL);
}

static bool begins(beam_str text, const char *with, beam_str *ret_rest)
{
    size_t len = strlen(with);
    if (text.len < len || memcmp(text.ptr, with, len) != 0)
        return false;
    *ret_rest = (beam_str){text.ptr + len, text.len - len};
    return true;
}

static void serve(struct bm_exchange *exchange, const struct bm_exchange_request *request)
{
    beam_str rest;
    if (begins(request->path, "/beam/call/", &rest))
        bm_call_exchange(&server, exchange, request, &visitor, rest);
    else if (begins(request->path, "/beam/", &rest))
        bm_about_exchange(&server, exchange, request, &visitor, rest);
    else
        bm_application_exchange(&server, exchange, request, &visitor);
}

static void prepare(void)
{
    const struct {
        const char *name;
        beam_handler *handler;
    } services[] = {
        {"greet", on_greet}, {"echo", on_echo}, {"keep", on_keep}, {"several", on_several}};
    memset(&seen, 0, sizeof(seen));
    server = (struct bm_server){.runtime = rig.runtime};
    visitor = (struct bm_visitor){.known = true, .admitted = true};
    visitor.peer = (struct beam_peer){.kind = BEAM_PEER_NET, .identity = rig_str("cn:ada")};
    rig.serve = serve;
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
        REQUIRE_INT(beam_serve(rig.runtime, services[i].name, services[i].handler, NULL), 0);
}

static int ask(struct rig_talk *talk, const char *path, const struct bm_field *fields, size_t count,
               bool body)
{
    const struct bm_connection_ask request = {
        .method = rig_str("POST"),
        .authority = rig_str("localhost"),
        .path = rig_str(path),
        .fields = fields,
        .field_count = count,
        .body = body,
    };
    return bm_connection_ask(rig.client.connection, &request, &rig_talk_handlers, talk,
                             &talk->exchange);
}

TEST(calls_are_answered_over_each_http)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        rig_open(rig_ways[i]);
        prepare();
        for (int n = 0; n < 3; n++) {
            struct rig_talk talk = {0};
            REQUIRE_INT(ask(&talk, "/beam/call/greet?name=ada", NULL, 0, false), 0);
            RIG_UNTIL(talk.closes > 0);
            CHECK_INT(talk.error, 0);
            CHECK_UINT(talk.status, 200);
            CHECK_STR(talk.server, "application/json");
            CHECK_STR(talk.text, "{\"text\":\"hello, ada\"}");
        }
        struct rig_talk talk = {0};
        REQUIRE_INT(ask(&talk, "/beam/call/none", NULL, 0, false), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_UINT(talk.status, 404);
        rig_close();
    }
}

/* Neither does their client, which is in the same process. A record of TLS takes memory of its library. */
TEST(calls_of_http2_allocate_nothing_when_there_were_some)
{
    const struct bm_field type[] = {BM_FIELD("content-type", "image/png")};
    for (size_t i = 0; i < RIG_WAYS; i++) {
        uint64_t allocs = 0;
        if (!rig_ways[i].http2 || rig_ways[i].tls)
            continue;
        rig_open(rig_ways[i]);
        prepare();
        for (int n = 0; n < 100; n++) {
            struct rig_talk talk = {.send_len = 20};
            if (n == 50)
                allocs = bm_alloc_totals().allocs;
            REQUIRE_INT(ask(&talk, "/beam/call/echo", type, 1, true), 0);
            RIG_UNTIL(talk.closes > 0);
            CHECK_UINT(talk.status, 200);
            CHECK_UINT(talk.got, 20);
        }
        CHECK_UINT(bm_alloc_totals().allocs - allocs, 0);
        rig_close();
    }
}

TEST(calls_carry_large_bodies_both_ways)
{
    const struct bm_field type[] = {BM_FIELD("content-type", "image/png")};
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 3000000};
        rig_open(rig_ways[i]);
        prepare();
        REQUIRE_INT(ask(&talk, "/beam/call/echo", type, 1, true), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_INT(talk.error, 0);
        CHECK_UINT(talk.status, 200);
        CHECK_UINT(talk.got, talk.send_len);
        CHECK(!talk.wrong);
        rig_close();
    }
}

TEST(calls_over_the_limit_are_refused)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {.send_len = 17u << 20};
        rig_open(rig_ways[i]);
        prepare();
        REQUIRE_INT(ask(&talk, "/beam/call/echo", NULL, 0, true), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_UINT(talk.status, 413);
        bm_connection_close(rig.client.connection);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        rig_close_runtime();
    }
}

TEST(calls_stream_events)
{
    const struct bm_field accept[] = {BM_FIELD("accept", "text/event-stream")};
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {0};
        rig_open(rig_ways[i]);
        prepare();
        REQUIRE_INT(ask(&talk, "/beam/call/several", accept, 1, false), 0);
        RIG_UNTIL(talk.closes > 0);
        CHECK_INT(talk.error, 0);
        CHECK_STR(talk.server, "text/event-stream");
        static const char events[] = "event: message\ndata: {\"n\":0}\n\nevent: message\n";
        CHECK_MEM(talk.text, sizeof(events) - 1, events, sizeof(events) - 1);
        rig_close();
    }
}

/* A stream that is reset, or a connection that ends, cancels the call; and what is worked for holds its
 * place, but keeps no connection. */
TEST(calls_are_cancelled_by_a_reset)
{
    for (size_t i = 0; i < RIG_WAYS; i++) {
        struct rig_talk talk = {0};
        if (!rig_ways[i].http2)
            continue;
        rig_open(rig_ways[i]);
        prepare();
        REQUIRE_INT(ask(&talk, "/beam/call/keep", NULL, 0, false), 0);
        RIG_UNTIL(seen.kept);
        bm_exchange_reset(talk.exchange);
        RIG_UNTIL(seen.cancels == 1);
        bm_connection_close(rig.client.connection);
        RIG_UNTIL(rig.client.closed > 0 && rig.server.closed > 0);
        beam_reply(seen.kept, NULL);
        rig_turn(0);
        rig_close_runtime();
    }
}

/* The connection is lost; one whose peer only sends no more is not. */
TEST(calls_are_cancelled_by_a_loss)
{
    const struct linger linger = {.l_onoff = 1};
    int fd = rig_open_raw(rig_ways[2]);
    prepare();
    raw_send(fd, "POST /beam/call/keep HTTP/1.1\r\nhost: a\r\n\r\n");
    RIG_UNTIL(seen.kept);
    REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    close(fd);
    RIG_UNTIL(seen.cancels == 1);
    RIG_UNTIL(rig.server.closed > 0);
    beam_reply(seen.kept, NULL);
    rig_turn(0);
    rig_close_runtime();
}

TEST(calls_are_answered_to_who_sends_no_more)
{
    int fd = rig_open_raw(rig_ways[2]);
    prepare();
    raw_send(fd, "POST /beam/call/keep HTTP/1.1\r\nhost: a\r\n\r\n");
    REQUIRE_INT(shutdown(fd, SHUT_WR), 0);
    RIG_UNTIL(seen.kept);
    rig_turn(0);
    beam_reply(seen.kept, NULL);
    raw_expect(fd, "HTTP/1.1 204 ");
    CHECK_UINT(seen.cancels, 0);
    close(fd);
    RIG_UNTIL(rig.server.closed > 0);
    rig_close_runtime();
}

/* The runtime may end while a service still works for somebody who has left. */
TEST(calls_may_outlive_their_runtime)
{
    struct rig_talk talk = {0};
    rig_open(rig_ways[1]);
    prepare();
    REQUIRE_INT(ask(&talk, "/beam/call/keep", NULL, 0, false), 0);
    RIG_UNTIL(seen.kept);
    rig_close_runtime();
    beam_reply(seen.kept, NULL);
}

/* --- a client of bytes ----------------------------------------------------------------------- */

static int raw_open(void)
{
    int fd = rig_open_raw(rig_ways[0]);
    prepare();
    return fd;
}

static void raw_close(int fd)
{
    close(fd);
    RIG_UNTIL(rig.server.closed > 0);
    rig_close_runtime();
}

/* A body is asked for when it is wanted, and only then. */
TEST(calls_ask_for_a_body_that_they_want)
{
    int fd = raw_open();
    raw_send(fd, "POST /beam/call/greet HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
                 "content-length: 14\r\nexpect: 100-continue\r\n\r\n");
    raw_expect(fd, "HTTP/1.1 100 Continue\r\n\r\n");
    raw_send(fd, "{\"name\":\"ada\"}");
    raw_expect(fd, "hello, ada");
    raw_send(fd, "POST /beam/call/none HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
                 "content-length: 14\r\nexpect: 100-continue\r\n\r\n");
    raw_expect(fd, "no service of this name");
    CHECK(strncmp(raw_text, "HTTP/1.1 404 ", 13) == 0);
    CHECK(!strstr(raw_text, "100 Continue"));
    raw_close(fd);
}

TEST(calls_come_in_chunks)
{
    int fd = raw_open();
    raw_send(fd, "POST /beam/call/greet HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
                 "transfer-encoding: chunked\r\n\r\n5\r\n{\"nam\r\n9\r\ne\":\"ada\"}\r\n0\r\n\r\n");
    raw_expect(fd, "hello, ada");
    raw_close(fd);
}

TEST(about_is_told_without_a_body_to_head)
{
    int fd = raw_open();
    raw_send(fd, "HEAD /beam/health HTTP/1.1\r\nhost: a\r\n\r\n"
                 "GET /beam/services HTTP/1.1\r\nhost: a\r\n\r\n");
    raw_expect(fd, "[\"echo\",\"greet\",\"keep\",\"several\"]");
    CHECK(strstr(raw_text, "content-length: 15\r\n") || strstr(raw_text, "Content-Length: 15\r\n"));
    CHECK(!strstr(raw_text, "status\":"));
    raw_close(fd);
}

static void on_http(beam_http_request *request, void *arg)
{
    (void)arg;
    beam_str body = beam_http_body(request);
    CHECK_INT(beam_http_respond(request, 201, NULL, 0, body.ptr, body.len), 0);
}

TEST(application_has_all_other_paths)
{
    int fd = raw_open();
    server.on_request = on_http;
    raw_send(fd, "PUT /api/item HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nvalue");
    raw_expect(fd, "value");
    CHECK(strncmp(raw_text, "HTTP/1.1 201 ", 13) == 0);
    raw_close(fd);
}

static beam_http_request *http_kept;

static void on_http_keep(beam_http_request *request, void *arg)
{
    (void)arg;
    http_kept = request;
}

/* The runtime may end before the application has answered. */
TEST(application_may_outlive_its_runtime)
{
    static char large[100000];
    int fd = raw_open();
    http_kept = NULL;
    server.on_request = on_http_keep;
    raw_send(fd, "PUT /api/item HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n");
    for (size_t sent = 0; sent < sizeof(large);) {
        ssize_t n = send(fd, large + sent, sizeof(large) - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        rig_turn(1);
    }
    RIG_UNTIL(http_kept);
    rig_close_runtime();
    CHECK_UINT(beam_http_body(http_kept).len, sizeof(large));
    CHECK_INT(beam_http_respond(http_kept, 200, NULL, 0, "late", 4), 0);
    close(fd);
}

/* --- two reactors ---------------------------------------------------------------------------- */

static atomic_uint elsewhere; /* where its handler ran, and 1; 0: not yet */
static atomic_bool left;
static char who[64];

static void on_elsewhere(beam_request *request, const beam_message *message, void *arg)
{
    const struct beam_peer *peer = beam_request_peer(request);
    snprintf(who, sizeof(who), "%.*s", BEAM_STR(peer->identity));
    atomic_store(&elsewhere, (unsigned)beam_reactor_current() + 1);
    on_greet(request, message, arg);
}

static void elsewhere_on_cancel(beam_request *request, void *arg)
{
    (void)arg;
    beam_fail(request, BEAM_ABORTED, "left");
    atomic_store(&left, true);
}

static void on_elsewhere_keep(beam_request *request, const beam_message *message, void *arg)
{
    (void)message;
    (void)arg;
    beam_request_keep(request);
    beam_request_on_cancel(request, elsewhere_on_cancel, NULL);
    atomic_store(&elsewhere, (unsigned)beam_reactor_current() + 1);
}

#define AWAIT(condition)                                                                           \
    do {                                                                                           \
        uint64_t until_ = bm_clock_now_ns() + RIG_PATIENCE_NS;                                     \
        while (!(condition) && bm_clock_now_ns() < until_)                                         \
            (void)poll(NULL, 0, 1);                                                                \
        CHECK(condition);                                                                          \
    } while (0)

static atomic_bool accepted;

static void accept_there(void *arg)
{
    const struct bm_connection_options options = {
        .core = bm_core_current(), .server = true, .owner = &rig_owner, .arg = &rig.server};
    CHECK_INT(bm_connection_new(&options, arg, &rig.server.connection), 0);
    atomic_store(&accepted, true);
}

/* What is served on another reactor is reached, knows who asks, and hears of his leaving. */
TEST(calls_reach_another_reactor)
{
    const struct linger linger = {.l_onoff = 1};
    int fds[2];
    char text[4096] = "";
    size_t len = 0;
    ssize_t n;
    rig = (struct rig){.way = rig_ways[2]};
    REQUIRE_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2), &rig.runtime), 0);
    atomic_store(&elsewhere, 0);
    atomic_store(&left, false);
    prepare();
    REQUIRE_INT(beam_serve_on(rig.runtime, 1, "elsewhere", on_elsewhere, NULL), 0);
    REQUIRE_INT(beam_serve_on(rig.runtime, 1, "elsewhere.keep", on_elsewhere_keep, NULL), 0);
    REQUIRE_INT(beam_start(rig.runtime), 0);
    rig_sockets(fds);
    atomic_store(&accepted, false);
    REQUIRE_INT(beam_post(rig.runtime, 0, accept_there, &fds[0]), 0);
    AWAIT(atomic_load(&accepted));
    raw_send(fds[1], "POST /beam/call/elsewhere?name=ada HTTP/1.1\r\nhost: a\r\n\r\n");
    while (!strstr(text, "hello, ada") && (n = recv(fds[1], text + len, 4095 - len, 0)) > 0) {
        len += (size_t)n;
        text[len] = '\0';
    }
    CHECK(strstr(text, "hello, ada") != NULL);
    CHECK_UINT(atomic_load(&elsewhere), 2);
    CHECK_STR(who, "cn:ada");
    atomic_store(&elsewhere, 0);
    raw_send(fds[1], "POST /beam/call/elsewhere.keep HTTP/1.1\r\nhost: a\r\n\r\n");
    AWAIT(atomic_load(&elsewhere) == 2);
    REQUIRE_INT(setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
    close(fds[1]);
    AWAIT(atomic_load(&left));
    rig.runtime = beam_runtime_free(rig.runtime);
}

/* --- curl ------------------------------------------------------------------------------------ */

/* Runs curl against a socket file until it ends, and takes what it says. */
static int curl(const char *const *arguments)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char *words[24] = {(char *)"curl", (char *)"-sS", (char *)"-m", (char *)"20",
                       (char *)"--unix-socket"};
    int out[2], status = 0, n = 6;
    pid_t pid, ended = 0;
    raw_text_len = 0;
    raw_text[0] = '\0';
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", test_tmpdir());
    unlink(address.sun_path);
    words[5] = address.sun_path;
    while (*arguments)
        words[n++] = (char *)*arguments++;
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    REQUIRE_INT(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    REQUIRE_INT(listen(listener, 4), 0);
    REQUIRE_INT(pipe2(out, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0) {
        dup2(out[1], 1);
        dup2(out[1], 2);
        execvp("curl", words);
        _exit(127);
    }
    close(out[1]);
    (void)fcntl(out[0], F_SETFL, O_NONBLOCK);
    uint64_t until = bm_clock_now_ns() + RIG_PATIENCE_NS;
    while (ended == 0 && bm_clock_now_ns() < until) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            rig.server.closed = 0;
            rig_accept(fd);
        }
        rig_turn(1);
        ended = waitpid(pid, &status, WNOHANG);
    }
    ssize_t len;
    while ((len = read(out[0], raw_text + raw_text_len, sizeof(raw_text) - 1 - raw_text_len)) > 0)
        raw_text_len += (size_t)len;
    raw_text[raw_text_len] = '\0';
    close(out[0]);
    close(listener);
    RIG_UNTIL(!rig.server.connection);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define CURL(...) curl((const char *const[]){__VA_ARGS__, NULL})
#define URL "http://localhost/beam/"

TEST(calls_are_made_with_curl)
{
    rig_open_runtime(rig_ways[0]);
    prepare();
    if (CURL("--version") == 127) {
        rig_close_runtime();
        SKIP("there is no curl");
    }
    static const char *const versions[] = {"--http1.1", "--http2-prior-knowledge"};
    for (size_t i = 0; i < 2; i++) {
        const char *v = versions[i];
        CHECK_INT(CURL(v, "-d", "{\"name\":\"ada\"}", "-H", "content-type: application/json",
                       URL "call/greet"),
                  0);
        CHECK_STR(raw_text, "{\"text\":\"hello, ada\"}");
        CHECK_INT(CURL(v, "-d", "name=ada", URL "call/greet"), 0);
        CHECK_STR(raw_text, "{\"text\":\"hello, ada\"}");
        CHECK_INT(CURL(v, "-X", "POST", URL "call/greet"), 0);
        CHECK_STR(raw_text, "{\"text\":\"hello, nobody\"}");
        CHECK_INT(
            CURL(v, "-o", "/dev/null", "-w", "%{http_code} %{content_type}", URL "call/greet"), 0);
        CHECK_STR(raw_text, "405 application/json");
        CHECK_INT(CURL(v, "-H", "accept: text/event-stream", "-d", "", URL "call/several"), 0);
        CHECK_STR(raw_text,
                  "event: message\ndata: {\"n\":0}\n\nevent: message\ndata: {\"n\":1}\n\n"
                  "event: message\ndata: {\"n\":2}\n\nevent: end\ndata: {\"code\":\"OK\"}\n\n");
        CHECK_INT(CURL(v, URL "health"), 0);
        CHECK_STR(raw_text, "{\"status\":\"ok\"}");
        CHECK_INT(CURL(v, "-I", "-o", "/dev/null", "-w", "%{http_code}", URL "services"), 0);
        CHECK_STR(raw_text, "200");
        CHECK_INT(CURL(v, "-H", "beam-timeout: 30ms", "-d", "", URL "call/keep"), 0);
        CHECK(strstr(raw_text, "DEADLINE_EXCEEDED") != NULL);
        beam_reply(seen.kept, NULL);
        CHECK_INT(CURL(v, "-d", "x=y", "-w", "%{http_code}", "http://localhost/elsewhere"), 0);
        CHECK(strstr(raw_text, "404") != NULL);
    }
    rig_close_runtime();
}

/* --- ends ------------------------------------------------------------------------------------ */

enum cut { BY_RUNTIME, BY_SERVER, BY_CLIENT, BY_RESET, CUTS };

static void cut_connection(struct rig_end *end)
{
    if (end->connection)
        end->connection->dependent.calls->end(&end->connection->dependent);
}

/* Whether there were so many turns before all was done. */
static bool cut_after(struct rig_way way, enum cut cut, bool events, unsigned turns)
{
    static const struct bm_field fields[] = {BM_FIELD("accept", "text/event-stream"),
                                             BM_FIELD("content-type", "text/plain")};
    static const char all[] =
        "event: message\ndata: {\"n\":0}\n\nevent: message\ndata: {\"n\":1}\n\n"
        "event: message\ndata: {\"n\":2}\n\nevent: end\ndata: {\"code\":\"OK\"}\n\n";
    struct rig_talk talk = {.send_len = events ? 0 : 100000};
    const size_t whole = events ? sizeof(all) - 1 : talk.send_len;
    rig_open(way);
    test_note("%s, cut %d, events %d, after %u turns", way.name, (int)cut, events, turns);
    prepare();
    REQUIRE_INT(ask(&talk, events ? "/beam/call/several" : "/beam/call/echo",
                    events ? fields : fields + 1, 1, !events),
                0);
    for (unsigned i = 0; i < turns && talk.closes == 0; i++)
        rig_turn(20);
    bool done = talk.closes > 0;
    if (cut == BY_SERVER)
        cut_connection(&rig.server);
    else if (cut == BY_CLIENT)
        cut_connection(&rig.client);
    else if (cut == BY_RESET && talk.exchange)
        bm_exchange_reset(talk.exchange);
    if (cut != BY_RUNTIME)
        RIG_UNTIL(talk.closes > 0);
    rig_close_runtime();
    CHECK_UINT(talk.closes, 1);
    CHECK(talk.ends <= 1 && rig.client.closed == 1 && rig.server.closed == 1);
    /* A runtime that stops ends the call, and says so in an event. */
    bool told = cut == BY_RUNTIME && events && talk.got > 0;
    CHECK(talk.ends == 0 || talk.status != 200 || talk.got == whole || told);
    CHECK(!done || (talk.ends == 1 && talk.error == 0));
    return !done;
}

/* Whoever ends it: everybody is told, once, and nothing that is cut off looks whole. */
TEST(calls_may_be_cut_after_every_turn)
{
    for (size_t i = 0; i < RIG_WAYS; i++)
        for (enum cut cut = BY_RUNTIME; cut < CUTS; cut++)
            for (int events = 0; events < 2; events++)
                for (unsigned n = 0; n < 200 && cut_after(rig_ways[i], cut, events, n);)
                    n += n < 20 ? 1 : 5;
}
