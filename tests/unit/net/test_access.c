/* Who asks (net/access.h), by what stands in a request and whom it comes from. The connection and its
 * certificate are made up here: access.c asks four questions about them, and these answer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/access.h"
#include "net/bearer.h"
#include "net/network.h"
#include "tests/support/test.h"

static struct {
    const char *address;
    struct bm_identity *certificate; /* NULL: no TLS */
} asker;

struct bm_connection *bm_exchange_connection(const struct bm_exchange *exchange)
{
    return NULL;
}

const struct bm_tls *bm_connection_tls(const struct bm_connection *connection)
{
    return (const struct bm_tls *)asker.certificate; /* any pointer: looked at below alone */
}

const char *bm_connection_address(const struct bm_connection *connection)
{
    return asker.address;
}

const struct bm_identity *bm_tls_peer(const struct bm_tls *tls)
{
    return asker.certificate;
}

/* --- a certificate's names --- */

static union {
    struct bm_identity identity;
    char room[sizeof(struct bm_identity) + 4 * sizeof(struct bm_identity_name)];
} certificate;

static void show_certificate(const char *uri, const char *dns, const char *email, const char *name)
{
    const char *const texts[] = {name, email, dns, uri}; /* not in the order that counts */
    static const enum bm_identity_kind kinds[] = {BM_IDENTITY_COMMON_NAME, BM_IDENTITY_EMAIL,
                                                  BM_IDENTITY_DNS, BM_IDENTITY_URI};
    struct bm_identity *identity = &certificate.identity;
    identity->count = 0;
    for (size_t i = 0; i < 4; i++)
        if (texts[i])
            identity->names[identity->count++] = (struct bm_identity_name){kinds[i], texts[i]};
    asker.certificate = identity;
}

/* --- tokens: "NAME.right" is NAME's --- */

static unsigned authentications;
static int authenticate(beam_str token, char *ret_name, size_t size, void *arg)
{
    const char *dot = memchr(token.ptr, '.', token.len);
    authentications++;
    if (token.len == 6 && memcmp(token.ptr, "broken", 6) == 0)
        return -EIO;
    if (token.len == 7 && memcmp(token.ptr, "endless", 7) == 0) {
        memset(ret_name, 'x', size);
        return 0;
    }
    if (token.len == 8 && memcmp(token.ptr, "nameless", 8) == 0)
        return 0;
    if (token.len == 7 && memcmp(token.ptr, "control", 7) == 0) {
        snprintf(ret_name, size, "a\nb");
        return 0;
    }
    if (!dot || !beam_token_equal((beam_str){dot, token.len - (size_t)(dot - token.ptr)},
                                  (beam_str){".right", 6}))
        return -EACCES;
    snprintf(ret_name, size, "%.*s", (int)(dot - token.ptr), token.ptr);
    return 0;
}

static struct bm_access *access_with(const struct beam_net_listen *options, bool local)
{
    struct bm_access *access = NULL;
    char why[128] = "";
    REQUIRE_INT(bm_access_new(&access, options, local, why), 0);
    return access;
}

static struct bm_visitor visitor;
static int judge(const struct bm_access *access, const struct bm_field *fields, size_t count)
{
    struct bm_exchange_request request = {.fields = fields, .field_count = count};
    memset(&visitor, 0xee, sizeof(visitor));
    int status = bm_access_judge(access, NULL, &request, &visitor);
    CHECK_INT(visitor.admitted, status == 0);
    CHECK_INT(visitor.peer.kind, BEAM_PEER_NET);
    CHECK_STR(visitor.peer.identity.ptr, visitor.name);
    CHECK_UINT(visitor.peer.identity.len, strlen(visitor.name));
    CHECK_STR(visitor.peer.address.ptr, asker.address);
    CHECK_UINT(visitor.peer.address.len, strlen(asker.address));
    CHECK_UINT(visitor.peer.uid, UINT32_MAX); /* never somebody's of this machine */
    if (status != 0) {
        CHECK(!visitor.known);
        CHECK_STR(visitor.name, "");
    }
    return status;
}

#define JUDGE(access_, ...)                                                                        \
    judge((access_), (const struct bm_field[]){__VA_ARGS__},                                       \
          sizeof((const struct bm_field[]){__VA_ARGS__}) / sizeof(struct bm_field))

static void come_from(const char *address)
{
    asker.address = address;
    asker.certificate = NULL;
}

