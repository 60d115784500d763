/* The path of a call, behind "/beam/call/": SERVICE[/METHOD]. Pure. */
#ifndef BM_CALL_PATH_H
#define BM_CALL_PATH_H

#include <beam/kv.h>

/* Decodes both into room, which has as many bytes as the path; METHOD may hold "/", and is empty if there
 * is none. -EINVAL: "%" without two digits. */
int bm_call_path_read(beam_str path, char *room, beam_str *ret_service, beam_str *ret_method);

#endif
