/* Goal: whose copies a node may rely on that leaves, who may be forgotten, and when the feature
 * level may be raised, for every standing of a member. */
#include "cluster/membership.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

enum { SELF, ALIVE, SUSPECT, FAILED, STOPPED, LEFT, FORGOTTEN, MEMBERS };

/* One of each standing; all that answer have answered at 500, and understand level 3. */
static void make_view(struct cluster_member view[MEMBERS])
{
    memset(view, 0, MEMBERS * sizeof *view);
    for (unsigned i = 0; i < MEMBERS; i++) {
        view[i].node.bytes[0] = (uint8_t)(i + 1);
        view[i].joined = i == LEFT        ? MEMBER_LEFT
                         : i == FORGOTTEN ? MEMBER_FORGOTTEN
                                          : MEMBER_JOINED;
        view[i].state = i <= ALIVE     ? PROBE_ALIVE
                        : i == SUSPECT ? PROBE_SUSPECT
                        : i == FAILED  ? PROBE_FAILED
                                       : PROBE_LEFT;
        view[i].answered_ms = 500;
        view[i].feature = 3;
    }
    view[SELF].self = true;
}

static void only_who_answers_and_stays_is_trusted(void **state)
{
    struct cluster_member view[MEMBERS];
    struct db_custody custody;

    (void)state;
    make_view(view);
    membership_trusted(view, MEMBERS, 500, &custody);
    assert_int_equal(custody.count, 1);
    assert_true(id_equal(&custody.nodes[0], &view[ALIVE].node));
    /* It answered before this node said that it leaves: it may not know. */
    membership_trusted(view, MEMBERS, 501, &custody);
    assert_int_equal(custody.count, 0);
    view[ALIVE].draining = true;
    membership_trusted(view, MEMBERS, 500, &custody);
    assert_int_equal(custody.count, 0);
}

static void others_are_all_that_have_joined(void **state)
{
    struct cluster_member view[MEMBERS];
    struct db_custody custody;

    (void)state;
    make_view(view);
    membership_others(view, MEMBERS, &view[FAILED].node, &custody);
    assert_int_equal(custody.count, 4); /* also who does not answer has its copies */
    for (size_t i = 0; i < custody.count; i++)
        assert_false(id_equal(&custody.nodes[i], &view[FAILED].node));
    membership_others(view, MEMBERS, NULL, &custody);
    assert_int_equal(custody.count, 5);
}

static void who_may_be_forgotten(void **state)
{
    static const enum forget_verdict expected[MEMBERS] = {
        [SELF] = FORGET_SELF,     [ALIVE] = FORGET_ALIVE, [SUSPECT] = FORGET_ALIVE,
        [FAILED] = FORGET_MAY,    [STOPPED] = FORGET_MAY, [LEFT] = FORGET_MAY,
        [FORGOTTEN] = FORGET_DONE};
    const struct id128 stranger = {{99}};
    struct cluster_member view[MEMBERS];

    (void)state;
    make_view(view);
    for (size_t i = 0; i < MEMBERS; i++)
        assert_int_equal(membership_forget(view, MEMBERS, &view[i].node, false), expected[i]);
    assert_int_equal(membership_forget(view, MEMBERS, &stranger, true), FORGET_UNKNOWN);
    assert_int_equal(membership_forget(view, MEMBERS, &view[ALIVE].node, true), FORGET_MAY);
    assert_int_equal(membership_forget(view, MEMBERS, &view[SELF].node, true), FORGET_SELF);
}

static void a_level_is_raised_where_all_understand_it(void **state)
{
    struct cluster_member view[2];
    const struct cluster_member *culprit;
    struct cluster_member all[MEMBERS];
    uint32_t to = 0;

    (void)state;
    make_view(all);
    memcpy(view, all, sizeof view); /* this node and one that answers */
    assert_int_equal(membership_upgrade(view, 2, 1, &to, &culprit), UPGRADE_MAY);
    assert_int_equal(to, 3);
    to = 2;
    assert_int_equal(membership_upgrade(view, 2, 1, &to, &culprit), UPGRADE_MAY);
    to = 4;
    view[ALIVE].feature = 4;
    assert_int_equal(membership_upgrade(view, 2, 1, &to, &culprit), UPGRADE_NOT_BY);
    assert_ptr_equal(culprit, &view[SELF]);
    view[SELF].feature = 5;
    assert_int_equal(membership_upgrade(view, 2, 1, &to, &culprit), UPGRADE_MAY);
    to = 5;
    assert_int_equal(membership_upgrade(view, 2, 1, &to, &culprit), UPGRADE_NOT_BY);
    assert_ptr_equal(culprit, &view[ALIVE]);
    to = 2;
    assert_int_equal(membership_upgrade(view, 2, 3, &to, &culprit), UPGRADE_LOWER);
    to = 3;
    assert_int_equal(membership_upgrade(view, 2, 3, &to, &culprit), UPGRADE_DONE);
    to = 0;
    assert_int_equal(membership_upgrade(view, 2, 4, &to, &culprit), UPGRADE_DONE);
    assert_int_equal(to, 4);
}

static void who_has_joined_and_does_not_answer_holds_it_up(void **state)
{
    const struct cluster_member *culprit;
    struct cluster_member view[MEMBERS];
    uint32_t to = 3;

    (void)state;
    make_view(view);
    for (int i = SUSPECT; i <= STOPPED; i++) {
        assert_int_equal(membership_upgrade(view, MEMBERS, 1, &to, &culprit), UPGRADE_SILENT);
        assert_ptr_equal(culprit, &view[i]);
        view[i].joined = MEMBER_FORGOTTEN; /* as the operator does who is told so */
        view[i].feature = 0;
    }
    assert_int_equal(membership_upgrade(view, MEMBERS, 1, &to, &culprit), UPGRADE_MAY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_who_answers_and_stays_is_trusted),
        cmocka_unit_test(others_are_all_that_have_joined),
        cmocka_unit_test(who_may_be_forgotten),
        cmocka_unit_test(a_level_is_raised_where_all_understand_it),
        cmocka_unit_test(who_has_joined_and_does_not_answer_holds_it_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
