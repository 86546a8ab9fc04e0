/* Goal: of two puts of different bytes under one id no acknowledged byte vanishes. What lost
 * becomes an object of its own on every node, the same one whoever made it and in whatever order
 * they heard; and a delete takes it along. */
#include "tests/unit/conflict_fixture.h"

#include "journal/db_merge.h"

static void both_bodies_stay(struct nodes *nodes, size_t size)
{
    struct object *object, *lost;
    struct id128 id = loser_id(1, size);

    put_both(nodes, size);
    assert_int_equal(find(nodes->a, THE, &lost), 0);
    sync_to(nodes->b, nodes->a); /* the loser arrives */
    expect_winner(nodes->b, 2, size, true);
    assert_int_equal(losers(nodes->b), 0);
    assert_int_equal(stats_of(nodes->b).conflicts, 1);
    sync_to(nodes->a, nodes->b); /* what is here is beaten */
    expect_winner(nodes->a, 2, size, false);
    assert_int_equal(losers(nodes->a), 1);
    assert_int_equal(stats_of(nodes->a).loser_bytes, size);
    assert_int_equal(stats_of(nodes->a).conflicts, 1);
    expect_none(nodes->a, 1, size);
    expect_sound(nodes->a, NULL);

    converge(nodes);
    assert_int_equal(stats_of(nodes->a).reputs, 1);
    assert_int_equal(stats_of(nodes->b).reputs, 0);
    expect_loser(nodes->a, 1, size, true);
    for (int i = 0; i < nodes->count; i++) {
        expect_winner(nodes->at[i], 2, size, i == 1);
        expect_loser(nodes->at[i], 1, size, i == 0);
        assert_int_equal(find_id(nodes->at[i], &id, &object), 0);
        assert_int_equal(object->level, 1);
        assert_true(object->put_at.stamp == lost->put_at.stamp);
        assert_int_equal(object->name_len, 5);
        assert_memory_equal(object_name(object).ptr, "a.txt", 5);
        assert_int_equal(object->type_len, 8);
        assert_memory_equal(object_type(object).ptr, "text/odd", 8);
        assert_int_equal(object->user_meta_len, 9);
        object_destroy(&object);
    }
    object_destroy(&lost);
}

static void both_bodies_stay_in_segments(void **state)
{
    both_bodies_stay(*state, SMALL);
}

static void both_bodies_stay_in_files(void **state)
{
    both_bodies_stay(*state, LARGE);
}

static void an_empty_body_is_a_body(void **state)
{
    struct nodes *nodes = *state;

    rank(nodes->a, 1);
    rank(nodes->b, 2);
    assert_int_equal(put_bytes(nodes->a, 1, 0, 0), 0);
    assert_int_equal(put_bytes(nodes->b, 2, SMALL, 0), 0);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(losers(nodes->a), 1);
    converge(nodes);
    expect_loser(nodes->a, 1, 0, true);
    expect_loser(nodes->b, 1, 0, false);
}

/* In whatever order three puts meet. */
static void of_three_two_lose(void **state)
{
    struct nodes *nodes = *state;

    for (int i = 0; i < nodes->count; i++) {
        rank(nodes->at[i], (unsigned)i + 1);
        assert_int_equal(put_bytes(nodes->at[i], (unsigned)i + 1, SMALL, 0), 0);
    }
    sync_to(nodes->a, nodes->c); /* the highest first: the second arrives as a loser */
    sync_to(nodes->a, nodes->b);
    sync_to(nodes->b, nodes->a); /* the lowest and the highest */
    sync_to(nodes->c, nodes->b);
    assert_int_equal(losers(nodes->a), 1);
    assert_int_equal(losers(nodes->b), 1);
    assert_int_equal(losers(nodes->c), 0);
    converge(nodes);
    for (int i = 0; i < nodes->count; i++) {
        expect_winner(nodes->at[i], 3, SMALL, i == 2);
        expect_loser(nodes->at[i], 1, SMALL, i == 0);
        expect_loser(nodes->at[i], 2, SMALL, i == 1);
    }
}

