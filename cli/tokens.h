/* A file of bearer tokens: a line each, NAME and TOKEN with blanks between; "#" begins a line that is
 * none. One name may have several. */
#ifndef CLI_TOKENS_H
#define CLI_TOKENS_H

#include <beam/net.h>

#define TOKENS_FILE_MAX (1u << 20) /* ours */
#define TOKENS_MAX 4096u           /* ours: each is compared with, for everybody who asks */
#define TOKENS_NAME_MAX 249u       /* beam_authenticate_fn */
#define TOKENS_LEN_MIN 16u         /* ours: 96 bits in base64; below, a warning */

struct tokens;

/* Reads it, and warns if others on this machine can read it too, or if a token is short. -EINVAL after
 * saying which line is wrong, and how; or -errno after saying why. */
int tokens_read(const char *path, struct tokens **ret_tokens);
/* Accepts NULL, returns NULL. */
struct tokens *tokens_free(struct tokens *tokens);

/* A beam_authenticate_fn; arg is the struct tokens. Compares with all, so that the time tells nothing of
 * how far one was right. */
int tokens_authenticate(beam_str token, char *ret_name, size_t size, void *arg);

/* The token of the first line that has one, with a name before it or alone; for free(3). -EINVAL, or -errno, after saying what is wrong. */
int tokens_read_one(const char *path, char **ret_token);

/* Whether a text can be a token (RFC 6750 section 2.1). */
bool tokens_is_one(const char *text);

#endif
