/*
 * JSON from outside, read with jansson; and written, where it says whether memory was short.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/err.h"

#include <jansson.h>
#include <stddef.h>

/* Parse LEN bytes of TEXT, with jansson's JSON_… FLAGS, into *OUT, which the caller releases with
 * json_decref. ERR_INVALID, or ERR_NO_MEMORY; *OUT is then NULL. */
int json_read(json_t **out, const char *text, size_t len, size_t flags) MUST_CHECK;

/* json_dumps, whose result the caller frees: ERR_NO_MEMORY, or ERR_INVALID where JSON cannot be
 * written; *OUT is then NULL. */
int json_write(char **out, const json_t *json, size_t flags) MUST_CHECK;

#endif
