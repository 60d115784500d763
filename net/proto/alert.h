/* What a TLS alert means, in words (RFC 8446 6, RFC 5246 7.2). */
#ifndef BM_ALERT_H
#define BM_ALERT_H

/* A static text for any number, without a full stop: "certificate has expired". */
const char *bm_alert_text(int number);

#endif
