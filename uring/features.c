/* Probing: features are tried, never inferred from a version; the version is for people.
 *
 * When there is no io_uring the text says which of the three usual causes it is, because the error
 * number alone does not: a container's seccomp profile, the sysctl, or an old kernel. */
#define _GNU_SOURCE
#include "uring/features.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "uring/kernel.h"

/* Newer than the oldest headers. */
#define FEAT_MIN_TIMEOUT (1u << 15) /* IORING_FEAT_MIN_TIMEOUT, 6.12 */
#define FEAT_NO_IOWAIT (1u << 17)   /* IORING_FEAT_NO_IOWAIT, 6.15 */
#define OPTION_PASSPIDFD 76         /* SO_PASSPIDFD, 6.5 */
#define OPTION_PASSRIGHTS 83        /* SO_PASSRIGHTS, 6.16 */

static struct bm_features features;
static pthread_once_t probed = PTHREAD_ONCE_INIT;

static char why[1024];
static pthread_mutex_t why_lock = PTHREAD_MUTEX_INITIALIZER;

static bool socket_has(int fd, int option)
{
    int on = 1;
    return fd >= 0 && setsockopt(fd, SOL_SOCKET, option, &on, sizeof(on)) == 0;
}

static void probe(void)
{
    struct bm_kernel *kernel = NULL;
    uint32_t bits = 0;
    if (bm_kernel_new(NULL, 1, 2, &kernel, &bits) == 0)
        bm_kernel_free(kernel, NULL);
    features.min_wait = bits & FEAT_MIN_TIMEOUT;
    features.no_iowait = bits & FEAT_NO_IOWAIT;

    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    features.pidfd = socket_has(fd, OPTION_PASSPIDFD);
    features.passrights = socket_has(fd, OPTION_PASSRIGHTS);
    if (fd >= 0)
        close(fd);

    struct utsname name;
    if (uname(&name) == 0)
        snprintf(features.kernel, sizeof(features.kernel), "%.*s", (int)sizeof(features.kernel) - 1,
                 name.release);
    snprintf(features.liburing, sizeof(features.liburing), "%s", bm_kernel_library());
}

const struct bm_features *bm_features_get(void)
{
    pthread_once(&probed, probe);
    return &features;
}

/* The first number after `key` in a small file of /proc, or -1. */
static int number_in(const char *path, const char *key)
{
    char text[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *at = strstr(text, key);
    int number;
    return at && sscanf(at + strlen(key), "%d", &number) == 1 ? number : -1;
}

static const char *remedy(int error, int disabled, int seccomp)
{
    if (error == -EPERM && disabled == 2)
        return "sysctl kernel.io_uring_disabled=2 forbids it to everybody; "
               "set it to 0: sysctl -w kernel.io_uring_disabled=0";
    if (error == -EPERM && disabled == 1)
        return "sysctl kernel.io_uring_disabled=1 allows it only to CAP_SYS_ADMIN and to the group "
               "in kernel.io_uring_group; set it to 0 or join that group";
    if ((error == -EPERM || error == -ENOSYS || error == -EACCES) && seccomp == 2)
        return "a seccomp filter is active, as container engines set it: allow io_uring_setup, "
               "io_uring_enter and io_uring_register in the profile "
               "(docker run --security-opt seccomp=PROFILE.json, or seccomp=unconfined)";
    if (error == -ENOSYS)
        return "the kernel was built without it or is older than 5.1; 6.1 or newer is needed";
    if (error == -EINVAL || error == -EOPNOTSUPP)
        return "the kernel does not know the ring's flags; 6.1 or newer is needed";
    return "a security module may forbid it; 6.1 or newer with io_uring allowed is needed";
}

static void shown(char *text, size_t len, int number)
{
    if (number < 0)
        snprintf(text, len, "absent");
    else
        snprintf(text, len, "%d", number);
}

void bm_features_refused(int error)
{
    int disabled = number_in("/proc/sys/kernel/io_uring_disabled", "");
    int seccomp = number_in("/proc/self/status", "\nSeccomp:");
    char disabled_text[16], seccomp_text[16];
    shown(disabled_text, sizeof(disabled_text), disabled);
    shown(seccomp_text, sizeof(seccomp_text), seccomp);
    struct utsname name;
    const char *release = uname(&name) == 0 ? name.release : "unknown";

    pthread_mutex_lock(&why_lock);
    snprintf(why, sizeof(why),
             "io_uring is not available: the kernel refused it with %s (%s); "
             "kernel %.64s, kernel.io_uring_disabled: %s, Seccomp: %s. Remedy: %s.",
             strerrorname_np(-error), strerrordesc_np(-error), release, disabled_text, seccomp_text,
             remedy(error, disabled, seccomp));
    pthread_mutex_unlock(&why_lock);
}

const char *bm_features_why(void)
{
    return why;
}
