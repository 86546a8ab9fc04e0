/*
 * Pure helpers for text that comes from outside: every one takes a length, refuses what is
 * malformed with ERR_INVALID, and never looks at the locale.
 */
#include "base/text.h"

#include <assert.h>
#include <string.h>

static const char hex_digits[] = "0123456789abcdef";

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

void hex_encode(char *out, const void *data, size_t len)
{
    const uint8_t *bytes = data;

    for (size_t i = 0; i < len; i++) {
        *out++ = hex_digits[bytes[i] >> 4];
        *out++ = hex_digits[bytes[i] & 15];
    }
    *out = 0;
}

int hex_decode(void *out, size_t len, const char *text, size_t text_len)
{
    uint8_t *bytes = out;

    if (text_len % 2 != 0 || text_len / 2 != len)
        return ERR_INVALID;
    for (size_t i = 0; i < len; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return ERR_INVALID;
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}

void base64_encode(char *out, const void *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *bytes = data;

    for (size_t i = 0; i < len; i += 3) {
        size_t left = len - i;
        uint32_t group = (uint32_t)bytes[i] << 16;

        if (left > 1)
            group |= (uint32_t)bytes[i + 1] << 8;
        if (left > 2)
            group |= bytes[i + 2];
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = left > 1 ? digits[group >> 6 & 63] : '=';
        *out++ = left > 2 ? digits[group & 63] : '=';
    }
    *out = 0;
}

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '+')
        return 62;
    if (c == '/')
        return 63;
    return -1;
}

int base64_decode(void *out, size_t len, const char *text, size_t text_len)
{
    uint8_t *bytes = out;
    size_t groups = len / 3 + (len % 3 != 0);

    if (text_len % 4 != 0 || text_len / 4 != groups)
        return ERR_INVALID;
    for (size_t g = 0; g < groups; g++) {
        size_t here = len - 3 * g < 3 ? len - 3 * g : 3; /* bytes of this group */
        uint32_t group = 0;

        for (size_t i = 0; i < 4; i++) {
            char c = text[4 * g + i];
            int value = i <= here ? base64_value(c) : (c == '=' ? 0 : -1);

            if (value < 0)
                return ERR_INVALID;
            group = group << 6 | (uint32_t)value;
        }
        /* Canonical: the bits that no byte uses are zero, so one digest has one spelling. */
        if (group & ((1u << 8 * (3 - here)) - 1))
            return ERR_INVALID;
        for (size_t i = 0; i < here; i++)
            bytes[3 * g + i] = (uint8_t)(group >> (16 - 8 * i));
    }
    return 0;
}

static bool continues(unsigned char c)
{
    return (c & 0xc0) == 0x80;
}

size_t utf8_char(const char *text, size_t len)
{
    const unsigned char *c = (const unsigned char *)text;

    if (len == 0)
        return 0;
    if (c[0] < 0x80)
        return 1;
    if (c[0] >= 0xc2 && c[0] <= 0xdf)
        return len >= 2 && continues(c[1]) ? 2 : 0;
    if (c[0] >= 0xe0 && c[0] <= 0xef) {
        if (len < 3 || !continues(c[1]) || !continues(c[2]))
            return 0;
        bool overlong = c[0] == 0xe0 && c[1] < 0xa0;
        bool surrogate = c[0] == 0xed && c[1] > 0x9f;
        return overlong || surrogate ? 0 : 3;
    }
    if (c[0] >= 0xf0 && c[0] <= 0xf4) {
        if (len < 4 || !continues(c[1]) || !continues(c[2]) || !continues(c[3]))
            return 0;
        bool overlong = c[0] == 0xf0 && c[1] < 0x90;
        bool beyond = c[0] == 0xf4 && c[1] > 0x8f;
        return overlong || beyond ? 0 : 4;
    }
    return 0;
}

bool utf8_valid(const char *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t step = utf8_char(text + i, len - i);

        if (step == 0)
            return false;
        i += step;
    }
    return true;
}

bool text_has_control(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c == 0x7f)
            return true;
        if (c == 0xc2 && i + 1 < len) {
            unsigned char next = (unsigned char)text[i + 1];

            if (next >= 0x80 && next <= 0x9f)
                return true;
        }
    }
    return false;
}

int percent_decode(char *out, size_t *out_len, const char *text, size_t len)
{
    size_t used = 0;

    for (size_t i = 0; i < len; i++) {
        if (text[i] != '%') {
            out[used++] = text[i];
            continue;
        }
        if (len - i < 3)
            return ERR_INVALID;
        int high = hex_value(text[i + 1]), low = hex_value(text[i + 2]);
        if (high < 0 || low < 0 || (high == 0 && low == 0))
            return ERR_INVALID;
        out[used++] = (char)(high << 4 | low);
        i += 2;
    }
    *out_len = used;
    return 0;
}

static bool is_letter_or_digit(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

size_t percent_encode(char *out, const char *text, size_t len)
{
    static const char upper_hex[] = "0123456789ABCDEF";
    size_t used = 0;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (is_letter_or_digit(c) || (c != 0 && strchr("!#$&+-.^_`|~", c))) {
            out[used++] = c;
        } else {
            out[used++] = '%';
            out[used++] = upper_hex[(unsigned char)c >> 4];
            out[used++] = upper_hex[(unsigned char)c & 15];
        }
    }
    out[used] = 0;
    assert(used <= 3 * len);
    return used;
}

int parse_u64(uint64_t *out, const char *text, size_t len, uint64_t max)
{
    uint64_t value = 0;
    bool over = false;

    if (len == 0)
        return ERR_INVALID;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return ERR_INVALID;
        if (__builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (unsigned)(text[i] - '0'), &value))
            over = true; /* go on: malformed beats too large */
    }
    if (over || value > max)
        return ERR_RANGE;
    *out = value;
    return 0;
}

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool text_equal_nocase(const char *a, size_t a_len, const char *b, size_t b_len)
{
    if (a_len != b_len)
        return false;
    for (size_t i = 0; i < a_len; i++) {
        if (lower(a[i]) != lower(b[i]))
            return false;
    }
    return true;
}

/* The number that TEXT begins with, and its UNIT behind it. */
static int parse_number(uint64_t *out, const char *text, const char **unit)
{
    size_t digits = strspn(text, "0123456789");

    *unit = text + digits;
    return parse_u64(out, text, digits, UINT64_MAX);
}

static int scale(uint64_t *out, uint64_t number, uint64_t factor)
{
    return __builtin_mul_overflow(number, factor, out) ? ERR_RANGE : 0;
}

int parse_size(uint64_t *out, const char *text)
{
    static const char prefixes[] = "kmgt";
    const char *unit;
    uint64_t number, factor = 1;

    int rc = parse_number(&number, text, &unit);
    if (rc)
        return rc;
    const char *prefix = *unit ? strchr(prefixes, lower(*unit)) : NULL;
    if (prefix) {
        factor = UINT64_C(1) << (10 * (prefix - prefixes + 1));
        unit++;
        if (lower(unit[0]) == 'i' && lower(unit[1]) == 'b')
            unit++;
    }
    if (lower(*unit) == 'b')
        unit++;
    if (*unit)
        return ERR_INVALID;
    return scale(out, number, factor);
}

int parse_duration_ms(uint64_t *out, const char *text)
{
    static const struct {
        const char *unit;
        uint64_t ms;
    } units[] = {
        {"", 1000}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
    };
    const char *unit;
    uint64_t number;

    int rc = parse_number(&number, text, &unit);
    if (rc)
        return rc;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].unit) == 0)
            return scale(out, number, units[i].ms);
    }
    return ERR_INVALID;
}
