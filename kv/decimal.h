/* Decimal numbers as the nearest binary64, ties to even, whatever the locale. */
#ifndef BM_DECIMAL_H
#define BM_DECIMAL_H

#include <stddef.h>
#include <stdint.h>

/* text[0..len) is a number of JSON: optional sign, digits, optional fraction, optional exponent. Infinite
 * where no finite one is nearest. */
double bm_decimal_to_double(const uint8_t *text, size_t len);

/* The fewest digits that read back as f, which is finite and above zero, and of those the nearest: without
 * zeros at the end, behind a NUL, and with the power of ten of the first. Returns how many. */
#define BM_DECIMAL_DIGITS_MAX 17 /* enough for any binary64 */
int bm_decimal_shortest(double f, char digits[BM_DECIMAL_DIGITS_MAX + 1], int *ret_exponent);

#endif
