/* What a status of HTTP means to a client of ours whose server was somebody else: rule E1. Pure. */
#ifndef BM_HTTP_STATUS_H
#define BM_HTTP_STATUS_H

#include <beam/error.h>

/* Of an answer without a body of rule Q4; 200 and its like too, which are no answer of Beam's then. */
enum beam_code bm_http_status_code(unsigned status);

#endif
