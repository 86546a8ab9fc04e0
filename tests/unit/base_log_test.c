/* Goal: one event is one line in the documented form, and nothing that a client sends can end a
 * line, begin one, or break its JSON. */
#include "base/log.h"

#include "base/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* stderr as it was, while a pipe stands in its place. */
struct capture {
    int saved, reader;
};

static struct capture begin(void)
{
    struct capture capture;
    int ends[2];

    assert_int_equal(pipe(ends), 0);
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    capture.saved = dup(STDERR_FILENO);
    capture.reader = ends[0];
    assert_true(capture.saved >= 0);
    assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
    assert_int_equal(close(ends[1]), 0);
    return capture;
}

/* Put stderr back; what was written, as a string. */
static char *end(struct capture capture)
{
    static char text[65536];

    assert_true(dup2(capture.saved, STDERR_FILENO) >= 0);
    assert_int_equal(close(capture.saved), 0);
    size_t used = 0;
    ssize_t got;
    while ((got = read(capture.reader, text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)got;
    assert_int_equal(close(capture.reader), 0);
    text[used] = 0;
    assert_int_equal(strlen(text), used); /* no zero byte inside */
    return text;
}

static char *one_line(enum log_format format, const char *message)
{
    log_configure(LOG_INFO, format);
    struct capture capture = begin();
    log_info("%s", message);
    char *text = end(capture);
    log_configure(LOG_INFO, LOG_TEXT);
    return text;
}

static void assert_time(const char *text)
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    for (size_t i = 0; form[i]; i++) {
        if (form[i] == 'd')
            assert_in_range(text[i], '0', '9');
        else
            assert_int_equal(text[i], form[i]);
    }
}

static void a_text_line_has_time_level_and_message(void **state)
{
    (void)state;
    char *text = one_line(LOG_TEXT, "hello \"world\" \\ \xc3\xa9");
    assert_time(text);
    assert_string_equal(text + 24, " INFO  hello \"world\" \\ \xc3\xa9\n");

    struct capture capture = begin();
    log_error("e");
    assert_string_equal(end(capture) + 24, " ERROR e\n");
    capture = begin();
    log_warn("w %d", 3);
    assert_string_equal(end(capture) + 24, " WARN  w 3\n");
}

static void levels_above_the_configured_are_not_written(void **state)
{
    (void)state;
    struct capture capture = begin();
    log_debug("not now");
    log_configure(LOG_ERROR, LOG_TEXT);
    log_warn("nor this");
    assert_false(log_enabled(LOG_WARN));
    assert_true(log_enabled(LOG_ERROR));
    assert_string_equal(end(capture), "");
    log_configure(LOG_DEBUG, LOG_TEXT);
    capture = begin();
    log_debug("now");
    assert_string_equal(end(capture) + 24, " DEBUG now\n");
    log_configure(LOG_INFO, LOG_TEXT);
}

static void control_characters_cannot_forge_a_line(void **state)
{
    (void)state;
    char *text = one_line(LOG_TEXT, "a\nb\rc\td\x1b[31m\x7f\xff\xc2\x9b!");
    assert_string_equal(text + 31, "a\\nb\\rc\\td\\x1b[31m\\x7f\\xff\\u009b!\n");
}

static void a_json_line_is_one_object_whatever_the_message(void **state)
{
    static const char *const messages[][2] = {
        {"plain", "plain"},
        {"q\"uo\\te", "q\"uo\\te"},
        {"a\nb\rc\td\x1b\x7f", "a\\nb\\rc\\td\x1b\x7f"},
        {"\xff\xc3(", "\xef\xbf\xbd\xef\xbf\xbd("},
        {"\xe2\x82\xac \xc2\x85", "\xe2\x82\xac \xc2\x85"},
        {"", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        char *text = one_line(LOG_JSON, messages[i][0]);

        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
        json_t *line = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        assert_non_null(line);
        assert_int_equal(json_object_size(line), 3);
        assert_time(json_string_value(json_object_get(line, "time")));
        assert_string_equal(json_string_value(json_object_get(line, "level")), "info");
        const char *message = json_string_value(json_object_get(line, "message"));
        /* JSON's own \n, \r and \t come back as the characters. */
        if (strchr(messages[i][0], '\n'))
            assert_string_equal(message, messages[i][0]);
        else
            assert_string_equal(message, messages[i][1]);
        json_decref(line);
    }
}

static void a_long_line_is_cut_and_says_so(void **state)
{
    static char message[5000];

    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        /* Two-byte characters, and ones that grow sixfold: neither may be cut in half. */
        for (size_t i = 0; i + 2 < sizeof message; i += 2)
            memcpy(message + i, kind ? "\x01\x02" : "\xc3\xa9", 2);
        message[sizeof message - 1] = 0;

        char *text = one_line(LOG_TEXT, message);
        size_t len = strlen(text);
        assert_in_range(len, 2000, 2048);
        assert_string_equal(text + len - 4, "...\n");
        assert_true(utf8_valid(text, len));

        text = one_line(LOG_JSON, message);
        len = strlen(text);
        assert_in_range(len, 2000, 2048);
        json_t *line = json_loads(text, 0, NULL);
        assert_non_null(line);
        const char *value = json_string_value(json_object_get(line, "message"));
        assert_string_equal(value + strlen(value) - 3, "...");
        json_decref(line);
    }
}

static void errno_is_preserved_even_where_stderr_is_gone(void **state)
{
    (void)state;
    int saved = dup(STDERR_FILENO);
    assert_true(saved >= 0);
    assert_int_equal(close(STDERR_FILENO), 0);
    errno = ENOENT;
    log_error("nobody hears this");
    int after = errno;
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    assert_int_equal(close(saved), 0);
    assert_int_equal(after, ENOENT);
}

enum { THREADS = 4, LINES = 100 };

static void *write_lines(void *arg)
{
    for (int i = 0; i < LINES; i++)
        log_info("%s %03d", (const char *)arg, i);
    return NULL;
}

static void lines_of_several_threads_never_mix(void **state)
{
    pthread_t threads[THREADS];
    char words[THREADS][3] = {"aa", "bb", "cc", "dd"};
    int lines = 0;

    (void)state;
    struct capture capture = begin();
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_lines, words[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    char *rest = NULL;
    for (char *line = strtok_r(end(capture), "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest)) {
        assert_int_equal(strlen(line), 31 + 6);
        assert_time(line);
        assert_int_equal(line[31], line[32]);
        lines++;
    }
    assert_int_equal(lines, THREADS * LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_text_line_has_time_level_and_message),
        cmocka_unit_test(levels_above_the_configured_are_not_written),
        cmocka_unit_test(control_characters_cannot_forge_a_line),
        cmocka_unit_test(a_json_line_is_one_object_whatever_the_message),
        cmocka_unit_test(a_long_line_is_cut_and_says_so),
        cmocka_unit_test(errno_is_preserved_even_where_stderr_is_gone),
        cmocka_unit_test(lines_of_several_threads_never_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
