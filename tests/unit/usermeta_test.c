/* Goal: user meta that says the same has one spelling, fit for a header; what is no JSON map of
 * strings, or too long, is refused and leaves no trace. */
#include "journal/usermeta.h"

#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static void check(const char *text, int rc, const char *expected)
{
    struct buf out;

    buf_init(&out, 0);
    buf_text(&out, "before");
    assert_int_equal(usermeta_canonical(&out, text, strlen(text)), rc);
    assert_int_equal(buf_check(&out), 0);
    assert_int_equal(out.len, 6 + (expected ? strlen(expected) : 0));
    if (expected)
        assert_memory_equal(out.data + 6, expected, strlen(expected));
    buf_release(&out);
}

static void one_meaning_has_one_spelling(void **state)
{
    (void)state;
    check("{}", 0, "{}");
    check(" { \"b\" : \"2\" ,\n\t\"a\":\"1\" } ", 0, "{\"a\":\"1\",\"b\":\"2\"}");
    check("{\"\\u0061\":\"\\u0031\"}", 0, "{\"a\":\"1\"}");
    check("{\"a\":\"\\/\"}", 0, "{\"a\":\"/\"}");
    check("{\"\":\"\"}", 0, "{\"\":\"\"}");
    check("{\"ab\":\"1\",\"a\":\"2\",\"B\":\"3\"}", 0, "{\"B\":\"3\",\"a\":\"2\",\"ab\":\"1\"}");
}

static void the_spelling_is_printable_ascii(void **state)
{
    (void)state;
    check("{\"gr\xc3\xbc\xc3\x9f\":\"\xe2\x82\xac\"}", 0, "{\"gr\\u00FC\\u00DF\":\"\\u20AC\"}");
    check("{\"a\":\"\xf0\x9f\x98\x80\"}", 0, "{\"a\":\"\\uD83D\\uDE00\"}");
    check("{\"a\":\"\\ud83d\\ude00\"}", 0, "{\"a\":\"\\uD83D\\uDE00\"}");
    check("{\"a\":\"x\x7fy\x7f\"}", 0, "{\"a\":\"x\\u007Fy\\u007F\"}");
    check("{\"a\\u0001\":\"\\n\\\"\\\\\"}", 0, "{\"a\\u0001\":\"\\n\\\"\\\\\"}");
}

static void what_it_prints_it_takes_unchanged(void **state)
{
    const char text[] = "{\"z\":\"\\u0001\\\"\",\"\\u007F\":\"\\uD83D\\uDE00\"}";

    (void)state;
    check(text, 0, text);
}

static void what_is_no_map_of_strings_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "null",
        "\"a\"",
        "[]",
        "[\"a\"]",
        "{",
        "{\"a\"}",
        "{\"a\":1}",
        "{\"a\":null}",
        "{\"a\":true}",
        "{\"a\":{}}",
        "{\"a\":[\"b\"]}",
        "{\"a\":\"1\",\"b\":2}",
        "{\"a\":\"1\",\"b\":2,\"c\":\"3\"}",
        "{\"a\":\"1\",}",
        "{\"a\":\"1\"}x",
        "{\"a\":\"1\"}{}",
        "{'a':'1'}",
        "{a:\"1\"}",
        "{\"a\":\"1\",\"a\":\"1\"}",
        "{\"a\":\"1\",\"\\u0061\":\"2\"}",
        "{\"a\":\"\\u0000\"}",
        "{\"\\u0000\":\"a\"}",
        "{\"a\":\"\xff\"}",
        "{\"a\":\"\xed\xa0\x80\"}",
        "{\"a\":\"\\ud83d\"}",
        "{\"a\":\"\n\"}",
        "\xef\xbb\xbf{}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check(bad[i], ERR_INVALID, NULL);
}

/* {"a":"xx…"} of exactly LEN bytes. */
static char *of_length(size_t len)
{
    char *text = malloc(len + 1);

    assert_non_null(text);
    memset(text, 'x', len);
    memcpy(text, "{\"a\":\"", 6);
    memcpy(text + len - 2, "\"}", 3);
    return text;
}

static void the_limit_is_met_exactly(void **state)
{
    char *longest = of_length(LIMIT_USER_META_BYTES);
    char *longer = of_length(LIMIT_USER_META_BYTES + 1);

    (void)state;
    check(longest, 0, longest);
    check(longer, ERR_TOO_BIG, NULL);
    free(longest);
    free(longer);
}

static void the_limit_holds_for_the_canonical_form_too(void **state)
{
    char *text = of_length(LIMIT_USER_META_BYTES / 2);

    (void)state;
    for (size_t i = 6; i + 3 < strlen(text); i += 2)
        memcpy(text + i, "\xc3\xbc", 2);
    check(text, ERR_TOO_BIG, NULL);
    free(text);
}

static void the_limit_holds_for_what_was_sent_too(void **state)
{
    static char text[LIMIT_USER_META_BYTES + 2];

    (void)state;
    memset(text, ' ', sizeof text - 1);
    memcpy(text, "{}", 2);
    check(text, ERR_TOO_BIG, NULL);
    text[LIMIT_USER_META_BYTES] = 0;
    check(text, 0, "{}");
}

static void deep_nesting_is_refused_without_harm(void **state)
{
    char text[LIMIT_USER_META_BYTES];

    (void)state;
    memset(text, '[', sizeof text - 1);
    text[sizeof text - 1] = 0;
    check(text, ERR_INVALID, NULL);
}

static void a_zero_byte_is_no_end(void **state)
{
    struct buf out;

    (void)state;
    buf_init(&out, 0);
    assert_int_equal(usermeta_canonical(&out, "{}\0", 3), ERR_INVALID);
    assert_int_equal(usermeta_canonical(&out, "{\"a\":\"\0\"}", 9), ERR_INVALID);
    assert_int_equal(out.len, 0);
    buf_release(&out);
}

static void a_full_buffer_is_too_big_and_stays_usable(void **state)
{
    struct buf out;

    (void)state;
    buf_init(&out, 8);
    assert_int_equal(usermeta_canonical(&out, "{\"a\":\"12\"}", 10), ERR_TOO_BIG);
    assert_int_equal(out.len, 0);
    assert_int_equal(usermeta_canonical(&out, "{}", 2), 0);
    assert_int_equal(out.len, 2);
    buf_release(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_meaning_has_one_spelling),
        cmocka_unit_test(the_spelling_is_printable_ascii),
        cmocka_unit_test(what_it_prints_it_takes_unchanged),
        cmocka_unit_test(what_is_no_map_of_strings_is_refused),
        cmocka_unit_test(the_limit_is_met_exactly),
        cmocka_unit_test(the_limit_holds_for_the_canonical_form_too),
        cmocka_unit_test(the_limit_holds_for_what_was_sent_too),
        cmocka_unit_test(deep_nesting_is_refused_without_harm),
        cmocka_unit_test(a_zero_byte_is_no_end),
        cmocka_unit_test(a_full_buffer_is_too_big_and_stays_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
