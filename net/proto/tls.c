/* A connection of TLS: moves bytes between the caller's memory and wolfSSL.
 *
 * Model: wolfSSL reads and writes through two callbacks. Reading takes from the bytes that the caller lent
 * (`in`), and wants more when they are used up; writing appends to a bounded buffer. Before anything is
 * encrypted, room is there for all that it becomes, so that the writing callback never says "later": after
 * that wolfSSL would have to be called again with the same bytes, and drops others in silence.
 *
 * Invariants: tls_inner.h. And every record that a peer sends before it proved or said something costs it
 * one of a limited number.
 *
 * Left to others: sockets, deadlines, how many handshakes an address may begin, and what a name that was
 * proved may do. */
#define _GNU_SOURCE
#include "net/proto/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <beam/error.h>

#ifndef WOLFSSL_USER_SETTINGS /* the system's says in there how it was made; ours has our own file */
#include <wolfssl/options.h>
#endif
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/sha256.h>

#include "base/assert.h"
#include "base/cleanup.h"
#include "net/proto/tls_inner.h"

#define RECORD_OVERHEAD 64u  /* header, type, tag, nonce: 22 in TLS 1.3, 29 in 1.2 */
#define OUTPUT_RESERVE 1024u /* of the output: alerts, close_notify, answers to a change of keys */
#define WRITE_LEAST 1024u    /* no smaller record is made for want of room */

/* ---- What wolfSSL calls. */

static const struct bm_budget_limit idle_limit = {BM_TLS_IDLE_RECORDS_MAX,
                                                  BM_TLS_IDLE_RECORDS_PER_S};

/* Follows the records as they are taken. False: one too many. */
static bool follow_records(struct bm_tls *tls, const uint8_t *bytes, size_t len)
{
    while (len > 0) {
        if (tls->body_left > 0) {
            size_t n = len < tls->body_left ? len : tls->body_left;
            tls->body_left -= n;
            bytes += n;
            len -= n;
            continue;
        }
        if (tls->header_len == 0 && tls->state == BM_TLS_OPEN &&
            !bm_budget_has(&tls->idle_budget, &idle_limit, tls->started++, tls->now_ns))
            return false;
        tls->header[tls->header_len++] = *bytes++;
        len--;
        if (tls->header_len == sizeof(tls->header)) {
            tls->body_left = (size_t)tls->header[3] << 8 | tls->header[4];
            tls->header_len = 0;
        }
    }
    return true;
}

