/* The one way in: faults injected into real completions. */
#define _GNU_SOURCE
#include "uring/completion.h"

#include <string.h>

#include "tests/unit/uring/rig.h"

static struct rig rig;

struct script {
    struct bm_op *op; /* NULL: any */
    int res;
    int hold; /* so many times */
    int asked;
};

static enum bm_completion_verdict play(struct bm_op *op, int *res, uint32_t *flags, void *arg)
{
    struct script *script = arg;
    (void)flags;
    if (script->op && script->op != op)
        return BM_COMPLETION_PASS;
    script->asked++;
    if (script->hold > 0) {
        script->hold--;
        return BM_COMPLETION_HOLD;
    }
    *res = script->res;
    return BM_COMPLETION_PASS;
}

static void hook(struct script *script)
{
    bm_completion_hook = (struct bm_completion_hook){script ? play : NULL, script};
}

TEST(completion_hook_changes_a_result)
{
    struct probe nop;
    struct script script = {.res = -EIO};
    rig_open(&rig);
    hook(&script);
    probe_init(&nop, BM_OP_NOP);
    CHECK_INT(probe_run(&rig, &nop), -EIO);
    CHECK_INT(script.asked, 1);
    hook(NULL);
    CHECK_INT(probe_run(&rig, &nop), 0);
    rig_close(&rig);
}

TEST(completion_held_back_keeps_the_op_in_flight_and_the_reactor_awake)
{
    struct probe nop;
    struct script script = {.hold = 5};
    rig_open(&rig);
    hook(&script);
    probe_init(&nop, BM_OP_NOP);
    bm_op_start(rig.reactor, &nop.op);
    for (int i = 0; i < 4; i++)
        bm_reactor_turn(rig.reactor);
    CHECK_INT(nop.calls, 0);
    CHECK_INT(bm_reactor_inflight(rig.reactor), 1);
    nop.rig = &rig;
    rig_run(&rig);
    CHECK_INT(nop.calls, 1);
    CHECK_INT(script.asked, 6);
    hook(NULL);
    rig_close(&rig);
}

TEST(completion_held_back_is_overtaken_by_other_ops_only)
{
    struct probe first, second;
    rig_open(&rig);
    probe_init(&first, BM_OP_NOP);
    probe_init(&second, BM_OP_NOP);
    struct script script = {.op = &first.op, .hold = 1};
    hook(&script);
    bm_op_start(rig.reactor, &first.op);
    bm_op_start(rig.reactor, &second.op);
    bm_reactor_turn(rig.reactor);
    bm_reactor_turn(rig.reactor);
    CHECK_INT(first.calls, 0);
    CHECK_INT(second.calls, 1);
    rig_settle(&rig);
    CHECK_INT(first.calls, 1);
    hook(NULL);
    rig_close(&rig);
}

/* Results that an ordinary op may have, each delivered once and leaving the op reusable. */
TEST(completion_with_any_error_ends_an_op_exactly_once)
{
    static const int errors[] = {0,       -EAGAIN,     -EINTR, -ECANCELED, -ENOBUFS, -ENOMEM,
                                 -ENFILE, -ECONNRESET, -EPIPE, -EMFILE,    -ENOSPC,  -ETIME};
    rig_open(&rig);
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct probe nop;
        struct script script = {.res = errors[i]};
        test_note("error %d", errors[i]);
        hook(&script);
        probe_init(&nop, BM_OP_NOP);
        CHECK_INT(probe_run(&rig, &nop), errors[i]);
        CHECK_INT(probe_run(&rig, &nop), errors[i]);
        hook(NULL);
    }
    CHECK_UINT(bm_reactor_stats(rig.reactor)->enobufs, 2);
    rig_close(&rig);
}

TEST(completion_held_back_at_the_end_of_the_reactor_still_comes)
{
    struct probe nop;
    struct script script = {.hold = 50};
    rig_open(&rig);
    hook(&script);
    probe_init(&nop, BM_OP_NOP);
    bm_op_start(rig.reactor, &nop.op);
    bm_reactor_turn(rig.reactor);
    bm_reactor_turn(rig.reactor);
    rig_close(&rig);
    CHECK_INT(nop.calls, 1);
    hook(NULL);
}
