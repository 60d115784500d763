/* What is known to bring down servers of HTTP/1.1, or to make one of them and a proxy before it read two
 * different things, done to ours: docs/attacks.md. */
#include "tests/attacks/attack_frames.h"

static void say(struct attacker *attacker, const char *text)
{
    (void)attacker_send(attacker, text, strlen(text));
}

/* ---- time ---- */

#define HEAD "POST /beam/call/echo HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n"

static void check_said(const struct attacker *attacker, const char *text)
{
    if (!strstr(attacker->text, text))
        test_note("said '%.300s'", attacker->text);
    CHECK(strstr(attacker->text, text) != NULL);
}

static void slow_head_round(struct attacker *attacker)
{
    attacker_send_slowly(attacker, HEAD, 10);
    attack_pass(BM_NS_PER_S);
    CHECK(attacker_is_closed(attacker));
    check_said(attacker, "HTTP/1.1 408");
}

TEST(attack_slow_headers_http1)
{
    attack_run(
        &(struct attack){"a head by the byte", ATTACK_BOTH, false, slow_head_round, 0, false});
}

/* A byte every second is less than a body may have. */
static void slow_post_round(struct attacker *attacker)
{
    say(attacker, HEAD "content-length: 1000\r\n\r\n");
    attacker_send_slowly(attacker, "a body by the byte, and never whole", 20);
    attack_pass(BM_NS_PER_S);
    CHECK(attacker_is_closed(attacker));
    check_said(attacker, "HTTP/1.1 408");
}

static void slow_chunks_round(struct attacker *attacker)
{
    say(attacker, HEAD "transfer-encoding: chunked\r\n\r\n");
    attacker_send_slowly(attacker, "1\r\nx\r\n1\r\ny\r\n1\r\nz\r\n1", 19);
    attack_pass(2 * BM_NS_PER_S);
    CHECK(attacker_is_closed(attacker));
    check_said(attacker, "HTTP/1.1 408");
}

TEST(attack_slow_post_http1)
{
    attack_run(
        &(struct attack){"a body by the byte", ATTACK_BOTH, false, slow_post_round, 0, false});
    attack_run(
        &(struct attack){"chunks by the byte", ATTACK_PLAIN, false, slow_chunks_round, 0, false});
}

/* Asks for much, again and again, and reads nothing. */
static void reads_nothing_round(struct attacker *attacker)
{
    static const char ask[] =
        "POST /beam/call/much HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    attacker->deaf = true;
    for (unsigned i = 0; i < 200; i++)
        (void)!send(attacker->fd, ask, attacker->tls ? 0 : sizeof(ask) - 1,
                    MSG_DONTWAIT | MSG_NOSIGNAL);
    for (unsigned i = 0; i < 100 && attacker->tls; i++)
        say(attacker, ask);
    neighbour_until(20);
    attack_pass(40 * BM_NS_PER_S);
    neighbour_until(20); /* what was sent meanwhile */
    attack_pass(40 * BM_NS_PER_S);
}

TEST(attack_slow_read_http1)
{
    attack_run(&(struct attack){"answers that nobody reads", ATTACK_BOTH, false,
                                reads_nothing_round, 0, false});
}

static void idle_round(struct attacker *attacker)
{
    say(attacker, "GET /beam/health HTTP/1.1\r\nhost: a\r\n\r\n");
    ATTACKER_UNTIL(attacker, strstr(attacker->text, "{\"status\":\"ok\"}"));
    attack_pass(301 * BM_NS_PER_S);
}

/* Who says nothing at all, not even which HTTP it is. */
static void silent_round(struct attacker *attacker)
{
    neighbour_until(1); /* it has been accepted */
    attack_pass(attacker->tls ? 10 * BM_NS_PER_S : 5 * BM_NS_PER_S);
}

TEST(attack_idle_http1)
{
    attack_run(&(struct attack){"idle behind a request", ATTACK_BOTH, false, idle_round, 0, false});
    attack_run(&(struct attack){"nothing at all", ATTACK_PLAIN, false, silent_round, 0, false});
}

/* ---- smuggling ---- */

/* Behind each of these stands a request that a proxy may not have seen: it must not be served. */
#define SMUGGLED "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"

