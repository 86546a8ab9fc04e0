/* Goal: the same secret gives the same keys on every node, another one others; a file that is open
 * to others or malformed is refused with a sentence that says why and does not tell the secret. */
#include "cluster/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/text.h"
#include "tests/unit/faulty_io.h"

#define OLD "an old secret of a cluster"
#define NEW "a new secret of the cluster"

static char message[256];

static int parse(struct secret *out, const char *text)
{
    message[0] = 0;
    return secret_parse(out, text, strlen(text), message, sizeof message);
}

static void is_hex(const uint8_t *key, const char *expected)
{
    char hex[2 * SECRET_KEY_BYTES + 1];

    hex_encode(hex, key, SECRET_KEY_BYTES);
    assert_string_equal(hex, expected);
}

static bool is_wiped(const struct secret *secret)
{
    static const struct secret zero;

    return memcmp(secret, &zero, sizeof zero) == 0;
}

/* Computed with another implementation of HKDF and X25519 (Python's hmac; RFC 7748's ladder): a
 * release that derives other keys could not talk to its predecessor. */
static void keys_are_those_that_every_release_derives(void **state)
{
    struct secret secret;

    (void)state;
    assert_int_equal(parse(&secret, OLD "\n"), 0);
    assert_int_equal(secret.count, 1);
    is_hex(secret.lines[0].server_private,
           "50c8ef125d3eefa63782885f39a94df136f48c4bf40dfe177cf5304a27599ff6");
    is_hex(secret.lines[0].server_public,
           "1f91a2ccf27ac24cc61ce639204bbab4afe0a9e0eb4726527f3331ff10b1b05d");
    is_hex(secret.lines[0].client_private,
           "8c8c4524fcfe53013be75798213fd2a2e5ebde9c56c028bfe6ea1b511a30738a");
    is_hex(secret.lines[0].client_public,
           "ece2dce523e3984d908e202d22d9bcb5ecd668a68f53342dd8b43c4c4d1b4447");
    secret_release(&secret);
    assert_true(is_wiped(&secret));
}

static void line_ends_do_not_matter(void **state)
{
    const char *const texts[] = {OLD "\n" NEW, OLD "\r\n" NEW "\r\n", OLD "\n" NEW "\n"};
    struct secret expected, secret;

    (void)state;
    assert_int_equal(parse(&expected, OLD), 0);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert_int_equal(parse(&secret, texts[i]), 0);
        assert_int_equal(secret.count, 2);
        assert_memory_equal(&secret.lines[0], &expected.lines[0], sizeof secret.lines[0]);
        assert_memory_not_equal(&secret.lines[1], &expected.lines[0], sizeof secret.lines[0]);
    }
}

static void each_line_gives_four_different_keys(void **state)
{
    struct secret secret;

    (void)state;
    assert_int_equal(parse(&secret, NEW "\n" OLD), 0);
    for (size_t i = 0; i < 2 * sizeof secret.lines[0]; i += SECRET_KEY_BYTES)
        for (size_t j = i + SECRET_KEY_BYTES; j < 2 * sizeof secret.lines[0]; j += SECRET_KEY_BYTES)
            assert_memory_not_equal((uint8_t *)secret.lines + i, (uint8_t *)secret.lines + j,
                                    SECRET_KEY_BYTES);
}

static void malformed_secrets_are_refused_and_say_why(void **state)
{
    char longest[SECRET_MAX_BYTES + 2];
    const struct {
        const char *text, *why;
    } cases[] = {
        {"", "empty"},
        {"\n", "line 1 of the cluster secret is shorter"},
        {"fifteen bytes !", "shorter"},
        {OLD "\nfifteen bytes !\n", "line 2 of the cluster secret is shorter"},
        {OLD "\n\n", "line 2"},
        {OLD "\n" NEW "\nand one more secret\n", "more than two"},
        {OLD "\n" OLD "\n", "same as line 1"},
        {" " OLD, "blank"},
        {OLD " \n", "blank"},
        {"sixteen bytes \t or more", "printable"},
        {"sixteen bytes \r or more", "printable"},
        {"sixteen bytes \xc3\xbc or more", "printable"},
        {longest, "longer"},
    };
    struct secret secret;

    (void)state;
    memset(longest, 'x', sizeof longest);
    longest[SECRET_MAX_BYTES + 1] = 0;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memset(&secret, 0xff, sizeof secret);
        assert_int_equal(parse(&secret, cases[i].text), ERR_INVALID);
        assert_non_null(strstr(message, cases[i].why));
        assert_null(strstr(message, OLD));
        assert_true(is_wiped(&secret));
    }
    longest[SECRET_MAX_BYTES] = 0;
    assert_int_equal(parse(&secret, longest), 0);
    assert_int_equal(parse(&secret, "sixteen bytes ok"), 0);
    /* A zero byte is no end. */
    assert_int_equal(secret_parse(&secret, "sixteen bytes ok\0and more", 25, message, 256),
                     ERR_INVALID);
}

