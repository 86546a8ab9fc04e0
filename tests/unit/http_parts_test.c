/* Goal: the small pure parts of the HTTP core follow their RFCs to the letter: ranges, conditions,
 * dates, chunks, media types, deadlines. */
#include "api/http/chunked.h"
#include "api/http/conditional.h"
#include "api/http/date.h"
#include "api/http/mime.h"
#include "api/http/range.h"
#include "api/http/wheel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- Ranges ---- */

#define BLOCK (64 * 1024)

static void ranges_resolve_as_asked(void **state)
{
    /* What comes out: "none", "unsatisfiable", or the ranges. */
    static const struct {
        const char *value;
        uint64_t size;
        const char *result;
    } cases[] = {
        {"bytes=0-0", 1000, "0-0"},
        {"bytes=0-499", 1000, "0-499"},
        {"bytes=500-", 1000, "500-999"},
        {"bytes=-1", 1000, "999-999"},
        {"bytes=-2000", 1000, "0-999"},
        {"bytes=990-2000", 1000, "990-999"},
        {"BYTES=0-1", 1000, "0-1"},
        {"bytes=0-18446744073709551615", 1000, "0-999"},
        {"bytes=0-99999999999999999999999", 1000, "0-999"},
        {"bytes=1000-", 1000, "unsatisfiable"},
        {"bytes=99999999999999999999999-", 1000, "unsatisfiable"},
        {"bytes=-0", 1000, "unsatisfiable"},
        {"bytes=0-", 0, "unsatisfiable"},
        {"bytes=-1", 0, "unsatisfiable"},
        {"bytes=1000-,2000-3000", 1000, "unsatisfiable"},
        {"bytes=1000-,0-0", 1000, "0-0"},
        {"bytes=", 1000, "none"},
        {"bytes=,", 1000, "none"},
        {"bytes", 1000, "none"},
        {"", 1000, "none"},
        {"items=0-1", 1000, "none"},
        {"bytes=1", 1000, "none"},
        {"bytes=-", 1000, "none"},
        {"bytes=a-b", 1000, "none"},
        {"bytes=5-4", 1000, "none"},
        {"bytes=0-1;2-3", 1000, "none"},
        {"bytes=0-1 2-3", 1000, "none"},
        {"bytes=+0-1", 1000, "none"},
        {"bytes=0--1", 1000, "none"},
        {"bytes=0 -1", 1000, "none"},
        {"bytes= 0-1 , ,5-6 ,", 1000, "0-6"},
        /* In one block, or touching one: merged. */
        {"bytes=0-1,5-6", 1000, "0-6"},
        {"bytes=10-20,65536-65540", 1000000, "10-20 65536-65540"},
        {"bytes=65536-65540,10-20", 1000000, "65536-65540 10-20"},
        {"bytes=10-20,131072-131080,65530-65540", 1000000, "10-65540 131072-131080"},
        {"bytes=0-0,131072-131072,65535-131072", 1000000, "0-131072"},
        /* As much as the body may be asked for, more may not. */
        {"bytes=0-499,500-999", 1000, "0-999"},
        {"bytes=0-499,499-999", 1000, "none"},
        {"bytes=0-,0-", 1000, "none"},
        {"bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9,10-10,11-11,12-12,13-13,14-14,15-15", 1000,
         "0-15"},
        {"bytes=0-0,1-1,2-2,3-3,4-4,5-5,6-6,7-7,8-8,9-9,10-10,11-11,12-12,13-13,14-14,15-15,16-16",
         1000, "none"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct byte_range ranges[LIMIT_HTTP_RANGES];
        unsigned count = 99;
        char text[400] = "", *to = text;
        enum range_result result =
            range_resolve(cases[i].value, strlen(cases[i].value), cases[i].size, ranges, &count);

        for (unsigned r = 0; result == RANGE_SOME && r < count; r++)
            to += sprintf(to, "%s%llu-%llu", r ? " " : "", (unsigned long long)ranges[r].first,
                          (unsigned long long)ranges[r].last);
        if (result != RANGE_SOME) {
            assert_int_equal(count, 0);
            snprintf(text, sizeof text, "%s", result == RANGE_NONE ? "none" : "unsatisfiable");
        }
        if (strcmp(text, cases[i].result))
            fail_msg("%s: %s instead of %s", cases[i].value, text, cases[i].result);
    }
}

static void sixteen_far_ranges_stay_apart(void **state)
{
    struct byte_range ranges[LIMIT_HTTP_RANGES];
    char text[1000] = "bytes=", *to = text + 6;
    unsigned count;

    (void)state;
    for (unsigned i = 0; i < LIMIT_HTTP_RANGES; i++)
        to += sprintf(to, "%u-%u,", (15 - i) * BLOCK, (15 - i) * BLOCK + 5);
    assert_int_equal(range_resolve(text, strlen(text), 16 * BLOCK, ranges, &count), RANGE_SOME);
    assert_int_equal(count, 16);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(ranges[i].first, (15 - i) * BLOCK);
}

/* ---- Conditions ---- */

static struct slice slice(const char *text)
{
    return (struct slice){text, text ? strlen(text) : 0};
}

#define TAG   "\"abc\""
#define SAME  "Sun, 06 Nov 1994 08:49:37 GMT"
#define OLDER "Sun, 06 Nov 1994 08:49:36 GMT"
#define NEWER "Sun, 06 Nov 1994 08:49:38 GMT"
#define WHEN  UINT64_C(784111777)

static void conditions_are_weighed_in_their_order(void **state)
{
    static const struct {
        const char *match, *none_match, *modified, *unmodified, *etag;
        enum conditional_result result;
    } cases[] = {
        {NULL, NULL, NULL, NULL, TAG, CONDITIONAL_GO},
        {TAG, NULL, NULL, NULL, TAG, CONDITIONAL_GO},
        {"\"x\", \"abc\"", NULL, NULL, NULL, TAG, CONDITIONAL_GO},
        {"*", NULL, NULL, NULL, TAG, CONDITIONAL_GO},
        {"*", NULL, NULL, NULL, NULL, CONDITIONAL_FAILED},
        {TAG, NULL, NULL, NULL, NULL, CONDITIONAL_FAILED},
        {"\"x\"", NULL, NULL, NULL, TAG, CONDITIONAL_FAILED},
        {"W/\"abc\"", NULL, NULL, NULL, TAG, CONDITIONAL_FAILED},
        {"abc", NULL, NULL, NULL, TAG, CONDITIONAL_FAILED},
        {"\"abc", NULL, NULL, NULL, TAG, CONDITIONAL_FAILED},
        {"", NULL, NULL, NULL, TAG, CONDITIONAL_FAILED},
        {"\"x,\"abc\"", NULL, NULL, NULL, TAG, CONDITIONAL_FAILED},
        {NULL, NULL, NULL, SAME, TAG, CONDITIONAL_GO},
        {NULL, NULL, NULL, NEWER, TAG, CONDITIONAL_GO},
        {NULL, NULL, NULL, OLDER, TAG, CONDITIONAL_FAILED},
        {NULL, NULL, NULL, "yesterday", TAG, CONDITIONAL_GO},
        {TAG, NULL, NULL, OLDER, TAG, CONDITIONAL_GO}, /* If-Match goes before the date */
        {NULL, TAG, NULL, NULL, TAG, CONDITIONAL_NOT_MODIFIED},
        {NULL, "W/\"abc\"", NULL, NULL, TAG, CONDITIONAL_NOT_MODIFIED},
        {NULL, "\"x\" ,\t\"y\",\"abc\"", NULL, NULL, TAG, CONDITIONAL_NOT_MODIFIED},
        {NULL, "*", NULL, NULL, TAG, CONDITIONAL_NOT_MODIFIED},
        {NULL, "*", NULL, NULL, NULL, CONDITIONAL_GO},
        {NULL, "\"x\"", NULL, NULL, TAG, CONDITIONAL_GO},
        {NULL, "\"x\"", SAME, NULL, TAG, CONDITIONAL_GO}, /* so does If-None-Match */
        {NULL, NULL, SAME, NULL, TAG, CONDITIONAL_NOT_MODIFIED},
        {NULL, NULL, NEWER, NULL, TAG, CONDITIONAL_NOT_MODIFIED},
        {NULL, NULL, OLDER, NULL, TAG, CONDITIONAL_GO},
        {NULL, NULL, "Sun Nov  6 08:49:37 1994", NULL, TAG, CONDITIONAL_NOT_MODIFIED},
        {NULL, NULL, "0", NULL, TAG, CONDITIONAL_GO},
        {NULL, NULL, SAME, NULL, NULL, CONDITIONAL_GO},
        {"\"x\"", TAG, NULL, NULL, TAG, CONDITIONAL_FAILED},
        {TAG, TAG, NULL, NULL, TAG, CONDITIONAL_NOT_MODIFIED},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct conditional conditional = {.if_match = slice(cases[i].match),
                                          .if_none_match = slice(cases[i].none_match),
                                          .if_modified_since = slice(cases[i].modified),
                                          .if_unmodified_since = slice(cases[i].unmodified)};
        enum conditional_result result = conditional_evaluate(&conditional, cases[i].etag, WHEN);

        if (result != cases[i].result)
            fail_msg("case %zu: %d instead of %d", i, (int)result, (int)cases[i].result);
    }
}

static void a_range_counts_for_this_very_representation(void **state)
{
    static const struct {
        const char *value, *etag;
        bool applies;
    } cases[] = {
        {NULL, TAG, true},     {TAG, TAG, true},
        {"\"x\"", TAG, false}, {"W/\"abc\"", TAG, false},
        {TAG, NULL, false},    {SAME, TAG, true},
        {OLDER, TAG, false},   {NEWER, TAG, false},
        {"", TAG, false},      {"\"abc\", \"x\"", TAG, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct conditional conditional = {.if_range = slice(cases[i].value)};

        assert_int_equal(conditional_range_applies(&conditional, cases[i].etag, WHEN),
                         cases[i].applies);
    }
}

/* ---- Dates ---- */

static void dates_are_read_in_all_three_forms(void **state)
{
    static const struct {
        const char *text;
        uint64_t unix_s; /* 1 = invalid */
    } cases[] = {
        {"Sun, 06 Nov 1994 08:49:37 GMT", WHEN},
        {"Sunday, 06-Nov-94 08:49:37 GMT", WHEN},
        {"Sun Nov  6 08:49:37 1994", WHEN},
        {"Sun Nov 06 08:49:37 1994", WHEN},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Thu, 29 Feb 2024 12:00:00 GMT", 1709208000},
        {"Sat, 21-Nov-26 11:00:00 GMT", 1},
        {"Saturday, 21-Nov-26 11:00:00 GMT", 1795258800},
        {"Fri, 31 Dec 9999 23:59:59 GMT", UINT64_C(253402300799)},
        {"Sat, 31 Dec 2016 23:59:60 GMT", 1483228800},
        {"", 1},
        {"S", 1},
        {"Sun", 1},
        {"Sun,", 1},
        {"Sun, 06 Nov 1994 08:49:37", 1},
        {"Sun, 06 Nov 1994 08:49:37 UTC", 1},
        {"Sun, 06 Nov 1994 08:49:37 GMT ", 1},
        {"Sun, 6 Nov 1994 08:49:37 GMT", 1},
        {"Sun, 06 nov 1994 08:49:37 GMT", 1},
        {"Sun, 06 Nov 94 08:49:37 GMT", 1},
        {"Sun, 00 Nov 1994 08:49:37 GMT", 1},
        {"Sun, 31 Nov 1994 08:49:37 GMT", 1},
        {"Wed, 29 Feb 2023 12:00:00 GMT", 1},
        {"Sun, 06 Nov 1994 24:00:00 GMT", 1},
        {"Sun, 06 Nov 1994 08:60:00 GMT", 1},
        {"Sun, 06 Nov 1994 08:49:61 GMT", 1},
        {"Wed, 31 Dec 1969 23:59:59 GMT", 1},
        {"Sun, 06 Nov -994 08:49:37 GMT", 1},
        {"Sunday, 06 Nov 1994 08:49:37 GMT", 1},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        uint64_t unix_s = 1;
        int rc = http_date_parse(&unix_s, cases[i].text, strlen(cases[i].text));

        if (unix_s != cases[i].unix_s || (rc != 0) != (cases[i].unix_s == 1))
            fail_msg("%s: %d, %llu", cases[i].text, rc, (unsigned long long)unix_s);
    }
}

static void dates_are_written_as_the_c_library_does_and_read_back(void **state)
{
    (void)state;
    for (uint64_t t = 0; t < UINT64_C(253402300799); t += 86400 * 17 + 4711) {
        char ours[HTTP_DATE_BYTES + 1], theirs[64];
        time_t time = (time_t)t;
        struct tm tm;
        uint64_t back;

        http_date_format(ours, t);
        strftime(theirs, sizeof theirs, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&time, &tm));
        assert_string_equal(ours, theirs);
        assert_int_equal(http_date_parse(&back, ours, HTTP_DATE_BYTES), 0);
        assert_int_equal(back, t);
    }
}

/* ---- Chunks ---- */

/* Decode INPUT in pieces of STEP bytes into OUT; *USED in all. 0 or an error. */
static int decode(const char *input, size_t step, char *out, size_t *used)
{
    struct chunked chunked = {0};
    size_t len = strlen(input), out_len = 0;

    *used = 0;
    out[0] = 0;
    while (*used < len && !chunked_ended(&chunked)) {
        size_t n = len - *used < step ? len - *used : step, taken, data_len;
        const uint8_t *data;
        int rc =
            chunked_take(&chunked, (const uint8_t *)input + *used, n, &taken, &data, &data_len);

        if (rc)
            return rc;
        assert_true(taken <= n && data_len <= taken);
        assert_true(!data_len || (const char *)data + data_len == input + *used + taken);
        if (data_len)
            memcpy(out + out_len, data, data_len);
        out_len += data_len;
        out[out_len] = 0;
        *used += taken;
    }
    return chunked_ended(&chunked) ? 0 : ERR_AGAIN;
}

static void chunks_decode_alike_however_they_are_cut(void **state)
{
    static const struct {
        const char *input, *data;
        int rc;
    } cases[] = {
        {"0\r\n\r\n", "", 0},
        {"3\r\nabc\r\n0\r\n\r\n", "abc", 0},
        {"3\r\nabc\r\n00B;a=b;c\r\n0123456789x\r\n000\r\nT: x\r\nU:\r\n\r\n", "abc0123456789x", 0},
        {"3\r\nabc\r\n", "abc", ERR_AGAIN},
        {"0\r\n", "", ERR_AGAIN},
        {"000000000000003\r\nabc\r\n0\r\n\r\n", "abc", 0},
        {"0000000000000003\r\nabc\r\n0\r\n\r\n", "", ERR_INVALID},
        {"3\r\nabc\r\nx", "abc", ERR_INVALID},
        {"3\r\nabcd\r\n", "abc", ERR_INVALID},
        {"0\r\n: x\r\n\r\n", "", ERR_INVALID},
        {"0\r\nT: \x01\r\n\r\n", "", ERR_INVALID},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++)
        for (size_t step = 1; step <= strlen(cases[i].input); step++) {
            char out[64];
            size_t used;

            assert_int_equal(decode(cases[i].input, step, out, &used), cases[i].rc);
            assert_string_equal(out, cases[i].data);
            assert_true(cases[i].rc || used == strlen(cases[i].input));
        }
}

static void what_follows_a_chunked_body_is_not_taken(void **state)
{
    char out[64];
    size_t used;

    (void)state;
    assert_int_equal(decode("1\r\na\r\n0\r\n\r\nGET /", 100, out, &used), 0);
    assert_int_equal(used, 11);
}

static void extensions_and_trailers_are_bounded_in_sum(void **state)
{
    char *input = malloc(2 * LIMIT_HTTP_CHUNK_EXT), *to = input, out[1024 * 16];
    size_t used;

    (void)state;
    for (unsigned i = 0; i < LIMIT_HTTP_CHUNK_EXT / 16; i++)
        to += sprintf(to, "1;0123456789abcd\r\nx\r\n");
    memcpy(to, "0\r\n\r\n", 6);
    assert_true((size_t)(to - input) < 2 * LIMIT_HTTP_CHUNK_EXT);
    assert_int_equal(decode(input, 1000, out, &used), 0);
    memcpy(input, "0\r\n", 3);
    memset(input + 3, 'x', LIMIT_HTTP_CHUNK_EXT + 10);
    input[3 + LIMIT_HTTP_CHUNK_EXT + 10] = 0;
    assert_int_equal(decode(input, 1000, out, &used), ERR_TOO_BIG);
    free(input);
}

/* ---- Media types ---- */

static void types_follow_the_extension(void **state)
{
    static const struct {
        const char *name, *type;
    } cases[] = {
        {"a.txt", "text/plain; charset=utf-8"},
        {"dir.d/A.HTML", "text/html; charset=utf-8"},
        {"x.tar.gz", "application/gzip"},
        {"photo.JPEG", "image/jpeg"},
        {"a.json", "application/json"},
        {".png", "image/png"},
        {"a.7z", "application/x-7z-compressed"},
        {"a.zst", "application/zstd"},
        {"a.webmanifest", "application/manifest+json"},
        {"a.webmanifestx", NULL},
        {"a.nosuch", NULL},
        {"txt", NULL},
        {"a.", NULL},
        {"", NULL},
        {"a.txt/b", NULL},
        {"a.tx", NULL},
        {"a.txtt", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT(cases); i++) {
        const char *type = mime_by_name(cases[i].name, strlen(cases[i].name));

        assert_true(!type == !cases[i].type);
        if (type)
            assert_string_equal(type, cases[i].type);
    }
}

/* Each extension of the table is found, which it is only if the table is sorted. */
static void the_table_of_types_is_sorted(void **state)
{
    static const char *const all[] = {
        "a.bin", "a.c",   "a.css", "a.go",  "a.h",   "a.htm", "a.js",   "a.jxl", "a.log",
        "a.mjs", "a.mp4", "a.odt", "a.pdf", "a.php", "a.py",  "a.rs",   "a.sh",  "a.svg",
        "a.ts",  "a.ttf", "a.wav", "a.xml", "a.yml", "a.zip", "a.woff", "a.weba"};

    (void)state;
    for (size_t i = 0; i < COUNT(all); i++)
        assert_non_null(mime_by_name(all[i], strlen(all[i])));
}

/* ---- Deadlines ---- */

struct deadline {
    struct wheel_timer timer; /* first */
    uint64_t fired_ms;
};

struct firing {
    struct wheel *wheel;
    uint64_t now_ms;
    unsigned count;
    struct deadline *victim; /* taken out by whoever fires first */
};

static void fire(struct wheel_timer *timer, void *arg)
{
    struct deadline *deadline = (struct deadline *)timer;
    struct firing *firing = arg;

    deadline->fired_ms = firing->now_ms;
    firing->count++;
    if (firing->victim && firing->victim != deadline)
        wheel_remove(&firing->victim->timer);
}

static void deadlines_fire_once_and_never_early(void **state)
{
    static struct wheel wheel;
    static struct deadline deadlines[2000];

    (void)state;
    for (unsigned seed = 1; seed <= 5; seed++) {
        struct firing firing = {.wheel = &wheel, .now_ms = 1000000 + seed};

        memset(deadlines, 0, sizeof deadlines);
        wheel_init(&wheel, firing.now_ms);
        srand(seed);
        for (size_t i = 0; i < COUNT(deadlines); i++)
            wheel_set(&wheel, &deadlines[i].timer, firing.now_ms + (uint64_t)(rand() % 100000));
        for (size_t i = 0; i < COUNT(deadlines); i += 3) /* moved, in either direction */
            wheel_set(&wheel, &deadlines[i].timer, firing.now_ms + (uint64_t)(rand() % 200000));
        for (size_t i = 0; i < COUNT(deadlines); i += 7)
            wheel_set(&wheel, &deadlines[i].timer, WHEEL_NEVER);
        for (size_t i = 0; i < COUNT(deadlines); i += 11)
            wheel_remove(&deadlines[i].timer);
        while (firing.now_ms < 1000000 + 300000) {
            uint64_t wait = wheel_wait_ms(&wheel, firing.now_ms, 5000);

            assert_true(wait <= 5000);
            firing.now_ms += wait ? wait : 1; /* sleeping that long misses nothing */
            wheel_advance(&wheel, firing.now_ms, fire, &firing);
        }
        for (size_t i = 0; i < COUNT(deadlines); i++) {
            uint64_t due = deadlines[i].timer.deadline_ms;

            if (i % 7 == 0 || i % 11 == 0) {
                assert_int_equal(deadlines[i].fired_ms, 0);
            } else {
                assert_true(deadlines[i].fired_ms >= due);
                assert_true(deadlines[i].fired_ms <= due + 2 * WHEEL_TICK_MS);
            }
            assert_null(deadlines[i].timer.link);
        }
    }
}

static void a_long_pause_loses_no_deadline(void **state)
{
    static struct wheel wheel;
    struct deadline deadlines[50] = {0};
    struct firing firing = {.wheel = &wheel, .now_ms = 5};

    (void)state;
    wheel_init(&wheel, 5);
    for (size_t i = 0; i < COUNT(deadlines); i++)
        wheel_set(&wheel, &deadlines[i].timer, 1 + i * 3000);
    firing.now_ms = UINT64_C(1) << 40;
    wheel_advance(&wheel, firing.now_ms, fire, &firing);
    assert_int_equal(firing.count, COUNT(deadlines));
    assert_int_equal(wheel_wait_ms(&wheel, firing.now_ms, 777), 777);
}

static void a_deadline_may_be_taken_out_while_others_fire(void **state)
{
    static struct wheel wheel;
    struct deadline deadlines[5] = {0};
    struct firing firing = {.wheel = &wheel, .now_ms = 1000, .victim = &deadlines[2]};

    (void)state;
    wheel_init(&wheel, 0);
    for (size_t i = 0; i < COUNT(deadlines); i++)
        wheel_set(&wheel, &deadlines[i].timer, 100);
    wheel_advance(&wheel, firing.now_ms, fire, &firing);
    assert_int_equal(firing.count, COUNT(deadlines) - 1);
    assert_int_equal(deadlines[2].fired_ms, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_resolve_as_asked),
        cmocka_unit_test(sixteen_far_ranges_stay_apart),
        cmocka_unit_test(conditions_are_weighed_in_their_order),
        cmocka_unit_test(a_range_counts_for_this_very_representation),
        cmocka_unit_test(dates_are_read_in_all_three_forms),
        cmocka_unit_test(dates_are_written_as_the_c_library_does_and_read_back),
        cmocka_unit_test(chunks_decode_alike_however_they_are_cut),
        cmocka_unit_test(what_follows_a_chunked_body_is_not_taken),
        cmocka_unit_test(extensions_and_trailers_are_bounded_in_sum),
        cmocka_unit_test(types_follow_the_extension),
        cmocka_unit_test(the_table_of_types_is_sorted),
        cmocka_unit_test(deadlines_fire_once_and_never_early),
        cmocka_unit_test(a_long_pause_loses_no_deadline),
        cmocka_unit_test(a_deadline_may_be_taken_out_while_others_fire),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
