/* The names in a certificate.
 *
 * Model: a walk over DER with a cursor that cannot leave what it is in; each element is taken whole, and
 * only those on the way to the subject and to the alternative names are looked into. Twice: to count, then
 * to copy into one block.
 *
 * Invariant: a text given out has no byte that could end it early or turn a line of a log: what two readers
 * could read differently is refused, not cut (a name with a zero byte in it, once, was how certificates
 * for other people's hosts were had).
 *
 * Not here: signatures, validity, constraints. Those are the library's. */
#define _GNU_SOURCE
#include "net/proto/identity.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/bytes.h"

enum { /* X.690 8.1.2; RFC 5280 4.1, 4.2.1.6 */
       TAG_BOOLEAN = 0x01,
       TAG_INTEGER = 0x02,
       TAG_OCTETS = 0x04,
       TAG_OID = 0x06,
       TAG_UTF8 = 0x0c,
       TAG_PRINTABLE = 0x13,
       TAG_IA5 = 0x16,
       TAG_SEQUENCE = 0x30,
       TAG_SET = 0x31,
       TAG_VERSION = 0xa0,
       TAG_EXTENSIONS = 0xa3,
       TAG_NAME_EMAIL = 0x81,
       TAG_NAME_DNS = 0x82,
       TAG_NAME_URI = 0x86,
       TAG_NAME_IP = 0x87,
};

static const uint8_t oid_common_name[] = {0x55, 0x04, 0x03};
static const uint8_t oid_alt_names[] = {0x55, 0x1d, 0x11};

/* What is being built: block NULL while counting. */
struct names {
    struct bm_identity *block;
    char *text; /* where the next text goes */
    size_t count, text_len;
};

/* The next element's tag and content. */
static bool take_any(struct bm_bytes *in, uint8_t *ret_tag, struct bm_bytes *ret_content)
{
    const uint8_t *head = bm_bytes_take(in, 2);
    if (!head)
        return false;
    uint64_t len = head[1];
    if (len >= 0x80) {
        unsigned more = head[1] & 0x7f;
        if (more == 0 || more > 3) /* 16 MiB, far over what is let in */
            return false;
        const uint8_t *p = bm_bytes_take(in, more);
        if (!p)
            return false;
        for (len = 0; more > 0; more--)
            len = len << 8 | *p++;
    }
    *ret_tag = head[0];
    const uint8_t *content = bm_bytes_take(in, len);
    if (content)
        *ret_content = bm_bytes(content, len);
    return content != NULL;
}

static bool take(struct bm_bytes *in, uint8_t tag, struct bm_bytes *ret_content)
{
    uint8_t found;
    return take_any(in, &found, ret_content) && found == tag;
}

static bool skip_if(struct bm_bytes *in, uint8_t tag)
{
    struct bm_bytes ignored;
    return bm_bytes_left(in) == 0 || *in->pos != tag || take(in, tag, &ignored);
}

static bool is_oid(const struct bm_bytes *content, const uint8_t *oid, size_t len)
{
    return bm_bytes_left(content) == len && memcmp(content->pos, oid, len) == 0;
}

static bool is_text(const struct bm_bytes *content, bool ascii)
{
    for (const uint8_t *p = content->pos; p < content->end; p++)
        if (*p < 0x20 || *p == 0x7f || (ascii && *p > 0x7f))
            return false;
    return content->pos < content->end;
}

static int add_text(struct names *names, enum bm_identity_kind kind, const void *text, size_t len)
{
    if (names->count == BM_IDENTITY_NAMES_MAX || len > BM_IDENTITY_NAME_LEN_MAX)
        return -E2BIG;
    if (names->block) {
        memcpy(names->text, text, len);
        names->text[len] = '\0';
        names->block->names[names->count] = (struct bm_identity_name){kind, names->text};
        names->text += len + 1;
    }
    names->count++;
    names->text_len += len + 1;
    return 0;
}

static int add_address(struct names *names, const struct bm_bytes *content)
{
    char text[INET6_ADDRSTRLEN];
    size_t len = bm_bytes_left(content);
    if (len != 4 && len != 16)
        return -EBADMSG;
    inet_ntop(len == 4 ? AF_INET : AF_INET6, content->pos, text, sizeof(text));
    return add_text(names, BM_IDENTITY_IP, text, strlen(text));
}

/* GeneralNames; kinds that nobody here asks for are passed over. */
static int add_alt_names(struct names *names, struct bm_bytes octets)
{
    struct bm_bytes list, content;
    uint8_t tag;
    if (!take(&octets, TAG_SEQUENCE, &list))
        return -EBADMSG;
    for (int r = 0; bm_bytes_left(&list) > 0;) {
        if (!take_any(&list, &tag, &content))
            return -EBADMSG;
        if (tag == TAG_NAME_IP) {
            r = add_address(names, &content);
        } else if (tag == TAG_NAME_URI || tag == TAG_NAME_DNS || tag == TAG_NAME_EMAIL) {
            if (!is_text(&content, true))
                return -EBADMSG;
            r = add_text(names,
                         tag == TAG_NAME_URI   ? BM_IDENTITY_URI
                         : tag == TAG_NAME_DNS ? BM_IDENTITY_DNS
                                               : BM_IDENTITY_EMAIL,
                         content.pos, bm_bytes_left(&content));
        }
        if (r < 0)
            return r;
    }
    return 0;
}

