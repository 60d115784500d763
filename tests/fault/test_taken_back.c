/* A packet with fds is refused (ETOOMANYREFS) after what it holds has been given up: its messages are taken
 * back, and their channels are nobody's any more. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "tests/support/served.h"
#include "uring/completion.h"
#include "uring/op.h"

#define BODY_LEN 100000u /* more than a packet takes */

static struct raw_peer bad;
static struct raw_packet packet;

/* The service's, on the reactor; the rest is told to the case. */
static beam_request *request;
static atomic_uint asked;
static atomic_bool held, refuse;

/* The first send with fds is looked at once the case says so, and then it was refused. */
static enum bm_completion_verdict refuse_fds(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    (void)flags;
    (void)arg;
    if (op->kind != BM_OP_SENDMSG || *res <= 0 || atomic_load(&asked) == 0)
        return BM_COMPLETION_PASS;
    atomic_store(&held, true);
    if (!atomic_load(&refuse))
        return BM_COMPLETION_HOLD;
    *res = -ETOOMANYREFS;
    return BM_COMPLETION_PASS;
}

static void on_big(beam_request *r, const beam_message *message, void *arg)
{
    static uint8_t body[BODY_LEN];
    beam_message *answer = beam_message_new();
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    (void)message;
    (void)arg;
    beam_message_set_body(answer, body, sizeof(body));
    beam_message_attach_fd(answer, &fd);
    beam_request_keep(r);
    request = r;
    CHECK_INT(beam_channel_send(beam_request_channel(r), &answer), 0);
    beam_message_free(answer);
    atomic_fetch_add(&asked, 1);
}

static void give_up(void *arg)
{
    (void)arg;
    beam_fail(request, BEAM_ABORTED, "given up");
}

TEST(a_large_answer_given_up_while_its_packet_is_refused_is_forgotten)
{
    atomic_store(&asked, 0);
    atomic_store(&held, false);
    atomic_store(&refuse, false);
    bm_completion_hook = (struct bm_completion_hook){.fn = refuse_fds};
    struct served *served = served_start(NULL);
    REQUIRE_INT(beam_serve(served->runtime, "big", on_big, NULL), 0);
    raw_open_session(&bad, served->name);
    raw_clear(&packet);
    /* A number above any that the server has given to a channel of its own. */
    raw_put_open(&packet, 101, 0, "big", NULL, 0);
    raw_send(&bad, &packet);
    WAIT_UNTIL(atomic_load(&held));
    served_run(served->runtime, 0, give_up, NULL);
    atomic_store(&refuse, true);
    REQUIRE(raw_find(&bad, BM_FRAME_END, 101));
    CHECK_UINT(raw_end_code(&bad), BEAM_ABORTED);
    raw_close(&bad);
    served_check_clean(served);
    served_stop(served);
    bm_completion_hook = (struct bm_completion_hook){0};
}