TEST(access_nobody_is_refused_unless_told_otherwise)
{
    come_from("192.0.2.7:4711");
    struct bm_access *access = access_with(&BEAM_NET_LISTEN(.authenticate = NULL), false);
    CHECK_INT(judge(access, NULL, 0), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer ada.right")), 401);
    CHECK_PTR(bm_access_challenge(access), NULL);
    come_from("unix"); /* handed over to a listener that is no unix socket */
    CHECK_INT(judge(access, NULL, 0), 401);
    bm_access_free(access);

    access = access_with(&BEAM_NET_LISTEN(.insecure_anonymous = true), false);
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK(!visitor.known);
    CHECK_STR(visitor.name, "");
    bm_access_free(access);
}

TEST(access_takes_the_first_name_of_a_certificate_in_order)
{
    struct bm_access *access = access_with(&BEAM_NET_LISTEN(.authenticate = authenticate), false);
    come_from("192.0.2.7:4711");
    show_certificate("spiffe://x/a", "a.example", "a@example", "A");
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK(visitor.known);
    CHECK_STR(visitor.name, "uri:spiffe://x/a");
    show_certificate(NULL, "a.example", "a@example", "A");
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK_STR(visitor.name, "dns:a.example");
    show_certificate(NULL, NULL, "a@example", "A");
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK_STR(visitor.name, "email:a@example");
    show_certificate(NULL, NULL, NULL, "Ada \xc3\xa4");
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK_STR(visitor.name, "cn:Ada \xc3\xa4");
    /* It is the first that is there: no token is asked about. */
    authentications = 0;
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer wrong")), 0);
    CHECK_UINT(authentications, 0);

    char long_name[400];
    memset(long_name, 'a', sizeof(long_name));
    long_name[399] = '\0';
    show_certificate(long_name, NULL, NULL, "A");
    CHECK_INT(judge(access, NULL, 0), 403);
    long_name[252] = '\0'; /* and "uri:": 256 */
    show_certificate(long_name, NULL, NULL, NULL);
    CHECK_INT(judge(access, NULL, 0), 403);
    long_name[251] = '\0';
    show_certificate(long_name, NULL, NULL, NULL);
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK_UINT(strlen(visitor.name), 255);
    show_certificate(NULL, NULL, NULL, NULL);
    CHECK_INT(judge(access, NULL, 0), 403);
    bm_access_free(access);
}

TEST(access_by_token)
{
    struct bm_access *access = access_with(
        &BEAM_NET_LISTEN(.authenticate = authenticate, .insecure_anonymous = true), false);
    come_from("[2001:db8::1]:80");
    CHECK_STR(bm_access_challenge(access), "Bearer");
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer ada.right")), 0);
    CHECK_STR(visitor.name, "token:ada");
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "bEARER   eve.right")), 0);
    CHECK_STR(visitor.name, "token:eve");
    /* Names came in lower case; and if not, they are the same field. */
    CHECK_INT(JUDGE(access, BM_FIELD("Authorization", "Bearer eve.wrong")), 401);
    /* Wrong ones are refused even where nobody has to have one. */
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer eve.wrong")), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer ")), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer")), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer a b")), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer a,b")), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer =a")), 401);
    /* What somebody else asks for. */
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Basic YTpi")), 0);
    CHECK(!visitor.known);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearerada.right")), 0);
    CHECK(!visitor.known);
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK(!visitor.known);
    /* What it says about itself is not taken on trust either. */
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer broken")), 503);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer endless")), 403);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer nameless")), 403);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer control")), 403);
    bm_access_free(access);
}

TEST(access_two_authorizations_are_none)
{
    struct bm_access *access = access_with(&BEAM_NET_LISTEN(.authenticate = authenticate), false);
    come_from("192.0.2.7:4711");
    authentications = 0;
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer ada.right"),
                    BM_FIELD("authorization", "Bearer eve.right")),
              401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Basic YTpi"),
                    BM_FIELD("AUTHORIZATION", "Bearer eve.right")),
              401);
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer ada.right"),
                    BM_FIELD("sec-websocket-protocol", "beam.v1, beam.token.YWRhLnJpZ2h0")),
              401);
    CHECK_INT(JUDGE(access, BM_FIELD("sec-websocket-protocol", "beam.token.YWRhLnJpZ2h0"),
                    BM_FIELD("sec-websocket-protocol", "beam.token.YWRhLnJpZ2h0")),
              401);
    CHECK_INT(JUDGE(access, BM_FIELD("sec-websocket-protocol",
                                     "beam.token.YWRhLnJpZ2h0,beam.token.YWRhLnJpZ2h0")),
              401);
    CHECK_UINT(authentications, 0);
    bm_access_free(access);
}

