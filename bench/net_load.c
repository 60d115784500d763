/* Loads for servers, and what they cost: the processor time of the server's process between two looks, divided by
 * what it has done meanwhile. Who asks is a program of others (h2load, openssl s_time, Node), the same to all; Beam's own
 * sessions are asked by Beam.
 *
 * Requests: some to warm up, which also tell how many fit into the time of a round. What connections cost is
 * measured by themselves and taken off. Handshakes: s_time makes one connection after the other, for a second
 * or two; each asks for something small in HTTP/1.0, since the tickets of TLS 1.3 come behind the handshake.
 * Idle connections have each had an answer; memory is what some have added to what others had taken before. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/beam_client.h"
#include "bench/contenders.h"
#include "bench/net_program.h"
#include "bench/net_server.h"

#define CIPHER "TLS_AES_128_GCM_SHA256" /* for all: who asks chooses */
#define WARM_REQUESTS 20000u            /* Node is several times slower before */
#define REQUESTS_PER_CONNECTION_MIN 20u
#define REQUESTS_MAX 10000000.0
#define BULK_REQUESTS 2u
#define IDLE_WARM 20u
#define TEXT_SIZE (64u << 10) /* of what a driver says: a character a handshake */

/* A session's first bytes: HELLO of the least keys, as tests/vectors/session.json has it. */
#define HELLO                                                                                      \
    "000000000000000038000000010000003000000000000900060000000400070"                              \
    "06f70656e6572726f6c650000000000000800000007000400010000000000000076657273696f6e00"

static char text[TEXT_SIZE]; /* one run to a process */

static const char *scheme(const struct net_server *server)
{
    return server->tls ? "https" : "http";
}

static int requests_parse(struct bench_run *run, uint64_t wanted, uint64_t *ret_ns)
{
    const char *finished = strstr(text, "finished in "), *requests = strstr(text, "requests: ");
    const char *codes = strstr(text, "status codes: ");
    double time;
    char unit[8];
    unsigned long long done, good;
    if (finished == NULL || requests == NULL || codes == NULL ||
        sscanf(finished, "finished in %lf%7[a-z]", &time, unit) != 2 ||
        sscanf(requests, "requests: %*u total, %*u started, %llu done", &done) != 1 ||
        sscanf(codes, "status codes: %llu 2xx", &good) != 1)
        return bench_fail(run, "h2load is not understood");
    if (done != wanted || good != wanted)
        return bench_fail(run, "of %llu requests %llu were answered, %llu well",
                          (unsigned long long)wanted, done, good);
    *ret_ns = (uint64_t)(time * (strcmp(unit, "s") == 0    ? 1e9
                                 : strcmp(unit, "ms") == 0 ? 1e6
                                                           : 1e3));
    return 0;
}

/* So many requests, as the row has them. */
static int requests_make(struct bench_run *run, const struct net_server *server, const char *path,
                         bool post, uint64_t requests, unsigned depth, uint64_t *ret_ns)
{
    char url[128], number[24], clients[24], streams[24];
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u%s", scheme(server), server->port, path);
    snprintf(number, sizeof(number), "%llu", (unsigned long long)requests);
    snprintf(clients, sizeof(clients), "%u", run->row->connections);
    snprintf(streams, sizeof(streams), "%u", depth);
    const char *argv[] = {"h2load",
                          "--tls13-ciphers",
                          CIPHER,
                          "-t",
                          "1",
                          "-n",
                          number,
                          "-c",
                          clients,
                          "-m",
                          streams,
                          url,
                          post ? "-H" : NULL,
                          "content-type: application/octet-stream",
                          "-d",
                          server->body,
                          NULL};
    if (net_program_run(run, argv, text, sizeof(text)) < 0)
        return -1;
    return requests_parse(run, requests, ret_ns);
}

static void finish(struct bench_run *run, uint64_t operations, uint64_t elapsed_ns, uint64_t cpu_ns)
{
    struct bench_result *result = run->result;
    result->operations = operations;
    result->elapsed_ns = elapsed_ns;
    result->cpu_ns = cpu_ns;
    result->allocs_unknown = true;
    result->finished = true;
}

