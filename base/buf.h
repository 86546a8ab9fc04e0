/*
 * A growing byte buffer with a limit and a sticky error: writers append without looking, and check
 * once at the end. Not thread-safe.
 */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
    char *data;
    size_t len, cap;
    size_t limit; /* never grows beyond; 0 = 1 GiB */
    int rc;       /* the first failure: ERR_NO_MEMORY or ERR_TOO_BIG; later appends do nothing */
};

void buf_init(struct buf *buf, size_t limit);
void buf_release(struct buf *buf);
/* Empty it and forget the error; memory stays. */
void buf_reset(struct buf *buf);

void buf_add(struct buf *buf, const void *data, size_t len);
void buf_text(struct buf *buf, const char *text);
void buf_char(struct buf *buf, char c);
void buf_format(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* TEXT as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void buf_json(struct buf *buf, const char *text, size_t len);

/* Room for LEN more bytes at data + len (add to len what was used), or NULL with rc set. */
void *buf_reserve(struct buf *buf, size_t len);

/* 0, or what went wrong on the way. */
int buf_check(const struct buf *buf) MUST_CHECK;

#endif