TEST(access_huge_token_is_refused_unread)
{
    struct bm_access *access = access_with(&BEAM_NET_LISTEN(.authenticate = authenticate), false);
    come_from("192.0.2.7:4711");
    size_t room = 4 * BM_BEARER_TOKEN_MAX;
    char *value = (char *)malloc(room);
    REQUIRE(value != NULL);
    memset(value, 'a', room);
    memcpy(value, "Bearer ", 7);
    struct bm_field field = {.name = "authorization", .name_len = 13, .value = value};
    authentications = 0;
    field.value_len = 7 + BM_BEARER_TOKEN_MAX + 1;
    CHECK_INT(judge(access, &field, 1), 431);
    CHECK_UINT(authentications, 0);
    field.value_len--;
    CHECK_INT(judge(access, &field, 1), 401);
    CHECK_UINT(authentications, 1);
    memset(value, 'Y', room);
    memcpy(value, "beam.token.", 11);
    field = (struct bm_field){
        .name = "sec-websocket-protocol", .name_len = 22, .value = value, .value_len = room};
    CHECK_INT(judge(access, &field, 1), 431);
    free(value);
    bm_access_free(access);
}

TEST(access_token_of_a_browser)
{
    struct bm_access *access = access_with(&BEAM_NET_LISTEN(.authenticate = authenticate), false);
    come_from("192.0.2.7:4711");
#define SUBPROTOCOLS(text_) BM_FIELD("sec-websocket-protocol", text_)
    CHECK_INT(JUDGE(access, SUBPROTOCOLS("beam.v1, beam.token.YWRhLnJpZ2h0")), 0);
    CHECK_STR(visitor.name, "token:ada");
    CHECK_INT(JUDGE(access, SUBPROTOCOLS(" beam.token.YWRhLnJpZ2h0\t,beam.v1")), 0);
    CHECK_INT(JUDGE(access, SUBPROTOCOLS("beam.v1"), SUBPROTOCOLS("beam.token.YWRhLnJpZ2h0")), 0);
    CHECK_INT(JUDGE(access, SUBPROTOCOLS("beam.v1")), 401);
    CHECK_INT(JUDGE(access, SUBPROTOCOLS(",,beam.token.YWRhLnJpZ2h0,,")), 0);
    CHECK_INT(JUDGE(access, SUBPROTOCOLS("beam.token.YWRhbS5yaWdodA")), 0);
    CHECK_STR(visitor.name, "token:adam");
    static const char *const wrong[] = {
        "beam.token.YWRhbS5yaWdodB", /* the same, spelled otherwise */
        "beam.token.",               /* nothing */
        "beam.token.YWRhLnJpZ2h0=",  /* padding */
        "beam.token.YWRhLnJpZ2h0A",  /* six bits too many */
        "beam.token.YWRhLnJpZ2h",    /* cut: bits behind the end */
        "beam.token.YWRhLnJpZ2h+",   /* of the other alphabet */
        "beam.token.YQBi",           /* a zero byte in it */
        "beam.token.IA",             /* a blank */
        "BEAM.TOKEN.YWRhLnJpZ2h0",   /* subprotocols are as they are */
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        test_note("%s", wrong[i]);
        struct bm_field field = BM_FIELD("sec-websocket-protocol", wrong[i]);
        CHECK_INT(judge(access, &field, 1), 401);
    }
    bm_access_free(access);
}

static const char *const proxies[] = {"10.0.0.0/8", "2001:db8::7", NULL};

