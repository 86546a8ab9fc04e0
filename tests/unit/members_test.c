/* Goal: every node that has the same member facts has the same table, in whatever order, and
 * however often, it heard of them. */
#include "cluster/members.h"

#include "base/limits.h"
#include "journal/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(s) ((struct text){s, sizeof(s) - 1})

static struct id128 node_id(uint32_t number)
{
    /* Spread, so that insertions hit all places of the table. */
    uint32_t mixed = number * 2654435761u;

    return (struct id128){{(uint8_t)(mixed >> 24), (uint8_t)(mixed >> 16), (uint8_t)(mixed >> 8),
                           (uint8_t)mixed, (uint8_t)(number >> 8), (uint8_t)number, 1}};
}

static struct event fact(uint32_t node, enum member_state state, struct text address,
                         hlc_time stamp, uint8_t origin)
{
    return (struct event){.kind = EVENT_MEMBER,
                          .fields = EVENT_HAS_MEMBER,
                          .stamp = stamp,
                          .origin = {{origin}},
                          .subject = node_id(node),
                          .member_state = (uint8_t)state,
                          .address = address};
}

static struct members *create(void)
{
    struct members *members;

    assert_int_equal(members_create(&members), 0);
    return members;
}

static bool fold(struct members *members, struct event event)
{
    bool changed;

    assert_int_equal(members_fold(members, &event, &changed), 0);
    return changed;
}

static void a_node_joins_moves_leaves_and_is_forgotten(void **state)
{
    struct members *members = create();
    struct id128 one = node_id(1), two = node_id(2);

    (void)state;
    assert_null(members_find(members, &one));
    assert_true(fold(members, fact(1, MEMBER_JOINED, TEXT("a:1"), 10, 1)));
    assert_true(fold(members, fact(2, MEMBER_JOINED, TEXT("b:1"), 11, 1)));
    assert_int_equal(members_joined(members), 2);
    assert_string_equal(members_find(members, &one)->address, "a:1");

    assert_true(fold(members, fact(1, MEMBER_JOINED, TEXT("c:2"), 12, 1)));
    assert_string_equal(members_find(members, &one)->address, "c:2");
    assert_int_equal(members_joined(members), 2);

    assert_true(fold(members, fact(1, MEMBER_LEFT, TEXT(""), 13, 1)));
    assert_int_equal(members_find(members, &one)->state, MEMBER_LEFT);
    assert_string_equal(members_find(members, &one)->address, "");
    assert_true(fold(members, fact(2, MEMBER_FORGOTTEN, TEXT("b:1"), 14, 1)));
    assert_int_equal(members_find(members, &two)->state, MEMBER_FORGOTTEN);
    assert_int_equal(members_joined(members), 0);
    assert_int_equal(members_count(members), 2);
    members_destroy(&members);
    assert_null(members);
    members_destroy(&members);
}

static void the_last_writer_decides_by_stamp_then_origin(void **state)
{
    struct members *members = create();
    struct id128 one = node_id(1);

    (void)state;
    assert_true(fold(members, fact(1, MEMBER_LEFT, TEXT("a:1"), 20, 5)));
    assert_false(fold(members, fact(1, MEMBER_JOINED, TEXT("a:1"), 19, 9)));
    assert_false(fold(members, fact(1, MEMBER_JOINED, TEXT("a:1"), 20, 4)));
    assert_int_equal(members_find(members, &one)->state, MEMBER_LEFT);
    struct event later = fact(1, MEMBER_JOINED, TEXT("a:2"), 20, 6);
    assert_int_equal(members_fold(members, &later, NULL), 0);
    assert_string_equal(members_find(members, &one)->address, "a:2");
    assert_int_equal(members_find(members, &one)->at.stamp, 20);
    assert_int_equal(members_find(members, &one)->at.origin.bytes[0], 6);
    assert_false(fold(members, fact(1, MEMBER_JOINED, TEXT("a:2"), 20, 6)));
    members_destroy(&members);
}

static void what_is_no_member_fact_changes_nothing(void **state)
{
    struct members *members = create();
    struct event put = fact(1, MEMBER_JOINED, TEXT("a:1"), 1, 1);
    struct event nobody = put;
    struct event no_state = fact(1, (enum member_state)0, TEXT("a:1"), 1, 1);
    struct event bad_state = fact(1, (enum member_state)4, TEXT("a:1"), 1, 1);
    char many[MEMBER_ADDRESS_BYTES + 1];
    bool changed = true;

    (void)state;
    struct event freeze = put;
    put.kind = EVENT_PUT;
    freeze.kind = EVENT_FREEZE;
    assert_false(fold(members, freeze));
    memset(&nobody.subject, 0, sizeof nobody.subject);
    assert_false(fold(members, put));
    assert_false(fold(members, nobody));
    assert_int_equal(members_fold(members, &no_state, &changed), ERR_INVALID);
    assert_false(changed);
    assert_int_equal(members_fold(members, &bad_state, NULL), ERR_INVALID);
    memset(many, 'a', sizeof many);
    struct event long_one = fact(1, MEMBER_JOINED, (struct text){many, sizeof many}, 1, 1);
    assert_int_equal(members_fold(members, &long_one, NULL), ERR_INVALID);
    assert_int_equal(members_count(members), 0);

    long_one.address.len = MEMBER_ADDRESS_BYTES;
    assert_true(fold(members, long_one));
    assert_int_equal(strlen(members_at(members, 0)->address), MEMBER_ADDRESS_BYTES);
    members_destroy(&members);
}

