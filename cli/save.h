/* Copies what a file descriptor holds into a file. */
#ifndef CLI_SAVE_H
#define CLI_SAVE_H

/* From the descriptor's position to its end, into `path` ("-": standard output). The file appears
 * under its name when it is complete and on the disk, or not at all; one that is replaced leaves it its mode, and
 * over a symbolic link it is what that leads to. Returns 0 or -errno, after saying why. */
int save_fd(int fd, const char *path);

#endif