static int add_extensions(struct names *names, struct bm_bytes explicit_tag)
{
    struct bm_bytes list, extension, oid, octets;
    if (!take(&explicit_tag, TAG_SEQUENCE, &list))
        return -EBADMSG;
    while (bm_bytes_left(&list) > 0) {
        if (!take(&list, TAG_SEQUENCE, &extension) || !take(&extension, TAG_OID, &oid) ||
            !skip_if(&extension, TAG_BOOLEAN) || !take(&extension, TAG_OCTETS, &octets))
            return -EBADMSG;
        if (is_oid(&oid, oid_alt_names, sizeof(oid_alt_names))) {
            int r = add_alt_names(names, octets);
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int add_subject(struct names *names, struct bm_bytes subject)
{
    struct bm_bytes set, pair, oid, value;
    uint8_t tag;
    while (bm_bytes_left(&subject) > 0) {
        if (!take(&subject, TAG_SET, &set))
            return -EBADMSG;
        while (bm_bytes_left(&set) > 0) {
            if (!take(&set, TAG_SEQUENCE, &pair) || !take(&pair, TAG_OID, &oid) ||
                !take_any(&pair, &tag, &value))
                return -EBADMSG;
            if (!is_oid(&oid, oid_common_name, sizeof(oid_common_name)))
                continue;
            if (tag != TAG_UTF8 && tag != TAG_PRINTABLE && tag != TAG_IA5)
                continue; /* T.61 and the wide ones: RFC 5280 4.1.2.4 has them for old certificates */
            if (!is_text(&value, tag != TAG_UTF8))
                return -EBADMSG;
            int r = add_text(names, BM_IDENTITY_COMMON_NAME, value.pos, bm_bytes_left(&value));
            if (r < 0)
                return r;
        }
    }
    return 0;
}

static int walk(struct names *names, const void *der, size_t len)
{
    struct bm_bytes in = bm_bytes(der, len), certificate, body, ignored, subject, extensions;
    if (!take(&in, TAG_SEQUENCE, &certificate) || !take(&certificate, TAG_SEQUENCE, &body) ||
        !skip_if(&body, TAG_VERSION) || !take(&body, TAG_INTEGER, &ignored) ||
        !take(&body, TAG_SEQUENCE, &ignored) || /* the algorithm of the signature */
        !take(&body, TAG_SEQUENCE, &ignored) || /* the issuer */
        !take(&body, TAG_SEQUENCE, &ignored) || /* the validity */
        !take(&body, TAG_SEQUENCE, &subject) || !take(&body, TAG_SEQUENCE, &ignored)) /* the key */
        return -EBADMSG;
    int r = 0;
    while (r == 0 && bm_bytes_left(&body) > 0) {
        uint8_t tag;
        if (!take_any(&body, &tag, &extensions))
            return -EBADMSG;
        if (tag == TAG_EXTENSIONS)
            r = add_extensions(names, extensions);
    }
    return r < 0 ? r : add_subject(names, subject);
}

int bm_identity_new(struct bm_identity **ret_identity, struct bm_account *account, const void *der,
                    size_t len)
{
    struct names names = {0};
    int r = walk(&names, der, len);
    if (r < 0)
        return r;
    size_t head = sizeof(struct bm_identity) + names.count * sizeof(struct bm_identity_name);
    size_t block_len = head + names.text_len;
    struct bm_identity *identity = (struct bm_identity *)bm_alloc_zero(account, block_len);
    if (!identity)
        return -ENOMEM;
    identity->len = block_len;
    identity->count = names.count;
    names = (struct names){.block = identity, .text = (char *)identity + head};
    (void)walk(&names, der, len); /* the same bytes as before: it ends the same way */
    *ret_identity = identity;
    return 0;
}

struct bm_identity *bm_identity_free(struct bm_identity *identity, struct bm_account *account)
{
    return identity ? (struct bm_identity *)bm_free(account, identity, identity->len) : NULL;
}

const char *bm_identity_find(const struct bm_identity *identity, enum bm_identity_kind kind)
{
    for (size_t i = 0; identity && i < identity->count; i++)
        if (identity->names[i].kind == kind)
            return identity->names[i].text;
    return NULL;
}

static bool is_address(const char *host, uint8_t ret_address[16])
{
    memset(ret_address, 0, 16);
    return inet_pton(AF_INET, host, ret_address) == 1 ||
           inet_pton(AF_INET6, host, ret_address) == 1;
}

static bool fits_name(const char *pattern, const char *host)
{
    if (strncmp(pattern, "*.", 2) == 0) { /* one label, the leftmost (RFC 9525 6.3) */
        const char *dot = strchr(host, '.');
        return dot && dot != host && strchr(dot + 1, '.') && strcasecmp(pattern + 1, dot) == 0;
    }
    return strcasecmp(pattern, host) == 0;
}

bool bm_identity_is_for_host(const struct bm_identity *identity, const char *host)
{
    uint8_t asked[16], found[16];
    bool address = is_address(host, asked), sixes = strchr(host, ':') != NULL;
    for (size_t i = 0; identity && i < identity->count; i++) {
        const struct bm_identity_name *name = &identity->names[i];
        if (!address && name->kind == BM_IDENTITY_DNS && fits_name(name->text, host))
            return true;
        if (address && name->kind == BM_IDENTITY_IP && is_address(name->text, found) &&
            (strchr(name->text, ':') != NULL) == sixes && memcmp(asked, found, sizeof(asked)) == 0)
            return true;
    }
    return false;
}
