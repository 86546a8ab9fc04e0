/*
 * ULIDs: 48 bits of Unix milliseconds, then 80 random bits; 26 characters of Crockford's base32 as
 * text. Source: the ULID specification (github.com/ulid/spec). Pure.
 */
#ifndef JOURNAL_ULID_H
#define JOURNAL_ULID_H

#include "base/env.h"
#include "base/err.h"
#include "base/id.h"

#include <stddef.h>
#include <stdint.h>

#define ULID_TEXT_BYTES 26

/* Ids that clients choose must bear a time of the years 2010 to 2099 (the ancestor's rule: what
 * lies outside is somebody's wrong unit, not a time). */
#define ULID_MIN_MS UINT64_C(1262304000000)
#define ULID_MAX_MS UINT64_C(4102444800000) /* first millisecond of 2100, excluded */

/* A new id at wall time NOW_MS, random bits from ENV. Ids made in one millisecond are not ordered.
 */
struct id128 ulid_make(struct env *env, uint64_t now_ms);

/* 26 upper-case characters and a terminator. */
void ulid_format(char out[ULID_TEXT_BYTES + 1], const struct id128 *id);

/* Either case; exactly 26 characters; no I, L, O, U; not above 2^128-1. ERR_INVALID otherwise.
 * Does not judge the time. */
int ulid_parse(struct id128 *out, const char *text, size_t len) MUST_CHECK;

uint64_t ulid_time_ms(const struct id128 *id);

/* 0, or ERR_RANGE where the time is outside what clients may choose. */
int ulid_check_time(const struct id128 *id) MUST_CHECK;

#endif
