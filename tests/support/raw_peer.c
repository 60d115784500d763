/* Plain socket calls; see raw_peer.h. */
#include "tests/support/raw_peer.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <beam/error.h>

#include "runtime/unix_control.h"
#include "tests/support/test.h"

/* --- making packets -------------------------------------------------------------------------- */

void raw_clear(struct raw_packet *packet)
{
    packet->len = 0;
    packet->fd_count = 0;
}

static uint8_t *room(struct raw_packet *packet, size_t len)
{
    REQUIRE(packet->len + len <= sizeof(packet->bytes));
    return packet->bytes + packet->len;
}

static void put(struct raw_packet *packet, const uint8_t *end)
{
    packet->len = (size_t)(end - packet->bytes);
}

void raw_put(struct raw_packet *packet, const void *bytes, size_t len)
{
    uint8_t *out = room(packet, len);
    if (len > 0)
        memcpy(out, bytes, len);
    packet->len += len;
}

void raw_put_hello_of(struct raw_packet *packet, const struct bm_hello *hello)
{
    uint8_t document[BM_HELLO_LEN_MAX];
    uint32_t len = (uint32_t)bm_hello_write(hello, document);
    put(packet, bm_frame_put_hello(room(packet, len + BM_FRAME_HEADER_LEN + 8), document, len));
}

void raw_put_hello(struct raw_packet *packet, bool opener)
{
    struct bm_hello hello = {
        .version = BM_PROTOCOL_VERSION,
        .opener = opener,
        .window = 65536,
        .channels_max = 1024,
        .message_len_max = 16u << 20,
        .fds_max = 64,
    };
    raw_put_hello_of(packet, &hello);
}

void raw_put_head(struct raw_packet *packet, uint64_t id, uint8_t flags, uint8_t fds,
                  const struct bm_message_head *head, const struct bm_attached *attached)
{
    uint8_t *entries = NULL;
    uint32_t len =
        (uint32_t)bm_round_up8(bm_frame_message_head_len(head) + (uint64_t)head->body_len);
    uint8_t *out = room(packet, len);
    put(packet, bm_frame_put_message(out, id, flags, fds, head, &entries));
    for (unsigned i = 0; i < head->attached; i++)
        bm_frame_put_attached(entries + i * BM_ATTACHED_LEN, &attached[i]);
}

void raw_put_open(struct raw_packet *packet, uint64_t id, uint8_t flags, const char *service,
                  const void *body, uint32_t len)
{
    struct bm_message_head head = {
        .open = true,
        .name = {service, strlen(service)},
        .body = body,
        .body_len = len,
    };
    raw_put_head(packet, id, (uint8_t)(flags | BM_MSG_OPEN), 0, &head, NULL);
}

void raw_put_message(struct raw_packet *packet, uint64_t id, uint8_t flags, const void *body,
                     uint32_t len)
{
    struct bm_message_head head = {.body = body, .body_len = len};
    raw_put_head(packet, id, flags, 0, &head, NULL);
}

void raw_put_bytes(struct raw_packet *packet, uint64_t id, uint8_t flags, const void *bytes,
                   uint32_t len)
{
    put(packet,
        bm_frame_put_bytes(room(packet, len + BM_FRAME_HEADER_LEN + 8ul), id, flags, bytes, len));
}

void raw_put_end(struct raw_packet *packet, uint64_t id, uint8_t flags, uint32_t code)
{
    struct bm_frame_end end = {.code = code};
    put(packet, bm_frame_put_end(room(packet, bm_frame_end_len(0)), id, flags, &end));
}

static void put_u64(struct raw_packet *packet, enum bm_frame_kind kind, uint64_t id, uint64_t value)
{
    put(packet, bm_frame_put_u64(room(packet, BM_FRAME_U64_LEN), kind, 0, id, value));
}

void raw_put_credit(struct raw_packet *packet, uint64_t id, uint64_t amount)
{
    put_u64(packet, BM_FRAME_CREDIT, id, amount);
}

void raw_put_ping(struct raw_packet *packet, uint64_t token)
{
    put_u64(packet, BM_FRAME_PING, 0, token);
}

void raw_put_goaway(struct raw_packet *packet, uint64_t last_id, uint32_t code)
{
    struct bm_frame_goaway goaway = {.last_id = last_id, .why.code = code};
    put(packet, bm_frame_put_goaway(room(packet, bm_frame_goaway_len(0)), &goaway));
}

void raw_add_fd(struct raw_packet *packet, int fd)
{
    REQUIRE(packet->fd_count < 256);
    packet->fds[packet->fd_count++] = fd;
}

/* --- the socket ------------------------------------------------------------------------------ */

void raw_name(char *out, size_t cap)
{
    uint64_t random;
    REQUIRE_INT(getrandom(&random, sizeof(random), 0), sizeof(random));
    snprintf(out, cap, "beam-test-%d-%016llx", (int)getpid(), (unsigned long long)random);
}

