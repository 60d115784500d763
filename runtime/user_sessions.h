/* How many sessions each other user has with a runtime, over all its reactors. Any thread. */
#ifndef BM_USER_SESSIONS_H
#define BM_USER_SESSIONS_H

#include <pthread.h>
#include <stdint.h>

#include "base/list.h"

struct bm_user_sessions {
    pthread_mutex_t lock;
    struct bm_list users;
};

void bm_user_sessions_init(struct bm_user_sessions *all);
void bm_user_sessions_deinit(struct bm_user_sessions *all);

/* One more of this user, to be given back with leave. -EAGAIN: he has max. -ENOMEM. */
int bm_user_sessions_enter(struct bm_user_sessions *all, uint32_t uid, uint32_t max);
void bm_user_sessions_leave(struct bm_user_sessions *all, uint32_t uid);

#endif