/* A holds what it put, then a copy of what beat it, which is beaten as well. */
static void a_node_loses_twice_under_one_id(void **state)
{
    struct nodes *nodes = *state;

    for (int i = 0; i < nodes->count; i++) {
        rank(nodes->at[i], (unsigned)i + 1);
        assert_int_equal(put_bytes(nodes->at[i], (unsigned)i + 1, SMALL, 2), 0);
    }
    withhold(nodes->a, true);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(hold_bytes(nodes->a, 2, SMALL), 0);
    assert_int_equal(hold_bytes(nodes->a, 1, SMALL), ERR_CONFLICT); /* they are kept already */
    sync_to(nodes->a, nodes->c);
    assert_int_equal(losers(nodes->a), 2);
    reopen(nodes->a, false);
    assert_int_equal(losers(nodes->a), 2);
    withhold(nodes->a, true);
    rebuild(nodes->a);
    assert_int_equal(losers(nodes->a), 2);
    expect_sound(nodes->a, NULL);
    converge(nodes);
    assert_int_equal(stats_of(nodes->a).reputs, 2);
    expect_loser(nodes->a, 1, SMALL, true);
    expect_loser(nodes->a, 2, SMALL, true);
    expect_loser(nodes->b, 2, SMALL, true); /* it held it, too */
}

/* Several nodes hold what lost, and each puts it again before it hears of the others. */
static void whoever_holds_it_makes_the_same(void **state)
{
    struct nodes *nodes = *state;
    struct id128 id = loser_id(1, SMALL);
    struct object *object;

    put_both(nodes, SMALL);
    sync_to(nodes->c, nodes->a);
    assert_int_equal(hold_bytes(nodes->c, 1, SMALL), 0);
    sync_to(nodes->c, nodes->b);
    sync_to(nodes->a, nodes->b);
    upkeep(nodes->a);
    upkeep(nodes->c);
    assert_int_equal(stats_of(nodes->a).reputs + stats_of(nodes->c).reputs, 2);
    converge(nodes);
    expect_loser(nodes->a, 1, SMALL, true);
    expect_loser(nodes->c, 1, SMALL, true);
    for (int i = 0; i < nodes->count; i++)
        assert_int_equal(stats_of(nodes->at[i]).conflicts, 1); /* not one more by that */

    /* A third put of it is none: the copy stays, and only that is said. */
    assert_int_equal(find_id(nodes->b, &id, &object), 0);
    object_destroy(&object);
}

static void after_anothers_put_it_is_a_hold(void **state)
{
    struct nodes *nodes = *state;

    put_both(nodes, SMALL);
    sync_to(nodes->c, nodes->a);
    assert_int_equal(hold_bytes(nodes->c, 1, SMALL), 0);
    sync_to(nodes->c, nodes->b);
    withhold(nodes->c, true);
    sync_to(nodes->a, nodes->b);
    upkeep(nodes->a);
    sync_to(nodes->c, nodes->a);
    expect_loser(nodes->c, 1, SMALL, false);
    assert_int_equal(losers(nodes->c), 1);
    withhold(nodes->c, false);

    struct id128 id = loser_id(1, SMALL), holders[4], node = journal_node(nodes->c->journal);
    struct object *object;
    struct db_reader *reader;
    size_t count;

    upkeep(nodes->c);
    expect_loser(nodes->c, 1, SMALL, true);
    sync_to(nodes->a, nodes->c);
    assert_int_equal(find_id(nodes->a, &id, &object), 0);
    struct id128 author = stats_of(nodes->a).origin;
    assert_true(id_equal(&object->put_at.origin, &author));
    assert_int_equal(journal_reader_open(nodes->a->journal, &reader), 0);
    assert_int_equal(db_reader_holders(reader, object, holders, 4, &count), 0);
    assert_int_equal(count, 2);
    assert_true(id_equal(&holders[1], &node));
    db_reader_close(&reader);
    object_destroy(&object);
    converge(nodes);
}

