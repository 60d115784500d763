/* Any conversation with a whole session. The input is what a peer says: frames, when they leave, when time
 * passes, when it reads. It goes through a real socket to a runtime inside this process that serves, keeps
 * messages, calls back and attaches. Nothing may crash; what comes back is well-formed; and when the peer
 * has gone nothing is left: no session, no channel, and no copy of a descriptor.
 *
 * Input: a byte of roles (below), then records. A record is a byte with the kind in its low half, the
 * flags of the packet in its high half, and the bytes its kind takes; past the end all bytes are 0. What
 * libFuzzer changes is thus a field of a frame more often than the sense of all that follows.
 *
 * Either side can be the one that connected: a hostile client, or a hostile server whose client has calls under
 * way. Descriptors travel both ways, are taken or left, and sometimes find no room in the table.
 *
 * Covers: runtime/incoming.c:-is_plain,-bm_incoming_plain runtime/unix_receive.c runtime/unpacking.c
 *     runtime/request.c runtime/attachments.c runtime/early.c:-refuse runtime/unix_watch.c */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <beam/beam.h>

#include "base/clock.h"
#include "runtime/core.h"
#include "runtime/frame.h"
#include "runtime/hello.h"
#include "runtime/unix_control.h"
#include "runtime/unix_session.h"
#include "tests/fuzz/fuzz.h"

#define RECORDS_MAX 64 /* ours: beyond this a run only becomes slow */
#define KEPT_MAX 16
#define PATIENCE 2000 /* turns after which what is still there stays for ever */

enum role { ROLE_OPENER = 1, ROLE_CALLS_EARLY = 2, ROLE_SILENT = 4, ROLE_NOBODY = 8 };
enum packet {
    PACKET_LEAVES = 0x10,
    PACKET_READ = 0x20,
    PACKET_AN_FD_MORE = 0x40,
    PACKET_OF_ITSELF = 0x80, /* its fds are the peer's own end of the socket */
};
enum record {
    RECORD_RAW,
    RECORD_HELLO,
    RECORD_MSG,
    RECORD_BYTES,
    RECORD_END,
    RECORD_CREDIT,
    RECORD_PING,
    RECORD_GOAWAY,
    RECORD_TIME,
    RECORD_LET_GO,
    RECORD_DRAIN,
    RECORD_CALL,
    RECORD_SCARCE, /* few descriptors are left, or enough again */
    RECORD_SEND,   /* on a channel and a stream of ours */
    RECORD_ASK,    /* for a sign of life, and for what there is to know */
    RECORD_CLOSE,
};

static beam_runtime *runtime;
static struct bm_core *core;
static uint64_t now_ns;

/* --- input ----------------------------------------------------------------------------------- */

static struct fuzz_input input;

static uint8_t next_byte(void)
{
    return fuzz_byte(&input);
}

static uint64_t next_u64(void)
{
    return fuzz_u64(&input);
}

/* Small numbers exactly, others in steps up to where limits are. */
static uint32_t next_len(void)
{
    uint8_t byte = next_byte();
    return byte < 128 ? byte : (byte - 127u) * 520;
}

/* --- the peer -------------------------------------------------------------------------------- */

static int peer = -1;
static int given[2]; /* a pipe: copies of its write end are the fds that travel */
static unsigned packet_fds;
static bool packet_of_itself, own_end_sent;
static uint64_t ping_token; /* of the last PING that has come here */
static size_t packet_len;
static _Alignas(8) uint8_t packet[BM_FRAME_LEN_MAX + 64];

static void settle(void)
{
    struct pollfd pfd = {.fd = beam_runtime_fd(runtime), .events = POLLIN};
    for (unsigned i = 0; i < PATIENCE && poll(&pfd, 1, 0) > 0; i++)
        EXPECT(beam_runtime_turn(runtime) == 0);
}

