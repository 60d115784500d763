/* A directory below one that the process has to itself: in TMPDIR, or in memory if there is such a place. What
 * is synced is simulated, so that nothing has to come to a real disk. */
#include "tests/sim_log/home.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/sim_log/truth.h"
#include "tests/support/sim/sim.h"

#define JUDGED_EACH 2u /* states at each change */

static struct home {
    char root[PATH_MAX], dir[PATH_MAX], path[PATH_MAX];
    unsigned number;         /* of the directory */
    struct test_random cuts; /* luck of its own: more states change nothing else */
    struct sim_remains remains;
} home;

const char *home_doing;
bool home_without_power;

void home_judge(const char *when)
{
    struct sim_remains remains;
    if (home_without_power)
        return;
    sim_disk_cut(&home.cuts, &remains);
    truth_judge(&remains, HOME_NAME, when);
    sim_remains_free(&remains);
}

static void on_change(void)
{
    for (unsigned i = 0; i < JUDGED_EACH; i++)
        home_judge(home_doing);
}

static void remove_dir(void)
{
    DIR *stream = opendir(home.dir);
    for (struct dirent *entry; stream && (entry = readdir(stream));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(stream), entry->d_name, 0);
    if (stream)
        closedir(stream);
    rmdir(home.dir);
}

/* A directory with what is left. */
static void mount_next(void)
{
    snprintf(home.dir, sizeof(home.dir), "%.200s/%u", home.root, home.number++);
    snprintf(home.path, sizeof(home.path), "%.300s/%s", home.dir, HOME_NAME);
    if (mkdir(home.dir, 0700) < 0)
        sim_fail("%s cannot be made", home.dir);
    sim_remains_write(&home.remains, home.dir);
    sim_remains_free(&home.remains);
    sim_disk_mount(home.dir, on_change);
    home_without_power = false;
}

void home_begin(uint64_t seed)
{
    const char *where = getenv("TMPDIR");
    if (!where)
        where = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    home = (struct home){.cuts = {seed * 3 + 2}};
    snprintf(home.root, sizeof(home.root), "%.100s/beam-sim-XXXXXX", where);
    if (!mkdtemp(home.root))
        sim_fail("%s cannot be made", home.root);
    sim_on_fail = home_end;
    home_doing = "in between";
    mount_next();
}

void home_end(void)
{
    sim_on_fail = NULL;
    sim_disk_unmount();
    remove_dir();
    rmdir(home.root);
}

const char *home_path(void)
{
    return home.path;
}

void home_lose_power(void)
{
    sim_disk_cut(&home.cuts, &home.remains);
    sim_event("power is lost");
    sim_disk_unmount();
    home_without_power = true;
}

void home_get_power(void)
{
    remove_dir();
    mount_next();
}

void home_check_names(bool new_allowed)
{
    DIR *stream = opendir(home.dir);
    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, HOME_NAME) == 0)
            continue;
        if (!new_allowed || strcmp(entry->d_name, HOME_NAME ".new") != 0)
            sim_fail("%s is left in the directory", entry->d_name);
    }
    if (stream)
        closedir(stream);
}