int net_calls(struct bench_run *run)
{
    const struct bench_row *row = run->row;
    struct net_server server;
    uint64_t ns, cpu[3];
    if (net_server_start(run, &server) < 0)
        return -1;
    const char *path = server.is_beam ? "/beam/call/echo" : "/small";
    uint64_t warm = WARM_REQUESTS + row->connections * REQUESTS_PER_CONNECTION_MIN;
    if (requests_make(run, &server, path, server.takes_post, warm, row->depth, &ns) < 0)
        return -1;
    double fit = (double)warm * (double)run->duration_ns / (double)(ns + 1);
    uint64_t requests = warm;
    if (fit > (double)warm)
        requests = fit < REQUESTS_MAX ? (uint64_t)fit : (uint64_t)REQUESTS_MAX;
    cpu[0] = bench_cpu_ns(run->peer);
    if (requests_make(run, &server, path, server.takes_post, row->connections, 1, &ns) < 0)
        return -1;
    cpu[1] = bench_cpu_ns(run->peer);
    if (requests_make(run, &server, path, server.takes_post, requests + row->connections,
                      row->depth, &ns) < 0)
        return -1;
    cpu[2] = bench_cpu_ns(run->peer);
    if (cpu[2] - cpu[1] <= cpu[1] - cpu[0])
        return bench_fail(run, "too few requests for a figure");
    finish(run, requests, ns, (cpu[2] - cpu[1]) - (cpu[1] - cpu[0]));
    return 0;
}

/* Calls within one session of Beam. What it costs the caller does not count (BENCH_CPU). */
int net_session(struct bench_run *run)
{
    struct net_server server;
    char url[64], ca[512 + 16];
    beam_runtime *runtime;
    if (net_server_start(run, &server) < 0 || bench_pin(run, run->cpu_here) < 0 ||
        runtime_new(run, 1, &runtime) < 0)
        return -1;
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u/", scheme(&server), server.port);
    snprintf(ca, sizeof(ca), "%s/cert.pem", server.folder);
    int r = beam_start(runtime);
    if (r < 0)
        return bench_fail(run, "start: %s", beam_strerror(r));
    run->result->allocs_unknown = true;
    return client_run(&(struct client){
        .run = run, .runtime = runtime, .url = url, .ca = ca, .load = CLIENT_CALLS});
}

/* From Beam the file is fetched as an open descriptor is, whose bytes follow. */
static int bulk_fetch(struct bench_run *run, const struct net_server *server, uint64_t *ret_ns)
{
    char url[128], ca[600];
    if (!server->is_beam)
        return requests_make(run, server, "/large", false, BULK_REQUESTS, 1, ret_ns);
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u/", scheme(server), server->port);
    snprintf(ca, sizeof(ca), "%s/cert.pem", server->folder);
    uint64_t start = bench_clock_ns();
    for (unsigned i = 0; i < BULK_REQUESTS; i++) {
        const char *argv[] = {"/proc/self/exe",
                              "call",
                              url,
                              "files",
                              "path=large",
                              "--save-fd",
                              "/dev/null",
                              server->tls ? "--ca" : NULL,
                              ca,
                              NULL};
        if (net_program_run(run, argv, text, sizeof(text)) < 0)
            return -1;
    }
    *ret_ns = bench_clock_ns() - start;
    return 0;
}

/* An operation is a megabyte. */
int net_bulk(struct bench_run *run)
{
    struct net_server server;
    uint64_t ns, before, cpu;
    if (net_server_start(run, &server) < 0 || bulk_fetch(run, &server, &ns) < 0)
        return -1;
    before = bench_cpu_ns(run->peer);
    if (bulk_fetch(run, &server, &ns) < 0)
        return -1;
    cpu = bench_cpu_ns(run->peer) - before;
    uint64_t megabytes = (uint64_t)BULK_REQUESTS * NET_LARGE_LEN / 1000000;
    bench_note(run, "mb_per_cpu_s", (double)megabytes * 1e9 / (double)(cpu + 1));
    finish(run, megabytes, ns, cpu);
    return 0;
}

/* How many connections s_time made, and whether all but the first of them came back. */
static int connections_parse(struct bench_run *run, bool resumed, uint64_t *ret_count)
{
    const char *line = strstr(text, " connections in ");
    unsigned long long again = 0, anew = 0;
    while (line != NULL && strstr(line + 1, " connections in ") != NULL)
        line = strstr(line + 1, " connections in ");
    while (line != NULL && line > text && line[-1] >= '0' && line[-1] <= '9')
        line--;
    *ret_count = line != NULL ? strtoull(line, NULL, 10) : 0;
    if (*ret_count == 0)
        return bench_fail(run, "openssl s_time made no connection");
    for (const char *c = text; c < line; c++) {
        /* A line of one sign a connection: r for one that was resumed, * for a new one. */
        bool sign = c[1] == 'r' || c[1] == '*' || c[1] == '\n';
        again += c[0] == 'r' && sign;
        anew += c[0] == '*' && sign;
    }
    /* OpenSSL tells a ticket's age in whole seconds, and a few are out by more than a server takes. */
    if (resumed ? anew > 2 + *ret_count / 50 || again + anew + 2 < *ret_count : again > 0)
        return bench_fail(run, "of %llu connections %llu were resumed",
                          (unsigned long long)*ret_count, again);
    return 0;
}