static bool receive(void)
{
    static _Alignas(8) uint8_t bytes[BM_FRAME_LEN_MAX];
    _Alignas(struct cmsghdr) uint8_t control[BM_UNIX_CONTROL_LEN];
    struct iovec iov = {bytes, sizeof(bytes)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    ssize_t n = recvmsg(peer, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return n < 0 && errno == ECONNRESET;
    struct bm_unix_control parsed;
    struct bm_bytes in = bm_bytes(bytes, (size_t)n);
    struct bm_frame frame;
    unsigned fds = 0;
    int r;
    while ((r = bm_frame_next(&in, &frame)) > 0) {
        EXPECT(r == 1);
        fds += frame.fds;
        if (frame.kind == BM_FRAME_PING && !(frame.flags & BM_PING_ACK))
            ping_token = bm_frame_parse_u64(&frame);
    }
    EXPECT(r == 0);
    bm_unix_control_parse(control, msg.msg_controllen, &parsed);
    EXPECT(parsed.fd_count == fds || msg.msg_flags & MSG_CTRUNC);
    for (unsigned i = 0; i < parsed.fd_count; i++)
        close(parsed.fds[i]);
    return true;
}

static void leave(void)
{
    _Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(BM_PACKET_FDS_MAX * sizeof(int))] = {0};
    struct iovec iov = {packet, packet_len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    unsigned fds = packet_fds < BM_PACKET_FDS_MAX ? packet_fds : BM_PACKET_FDS_MAX;
    if (packet_len == 0)
        return;
    if (fds > 0) {
        msg.msg_control = control;
        msg.msg_controllen = CMSG_SPACE(fds * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fds * sizeof(int));
        for (unsigned i = 0; i < fds; i++)
            memcpy(CMSG_DATA(header) + i * sizeof(int), packet_of_itself ? &peer : &given[1],
                   sizeof(int));
        own_end_sent |= packet_of_itself;
    }
    (void)sendmsg(peer, &msg, MSG_NOSIGNAL | MSG_DONTWAIT); /* it may have ended the session */
    packet_len = packet_fds = 0;
    packet_of_itself = false;
    settle();
}

/* Room for a frame, in this packet or the next. */
static uint8_t *room(size_t len)
{
    if (packet_len + len > BM_FRAME_LEN_MAX)
        leave();
    return packet + packet_len;
}

static void put(const uint8_t *end)
{
    packet_len = (size_t)(end - packet);
}

/* A map of one string, or of what the input says. */
static uint32_t put_map(uint8_t *out, uint32_t len)
{
    static const char text[256] = "reverse";
    beam_kv_writer w;
    const void *document;
    size_t document_len = 0;
    beam_kv_writer_init(&w, out, 512);
    beam_kv_begin_map(&w, NULL);
    beam_kv_put_strn(&w, len % 2 ? "message" : "error", text, len % sizeof(text));
    beam_kv_end(&w);
    EXPECT(beam_kv_writer_finish(&w, &document, &document_len) == 0);
    return (uint32_t)document_len;
}

static void put_hello(bool opener)
{
    uint8_t document[BM_HELLO_LEN_MAX];
    struct bm_hello hello = {.version = BM_PROTOCOL_VERSION,
                             .opener = opener,
                             .name = {"a peer", 6},
                             .window = BM_WINDOW_MIN + next_len(),
                             .channels_max = 1 + next_len(),
                             .message_len_max = 1 + 4 * next_len(),
                             .fds_max = next_byte()};
    hello.opener ^= hello.fds_max == 254;
    hello.fds_refused = hello.fds_max == 255;
    hello.fds_max %= 254;
    uint32_t len = (uint32_t)bm_hello_write(&hello, document);
    put(bm_frame_put_hello(room(len + BM_FRAME_HEADER_LEN), document, len));
}

static void put_raw(void)
{
    uint8_t len = next_byte();
    uint8_t *out = room(len);
    for (unsigned i = 0; i < len; i++)
        out[i] = next_byte();
    put(out + len);
}

/* Header and payload as they come, but for the length, the padding, and what follows from the flags. */
static void put_message(void)
{
    static const char *const names[] = {"echo", "keep", "talk",   "chat",
                                        "back", "sink", "nobody", ""};
    static const uint8_t body[BM_FRAME_LEN_MAX];
    static uint8_t meta[512];
    uint64_t id = next_u64();
    uint8_t flags = next_byte() & 15, with = next_byte(), more = next_byte();
    struct bm_message_head head = {.open = flags & BM_MSG_OPEN, .large = flags & BM_MSG_MORE};
    uint8_t *entries = NULL;

    if (head.open) {
        const char *name = names[more % 8];
        head.name = (beam_str){name, name[0] ? strlen(name) : 255};
        if (!name[0])
            head.name.ptr = (const char *)body;
        head.depth = more & 64 ? next_byte() : 0;
        head.deadline_ns = more & 128 ? (uint64_t)next_byte() * 10 * BM_NS_PER_MS : 0;
    }
    head.body = body;
    head.body_len = next_len();
    if (head.large)
        head.body_total = more & 32 ? next_u64() : head.body_len + (uint64_t)next_len();
    if (with & 128) {
        head.metadata = meta;
        head.metadata_len = put_map(meta, next_byte());
    }
    uint64_t first = id + 2;
    head.attached = with & 3;
    if (with & 64) {
        first = next_u64();
        head.attached = next_byte() % 66;
    }
    uint8_t fds = with & 32 ? next_byte() : (with >> 2) & 3;
    size_t len = bm_frame_message_head_len(&head);
    if (len + head.body_len > BM_FRAME_LEN_MAX)
        head.body_len = (uint32_t)(BM_FRAME_LEN_MAX - len);
    uint8_t *out = room(bm_round_up8(len + head.body_len));
    put(bm_frame_put_message(out, id, flags, fds, &head, &entries));
    for (unsigned i = 0; i < head.attached; i++) {
        struct bm_attached attached = {.id = first + 2ul * i,
                                       .mode = (with >> 4 & 1) != i % 2 ? BM_MODE_BYTES
                                                                        : BM_MODE_MESSAGES};
        bm_frame_put_attached(entries + (size_t)i * BM_ATTACHED_LEN, &attached);
    }
    packet_fds += fds;
}

static void put_bytes(void)
{
    static const uint8_t bytes[BM_FRAME_LEN_MAX];
    uint64_t id = next_u64();
    uint8_t flags = next_byte() & 15;
    uint32_t len = next_len();
    if (len > BM_FRAME_LEN_MAX - BM_FRAME_HEADER_LEN)
        len = BM_FRAME_LEN_MAX - BM_FRAME_HEADER_LEN;
    put(bm_frame_put_bytes(room(bm_round_up8(BM_FRAME_HEADER_LEN + (size_t)len)), id, flags, bytes,
                           len));
}

static void put_end(bool goaway)
{
    uint8_t details[512];
    uint64_t id = next_u64();
    uint8_t flags = next_byte(), code = next_byte();
    struct bm_frame_end why = {.code = code};
    if (flags & 128) {
        why.details = details;
        why.details_len = put_map(details, next_byte());
    }
    if (goaway)
        put(bm_frame_put_goaway(room(bm_frame_goaway_len(why.details_len)),
                                &(struct bm_frame_goaway){id, why}));
    else
        put(bm_frame_put_end(room(bm_frame_end_len(why.details_len)), id, flags & 1, &why));
}

/* --- this side ------------------------------------------------------------------------------- */

static beam_message *kept[KEPT_MAX];
static beam_request *waiting[KEPT_MAX]; /* for an answer */
static beam_channel *channels[KEPT_MAX];
static beam_stream *streams[KEPT_MAX];
static beam_session *called;

static size_t free_slot(void *const *slots)
{
    size_t i = 0;
    while (i < KEPT_MAX && slots[i])
        i++;
    return i;
}

static void keep_message(const beam_message *message)
{
    size_t i = free_slot((void **)kept);
    if (i < KEPT_MAX)
        kept[i] = beam_message_keep(message);
}

static void forget(void **slots, const void *what)
{
    for (size_t i = 0; i < KEPT_MAX; i++)
        if (slots[i] == what)
            slots[i] = NULL;
}

static void on_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    if (len % 3 == 0)
        keep_message(message);
    else
        (void)beam_channel_send_body(channel, body, len);
}

static void on_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    forget((void **)channels, channel);
    beam_channel_free(channel);
}

