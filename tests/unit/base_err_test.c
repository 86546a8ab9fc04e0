/* Goal: every code has its own words, strangers get some too, and errno never turns into success.
 */
#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#define LAST_CODE ERR_CLOUD

static void every_code_has_words_of_its_own(void **state)
{
    (void)state;
    for (int rc = 0; rc >= LAST_CODE; rc--) {
        assert_string_not_equal(err_name(rc), "unknown");
        assert_true(strlen(err_text(rc)) > 0);
        for (int other = 0; other > rc; other--) {
            assert_string_not_equal(err_name(rc), err_name(other));
            assert_string_not_equal(err_text(rc), err_text(other));
        }
    }
}

static void names_are_words_for_machines_and_texts_are_no_sentences(void **state)
{
    (void)state;
    for (int rc = 0; rc >= LAST_CODE; rc--) {
        const char *name = err_name(rc), *text = err_text(rc);

        assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name));
        assert_int_not_equal(text[strlen(text) - 1], '.');
    }
    assert_string_equal(err_name(ERR_NOT_FOUND), "not_found");
    assert_string_equal(err_text(0), "success");
}

static void a_code_that_nobody_defined_is_unknown(void **state)
{
    const int strangers[] = {1, INT_MAX, LAST_CODE - 1, -1000, INT_MIN + 1, INT_MIN};

    (void)state;
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++) {
        assert_string_equal(err_name(strangers[i]), "unknown");
        assert_string_equal(err_text(strangers[i]), "unknown error");
    }
}

static void errno_becomes_the_nearest_code(void **state)
{
    static const struct {
        int from, to;
    } cases[] = {
        {ENOENT, ERR_NOT_FOUND},       {ENOTDIR, ERR_NOT_FOUND},    {EEXIST, ERR_EXISTS},
        {ENOSPC, ERR_NO_SPACE},        {EDQUOT, ERR_NO_SPACE},      {ENOMEM, ERR_NO_MEMORY},
        {EAGAIN, ERR_AGAIN},           {EACCES, ERR_PERMISSION},    {EPERM, ERR_PERMISSION},
        {EROFS, ERR_PERMISSION},       {EADDRINUSE, ERR_IN_USE},    {EMFILE, ERR_FULL},
        {EPIPE, ERR_CLOSED},           {ECONNRESET, ERR_CLOSED},    {ETIMEDOUT, ERR_TIMEOUT},
        {EFBIG, ERR_TOO_BIG},          {EINVAL, ERR_INVALID},       {EISDIR, ERR_INVALID},
        {EOPNOTSUPP, ERR_UNSUPPORTED}, {ENOSYS, ERR_UNSUPPORTED},   {EIO, ERR_IO},
        {EBUSY, ERR_LOCKED},           {ENAMETOOLONG, ERR_INVALID}, {0, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(err_from_errno(cases[i].from), cases[i].to);
    for (int any = 1; any < 4096; any++)
        assert_true(err_from_errno(any) < 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_has_words_of_its_own),
        cmocka_unit_test(names_are_words_for_machines_and_texts_are_no_sentences),
        cmocka_unit_test(a_code_that_nobody_defined_is_unknown),
        cmocka_unit_test(errno_becomes_the_nearest_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
