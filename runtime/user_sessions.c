/* A list of users, each with his count, under a lock that is taken once when a session of another user
 * begins and once when it ends: sessions come and go on any reactor, and the limit is one for all. Users
 * are few, so they are looked for one by one. Invariant: who is in the list has a session. */
#include "runtime/user_sessions.h"

#include <errno.h>

#include "base/alloc.h"
#include "base/assert.h"
#include "base/cleanup.h"

struct user {
    struct bm_list node;
    uint32_t uid;
    uint32_t count;
};

void bm_user_sessions_init(struct bm_user_sessions *all)
{
    pthread_mutex_init(&all->lock, NULL);
    bm_list_init(&all->users);
}

void bm_user_sessions_deinit(struct bm_user_sessions *all)
{
    bm_assert(bm_list_empty(&all->users));
    pthread_mutex_destroy(&all->lock);
}

static struct user *find(struct bm_user_sessions *all, uint32_t uid)
{
    for (struct bm_list *n = all->users.next; n != &all->users; n = n->next) {
        struct user *user = bm_list_entry(n, struct user, node);
        if (user->uid == uid)
            return user;
    }
    return NULL;
}

static int enter(struct bm_user_sessions *all, uint32_t uid, uint32_t max)
{
    struct user *user = find(all, uid);
    if ((user ? user->count : 0) >= max)
        return -EAGAIN;
    if (!user) {
        user = bm_alloc_zero(NULL, sizeof(*user));
        if (!user)
            return -ENOMEM;
        user->uid = uid;
        bm_list_push_back(&all->users, &user->node);
    }
    user->count++;
    return 0;
}

int bm_user_sessions_enter(struct bm_user_sessions *all, uint32_t uid, uint32_t max)
{
    pthread_mutex_lock(&all->lock);
    int r = enter(all, uid, max);
    pthread_mutex_unlock(&all->lock);
    return r;
}

void bm_user_sessions_leave(struct bm_user_sessions *all, uint32_t uid)
{
    pthread_mutex_lock(&all->lock);
    struct user *user = find(all, uid);
    bm_assert(user);
    if (--user->count == 0) {
        bm_list_unlink(&user->node);
        bm_free(NULL, user, sizeof(*user));
    }
    pthread_mutex_unlock(&all->lock);
}
