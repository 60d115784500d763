/* Reads a file, or standard input, whole. */
#ifndef CLI_INPUT_H
#define CLI_INPUT_H

#include <stddef.h>

#define INPUT_LEN_MAX ((size_t)1 << 30) /* ours: no peer takes that much in one message */

/* The file of that name, or standard input for "-", as a descriptor of our own. Returns it or -errno, after
 * saying why. */
int input_open(const char *path);

/* Reads a descriptor to its end into memory for free(3), which is the caller's also after an error. 0,
 * -EFBIG: more than INPUT_LEN_MAX, or -errno. */
int input_read(int fd, char **buffer, size_t *ret_len);

#endif
