/* Brings the entries of a map into the order of K8, in the place where they lie. */
#ifndef BM_ORDER_H
#define BM_ORDER_H

#include <stddef.h>
#include <stdint.h>

/* entries[0..len) are whole entries of our own making. Afterwards their keys ascend; returns 0, or
 * -EEXIST if two are equal (the entries are still all there). No memory beyond a fixed part of the
 * stack; O(n log^2 n) steps and moved bytes for n entries, whatever their order. */
int bm_entries_sort(uint8_t *entries, size_t len);

#endif