int bm_tls_on_receive(WOLFSSL *ssl, char *buf, int len, void *arg)
{
    (void)ssl;
    struct bm_tls *tls = (struct bm_tls *)arg;
    if (tls->in_left == 0)
        return WOLFSSL_CBIO_ERR_WANT_READ;
    size_t n = tls->in_left < (size_t)len ? tls->in_left : (size_t)len;
    if (tls->state == BM_TLS_HANDSHAKE) {
        tls->handshake_len += n;
        tls->flooded = tls->handshake_len > BM_TLS_HANDSHAKE_MAX;
    }
    if (tls->flooded || !follow_records(tls, tls->in, n)) {
        tls->flooded = true;
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    memcpy(buf, tls->in, n);
    tls->in += n;
    tls->in_left -= n;
    return (int)n;
}

static size_t out_room(const struct bm_tls *tls)
{
    return tls->out_max - tls->out.len;
}

/* Room that will be needed, so that much leaves in one piece: for the plaintext that is there, and when
 * it is little at a time for as much as waits already. */
static size_t out_wanted(const struct bm_tls *tls)
{
    size_t room = out_room(tls), coming = tls->out_coming;
    if (coming >= room)
        return room;
    coming += (coming / BM_TLS_RECORD_MAX + 1) * RECORD_OVERHEAD;
    if (coming < tls->out.len)
        coming = tls->out.len;
    return coming < room ? coming : room;
}

int bm_tls_on_send(WOLFSSL *ssl, char *buf, int len, void *arg)
{
    (void)ssl;
    struct bm_tls *tls = (struct bm_tls *)arg;
    size_t room, n = (size_t)len;
    uint8_t *to = n > out_room(tls) ? NULL : bm_outbox_room(&tls->out, n, out_wanted(tls), &room);
    if (!to) {
        tls->out_error = n > out_room(tls) ? -ENOBUFS : -ENOMEM;
        return WOLFSSL_CBIO_ERR_GENERAL;
    }
    memcpy(to, buf, n);
    bm_outbox_commit(&tls->out, n);
    return len;
}

static int on_new_ticket(WOLFSSL *ssl, const unsigned char *ticket, int len, void *arg)
{
    (void)ssl;
    (void)ticket;
    ((struct bm_tls *)arg)->has_ticket = len > 0;
    return 0;
}

/* ---- The handshake. */

static int fail(struct bm_tls *tls, int error)
{
    tls->failure = bm_tls_failure_of(tls, error);
    tls->state = BM_TLS_FAILED;
    tls->in_left = 0;
    return tls->failure;
}

static int no_memory(struct bm_tls *tls)
{
    tls->failure = bm_tls_say(tls->why, -ENOMEM, "no memory for this connection");
    tls->state = BM_TLS_FAILED;
    tls->in_left = 0;
    return tls->failure;
}

static int read_peer(struct bm_tls *tls)
{
    if (wolfSSL_session_reused(tls->ssl) == 1)
        return 0; /* proved when the session began, for this host */
    WOLFSSL_X509 *certificate = wolfSSL_get_peer_certificate(tls->ssl);
    int len = 0, r = 0;
    const unsigned char *der = certificate ? wolfSSL_X509_get_der(certificate, &len) : NULL;
    if (der)
        r = bm_identity_new(&tls->peer, tls->account, der, (size_t)len);
    if (der && !tls->issued_for[0])
        bm_tls_remember_name(tls, der, (size_t)len);
    wolfSSL_X509_free(certificate);
    if (r == 0 && !tls->peer && bm_tls_verify_mode(tls->context) != WOLFSSL_VERIFY_NONE)
        return -ENOMEM; /* it was there, or the handshake would not have ended */
    return r;
}

/* What is known about the peer from now on; or that it is refused after all. */
static int opened(struct bm_tls *tls)
{
    tls->started = 0;
    char *name = NULL;
    unsigned short len = 0;
    if (wolfSSL_ALPN_GetProtocol(tls->ssl, &name, &len) == WOLFSSL_SUCCESS && name &&
        len <= BM_TLS_ALPN_NAME_MAX)
        memcpy(tls->alpn, name, len);
    if (tls->context->role == BM_TLS_SERVER)
        (void)bm_tls_asked_name(tls->ssl, tls->server_name);
    int r = read_peer(tls);
    if (r == -ENOMEM)
        (void)bm_tls_say(tls->why, r, "no memory for this connection");
    else if (r < 0)
        r = bm_tls_say(tls->why, -BEAM_ETLS_CERTIFICATE,
                       "the peer's certificate has too many names, or one that is none");
    else if (tls->context->role == BM_TLS_CLIENT && wolfSSL_session_reused(tls->ssl) != 1 &&
             !bm_identity_is_for_host(tls->peer, tls->host))
        r = bm_tls_wrong_host(tls);
    else if (tls->alpn_refused) /* where the library goes on all the same: 5.5.4 */
        r = bm_tls_say(tls->why, -BEAM_ETLS_ALPN, "no application protocol in common");
    tls->state = r == 0 ? BM_TLS_OPEN : BM_TLS_FAILED;
    tls->failure = r;
    if (r < 0)
        (void)wolfSSL_shutdown(tls->ssl);
    return r;
}

static int negotiate(struct bm_tls *tls)
{
    int r =
        tls->context->role == BM_TLS_SERVER ? wolfSSL_accept(tls->ssl) : wolfSSL_connect(tls->ssl);
    if (r == WOLFSSL_SUCCESS)
        return opened(tls);
    int error = wolfSSL_get_error(tls->ssl, r);
    return error == WOLFSSL_ERROR_WANT_READ ? 0 : fail(tls, error);
}

/* A name as it may stand in a certificate, or an address. */
static int take_host(struct bm_tls *tls, const char *host)
{
    struct in6_addr address; /* the larger one */
    size_t len = host ? strlen(host) : 0;
    if (len == 0 || len > BM_TLS_HOST_MAX)
        return -EINVAL;
    tls->host_is_address =
        inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
    for (const char *p = host; !tls->host_is_address && *p; p++)
        if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
              *p == '-' || *p == '.' || *p == '_'))
            return -EINVAL;
    memcpy(tls->host, host, len + 1);
    return 0;
}

