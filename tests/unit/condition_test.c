/* Goal: a precondition is true of exactly the rows that RFC 9110 §13.1 says, in the order of
 * §13.2.2. */
#include "journal/condition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#define PUT_S UINT64_C(784111777)

/* What stands there: nothing (three ways), or bytes of the hash 5 put at PUT_S and some ms. */
enum { UNKNOWN, PARTIAL, TOMBSTONE, LIVE, ROWS };

static const struct object *row_of(int which)
{
    static struct object rows[ROWS];
    struct object *row = &rows[which];

    memset(row, 0, sizeof *row);
    row->flags = which == PARTIAL     ? OBJECT_CLOUD
                 : which == TOMBSTONE ? OBJECT_DELETED
                                      : OBJECT_PUT | OBJECT_UPLOADED;
    if (which == LIVE) {
        struct hlc clock = {0};

        row->sha256[0] = 5;
        row->put_at.stamp = hlc_stamp(&clock, PUT_S * 1000 + 999, 0);
    }
    return which == UNKNOWN ? NULL : row;
}

#define ANY                                                                                        \
    {                                                                                              \
        .sent = true, .any = true                                                                  \
    }
#define NO_OTHER                                                                                   \
    {                                                                                              \
        .sent = true                                                                               \
    }
#define TAGS(a, b)                                                                                 \
    {                                                                                              \
        .sent = true, .count = 2, .sha256 = { {a}, {b} }                                           \
    }

static void each_condition_holds_where_it_should(void **state)
{
    static const struct {
        struct condition condition;
        bool of_nothing, of_live;
    } cases[] = {
        {{.has_unmodified_since = false}, true, true},
        {{.match = ANY}, false, true},
        {{.match = TAGS(5, 6)}, false, true},
        {{.match = TAGS(6, 5)}, false, true},
        {{.match = TAGS(6, 7)}, false, false},
        {{.match = TAGS(0, 0)}, false, false}, /* nothing has no hash of zero */
        {{.match = NO_OTHER}, false, false},   /* tags that cannot be ours */
        {{.none_match = ANY}, true, false},
        {{.none_match = TAGS(5, 6)}, true, false},
        {{.none_match = TAGS(6, 7)}, true, true},
        {{.none_match = TAGS(0, 0)}, true, true},
        {{.none_match = NO_OTHER}, true, true},
        {{.has_unmodified_since = true, .unmodified_since_s = PUT_S}, true, true},
        {{.has_unmodified_since = true, .unmodified_since_s = PUT_S + 1}, true, true},
        {{.has_unmodified_since = true, .unmodified_since_s = PUT_S - 1}, true, false},
        /* If-Match goes before the date, If-None-Match comes besides. */
        {{.match = ANY, .has_unmodified_since = true}, false, true},
        {{.match = TAGS(6, 7), .has_unmodified_since = true, .unmodified_since_s = PUT_S},
         false,
         false},
        {{.none_match = TAGS(6, 7), .has_unmodified_since = true}, true, false},
        {{.none_match = ANY, .has_unmodified_since = true, .unmodified_since_s = PUT_S},
         true,
         false},
        {{.match = TAGS(5, 6), .none_match = TAGS(5, 6)}, false, false},
        {{.match = TAGS(5, 6), .none_match = TAGS(6, 7)}, false, true},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int which = 0; which < ROWS; which++) {
            bool expected = which == LIVE ? cases[i].of_live : cases[i].of_nothing;

            if (condition_holds(&cases[i].condition, row_of(which)) != expected)
                fail_msg("case %zu, row %d: not %d", i, which, expected);
        }
    }
    for (int which = 0; which < ROWS; which++)
        assert_true(condition_holds(NULL, row_of(which)));
}

static void a_full_list_is_read_to_its_end(void **state)
{
    struct condition condition = {.match = {.sent = true, .count = LIMIT_CONDITION_TAGS}};

    (void)state;
    for (unsigned i = 0; i < LIMIT_CONDITION_TAGS; i++)
        condition.match.sha256[i][0] = (uint8_t)(100 + i);
    assert_false(condition_holds(&condition, row_of(LIVE)));
    condition.match.sha256[LIMIT_CONDITION_TAGS - 1][0] = 5;
    assert_true(condition_holds(&condition, row_of(LIVE)));
    condition.match.count--; /* what lies behind the end is no tag of it */
    assert_false(condition_holds(&condition, row_of(LIVE)));
    condition.match.count++;
    condition.match.sha256[LIMIT_CONDITION_TAGS - 1][31] = 1; /* all of its bytes count */
    assert_false(condition_holds(&condition, row_of(LIVE)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_condition_holds_where_it_should),
        cmocka_unit_test(a_full_list_is_read_to_its_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
