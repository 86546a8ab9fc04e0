/*
 * A growing byte buffer whose writers need not look at every step: the first failure sticks, what
 * follows does nothing, and the owner asks once at the end with buf_check.
 *
 * Memory doubles, so appending is linear; the limit is met exactly. On failure the bytes already
 * there stay as they are, which is why nobody may use them without buf_check.
 */
#include "base/buf.h"

#include "base/limits.h"
#include "base/text.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 256

void buf_init(struct buf *buf, size_t limit)
{
    *buf = (struct buf){.limit = limit ? limit : GIB};
}

void buf_release(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){.limit = buf->limit};
}

void buf_reset(struct buf *buf)
{
    buf->len = 0;
    buf->rc = 0;
}

void *buf_reserve(struct buf *buf, size_t len)
{
    assert(buf->len <= buf->cap);

    if (buf->rc)
        return NULL;
    size_t limit = buf->limit ? buf->limit : GIB; /* an all-zero struct buf works, too */
    if (buf->len > limit || len > limit - buf->len) {
        buf->rc = ERR_TOO_BIG;
        return NULL;
    }
    size_t need = buf->len + len;
    if (need > buf->cap || !buf->data) {
        size_t cap = buf->cap ? buf->cap : FIRST_CAPACITY;

        while (cap < need)
            cap *= 2;
        if (cap > limit)
            cap = limit;
        char *data = realloc(buf->data, cap ? cap : 1);
        if (!data) {
            buf->rc = ERR_NO_MEMORY;
            return NULL;
        }
        buf->data = data;
        buf->cap = cap;
    }
    return buf->data + buf->len;
}

void buf_add(struct buf *buf, const void *data, size_t len)
{
    if (len == 0)
        return;
    void *at = buf_reserve(buf, len);
    if (!at)
        return;
    memcpy(at, data, len);
    buf->len += len;
}

void buf_text(struct buf *buf, const char *text)
{
    buf_add(buf, text, strlen(text));
}

void buf_char(struct buf *buf, char c)
{
    buf_add(buf, &c, 1);
}

void buf_format(struct buf *buf, const char *format, ...)
{
    va_list args, again;

    if (buf->rc)
        return;
    /* Most pieces fit what is there already; the rest are printed twice. */
    va_start(args, format);
    va_copy(again, args);
    size_t room = buf->cap - buf->len;
    int len = vsnprintf(room ? buf->data + buf->len : NULL, room, format, args);
    va_end(args);
    if (len < 0) {
        buf->rc = ERR_INVALID;
    } else if ((size_t)len < room) {
        buf->len += (size_t)len;
    } else {
        /* vsnprintf needs a byte for its zero, which a full buffer may not have. */
        char *copy = malloc((size_t)len + 1);

        if (!copy) {
            buf->rc = ERR_NO_MEMORY;
        } else {
            (void)vsnprintf(copy, (size_t)len + 1, format, again);
            buf_add(buf, copy, (size_t)len);
            free(copy);
        }
    }
    va_end(again);
}

static void add_escape(struct buf *buf, unsigned char c)
{
    switch (c) {
    case '"':
        buf_add(buf, "\\\"", 2);
        break;
    case '\\':
        buf_add(buf, "\\\\", 2);
        break;
    case '\n':
        buf_add(buf, "\\n", 2);
        break;
    case '\r':
        buf_add(buf, "\\r", 2);
        break;
    case '\t':
        buf_add(buf, "\\t", 2);
        break;
    default:
        buf_format(buf, "\\u%04x", c);
    }
}

void buf_json(struct buf *buf, const char *text, size_t len)
{
    size_t start = 0; /* of the run that needs no change */
    size_t i = 0;

    buf_char(buf, '"');
    while (i < len) {
        unsigned char c = (unsigned char)text[i];
        size_t step = c < 0x80 ? 1 : utf8_char(text + i, len - i);

        if (step > 1 || (step == 1 && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)) {
            i += step;
            continue;
        }
        buf_add(buf, text + start, i - start);
        if (step == 0)
            buf_add(buf, "\xef\xbf\xbd", 3);
        else
            add_escape(buf, c);
        i++;
        start = i;
    }
    if (i > start)
        buf_add(buf, text + start, i - start);
    buf_char(buf, '"');
}

int buf_check(const struct buf *buf)
{
    return buf->rc;
}
