/* The service `kv`: a store, for others to read, change and follow (docs/spec/kv.md, Level 2). It is
 * kept in a file if --store names one, else in memory.
 *
 * A store belongs to a reactor, so it is opened when that runs, before anybody is listened to; what is
 * wrong with its file is told then, and ends the program. */
#include "cli/services.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const char *path; /* NULL: in memory */
    enum beam_store_sync sync;
    int status; /* enum exit_status: of what could not be opened */
} kv;

struct opening {
    beam_runtime *runtime;
    char name[];
};

int service_kv_options(const char *store, const char *sync)
{
    static const char *const names[] = {"each", "batch", "none"};
    kv.path = store && strcmp(store, "none") != 0 ? store : NULL;
    for (unsigned i = 0; sync && i < 3; i++) {
        if (strcmp(sync, names[i]) == 0) {
            kv.sync = (enum beam_store_sync)i;
            return 0;
        }
    }
    if (sync)
        fprintf(stderr, "beam: --sync %s: each, batch or none\n", sync);
    return sync ? -EINVAL : 0;
}

int service_kv_status(void)
{
    return kv.status;
}

static void open_store(void *arg)
{
    struct opening *opening = arg;
    beam_store *store = NULL;
    int r = beam_store_open(opening->runtime, &BEAM_STORE_OPTIONS(.path = kv.path, .sync = kv.sync),
                            &store);
    if (r >= 0)
        r = beam_store_serve(store, opening->name);
    if (r < 0) {
        fprintf(stderr, "beam: service %s: %s: %s\n", opening->name, kv.path ? kv.path : "memory",
                r == -EEXIST ? "there is already one of this name" : beam_strerror(r));
        kv.status = exit_status_of_file(r);
        beam_runtime_stop(opening->runtime);
    }
    free(opening);
}

/* The runtime closes what is open when it stops. */
static int add(beam_runtime *runtime, const char *name, const char *argument)
{
    size_t len = strlen(name);
    struct opening *opening = malloc(sizeof(*opening) + len + 1);
    if (!opening)
        return -ENOMEM;
    opening->runtime = runtime;
    memcpy(opening->name, name, len + 1);
    int r = beam_post(runtime, 0, open_store, opening);
    if (r < 0)
        free(opening);
    return r;
}

const struct service_kind service_kv = {
    .name = "kv",
    .summary = "a store of keys and values, in memory or in a file (--store)",
    .add = add,
};