/* A session as bytes: what it is good for, a sum, and the library's form of it. The sum, because the library
 * reads what it is given without much care. */
#define SESSION_HEAD (2 * BM_TLS_ID_LEN)

static void try_to_resume(struct bm_tls *tls, const struct bm_tls_start *start)
{
    const size_t id_len = sizeof(tls->session_id);
    uint8_t sum[BM_TLS_ID_LEN];
    if (!start->resume || start->resume_len <= SESSION_HEAD ||
        start->resume_len > BM_TLS_SESSION_MAX ||
        memcmp(start->resume, tls->session_id, id_len) != 0)
        return;
    const unsigned char *bytes = start->resume + SESSION_HEAD;
    size_t len = start->resume_len - SESSION_HEAD;
    if (wc_Sha256Hash(bytes, (word32)len, sum) != 0 ||
        memcmp(start->resume + id_len, sum, sizeof(sum)) != 0)
        return;
    WOLFSSL_SESSION *session = wolfSSL_d2i_SSL_SESSION(NULL, &bytes, (long)len);
    if (session)
        (void)wolfSSL_set_session(tls->ssl, session); /* too old: a whole handshake */
    wolfSSL_SESSION_free(session);
}

/* A name of one label other than localhost it calls no domain's. Those are judged here alone, as all names
 * are besides: when the certificate comes (tls_failure.c), and after the handshake. */
static bool library_checks(const char *host)
{
    return strchr(host, '.') || strcmp(host, "localhost") == 0;
}

static int begin_client(struct bm_tls *tls, const struct bm_tls_start *start)
{
    char alpn[BM_TLS_ALPN_MAX * (BM_TLS_ALPN_NAME_MAX + 1)] = "";
    size_t len = 0;
    for (unsigned i = 0; i < tls->context->alpn_count; i++) {
        const struct bm_tls_alpn_name *name = &tls->context->alpn[i];
        if (i > 0)
            alpn[len++] = ',';
        memcpy(alpn + len, name->text, name->len);
        len += name->len;
    }
    bool ok = len == 0 || wolfSSL_UseALPN(tls->ssl, alpn, (unsigned)len,
                                          WOLFSSL_ALPN_FAILED_ON_MISMATCH) == WOLFSSL_SUCCESS;
    if (tls->host_is_address)
        ok = ok && wolfSSL_X509_VERIFY_PARAM_set1_ip_asc(wolfSSL_get0_param(tls->ssl), tls->host) ==
                       WOLFSSL_SUCCESS;
    else
        ok = ok &&
             (!library_checks(tls->host) ||
              wolfSSL_check_domain_name(tls->ssl, tls->host) == WOLFSSL_SUCCESS) &&
             wolfSSL_UseSNI(tls->ssl, WOLFSSL_SNI_HOST_NAME, tls->host,
                            (unsigned short)strlen(tls->host)) == WOLFSSL_SUCCESS;
    ok = ok && wolfSSL_UseOCSPStapling(tls->ssl, WOLFSSL_CSR_OCSP, 0) == WOLFSSL_SUCCESS &&
         wolfSSL_UseSessionTicket(tls->ssl) == WOLFSSL_SUCCESS &&
         wolfSSL_set_SessionTicket_cb(tls->ssl, on_new_ticket, tls) == WOLFSSL_SUCCESS &&
         wolfSSL_UseKeyShare(tls->ssl, WOLFSSL_ECC_X25519) == WOLFSSL_SUCCESS;
    if (!ok)
        return -ENOMEM;
    int r = bm_tls_name_session(tls->context, tls->host, start->port, tls->session_id);
    if (r < 0)
        return r;
    try_to_resume(tls, start);
    return negotiate(tls);
}

