/*
 * User meta: a JSON object of strings that a client attaches to an object, in the one spelling in
 * which it is journaled, compared and sent. Pure.
 */
#ifndef JOURNAL_USERMETA_H
#define JOURNAL_USERMETA_H

#include "base/buf.h"

/*
 * Append the canonical form of TEXT (LEN bytes of JSON) to OUT: no blanks, keys in the order of
 * their UTF-8 bytes, everything but printable ASCII escaped as \uXXXX, so that it can stand in an
 * HTTP header. Keys and values may hold any character but U+0000.
 * ERR_INVALID: not JSON, not an object, a value that is no string, a key twice, not UTF-8, U+0000.
 * ERR_TOO_BIG: TEXT or the canonical form is over LIMIT_USER_META_BYTES (escapes make non-ASCII two
 * to three times longer; the limit is on both so that what was accepted once fits every event).
 * ERR_NO_MEMORY. On an error OUT is as before.
 */
int usermeta_canonical(struct buf *out, const char *text, size_t len) MUST_CHECK;

#endif
