/* The verb `kv`: stores, their files, and those who serve them. It finds the verb behind the verb. */
#include "cli/kv.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

const char kv_help[] =
    "usage: beam kv VERB FILE|URL ...\n"
    "\n"
    "Reads and changes a store of keys and values: one that `beam serve kv` offers, by its URL, "
    "or\n"
    "the file of one. Keys are texts; values are what JSON has, and bytes.\n"
    "\n"
    "    beam kv get      print the value of a key\n"
    "    beam kv put      set a key\n"
    "    beam kv del      delete keys\n"
    "    beam kv scan     print the keys that begin with a prefix\n"
    "    beam kv watch    print what a server has, and what changes\n"
    "    beam kv dump     copy all of it, as of one moment\n"
    "    beam kv load     put what a copy holds into a store\n"
    "    beam kv check    see whether a file is sound, and what is in it\n"
    "    beam kv compact  make a file as short as it can be\n"
    "\n"
    "A file that a server has open can be read as well, but only the server can change it.\n"
    "`beam kv VERB --help` explains each; keys that begin with - go behind --.\n"
    "\n"
    "try it:\n"
    "    beam serve kv --listen unix:/tmp/kv.sock --store /tmp/settings.kv &\n"
    "    beam kv watch unix:/tmp/kv.sock cfg/ --follow &\n"
    "    beam kv put unix:/tmp/kv.sock cfg/port 8080\n"
    "    beam kv put unix:/tmp/kv.sock cfg/hosts '[\"a\",\"b\"]'\n"
    "    beam kv scan /tmp/settings.kv\n"
    "    kill %1\n"
    "    beam kv check /tmp/settings.kv\n";

struct verb {
    const char *name, *whole;
    int (*run)(int argc, char **argv);
};

static const struct verb verbs[] = {
    {"get", "kv get", kv_get_main},
    {"put", "kv put", kv_put_main},
    {"del", "kv del", kv_del_main},
    {"scan", "kv scan", kv_scan_main},
    {"watch", "kv watch", kv_watch_main},
    {"dump", "kv dump", kv_dump_main},
    {"load", "kv load", kv_load_main},
    {"check", "kv check", kv_check_main},
    {"compact", "kv compact", kv_compact_main},
};

int kv_main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        fputs(kv_help, argc > 1 ? stdout : stderr);
        return argc > 1 ? EXIT_OK : EXIT_USAGE;
    }
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            argv[1] = (char *)verbs[i].whole; /* its name in what it says */
            return verbs[i].run(argc - 1, argv + 1);
        }
    }
    fprintf(stderr, "beam: kv %s: there is no such verb; `beam kv --help` lists them\n", name);
    return EXIT_USAGE;
}
