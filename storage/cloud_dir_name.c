/*
 * Keys as paths: the table stands in the header.
 *
 * A part is written character by character into the current name; before a character that would
 * make the name longer than CLOUD_DIR_PART_BYTES the name ends in "%_" and the next one begins.
 * Reading undoes single names; whoever puts them together again compares the path that the key
 * would get, and so sees the names that nobody writes.
 */
#include "storage/cloud_dir_name.h"

#include <assert.h>
#include <stdint.h>
#include <string.h>

struct writer {
    char *out;
    size_t at, cap;
    size_t part; /* bytes of the current name */
};

static const char digits[] = "0123456789ABCDEF";

static bool put(struct writer *writer, const char *text, size_t len)
{
    if (len >= writer->cap - writer->at)
        return false;
    memcpy(writer->out + writer->at, text, len);
    writer->at += len;
    writer->part += len;
    return true;
}

static bool is_escape(char next)
{
    return next == '_' || (next && strchr(digits, next));
}

static bool is_text(const char *part, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(part, text, len) == 0;
}

/* A name of TEXT alone would be another directory than it should be. */
static bool leads_away(const char *text, size_t len)
{
    return is_text(text, len, ".") || is_text(text, len, "..") || is_text(text, len, CLOUD_DIR_OWN);
}

/* The byte at REST, of which LEFT bytes of its part are left, into BUF; how long it got. */
static size_t write_byte(char buf[3], const char *rest, size_t left, bool begins)
{
    char byte = *rest, next = left > 1 ? rest[1] : 0;
    uint8_t value = (uint8_t)byte;

    if (!(begins && leads_away(rest, left)) && value >= 0x20 && value != 0x7f &&
        !(byte == '%' && is_escape(next))) {
        buf[0] = byte;
        return 1;
    }
    buf[0] = '%';
    buf[1] = digits[value >> 4];
    buf[2] = digits[value & 15];
    return 3;
}

static int write_part(struct writer *writer, const char *part, size_t len)
{
    writer->part = 0;
    if (len == 0)
        return put(writer, "%00", 3) ? 0 : ERR_TOO_BIG;
    for (size_t i = 0; i < len; i++) {
        char buf[3];
        size_t got = write_byte(buf, part + i, len - i, writer->part == 0);
        /* A name ends between characters, so that it stays readable. */
        bool may_end =
            ((uint8_t)part[i] & 0xc0) != 0x80 || writer->part + got > CLOUD_DIR_PART_BYTES + 8;

        if (part[i] == 0)
            return ERR_INVALID;
        if (may_end && writer->part + got > CLOUD_DIR_PART_BYTES) {
            if (!put(writer, "%_/", 3))
                return ERR_TOO_BIG;
            writer->part = 0;
            got = write_byte(buf, part + i, len - i, true);
        }
        if (!put(writer, buf, got))
            return ERR_TOO_BIG;
    }
    return 0;
}

int cloud_dir_path(char *out, size_t cap, const char *key, size_t len)
{
    struct writer writer = {.out = out, .cap = cap};
    const char *end = key + len;

    assert(cap > 0);
    for (const char *part = key;;) {
        const char *slash = part < end ? memchr(part, '/', (size_t)(end - part)) : NULL;

        int rc = write_part(&writer, part, (size_t)((slash ? slash : end) - part));
        if (rc)
            return rc;
        if (!slash)
            break;
        if (!put(&writer, "/", 1))
            return ERR_TOO_BIG;
        part = slash + 1;
    }
    assert(writer.at < cap);
    out[writer.at] = 0;
    return 0;
}

static int digit(char c)
{
    const char *at = c ? strchr(digits, c) : NULL;

    return at ? (int)(at - digits) : -1;
}

int cloud_dir_name(char *out, size_t *len, bool *goes_on, const char *name)
{
    size_t end = strlen(name), at = 0;

    *len = 0;
    *goes_on = end > 2 && memcmp(name + end - 2, "%_", 2) == 0;
    if (*goes_on)
        end -= 2;
    if (is_text(name, end, "%00"))
        return *goes_on ? ERR_INVALID : 0;
    for (size_t i = 0; i < end; i++) {
        if (name[i] != '%' || i + 1 == end || !is_escape(name[i + 1])) {
            out[at++] = name[i];
            continue;
        }
        int high = digit(name[i + 1]), low = i + 2 < end ? digit(name[i + 2]) : -1;
        if (high < 0 || low < 0 || (high == 0 && low == 0))
            return ERR_INVALID;
        out[at++] = (char)(high << 4 | low);
        i += 2;
    }
    *len = at;
    return 0;
}
