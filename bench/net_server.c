/* Servers: their files, their configurations and their commands.
 *
 * Each is one process with one thread that serves, so that its CPU clock is all it costs. haproxy passes everything on to
 * an nghttpd beside it, and only its own time counts, as that of a proxy. A server listens on a port outside
 * those that the kernel gives to whoever asks for any. */
#include "bench/net_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench/folder.h"
#include "bench/net_program.h"

#define PORT_MIN 10000u
#define START_NS UINT64_C(5000000000) /* until it listens */

struct setup {
    struct net_server *server;
    char path[512]; /* of the file that was written last */
    char words[NET_WORDS_MAX][640];
    const char *argv[NET_WORDS_MAX + 1];
    unsigned count;
};

static void word(struct setup *setup, const char *format, ...)
    __attribute__((__format__(__printf__, 2, 3)));

static void word(struct setup *setup, const char *format, ...)
{
    va_list args;
    if (setup->count == NET_WORDS_MAX)
        return;
    va_start(args, format);
    vsnprintf(setup->words[setup->count], sizeof(setup->words[0]), format, args);
    va_end(args);
    setup->argv[setup->count] = setup->words[setup->count];
    setup->count++;
}

static void words(struct setup *setup, const char *const *list)
{
    for (; *list != NULL; list++)
        word(setup, "%s", *list);
}

static int file_write(struct bench_run *run, struct setup *setup, const char *name,
                      const char *format, ...) __attribute__((__format__(__printf__, 4, 5)));

static int file_write(struct bench_run *run, struct setup *setup, const char *name,
                      const char *format, ...)
{
    va_list args;
    snprintf(setup->path, sizeof(setup->path), "%s/%s", setup->server->folder, name);
    FILE *file = fopen(setup->path, "we");
    if (file == NULL)
        return bench_fail(run, "%s: %s", setup->path, strerror(errno));
    va_start(args, format);
    vfprintf(file, format, args);
    va_end(args);
    if (fclose(file) != 0)
        return bench_fail(run, "%s: %s", setup->path, strerror(errno));
    return 0;
}

/* What is served: "small" as long as the row says, and "large", which is full of zeros and has no place on the disk. */
static int files_make(struct bench_run *run, struct setup *setup)
{
    char bytes[4096];
    unsigned size = run->row->size;
    if (size >= sizeof(bytes))
        return bench_fail(run, "no such size");
    memset(bytes, 'x', size);
    bytes[size] = 0;
    if (file_write(run, setup, "small", "%s", bytes) < 0)
        return -1;
    setup->server->body = strdup(setup->path);
    if (file_write(run, setup, "large", "%s", "") < 0)
        return -1;
    if (truncate(setup->path, NET_LARGE_LEN) < 0)
        return bench_fail(run, "%s: %s", setup->path, strerror(errno));
    return 0;
}

static int certificate_make(struct bench_run *run, struct setup *setup)
{
    static const char *const request[] = {"openssl",  "req",
                                          "-x509",    "-newkey",
                                          "ec",       "-nodes",
                                          "-pkeyopt", "ec_paramgen_curve:prime256v1",
                                          "-days",    "2",
                                          "-subj",    "/CN=localhost",
                                          "-addext",  "subjectAltName=DNS:localhost,IP:127.0.0.1",
                                          NULL};
    const char *folder = setup->server->folder;
    char text[4096];
    setup->count = 0;
    if (file_write(run, setup, "openssl.cnf", "[req]\ndistinguished_name = name\n[name]\n") < 0)
        return -1;
    words(setup, request);
    word(setup, "-config");
    word(setup, "%s", setup->path);
    word(setup, "-keyout");
    word(setup, "%s/key.pem", folder);
    word(setup, "-out");
    word(setup, "%s/cert.pem", folder);
    setup->argv[setup->count] = NULL;
    return net_program_run(run, setup->argv, text, sizeof(text));
}

