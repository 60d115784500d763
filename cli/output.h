/* What came in, for people (key=value) and for programs (JSON). */
#ifndef CLI_OUTPUT_H
#define CLI_OUTPUT_H

#include <beam/beam.h>

/* Metadata as the command line writes it: key=text, key:=value. Control characters are escaped, so
 * that one pair is one line and a peer cannot steer a terminal. `separator` stands between pairs.
 * Returns their number. */
int output_pairs(FILE *out, const void *metadata, size_t len, char separator);

/* {"body":…,"fds":N,"metadata":{…}} on a line; a body that is not UTF-8 becomes {"$bytes":"…"},
 * what is not there is left out. */
int output_json(FILE *out, const beam_message *message);

/* {"code":"NOT_FOUND","details":{…},"message":"…"} on a line. */
int output_json_error(FILE *out, unsigned code, const void *details, size_t len);

/* How a call of this service ended, for people on stderr, and with json on stdout too; details may be
 * NULL. Returns the exit code. */
int output_error(const char *service, unsigned code, const beam_message *details, bool json);

/* One message on one line: pairs, and the body as one more. */
int output_line(FILE *out, const beam_message *message);

/* A text of a peer, with its control characters, and bytes that are not UTF-8, escaped. */
void output_text(FILE *out, beam_str text);

#endif