static const struct beam_channel_handlers channel_handlers = {.on_message = on_message,
                                                              .on_end = on_end};

static void on_data(beam_stream *stream, const void *data, size_t len, void *arg)
{
    if (len % 3 == 0)
        beam_stream_hold(stream);
    else
        (void)beam_stream_write(stream, data, len);
    if (len % 3 == 0 && len % 2 == 0)
        beam_stream_release(stream, len);
}

static void on_stream_end(beam_stream *stream, const struct beam_status *status, void *arg)
{
    forget((void **)streams, stream);
    beam_stream_free(stream);
}

static const struct beam_stream_handlers stream_handlers = {.on_data = on_data,
                                                            .on_end = on_stream_end};

static void take_attached(const beam_message *message)
{
    for (unsigned i = 0; i < beam_message_fd_count(message); i++) {
        int looked = beam_message_peek_fd(message, i), fd = beam_message_take_fd(message, i);
        EXPECT(fd == looked && beam_message_take_fd(message, i) == -1);
        if (fd >= 0)
            close(fd);
    }
    for (unsigned i = 0; i < beam_message_channel_count(message); i++) {
        size_t slot = free_slot((void **)channels);
        if (slot < KEPT_MAX && (channels[slot] = beam_message_take_channel(message, i)))
            beam_channel_set_handlers(channels[slot], &channel_handlers, NULL);
        slot = free_slot((void **)streams);
        if (slot < KEPT_MAX && (streams[slot] = beam_message_take_stream(message, i)))
            beam_stream_set_handlers(streams[slot], &stream_handlers, NULL);
    }
}

