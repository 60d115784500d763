/* Copies what a file descriptor holds into a file. */
#ifndef CLI_SAVE_H
#define CLI_SAVE_H

/* From the descriptor's position to its end, into `path` ("-": standard output). The file appears
 * under its name when it is complete, or not at all. Returns 0 or -errno, after saying why. */
int save_fd(int fd, const char *path);

#endif
