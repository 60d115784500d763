/* Two connected stream sockets of which either end can be reset, so that the other reads ECONNRESET and
 * never an end of file that was none. That takes TCP over loopback: of socketpair(2) nobody can tell a
 * broken end from a closed one. */
#ifndef BM_SOCKET_PAIR_H
#define BM_SOCKET_PAIR_H

/* Both close-on-exec; the first non-blocking, for us, the second blocking, for an application. -EMFILE and
 * what else socket(2) says; -EADDRNOTAVAIL and the like where there is no loopback (127.0.0.1). */
int bm_socket_pair_new(int ret_fds[2]);

#endif
