/* Services: a name and a handler. Every peer of the runtime, on any session and in either direction,
 * can ask for it. */
#ifndef BEAM_SERVICE_H
#define BEAM_SERVICE_H

#include <beam/session.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Runs on the reactor of the session the request came on. The request is answered with beam_reply or
 * beam_fail, now or (after beam_request_keep) later; a handler that does neither is answered INTERNAL
 * for it. For an event the request is there too, has nothing to answer, and both calls send nothing. */
typedef void beam_handler(beam_request *request, const beam_message *message, void *arg);

/* Any thread, before or after the start. The same handler on every reactor: shared state is the
 * caller's to guard. -EEXIST: the name is taken; -EINVAL: empty, over 255 bytes, or not UTF-8. */
BEAM_EXPORT int beam_serve(beam_runtime *runtime, const char *name, beam_handler *handler,
                           void *arg);

/* On one reactor only; requests that come in on another reactor reach it by one ring hop. Their
 * beam_request_peer is who asked; their beam_request_session leads to the reactor they came in on, not
 * to the caller: who is to be called back attaches a channel. */
BEAM_EXPORT int beam_serve_on(beam_runtime *runtime, unsigned reactor, const char *name,
                              beam_handler *handler, void *arg);

/* New requests for it end NOT_FOUND from now on; running ones go on. arg may be freed once the
 * runtime has stopped. */
BEAM_EXPORT int beam_unserve(beam_runtime *runtime, const char *name);

/* Ends the request with OK. *message may be NULL (or message itself) for an empty answer. Always
 * consumes both: a message with a sticky error, or one the peer cannot take, becomes an error answer.
 * The answer is not subject to credit; a session above its queue limit is delivered no new request. */
BEAM_EXPORT void beam_reply(beam_request *request, beam_message **message);

/* Ends the request with an error. */
BEAM_EXPORT void beam_fail(beam_request *request, enum beam_code code, const char *format, ...)
    __attribute__((__format__(__printf__, 3, 4)));

/* The request outlives its handler and stays valid until it is ended, whatever becomes of its session;
 * after the end of the runtime it can only be ended. A kept event is ended in the same way, by beam_reply or beam_fail: nothing is sent. */
BEAM_EXPORT void beam_request_keep(beam_request *request);

/* fn runs once if the peer cancels, the deadline passes or the session is lost before the request was
 * ended. The request must still be ended (the answer goes nowhere). */
BEAM_EXPORT void beam_request_on_cancel(beam_request *request,
                                        void (*fn)(beam_request *request, void *arg), void *arg);

/* The request is a channel: send more messages before the reply, receive more from the caller
 * (set handlers). Owned by the request; not to be freed. */
BEAM_EXPORT beam_channel *beam_request_channel(beam_request *request);

BEAM_EXPORT beam_session *beam_request_session(const beam_request *request); /* NULL once lost */
BEAM_EXPORT const struct beam_peer *beam_request_peer(const beam_request *request);
BEAM_EXPORT beam_str beam_request_service(const beam_request *request);
BEAM_EXPORT bool beam_request_is_event(const beam_request *request);
/* The caller has not ended its direction (it used beam_open): more may come on the channel. Never true of
 * an event: the next one is a call of the handler, and no handler of a channel hears of events. */
BEAM_EXPORT bool beam_request_is_open(const beam_request *request);
BEAM_EXPORT bool beam_request_is_cancelled(const beam_request *request);
BEAM_EXPORT unsigned beam_request_depth(const beam_request *request);

/* Absolute, on beam_now_ns(); UINT64_MAX for none. */
BEAM_EXPORT uint64_t beam_request_deadline_ns(const beam_request *request);

#ifdef __cplusplus
}
#endif

#endif
