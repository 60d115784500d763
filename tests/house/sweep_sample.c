/* Cases for harness.py: what a sweep has to find, and what it has to let pass. Each is named after the
 * outcome it must have; without a fault all of them pass. */
#include <unistd.h>

#include "base/alloc.h"
#include "tests/support/flow.h"

static void on_echo(beam_request *request, const beam_message *message, void *arg)
{
    beam_message *kept = beam_message_keep(message);
    beam_reply(request, &kept);
}

static void ask(void)
{
    flow_serve("echo", on_echo, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("echo", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
}

FLOW_TEST(pass_conversation_ends_or_goes_on)
{
    ask();
}

FLOW_TEST(pass_required_memory_is_missing)
{
    ask();
    void *first = bm_alloc(NULL, 100);
    REQUIRE(first != NULL);
    void *second = bm_alloc(NULL, 100);
    REQUIRE(second != NULL);
    bm_free(NULL, first, 100);
    bm_free(NULL, second, 100);
}

FLOW_TEST(fail_memory_is_lost)
{
    ask();
    void *first = bm_alloc(NULL, 100);
    void *second = bm_alloc(NULL, 100);
    if (second)
        bm_free(NULL, first, 100);
    bm_free(NULL, second, 100);
}

FLOW_TEST(fail_descriptor_is_lost)
{
    ask();
    int fd = dup(STDERR_FILENO);
    void *memory = bm_alloc(NULL, 100);
    if (memory)
        close(fd);
    bm_free(NULL, memory, 100);
}

FLOW_TEST(fail_missing_memory_is_written_to)
{
    ask();
    char *memory = bm_alloc(NULL, 100);
    *(volatile char *)memory = 'x';
    bm_free(NULL, memory, 100);
}

static void on_stubborn(beam_request *request, const beam_message *message, void *arg)
{
    void *memory = bm_alloc(NULL, 100);
    while (!memory)
        pause();
    bm_free(NULL, memory, 100);
    beam_reply(request, NULL);
}

FLOW_TEST(fail_nobody_answers_any_more)
{
    flow_serve("stubborn", on_stubborn, NULL);
    flow_start(NULL);
    struct flow_answer answer = flow_ask("stubborn", NULL);
    CHECK_INT(answer.code, BEAM_OK);
    flow_answer_clear(&answer);
}
