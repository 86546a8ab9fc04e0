/*
 * A state machine over bytes, which steps over chunk data in one go:
 *
 *   SIZE ──► (EXT) ──► SIZE_LF ──► DATA ──► DATA_CR ──► DATA_LF ──► SIZE
 *                         └─ size 0 ──► TRAILER ──► TRAILER_LINE ──► TRAILER_LF ──► TRAILER
 *                                          └──► END_LF ──► END
 *
 * llhttp could do this, too; ours is used because of what version 8 lets pass (bytes after the
 * size, any length of extensions), each of which has been a way to smuggle a request.
 */
#include "api/http/chunked.h"

#include "base/limits.h"

#include <assert.h>

enum { SIZE, EXT, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LINE, TRAILER_LF, END_LF, END };

/* 15 digits are 2^60 - 1: no sum of lengths overflows. */
#define MAX_SIZE_DIGITS 15

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int take_size(struct chunked *chunked, uint8_t c)
{
    int value = hex_value(c);

    if (value >= 0) {
        if (chunked->digits == MAX_SIZE_DIGITS)
            return ERR_INVALID;
        chunked->digits++;
        chunked->left = chunked->left << 4 | (unsigned)value;
        return 0;
    }
    if (!chunked->digits || (c != '\r' && c != ';'))
        return ERR_INVALID;
    chunked->digits = 0;
    chunked->state = c == '\r' ? SIZE_LF : EXT;
    return 0;
}

/* A byte of an extension or a trailer, AT_END of which comes next. */
static int take_extra(struct chunked *chunked, uint8_t c, uint8_t at_end)
{
    if (++chunked->extra > LIMIT_HTTP_CHUNK_EXT)
        return ERR_TOO_BIG;
    if (c == '\r')
        chunked->state = at_end;
    else if ((c < 0x20 && c != '\t') || c == 0x7f)
        return ERR_INVALID;
    return 0;
}

static int take_expected(struct chunked *chunked, uint8_t c, uint8_t expected, uint8_t next)
{
    if (c != expected)
        return ERR_INVALID;
    chunked->state = next;
    return 0;
}

static int take_byte(struct chunked *chunked, uint8_t c)
{
    switch (chunked->state) {
    case SIZE:
        return take_size(chunked, c);
    case EXT:
        return take_extra(chunked, c, SIZE_LF);
    case SIZE_LF:
        return take_expected(chunked, c, '\n', chunked->left ? DATA : TRAILER);
    case DATA_CR:
        return take_expected(chunked, c, '\r', DATA_LF);
    case DATA_LF:
        return take_expected(chunked, c, '\n', SIZE);
    case TRAILER:
        if (c == '\r') {
            chunked->state = END_LF;
            return 0;
        }
        if (c == ' ' || c == '\t' || c == ':')
            return ERR_INVALID;
        chunked->state = TRAILER_LINE;
        return take_extra(chunked, c, TRAILER_LF);
    case TRAILER_LINE:
        return take_extra(chunked, c, TRAILER_LF);
    case TRAILER_LF:
        return take_expected(chunked, c, '\n', TRAILER);
    default:
        assert(chunked->state == END_LF);
        return take_expected(chunked, c, '\n', END);
    }
}

int chunked_take(struct chunked *chunked, const uint8_t *input, size_t len, size_t *used,
                 const uint8_t **data, size_t *data_len)
{
    size_t at = 0;

    *data = NULL;
    *data_len = 0;
    while (at < len && chunked->state != END) {
        if (chunked->state == DATA) {
            size_t n = len - at < chunked->left ? len - at : (size_t)chunked->left;

            assert(chunked->left > 0);
            *data = input + at;
            *data_len = n;
            at += n;
            chunked->left -= n;
            if (!chunked->left)
                chunked->state = DATA_CR;
            break;
        }
        int rc = take_byte(chunked, input[at]);

        if (rc)
            return rc;
        at++;
    }
    *used = at;
    return 0;
}

bool chunked_ended(const struct chunked *chunked)
{
    return chunked->state == END;
}
