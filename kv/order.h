/* Brings the entries of a map into the order of K8, in the place where they lie. */
#ifndef BM_ORDER_H
#define BM_ORDER_H

#include <stddef.h>
#include <stdint.h>

/* entries[0..len) are whole entries of our own making. Afterwards their keys ascend; returns 0, or
 * -EEXIST if two are equal (the entries are still all there). No memory beyond a fixed part of the
 * stack, 16 KiB for more than a few; O(n log n) steps for n entries up to some hundred KiB, and O(n log^2 n)
 * with a small factor beyond, whatever their order. */
int bm_entries_sort(uint8_t *entries, size_t len);

#endif
