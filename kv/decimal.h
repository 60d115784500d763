/* Decimal numbers as the nearest binary64, ties to even, whatever the locale. */
#ifndef BM_DECIMAL_H
#define BM_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

/* text[0..len) is a number of JSON: optional sign, digits, optional fraction, optional exponent. Infinite
 * where no finite one is nearest. */
double bm_decimal_to_double(const uint8_t *text, size_t len);

#endif
