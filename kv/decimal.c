/* Decimal to binary64, correctly rounded, and binary64 to the shortest decimal that comes back.
 *
 * Model. A number is m * 10^q, m with up to 19 digits. Its value is an interval: a power of ten of 128
 * bits, known to be less than one unit too small, times m. If all of the interval rounds to one binary64,
 * that is the answer; nearly always it does. What is left (ties, subnormal and infinite ones, more digits
 * than decide) goes to strtod(3), which is exact, as digits and an exponent: a point, which it would want
 * in the form of the locale, is never needed.
 *
 * The other way the same power, of 10^k, makes a number of 17 digits and a fraction of f, and of half the
 * distance to its neighbours; whether a rounder number is near enough is then a comparison, sure but for
 * those few bits. What is not sure is found by trying.
 *
 * After D. Lemire, "Number parsing at a gigabyte per second" (2021), with a power made of two factors, as
 * U. Adams does it in Ryu (2018), so that the table is short. */
#include "kv/decimal.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef unsigned __int128 u128;

#define DIGITS_IN_64 19 /* any number of 19 digits is below 2^64 */
#define DIGITS_DECIDE                                                                              \
    800 /* 767 decide about every binary64; what follows only counts as above zero */
#define EXPONENT_MAX 99999 /* beyond any binary64 of so many digits, and short as text */
/* Beyond what any text has digits in front of it, and far from overflow. */
#define EXPONENT_READ_MAX (INT64_C(1) << 60)
#define TEXT_LEN 48 /* sign, 17 digits, point, e, sign, three digits, NUL; the point may be long */
#define POWER_STEP 28 /* 5^27 is the last below 2^64 */
#define POWER_FIRST -13

/* 5^(28 i), i from -13: the 128 bits from the highest on, rounded down */
static const uint64_t powers[][2] = {
    {UINT64_C(0xe1afa13afbd14d6d), UINT64_C(0x82189c09a3a1ec21)},
    {UINT64_C(0xe3e27a444d8d98b7), UINT64_C(0xfd1b1b2308169b25)},
    {UINT64_C(0xe61acf033d1a45df), UINT64_C(0x6fb92487298e33bd)},
    {UINT64_C(0xe858ad248f5c22c9), UINT64_C(0xd1b3400f8f9cff68)},
    {UINT64_C(0xea9c227723ee8bcb), UINT64_C(0x465e15a979c1cadc)},
    {UINT64_C(0xece53cec4a314ebd), UINT64_C(0xa4f8bf5635246428)},
    {UINT64_C(0xef340a98172aace4), UINT64_C(0x86fb897116c87c34)},
    {UINT64_C(0xf18899b1bc3f8ca1), UINT64_C(0xdc44e6c3cb279ac1)},
    {UINT64_C(0xf3e2f893dec3f126), UINT64_C(0x5a89dba3c3efccfa)},
    {UINT64_C(0xf64335bcf065d37d), UINT64_C(0x4d4617b5ff4a16d5)},
    {UINT64_C(0xf8a95fcf88747d94), UINT64_C(0x75a44c6397ce912a)},
    {UINT64_C(0xfb158592be068d2e), UINT64_C(0xeed6e2f0f0d56712)},
    {UINT64_C(0xfd87b5f28300ca0d), UINT64_C(0x8bca9d6e188853fc)},
    {UINT64_C(0x8000000000000000), UINT64_C(0x0000000000000000)},
    {UINT64_C(0x813f3978f8940984), UINT64_C(0x4000000000000000)},
    {UINT64_C(0x82818f1281ed449f), UINT64_C(0xbff8f10e7a8921a4)},
    {UINT64_C(0x83c7088e1aab65db), UINT64_C(0x792667c6da79e0fa)},
    {UINT64_C(0x850fadc09923329e), UINT64_C(0x03e2cf6bc604ddb0)},
    {UINT64_C(0x865b86925b9bc5c2), UINT64_C(0x0b8a2392ba45a9b2)},
    {UINT64_C(0x87aa9aff79042286), UINT64_C(0x90fb44d2f05d0842)},
    {UINT64_C(0x88fcf317f22241e2), UINT64_C(0x441fece3bdf81f03)},
    {UINT64_C(0x8a5296ffe33cc92f), UINT64_C(0x82bd6b70d99aaa6f)},
    {UINT64_C(0x8bab8eefb6409c1a), UINT64_C(0x1ad089b6c2f7548e)},
    {UINT64_C(0x8d07e33455637eb2), UINT64_C(0xdb0b487b6423e1e8)},
    {UINT64_C(0x8e679c2f5e44ff8f), UINT64_C(0x570f09eaa7ea7648)},
};
#define POWER_COUNT (int)(sizeof(powers) / sizeof(powers[0]))