TEST(access_header_is_believed_of_proxies_alone)
{
    struct bm_access *access =
        access_with(&BEAM_NET_LISTEN(.authenticate = authenticate, .proxies = proxies,
                                     .identity_header = "X-Remote-User"),
                    false);
    static const struct {
        const char *from;
        int status;
    } froms[] = {
        {"10.1.2.3:4711", 0},         {"[2001:db8::7]:80", 0},   {"[::ffff:10.1.2.3]:80", 0},
        {"11.1.2.3:4711", 401},       {"[2001:db8::8]:80", 401}, {"unix", 401},
        {"[::ffff:11.1.2.3]:1", 401}, {"10.1.2.3.4:1", 401},     {"", 401},
        {"[fe80::1%eth0]:80", 401},
    };
    for (size_t i = 0; i < sizeof(froms) / sizeof(froms[0]); i++) {
        come_from(froms[i].from);
        test_note("from %s", froms[i].from);
        CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "ada")), froms[i].status);
        if (froms[i].status == 0)
            CHECK_STR(visitor.name, "proxy:ada");
    }
    come_from("10.1.2.3:4711");
    CHECK_INT(judge(access, NULL, 0), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "")), 401);
    /* One is the proxy's and one is not. */
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "ada"), BM_FIELD("x-remote-user", "eve")),
              403);
    CHECK_INT(JUDGE(access, BM_FIELD("X-REMOTE-USER", "eve"), BM_FIELD("x-remote-user", "ada")),
              403);
    CHECK_INT(JUDGE(access, BM_FIELD("x_remote_user", "eve")), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "a\tb")), 403);
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "a\xff")), 403);
    /* A token is before it, for good and for bad. */
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "ada"),
                    BM_FIELD("authorization", "Bearer eve.right")),
              0);
    CHECK_STR(visitor.name, "token:eve");
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "ada"),
                    BM_FIELD("authorization", "Bearer eve.wrong")),
              401);
    /* The proxy's certificate is the proxy's. */
    show_certificate(NULL, "proxy.example", NULL, NULL);
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "ada")), 0);
    CHECK_STR(visitor.name, "proxy:ada");
    CHECK_INT(judge(access, NULL, 0), 401);
    come_from("11.1.2.3:4711");
    show_certificate(NULL, "proxy.example", NULL, NULL);
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "ada")), 0);
    CHECK_STR(visitor.name, "dns:proxy.example");
    bm_access_free(access);
}

static bool hides(const struct bm_access *access, const char *name)
{
    return bm_access_hides(access, NULL, (beam_str){name, strlen(name)});
}

TEST(access_header_of_others_is_hidden)
{
    struct bm_access *access = access_with(
        &BEAM_NET_LISTEN(.proxies = proxies, .identity_header = "x-remote-user"), false);
    come_from("192.0.2.7:4711");
    CHECK(hides(access, "x-remote-user"));
    CHECK(hides(access, "x_remote-user"));
    CHECK(hides(access, "X-Remote_User"));
    CHECK(!hides(access, "x-remote-users"));
    CHECK(!hides(access, "x-remote"));
    CHECK(!hides(access, "cookie"));
    come_from("10.1.2.3:4711");
    CHECK(!hides(access, "x-remote-user"));
    CHECK(hides(access, "x_remote_user")); /* not what the proxy was told to set */
    bm_access_free(access);
    access = access_with(&BEAM_NET_LISTEN(.insecure_anonymous = true), false);
    CHECK(!hides(access, "x-remote-user"));
    CHECK(!hides(access, ""));
    bm_access_free(access);
}

TEST(access_over_a_unix_socket_is_the_modes)
{
    static const char *const behind[] = {"unix", NULL};
    struct bm_access *access = access_with(&BEAM_NET_LISTEN(.authenticate = authenticate), true);
    come_from("unix");
    CHECK_INT(judge(access, NULL, 0), 0);
    CHECK(visitor.known);
    CHECK_STR(visitor.name, "unix");
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer ada.right")), 0);
    CHECK_STR(visitor.name, "token:ada");
    CHECK_INT(JUDGE(access, BM_FIELD("authorization", "Bearer ada.wrong")), 401);
    come_from("192.0.2.7:4711"); /* handed over */
    CHECK_INT(judge(access, NULL, 0), 401);
    bm_access_free(access);

    access =
        access_with(&BEAM_NET_LISTEN(.proxies = behind, .identity_header = "x-remote-user"), true);
    come_from("unix");
    CHECK_INT(judge(access, NULL, 0), 401);
    CHECK_INT(JUDGE(access, BM_FIELD("x-remote-user", "ada")), 0);
    CHECK_STR(visitor.name, "proxy:ada");
    bm_access_free(access);
}

