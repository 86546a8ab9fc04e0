/* Goal: every id has one text and back; what is no ULID, or bears a time that clients may not
 * choose, is refused. */
#include "journal/ulid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define EXAMPLE    "01ARZ3NDEKTSV4RRFFQ69G5FAV" /* the specification's */
#define EXAMPLE_MS UINT64_C(1469922850259)

static struct id128 parsed(const char *text)
{
    struct id128 id;

    assert_int_equal(ulid_parse(&id, text, strlen(text)), 0);
    return id;
}

static void the_specifications_example_is_understood(void **state)
{
    struct id128 id = parsed(EXAMPLE);
    char text[ULID_TEXT_BYTES + 1];

    (void)state;
    assert_int_equal(ulid_time_ms(&id), EXAMPLE_MS);
    assert_int_equal(id.bytes[15], 0x5b);
    ulid_format(text, &id);
    assert_string_equal(text, EXAMPLE);
}

static void lower_case_is_the_same_id(void **state)
{
    struct id128 upper = parsed(EXAMPLE), lower = parsed("01arz3ndektsv4rrffq69g5fav");

    (void)state;
    assert_true(id_equal(&upper, &lower));
}

static void the_smallest_and_the_largest_id_have_texts(void **state)
{
    struct id128 all_ones, zero = parsed("00000000000000000000000000");
    struct id128 largest = parsed("7ZZZZZZZZZZZZZZZZZZZZZZZZZ");

    (void)state;
    memset(&all_ones, 0xff, sizeof all_ones);
    assert_true(id_is_zero(&zero));
    assert_true(id_equal(&largest, &all_ones));
}

static void what_is_no_ulid_is_refused(void **state)
{
    static const char *const bad[] = {
        "",
        "01ARZ3NDEKTSV4RRFFQ69G5FA",   /* 25 */
        "01ARZ3NDEKTSV4RRFFQ69G5FAVV", /* 27 */
        "80000000000000000000000000",  /* 2^128 */
        "ZZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "01ARZ3NDEKTSV4RRFFQ69G5FAI",
        "01ARZ3NDEKTSV4RRFFQ69G5FAL",
        "01ARZ3NDEKTSV4RRFFQ69G5FAO",
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "01ARZ3NDEKTSV4RRFFQ69G5FA-",
        "01ARZ3NDEKTSV4RRFFQ69G5FA\xc3",
        " 1ARZ3NDEKTSV4RRFFQ69G5FAV",
    };
    struct id128 id;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(ulid_parse(&id, bad[i], strlen(bad[i])), ERR_INVALID);
    assert_int_equal(ulid_parse(&id, "01ARZ3NDEKTSV4RRFFQ69G5FA\0", 26), ERR_INVALID);
}

/* Exactly the 32 digits and their small letters are digits, at every place. */
static void only_the_alphabet_is_accepted_anywhere(void **state)
{
    static const char alphabet[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZabcdefghjkmnpqrstvwxyz";

    (void)state;
    for (size_t place = 0; place < ULID_TEXT_BYTES; place++) {
        for (int c = 0; c < 256; c++) {
            char text[] = EXAMPLE;
            struct id128 id;
            bool good = c != 0 && strchr(alphabet, c) && (place > 0 || c <= '7');

            text[place] = (char)c;
            assert_int_equal(ulid_parse(&id, text, ULID_TEXT_BYTES), good ? 0 : ERR_INVALID);
        }
    }
}

static void every_digit_has_its_value_in_either_case(void **state)
{
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ0123456789abcdefghjkmnpqrstvwxyz";

    (void)state;
    for (size_t i = 0; i < sizeof digits - 1; i++) {
        char text[] = "00000000000000000000000000";

        text[ULID_TEXT_BYTES - 1] = digits[i];
        assert_int_equal(parsed(text).bytes[15], i % 32);
    }
}

static void random_ids_survive_the_round_trip_and_keep_their_order(void **state)
{
    struct id128 before = {{0}};
    char text_before[ULID_TEXT_BYTES + 1];

    (void)state;
    srand(1);
    ulid_format(text_before, &before);
    for (int i = 0; i < 20000; i++) {
        struct id128 id;
        char text[ULID_TEXT_BYTES + 1];

        for (size_t k = 0; k < sizeof id.bytes; k++)
            id.bytes[k] = (uint8_t)(rand() >> 7);
        ulid_format(text, &id);
        struct id128 again = parsed(text);
        assert_true(id_equal(&id, &again));
        int by_text = strcmp(text, text_before), by_id = id_compare(&id, &before);
        assert_int_equal((by_text > 0) - (by_text < 0), (by_id > 0) - (by_id < 0));
        before = id;
        memcpy(text_before, text, sizeof text);
    }
}

static void fill_random(struct env *env, void *buf, size_t len)
{
    memset(buf, *(const uint8_t *)env->arg, len);
}

static void a_new_id_bears_its_time_and_the_environments_dice(void **state)
{
    uint8_t dice = 0xa5;
    struct env env = {.random = fill_random, .arg = &dice};
    struct id128 id = ulid_make(&env, EXAMPLE_MS);

    (void)state;
    assert_int_equal(ulid_time_ms(&id), EXAMPLE_MS);
    for (size_t i = 6; i < sizeof id.bytes; i++)
        assert_int_equal(id.bytes[i], 0xa5);
}

static void clients_may_choose_times_of_2010_to_2099(void **state)
{
    static const struct {
        uint64_t ms;
        int rc;
    } cases[] = {
        {0, ERR_RANGE},
        {ULID_MIN_MS - 1, ERR_RANGE},
        {ULID_MIN_MS, 0},
        {EXAMPLE_MS, 0},
        {ULID_MAX_MS - 1, 0},
        {ULID_MAX_MS, ERR_RANGE},
        {(UINT64_C(1) << 48) - 1, ERR_RANGE},
    };
    uint8_t dice = 0xff;
    struct env env = {.random = fill_random, .arg = &dice};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct id128 id = ulid_make(&env, cases[i].ms);

        assert_int_equal(ulid_check_time(&id), cases[i].rc);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_specifications_example_is_understood),
        cmocka_unit_test(lower_case_is_the_same_id),
        cmocka_unit_test(the_smallest_and_the_largest_id_have_texts),
        cmocka_unit_test(what_is_no_ulid_is_refused),
        cmocka_unit_test(only_the_alphabet_is_accepted_anywhere),
        cmocka_unit_test(every_digit_has_its_value_in_either_case),
        cmocka_unit_test(random_ids_survive_the_round_trip_and_keep_their_order),
        cmocka_unit_test(a_new_id_bears_its_time_and_the_environments_dice),
        cmocka_unit_test(clients_may_choose_times_of_2010_to_2099),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