static socklen_t address_of(struct sockaddr_un *sun, const char *name)
{
    size_t len = strlen(name);
    bool path = name[0] == '/';
    *sun = (struct sockaddr_un){.sun_family = AF_UNIX};
    REQUIRE(len + 1 < sizeof(sun->sun_path));
    memcpy(sun->sun_path + (path ? 0 : 1), name, len);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
}

static int new_socket(void)
{
    int on = 1;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    REQUIRE_INT(setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
    return fd;
}

void raw_wrap(struct raw_peer *peer, int fd)
{
    peer->fd = fd;
    peer->ended = false;
    peer->rest = (struct bm_bytes){peer->packet, peer->packet};
    peer->fd_count = 0;
}

void raw_socket(struct raw_peer *peer)
{
    int fd = new_socket();
    REQUIRE(fd >= 0);
    raw_wrap(peer, fd);
}

int raw_try_connect_on(struct raw_peer *peer, const char *name)
{
    struct sockaddr_un sun;
    socklen_t len = address_of(&sun, name);
    return connect(peer->fd, (const struct sockaddr *)&sun, len) < 0 ? -errno : 0;
}

int raw_try_connect(struct raw_peer *peer, const char *name)
{
    raw_wrap(peer, -1);
    int fd = new_socket();
    if (fd < 0)
        return fd;
    raw_wrap(peer, fd);
    int r = raw_try_connect_on(peer, name);
    if (r < 0)
        raw_close(peer);
    return r;
}

void raw_connect(struct raw_peer *peer, const char *name)
{
    REQUIRE_INT(raw_try_connect(peer, name), 0);
}

int raw_listen(const char *name, int backlog)
{
    struct sockaddr_un sun;
    socklen_t len = address_of(&sun, name);
    int fd = new_socket();
    REQUIRE(fd >= 0);
    REQUIRE_INT(bind(fd, (const struct sockaddr *)&sun, len), 0);
    REQUIRE_INT(listen(fd, backlog), 0);
    return fd;
}

static bool wait_for(int fd, short events, int timeout_ms)
{
    struct pollfd pfd = {.fd = fd, .events = events};
    int n;
    do
        n = poll(&pfd, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    return n > 0;
}

void raw_accept(struct raw_peer *peer, int listener)
{
    raw_wrap(peer, -1);
    REQUIRE(wait_for(listener, POLLIN, RAW_TIMEOUT_MS));
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    REQUIRE(fd >= 0);
    raw_wrap(peer, fd);
}

void raw_close(struct raw_peer *peer)
{
    if (peer->fd >= 0)
        close(peer->fd);
    peer->fd = -1;
    for (unsigned i = 0; i < peer->fd_count; i++)
        close(peer->fds[i]);
    peer->fd_count = 0;
}

int raw_try_send(struct raw_peer *peer, const struct raw_packet *packet, int timeout_ms)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(256 * sizeof(int))];
    struct iovec iov = {(void *)packet->bytes, packet->len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (packet->fd_count > 0) {
        memset(control, 0, sizeof(control));
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(packet->fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(packet->fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), packet->fds, packet->fd_count * sizeof(int));
    }
    for (;;) {
        if (sendmsg(peer->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return 0;
        if (errno == EINTR)
            continue;
        if (errno != EAGAIN)
            return -errno;
        if (!wait_for(peer->fd, POLLOUT, timeout_ms))
            return -ETIMEDOUT;
    }
}

void raw_send(struct raw_peer *peer, struct raw_packet *packet)
{
    REQUIRE_INT(raw_try_send(peer, packet, RAW_TIMEOUT_MS), 0);
    raw_clear(packet);
}

static int next_packet(struct raw_peer *peer, int timeout_ms)
{
    _Alignas(struct cmsghdr) uint8_t control[BM_UNIX_CONTROL_LEN];
    struct bm_unix_control parsed;
    struct iovec iov = {peer->packet, sizeof(peer->packet)};
    for (;;) {
        struct msghdr msg = {
            .msg_iov = &iov,
            .msg_iovlen = 1,
            .msg_control = control,
            .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(peer->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (!wait_for(peer->fd, POLLIN, timeout_ms))
                return -ETIMEDOUT;
            continue;
        }
        if (n < 0 && errno == ECONNRESET)
            continue; /* said once; what was sent before the close lies behind it */
        if (n < 0)
            return -errno;
        bm_unix_control_parse(control, msg.msg_controllen, &parsed);
        for (unsigned i = 0; i < parsed.fd_count; i++) {
            if (peer->fd_count < RAW_FDS_MAX)
                peer->fds[peer->fd_count++] = parsed.fds[i];
            else
                close(parsed.fds[i]);
        }
        if (n == 0) {
            peer->ended = true;
            return 0;
        }
        peer->rest = (struct bm_bytes){peer->packet, peer->packet + n};
        return 1;
    }
}

int raw_next(struct raw_peer *peer, int timeout_ms)
{
    for (;;) {
        int r = bm_frame_next(&peer->rest, &peer->frame);
        if (r != 0) {
            CHECK_INT(r, 1); /* what Beam sends is well-formed and of a known kind */
            if (r == 1)
                return 1;
            peer->rest.pos = peer->rest.end;
            continue;
        }
        if (peer->ended)
            return 0;
        r = next_packet(peer, timeout_ms);
        if (r <= 0)
            return r;
    }
}

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

bool raw_find(struct raw_peer *peer, uint8_t kind, uint64_t channel)
{
    int64_t until = now_ms() + RAW_TIMEOUT_MS;
    for (;;) {
        int64_t left = until - now_ms();
        int r = raw_next(peer, left > 0 ? (int)left : 0);
        if (r == 1 && peer->frame.kind == kind && (channel == 0 || peer->frame.channel == channel))
            return true;
        REQUIRE(r >= 0);
        if (r == 0)
            return false;
    }
}

void raw_sync(struct raw_peer *peer)
{
    static uint64_t last_token;
    _Alignas(8) uint8_t bytes[BM_FRAME_U64_LEN];
    uint64_t token = ++last_token;
    bm_frame_put_u64(bytes, BM_FRAME_PING, 0, 0, token);
    REQUIRE_INT(send(peer->fd, bytes, sizeof(bytes), MSG_NOSIGNAL), sizeof(bytes));
    for (;;) {
        REQUIRE(raw_find(peer, BM_FRAME_PING, 0));
        if ((peer->frame.flags & BM_PING_ACK) && bm_frame_parse_u64(&peer->frame) == token)
            return;
    }
}

/* --- the usual ------------------------------------------------------------------------------- */

void raw_open_session(struct raw_peer *peer, const char *name)
{
    static struct raw_packet packet;
    raw_connect(peer, name);
    raw_clear(&packet);
    raw_put_hello(&packet, true);
    raw_send(peer, &packet);
    REQUIRE_INT(raw_next(peer, RAW_TIMEOUT_MS), 1);
    REQUIRE_INT(peer->frame.kind, BM_FRAME_HELLO);
}

static bool is_limit(const char *error)
{
    static const char *const limits[] = {"TOO_MANY_CHANNELS", "FLOW_CONTROL", "CREDIT_OVERFLOW",
                                         "FRAME_OVERSIZED"};
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++)
        if (strcmp(error, limits[i]) == 0)
            return true;
    return false;
}

void raw_expect_goaway(struct raw_peer *peer, const char *error)
{
    struct bm_frame_goaway goaway;
    struct beam_kv_value details;
    beam_str name = {0};
    char text[64] = "(no GOAWAY)";
    if (raw_find(peer, BM_FRAME_GOAWAY, 0)) {
        bm_frame_parse_goaway(&peer->frame, &goaway);
        if (goaway.why.details &&
            beam_kv_root(goaway.why.details, goaway.why.details_len, &details) == 0)
            (void)beam_kv_get_str(&details, "error", &name);
        snprintf(text, sizeof(text), "%.*s", BEAM_STR(name));
        CHECK_INT(goaway.why.code,
                  is_limit(error) ? BEAM_RESOURCE_EXHAUSTED : BEAM_INVALID_ARGUMENT);
    }
    CHECK_STR(text, error);
    raw_expect_end(peer);
}

void raw_expect_end(struct raw_peer *peer)
{
    int r;
    while ((r = raw_next(peer, RAW_TIMEOUT_MS)) == 1)
        ;
    CHECK_INT(r, 0);
}

uint32_t raw_end_code(const struct raw_peer *peer)
{
    struct bm_frame_end end;
    if (peer->frame.kind != BM_FRAME_END)
        return 0;
    bm_frame_parse_end(&peer->frame, &end);
    return end.code;
}

bool raw_echo(struct raw_peer *peer, uint64_t id, const void *body, uint32_t len)
{
    static struct raw_packet packet;
    raw_clear(&packet);
    raw_put_open(&packet, id, BM_MSG_END, "echo", body, len);
    raw_send(peer, &packet);
    int r;
    while ((r = raw_next(peer, RAW_TIMEOUT_MS)) == 1) {
        struct bm_message_head head;
        if (peer->frame.channel != id || peer->frame.kind == BM_FRAME_CREDIT)
            continue;
        return peer->frame.kind == BM_FRAME_MSG && (peer->frame.flags & BM_MSG_END) &&
               bm_frame_parse_message(&peer->frame, &head) == 0 && head.body_len == len &&
               (len == 0 || memcmp(head.body, body, len) == 0);
    }
    return false;
}