/* --- files -------------------------------------------------------------------------------------
 */

static char path[64];

static int make_path(void **state)
{
    int fd;

    (void)state;
    strcpy(path, "/tmp/secret_test.XXXXXX");
    fd = mkstemp(path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
    (void)state;
    return unlink(path);
}

static void write_file(const char *text, size_t len, unsigned mode)
{
    assert_int_equal(chmod(path, 0600), 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, len, file), len);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void a_file_is_read_only_where_nobody_else_may(void **state)
{
    const unsigned open_modes[] = {0640, 0604, 0620, 0602, 0610, 0601, 0644, 0666, 0440};
    const unsigned good_modes[] = {0600, 0400};
    struct secret secret, expected;

    (void)state;
    assert_int_equal(parse(&expected, NEW "\n" OLD "\n"), 0);
    for (size_t i = 0; i < sizeof open_modes / sizeof *open_modes; i++) {
        write_file(NEW "\n", sizeof NEW, open_modes[i]);
        assert_int_equal(secret_load(&secret, io_system(), path, message, sizeof message),
                         ERR_PERMISSION);
        assert_non_null(strstr(message, path));
        assert_non_null(strstr(message, "chmod 600"));
        assert_true(is_wiped(&secret));
    }
    for (size_t i = 0; i < sizeof good_modes / sizeof *good_modes; i++) {
        write_file(NEW "\n" OLD "\n", sizeof NEW + sizeof OLD, good_modes[i]);
        assert_int_equal(secret_load(&secret, io_system(), path, message, sizeof message), 0);
        assert_memory_equal(&secret, &expected, sizeof secret);
    }
}

static void a_file_that_is_none_is_named(void **state)
{
    char large[2 * (SECRET_MAX_BYTES + 2) + 1];
    struct secret secret;

    (void)state;
    memset(large, 'x', sizeof large);
    write_file(large, sizeof large, 0600);
    assert_int_equal(secret_load(&secret, io_system(), path, message, sizeof message), ERR_TOO_BIG);
    assert_non_null(strstr(message, path));
    write_file("short\n", 6, 0600);
    assert_int_equal(secret_load(&secret, io_system(), path, message, sizeof message), ERR_INVALID);
    assert_non_null(strstr(message, path));
    assert_null(strstr(message, "short\n"));
    assert_int_equal(secret_load(&secret, io_system(), "/tmp", message, sizeof message),
                     ERR_INVALID);
    assert_non_null(strstr(message, "directory"));
    assert_int_equal(secret_load(&secret, io_system(), "/nowhere/at/all", message, sizeof message),
                     ERR_NOT_FOUND);
    assert_non_null(strstr(message, "/nowhere/at/all"));
}

static void every_call_that_fails_is_reported(void **state)
{
    struct faulty faulty;
    struct secret secret;
    long at = 1;
    int rc;

    (void)state;
    write_file(NEW "\n", sizeof NEW, 0600);
    do {
        faulty_init(&faulty);
        faulty.fail_at = at++;
        faulty.rc = ERR_IO;
        message[0] = 0;
        rc = secret_load(&secret, &faulty.io, path, message, sizeof message);
        if (rc) {
            assert_int_equal(rc, ERR_IO);
            assert_non_null(strstr(message, path));
            assert_true(is_wiped(&secret));
        }
    } while (rc);
    assert_true(at > 4); /* open, stat, read */
    assert_int_equal(secret.count, 1);
}

static void a_made_secret_is_one_and_never_the_same(void **state)
{
    char first[SECRET_TEXT_BYTES], second[SECRET_TEXT_BYTES];
    bool seen_dash = false, seen_underline = false;
    struct secret secret;

    (void)state;
    secret_make(env_system(), first);
    for (int i = 0; i < 1000; i++) {
        secret_make(env_system(), second);
        assert_int_equal(strlen(second), SECRET_TEXT_BYTES - 1);
        assert_string_not_equal(first, second);
        assert_null(strpbrk(second, "+/= "));
        seen_dash |= strchr(second, '-') != NULL;
        seen_underline |= strchr(second, '_') != NULL;
    }
    assert_true(seen_dash && seen_underline);
    assert_int_equal(parse(&secret, second), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_those_that_every_release_derives),
        cmocka_unit_test(line_ends_do_not_matter),
        cmocka_unit_test(each_line_gives_four_different_keys),
        cmocka_unit_test(malformed_secrets_are_refused_and_say_why),
        cmocka_unit_test(a_file_is_read_only_where_nobody_else_may),
        cmocka_unit_test(a_file_that_is_none_is_named),
        cmocka_unit_test(every_call_that_fails_is_reported),
        cmocka_unit_test(a_made_secret_is_one_and_never_the_same),
    };
    return cmocka_run_group_tests(tests, make_path, remove_path);
}
