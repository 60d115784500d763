/* A disk under one directory, and what of it is durable.
 *
 * The files are real: what is written can be read at once, as from the kernel's cache. Beside them stands
 * what a loss of power would leave: the content of each file as of its last sync that succeeded, the names
 * as of the last sync of the directory, and all that came since, in sectors, of which any may have reached
 * the disk and any may not. A sector that was written three times is there as before, or as after any of the
 * three. Lengths and names are changed by a journal: what is there of these is a beginning of what was done.
 *
 * A sync covers what was written before it began, not what comes while it is under way. One that fails has
 * written some sectors, and the others are forgotten: they can be read, no later sync will write them, and
 * it will say that all is well (what Linux does, "fsyncgate"). Writing them again makes them dirty again.
 * Names and lengths are not forgotten so; file systems that lose their journal write nothing any more.
 *
 * The calls of the ring come from request.c; those that block are caught here, by name: pwrite, fsync,
 * fdatasync, ftruncate, fallocate, renameat, renameat2, unlinkat. Both fail as the odds of the world say. */
#ifndef BEAM_TEST_SIM_DISK_H
#define BEAM_TEST_SIM_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/support/test.h"

#define SIM_SECTOR 512u
#define SIM_DISK_NAMES 8u
#define SIM_DISK_NAME_LEN 40u

/* Begins with what is in the directory, all of it durable. `changed` is called after each change. */
void sim_disk_mount(const char *dir, void (*changed)(void));
/* From now on what is done to the files is done to no disk: power has gone. */
void sim_disk_unmount(void);

/* How often something has failed, by what it was done to. */
struct sim_disk_failures {
    unsigned of_file, of_new, of_directory;
};
extern struct sim_disk_failures sim_disk_failures; /* since the mount */
extern bool sim_disk_full; /* no room is set aside for anything any more, until it is unset */
extern bool sim_disk_sets_nothing_aside; /* it is one of those that cannot do that */

/* What is left after a loss of power: one of the many states that it could be. */
struct sim_remains {
    struct sim_remain {
        char name[SIM_DISK_NAME_LEN];
        uint8_t *bytes;
        size_t len;
    } files[SIM_DISK_NAMES];
    unsigned count;
};
void sim_disk_cut(struct test_random *luck, struct sim_remains *ret);
const struct sim_remain *sim_remains_find(const struct sim_remains *remains, const char *name);
void sim_remains_write(const struct sim_remains *remains, const char *dir);
void sim_remains_free(struct sim_remains *remains);

#endif