static const uint64_t fives[POWER_STEP] = {
    UINT64_C(1),
    UINT64_C(5),
    UINT64_C(25),
    UINT64_C(125),
    UINT64_C(625),
    UINT64_C(3125),
    UINT64_C(15625),
    UINT64_C(78125),
    UINT64_C(390625),
    UINT64_C(1953125),
    UINT64_C(9765625),
    UINT64_C(48828125),
    UINT64_C(244140625),
    UINT64_C(1220703125),
    UINT64_C(6103515625),
    UINT64_C(30517578125),
    UINT64_C(152587890625),
    UINT64_C(762939453125),
    UINT64_C(3814697265625),
    UINT64_C(19073486328125),
    UINT64_C(95367431640625),
    UINT64_C(476837158203125),
    UINT64_C(2384185791015625),
    UINT64_C(11920928955078125),
    UINT64_C(59604644775390625),
    UINT64_C(298023223876953125),
    UINT64_C(1490116119384765625),
    UINT64_C(7450580596923828125),
};

/* A number taken apart; what is said of m holds if the text has more digits than fit. */
struct decimal {
    uint64_t m;
    int64_t q;
    bool negative;
    bool more; /* the value is at least m * 10^q, and below (m + 1) * 10^q */
};

/* What is beyond all limits becomes EXPONENT_READ_MAX, and not less: the zeros in front of the `e` count
 * against it, and there may be any number of them. */
static int64_t read_exponent(const uint8_t *p, const uint8_t *end)
{
    int64_t exponent = 0;
    bool negative = *p == '-';
    for (p += *p == '-' || *p == '+'; p < end && exponent < EXPONENT_READ_MAX; p++)
        exponent =
            exponent < EXPONENT_READ_MAX / 10 ? exponent * 10 + (*p - '0') : EXPONENT_READ_MAX;
    return negative ? -exponent : exponent;
}

/* Reads the first `most` significant digits, into m and, if digits is not NULL, there. */
static struct decimal take_apart(const uint8_t *p, size_t len, size_t most, char *digits)
{
    struct decimal d = {.negative = *p == '-'};
    const uint8_t *end = p + len;
    size_t count = 0;
    bool fraction = false;
    for (p += d.negative; p < end && (*p | 0x20) != 'e'; p++) {
        if (*p == '.') {
            fraction = true;
            continue;
        }
        if (count < most) {
            d.m = d.m * 10 + (*p - '0');
            if (digits)
                digits[count] = (char)*p;
            count += count > 0 || *p != '0';
            d.q -= fraction;
        } else {
            d.more |= *p != '0';
            d.q += !fraction;
        }
    }
    if (p < end)
        d.q += read_exponent(p + 1, end);
    if (digits)
        digits[count] = '\0';
    return d;
}

/* 5^q from below, as 128 bits with the highest set, times 2^*ret_exponent; the truth is less than 3 units
 * above. q is in the range of the table. */
static u128 power_of_five(int q, int *ret_exponent)
{
    int index = q - POWER_FIRST * POWER_STEP, step = index / POWER_STEP + POWER_FIRST;
    const uint64_t *power = powers[index / POWER_STEP];
    uint64_t five = fives[index % POWER_STEP];
    u128 low = (u128)power[1] * five, high = (u128)power[0] * five + (low >> 64);
    int shift = high >> 64 ? __builtin_clzll((uint64_t)(high >> 64)) : 64;
    *ret_exponent = (step < 0 ? -128 : -127) + 65 * step + 64 - shift; /* 5^28 has 65.01 bits */
    return shift < 64 ? high << shift | (uint64_t)low >> 1 >> (63 - shift)
                      : high << 64 | (uint64_t)low;
}

