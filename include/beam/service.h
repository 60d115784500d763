/* Services: a service is a name and a handler. Every peer can ask for it, on every session of the
 * runtime, whoever of the two connected.
 *
 *     static void on_greet(beam_request *request, const beam_message *message, void *arg)
 *     {
 *         beam_message *answer = beam_message_new();
 *         beam_message_put_str(answer, "text", "hello");
 *         beam_reply(request, &answer);
 *     }
 *     ...
 *     r = beam_serve(runtime, "greet", on_greet, NULL);
 *
 * A request ends exactly once: by beam_reply, by beam_fail, or by its handler's return if that did
 * neither. Ending it cannot fail, and ends the life of the pointer. Everything that is called with
 * a request is called on its reactor. */
#ifndef BEAM_SERVICE_H
#define BEAM_SERVICE_H

#include <beam/codec.h>
#include <beam/session.h>

#ifdef __cplusplus
extern "C" {
#endif

/* --- serving --- */

/* Runs once for each request, and each event, of its name, on the reactor of the session it came on
 * (beam_serve) or on the one that was chosen (beam_serve_on). message is borrowed until it returns.
 * A handler that returns without having ended or kept its request has it ended with INTERNAL. An
 * event has a request too; ending it is allowed, and sends nothing. Those of one sender and name share
 * it: what a handler ends first is the event it was called for, and then those that were kept. */
typedef void beam_handler(beam_request *request, const beam_message *message, void *arg);

/* Serves a name, with the same handler on every reactor: what they share through arg is the
 * caller's to guard. The name is copied. Any thread, before the start or after it.
 * -EEXIST: the name is served already. -EINVAL: the name is no UTF-8 of 1 to 255 bytes, or handler
 * is NULL. -ENOSPC: 65 536 different names and handlers were served. -ENOMEM. */
BEAM_EXPORT int beam_serve(beam_runtime *runtime, const char *name, beam_handler *handler,
                           void *arg);

/* Serves a name on one reactor; requests that come in on others get there by one ring hop. Their
 * beam_request_peer is who asked; their beam_request_session leads to the reactor they came in on, not
 * to the caller: who is to be called back attaches a channel. Errors as beam_serve; -EINVAL: no such
 * reactor. */
BEAM_EXPORT int beam_serve_on(beam_runtime *runtime, unsigned reactor, const char *name,
                              beam_handler *handler, void *arg);

/* --- serving in a codec ---
 *
 * A service may say what its handler reads and writes, json for example, and is then spoken to in any
 * codec that the runtime knows: bodies are converted on their way to the handler, and what it answers,
 * or sends on the request's channel, on its way back (docs/spec/session.md section 13).
 *
 *     r = beam_serve_with(runtime, "add", on_add, NULL, &BEAM_SERVE_OPTIONS(.codec = &beam_json));
 *
 * A body that is in the codec wanted is passed on as it came, unread: a handler still has to expect
 * any bytes. A handler's message whose codec is 0 (none was set) is in the service's codec; it may
 * also be in any other that the runtime knows, by its number. Metadata and attachments are the same in
 * every codec. A question that cannot be converted is answered INVALID_ARGUMENT, and the handler does
 * not see it; an answer that cannot, UNIMPLEMENTED; both with the details of N6. A message that
 * cannot be converted before the answer is refused to its sender: beam_channel_send returns the error
 * of beam_convert. */

/* Whether this peer may ask for the service. Asked before each request, and before the events of a
 * session, on the reactor where they come in, and once more on the service's own if that is another
 * one: so it only looks, and does not block. Whoever may not is answered PERMISSION_DENIED, and the
 * handler does not hear of it. Other threads of this program are asked about too: BEAM_PEER_SELF. What
 * is attached to a message that was let in is not asked about. */
typedef bool beam_allow_fn(beam_str service, const struct beam_peer *peer, void *arg);

struct beam_serve_options {
    size_t size;
    const struct beam_codec *codec; /* what the handler reads and writes; NULL: any, as it comes */
    bool on_reactor;                /* on `reactor` alone, as beam_serve_on; else on every one */
    unsigned reactor;
    beam_allow_fn *allow; /* who may ask, with the handler's arg; NULL: every peer */
};

#define BEAM_SERVE_OPTIONS(...)                                                                    \
    ((struct beam_serve_options){.size = sizeof(struct beam_serve_options), __VA_ARGS__})

/* beam_serve, or beam_serve_on, with options, which may be NULL and are copied. Errors as theirs;
 * -BEAM_ECODEC_UNKNOWN: the runtime does not know this codec. -EINVAL and -E2BIG: as any options. */
BEAM_EXPORT int beam_serve_with(beam_runtime *runtime, const char *name, beam_handler *handler,
                                void *arg, const struct beam_serve_options *options);

/* Makes a codec known to the runtime, besides kv, json, msgpack and, if it is built in, xml. It is
 * borrowed, and has to live as long as the runtime. Either function of it may be NULL: then nothing is
 * converted from it, or to it; of one with neither (protobuf) bodies pass untouched or not at all.
 * Before the start, embedded before the first turn, by one thread at a time.
 * -EBUSY: it is too late. -EEXIST: its number or its name is known already. -EINVAL: a number from 5
 * to 65 535, a name that is not of 1 to 64 bytes or a media type not of 1 to 255 (UTF-8), no size.
 * -ENOSPC: 32 are known. -E2BIG: as any options. -BEAM_EFORKED. */
BEAM_EXPORT int beam_codec_register(beam_runtime *runtime, const struct beam_codec *codec);

/* Serves a name no more: new requests for it end with NOT_FOUND, those that have begun go on. A
 * handler may still be running, and be about to run on another reactor, so that arg may only be
 * freed when the runtime has ended. Any thread. -ENOENT: the name is not served. -EINVAL: no
 * name. */
BEAM_EXPORT int beam_unserve(beam_runtime *runtime, const char *name);

/* --- ending a request --- */

/* Ends the request with OK and an answer, and consumes both. message or *message may be NULL for an
 * empty answer; *message is NULL afterwards, always. An answer that cannot be sent (a sticky error,
 * longer than the caller takes, fds where it takes none) becomes an error for the caller. An answer
 * waits for credit without end; instead, no new request is delivered on a session above its
 * queue_len_max, and above 64 MiB of waiting answers those longer than a frame (64 KiB) become
 * RESOURCE_EXHAUSTED. */
BEAM_EXPORT void beam_reply(beam_request *request, beam_message **message);

/* Ends the request with an error and a text for people made by printf(3) (format may be NULL; cut
 * at 255 bytes). BEAM_OK is sent as UNKNOWN. */
BEAM_EXPORT void beam_fail(beam_request *request, enum beam_code code, const char *format, ...)
    __attribute__((__format__(__printf__, 3, 4)));

/* The same, with what a program can read of the error: details is a kv document (<beam/kv.h>) whose
 * value is a map, copied. The text goes into it under "message" (format NULL: what it holds there
 * stays), and the caller finds it in beam_status.details. Details that are no valid map, or over 16 384
 * bytes with the text, are left out: ending a request cannot fail. */
BEAM_EXPORT void beam_fail_with(beam_request *request, enum beam_code code, const void *details,
                                size_t details_len, const char *format, ...)
    __attribute__((__format__(__printf__, 5, 6)));

/* In the handler: the request outlives it, to be ended later. The pointer is good until then,
 * whatever becomes of the session; after the end of the runtime the request can only be ended. A kept
 * event is to be ended as well. */
BEAM_EXPORT void beam_request_keep(beam_request *request);

/* fn runs once if nobody waits for the answer any more before the request was ended: it was
 * cancelled, its deadline has passed, or the session is lost. The request is still to be ended, by
 * fn or later; what is sent goes nowhere. fn NULL: no more. For a kept event: its sender has aborted the
 * channel of its events, or the session is lost; those of one sender and name that are kept share one
 * request, and so one fn, which runs once for all of them. */
BEAM_EXPORT void beam_request_on_cancel(beam_request *request,
                                        void (*fn)(beam_request *request, void *arg), void *arg);

/* --- looking at a request --- */

/* The channel the request came on, borrowed until the request ends: for more messages to the caller
 * before the answer, and, with handlers set in the request's handler, from it. Not to be freed. */
BEAM_EXPORT beam_channel *beam_request_channel(beam_request *request);

/* The session it came on, to call back on; NULL once that is lost. */
BEAM_EXPORT beam_session *beam_request_session(const beam_request *request);

/* Who asks; valid until the request ends, also when the session is lost. */
BEAM_EXPORT const struct beam_peer *beam_request_peer(const beam_request *request);

/* The name it was asked for by, valid as long as the runtime: for a handler that serves several. */
BEAM_EXPORT beam_str beam_request_service(const beam_request *request);

/* An event: nobody waits for an answer. */
BEAM_EXPORT bool beam_request_is_event(const beam_request *request);

/* The caller has not ended its direction (it used beam_open): more may come on the channel. Never true
 * of an event: the next one is a call of the handler, and no handler of a channel hears of events. */
BEAM_EXPORT bool beam_request_is_open(const beam_request *request);

/* Nobody waits for the answer any more: see beam_request_on_cancel. */
BEAM_EXPORT bool beam_request_is_cancelled(const beam_request *request);

/* How many requests this one was made in the service of: 0 for one of its own, at most 16. */
BEAM_EXPORT unsigned beam_request_depth(const beam_request *request);

/* When its time is up, on beam_now_ns; UINT64_MAX for never. */
BEAM_EXPORT uint64_t beam_request_deadline_ns(const beam_request *request);

#ifdef __cplusplus
}
#endif

#endif