/* A message with everything, as far as the peer takes it. */
static beam_message *with_everything(void)
{
    beam_message *message = beam_message_new();
    int fd = dup(given[1]);
    beam_message_put_str(message, "text", "hi");
    beam_message_attach_fd(message, &fd);
    size_t slot = free_slot((void **)streams);
    if (slot < KEPT_MAX && (streams[slot] = beam_message_attach_stream(message)))
        beam_stream_set_handlers(streams[slot], &stream_handlers, NULL);
    beam_message_reserve_body(message, 300);
    return message;
}

static void look_at(const beam_request *request)
{
    EXPECT(beam_request_depth(request) <= 16 && beam_request_peer(request));
    EXPECT(beam_request_service(request).len > 0 && beam_request_deadline_ns(request) > 0);
    EXPECT(!beam_request_is_event(request) || !beam_request_is_open(request));
    (void)beam_request_is_cancelled(request);
}

static void echo(beam_request *request, const beam_message *message, void *arg)
{
    look_at(request);
    beam_message *answer = beam_message_keep(message);
    beam_reply(request, &answer);
    beam_message_free(answer);
}

/* Events of one name are one request, which was kept as often as they came, and is told once. */
static void on_cancel(beam_request *request, void *arg)
{
    for (size_t i = 0; i < KEPT_MAX; i++) {
        if (waiting[i] != request)
            continue;
        waiting[i] = NULL;
        beam_fail(request, BEAM_CANCELLED, NULL);
    }
}

static void keep(beam_request *request, const beam_message *message, void *arg)
{
    size_t i = free_slot((void **)waiting);
    keep_message(message);
    if (i == KEPT_MAX) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no slot left");
        return;
    }
    waiting[i] = request;
    beam_request_keep(request);
    beam_request_on_cancel(request, on_cancel, NULL);
}

static void on_talk_message(beam_channel *channel, const beam_message *message, void *arg)
{
    size_t len;
    const void *body = beam_message_body(message, &len);
    if (len == 7)
        keep_message(message);
    (void)beam_channel_send_body(channel, body, len);
}

static void on_talk_end(beam_channel *channel, const struct beam_status *status, void *arg)
{
    beam_reply(arg, NULL);
}

static const struct beam_channel_handlers talk_handlers = {.on_message = on_talk_message,
                                                           .on_end = on_talk_end};

static void talk(beam_request *request, const beam_message *message, void *arg)
{
    if (!beam_request_is_open(request)) {
        beam_reply(request, NULL);
        return;
    }
    beam_request_keep(request);
    beam_channel_set_handlers(beam_request_channel(request), &talk_handlers, request);
}

static void chat(beam_request *request, const beam_message *message, void *arg)
{
    take_attached(message);
    beam_message *answer = with_everything();
    beam_reply(request, &answer);
    beam_message_free(answer);
}

static void on_back(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_request *request = arg;
    if (status->code != BEAM_OK)
        beam_fail(request, status->code, "%.*s", BEAM_STR(status->message));
    else
        beam_reply(request, NULL);
}

static void back(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *question = with_everything();
    int r = beam_call(beam_request_session(request), "peer", &question, on_back, request,
                      &BEAM_CALL_OPTIONS(.parent = request));
    beam_message_free(question);
    if (r < 0)
        beam_fail(request, BEAM_UNAVAILABLE, "%s", beam_strerror(r));
    else
        beam_request_keep(request);
}

static void sink(beam_request *request, const beam_message *message, void *arg)
{
    keep_message(message);
}

static void let_go(void)
{
    for (size_t i = 0; i < KEPT_MAX; i++) {
        beam_request *request = waiting[i];
        waiting[i] = NULL;
        if (kept[i] && i % 2)
            take_attached(kept[i]);
        if (request)
            beam_reply(request, &kept[i]);
        kept[i] = beam_message_free(kept[i]);
        channels[i] = beam_channel_free(channels[i]);
        streams[i] = beam_stream_free(streams[i]);
    }
}

