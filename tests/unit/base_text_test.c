/* Goal: text from outside is taken exactly as specified or refused; nothing malformed slips
 * through, and what is encoded here comes back from the decoder unchanged. */
#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

/* A copy in its own allocation, so that a read past LEN is seen by AddressSanitizer. */
static char *exact(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);

    assert_non_null(copy);
    memcpy(copy, text, len);
    return copy;
}

static void hex_round_trips_and_refuses_what_is_not_hex(void **state)
{
    const uint8_t bytes[] = {0x00, 0x01, 0x7f, 0x80, 0xab, 0xff};
    char text[13];
    uint8_t back[6];

    (void)state;
    hex_encode(text, bytes, sizeof bytes);
    assert_string_equal(text, "00017f80abff");
    assert_int_equal(hex_decode(back, 6, text, 12), 0);
    assert_memory_equal(back, bytes, 6);
    assert_int_equal(hex_decode(back, 2, "AbCd", 4), 0);
    assert_int_equal(back[0], 0xab);

    assert_int_equal(hex_decode(back, 2, "abc", 3), ERR_INVALID);
    assert_int_equal(hex_decode(back, 2, "abcde", 5), ERR_INVALID);
    assert_int_equal(hex_decode(back, 2, "abcdef", 6), ERR_INVALID);
    assert_int_equal(hex_decode(back, 2, "abcg", 4), ERR_INVALID);
    assert_int_equal(hex_decode(back, 2, "ab\0d", 4), ERR_INVALID);
    assert_int_equal(hex_decode(back, 2, " abc", 4), ERR_INVALID);
    assert_int_equal(hex_decode(back, 0, "", 0), 0);
    hex_encode(text, bytes, 0);
    assert_string_equal(text, "");
}

/* RFC 4648, section 10. */
static void base64_agrees_with_the_rfc(void **state)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        size_t len = strlen(cases[i][0]);
        char text[16], back[16];

        base64_encode(text, cases[i][0], len);
        assert_string_equal(text, cases[i][1]);
        assert_int_equal(base64_decode(back, len, text, strlen(text)), 0);
        assert_memory_equal(back, cases[i][0], len);
    }
}

static void base64_refuses_other_spellings_of_the_same_bytes(void **state)
{
    char *out = malloc(1);

    (void)state;
    assert_non_null(out);
    assert_int_equal(base64_decode(out, 1, "Zg==", 4), 0);
    assert_int_equal(base64_decode(out, 1, "Zh==", 4), ERR_INVALID); /* unused bits */
    assert_int_equal(base64_decode(out, 1, "Zg", 2), ERR_INVALID);
    assert_int_equal(base64_decode(out, 1, "Zg=a", 4), ERR_INVALID);
    assert_int_equal(base64_decode(out, 1, "Z===", 4), ERR_INVALID);
    assert_int_equal(base64_decode(out, 1, "Zm8=", 4), ERR_INVALID); /* two bytes, not one */
    assert_int_equal(base64_decode(out, 1, "Zg==\n", 5), ERR_INVALID);
    assert_int_equal(base64_decode(out, 1, "Z-==", 4), ERR_INVALID);
    assert_int_equal(base64_decode(out, 1, "", 0), ERR_INVALID);
    assert_int_equal(base64_decode(out, 0, "====", 4), ERR_INVALID);
    free(out);
}

static void base64_round_trips_every_byte(void **state)
{
    uint8_t bytes[256], back[256];
    char text[4 * 86 + 1];

    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)i;
    for (size_t len = 0; len <= sizeof bytes; len++) {
        base64_encode(text, bytes, len);
        assert_int_equal(strlen(text), 4 * ((len + 2) / 3));
        assert_int_equal(base64_decode(back, len, text, strlen(text)), 0);
        assert_memory_equal(back, bytes, len);
    }
}

struct sample {
    const char *text;
    size_t len;
};
#define SAMPLE(text)                                                                               \
    {                                                                                              \
        text, sizeof text - 1                                                                      \
    }

