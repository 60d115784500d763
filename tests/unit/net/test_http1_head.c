#include <string.h>

#include "net/proto/http1_head.h"
#include "tests/support/test.h"

/* The judge alone: in front of it the parser has refused much of this. */
struct row {
    const char *method, *target;
    unsigned minor_version;
    int r;
    int64_t body_len;
    const char *names[3], *values[3]; /* beside Host */
};

#define LENGTH "content-length"
#define CODING "transfer-encoding"
#define POST .method = "POST", .target = "/", .minor_version = 1
#define LIMIT 1000

static const struct row rows[] = {
    {POST, .names = {LENGTH}, .values = {"5"}, .body_len = 5},
    {POST, .names = {LENGTH}, .values = {"000005"}, .body_len = 5},
    {POST, .names = {CODING}, .values = {"CHUNKED"}, .body_len = -1},
    {POST, .names = {"x"}, .values = {"y"}, .body_len = 0},
    {POST, .names = {LENGTH}, .values = {"1000"}, .body_len = 1000},
    {POST, .names = {LENGTH}, .values = {"1001"}, .r = 413},
    {POST, .names = {LENGTH}, .values = {"999999999999999999"}, .r = 413},
    {POST, .names = {LENGTH}, .values = {"9999999999999999999"}, .r = 413},
    {POST, .names = {LENGTH}, .values = {""}, .r = 400},
    {POST, .names = {LENGTH}, .values = {"+5"}, .r = 400},
    {POST, .names = {LENGTH}, .values = {"5,5"}, .r = 400},
    {POST, .names = {LENGTH, LENGTH}, .values = {"5", "5"}, .r = 400},
    {POST, .names = {CODING, CODING}, .values = {"chunked", "chunked"}, .r = 400},
    {POST, .names = {CODING, LENGTH}, .values = {"chunked", "5"}, .r = 400},
    {POST, .names = {LENGTH, CODING}, .values = {"5", "chunked"}, .r = 400},
    {POST, .names = {CODING}, .values = {"gzip, chunked"}, .r = 501},
    {POST, .names = {CODING}, .values = {"chunkedx"}, .r = 501},
    {POST, .names = {CODING}, .values = {""}, .r = 501},
    {.method = "POST", .target = "/", .names = {CODING}, .values = {"chunked"}, .r = 400},
    {.method = "POST", .target = "/", .names = {LENGTH}, .values = {"5"}, .body_len = 5},
    {.method = "POST", .target = "/", .r = 411},
    {.method = "GET", .target = "/", .body_len = 0},
    {POST, .names = {"host"}, .values = {"a"}, .r = 400},
    {POST, .names = {"expect"}, .values = {"other"}, .r = 417},
    {POST, .names = {"expect", "expect"}, .values = {"100-continue", "100-continue"}, .r = 417},
};

static int judge(struct bm_http1_head *head, const struct row *row, const char *host)
{
    *head = (struct bm_http1_head){.target = row->target, .target_len = strlen(row->target)};
    head->message.method = row->method;
    head->message.method_len = strlen(row->method);
    head->message.minor_version = row->minor_version;
    if (host)
        head->fields[head->message.field_count++] = BM_FIELD("host", host);
    for (size_t i = 0; i < 3 && row->names[i]; i++)
        head->fields[head->message.field_count++] = BM_FIELD(row->names[i], row->values[i]);
    return bm_http1_head_judge(head, LIMIT);
}

TEST(http1_bodies_have_one_length)
{
    static struct bm_http1_head head;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("row %zu: %s: %s", i, rows[i].names[0], rows[i].values[0]);
        CHECK_INT(judge(&head, &rows[i], "a"), rows[i].r);
        if (rows[i].r == 0)
            CHECK_INT(head.message.body_len, rows[i].body_len);
    }
}

