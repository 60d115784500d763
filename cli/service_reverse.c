/* The service `reverse`: calls a service that the caller itself offers, on the session the request
 * came on, and answers with what it answered.
 *
 *     {"service": NAME, ...} -> the answer of NAME to {...}, the body and the fds
 *
 * The call is a child of the request: it ends with it, and gets no more time than it has. */
#include "cli/services.h"

#include <errno.h>
#include <string.h>

#define NAME_LEN_MAX 255 /* docs/spec/session.md M8 */

static void on_reply(const struct beam_status *status, const beam_message *message, void *arg)
{
    beam_request *request = arg;
    if (status->code != BEAM_OK) {
        beam_fail(request, status->code, "%.*s", BEAM_STR(status->message));
        return;
    }
    beam_message *answer = message ? beam_message_keep(message) : NULL;
    if (message && !answer) {
        beam_fail(request, BEAM_RESOURCE_EXHAUSTED, "no memory for the answer");
        return;
    }
    beam_reply(request, &answer);
}

/* Everything of a message but the key "service". */
static beam_message *without_service(const beam_message *message)
{
    beam_message *rest = beam_message_new();
    size_t len, body_len;
    const void *metadata = beam_message_metadata(message, &len);
    const void *body = beam_message_body(message, &body_len);
    beam_kv_value map, value;
    beam_kv_iter iter;
    beam_str key;
    if (beam_kv_root(metadata, len, &map) >= 0) {
        beam_kv_iter_init(&iter, &map);
        while (beam_kv_iter_next(&iter, &key, &value) > 0)
            if (key.len != 7 || memcmp(key.ptr, "service", 7) != 0)
                beam_message_put(rest, key, &value);
    }
    beam_message_set_codec(rest, beam_message_codec(message));
    beam_message_set_body(rest, body, body_len);
    for (unsigned i = 0; i < beam_message_fd_count(message); i++) {
        int fd = beam_message_take_fd(message, i);
        beam_message_attach_fd(rest, &fd);
    }
    return rest;
}

static void on_request(beam_request *request, const beam_message *message, void *arg)
{
    beam_session *session = beam_request_session(request);
    beam_str service;
    char name[NAME_LEN_MAX + 1];
    if (beam_message_get_str(message, "service", &service) < 0 || service.len == 0 ||
        service.len > NAME_LEN_MAX || memchr(service.ptr, 0, service.len)) {
        beam_fail(request, BEAM_INVALID_ARGUMENT, "service is missing: which one of yours to call");
        return;
    }
    memcpy(name, service.ptr, service.len);
    name[service.len] = '\0';

    BEAM_CLEANUP(beam_message_freep) beam_message *rest = without_service(message);
    beam_request_keep(request);
    int r =
        beam_call(session, name, &rest, on_reply, request, &BEAM_CALL_OPTIONS(.parent = request));
    if (r < 0)
        beam_fail(request,
                  r == -ETIMEDOUT               ? BEAM_DEADLINE_EXCEEDED
                  : r == -EAGAIN || r == -ELOOP ? BEAM_RESOURCE_EXHAUSTED
                  : r == -EPERM                 ? BEAM_PERMISSION_DENIED
                                                : BEAM_UNAVAILABLE,
                  "calling %s back: %s", name, beam_strerror(r));
}

static int add(beam_runtime *runtime, const char *name, const char *argument)
{
    return beam_serve(runtime, name, on_request, NULL);
}

const struct service_kind service_reverse = {
    .name = "reverse",
    .summary = "calls service=NAME that the caller offers, and passes its answer on",
    .add = add,
};
