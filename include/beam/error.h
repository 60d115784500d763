/* Errors and status codes: two kinds, never mixed.
 *
 *   - An *error* says what happened here: an int below 0, which is -errno or one of -BEAM_E… below.
 *   - A *status code* says how a request or a channel ended, as the peer decided, or the loss of
 *   the
 *     peer: OK or one of the sixteen codes that gRPC and Connect use too, with the same numbers
 *     (gRPC: doc/statuscodes.md).
 *
 * The functions here may be called on any thread, never fail, and return static texts. */
#ifndef BEAM_ERROR_H
#define BEAM_ERROR_H

#include <stddef.h>

#include <beam/export.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The status codes: name, number, HTTP status, text. Two of them need care: after UNAVAILABLE the
 * request has surely not run and may be sent again; after UNKNOWN it may have run. */
#define BEAM_STATUS_TABLE(X)                                                                       \
    X(OK, 0, 200, "ok")                                                                            \
    X(CANCELLED, 1, 499, "cancelled")                                                              \
    X(UNKNOWN, 2, 500, "unknown, may have run")                                                    \
    X(INVALID_ARGUMENT, 3, 400, "invalid argument")                                                \
    X(DEADLINE_EXCEEDED, 4, 504, "deadline exceeded")                                              \
    X(NOT_FOUND, 5, 404, "not found")                                                              \
    X(ALREADY_EXISTS, 6, 409, "already exists")                                                    \
    X(PERMISSION_DENIED, 7, 403, "permission denied")                                              \
    X(RESOURCE_EXHAUSTED, 8, 429, "resource exhausted")                                            \
    X(FAILED_PRECONDITION, 9, 400, "failed precondition")                                          \
    X(ABORTED, 10, 409, "aborted")                                                                 \
    X(OUT_OF_RANGE, 11, 400, "out of range")                                                       \
    X(UNIMPLEMENTED, 12, 501, "unimplemented")                                                     \
    X(INTERNAL, 13, 500, "internal")                                                               \
    X(UNAVAILABLE, 14, 503, "unavailable, did not run")                                            \
    X(DATA_LOSS, 15, 500, "data loss")                                                             \
    X(UNAUTHENTICATED, 16, 401, "unauthenticated")

enum beam_code {
#define BEAM_STATUS_ENUM_(name, number, http, text) BEAM_##name = number,
    BEAM_STATUS_TABLE(BEAM_STATUS_ENUM_)
#undef BEAM_STATUS_ENUM_
};

/* The errors that errno has no word for: name, number, text. Numbers begin above those of errno and
 * do not change. */
