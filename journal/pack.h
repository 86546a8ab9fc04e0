/*
 * Writing msgpack: the mirror of journal/unpack.h, into a struct buf and with its sticky error.
 * Pure.
 *
 * Each value takes the fewest bytes that msgpack has for it, so equal values are equal bytes. The
 * caller sees to it that as many elements follow an array's head, and pairs a map's, as it says.
 */
#ifndef JOURNAL_PACK_H
#define JOURNAL_PACK_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void pack_uint(struct buf *out, uint64_t value);
void pack_bool(struct buf *out, bool value);
/* LEN bytes at TEXT (may be NULL where LEN is 0) as a string, as binary; less than 4 GiB. */
void pack_str(struct buf *out, const char *text, size_t len);
void pack_bin(struct buf *out, const void *data, size_t len);
/* The head of an array, a map: how many elements, pairs follow. */
void pack_array(struct buf *out, uint32_t elements);
void pack_map(struct buf *out, uint32_t pairs);

#endif