static void utf8_takes_what_is_well_formed(void **state)
{
    static const struct sample good[] = {
        SAMPLE(""),
        SAMPLE("plain"),
        SAMPLE("with\0zero"),
        SAMPLE("\xc2\x80"),         /* U+0080, the first of two bytes */
        SAMPLE("\xdf\xbf"),         /* U+07FF */
        SAMPLE("\xe0\xa0\x80"),     /* U+0800 */
        SAMPLE("\xed\x9f\xbf"),     /* U+D7FF, before the surrogates */
        SAMPLE("\xee\x80\x80"),     /* U+E000, after them */
        SAMPLE("\xef\xbf\xbf"),     /* U+FFFF */
        SAMPLE("\xf0\x90\x80\x80"), /* U+10000 */
        SAMPLE("\xf4\x8f\xbf\xbf"), /* U+10FFFF, the last */
        SAMPLE("na\xc3\xafve \xe2\x82\xac \xf0\x9f\x90\x98"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        char *text = exact(good[i].text, good[i].len);

        assert_true(utf8_valid(text, good[i].len));
        free(text);
    }
}

static void utf8_refuses_what_is_not(void **state)
{
    static const struct sample bad[] = {
        SAMPLE("\x80"), /* a continuation alone */
        SAMPLE("\xbf"),
        SAMPLE("\xc0\xaf"), /* overlong "/" */
        SAMPLE("\xc1\xbf"),
        SAMPLE("\xe0\x9f\xbf"), /* overlong */
        SAMPLE("\xed\xa0\x80"), /* surrogates */
        SAMPLE("\xed\xbf\xbf"),
        SAMPLE("\xf0\x8f\xbf\xbf"), /* overlong */
        SAMPLE("\xf4\x90\x80\x80"), /* beyond U+10FFFF */
        SAMPLE("\xf5\x80\x80\x80"),
        SAMPLE("\xff"),
        SAMPLE("\xc3"), /* cut short */
        SAMPLE("\xe2\x82"),
        SAMPLE("\xf0\x9f\x90"),
        SAMPLE("\xc3("), /* a wrong continuation */
        SAMPLE("\xe2(\xac"),
        SAMPLE("\xe2\x82("),
        SAMPLE("\xf0\x9f\x90("),
        SAMPLE("ok\xff"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *text = exact(bad[i].text, bad[i].len);

        assert_false(utf8_valid(text, bad[i].len));
        free(text);
    }
    assert_int_equal(utf8_char("", 0), 0);
    assert_int_equal(utf8_char("\xe2\x82\xac", 3), 3);
    assert_int_equal(utf8_char("\xe2\x82\xac", 2), 0);
}

static void controls_are_seen_in_ascii_and_in_c1(void **state)
{
    (void)state;
    assert_false(text_has_control("report \xc3\xa9t\xc3\xa9.txt", 16));
    assert_false(text_has_control("", 0));
    assert_false(text_has_control("\xc2\xa0", 2)); /* no-break space is none */
    assert_true(text_has_control("a\nb", 3));
    assert_true(text_has_control("a\0b", 3));
    assert_true(text_has_control("\x1f", 1));
    assert_true(text_has_control("\x7f", 1));
    assert_true(text_has_control("\xc2\x85", 2));
    assert_true(text_has_control("\xc2\x9f", 2));
    assert_false(text_has_control(" ", 1));
}

static void percent_decodes_and_refuses(void **state)
{
    char out[16];
    size_t len = 99;

    (void)state;
    assert_int_equal(percent_decode(out, &len, "a%20b+%e2%82%AC", 15), 0);
    assert_int_equal(len, 7);
    assert_memory_equal(out, "a b+\xe2\x82\xac", 7);
    assert_int_equal(percent_decode(out, &len, "", 0), 0);
    assert_int_equal(len, 0);

    static const char *const bad[] = {"%",   "%4",    "a%4",  "%g0", "%0g",
                                      "%00", "a%00b", "%%41", "% 41"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *text = exact(bad[i], strlen(bad[i]));

        assert_int_equal(percent_decode(out, &len, text, strlen(bad[i])), ERR_INVALID);
        free(text);
    }
}

static void percent_encodes_so_that_it_comes_back(void **state)
{
    char all[255], text[3 * 255 + 1], back[3 * 255];
    size_t len;

    (void)state;
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (char)(i + 1);
    size_t used = percent_encode(text, all, sizeof all);
    assert_int_equal(strlen(text), used);
    assert_int_equal(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                  "!#$&+-.^_`|~%"),
                     used);
    assert_int_equal(percent_decode(back, &len, text, used), 0);
    assert_int_equal(len, sizeof all);
    assert_memory_equal(back, all, len);
    assert_int_equal(percent_encode(text, "a b'*(\0", 7), 17);
    assert_string_equal(text, "a%20b%27%2A%28%00");
}

static void numbers_are_digits_within_their_bound(void **state)
{
    uint64_t n = 7;

    (void)state;
    assert_int_equal(parse_u64(&n, "0", 1, 10), 0);
    assert_int_equal(n, 0);
    assert_int_equal(parse_u64(&n, "00010", 5, 10), 0);
    assert_int_equal(n, 10);
    assert_int_equal(parse_u64(&n, "11", 2, 10), ERR_RANGE);
    assert_int_equal(parse_u64(&n, "18446744073709551615", 20, UINT64_MAX), 0);
    assert_true(n == UINT64_MAX);
    assert_int_equal(parse_u64(&n, "18446744073709551616", 20, UINT64_MAX), ERR_RANGE);
    assert_int_equal(parse_u64(&n, "99999999999999999999999", 23, UINT64_MAX), ERR_RANGE);
    assert_int_equal(parse_u64(&n, "99999999999999999999999x", 24, UINT64_MAX), ERR_INVALID);

    static const char *const bad[] = {"", "+1", "-1", " 1", "1 ", "0x1", "1.0", "1e3", "a"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse_u64(&n, bad[i], strlen(bad[i]), 100), ERR_INVALID);
    assert_int_equal(parse_u64(&n, "1\0", 2, 100), ERR_INVALID);
    assert_true(n == UINT64_MAX); /* what failed changed nothing */
}

static void sizes_take_units_of_1024(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"17", 17},
        {"17b", 17},
        {"1k", 1024},
        {"1K", 1024},
        {"2kb", 2048},
        {"2KiB", 2048},
        {"64MiB", 64u << 20},
        {"64M", 64u << 20},
        {"3g", 3ull << 30},
        {"16777215T", 16777215ull << 40},
    };
    static const char *const bad[] = {"",    "k",  "1.5k",  "-1",  "1 k", "1kk",
                                      "1ki", "1x", "1kib2", "1bb", "1ib"};
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(parse_size(&n, good[i].text), 0);
        assert_true(n == good[i].bytes);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse_size(&n, bad[i]), ERR_INVALID);
    assert_int_equal(parse_size(&n, "16777216T"), ERR_RANGE);
}