#define BEAM_ERROR_TABLE(X)                                                                        \
    X(KV_TRUNCATED, 4096, "kv: entry runs past the end")                                           \
    X(KV_TRAILING, 4097, "kv: bytes after the document")                                           \
    X(KV_TYPE, 4098, "kv: unknown type")                                                           \
    X(KV_AUX, 4099, "kv: reserved byte is not zero")                                               \
    X(KV_PADDING, 4100, "kv: padding is not zero")                                                 \
    X(KV_LENGTH, 4101, "kv: value length does not fit its type")                                   \
    X(KV_NUMBER, 4102, "kv: number is not in its one encoding")                                    \
    X(KV_UTF8, 4103, "kv: string or key is not UTF-8")                                             \
    X(KV_ORDER, 4104, "kv: keys are not strictly ascending")                                       \
    X(KV_KEY, 4105, "kv: key where none belongs")                                                  \
    X(KV_DEPTH, 4106, "kv: nested deeper than 32")                                                 \
    X(KV_TOO_LARGE, 4107, "kv: document or key over its limit")                                    \
    X(FRAME_TRUNCATED, 4128, "frame: runs past the end of its packet")                             \
    X(FRAME_LENGTH, 4129, "frame: length does not fit its kind")                                   \
    X(FRAME_KIND, 4130, "frame: unknown kind below 0x80")                                          \
    X(FRAME_FLAGS, 4131, "frame: flags do not fit its kind")                                       \
    X(FRAME_PADDING, 4132, "frame: padding or reserved field is not zero")                         \
    X(FRAME_OVERSIZED, 4133, "frame: larger than the limit of 64 KiB")                             \
    X(FRAME_CHANNEL, 4134, "frame: channel id breaks the rules for ids")                           \
    X(FRAME_FDS, 4135, "frame: file descriptors do not match the packet")                          \
    X(FRAME_METADATA, 4136, "frame: metadata is not a map, or over its limit")                     \
    X(FRAME_ATTACHMENT, 4137, "frame: attached channel entry is malformed")                        \
    X(FRAME_NAME, 4138, "frame: service name is empty, too long or not UTF-8")                     \
    X(HELLO_MISSING, 4160, "session: first frame is not HELLO")                                    \
    X(HELLO_REPEATED, 4161, "session: HELLO came twice")                                           \
    X(HELLO_MALFORMED, 4162, "session: HELLO has a missing or malformed key")                      \
    X(HELLO_VERSION, 4163, "session: no common protocol version")                                  \
    X(HELLO_ROLE, 4164, "session: both ends claim the same role")                                  \
    X(FLOW_CONTROL, 4165, "session: peer sent without credit")                                     \
    X(TOO_MANY_CHANNELS, 4166, "session: peer opened more channels than granted")                  \
    X(CREDIT_OVERFLOW, 4167, "session: credit overflows")                                          \
    X(FRAGMENT, 4168, "session: fragment does not continue its message")                           \
    X(PACKET_EMPTY, 4169, "session: packet without a frame")                                       \
    X(PEER_IDENTITY, 4170, "session: the kernel named no peer identity")                           \
    X(TOO_MANY_ABORTS, 4171, "session: peer resets requests faster than allowed")                  \
    X(URL, 4192, "url: not understood")                                                            \
    X(NO_IO_URING, 4193, "io_uring is not available")                                              \
    X(FORKED, 4194, "runtime was made before fork and cannot be used in the child")                \
    X(CODEC_SYNTAX, 4224, "codec: the bytes are not of this format")                               \
    X(CODEC_TRUNCATED, 4225, "codec: the bytes end too early")                                     \
    X(CODEC_UNSUPPORTED, 4226, "codec: a value that has no form there")                            \
    X(CODEC_TOO_LARGE, 4227, "codec: the result is over its limit")                                \
    X(CODEC_UNKNOWN, 4228, "codec: there is no such codec here")                                   \
    X(KV_RECORD, 4256, "kv: not a record")                                                         \
    X(KV_SUM, 4257, "kv: record with a wrong sum")                                                 \
    X(KV_SEQUENCE, 4258, "kv: record does not follow the one before it")                           \
    X(KV_FORMAT, 4259, "kv: not a kv file, or of a newer format")                                  \
    X(KV_CORRUPT, 4260, "kv: file is damaged where it had been whole")                             \
    X(KV_LOCKED, 4261, "kv: file has another writer")                                              \
    X(TLS_CERTIFICATE, 4288, "tls: the peer's certificate is not accepted")                        \
    X(TLS_ALERT, 4289, "tls: the peer has refused")                                                \
    X(TLS_ALPN, 4290, "tls: no application protocol in common")                                    \
    X(TLS_PROTOCOL, 4291, "tls: not TLS, or none that is spoken here")                             \
    X(TLS_CUT, 4292, "tls: connection ended without being closed")                                 \
    X(TLS_FLOOD, 4293, "tls: more handshake or empty records than allowed")                        \
    X(TLS_CONFIGURATION, 4294, "tls: certificate, key or list cannot be used")                     \
    X(H2_PREFACE, 4320, "http/2: peer speaks something else")                                      \
    X(H2_PROTOCOL, 4321, "http/2: peer broke a rule of the protocol")                              \
    X(H2_FLOOD, 4322, "http/2: peer did too much of something")                                    \
    X(H2_TIMEOUT, 4323, "http/2: peer left us waiting")                                            \
    X(HTTP_SYNTAX, 4352, "http: malformed message")                                                \
    X(HTTP_TOO_LARGE, 4353, "http: a head or a body over its limit")                               \
    X(HTTP_UNSUPPORTED, 4354, "http: a version, method, coding or expectation that is not known")  \
    X(HTTP_CUT, 4355, "http: the connection ended within a message")                               \
    X(WEBSOCKET_PROTOCOL, 4368, "websocket: peer breaks the rules for frames")                     \
    X(WEBSOCKET_DATA, 4369, "websocket: text, or a reason that is not UTF-8")                      \
    X(WEBSOCKET_TOO_LARGE, 4370, "websocket: message over its limit")                              \
    X(WEBSOCKET_FLOOD, 4371, "websocket: peer sends frames without content faster than allowed")   \
    X(WEBSOCKET_CUT, 4372, "websocket: the connection ended without a close handshake")            \
    X(WEBSOCKET_HANDSHAKE, 4373, "websocket: the answer accepts nothing that was offered")

enum beam_error {
#define BEAM_ERROR_ENUM_(name, number, text) BEAM_E##name = number,
    BEAM_ERROR_TABLE(BEAM_ERROR_ENUM_)
#undef BEAM_ERROR_ENUM_
};

/* The text of an error (-errno or -BEAM_E…) for people, as strerror(3) in the C locale; "no error"
 * for 0 and above. */
BEAM_EXPORT const char *beam_strerror(int error);

/* The name of an error, as errno(3) or the table above has it: "EAGAIN", "FRAME_KIND"; "OK" for 0
 * and above, "EUNKNOWN" for a number nobody has given. */
BEAM_EXPORT const char *beam_error_name(int error);

/* The name of a status code ("NOT_FOUND"), and its text for people. A number outside the table is
 * read as UNKNOWN, as gRPC has it. */
BEAM_EXPORT const char *beam_code_name(unsigned code);
BEAM_EXPORT const char *beam_code_text(unsigned code);

/* The HTTP status that stands for a status code (RFC 9110; 499 as nginx uses it). */
BEAM_EXPORT int beam_code_http(unsigned code);

#ifdef __cplusplus
}
#endif

#endif