/* Something for whom we talk to, with an fd and a stream if the input says so. */
static void send_something(void)
{
    uint8_t how = next_byte(), which = how % KEPT_MAX;
    static const uint8_t bytes[20000];
    uint32_t len = next_len() % sizeof(bytes);
    if (channels[which]) {
        beam_message *message = how & 16 ? with_everything() : beam_message_new();
        beam_message_set_body(message, bytes, len);
        if (how & 32)
            (void)beam_channel_send_last(channels[which], &message);
        else
            (void)beam_channel_send(channels[which], &message);
        beam_message_free(message);
        EXPECT(beam_channel_credit(channels[which]) <= INT64_C(1) << 62);
    }
    if (streams[which]) {
        ssize_t n = beam_stream_write(streams[which], bytes, len);
        EXPECT(n <= (ssize_t)len);
        if (how & 32)
            beam_stream_end(streams[which]);
    }
    if (how & 64 && channels[which])
        beam_channel_reset(channels[which], BEAM_ABORTED, "enough");
    if (how & 128 && streams[which])
        beam_stream_reset(streams[which], BEAM_ABORTED, "enough");
}

static bool pinging; /* neither answered nor given up */

static void on_ping(uint64_t ns, void *arg)
{
    EXPECT(pinging && called);
    pinging = false;
}

static void ask(void)
{
    struct beam_session_stats stats;
    if (!called)
        return;
    beam_str name = beam_session_peer_name(called);
    EXPECT(name.len <= 255 && beam_session_peer(called));
    beam_session_stats(called, &stats);
    (void)beam_session_is_open(called);
    if (beam_session_ping(called, on_ping, NULL) == 0) {
        EXPECT(!pinging);
        pinging = true;
    }
}

/* With the table of descriptors full, but for some. */
static void set_room(uint8_t room)
{
    static struct rlimit most;
    struct rlimit limit;
    if (most.rlim_cur == 0)
        EXPECT(getrlimit(RLIMIT_NOFILE, &most) == 0);
    limit = most;
    if (room < 128) {
        int next = dup(given[0]);
        EXPECT(next >= 0);
        close(next);
        limit.rlim_cur = (rlim_t)next + room % 8;
    }
    EXPECT(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    if (message)
        take_attached(message);
}

/* What a client does: a call with attachments, an open one, an event, a large call with a time limit. */
static void call_everything(void)
{
    for (unsigned i = 0; i < 4; i++) {
        beam_message *message = i == 0 ? with_everything() : beam_message_new();
        size_t slot = free_slot((void **)channels);
        if (i == 3)
            beam_message_reserve_body(message, 70000);
        if (i == 1 && slot < KEPT_MAX)
            (void)beam_open(called, "peer", &message, &channel_handlers, NULL, NULL,
                            &channels[slot]);
        else if (i == 2)
            (void)beam_send_event(called, "peer", &message);
        else
            (void)beam_call(called, "peer", &message, on_reply, NULL,
                            &BEAM_CALL_OPTIONS(.timeout_ns = i * BEAM_SEC / 3));
        beam_message_free(message);
    }
}

/* --- a run ----------------------------------------------------------------------------------- */

static uint64_t read_clock(void *arg)
{
    return now_ns;
}

static void no_random(void *buf, size_t len, void *arg)
{
    memset(buf, 0x5a, len);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const struct bm_clock clock = {.now_ns = read_clock, .random = no_random};
    static const struct {
        const char *name;
        beam_handler *handler;
    } services[] = {{"echo", echo}, {"keep", keep}, {"talk", talk},
                    {"chat", chat}, {"back", back}, {"sink", sink}};
    now_ns = bm_clock_now_ns();
    if (!beam_platform()->io_uring) {
        fprintf(stderr, "fuzz_session: %s\n", beam_runtime_why());
        return 1;
    }
    bm_clock_set(&clock);
    /* Small limits, so that they are met. */
    EXPECT(beam_runtime_new(
               &BEAM_RUNTIME_OPTIONS(.embedded = true, .transports = BEAM_TRANSPORTS(&beam_unix),
                                     .name = "fuzzed", .limits.window = 20000,
                                     .limits.channels_max = 20, .limits.message_len_max = 100000,
                                     .limits.large_len_max = 150000, .limits.queue_len_max = 65536,
                                     .limits.fds_max = 8, .limits.aborts_per_s = 2),
               &runtime) == 0);
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++)
        EXPECT(beam_serve(runtime, services[i].name, services[i].handler, NULL) == 0);
    core = bm_core_current();
    return 0;
}

