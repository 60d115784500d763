/* Services: finds the kind that a word of the command line names. */
#include "cli/services.h"
#include "cli/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct service_kind *const kinds[] = {
    &service_echo, &service_file, &service_clock, &service_reverse, &service_kv, &service_whoami,
};

#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

void service_list(FILE *out)
{
    for (size_t i = 0; i < KINDS; i++) {
        char word[32];
        snprintf(word, sizeof(word), "%s%s%s", kinds[i]->name, kinds[i]->argument ? ":" : "",
                 kinds[i]->argument ? kinds[i]->argument : "");
        fprintf(out, "    %-10s%s\n", word, kinds[i]->summary);
    }
}

static int complain(const char *text, const char *why)
{
    fprintf(stderr, "beam: service %s: %s; there are\n", text, why);
    service_list(stderr);
    return EXIT_USAGE;
}

static int add(beam_runtime *runtime, const char *text, const char *name, const char *kind,
               const char *argument)
{
    const struct service_kind *const *found = kinds;
    while (found < kinds + KINDS && strcmp((*found)->name, kind) != 0)
        found++;
    if (found == kinds + KINDS)
        return complain(text, "no such kind");
    if ((*found)->argument && (!argument || !*argument))
        return complain(text, "an argument is missing behind a colon");
    if (!(*found)->argument && argument)
        return complain(text, "it takes no argument");
    int r = (*found)->add(runtime, name, argument);
    if (r < 0)
        fprintf(stderr, "beam: service %s: %s\n", text,
                r == -EEXIST   ? "there is already one of this name (NAME=KIND gives another)"
                : r == -EINVAL ? "a name has 1 to 255 bytes of UTF-8"
                               : beam_strerror(r));
    return r == -EEXIST || r == -EINVAL ? EXIT_USAGE : r < 0 ? exit_status_of_file(r) : EXIT_OK;
}

int service_add(beam_runtime *runtime, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        return EXIT_LIMIT;
    /* A name ends at the first '=' in front of the colon: file:/a=b has none. */
    char *argument = strchr(copy, ':'), *kind = strchr(copy, '=');
    if (argument && kind > argument)
        kind = NULL;
    if (argument)
        *argument++ = '\0';
    if (kind)
        *kind++ = '\0';
    int status = add(runtime, text, copy, kind ? kind : copy, argument);
    free(copy);
    return status;
}
