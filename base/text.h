/*
 * Text helpers without state: hex, base64, UTF-8, percent-encoding, numbers, JSON string escapes.
 * All are pure and work on lengths, not on terminators, unless they say so.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lower-case hex of LEN bytes and a terminator: OUT has room for 2 * LEN + 1. */
void hex_encode(char *out, const void *data, size_t len);
/* Exactly 2 * LEN hex digits of either case: ERR_INVALID otherwise. */
int hex_decode(void *out, size_t len, const char *text, size_t text_len) MUST_CHECK;

/* Standard base64 with padding, and a terminator: OUT has room for 4 * ((LEN + 2) / 3) + 1. */
void base64_encode(char *out, const void *data, size_t len);
/* Exactly LEN bytes from standard, padded, canonical base64: ERR_INVALID otherwise. */
int base64_decode(void *out, size_t len, const char *text, size_t text_len) MUST_CHECK;

/* Bytes of the one well-formed UTF-8 character that TEXT begins with (1 to 4), 0 where it begins
 * with none. */
size_t utf8_char(const char *text, size_t len);
/* Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms). */
bool utf8_valid(const char *text, size_t len);
/* Contains a byte below 0x20, or 0x7f, or a C1 control in UTF-8. */
bool text_has_control(const char *text, size_t len);

/* Percent-decode into OUT (room for LEN bytes), *OUT_LEN bytes. ERR_INVALID for a malformed escape
 * or %00. '+' stays '+'. */
int percent_decode(char *out, size_t *out_len, const char *text, size_t len) MUST_CHECK;
/* Percent-encode all but RFC 5987 attr-char; OUT has room for 3 * LEN + 1. */
size_t percent_encode(char *out, const char *text, size_t len);

/* Decimal digits alone, no sign, no blanks, at most MAX: ERR_INVALID or ERR_RANGE otherwise. */
int parse_u64(uint64_t *out, const char *text, size_t len, uint64_t max) MUST_CHECK;
/* A size with an optional unit k, M, G, T (powers of 1024; "KiB", "kb" … too). */
int parse_size(uint64_t *out, const char *text) MUST_CHECK;
/* A duration with a unit ms, s, m, h, d (none: seconds), as milliseconds. */
int parse_duration_ms(uint64_t *out, const char *text) MUST_CHECK;

/* ASCII only; locale plays no part. */
bool text_equal_nocase(const char *a, size_t a_len, const char *b, size_t b_len);

#endif
