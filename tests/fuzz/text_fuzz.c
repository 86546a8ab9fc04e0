/*
 * Goal: what each text helper writes it reads back as the same bytes, what it reads it has one
 * spelling for, and numbers stay within what they were asked for.
 * Input: which helper (1 byte), then text, or bytes.
 */
#include "base/text.h"
#include "tests/fuzz/fuzz.h"

#include <ctype.h>

static void try_hex(const char *text, size_t len)
{
    char *out = exact_copy(text, len / 2), *again = malloc(2 * len + 1);

    CHECK(again);
    if (hex_decode(out, len / 2, text, len) == 0) {
        CHECK(len % 2 == 0);
        hex_encode(again, out, len / 2);
        CHECK(text_equal_nocase(again, len, text, len));
    }
    hex_encode(again, text, len);
    char *back = exact_copy(text, len);
    CHECK(strlen(again) == 2 * len && hex_decode(back, len, again, 2 * len) == 0);
    CHECK(len == 0 || memcmp(back, text, len) == 0);
    free(out);
    free(again);
    free(back);
}

static void try_base64(const char *text, size_t len)
{
    char *again = malloc(4 * ((len + 2) / 3) + 1), *back = malloc(len + 1);
    size_t most = len / 4 * 3, fits = 0;

    CHECK(again && back);
    /* Text is base64 of one number of bytes at most, and then it is the only spelling of them. */
    for (size_t n = most < 2 ? 0 : most - 2; n <= most; n++)
        if (base64_decode(back, n, text, len) == 0) {
            fits++;
            base64_encode(again, back, n);
            CHECK(strlen(again) == len && (len == 0 || memcmp(again, text, len) == 0));
        }
    CHECK(fits <= 1);
    base64_encode(again, text, len);
    CHECK(strlen(again) == (len + 2) / 3 * 4);
    CHECK(base64_decode(back, len, again, strlen(again)) == 0);
    CHECK(len == 0 || memcmp(back, text, len) == 0);
    free(again);
    free(back);
}

static void try_percent(const char *text, size_t len)
{
    char *again = malloc(3 * len + 1), *back = malloc(3 * len + 1);
    size_t out_len, back_len;

    CHECK(again && back);
    size_t coded = percent_encode(again, text, len);
    CHECK(coded <= 3 * len);
    for (size_t i = 0; i < coded; i++)
        CHECK(again[i] > 0x20 && again[i] < 0x7f && !strchr("\"\\/?;,'()*", again[i]));
    int rc = percent_decode(back, &back_len, again, coded);
    if (len && memchr(text, 0, len))
        CHECK(rc == ERR_INVALID);
    else
        CHECK(rc == 0 && back_len == len && (len == 0 || memcmp(back, text, len) == 0));
    if (percent_decode(back, &out_len, text, len) == 0) {
        CHECK(out_len <= len);
        CHECK(out_len == len || memchr(text, '%', len));
        CHECK(percent_encode(again, back, out_len) <= 3 * len);
    }
    free(again);
    free(back);
}

/* RFC 3629 §4 by its table. */
static size_t reference_char(const unsigned char *c, size_t len)
{
    static const struct {
        unsigned char first, last, second_first, second_last;
        size_t bytes;
    } all[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (len < all[i].bytes || c[0] < all[i].first || c[0] > all[i].last)
            continue;
        if (all[i].bytes > 1 && (c[1] < all[i].second_first || c[1] > all[i].second_last))
            return 0;
        for (size_t k = 2; k < all[i].bytes; k++)
            if (c[k] < 0x80 || c[k] > 0xbf)
                return 0;
        return all[i].bytes;
    }
    return 0;
}

static void try_utf8(const char *text, size_t len)
{
    size_t at = 0, step;

    while (at < len && (step = utf8_char(text + at, len - at)) > 0) {
        CHECK(step == reference_char((const unsigned char *)text + at, len - at));
        at += step;
    }
    CHECK(at == len || reference_char((const unsigned char *)text + at, len - at) == 0);
    CHECK(utf8_valid(text, len) == (at == len));
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            CHECK(text_has_control(text, len));
}

static void try_numbers(const char *text, size_t len)
{
    char *line = malloc(len + 1), spelled[32];
    uint64_t value, same;

    CHECK(line);
    if (len > 0)
        memcpy(line, text, len);
    line[len] = 0;
    if (parse_u64(&value, text, len, 1000000) == 0) {
        CHECK(value <= 1000000 && len > 0);
        for (size_t i = 0; i < len; i++)
            CHECK(isdigit((unsigned char)text[i]));
        CHECK(value == strtoull(line, NULL, 10));
    }
    if (parse_u64(&value, text, len, UINT64_MAX) == 0) {
        int n = snprintf(spelled, sizeof spelled, "%llu", (unsigned long long)value);
        CHECK(len >= (size_t)n && memcmp(text + len - (size_t)n, spelled, (size_t)n) == 0);
        CHECK(parse_size(&same, line) == 0 && same == value);
    }
    if (parse_size(&value, line) == 0) {
        (void)snprintf(spelled, sizeof spelled, "%llu", (unsigned long long)value);
        CHECK(parse_size(&same, spelled) == 0 && same == value);
        CHECK(value >= strtoull(line, NULL, 10));
    }
    if (parse_duration_ms(&value, line) == 0) {
        (void)snprintf(spelled, sizeof spelled, "%llums", (unsigned long long)value);
        CHECK(parse_duration_ms(&same, spelled) == 0 && same == value);
    }
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const all[])(const char *, size_t) = {try_hex, try_base64, try_percent, try_utf8,
                                                        try_numbers};
    struct feed feed = {data, size};
    size_t which = (size_t)feed_number(&feed, 1) % (sizeof all / sizeof *all);
    char *text = exact_copy(feed.at, feed.left);

    all[which](text, feed.left);
    free(text);
    return 0;
}