/* start: a client's. */
static int begin(struct bm_tls *tls, const struct bm_tls_start *start)
{
    bool client = tls->context->role == BM_TLS_CLIENT;
    tls->ssl = wolfSSL_new(tls->context->ctx);
    if (!tls->ssl)
        return -ENOMEM;
    wolfSSL_SetIOReadCtx(tls->ssl, tls);
    wolfSSL_SetIOWriteCtx(tls->ssl, tls);
    wolfSSL_SetCertCbCtx(tls->ssl, tls);
    int mode = bm_tls_verify_mode(tls->context);
    wolfSSL_set_verify(tls->ssl, mode, mode != WOLFSSL_VERIFY_NONE ? bm_tls_on_verify : NULL);
    if (client)
        return begin_client(tls, start);
    bool tickets = tls->context->has_ticket_keys && !tls->context->client_certificate;
    return tickets || (wolfSSL_no_ticket_TLSv13(tls->ssl) == 0 &&
                       wolfSSL_NoTicketTLSv12(tls->ssl) == WOLFSSL_SUCCESS)
               ? 0
               : -ENOMEM;
}

static void tls_freep(struct bm_tls **tls)
{
    bm_tls_free(*tls);
}

int bm_tls_new(struct bm_tls **ret_tls, struct bm_tls_context *context,
               const struct bm_tls_start *start)
{
    size_t out_max = start->output_max ? start->output_max : BM_TLS_OUTPUT_MAX;
    if (start->size != sizeof(*start) ||
        out_max < BM_TLS_RECORD_MAX + RECORD_OVERHEAD + OUTPUT_RESERVE)
        return -EINVAL;
    BM_CLEANUP(tls_freep)
    struct bm_tls *tls = (struct bm_tls *)bm_alloc_zero(start->account, sizeof(*tls));
    if (!tls)
        return -ENOMEM;
    tls->context = bm_tls_context_ref(context);
    tls->account = start->account;
    tls->out = (struct bm_outbox){.account = start->account, .kept_max = out_max};
    tls->out_max = out_max;
    int r = context->role == BM_TLS_CLIENT ? take_host(tls, start->host) : 0;
    if (r < 0)
        return r;
    tls->payer = bm_payer_new(start->account);
    if (!tls->payer)
        return -ENOMEM;
    /* A server begins with the peer's first bytes: one that says nothing costs nothing of the library's. */
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    if (context->role == BM_TLS_CLIENT)
        r = begin(tls, start);
    bm_payer_leave(outer);
    if (r < 0)
        return r;
    *ret_tls = bm_take_ptr(tls);
    return 0;
}

struct bm_tls *bm_tls_free(struct bm_tls *tls)
{
    if (!tls)
        return NULL;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    wolfSSL_free(tls->ssl);
    bm_payer_leave(outer);
    bm_payer_free(tls->payer);
    bm_outbox_deinit(&tls->out);
    bm_identity_free(tls->peer, tls->account);
    bm_tls_context_unref(tls->context);
    struct bm_account *account = tls->account;
    explicit_bzero(tls, sizeof(*tls));
    return (struct bm_tls *)bm_free(account, tls, sizeof(*tls));
}

int bm_tls_peek_name(const uint8_t *bytes, size_t len, char *ret_name)
{
    static const uint8_t begin[] = {22, 3}; /* a record of a handshake, SSL 3 or later */
    unsigned name_len = BM_TLS_HOST_MAX;
    if (memcmp(bytes, begin, len < sizeof(begin) ? len : sizeof(begin)) != 0)
        return -BEAM_ETLS_PROTOCOL;
    size_t record_len = len < 5 ? 0 : 5 + ((size_t)bytes[3] << 8 | bytes[4]);
    if (record_len > 5 + BM_TLS_RECORD_MAX)
        return -BEAM_ETLS_PROTOCOL;
    if (len < 5 || len < record_len)
        return 1;
    int r = wolfSSL_SNI_GetFromBuffer(bytes, (unsigned)record_len, WOLFSSL_SNI_HOST_NAME,
                                      (unsigned char *)ret_name, &name_len);
    if (r == 0 || (r == WOLFSSL_SUCCESS && name_len == 0))
        return -ENOENT;
    if (r != WOLFSSL_SUCCESS || name_len > BM_TLS_HOST_MAX)
        return -BEAM_ETLS_PROTOCOL;
    ret_name[name_len] = '\0';
    return strlen(ret_name) == name_len ? 0 : -BEAM_ETLS_PROTOCOL;
}

