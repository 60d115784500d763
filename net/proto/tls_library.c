/* wolfSSL in this process. What is common to the process is its own: it is counted here who uses it, so
 * that nothing of it is left when the last context is gone. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#ifndef WOLFSSL_USER_SETTINGS /* the system's says in there how it was made; ours has our own file */
#include <wolfssl/options.h>
#endif
#include <wolfssl/ssl.h>
#include <wolfssl/wolfcrypt/ecc.h>

#include "net/proto/tls_inner.h"
#include "net/proto/wolfssl_users.h"

static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned library_users;

int bm_wolfssl_enter(void)
{
    int r = 0;
    struct bm_payer *outer = bm_payer_enter(NULL);
    pthread_mutex_lock(&library_lock);
    if (library_users == 0) {
        /* For good: blocks of others' making must not come back to another allocator. */
        wolfSSL_SetAllocators(bm_payer_malloc, bm_payer_release, bm_payer_realloc);
        r = wolfSSL_Init() == WOLFSSL_SUCCESS ? 0 : -ENOMEM;
    }
    if (r == 0)
        library_users++;
    pthread_mutex_unlock(&library_lock);
    bm_payer_leave(outer);
    return r;
}

void bm_wolfssl_leave(void)
{
    struct bm_payer *outer = bm_payer_enter(NULL);
#ifdef FP_ECC /* the system's keeps points for this thread, some MB of them */
    wc_ecc_fp_free();
#endif
    pthread_mutex_lock(&library_lock);
    if (--library_users == 0)
        wolfSSL_Cleanup();
    pthread_mutex_unlock(&library_lock);
    bm_payer_leave(outer);
}

bool bm_tls_has_aes(void)
{
#if defined(WOLFSSL_AESNI) && defined(__x86_64__)
    return __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#else
    return false;
#endif
}

static char library_text[96];

static void describe_library(void)
{
    snprintf(library_text, sizeof(library_text), "wolfSSL %s, %s", wolfSSL_lib_version(),
             bm_tls_has_aes() ? "AES-NI" : "without AES-NI, ChaCha20 first");
}

const char *bm_tls_library(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, describe_library);
    return library_text;
}

const char *bm_tls_library_warning(void)
{
    word32 version = wolfSSL_lib_version_hex();
    if (version < 0x05009000)
        return "wolfSSL is older than 5.9.0: as released it lacks the fixes of CVE-2023-6937, "
               "CVE-2024-0901, CVE-2024-1544, CVE-2024-5814, CVE-2026-3547 and CVE-2026-11703; "
               "do not expose it to the Internet unless your distribution has them";
    if (version < 0x05009002)
        return "wolfSSL is older than 5.9.2: it lacks the fix of CVE-2026-11703";
    return NULL;
}

const char *bm_tls_library_says(int error)
{
    const char *text = wolfSSL_ERR_reason_error_string((unsigned long)error);
    return text ? text : "unknown error";
}
