/* Goal: nobody beyond this machine gets more than the operator gave away, and no other site's page
 * changes anything through a browser on it. The whole matrix. */
#include "api/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static const struct slice no_site = {NULL, 0};

static bool allowed(enum anonymous anonymous, enum guard_access access, bool loopback)
{
    return guard_check(anonymous, access, loopback, no_site) == NULL;
}

static void strangers_get_what_the_operator_allows(void **state)
{
    static const bool expected[3][3] = {
        /*                   probe read   change */
        [ANONYMOUS_NONE] = {true, false, false},
        [ANONYMOUS_READ] = {true, true, false},
        [ANONYMOUS_WRITE] = {true, true, true},
    };

    (void)state;
    for (int mode = ANONYMOUS_NONE; mode <= ANONYMOUS_WRITE; mode++) {
        for (int access = GUARD_PROBE; access <= GUARD_CHANGE; access++) {
            assert_int_equal(allowed((enum anonymous)mode, (enum guard_access)access, false),
                             expected[mode][access]);
            assert_true(allowed((enum anonymous)mode, (enum guard_access)access, true));
        }
    }
}

static void a_refusal_names_the_way_out(void **state)
{
    const struct refusal *refusal = guard_check(ANONYMOUS_NONE, GUARD_READ, false, no_site);

    (void)state;
    assert_int_equal(refusal->status, 403);
    assert_string_equal(refusal->code, "no_access_control");
    assert_non_null(strstr(refusal->message, "--anonymous=read"));
    refusal = guard_check(ANONYMOUS_READ, GUARD_CHANGE, false, no_site);
    assert_string_equal(refusal->code, "no_access_control");
    assert_non_null(strstr(refusal->message, "--anonymous=write"));
}

static void other_sites_pages_change_nothing(void **state)
{
    static const struct {
        const char *site;
        bool refused;
    } cases[] = {{"cross-site", true},   {"Cross-Site", true}, {"same-site", false},
                 {"same-origin", false}, {"none", false},      {"", false}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct slice site = {cases[i].site, strlen(cases[i].site)};
        const struct refusal *refusal = guard_check(ANONYMOUS_WRITE, GUARD_CHANGE, true, site);

        assert_int_equal(refusal != NULL, cases[i].refused);
        if (refusal)
            assert_string_equal(refusal->code, "cross_site");
        assert_null(guard_check(ANONYMOUS_WRITE, GUARD_READ, true, site));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_get_what_the_operator_allows),
        cmocka_unit_test(a_refusal_names_the_way_out),
        cmocka_unit_test(other_sites_pages_change_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