static int handshakes(struct bench_run *run, bool resumed)
{
    struct net_server server;
    char address[64];
    uint64_t count;
    if (net_server_start(run, &server) < 0)
        return -1;
    snprintf(address, sizeof(address), "127.0.0.1:%u", server.port);
    const char *argv[] = {"openssl",
                          "s_time",
                          "-connect",
                          address,
                          resumed ? "-reuse" : "-new",
                          "-time",
                          "1",
                          "-tls1_3",
                          "-ciphersuites",
                          CIPHER,
                          "-www",
                          server.is_beam ? "/beam/health" : "/small",
                          NULL};
    uint64_t start = bench_clock_ns(), before = bench_cpu_ns(run->peer);
    if (net_program_run(run, argv, text, sizeof(text)) < 0 ||
        connections_parse(run, resumed, &count) < 0)
        return -1;
    finish(run, count, bench_clock_ns() - start, bench_cpu_ns(run->peer) - before);
    return 0;
}

int net_handshake(struct bench_run *run)
{
    return handshakes(run, false);
}

int net_resumed(struct bench_run *run)
{
    return handshakes(run, true);
}

/* Opens so many connections, each of which has had an answer, and leaves them open. With Beam each is a session. */
static const char idle_script[] =
    "const http2 = require('http2');\n"
    "const [url, count, path, hello] = process.argv.slice(1);\n"
    "function open() {\n"
    "    return new Promise((resolve) => {\n"
    "        const client = http2.connect(url, {rejectUnauthorized: false});\n"
    "        client.on('error', (error) => { console.log(error.message); process.exit(1); });\n"
    "        const stream = client.request(hello\n"
    "            ? {':method': 'POST', ':path': path, 'content-type': 'application/x-beam', "
    "'beam-version': '1'}\n"
    "            : {':path': path});\n"
    "        if (hello) {\n"
    "            stream.write(Buffer.from(hello, 'hex'));\n"
    "            stream.once('data', resolve);\n"
    "        } else {\n"
    "            stream.resume().on('end', resolve);\n"
    "        }\n"
    "    });\n"
    "}\n"
    "(async () => {\n"
    "    for (let i = 0; i < count; i++)\n"
    "        await open();\n"
    "    console.log('open');\n"
    "})();\n";

static int idle_open(struct bench_run *run, const struct net_server *server, unsigned count)
{
    char url[64], number[24], said[128];
    int fds[2];
    pid_t pid;
    size_t len = 0;
    ssize_t r;
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u", scheme(server), server->port);
    snprintf(number, sizeof(number), "%u", count);
    const char *argv[] = {"node",
                          "-e",
                          idle_script,
                          url,
                          number,
                          server->is_beam ? "/beam/v1" : "/small",
                          server->is_beam ? HELLO : NULL,
                          NULL};
    if (pipe2(fds, O_CLOEXEC) < 0)
        return bench_fail(run, "pipe: %s", strerror(errno));
    int started = net_program_start(run, argv, run->cpu_here, -1, fds[1], &pid);
    close(fds[1]);
    if (started < 0) {
        close(fds[0]);
        return -1;
    }
    do {
        r = read(fds[0], said + len, sizeof(said) - 1 - len);
        len += r > 0 ? (size_t)r : 0;
        said[len] = 0;
    } while ((r > 0 || (r < 0 && errno == EINTR)) && strchr(said, '\n') == NULL &&
             len < sizeof(said) - 1);
    /* The reading end stays open, like the connections, until the run is over. */
    return strcmp(said, "open\n") == 0 ? 0
                                       : bench_fail(run, "connections cannot be opened: %s", said);
}

int net_idle(struct bench_run *run)
{
    struct net_server server;
    uint64_t before, after, start = bench_clock_ns();
    if (net_server_start(run, &server) < 0 || idle_open(run, &server, IDLE_WARM) < 0 ||
        net_server_memory(run, &before) < 0 || idle_open(run, &server, run->row->connections) < 0 ||
        net_server_memory(run, &after) < 0)
        return -1;
    run->result->bytes = after > before ? after - before : 0;
    finish(run, run->row->connections, bench_clock_ns() - start, 0);
    return 0;
}
