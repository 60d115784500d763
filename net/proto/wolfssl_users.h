/* Who uses wolfSSL in this process: its allocator is set, and its own state made, for the first one, and
 * what it still holds is given back by the last. */
#ifndef BM_WOLFSSL_USERS_H
#define BM_WOLFSSL_USERS_H

/* Any thread. 0 or -ENOMEM; then nothing is to be left. */
int bm_wolfssl_enter(void);
void bm_wolfssl_leave(void);

#endif
