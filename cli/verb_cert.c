/* The verb `cert`: an authority, a server's and a client's certificate, for trying things. */
#define _GNU_SOURCE
#include "cli/arguments.h"
#include "cli/new_file.h"
#include "cli/verbs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <beam/net.h>

static const char cert_help[] =
    "usage: beam cert DIR [OPTION...]\n"
    "\n"
    "Makes certificates for trying things: an authority (ca), what it says about a server, and "
    "what it\n"
    "says about a client, each with its key (ECDSA, P-256). They are for trying: their keys lie "
    "in DIR,\n"
    "and nothing ever revokes or renews them. A server for strangers has its certificate from an\n"
    "authority that strangers trust.\n"
    "\n"
    "    --name NAME          a name or address of the server; may be repeated (localhost, "
    "127.0.0.1,\n"
    "                         ::1 and the name of this machine)\n"
    "    --client NAME        whom the client's speaks for: uri:…, dns:…, email:…, or a plain "
    "name\n"
    "                         (client); the server's handlers see it as the identity\n"
    "    --days N             how long they hold (365)\n"
    "    --force              replace what is in DIR\n"
    "\n"
    "Writes ca.pem, server.pem, client.pem, and ca.key, server.key, client.key, which only this "
    "user may\n"
    "read. DIR is made if it is not there.\n"
    "\n"
    "examples:\n"
    "    beam cert /tmp/certs\n"
    "    beam cert certs --name beam.example --name 192.0.2.7 --client email:ada@example.org\n";

#define NAMES_MAX (TEXTS_MAX + 4)
#define NAME_ROOM 300
#define DAYS_MAX 36500

struct cert {
    const char *dir;
    struct texts names;
    const char *client;
    uint64_t days;
    bool force;
};

/* "dns:localhost" and so on, NULL behind the last. */
struct names {
    char text[NAMES_MAX][NAME_ROOM];
    const char *items[NAMES_MAX + 1];
    unsigned count;
};

static bool has_kind(const char *name)
{
    static const char *const kinds[] = {"dns:", "ip:", "uri:", "email:"};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strncmp(name, kinds[i], strlen(kinds[i])) == 0)
            return true;
    return false;
}

/* With its kind in front, which is the address's or a host's unless it says. */
static void add_name(struct names *names, const char *name)
{
    unsigned char address[16];
    bool ip = inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
    char *to = names->text[names->count];
    snprintf(to, NAME_ROOM, "%s%s", has_kind(name) ? "" : ip ? "ip:" : "dns:", name);
    for (unsigned i = 0; i < names->count; i++)
        if (strcmp(names->items[i], to) == 0)
            return;
    names->items[names->count++] = to;
}

static void name_server(struct names *names, const struct texts *given)
{
    char host[256] = "";
    for (unsigned i = 0; i < given->count; i++)
        add_name(names, given->items[i]);
    if (given->count > 0)
        return;
    add_name(names, "localhost");
    add_name(names, "127.0.0.1");
    add_name(names, "::1");
    if (gethostname(host, sizeof(host) - 1) == 0 && host[0] && !strchr(host, ':'))
        add_name(names, host);
}

static int read_arguments(int argc, char **argv, struct cert *cert)
{
    const struct option options[] = {
        {"--name", OPTION_TEXTS, &cert->names, 0, 0},
        {"--client", OPTION_TEXT, &cert->client, 0, 0},
        {"--days", OPTION_COUNT, &cert->days, 1, DAYS_MAX},
        {"--force", OPTION_FLAG, &cert->force, 0, 0},
        {NULL, OPTION_FLAG, NULL, 0, 0},
    };
    char **words;
    int count = arguments_read(argc, argv, options, cert_help, &words);
    if (count < 0)
        return count;
    if (count != 1) {
        fprintf(stderr, "beam: cert: please name one directory, as in\n    beam cert /tmp/certs\n");
        return -EINVAL;
    }
    for (unsigned i = 0; i < cert->names.count; i++)
        if (!cert->names.items[i][0] || strlen(cert->names.items[i]) > 255) {
            fprintf(stderr, "beam: cert: --name: please give a name of 1 to 255 bytes\n");
            return -EINVAL;
        }
    cert->dir = words[0];
    return 0;
}

static int make(struct beam_certificate *ret, enum beam_certificate_use use, const char *name,
                const char *const *names, const struct cert *cert,
                const struct beam_certificate *issuer)
{
    int r = beam_certificate_make(
        ret, &BEAM_CERTIFICATE_OPTIONS(.use = use, .common_name = name, .names = names,
                                       .days = (unsigned)cert->days, .issuer = issuer));
    if (r == -EINVAL || r == -E2BIG)
        fprintf(stderr, "beam: cert: %s: %s\n", name,
                r == -E2BIG ? "too many names for one certificate"
                            : "not a name that a certificate can have");
    else if (r < 0)
        fprintf(stderr, "beam: cert: %s: %s\n", name, beam_strerror(r));
    return r;
}

/* All three, the authority first. */
static int make_all(struct beam_certificate made[3], const struct cert *cert,
                    const struct names *server)
{
    const char *client[2] = {NULL, NULL}, *client_name = cert->client;
    if (has_kind(client_name) && strncmp(client_name, "ip:", 3) != 0) {
        client[0] = client_name;
        client_name = "client";
    }
    char server_name[64];
    snprintf(server_name, sizeof(server_name), "%s", strchr(server->items[0], ':') + 1);
    int r = make(&made[0], BEAM_CERTIFICATE_CA, "Beam, for trying", NULL, cert, NULL);
    if (r == 0)
        r = make(&made[1], BEAM_CERTIFICATE_SERVER, server_name, server->items, cert, &made[0]);
    if (r == 0)
        r = make(&made[2], BEAM_CERTIFICATE_CLIENT, client_name, client, cert, &made[0]);
    return r;
}

