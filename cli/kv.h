/* The verbs of `beam kv`, each with its own help; verb_kv.c finds them. argv[0] is "kv get" and so on;
 * the result is the exit code of the program. */
#ifndef CLI_KV_H
#define CLI_KV_H

int kv_get_main(int argc, char **argv);
int kv_put_main(int argc, char **argv);
int kv_del_main(int argc, char **argv);
int kv_scan_main(int argc, char **argv);
int kv_watch_main(int argc, char **argv);
int kv_dump_main(int argc, char **argv);
int kv_load_main(int argc, char **argv);
int kv_check_main(int argc, char **argv);
int kv_compact_main(int argc, char **argv);

#endif