int bm_tls_receive(struct bm_tls *tls, const uint8_t *bytes, size_t len, uint64_t now_ns)
{
    if (tls->state == BM_TLS_FAILED)
        return tls->failure;
    if (tls->in_left > 0)
        return -EBUSY;
    if (tls->peer_closed) /* RFC 8446 6.1: what comes after it is ignored */
        return 0;
    tls->in = bytes;
    tls->in_left = len;
    tls->now_ns = now_ns;
    if (tls->state != BM_TLS_HANDSHAKE)
        return 0;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    int r = tls->ssl ? 0 : begin(tls, NULL);
    if (r == 0)
        r = negotiate(tls);
    else
        r = no_memory(tls);
    bm_payer_leave(outer);
    return r;
}

/* After a call of wolfSSL_read(): which of the records it began are done, and cost something. False: more
 * than there was left to spend. */
static bool count_records(struct bm_tls *tls, bool plaintext)
{
    unsigned under_way = tls->started > 0 && (tls->header_len > 0 || tls->body_left > 0);
    unsigned done = tls->started - under_way;
    if (plaintext && done > 0)
        done--; /* the last of them had it */
    tls->started = under_way;
    return bm_budget_spend(&tls->idle_budget, &idle_limit, done, tls->now_ns);
}

int bm_tls_read(struct bm_tls *tls, void *buf, size_t len, size_t *ret_len)
{
    if (tls->state == BM_TLS_FAILED)
        return tls->failure;
    if (len == 0)
        return -EINVAL;
    if (tls->state == BM_TLS_HANDSHAKE)
        return BM_TLS_MORE;
    if (tls->peer_closed)
        return BM_TLS_END;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    int r = 0, n = wolfSSL_read(tls->ssl, buf, len > INT_MAX ? INT_MAX : (int)len);
    if (n > 0) {
        (void)count_records(tls, true); /* bm_tls_on_receive() has seen to that */
        *ret_len = (size_t)n;
    } else {
        int error = wolfSSL_get_error(tls->ssl, n);
        if (error == WOLFSSL_ERROR_WANT_READ) {
            tls->flooded = !count_records(tls, false);
            r = tls->flooded ? fail(tls, error) : BM_TLS_MORE;
        } else if (error == WOLFSSL_ERROR_ZERO_RETURN) {
            tls->peer_closed = true;
            tls->in_left = 0;
            r = BM_TLS_END;
        } else {
            r = fail(tls, error);
        }
    }
    bm_payer_leave(outer);
    return r;
}

int bm_tls_cut(struct bm_tls *tls)
{
    if (tls->state == BM_TLS_FAILED)
        return tls->failure;
    if (tls->peer_closed)
        return 0;
    tls->failure =
        bm_tls_say(tls->why, -BEAM_ETLS_CUT, "the connection ended in the middle of %s",
                   tls->state == BM_TLS_HANDSHAKE ? "the handshake" : "the conversation");
    tls->state = BM_TLS_FAILED;
    tls->in_left = 0;
    return tls->failure;
}

int bm_tls_write(struct bm_tls *tls, const void *data, size_t len, size_t *ret_taken)
{
    if (tls->state == BM_TLS_FAILED)
        return tls->failure;
    if (tls->closed)
        return -EPIPE;
    if (tls->state == BM_TLS_HANDSHAKE)
        return -EAGAIN;
    const uint8_t *bytes = (const uint8_t *)data;
    size_t taken = 0;
    int r = 0;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    while (taken < len) {
        tls->out_coming = len - taken;
        size_t room = out_room(tls);
        size_t n = len - taken < BM_TLS_RECORD_MAX ? len - taken : BM_TLS_RECORD_MAX;
        if (room < OUTPUT_RESERVE + RECORD_OVERHEAD)
            break;
        room -= OUTPUT_RESERVE + RECORD_OVERHEAD;
        if (n > room) {
            if (room < WRITE_LEAST)
                break;
            n = room;
        }
        int wrote = wolfSSL_write(tls->ssl, bytes + taken, (int)n);
        if (wrote <= 0) {
            r = fail(tls, wolfSSL_get_error(tls->ssl, wrote));
            break;
        }
        taken += (size_t)wrote;
    }
    tls->out_coming = 0;
    bm_payer_leave(outer);
    if (r == 0)
        *ret_taken = taken;
    return r;
}

