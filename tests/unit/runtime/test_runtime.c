#include <beam/beam.h>

#include <errno.h>

#include "runtime/runtime.h"
#include "tests/support/test.h"

TEST(runtime_of_too_much_is_refused_and_leaves_nothing)
{
    const struct beam_transport *transports[BM_TRANSPORTS_MAX + 2] = {NULL};
    beam_runtime *first = NULL;
    beam_runtime *runtime = NULL;
    for (unsigned i = 0; i <= BM_TRANSPORTS_MAX; i++)
        transports[i] = &beam_unix;
    /* What is refused must not be taken for one of the parent's in a child of fork(2). */
    REQUIRE_INT(beam_runtime_new(NULL, &first), 0);
    CHECK_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &runtime), -EINVAL);
    CHECK_PTR(runtime, NULL);
    CHECK_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = BEAM_REACTORS_MAX + 1), &runtime),
              -EINVAL);
    CHECK_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.reactors = 2, .embedded = true), &runtime),
              -EINVAL);
    CHECK_PTR(runtime, NULL);

    transports[BM_TRANSPORTS_MAX] = NULL;
    CHECK_INT(beam_runtime_new(&BEAM_RUNTIME_OPTIONS(.transports = transports), &runtime), 0);
    beam_runtime_free(runtime);
    beam_runtime_free(first);
}