TEST(access_options_that_make_no_sense)
{
    static const char *const good[] = {"127.0.0.1", NULL}, *const named[] = {"localhost", NULL},
                             *const twice[] = {"unix", "unix", "::1", NULL};
    struct bm_access *access = NULL;
    char why[128];
    CHECK_INT(bm_access_new(&access, &BEAM_NET_LISTEN(.proxies = good), false, why), -EINVAL);
    CHECK_STR(why, "proxies and identity_header go together");
    CHECK_INT(bm_access_new(&access, &BEAM_NET_LISTEN(.identity_header = "x"), false, NULL),
              -EINVAL);
    CHECK_INT(bm_access_new(&access,
                            &BEAM_NET_LISTEN(.proxies = named, .identity_header = "x-user"), false,
                            why),
              -EINVAL);
    CHECK(strstr(why, "localhost") != NULL);
    CHECK_INT(bm_access_new(&access, &BEAM_NET_LISTEN(.proxies = good, .identity_header = "x y"),
                            false, why),
              -EINVAL);
    CHECK_INT(bm_access_new(&access,
                            &BEAM_NET_LISTEN(.proxies = good, .identity_header = "Authorization"),
                            false, why),
              -EINVAL);
    CHECK_PTR(access, NULL);
    access = access_with(&BEAM_NET_LISTEN(.proxies = twice, .identity_header = "x-user"), false);
    bm_access_free(access);
    CHECK_PTR(bm_access_free(NULL), NULL);
}

TEST(access_networks)
{
    static const char *const none[] = {"",          "10.0.0.0/33", "10.0.0.1/8",   "::1/129",
                                       "10.0.0.0/", "10.0.0.0/x",  "10.0.0.0/-1",  "10.0.0.0/8/8",
                                       "10.0.0",    "[::1]",       "10.0.0.0/0008"};
    struct bm_network network;
    for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++) {
        test_note("%s", none[i]);
        CHECK_INT(bm_network_read(&network, none[i]), -EINVAL);
    }
    static const struct {
        const char *network, *address;
        bool inside;
    } rows[] = {
        {"10.0.0.0/8", "10.255.0.1:1", true},
        {"10.0.0.0/8", "10.255.0.1", true},
        {"10.0.0.0/9", "10.128.0.1:1", false},
        {"10.128.0.0/9", "10.128.0.1:1", true},
        {"0.0.0.0/0", "255.1.1.1:1", true},
        {"0.0.0.0/0", "[2001:db8::1]:1", false},
        {"::/0", "[2001:db8::1]:1", true},
        {"::/0", "1.2.3.4:1", true},
        {"2001:db8::/33", "[2001:db8:7fff::1]:1", true},
        {"2001:db8::/33", "[2001:db8:8000::1]:1", false},
        {"2001:db8::1", "2001:db8::1", true},
        {"127.0.0.1", "[::ffff:127.0.0.1]:443", true},
        {"127.0.0.1/32", "127.0.0.2:443", false},
        {"::/0", "unix", false},
        {"::/0", "", false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        test_note("%s in %s", rows[i].address, rows[i].network);
        REQUIRE_INT(bm_network_read(&network, rows[i].network), 0);
        CHECK_INT(bm_network_has(&network, rows[i].address), rows[i].inside);
    }
}

TEST(token_equal)
{
#define STR(text_) ((beam_str){(text_), sizeof(text_) - 1})
    CHECK(beam_token_equal(STR("secret"), STR("secret")));
    CHECK(beam_token_equal(STR(""), STR("")));
    CHECK(beam_token_equal((beam_str){NULL, 0}, STR("")));
    CHECK(!beam_token_equal(STR("secret"), STR("secreT")));
    CHECK(!beam_token_equal(STR("Secret"), STR("secret")));
    CHECK(!beam_token_equal(STR("secret"), STR("secre")));
    CHECK(!beam_token_equal(STR("secre"), STR("secret")));
    CHECK(!beam_token_equal(STR(""), STR("s")));
    CHECK(!beam_token_equal(STR("a\0b"), STR("a\0c")));
    char a[512], b[512];
    memset(a, 'a', sizeof(a));
    memcpy(b, a, sizeof(b));
    for (size_t i = 0; i < sizeof(a); i++) {
        b[i] = (char)(a[i] ^ 0x80);
        CHECK(!beam_token_equal((beam_str){a, sizeof(a)}, (beam_str){b, sizeof(b)}));
        b[i] = a[i];
    }
    char longer[768] = {0}; /* a difference of lengths that a byte does not show */
    CHECK(!beam_token_equal((beam_str){longer, 256}, (beam_str){longer, 512}));
}