static const struct {
    const char *name, *bytes;
} smuggling[] = {
    {"content-length and transfer-encoding",
     HEAD "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED},
    {"transfer-encoding and content-length",
     HEAD "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n" SMUGGLED},
    {"two lengths that differ", HEAD "content-length: 0\r\ncontent-length: 36\r\n\r\n" SMUGGLED},
    {"a list of lengths", HEAD "content-length: 0, 36\r\n\r\n" SMUGGLED},
    {"a length with a sign", HEAD "content-length: +36\r\n\r\n" SMUGGLED},
    {"a length in hexadecimal", HEAD "content-length: 0x24\r\n\r\n" SMUGGLED},
    {"a length that overflows", HEAD "content-length: 18446744073709551652\r\n\r\n" SMUGGLED},
    {"lines that end in line feeds", "POST / HTTP/1.1\nhost: a\ncontent-length: 0\n\n" SMUGGLED},
    {"one line that ends in a line feed", HEAD "x: y\ncontent-length: 36\r\n\r\n" SMUGGLED},
    {"a carriage return within a line", HEAD "x: y\rcontent-length: 36\r\n\r\n" SMUGGLED},
    {"another transfer-encoding", HEAD "transfer-encoding: gzip, chunked\r\n\r\n" SMUGGLED},
    {"chunked that is not the last", HEAD "transfer-encoding: chunked, gzip\r\n\r\n" SMUGGLED},
    {"chunked spelt wrong", HEAD "transfer-encoding: xchunked\r\n\r\n" SMUGGLED},
    {"chunked twice",
     HEAD "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" SMUGGLED},
    {"chunked behind a vertical tab", HEAD "transfer-encoding:\x0b"
                                           "chunked\r\n\r\n" SMUGGLED},
    {"a folded line", HEAD "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n" SMUGGLED},
    {"a folded line of another field", HEAD "x: y\r\n z: w\r\n\r\n" SMUGGLED},
    {"a space before a colon", HEAD "content-length : 36\r\n\r\n" SMUGGLED},
    {"a line without a colon", HEAD "content-length\r\n\r\n" SMUGGLED},
    {"a zero byte in a value", NULL},
    {"a space before the first field", "POST / HTTP/1.1\r\n host: a\r\n\r\n" SMUGGLED},
    {"two hosts", "POST / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n" SMUGGLED},
    {"no host", "POST / HTTP/1.1\r\n\r\n" SMUGGLED},
    {"a host that the target contradicts", "POST http://b/ HTTP/1.1\r\nhost: a\r\n\r\n" SMUGGLED},
    {"chunks of a length in another base",
     HEAD "transfer-encoding: chunked\r\n\r\n0x0\r\n\r\n" SMUGGLED},
    {"chunks that end in line feeds",
     HEAD "transfer-encoding: chunked\r\n\r\n1\nx\n0\n\n" SMUGGLED},
    {"a chunk longer than it says",
     HEAD "transfer-encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n" SMUGGLED},
    {"a chunk whose length overflows",
     HEAD "transfer-encoding: chunked\r\n\r\n10000000000000000\r\n\r\n" SMUGGLED},
    {"transfer-encoding in HTTP/1.0",
     "POST /beam/call/echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
     "0\r\n\r\n" SMUGGLED},
    {"a version that there is not", "POST / HTTP/1.2\r\nhost: a\r\n\r\n" SMUGGLED},
    {"two spaces behind the method", "POST  / HTTP/1.1\r\nhost: a\r\n\r\n" SMUGGLED},
    {"a request line that is HTTP/0.9", "GET /smuggled\r\n" SMUGGLED},
};

#define ZERO HEAD "x: y\0z\r\n\r\n" SMUGGLED

TEST(attack_smuggling_http1)
{
    static struct attacker attacker;
    attack_begin(NULL);
    for (unsigned i = 0; i < BM_ARRAY_LEN(smuggling); i++) {
        const char *bytes = smuggling[i].bytes;
        test_note("%s", smuggling[i].name);
        attacker_open(&attacker, false, false);
        (void)attacker_send(&attacker, bytes ? bytes : ZERO,
                            bytes ? strlen(bytes) : sizeof(ZERO) - 1);
        CHECK(attacker_is_closed(&attacker));
        CHECK(strncmp(attacker.text, "HTTP/1.1 4", 10) == 0 ||
              strncmp(attacker.text, "HTTP/1.1 5", 10) == 0);
        CHECK(strstr(attacker.text, "HTTP/1.1 2") == NULL);
        attacker_close(&attacker);
        CHECK_UINT(atomic_load(&site.applications), 0); /* nothing came that far */
    }
    attack_end("smuggling");
}

/* ---- what HTTP/2 may not bring in ---- */

static const struct {
    const char *name, *value;
} injected[] = {
    {"x", "y\r\nhost: b"},
    {"x", "y\nhost: b"},
    {"x", "y\rz"},
    {"x\r\ny", "z"},
    {"x: y", "z"},
    {"transfer-encoding", "chunked"},
    {"connection", "close"},
    {"keep-alive", "1"},
    {"proxy-connection", "close"},
    {"upgrade", "h2c"},
    {"te", "chunked"},
    {"host", "b\r\n"},
    {" x", "y"},
    {"X", "y"},
    {":scheme", "http"},
    {"content-length", "1, 2"},
    {"content-length", "-1"},
};

TEST(attack_injection_http2)
{
    static struct attacker attacker;
    attack_begin(NULL);
    for (unsigned i = 0; i < BM_ARRAY_LEN(injected); i++) {
        test_note("'%s: %s'", injected[i].name, injected[i].value);
        attacker_open(&attacker, false, true);
        frames_greet(0, 0);
        frames_post_with(1, "/smuggled", F_END_STREAM, injected[i].name, injected[i].value);
        REQUIRE(frames_send(&attacker));
        ATTACKER_UNTIL(&attacker, attacker.frames[F_RST_STREAM] + attacker.goaway > 0);
        CHECK_UINT(attacker.oks, 0);
        attacker_close(&attacker);
        CHECK_UINT(atomic_load(&site.applications), 0);
    }
    attack_end("injection");
}
