/* The registered alerts, as somebody would say them who reads a log. */
#include "net/proto/alert.h"

#include <stddef.h>

#include "base/cleanup.h"

static const struct {
    int number;
    const char *text;
} alerts[] = {
    {0, "close notify"},
    {10, "unexpected message"},
    {20, "record that cannot be decrypted"},
    {22, "record too long"},
    {40, "no parameters in common"},
    {42, "bad certificate"},
    {43, "certificate of a kind that is not supported"},
    {44, "certificate revoked"},
    {45, "certificate has expired"},
    {46, "certificate not accepted"},
    {47, "illegal parameter"},
    {48, "unknown certificate authority"},
    {49, "access denied"},
    {50, "message that cannot be decoded"},
    {51, "wrong signature or key exchange"},
    {70, "no protocol version in common"},
    {71, "insufficient security"},
    {80, "internal error"},
    {86, "inappropriate fallback"},
    {90, "cancelled by the user"},
    {100, "no renegotiation"},
    {109, "missing extension"},
    {110, "unsupported extension"},
    {112, "unknown server name"},
    {113, "bad status of the certificate"},
    {115, "unknown pre-shared key"},
    {116, "a client certificate is required"},
    {120, "no application protocol in common"},
};

const char *bm_alert_text(int number)
{
    for (size_t i = 0; i < BM_ARRAY_LEN(alerts); i++)
        if (alerts[i].number == number)
            return alerts[i].text;
    return "an alert that is not registered";
}