static const char *const files[] = {"ca.pem",     "ca.key",     "server.pem",
                                    "server.key", "client.pem", "client.key"};

static int open_dir(const char *path)
{
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return -errno;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int say_exists(const struct cert *cert, const char *name)
{
    fprintf(stderr, "beam: cert: %s/%s is there already; --force replaces it\n", cert->dir, name);
    return EXIT_LIMIT;
}

static int write_all(int dir_fd, const struct cert *cert, const struct beam_certificate made[3])
{
    struct stat st;
    for (unsigned i = 0; i < 6 && !cert->force; i++)
        if (fstatat(dir_fd, files[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
            return say_exists(cert, files[i]);
    for (unsigned i = 0; i < 6; i++) {
        const char *text = i % 2 ? made[i / 2].key : made[i / 2].pem;
        int r = new_file(dir_fd, files[i], text, strlen(text), i % 2 ? 0600 : 0644, cert->force);
        /* What was made is of no use without the rest; what was replaced is gone. */
        for (unsigned made_before = i; r < 0 && !cert->force && made_before > 0; made_before--)
            (void)unlinkat(dir_fd, files[made_before - 1], 0);
        if (r == -EEXIST)
            return say_exists(cert, files[i]);
        if (r < 0) {
            fprintf(stderr, "beam: cert: %s/%s: %s\n", cert->dir, files[i], strerror(-r));
            return exit_status_of_file(r);
        }
    }
    (void)fsync(dir_fd);
    return EXIT_OK;
}

/* A word as a shell takes it. */
static void print_word(const char *dir, const char *name)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "_./-+,:@%=";
    bool quote = strspn(dir, plain) != strlen(dir);
    if (quote)
        putchar('\'');
    for (const char *p = dir; *p; p++)
        if (*p == '\'')
            fputs("'\\''", stdout);
        else
            putchar(*p);
    printf("%s/%s", quote ? "'" : "", name);
}

static void print_command(const char *const *words, const char *dir)
{
    fputs("   ", stdout);
    for (; *words; words++) {
        putchar(' ');
        if (words[0][0] == '/' && words[0][1])
            print_word(dir, words[0] + 1);
        else
            fputs(words[0], stdout);
    }
    putchar('\n');
}

static void say_what_next(const struct cert *cert, const struct names *server)
{
    const char *host = strchr(server->items[0], ':') + 1;
    bool v6 = strchr(host, ':') != NULL;
    char url[NAME_ROOM + 64], plain[NAME_ROOM + 64];
    snprintf(url, sizeof(url), "https://%s%s%s:8443", v6 ? "[" : "", host, v6 ? "]" : "");
    snprintf(plain, sizeof(plain), "%s/beam/call/echo", url);
    printf(
        "made in %s, for trying things (not for strangers: whoever reads ca.key can be anybody):\n"
        "    ca.pem, ca.key          whom both sides trust (--ca, --client-ca)\n"
        "    server.pem, server.key  for",
        cert->dir);
    for (unsigned i = 0; i < server->count; i++)
        printf("%s %s", i > 0 ? "," : "", strchr(server->items[i], ':') + 1);
    printf("\n    client.pem, client.key  for %s%s\nnext:\n",
           has_kind(cert->client) ? "" : "cn:", cert->client);
    /* A word that begins with a slash is a file of the directory. */
    print_command((const char *[]){"beam serve echo --listen https://0.0.0.0:8443 --cert",
                                   "/server.pem", "--key", "/server.key", "--client-ca", "/ca.pem",
                                   NULL},
                  cert->dir);
    print_command((const char *[]){"beam call", url, "echo text=hi --ca", "/ca.pem", "--cert",
                                   "/client.pem", "--key", "/client.key", NULL},
                  cert->dir);
    print_command((const char *[]){"curl --cacert", "/ca.pem", "--cert", "/client.pem", "--key",
                                   "/client.key", "--json '{\"text\":\"hi\"}'", plain, NULL},
                  cert->dir);
}

int cert_main(int argc, char **argv)
{
    struct cert cert = {.client = "client", .days = 365};
    struct names server = {.count = 0};
    struct beam_certificate made[3];
    int r = read_arguments(argc, argv, &cert);
    if (r < 0)
        return r == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    name_server(&server, &cert.names);
    r = make_all(made, &cert, &server);
    if (r < 0) {
        explicit_bzero(made, sizeof(made));
        return r == -EINVAL || r == -E2BIG ? EXIT_USAGE : beam_exit_code(r, NULL);
    }
    int dir_fd = open_dir(cert.dir), status = EXIT_OK;
    if (dir_fd < 0) {
        fprintf(stderr, "beam: cert: %s: %s\n", cert.dir, strerror(-dir_fd));
        status = exit_status_of_file(dir_fd);
    } else {
        status = write_all(dir_fd, &cert, made);
        close(dir_fd);
    }
    explicit_bzero(made, sizeof(made));
    if (status == EXIT_OK)
        say_what_next(&cert, &server);
    return status;
}
