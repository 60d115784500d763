/* Files with a content that is known: there whole, or not at all. */
#ifndef CLI_NEW_FILE_H
#define CLI_NEW_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Writes a file of this mode in the directory dir_fd, synced before it has its name. -EEXIST: there is
 * something of that name, unless it is to be replaced: then what stands there afterwards is the new file
 * with its own mode, and a symbolic link of that name leads nowhere any more. Else -errno. */
int new_file(int dir_fd, const char *name, const void *bytes, size_t len, mode_t mode,
             bool replace);

#endif