/* The upper 128 bits of a * power, both with their highest bit set. With what power lacks, the truth is less
 * than UNSURE above. */
static u128 multiply(uint64_t a, u128 power)
{
    return (u128)a * (uint64_t)(power >> 64) + ((u128)a * (uint64_t)power >> 64);
}
#define UNSURE 8

/* m * 10^q where that is certain: a normal number, and no tie. */
static bool nearest(uint64_t m, int64_t q, uint64_t *ret_bits)
{
    if (q < POWER_FIRST * POWER_STEP || q >= (POWER_FIRST + POWER_COUNT) * POWER_STEP || m == 0)
        return false;
    int shift = __builtin_clzll(m), power_exponent;
    u128 top = multiply(m << shift, power_of_five((int)q, &power_exponent));

    int bits = top >> 127 ? 128 : 127, drop = bits - 53;
    u128 rest = top & (((u128)1 << drop) - 1), half = (u128)1 << (drop - 1);
    if (rest <= half && half - rest < UNSURE)
        return false;
    uint64_t mantissa = (uint64_t)(top >> drop) + (rest > half);
    int64_t exponent = q + 64 + power_exponent - shift + bits - 1;
    if (mantissa >> 53) {
        mantissa >>= 1;
        exponent++;
    }
    if (exponent < -1022 || exponent > 1023)
        return false;
    *ret_bits = (uint64_t)(exponent + 1023) << 52 | (mantissa & ((UINT64_C(1) << 52) - 1));
    return true;
}

static double exactly(const uint8_t *text, size_t len)
{
    char digits[DIGITS_DECIDE + 32];
    struct decimal d = take_apart(text, len, DIGITS_DECIDE, digits);
    if (digits[0] == '\0')
        return d.negative ? -0.0 : 0.0;
    size_t end = strlen(digits);
    if (d.more) {
        digits[end++] = '1';
        d.q--;
    }
    int64_t q = d.q > EXPONENT_MAX ? EXPONENT_MAX : d.q < -EXPONENT_MAX ? -EXPONENT_MAX : d.q;
    snprintf(digits + end, sizeof(digits) - end, "e%d", (int)q);
    double f = strtod(digits, NULL);
    return d.negative ? -f : f;
}