int bm_tls_close(struct bm_tls *tls)
{
    if (tls->state == BM_TLS_FAILED)
        return tls->failure;
    if (tls->closed)
        return 0;
    tls->closed = true;
    if (!tls->ssl) { /* nobody has said anything: no keys, and as the library would say it */
        char close_notify[] = {21, 3, 3, 0, 2, 1, 0};
        (void)bm_tls_on_send(NULL, close_notify, sizeof(close_notify), tls);
        return tls->out_error;
    }
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    (void)wolfSSL_shutdown(tls->ssl);
    bm_payer_leave(outer);
    return tls->out_error;
}

const uint8_t *bm_tls_output(struct bm_tls *tls, size_t *ret_len)
{
    return bm_outbox_output(&tls->out, ret_len);
}

size_t bm_tls_output_len(const struct bm_tls *tls)
{
    return tls->out.len;
}

void bm_tls_output_ack(struct bm_tls *tls, size_t n)
{
    bm_outbox_ack(&tls->out, n);
}

void bm_tls_trim(struct bm_tls *tls)
{
    bm_outbox_trim(&tls->out);
}

bool bm_tls_is_open(const struct bm_tls *tls)
{
    return tls->state == BM_TLS_OPEN;
}

const char *bm_tls_why(const struct bm_tls *tls)
{
    return tls->why;
}

void bm_tls_facts(const struct bm_tls *tls, struct bm_tls_facts *ret_facts)
{
    bool open = tls->state == BM_TLS_OPEN;
    const char *group = open ? wolfSSL_get_curve_name(tls->ssl) : NULL;
    *ret_facts = (struct bm_tls_facts){
        .version = open ? wolfSSL_get_version(tls->ssl) : "",
        .cipher = open ? wolfSSL_get_cipher_name(tls->ssl) : "",
        .group = group ? group : "",
        .alpn = tls->alpn,
        .server_name = tls->server_name,
        .resumed = open && wolfSSL_session_reused(tls->ssl) == 1,
    };
}

const struct bm_identity *bm_tls_peer(const struct bm_tls *tls)
{
    return tls->state == BM_TLS_OPEN ? tls->peer : NULL;
}

int bm_tls_session(struct bm_tls *tls, uint8_t *buf, size_t len, size_t *ret_len)
{
    size_t room = len < BM_TLS_SESSION_MAX ? len : BM_TLS_SESSION_MAX;
    if (!tls->has_ticket || tls->state != BM_TLS_OPEN)
        return -ENODATA;
    struct bm_payer *outer = bm_payer_enter(tls->payer);
    WOLFSSL_SESSION *session = wolfSSL_get1_session(tls->ssl);
    int needed = session ? wolfSSL_i2d_SSL_SESSION(session, NULL) : 0, r = -ENOMEM;
    if (needed > 0 && (size_t)needed + SESSION_HEAD > room) {
        r = -EMSGSIZE;
    } else if (needed > 0) {
        unsigned char *to = buf + SESSION_HEAD;
        if (wolfSSL_i2d_SSL_SESSION(session, &to) == needed &&
            wc_Sha256Hash(buf + SESSION_HEAD, (word32)needed, buf + sizeof(tls->session_id)) == 0) {
            memcpy(buf, tls->session_id, sizeof(tls->session_id));
            *ret_len = SESSION_HEAD + (size_t)needed;
            r = 0;
        }
    }
    wolfSSL_SESSION_free(session);
    bm_payer_leave(outer);
    return r;
}