static void a_delete_takes_along_what_is_hidden(void **state)
{
    struct nodes *nodes = *state;

    put_both(nodes, LARGE);
    withhold(nodes->a, true);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(losers(nodes->a), 1);
    assert_int_equal(large_files(nodes->a), 1);
    assert_int_equal(delete (nodes->b, THE), 0);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(losers(nodes->a), 0);
    expect_sound(nodes->a, NULL);
    withhold(nodes->a, false);
    settle(nodes->a);
    assert_int_equal(large_files(nodes->a), 0);
    converge(nodes);
    for (int i = 0; i < nodes->count; i++) {
        expect_deleted(nodes->at[i], THE);
        expect_none(nodes->at[i], 1, LARGE);
    }
}

static int is_later(void *arg, uint64_t file, lsn_t freed_at)
{
    lsn_t *last = arg;

    (void)file;
    assert_true(freed_at > *last);
    *last = freed_at;
    return 0;
}

/* All that lost: each in a file of its own. */
static void a_delete_frees_every_file_that_lost(void **state)
{
    struct nodes *nodes = *state;
    struct id128 id = the_id();

    withhold(nodes->a, true);
    for (unsigned i = 0; i < 3; i++) {
        rank(nodes->at[i], i + 1);
        assert_int_equal(put_bytes(nodes->at[i], i + 1, LARGE, 0), 0);
    }
    rank(nodes->b, 2);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(hold_bytes(nodes->a, 2, LARGE), 0);
    sync_to(nodes->a, nodes->c);
    assert_int_equal(losers(nodes->a), 2);
    assert_int_equal(large_files(nodes->a), 2);
    assert_int_equal(delete_id(nodes->a, &id), 0);
    assert_int_equal(losers(nodes->a), 0);
    /* Who removes a page of it removes all of one position. */
    lsn_t last = 0;
    struct db_reader *reader;

    assert_int_equal(journal_reader_open(nodes->a->journal, &reader), 0);
    assert_int_equal(db_each_garbage(reader, 0, LSN_LIMIT, 10, is_later, &last), 0);
    assert_true(last > 0);
    db_reader_close(&reader);
    settle(nodes->a);
    assert_int_equal(large_files(nodes->a), 0);
    reopen(nodes->a, true);
    settle(nodes->a);
    assert_int_equal(large_files(nodes->a), 0);
}

/* The committer decides: what the janitor has read meanwhile comes too late. */
static void a_delete_that_was_acknowledged_comes_before_the_put(void **state)
{
    struct nodes *nodes = *state;
    struct id128 id = the_id();
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = id}, .done = done};

    put_both(nodes, SMALL);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(losers(nodes->a), 1);
    assert_int_equal(journal_submit(nodes->a->journal, &change), 0);
    journal_upkeep_step(nodes->a->journal); /* the put queues up behind it */
    assert_int_equal(atomic_load(&nodes->a->journal->reput.in_flight), 1);
    assert_int_equal(journal_commit_step(nodes->a->journal), 2);
    object_destroy(&change.object);
    assert_int_equal(losers(nodes->a), 0);
    expect_none(nodes->a, 1, SMALL);
    assert_int_equal(stats_of(nodes->a).reputs, 0);
    converge(nodes);
}

static void what_was_put_again_is_an_object_of_its_own(void **state)
{
    struct nodes *nodes = *state;
    struct id128 id = loser_id(1, SMALL);

    put_both(nodes, SMALL);
    sync_to(nodes->a, nodes->b);
    converge(nodes);
    assert_int_equal(delete (nodes->b, THE), 0);
    converge(nodes);
    expect_loser(nodes->a, 1, SMALL, true);
    assert_int_equal(delete_id(nodes->b, &id), 0);
    converge(nodes);

    /* Deleted it stays, whoever comes with it later. */
    struct object *object;

    assert_int_equal(find_id(nodes->a, &id, &object), 0);
    assert_true(object->flags & OBJECT_DELETED);
    object_destroy(&object);
}

static void an_id_deleted_beforehand_gets_nothing(void **state)
{
    struct nodes *nodes = *state;
    struct id128 id = loser_id(1, LARGE);

    assert_int_equal(delete_id(nodes->b, &id), 0);
    sync_to(nodes->a, nodes->b);
    put_both(nodes, LARGE);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(losers(nodes->a), 0);
    settle(nodes->a);
    assert_int_equal(large_files(nodes->a), 0);
    converge(nodes);
}