double bm_decimal_to_double(const uint8_t *text, size_t len)
{
    struct decimal d = take_apart(text, len, DIGITS_IN_64, NULL);
    uint64_t bits, above;
    double f;
    if (!nearest(d.m, d.q, &bits) || (d.more && (!nearest(d.m + 1, d.q, &above) || above != bits)))
        return exactly(text, len);
    bits |= (uint64_t)d.negative << 63;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

/* --- and back ----------------------------------------------------------------------------------- */

/* f * 10^k and half the distance to its neighbours (below a power of two that is less), in units of 2^-64. */
struct scaled {
    u128 value, half;
    uint64_t m;
};

static bool scale(uint64_t bits, int k, struct scaled *ret)
{
    int power_exponent, exponent = (int)(bits >> 52) - 1075;
    u128 power = power_of_five(k, &power_exponent);
    ret->m = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    /* value = m * 2^exponent * power * 2^power_exponent * 2^k; multiply() has 11 and -64 of these */
    int shift = -(exponent + power_exponent + k + 64 - 11 + 64);
    if (shift < 0 || shift > 63)
        return false;
    ret->value = multiply(ret->m << 11, power) >> shift;
    ret->half = power >> (shift + 54);
    return true;
}

/* The multiple of `unit` that is nearest to the value, if it surely reads back the same: 1. 0: surely not. -1:
 * neither is sure. */
static int round_to(const struct scaled *s, uint64_t unit, uint64_t *ret)
{
    uint64_t whole = (uint64_t)(s->value >> 64), below = whole % unit;
    u128 down = (u128)below << 64 | (uint64_t)s->value, up = ((u128)unit << 64) - down;
    u128 distance = down < up ? down : up;
    u128 surely = s->m << 12 ? s->half : s->half / 2; /* a power of two */
    if (distance > s->half + UNSURE)
        return 0;
    if (distance + UNSURE >= surely || (down < up ? up - down : down - up) <= 2 * UNSURE)
        return -1;
    *ret = whole - below + (down < up ? 0 : unit);
    return 1;
}

/* The fewest digits that read back as f, as a number; f = number * 10^-k, about. */
static bool shortest_number(uint64_t bits, uint64_t *ret_number, int *ret_k)
{
    const uint64_t digits_17 = UINT64_C(10000000000000000);
    int exponent = (int)(bits >> 52) - 1023;
    struct scaled s;
    if (bits >> 52 == 0) /* subnormal */
        return false;
    /* 0.30103 is the logarithm; one try more or less brings the value to 17 digits */
    int k = 16 - (int)((exponent * INT64_C(1233)) >> 12);
    for (int tries = 0;; tries++) {
        if (tries == 3 || !scale(bits, k, &s))
            return false;
        uint64_t whole = (uint64_t)(s.value >> 64);
        if (whole >= digits_17 && whole < 10 * digits_17)
            break;
        k += whole < digits_17 ? 1 : -1;
    }
    *ret_k = k;
    /* Between its neighbours there is at most one number of 15 digits, and always one of 17. */
    int r = round_to(&s, 100, ret_number);
    if (r == 0)
        r = round_to(&s, 10, ret_number);
    if (r == 0)
        r = round_to(&s, 1, ret_number);
    return r > 0;
}

static bool is_power_of_two(double f)
{
    uint64_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits << 12 == 0;
}

/* The same by trying, for the few where that was not sure. */
static int shortest_by_trying(double f, char *digits, int *ret_exponent)
{
    char text[TEXT_LEN];
    /* A normal number whose shortest form has up to 15 digits shows it when printed with 15, zeros
     * stripped (DBL_DIG); a subnormal one may have fewer good digits than that. */
    int n = f < 0x1p-1022 ? 1 : 15;
    for (;; n++) {
        snprintf(text, sizeof(text), "%.*e", n - 1, f);
        bool same = strtod(text, NULL) == f;
        if (!same && n < BM_DECIMAL_DIGITS_MAX && is_power_of_two(f)) {
            /* The neighbour below a power of two is half as far as the one above: the nearest
             * decimal of n digits can miss on that side while the next one up is still right. */
            char *last = strchr(text, 'e') - 1;
            if (*last >= '0' && *last < '9') {
                ++*last;
                same = strtod(text, NULL) == f;
            }
        }
        if (same || n == BM_DECIMAL_DIGITS_MAX)
            break;
    }
    /* The digits, past whatever the locale uses for a point. */
    int count = 0;
    const char *p = text;
    for (; *p != 'e'; p++)
        if (*p >= '0' && *p <= '9')
            digits[count++] = *p;
    *ret_exponent = atoi(p + 1);
    return count;
}

int bm_decimal_shortest(double f, char digits[BM_DECIMAL_DIGITS_MAX + 1], int *ret_exponent)
{
    uint64_t bits, number = 0;
    int k = 0, count = 0;
    memcpy(&bits, &f, sizeof(bits));
    if (!shortest_number(bits, &number, &k)) {
        count = shortest_by_trying(f, digits, ret_exponent);
    } else {
        char reversed[24];
        int len = 0;
        for (; number > 0; number /= 10)
            reversed[len++] = (char)('0' + number % 10);
        *ret_exponent = len - 1 - k;
        while (count < len && count < BM_DECIMAL_DIGITS_MAX) {
            digits[count] = reversed[len - 1 - count];
            count++;
        }
    }
    while (count > 1 && digits[count - 1] == '0')
        count--;
    digits[count] = '\0';
    return count;
}
