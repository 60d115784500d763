/* Who may ask for a service: beam_serve_options.allow. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/flow.h"

struct door {
    _Atomic bool open;
    _Atomic unsigned questions, wrong, asked;
};

/* Who asks is this process, whichever way it comes. */
static bool may_ask(beam_str service, const struct beam_peer *peer, void *arg)
{
    struct door *door = arg;
    if (service.len != 5 || memcmp(service.ptr, "vault", 5) != 0)
        door->wrong++;
    if ((int)peer->kind != flow_peer_kind() ||
        (!flow.network && (peer->uid != getuid() || peer->gid != getgid())))
        door->wrong++;
    if (beam_reactor_current() < 0)
        door->wrong++;
    door->questions++;
    return door->open;
}

static void on_vault(beam_request *request, const beam_message *message, void *arg)
{
    ((struct door *)arg)->asked++;
    beam_reply(request, NULL);
}

static void on_free(beam_request *request, const beam_message *message, void *arg)
{
    beam_reply(request, NULL);
}

static struct door *serve_vault(bool at_home)
{
    struct door *door = flow_share(sizeof(*door));
    (at_home ? flow_serve_at_home : flow_serve)("vault", on_vault, door);
    flow_allow(may_ask);
    flow_serve("free", on_free, NULL);
    flow_start(NULL);
    return door;
}

/* With an fd, and a channel, which are to be disposed of. */
static beam_message *question_with_fd(void)
{
    beam_message *question = beam_message_new();
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    beam_message_attach_fd(question, &fd);
    return question;
}

/* questions: how often one request is asked about. */
static void check_door(struct door *door, unsigned questions)
{
    for (unsigned i = 0; i < 3; i++) {
        struct flow_answer answer = flow_ask("vault", i == 2 ? question_with_fd() : NULL);
        CHECK_INT(answer.code, BEAM_PERMISSION_DENIED);
        CHECK_STR(answer.text, "this peer may not ask for it");
        flow_answer_clear(&answer);
    }
    CHECK_UINT(door->asked, 0);
    CHECK_UINT(door->questions, 3);
    struct flow_answer answer = flow_ask("free", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);

    door->open = true;
    answer = flow_ask("vault", question_with_fd());
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    CHECK_UINT(door->asked, 1);
    CHECK_UINT(door->questions, 3 + questions);
    CHECK_UINT(door->wrong, 0);
}

FLOW_TEST_FDS(allow_decides_before_the_handler)
{
    check_door(serve_vault(false), 1);
}

FLOW_TEST_FDS(allow_decides_before_a_hop_and_behind_it)
{
    check_door(serve_vault(true), 2);
}

static void check_events(struct door *door)
{
    for (unsigned i = 0; i < 3; i++) {
        beam_message *event = beam_message_new();
        REQUIRE_INT(beam_send_event(flow.session, "vault", &event), 0);
    }
    FLOW_WAIT(door->questions > 0);
    struct flow_answer answer = flow_ask("free", NULL); /* behind them */
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
    CHECK_UINT(door->asked, 0);
    CHECK_UINT(door->wrong, 0);
}

FLOW_TEST(allow_refuses_events)
{
    check_events(serve_vault(false));
}

FLOW_TEST(allow_refuses_events_before_a_hop)
{
    check_events(serve_vault(true));
}

/* Served anew to others: an entry is kept for what was served just so, and allow is part of it. */
FLOW_TEST_ONE_PROCESS(allow_changes_with_the_service)
{
    struct door *door = flow_share(sizeof(*door));
    flow_serve("free", on_free, NULL);
    flow_start(NULL);
    beam_runtime *runtime = flow_runtime_here();
    beam_session *session;
    REQUIRE_INT(beam_serve_with(runtime, "vault", on_vault, door, NULL), 0);
    int r = beam_connect(runtime, "ring:0", NULL, &session);
    REQUIRE_INT(r, 0);
    for (unsigned i = 0; i < 4; i++) {
        struct flow_answer answer = {0};
        beam_message *question = beam_message_new();
        REQUIRE_INT(beam_call(session, "vault", &question, flow_on_reply, &answer, NULL), 0);
        FLOW_WAIT(answer.count == 1);
        CHECK_INT(answer.code, i % 2 ? BEAM_PERMISSION_DENIED : BEAM_OK);
        flow_answer_clear(&answer);
        REQUIRE_INT(beam_unserve(runtime, "vault"), 0);
        REQUIRE_INT(beam_serve_with(runtime, "vault", on_vault, door,
                                    &BEAM_SERVE_OPTIONS(.allow = i % 2 ? NULL : may_ask)),
                    0);
    }
    beam_session_free(session);
    CHECK_UINT(door->asked, 2);
}
