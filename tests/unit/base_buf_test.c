/* Goal: a buffer holds what was added to the byte, never grows beyond its limit, and remembers its
 * first failure until it is asked. */
#include "base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static void assert_holds(const struct buf *buf, const char *text, size_t len)
{
    assert_int_equal(buf_check(buf), 0);
    assert_int_equal(buf->len, len);
    assert_memory_equal(buf->data, text, len);
}

static void appends_bytes_text_and_formats_in_order(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 0);
    buf_text(&buf, "");
    buf_add(&buf, NULL, 0);
    assert_int_equal(buf.len, 0);
    buf_add(&buf, "a\0b", 3);
    buf_text(&buf, "cd");
    buf_char(&buf, 'e');
    buf_format(&buf, "%d-%s", 42, "x");
    assert_holds(&buf, "a\0bcde42-x", 10);
    buf_release(&buf);
    assert_null(buf.data);
}

static void grows_across_many_appends_of_every_length(void **state)
{
    enum { ROUNDS = 700 };
    struct buf buf;
    char piece[ROUNDS];
    size_t sum = 0;

    (void)state;
    buf_init(&buf, 0);
    for (size_t i = 0; i < ROUNDS; i++) {
        memset(piece, (char)('a' + i % 26), sizeof piece);
        if (i % 2)
            buf_add(&buf, piece, i);
        else
            buf_format(&buf, "%.*s", (int)i, piece);
        sum += i;
        assert_int_equal(buf.len, sum);
        if (i > 0)
            assert_int_equal(buf.data[buf.len - 1], 'a' + i % 26);
    }
    assert_int_equal(buf_check(&buf), 0);
    buf_release(&buf);
}

static void the_limit_is_met_exactly_and_the_error_sticks(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 5);
    buf_text(&buf, "abcde");
    assert_holds(&buf, "abcde", 5);
    buf_char(&buf, 'f');
    assert_int_equal(buf_check(&buf), ERR_TOO_BIG);
    buf_add(&buf, "", 0);
    buf_format(&buf, "x");
    assert_int_equal(buf_check(&buf), ERR_TOO_BIG);
    assert_int_equal(buf.len, 5);
    assert_null(buf_reserve(&buf, 0));

    buf_reset(&buf);
    assert_int_equal(buf_check(&buf), 0);
    buf_format(&buf, "%s", "12345");
    assert_holds(&buf, "12345", 5);
    buf_reset(&buf);
    buf_format(&buf, "%s", "123456");
    assert_int_equal(buf_check(&buf), ERR_TOO_BIG);
    assert_int_equal(buf.len, 0);
    buf_reset(&buf);
    assert_null(buf_reserve(&buf, SIZE_MAX));
    assert_int_equal(buf_check(&buf), ERR_TOO_BIG);
    buf_release(&buf);
}

static void a_smaller_piece_after_a_failed_one_does_not_slip_in(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 4);
    buf_text(&buf, "too long");
    buf_char(&buf, 'x');
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf_check(&buf), ERR_TOO_BIG);
    buf_release(&buf);
}

static void reserved_room_counts_once_it_is_used(void **state)
{
    struct buf buf;

    (void)state;
    buf_init(&buf, 0);
    buf_text(&buf, "ab");
    char *at = buf_reserve(&buf, 1000);
    assert_non_null(at);
    assert_int_equal(buf.len, 2);
    assert_true(buf.cap >= 1002);
    memset(at, 'c', 1000);
    buf.len += 3;
    assert_holds(&buf, "abccc", 5);
    buf_release(&buf);
}

static void json_strings_escape_what_json_and_logs_must_not_see(void **state)
{
    static const struct {
        const char *in;
        size_t len;
        const char *out;
    } cases[] = {
        {"", 0, "\"\""},
        {"plain", 5, "\"plain\""},
        {"a\"b\\c", 5, "\"a\\\"b\\\\c\""},
        {"\n\r\t", 3, "\"\\n\\r\\t\""},
        {"\0\x01\x1f\x7f", 4, "\"\\u0000\\u0001\\u001f\\u007f\""},
        {"\xc3\xa9\xe2\x82\xac", 5, "\"\xc3\xa9\xe2\x82\xac\""},
        {"a\xff\xfe z", 5, "\"a\xef\xbf\xbd\xef\xbf\xbd z\""},
        {"cut \xe2\x82", 6, "\"cut \xef\xbf\xbd\xef\xbf\xbd\""},
        {"/", 1, "\"/\""},
    };
    struct buf buf;

    (void)state;
    buf_init(&buf, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        buf_reset(&buf);
        buf_json(&buf, cases[i].in, cases[i].len);
        assert_holds(&buf, cases[i].out, strlen(cases[i].out));
    }
    buf_release(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(appends_bytes_text_and_formats_in_order),
        cmocka_unit_test(grows_across_many_appends_of_every_length),
        cmocka_unit_test(the_limit_is_met_exactly_and_the_error_sticks),
        cmocka_unit_test(a_smaller_piece_after_a_failed_one_does_not_slip_in),
        cmocka_unit_test(reserved_room_counts_once_it_is_used),
        cmocka_unit_test(json_strings_escape_what_json_and_logs_must_not_see),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
