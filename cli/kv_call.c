/* Calls to a store: arguments and answers are documents in the body (docs/spec/kv.md, Y4). */
#include "cli/kv_call.h"

#include "cli/output.h"
#include "cli/progress.h"
#include "cli/verbs.h"

#include <errno.h>

#define QUESTION_LEN_MAX ((size_t)1 << 30) /* ours: no peer takes that much in one message */

void kv_call_begin(struct kv_call *call)
{
    *call = (struct kv_call){.answer = {.type = BEAM_KV_MAP}};
    beam_buffer_init(&call->buffer, QUESTION_LEN_MAX);
    beam_kv_writer_init_buffer(&call->argument, &call->buffer);
    beam_kv_begin_map(&call->argument, NULL);
}

/* A peer may send anything. */
static int take_answer(struct kv_call *call, const char *service)
{
    size_t len;
    const void *body = beam_message_body(call->message, &len);
    if (beam_message_codec(call->message) == BEAM_CODEC_KV && beam_kv_check(body, len, NULL) == 0 &&
        beam_kv_root(body, len, &call->answer) == 0 && call->answer.type == BEAM_KV_MAP)
        return EXIT_OK;
    call->answer = (beam_kv_value){.type = BEAM_KV_MAP};
    fprintf(stderr, "beam: %s: it answered, but not as a store does\n", service);
    return EXIT_OTHER;
}

int kv_call_make(struct kv_call *call, const struct kv_target *target, const char *verb)
{
    struct kv_name service = kv_target_service(target, verb);
    const void *document;
    size_t len;
    beam_kv_end(&call->argument);
    int r = beam_kv_writer_finish(&call->argument, &document, &len);
    if (r < 0) {
        fprintf(stderr, "beam: %s: %s\n", target->verb, beam_strerror(r));
        return r == -ENOMEM ? EXIT_LIMIT : EXIT_USAGE;
    }
    beam_message *question = beam_message_new();
    beam_message_set_body(question, document, len);
    if (!call->silent)
        progress_wait_begin();
    r = beam_call_wait(target->session, service.text, &question,
                       &BEAM_CALL_OPTIONS(.timeout_ns = target->timeout_ns), &call->message);
    if (!call->silent)
        progress_wait_end();
    beam_message_free(question);
    if (r < 0)
        return fail_at(service.text, target->text, r);
    if (r > 0)
        return output_error(service.text, (unsigned)r, call->message, target->json);
    return take_answer(call, service.text);
}

void kv_call_end(struct kv_call *call)
{
    call->message = beam_message_free(call->message);
    beam_buffer_deinit(&call->buffer);
}
