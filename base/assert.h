/* Assertions for our own bugs. They stay on in release builds: a broken invariant in a server that
 * passes file descriptors is worth a core dump. Never used on bytes that came from a peer. */
#ifndef BM_ASSERT_H
#define BM_ASSERT_H

__attribute__((noreturn, cold)) void bm_assert_failed(const char *expr, const char *file, int line);

#define bm_assert(expr)                                                                            \
    (__builtin_expect(!!(expr), 1) ? (void)0 : bm_assert_failed(#expr, __FILE__, __LINE__))

#endif