static void begin(uint8_t roles)
{
    int fds[2], on = !(roles & ROLE_NOBODY);
    EXPECT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    EXPECT(pipe(given) == 0);
    EXPECT(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0);
    peer = fds[1];
    packet_len = packet_fds = 0;
    packet_of_itself = own_end_sent = false;
    called = NULL;
    pinging = false;
    if (roles & ROLE_OPENER) {
        char url[32];
        snprintf(url, sizeof(url), "unix:fd:%d", fds[0]);
        EXPECT(beam_connect(runtime, url, NULL, &called) == 0);
        if (roles & ROLE_CALLS_EARLY)
            call_everything();
    } else {
        struct bm_unix_session *us;
        EXPECT(bm_unix_session_new(core, &fds[0], false, &us) == 0);
        bm_unix_session_up(us);
    }
    settle();
    if (!(roles & ROLE_SILENT))
        put_hello(!(roles & ROLE_OPENER));
}

static void record(uint8_t roles)
{
    uint8_t op = next_byte();
    switch (op & 15) {
    case RECORD_RAW:
        put_raw();
        break;
    case RECORD_HELLO:
        put_hello(!(roles & ROLE_OPENER));
        break;
    case RECORD_MSG:
        put_message();
        break;
    case RECORD_BYTES:
        put_bytes();
        break;
    case RECORD_END:
    case RECORD_GOAWAY:
        put_end((op & 15) == RECORD_GOAWAY);
        break;
    case RECORD_CREDIT:
    case RECORD_PING: {
        uint64_t id = next_u64(), value = next_u64();
        bool ping = (op & 15) == RECORD_PING;
        if (ping && id % 2)
            value += ping_token; /* 0 more answers it */
        put(bm_frame_put_u64(room(BM_FRAME_U64_LEN), ping ? BM_FRAME_PING : BM_FRAME_CREDIT,
                             ping && id % 2 ? BM_PING_ACK : 0, ping ? 0 : id, value));
        break;
    }
    case RECORD_TIME:
        now_ns += next_byte() * 20 * BM_NS_PER_MS;
        EXPECT(beam_runtime_turn(runtime) == 0);
        break;
    case RECORD_LET_GO:
        let_go();
        break;
    case RECORD_DRAIN:
        if (called)
            beam_session_drain(called);
        break;
    case RECORD_CALL:
        if (called)
            call_everything();
        break;
    case RECORD_SCARCE:
        set_room(255);
        set_room(next_byte());
        break;
    case RECORD_SEND:
        send_something();
        break;
    case RECORD_ASK:
        ask();
        break;
    case RECORD_CLOSE:
        if (called)
            beam_session_close(called);
        break;
    }
    if (op & PACKET_AN_FD_MORE)
        packet_fds++;
    packet_of_itself |= op & PACKET_OF_ITSELF;
    if (op & PACKET_LEAVES)
        leave();
    if (op & PACKET_READ) {
        settle();
        while (receive())
            settle();
    }
}

/* A peer whose own end is here reads all that comes back: what lay in its own queue would be garbage that the
 * kernel collects in its own time. */
static void read_all(void)
{
    for (unsigned i = 0; i < 20; i++) {
        let_go();
        settle();
        while (receive())
            settle();
    }
}

static void finish(void)
{
    struct pollfd gone = {.fd = given[0], .events = POLLIN};
    struct beam_stats stats;
    unsigned turns = 0;
    set_room(255);
    leave();
    settle();
    if (own_end_sent)
        read_all();
    close(peer);
    settle();
    let_go();
    called = beam_session_free(called);
    close(given[1]);
    do {
        /* Nobody hears of the end of a peer whose own end is here: that takes a minute or two. */
        now_ns += own_end_sent && turns > 50 ? 10 * BM_NS_PER_S : BM_NS_PER_MS;
        EXPECT(beam_runtime_turn(runtime) == 0);
        settle();
        let_go(); /* what a call that ended brought with it */
        EXPECT(beam_runtime_stats(runtime, 0, &stats) == 0);
    } while ((stats.sessions > 0 || stats.channels > 0 || poll(&gone, 1, 0) == 0) &&
             turns++ < PATIENCE);
    EXPECT(stats.sessions == 0);
    EXPECT(stats.channels == 0);
    EXPECT(gone.revents & POLLHUP);
    close(given[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input = (struct fuzz_input){data, data + size};
    uint8_t roles = next_byte();
    begin(roles);
    for (unsigned i = 0; i < RECORDS_MAX && input.pos < input.end; i++)
        record(roles);
    finish();
    return 0;
}