TEST(http1_hosts_are_hosts)
{
    static const char *const good[] = {"a",        "a.b-c_d~e",  "a:80",   "127.0.0.1:1",
                                       "[::1]:80", "[::1]",      "a%20b",  "",
                                       "a:",       "!$&'()*+;=", "xn--nxa"};
    static const char *const bad[] = {"a b", "a,b",   "u@a",  "a/b", "a?b",      "a#b",  "a^b",
                                      "a`b", "a|b",   "a\\b", "a{b", "a\"b",     "<a>",  "[::1",
                                      "a:b", "a:8:8", "[a]b", "a]",  "http://a", "\x80", "a[b"};
    static struct bm_http1_head head;
    struct row row = {.method = "GET", .target = "/", .minor_version = 1};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        test_note("%s", good[i]);
        CHECK_INT(judge(&head, &row, good[i]), 0);
        CHECK_MEM(head.message.authority, head.message.authority_len, good[i], strlen(good[i]));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        test_note("%s", bad[i]);
        CHECK_INT(judge(&head, &row, bad[i]), 400);
    }
    CHECK_INT(judge(&head, &row, NULL), 400);
    row.minor_version = 0;
    CHECK_INT(judge(&head, &row, NULL), 0);
    CHECK_UINT(head.message.authority_len, 0);
}

TEST(http1_targets_are_taken_apart)
{
    static const struct {
        const char *method, *target, *host;
        int r;
        const char *authority, *path;
    } targets[] = {
        {"GET", "/a?b", "h", 0, "h", "/a?b"},
        {"GET", "//a", "h", 0, "h", "//a"},
        {"OPTIONS", "*", "h", 0, "h", "*"},
        {"GET", "http://h/a", "h", 0, "h", "/a"},
        {"GET", "HTTPS://H:1/a/b?c", "h:1", 0, "H:1", "/a/b?c"},
        {"GET", "http://h", "h", 0, "h", "/"},
        {"OPTIONS", "http://h", "h", 0, "h", "*"},
        {"OPTIONS", "http://h/", "h", 0, "h", "/"},
        {"GET", "http://h/", "", 0, "h", "/"},
        {"GET", "http://h/", "i", 400, NULL, NULL},
        {"GET", "http://h/", "hh", 400, NULL, NULL},
        {"GET", "http://h:80/", "h", 400, NULL, NULL},
        {"GET", "http://u@h/", "h", 400, NULL, NULL},
        {"GET", "http://", "h", 400, NULL, NULL},
        {"GET", "http:/a", "h", 400, NULL, NULL},
        {"GET", "http://h?a", "h", 400, NULL, NULL},
        {"GET", "ws://h/a", "h", 400, NULL, NULL},
        {"GET", "*", "h", 400, NULL, NULL},
        {"GET", "", "h", 400, NULL, NULL},
        {"GET", "h:80", "h", 400, NULL, NULL},
        {"GET", "/#a", "h", 400, NULL, NULL},
        {"CONNECT", "h:80", "h", 501, NULL, NULL},
    };
    static struct bm_http1_head head;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct row row = {
            .method = targets[i].method, .target = targets[i].target, .minor_version = 1};
        test_note("row %zu: %s", i, targets[i].target);
        CHECK_INT(judge(&head, &row, targets[i].host), targets[i].r);
        if (targets[i].r > 0)
            continue;
        CHECK_MEM(head.message.authority, head.message.authority_len, targets[i].authority,
                  strlen(targets[i].authority));
        CHECK_MEM(head.message.path, head.message.path_len, targets[i].path,
                  strlen(targets[i].path));
    }
}

TEST(http1_versions_are_told_apart)
{
    static const struct {
        const char *line;
        int r;
    } lines[] = {
        {"GET / HTTP/1.1", 0},   {"GET / HTTP/1.0", 0},   {"GET / HTTP/1.2", 505},
        {"GET / HTTP/2.0", 505}, {"GET / HTTP/0.9", 505}, {"GET / HTTP/1.11", 400},
        {"GET / HTTP/1,1", 400}, {"GET / http/1.1", 400}, {"GET / XHTTP/1.1", 400},
        {"HTTP/1", 400},         {"GET / HTTP/x.1", 400}, {"GET / HTTP/1.x", 400},
    };
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        test_note("%s", lines[i].line);
        CHECK_INT(bm_http1_head_check_version(lines[i].line, strlen(lines[i].line)), lines[i].r);
    }
}