/* haproxy wants both in one file. */
static int certificate_join(struct bench_run *run, struct setup *setup)
{
    char path[2][600], text[2][4096] = {"", ""};
    for (unsigned i = 0; i < 2; i++) {
        snprintf(path[i], sizeof(path[i]), "%s/%s.pem", setup->server->folder,
                 i == 0 ? "cert" : "key");
        FILE *file = fopen(path[i], "re");
        if (file == NULL)
            return bench_fail(run, "%s: %s", path[i], strerror(errno));
        text[i][fread(text[i], 1, sizeof(text[i]) - 1, file)] = 0;
        fclose(file);
    }
    return file_write(run, setup, "both.pem", "%s%s", text[0], text[1]);
}

static struct sockaddr_in loopback(unsigned port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)port),
                                .sin_addr = {htonl(INADDR_LOOPBACK)}};
}

static int port_find(struct bench_run *run, unsigned *ret_port)
{
    unsigned end = 32768;
    FILE *file = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    if (file != NULL) {
        if (fscanf(file, "%u", &end) != 1 || end <= PORT_MIN)
            end = 32768;
        fclose(file);
    }
    for (unsigned i = 0; i < 100; i++) {
        unsigned port = PORT_MIN + (unsigned)((bench_ticks() >> 4) % (end - PORT_MIN));
        struct sockaddr_in address = loopback(port);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            break;
        int r = bind(fd, (const struct sockaddr *)&address, sizeof(address));
        close(fd);
        if (r == 0) {
            *ret_port = port;
            return 0;
        }
    }
    return bench_fail(run, "no free port");
}

/* Somebody listens, or the program has ended. */
static int port_await(struct bench_run *run, const char *name, unsigned port, pid_t pid)
{
    static const struct timespec pause = {.tv_nsec = 2000000};
    struct sockaddr_in address = loopback(port);
    uint64_t end = bench_clock_ns() + START_NS;
    while (bench_clock_ns() < end) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
            return bench_fail(run, "socket: %s", strerror(errno));
        int r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
        close(fd);
        if (r == 0)
            return 0;
        if (waitpid(pid, NULL, WNOHANG) != 0)
            return bench_fail(run, "%s ended and never listened", name);
        nanosleep(&pause, NULL);
    }
    return bench_fail(run, "%s does not listen", name);
}

static int start(struct bench_run *run, struct setup *setup, unsigned port, pid_t *ret_pid)
{
    char path[640];
    snprintf(path, sizeof(path), "%s/log", setup->server->folder);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return bench_fail(run, "%s: %s", path, strerror(errno));
    setup->argv[setup->count] = NULL;
    int r = net_program_start(run, setup->argv, run->cpu_there, -1, log, ret_pid);
    close(log);
    return r < 0 ? r : port_await(run, setup->argv[0], port, *ret_pid);
}

static void nghttpd_words(struct setup *setup, unsigned port, bool tls)
{
    const char *folder = setup->server->folder;
    word(setup, "nghttpd");
    word(setup, "--address=127.0.0.1");
    word(setup, "--htdocs=%s", folder);
    if (!tls)
        word(setup, "--no-tls");
    word(setup, "%u", port);
    if (tls) {
        word(setup, "%s/key.pem", folder);
        word(setup, "%s/cert.pem", folder);
    }
}

static int nghttpd(struct bench_run *run, struct setup *setup)
{
    (void)run;
    nghttpd_words(setup, setup->server->port, setup->server->tls);
    return 0;
}

static int h2o(struct bench_run *run, struct setup *setup)
{
    const struct net_server *server = setup->server;
    char tls[1400] = "";
    if (server->tls)
        snprintf(tls, sizeof(tls),
                 "  ssl:\n    certificate-file: %s/cert.pem\n    key-file: %s/key.pem\n"
                 "    neverbleed: OFF\n    ocsp-update-interval: 0\n",
                 server->folder, server->folder);
    if (file_write(run, setup, "h2o.conf",
                   "num-threads: 1\n%slisten:\n  host: 127.0.0.1\n  port: %u\n%s"
                   "hosts:\n  default:\n    paths:\n      /:\n        file.dir: %s\n",
                   geteuid() == 0 ? "user: root\n" : "", server->port, tls, server->folder) < 0)
        return -1;
    word(setup, "h2o");
    word(setup, "-c");
    word(setup, "%s", setup->path);
    return 0;
}