static void a_full_table_refuses_new_nodes_and_still_learns_of_known_ones(void **state)
{
    struct members *members = create();
    struct event more = fact(LIMIT_MEMBER_ROWS, MEMBER_JOINED, TEXT("z:1"), 1, 1);
    bool changed;

    (void)state;
    for (uint32_t i = 0; i < LIMIT_MEMBER_ROWS; i++)
        assert_true(fold(members, fact(i, MEMBER_FORGOTTEN, TEXT("a:1"), 1, 1)));
    assert_int_equal(members_fold(members, &more, &changed), ERR_FULL);
    assert_false(changed);
    assert_int_equal(members_count(members), LIMIT_MEMBER_ROWS);
    assert_true(fold(members, fact(7, MEMBER_JOINED, TEXT("a:2"), 2, 1)));
    assert_int_equal(members_joined(members), 1);
    for (size_t i = 1; i < members_count(members); i++)
        assert_true(id_compare(&members_at(members, i - 1)->node, &members_at(members, i)->node) <
                    0);
    members_destroy(&members);
}

static void a_stored_row_is_no_stronger_than_the_fact_it_came_from(void **state)
{
    struct members *members = create(), *restored = create();
    struct id128 one = node_id(1);
    struct member broken;
    bool changed;

    (void)state;
    fold(members, fact(1, MEMBER_LEFT, TEXT("a:1"), 20, 5));
    fold(members, fact(2, MEMBER_JOINED, TEXT("b:1"), 21, 5));
    fold(restored, fact(1, MEMBER_JOINED, TEXT("new:1"), 22, 5));
    for (size_t i = 0; i < members_count(members); i++)
        assert_int_equal(members_set(restored, members_at(members, i), &changed), 0);
    assert_string_equal(members_find(restored, &one)->address, "new:1");
    assert_int_equal(members_joined(restored), 2);
    assert_int_equal(members_count(restored), 2);

    broken = *members_at(members, 0);
    memset(broken.address, 'x', sizeof broken.address); /* no end */
    assert_int_equal(members_set(restored, &broken, NULL), ERR_INVALID);
    members_destroy(&members);
    members_destroy(&restored);
}

static void assert_same(const struct members *a, const struct members *b)
{
    assert_int_equal(members_count(a), members_count(b));
    assert_int_equal(members_joined(a), members_joined(b));
    for (size_t i = 0; i < members_count(a); i++) {
        const struct member *x = members_at(a, i), *y = members_at(b, i);

        assert_true(id_equal(&x->node, &y->node));
        assert_int_equal(x->state, y->state);
        assert_int_equal(reg_compare(&x->at, &y->at), 0);
        assert_string_equal(x->address, y->address);
    }
}

/* Few nodes, stamps and origins, so that ties (also those of a broken node that says two things
 * under one stamp) are frequent; joined is checked against a count of its own. */
static void any_order_and_repetition_gives_the_same_table(void **state)
{
    enum { FACTS = 60, SEEDS = 300, SHUFFLES = 4 };
    static const char *const addresses[] = {"a:1", "b:2", "b:22", ""};
    struct event facts[FACTS];

    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct members *first = create();
        size_t joined = 0;

        srand(seed);
        for (int i = 0; i < FACTS; i++) {
            const char *address = addresses[rand() % 4];

            facts[i] = fact((uint32_t)(rand() % 12), (enum member_state)(1 + rand() % 3),
                            (struct text){address, (uint32_t)strlen(address)},
                            (hlc_time)(1 + rand() % 4), (uint8_t)(1 + rand() % 2));
            fold(first, facts[i]);
        }
        for (size_t i = 0; i < members_count(first); i++)
            joined += members_at(first, i)->state == MEMBER_JOINED;
        assert_int_equal(members_joined(first), joined);
        for (int round = 0; round < SHUFFLES; round++) {
            struct members *other = create();

            for (int i = FACTS - 1; i > 0; i--) {
                int j = rand() % (i + 1);
                struct event swap = facts[i];

                facts[i] = facts[j];
                facts[j] = swap;
            }
            for (int i = 0; i < FACTS; i++) {
                fold(other, facts[i]);
                fold(other, facts[rand() % (i + 1)]);
            }
            assert_same(first, other);
            for (int i = 0; i < FACTS; i++)
                assert_false(fold(other, facts[i]));
            members_destroy(&other);
        }
        members_destroy(&first);
    }
}

static void states_have_names(void **state)
{
    (void)state;
    assert_string_equal(member_state_name(MEMBER_JOINED), "joined");
    assert_string_equal(member_state_name(MEMBER_LEFT), "left");
    assert_string_equal(member_state_name(MEMBER_FORGOTTEN), "forgotten");
    assert_string_equal(member_state_name(0), "unknown");
    assert_string_equal(member_state_name(4), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_node_joins_moves_leaves_and_is_forgotten),
        cmocka_unit_test(the_last_writer_decides_by_stamp_then_origin),
        cmocka_unit_test(what_is_no_member_fact_changes_nothing),
        cmocka_unit_test(a_full_table_refuses_new_nodes_and_still_learns_of_known_ones),
        cmocka_unit_test(a_stored_row_is_no_stronger_than_the_fact_it_came_from),
        cmocka_unit_test(any_order_and_repetition_gives_the_same_table),
        cmocka_unit_test(states_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
