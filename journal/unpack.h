/*
 * Reading msgpack from bytes that nobody trusts, without an allocation: a cursor with a sticky
 * error, as struct buf is for writing. Pure.
 *
 * A reader that meets something else than it was asked for, or the end, makes the cursor fail: it
 * and all later ones give zeros, and unpack_done says so once at the end. Counts are never larger
 * than what the remaining bytes could hold, so a loop over them is bounded by the input.
 */
#ifndef JOURNAL_UNPACK_H
#define JOURNAL_UNPACK_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Containers inside containers that unpack_skip follows. */
#define UNPACK_MAX_DEPTH 16

struct unpack {
    const uint8_t *at, *end;
    bool failed;
};

void unpack_init(struct unpack *unpack, const void *data, size_t len);

/* A non-negative integer of any width, at most MAX. */
uint64_t unpack_uint(struct unpack *unpack, uint64_t max);
bool unpack_bool(struct unpack *unpack);
/* A string: pointer into the data and *LEN; NULL and 0 on failure. Its UTF-8 is not checked. */
const char *unpack_str(struct unpack *unpack, uint32_t *len);
/* Binary: pointer into the data and *LEN; NULL and 0 on failure. */
const uint8_t *unpack_bin(struct unpack *unpack, uint32_t *len);
/* Binary of exactly LEN bytes, copied to OUT (zeros on failure). */
void unpack_bytes(struct unpack *unpack, void *out, size_t len);
/* The head of an array, a map: how many elements, pairs follow. */
uint32_t unpack_array(struct unpack *unpack);
uint32_t unpack_map(struct unpack *unpack);
/* One value of any kind with all that is in it. Fails where it is nested too deep. */
void unpack_skip(struct unpack *unpack);

/* For the caller's own rules: give up. */
void unpack_fail(struct unpack *unpack);
/* 0 where nothing failed and every byte was read, else ERR_INVALID. */
int unpack_done(const struct unpack *unpack) MUST_CHECK;

#endif
