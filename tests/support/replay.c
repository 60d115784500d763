/* Stands in for libFuzzer where that is not linked: gives every file of the corpora to the fuzz
 * target once, so that inputs which once found a bug are replayed by every compiler and sanitizer.
 *
 *     fuzz_x FILE|DIR...
 *
 * The empty input is always tried. Each input is a case in the counts; a crash names its file. Unlike
 * under libFuzzer, LLVMFuzzerInitialize may say with something other than 0 that the target cannot run on
 * this machine: all is skipped then, which is a failure in CI. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/results.h"

#define INPUT_LEN_MAX (16u << 20) /* far above what the targets accept; a corpus has small files */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static char input[4096] = "(the empty input)";
static struct test_counts counts;

static void name_input(void)
{
    ssize_t n = write(STDERR_FILENO, "\n    with input ", 16);
    n += write(STDERR_FILENO, input, strlen(input));
    n += write(STDERR_FILENO, "\n", 1);
    (void)n;
}

static void replay_file(const char *path)
{
    snprintf(input, sizeof(input), "%s", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_size > (off_t)INPUT_LEN_MAX) {
        fprintf(stderr, "%s: %s\n", path, errno ? strerror(errno) : "too large");
        counts.failed++;
        if (fd >= 0)
            close(fd);
        return;
    }
    /* Of exactly its length, on the heap, so that a read past the end is seen. */
    size_t len = (size_t)st.st_size;
    uint8_t *data = malloc(len ? len : 1);
    if (!data || read(fd, data, len) != (ssize_t)len) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        counts.failed++;
    } else {
        LLVMFuzzerTestOneInput(data, len);
        counts.passed++;
    }
    free(data);
    close(fd);
}

static void replay(const char *path)
{
    DIR *dir = opendir(path);
    if (!dir) {
        replay_file(path);
        return;
    }
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        char child[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(child, sizeof(child), "%.3000s/%.1000s", path, entry->d_name);
        replay(child);
    }
    closedir(dir);
}

/* The target has said on stderr what it lacks here. */
static int skip_all(const char *program)
{
    const char *ci = getenv("CI");
    bool must = ci && strcmp(ci, "true") == 0;
    if (must)
        counts.failed++;
    else
        counts.skipped++;
    if (!must)
        test_results_skip(program, "corpus", "the target cannot run here");
    printf("0 passed, %u failed, %u skipped\n", counts.failed, counts.skipped);
    test_results_end(program, counts);
    return must ? 1 : 0;
}

int main(int argc, char **argv)
{
    const char *slash = strrchr(argv[0], '/');
    const char *program = slash ? slash + 1 : argv[0];
    test_on_crash(name_input);
    test_results_start(program);
    if (LLVMFuzzerInitialize && LLVMFuzzerInitialize(&argc, &argv) != 0)
        return skip_all(program);
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    counts.passed++;
    for (int i = 1; i < argc; i++)
        replay(argv[i]);
    printf("%u passed, %u failed, 0 skipped\n", counts.passed, counts.failed);
    test_results_end(program, counts);
    return counts.failed ? 1 : 0;
}