static int nginx(struct bench_run *run, struct setup *setup)
{
    const struct net_server *server = setup->server;
    const char *folder = server->folder;
    char tls[1400] = "";
    char small[4096];
    memset(small, 'x', run->row->size);
    small[run->row->size] = 0;
    if (server->tls)
        snprintf(
            tls, sizeof(tls),
            "ssl_certificate %s/cert.pem; ssl_certificate_key %s/key.pem; ssl_protocols TLSv1.3;",
            folder, folder);
    if (file_write(run, setup, "nginx.conf",
                   "daemon off;\nmaster_process off;\nworker_processes 1;\npid %s/nginx.pid;\n%s"
                   "error_log stderr crit;\nevents { worker_connections 8192; }\n"
                   "http {\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000000;\n"
                   "  client_body_temp_path %s/body;\n  proxy_temp_path %s/proxy;\n  "
                   "fastcgi_temp_path %s/fastcgi;\n"
                   "  uwsgi_temp_path %s/uwsgi;\n  scgi_temp_path %s/scgi;\n"
                   "  server {\n    listen 127.0.0.1:%u%s http2;\n    %s\n    root %s;\n"
                   "    location = /small { return 200 \"%s\"; }\n  }\n}\n",
                   folder, geteuid() == 0 ? "user root;\n" : "", folder, folder, folder, folder,
                   folder, server->port, server->tls ? " ssl" : "", tls, folder, small) < 0)
        return -1;
    word(setup, "nginx");
    word(setup, "-e");
    word(setup, "stderr");
    word(setup, "-c");
    word(setup, "%s", setup->path);
    return 0;
}

static int haproxy(struct bench_run *run, struct setup *setup)
{
    const struct net_server *server = setup->server;
    char tls[700] = "proto h2";
    unsigned behind;
    pid_t pid;
    if (port_find(run, &behind) < 0)
        return -1;
    nghttpd_words(setup, behind, false);
    if (start(run, setup, behind, &pid) < 0)
        return -1;
    setup->count = 0;
    if (server->tls) {
        if (certificate_join(run, setup) < 0)
            return -1;
        snprintf(tls, sizeof(tls), "ssl crt %s alpn h2,http/1.1 ssl-min-ver TLSv1.3", setup->path);
    }
    if (file_write(
            run, setup, "haproxy.cfg",
            "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client "
            "1m\n"
            "  timeout server 1m\nfrontend in\n  bind 127.0.0.1:%u %s\n  default_backend out\n"
            "backend out\n  http-reuse always\n  server one 127.0.0.1:%u proto h2\n",
            server->port, tls, behind) < 0)
        return -1;
    word(setup, "haproxy");
    word(setup, "-db");
    word(setup, "-f");
    word(setup, "%s", setup->path);
    return 0;
}

/* Its faster interface knows HTTP/2 alone, and s_time asks in HTTP/1. */
static int node(struct bench_run *run, struct setup *setup)
{
    static const char by_request[] =
        "server.on('request', (request, response) => response.end(answer(request.url)));";
    static const char by_stream[] = "server.on('stream', (stream, headers) => {\n"
                                    "    stream.resume();\n"
                                    "    stream.respond({':status': 200});\n"
                                    "    stream.end(answer(headers[':path']));\n"
                                    "});";
    bool http1 = run->row->driver != NULL && strcmp(run->row->driver, "openssl") == 0;
    const struct net_server *server = setup->server;
    if (file_write(run, setup, "server.cjs",
                   "const http2 = require('http2'), fs = require('fs');\n"
                   "const at = __dirname, tls = %s;\n"
                   "const small = fs.readFileSync(at + '/small'), large = fs.readFileSync(at + "
                   "'/large');\n"
                   "const server = tls ? http2.createSecureServer({key: fs.readFileSync(at + "
                   "'/key.pem'),\n"
                   "    cert: fs.readFileSync(at + '/cert.pem'), allowHTTP1: true}) : "
                   "http2.createServer();\n"
                   "const answer = (path) => path === '/large' ? large : small;\n"
                   "%s\n"
                   "server.listen(%u, '127.0.0.1');\n",
                   server->tls ? "true" : "false", http1 ? by_request : by_stream,
                   server->port) < 0)
        return -1;
    word(setup, "node");
    word(setup, "%s", setup->path);
    return 0;
}

