/* What a program says and returns when the library has said no. The only file of the library that
 * prints, and only where the caller wants it. */
#include <errno.h>

#include <beam/runtime.h>

#include "uring/features.h"

static int exit_code_of_status(unsigned code)
{
    switch (code) {
    case BEAM_UNAVAILABLE:
        return 4;
    case BEAM_PERMISSION_DENIED:
    case BEAM_UNAUTHENTICATED:
        return 5;
    case BEAM_RESOURCE_EXHAUSTED:
        return 6;
    case BEAM_DEADLINE_EXCEEDED:
        return 7;
    case BEAM_NOT_FOUND:
        return 8;
    default:
        return 9;
    }
}

static int exit_code_of_error(int error)
{
    switch (-error) {
    case EINVAL:
    case ENAMETOOLONG:
    case BEAM_EURL:
        return 2;
    case BEAM_ENO_IO_URING:
        return 3;
    case ENOENT:
    case ECONNREFUSED:
    case ECONNABORTED:
    case ECONNRESET:
    case EPIPE:
    case EPROTOTYPE:
    case ESHUTDOWN:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ENETDOWN:
    case EHOSTDOWN:
    case BEAM_ETLS_CUT:
        return 4;
    case EACCES:
    case EPERM:
    case BEAM_ETLS_CERTIFICATE:
    case BEAM_ETLS_ALERT:
        return 5;
    case ENOMEM:
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case EAGAIN:
    case EMSGSIZE:
    case EADDRINUSE:
        return 6;
    case ETIMEDOUT:
        return 7;
    default:
        return 1;
    }
}

int beam_exit_code(int error, FILE *out)
{
    if (error == 0)
        return 0;
    if (error > 0) {
        if (out)
            fprintf(out, "beam: %s (%s)\n", beam_code_text((unsigned)error),
                    beam_code_name((unsigned)error));
        return exit_code_of_status((unsigned)error);
    }
    if (out)
        fprintf(out, "beam: %s\n",
                error == -BEAM_ENO_IO_URING ? bm_features_why() : beam_strerror(error));
    return exit_code_of_error(error);
}