static void durations_take_units_and_default_to_seconds(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {
        {"0", 0},       {"10", 10000},   {"250ms", 250},    {"3s", 3000},
        {"2m", 120000}, {"2h", 7200000}, {"7d", 604800000},
    };
    static const char *const bad[] = {"", "s", "1.5s", "-1s", "1 s", "1S", "1w", "1ms2", "1sm"};
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_int_equal(parse_duration_ms(&n, good[i].text), 0);
        assert_true(n == good[i].ms);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(parse_duration_ms(&n, bad[i]), ERR_INVALID);
    assert_int_equal(parse_duration_ms(&n, "18446744073709551615d"), ERR_RANGE);
}

static void case_is_ignored_in_ascii_only(void **state)
{
    (void)state;
    assert_true(text_equal_nocase("Content-Length", 14, "cONTENT-lENGTH", 14));
    assert_true(text_equal_nocase("", 0, "", 0));
    assert_false(text_equal_nocase("abc", 3, "abcd", 4));
    assert_false(text_equal_nocase("abc", 3, "abd", 3));
    /* One bit apart as letters of two cases are, but no letters. */
    assert_false(text_equal_nocase("[", 1, "{", 1));
    assert_false(text_equal_nocase("@", 1, "`", 1));
    assert_false(text_equal_nocase("\xc3\x84", 2, "\xc3\xa4", 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hex_round_trips_and_refuses_what_is_not_hex),
        cmocka_unit_test(base64_agrees_with_the_rfc),
        cmocka_unit_test(base64_refuses_other_spellings_of_the_same_bytes),
        cmocka_unit_test(base64_round_trips_every_byte),
        cmocka_unit_test(utf8_takes_what_is_well_formed),
        cmocka_unit_test(utf8_refuses_what_is_not),
        cmocka_unit_test(controls_are_seen_in_ascii_and_in_c1),
        cmocka_unit_test(percent_decodes_and_refuses),
        cmocka_unit_test(percent_encodes_so_that_it_comes_back),
        cmocka_unit_test(numbers_are_digits_within_their_bound),
        cmocka_unit_test(sizes_take_units_of_1024),
        cmocka_unit_test(durations_take_units_and_default_to_seconds),
        cmocka_unit_test(case_is_ignored_in_ascii_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
