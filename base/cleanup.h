/* Scope-bound cleanup and moves, for constructors that disarm at the end.
 *
 *     BM_CLEANUP(bm_thing_freep) struct bm_thing *thing = NULL;
 *     ...
 *     *ret_thing = bm_take_ptr(thing);
 */
#ifndef BM_CLEANUP_H
#define BM_CLEANUP_H

#define BM_CLEANUP(fn) __attribute__((__cleanup__(fn)))

/* Moves a pointer out of a variable and leaves NULL behind. */
#define bm_take_ptr(ptr)                                                                           \
    __extension__({                                                                                \
        __typeof__(ptr) bm_taken_ = (ptr);                                                         \
        (ptr) = NULL;                                                                              \
        bm_taken_;                                                                                 \
    })

/* Moves a file descriptor out of a variable and leaves -1 behind. */
static inline int bm_take_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* The struct of which ptr is the address of a member. */
#define bm_container_of(ptr, type, member)                                                         \
    ((type *)((char *)(1 ? (ptr) : &((type *)0)->member) - __builtin_offsetof(type, member)))

#define BM_ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define BM_LIKELY(x) __builtin_expect(!!(x), 1)
#define BM_UNLIKELY(x) __builtin_expect(!!(x), 0)

#endif
