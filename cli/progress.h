/* Tells people on stderr how far something is that takes longer than a second. */
#ifndef CLI_PROGRESS_H
#define CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what; /* "copying to photo.jpg" */
    uint64_t total;   /* bytes; 0: not known */
    uint64_t since_ns, shown_ns;
    bool shown;
};

void progress_begin(struct progress *progress, const char *what, uint64_t total);
void progress_update(struct progress *progress, uint64_t done);
void progress_end(struct progress *progress, uint64_t done);

/* The same for a wait that blocks this thread: a signal handler counts the seconds on a
 * terminal. */
void progress_wait_begin(void);
void progress_wait_end(void);

#endif