static int beam(struct bench_run *run, struct setup *setup)
{
    static const char *const serve[] = {"/proc/self/exe", "serve",   "echo",
                                        "answer=echo",    "--quiet", "--insecure-anonymous",
                                        "--listen",       NULL};
    const struct net_server *server = setup->server;
    (void)run;
    words(setup, serve);
    word(setup, "%s://127.0.0.1:%u/", server->tls ? "https" : "http", server->port);
    word(setup, "files=file:%s", server->folder);
    word(setup, "--address-connections=65536"); /* all who ask have one address */
    word(setup, "--address-rate=65536");
    if (server->tls) {
        word(setup, "--cert");
        word(setup, "%s/cert.pem", server->folder);
        word(setup, "--key");
        word(setup, "%s/key.pem", server->folder);
    }
    return 0;
}

/* "calls" and "full" are Beam measured in another way beside itself. */
static const struct known {
    const char *contender, *program;
    int (*prepare)(struct bench_run *run, struct setup *setup);
    bool takes_post;
} known[] = {
    {"beam", NULL, beam, true},
    {"calls", NULL, beam, true},
    {"full", NULL, beam, true},
    {"nghttpd", "nghttpd", nghttpd, true},
    {"h2o", "h2o", h2o, false},
    {"nginx", "nginx", nginx, true},
    {"haproxy", "haproxy", haproxy, true},
    {"node", "node", node, true},
};

static const struct known *known_by(const char *contender)
{
    for (unsigned i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(known[i].contender, contender) == 0)
            return &known[i];
    return NULL;
}

bool net_server_is_here(const struct bench_row *row, const char *contender)
{
    const struct known *it = known_by(contender);
    char path[512];
    if (it == NULL)
        return false;
    if (it->program != NULL && !net_program_find(it->program, path, sizeof(path)))
        return false;
    if (it->prepare == haproxy && !net_program_find("nghttpd", path, sizeof(path)))
        return false;
    if (strcmp(row->transport, "h2-tls") == 0 && !net_program_find("openssl", path, sizeof(path)))
        return false;
    return row->driver == NULL || net_program_find(row->driver, path, sizeof(path));
}

int net_server_start(struct bench_run *run, struct net_server *ret_server)
{
    static struct setup setup; /* one run to a process */
    static char absolute[512];
    const char *folder;
    const struct known *it = known_by(run->contender);
    *ret_server = (struct net_server){
        .name = run->contender,
        .tls = strcmp(run->row->transport, "h2-tls") == 0,
    };
    setup.server = ret_server;
    if (it == NULL)
        return bench_fail(run, "no such server");
    ret_server->takes_post = it->takes_post;
    ret_server->is_beam = it->prepare == beam;
    if (bench_folder(run, &folder) < 0)
        return -1;
    char *path = realpath(folder, NULL);
    if (path == NULL || strlen(path) >= sizeof(absolute))
        return bench_fail(run, "%s: no such folder", folder);
    strcpy(absolute, path);
    free(path);
    ret_server->folder = absolute;
    if (files_make(run, &setup) < 0)
        return -1;
    if (ret_server->tls && certificate_make(run, &setup) < 0)
        return -1;
    if (port_find(run, &ret_server->port) < 0)
        return -1;
    setup.count = 0;
    if (it->prepare(run, &setup) < 0)
        return -1;
    pid_t pid;
    if (start(run, &setup, ret_server->port, &pid) < 0)
        return -1;
    run->peer = pid;
    return 0;
}

int net_server_memory(struct bench_run *run, uint64_t *ret_bytes)
{
    char path[64], line[256];
    unsigned long long kib;
    snprintf(path, sizeof(path), "/proc/%d/status", (int)run->peer);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return bench_fail(run, "%s: %s", path, strerror(errno));
    bool found = false;
    while (!found && fgets(line, sizeof(line), file) != NULL)
        found = sscanf(line, "RssAnon: %llu kB", &kib) == 1;
    fclose(file);
    if (!found)
        return bench_fail(run, "the server's memory cannot be read");
    *ret_bytes = kib * 1024;
    return 0;
}
