/* `beam --version`: what this program, this kernel and the limits here are. */
#include "cli/arguments.h"
#include "cli/verbs.h"

#include <beam/net.h>

#include <errno.h>
#include <inttypes.h>
#include <sys/resource.h>

static const char version_help[] = "usage: beam --version\n"
                                   "\n"
                                   "Shows the versions of this program, the kernel, liburing and "
                                   "the TLS library, which features there\n"
                                   "are, and the limits that hold here.\n";

static void print_feature(const char *name, bool there, const char *meaning)
{
    printf("    %-12s %-4s %s\n", name, there ? "yes" : "no", meaning);
}

static void print_rlimit(const char *name, __rlimit_resource_t resource, const char *meaning)
{
    struct rlimit limit;
    char text[32] = "?";
    if (getrlimit(resource, &limit) == 0) {
        if (limit.rlim_cur == RLIM_INFINITY)
            snprintf(text, sizeof(text), "unlimited");
        else
            snprintf(text, sizeof(text), "%" PRIu64, (uint64_t)limit.rlim_cur);
    }
    printf("    %-12s %-10s %s\n", name, text, meaning);
}

int version_main(int argc, char **argv)
{
    static const struct option none[] = {{NULL, OPTION_FLAG, NULL, 0, 0}};
    char **words;
    int count = arguments_read(argc, argv, none, version_help, &words);
    if (count < 0)
        return count == -ECANCELED ? EXIT_OK : EXIT_USAGE;
    if (count > 0) {
        fprintf(stderr, "beam: %s: nothing belongs behind --version\n", words[0]);
        return EXIT_USAGE;
    }
    /* Whether io_uring may be used here shows when it is used. */
    beam_runtime *runtime = NULL;
    bool usable = beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.embedded = true), &runtime) >= 0;
    beam_runtime_free(runtime);
    const struct beam_platform *here = beam_platform();
    printf("beam %s\n", here->version);
    printf("Linux %s, liburing %s\n", here->kernel, here->liburing);
    printf("TLS: %s\n", beam_tls_library());
    if (beam_tls_library_warning())
        printf("    warning: %s\n", beam_tls_library_warning());
    printf("features:\n");
    print_feature("io_uring", usable,
                  usable ? "what everything here is made of" : beam_runtime_why());
    print_feature("pidfd", here->pidfd, "peers of unix sessions can be watched (Linux 6.5)");
    print_feature("passrights", here->passrights,
                  "unwanted descriptors are refused by the kernel (Linux 6.16)");
    print_feature("min-wait", here->min_wait, "waiting for several completions (Linux 6.12)");
    print_feature("no-iowait", here->no_iowait,
                  "sleeping does not count as disk wait (Linux 6.15)");
    print_feature("xml", beam_xml() != NULL, "documents as XML (built with expat)");
    printf("limits of a message:\n");
    printf("    %-12s %-10d bytes of keys and values\n", "metadata", BEAM_METADATA_LEN_MAX);
    printf("    %-12s %-10d in its metadata\n", "keys", BEAM_METADATA_KEYS_MAX);
    printf("    %-12s %-10d file descriptors\n", "fds", BEAM_MESSAGE_FDS_MAX);
    printf("    %-12s %-10d attached channels\n", "channels", BEAM_MESSAGE_CHANNELS_MAX);
    printf("limits of a session: `beam serve --help`\n");
    printf("limits of this process:\n");
    print_rlimit("nofile", RLIMIT_NOFILE, "open files; a quarter may be on its way to sessions");
    printf("    %-12s %-10d threads of a runtime\n", "reactors", BEAM_REACTORS_MAX);
    return EXIT_OK;
}