/* Somebody made the id his own that is meant for what lost: before, or while it is owed. */
static void a_taken_id_is_passed_over(struct nodes *nodes, bool before)
{
    struct id128 first = loser_id(1, SMALL), second;
    uint8_t body[SMALL], sha[SHA256_BYTES];
    struct change change;

    make_body(body, SMALL, 1);
    sha256(body, SMALL, sha);
    second = conflict_id(&first, sha);
    put_both(nodes, SMALL);
    if (!before)
        sync_to(nodes->a, nodes->b);
    make_body(body, SMALL, 9);
    prepare_put(&change, THE, body, SMALL);
    change.request.id = first;
    assert_int_equal(commit(nodes->a, &change), 0);
    sync_to(nodes->a, nodes->b);
    assert_int_equal(losers(nodes->a), 1);
    converge(nodes);
    expect_bytes(nodes->a, &first, 9, SMALL, true);
    expect_bytes(nodes->a, &second, 1, SMALL, true);
    expect_bytes(nodes->b, &second, 1, SMALL, false);
}

static void an_id_that_is_taken_is_passed_over(void **state)
{
    a_taken_id_is_passed_over(*state, true);
}

static void an_id_that_is_taken_meanwhile_is_passed_over(void **state)
{
    a_taken_id_is_passed_over(*state, false);
}

/* TO takes over FROM's rows without the events that made them, as whoever was away for long does.
 */
static void merge_to(struct node *to, struct node *from)
{
    static const struct id128 first;
    struct db_reader *reader;
    struct id128 next;
    struct buf data;

    apply(from);
    buf_init(&data, 0);
    assert_int_equal(journal_reader_open(from->journal, &reader), 0);
    assert_int_equal(db_merge_rows(reader, &first, &db_last_id, &data, &next), 0);
    assert_true(id_equal(&next, &db_last_id)); /* all in one */
    struct change change = {.request.kind = CHANGE_MERGE,
                            .events = (const uint8_t *)data.data,
                            .events_bytes = data.len,
                            .done = done};

    assert_int_equal(journal_submit(to->journal, &change), 0);
    assert_int_equal(journal_commit_step(to->journal), 1);
    assert_int_equal(change.rc, 0);
    db_reader_close(&reader);
    buf_release(&data);
    apply(to);
}

static void what_loses_against_a_merged_row_stays(struct nodes *nodes, size_t size)
{
    put_both(nodes, size);
    withhold(nodes->a, true);
    merge_to(nodes->a, nodes->b);
    expect_winner(nodes->a, 2, size, false);
    assert_int_equal(losers(nodes->a), 1);
    expect_sound(nodes->a, NULL);
    rebuild(nodes->a);
    assert_int_equal(losers(nodes->a), 1);
    withhold(nodes->a, false);
    converge(nodes);
    expect_loser(nodes->a, 1, size, true);
    expect_loser(nodes->b, 1, size, false);
    expect_winner(nodes->b, 2, size, true);
}

static void what_loses_against_a_merged_row_stays_in_segments(void **state)
{
    what_loses_against_a_merged_row_stays(*state, SMALL);
}

static void what_loses_against_a_merged_row_stays_in_files(void **state)
{
    what_loses_against_a_merged_row_stays(*state, LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(both_bodies_stay_in_segments),
        TEST(both_bodies_stay_in_files),
        TEST(an_empty_body_is_a_body),
        TEST3(of_three_two_lose),
        TEST3(a_node_loses_twice_under_one_id),
        TEST3(whoever_holds_it_makes_the_same),
        TEST3(after_anothers_put_it_is_a_hold),
        TEST(a_delete_takes_along_what_is_hidden),
        TEST3(a_delete_frees_every_file_that_lost),
        TEST(a_delete_that_was_acknowledged_comes_before_the_put),
        TEST(what_was_put_again_is_an_object_of_its_own),
        TEST(an_id_deleted_beforehand_gets_nothing),
        TEST(an_id_that_is_taken_is_passed_over),
        TEST(an_id_that_is_taken_meanwhile_is_passed_over),
        TEST(what_loses_against_a_merged_row_stays_in_segments),
        TEST(what_loses_against_a_merged_row_stays_in_files),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
