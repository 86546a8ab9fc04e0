/* Dates as text, HTTP's own (RFC 9110 §5.6.7) above all: pure, without locale or time zone. */
#ifndef API_HTTP_DATE_H
#define API_HTTP_DATE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define HTTP_DATE_BYTES 29

/* "Sun, 06 Nov 1994 08:49:37 GMT" and a terminator for Unix time T. */
void http_date_format(char out[HTTP_DATE_BYTES + 1], uint64_t unix_s);

/* "2026-01-31T12:34:56.789Z" (RFC 3339) and a terminator for Unix time MS. */
#define DATE_RFC3339_BYTES 24
void date_rfc3339_format(char out[DATE_RFC3339_BYTES + 1], uint64_t unix_ms);

/* All three forms of the RFC; ERR_INVALID otherwise. */
int http_date_parse(uint64_t *unix_s, const char *text, size_t len) MUST_CHECK;

#endif
