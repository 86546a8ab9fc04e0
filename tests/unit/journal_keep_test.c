/* Goal: what lost under its id is kept wherever it is held, through crashes, cleaning, compaction
 * and rebuilds, until it is an object of its own; and then its old place is free. */
#include "tests/unit/conflict_fixture.h"

/* Killed at every step between the loss and the end. */
static void a_crash_anywhere_loses_nothing(struct nodes *nodes, size_t size)
{
    struct node *a = nodes->a;

    put_both(nodes, size);
    withhold(a, true);
    sync_to(a, nodes->b);
    reopen(a, false);
    assert_int_equal(losers(a), 1);
    expect_sound(a, NULL);
    for (int steps = 1; steps < 6; steps++) { /* the change may be queued, or a file half copied */
        withhold(a, false);
        for (int i = 0; i < steps && losers(a); i++)
            journal_upkeep_step(a->journal);
        /* What is queued is freed by its answer: none comes after a kill. */
        while (journal_commit_step(a->journal))
            ;
        reopen(a, false);
        withhold(a, true);
        expect_sound(a, NULL);
    }
    withhold(a, false);
    upkeep(a);
    assert_int_equal(losers(a), 0);
    expect_loser(a, 1, size, true);
    reopen(a, false);
    upkeep(a);
    expect_loser(a, 1, size, true);
    assert_int_equal(stats_of(a).reputs, 0);
    settle(a);
    if (size > LIMIT_INLINE_BODY_BYTES)
        assert_int_equal(large_files(a), 1);
    converge(nodes);
}

static void a_crash_anywhere_loses_nothing_in_segments(void **state)
{
    a_crash_anywhere_loses_nothing(*state, SMALL);
}

static void a_crash_anywhere_loses_nothing_in_files(void **state)
{
    a_crash_anywhere_loses_nothing(*state, LARGE);
}

static void cleaning_takes_along_what_lost(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;

    put_both(nodes, SMALL);
    withhold(a, true);
    sync_to(a, nodes->b);
    struct place before = place_of_loser(a, SMALL);

    make_garbage(a, 100, 130);
    settle(a);
    struct place after = place_of_loser(a, SMALL);

    assert_true(stats_of(a).cleaned_segments > 0);
    assert_int_not_equal(before.volume, after.volume);
    expect_sound(a, NULL);
    reopen(a, false);
    withhold(a, true);
    after = place_of_loser(a, SMALL);
    rebuild(a);
    withhold(a, true);
    before = place_of_loser(a, SMALL);
    assert_true(place_equal(&before, &after));
    expect_sound(a, NULL);

    withhold(a, false);
    converge(nodes);
    expect_loser(a, 1, SMALL, true);
    rebuild(a);
    converge(nodes);
    expect_loser(a, 1, SMALL, true);
}

static void what_is_an_object_of_its_own_leaves_its_old_place_free(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;
    char path[160];

    put_both(nodes, SMALL);
    sync_to(a, nodes->b);
    struct place before = place_of_loser(a, SMALL);

    upkeep(a);
    make_garbage(a, 100, 130);
    settle(a);
    snprintf(path, sizeof path, "%s/log/%08x.seg", a->files, before.volume);
    assert_int_equal(access(path, F_OK), -1);
    reopen(a, true);
    expect_loser(a, 1, SMALL, true);
    expect_sound(a, NULL);
}

/* The loss may not be in SQLite yet when cleaning comes to the record. */
static void cleaning_knows_of_a_loss_that_is_not_applied_yet(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;
    struct db_origin *origins;
    struct db_reader *reader;
    struct buf events;
    char path[160];
    size_t count;

    put_both(nodes, SMALL);
    make_garbage(a, 100, 45); /* one segment can be cleaned: the one that it is in */
    apply(nodes->b);
    buf_init(&events, 0);
    assert_int_equal(journal_reader_open(nodes->b->journal, &reader), 0);
    assert_int_equal(db_reader_origins(reader, &origins, &count), 0);
    assert_int_equal(db_each_event(reader, origins[0].no, 1, append_event, &events), 0);
    free(origins);
    db_reader_close(&reader);
    struct change change = {.request.kind = CHANGE_PEER,
                            .events = (const uint8_t *)events.data,
                            .events_bytes = events.len,
                            .done = done};

    withhold(a, true);
    assert_int_equal(journal_submit(a->journal, &change), 0);
    assert_int_equal(journal_commit_step(a->journal), 1);
    for (int i = 0; i < 20; i++) { /* all records are moved, and nothing is applied */
        journal_upkeep_step(a->journal);
        journal_commit_step(a->journal);
    }
    assert_true(stats_of(a).moved_records > 0);
    buf_release(&events);
    settle(a);
    snprintf(path, sizeof path, "%s/log/%08x.seg", a->files, 1u);
    assert_int_equal(access(path, F_OK), -1);
    expect_sound(a, NULL);
    reopen(a, true);
    upkeep(a);
    expect_loser(a, 1, SMALL, true);
    expect_sound(a, NULL);
}

/* A copy's event does not say what the object was called: its record stays until that is done. */
static void a_segment_with_a_copy_that_lost_stays(struct nodes *nodes, size_t size)
{
    struct node *c = nodes->c;

    put_both(nodes, size);
    sync_to(c, nodes->a);
    assert_int_equal(hold_bytes(c, 1, size), 0);
    sync_to(c, nodes->b);
    withhold(c, true);
    struct place before = place_of_loser(c, size);

    make_garbage(c, 100, 130);
    settle(c);
    struct place after = place_of_loser(c, size);

    assert_true(place_equal(&before, &after));
    rebuild(c);
    assert_int_equal(losers(c), 1);
    upkeep(c);
    expect_loser(c, 1, size, true);
    c->later_ms += 3600 * 1000;
    settle(c);
    assert_true(stats_of(c).cleaned_segments > 0);
    reopen(c, true);
    expect_loser(c, 1, size, true);
    converge(nodes);
}

static void a_segment_with_a_copy_that_lost_stays_for_it(void **state)
{
    a_segment_with_a_copy_that_lost_stays(*state, SMALL);
}

static void a_segment_with_the_copy_of_a_file_that_lost_stays(void **state)
{
    a_segment_with_a_copy_that_lost_stays(*state, LARGE);
}

/* It may read well another time; and a batch with a bad body would not count after a crash. */
static void a_damaged_body_that_lost_does_not_move(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;
    char path[160];

    put_both(nodes, SMALL);
    withhold(a, true);
    sync_to(a, nodes->b);
    struct place place = place_of_loser(a, SMALL);

    snprintf(path, sizeof path, "%s/log/%08x.seg", a->files, place.volume);
    FILE *file = fopen(path, "r+");

    assert_non_null(file);
    assert_int_equal(fseek(file, (long)place.offset + 2000, SEEK_SET), 0);
    int byte = fgetc(file);

    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    assert_int_equal(fputc(byte ^ 1, file), byte ^ 1);
    assert_int_equal(fclose(file), 0);
    make_garbage(a, 100, 45);
    settle(a);
    assert_true(stats_of(a).moved_records > 0);
    assert_int_equal(access(path, F_OK), 0);
    withhold(a, false);
    upkeep(a);
    assert_int_equal(losers(a), 1);
    expect_none(a, 1, SMALL);
    reopen(a, false);
    assert_int_equal(losers(a), 1);
    expect_sound(a, NULL);
}

static void a_snapshot_has_what_lost(struct nodes *nodes, size_t size)
{
    struct node *a = nodes->a;

    put_both(nodes, size);
    withhold(a, true);
    sync_to(a, nodes->b);
    for (int i = 0; i < 2; i++) { /* what only the older one covers may leave the log */
        assert_int_equal(journal_compact(a->journal, &(struct journal_compact_result){0}), 0);
        make_garbage(a, 100 + 200 * (unsigned)i, 130);
        settle(a);
    }
    /* None of its records lies behind the newest one. */
    assert_int_equal(journal_compact(a->journal, &(struct journal_compact_result){0}), 0);
    assert_true(stats_of(a).snapshot_position > place_of_loser(a, size).lsn);
    rebuild(a);
    withhold(a, true);
    assert_int_equal(losers(a), 1);
    assert_int_equal(stats_of(a).loser_bytes, size);
    expect_sound(a, NULL);
    settle(a);
    withhold(a, false);
    upkeep(a);
    expect_loser(a, 1, size, true);
    assert_int_equal(journal_compact(a->journal, &(struct journal_compact_result){0}), 0);
    rebuild(a);
    assert_int_equal(losers(a), 0);
    expect_loser(a, 1, size, true);
    expect_sound(a, NULL);
}

static void a_snapshot_has_what_lost_in_segments(void **state)
{
    a_snapshot_has_what_lost(*state, SMALL);
}

static void a_snapshot_has_what_lost_in_files(void **state)
{
    a_snapshot_has_what_lost(*state, LARGE);
}

/* Rows for more than four chunks, behind the one that loses. */
static void fill_rows(struct node *node)
{
    enum { ROWS = 1000 };
    struct change *changes = calloc(ROWS, sizeof *changes);
    static char name[LIMIT_NAME_BYTES];
    static uint8_t body[1];

    memset(name, 'n', sizeof name);
    for (unsigned n = 0; n < ROWS; n++) {
        prepare_put(&changes[n], 1000 + n, body, 1);
        changes[n].request.name = (struct text){name, sizeof name};
        assert_int_equal(journal_submit(node->journal, &changes[n]), 0);
    }
    while (journal_commit_step(node->journal))
        ;
    for (unsigned n = 0; n < ROWS; n++) {
        assert_int_equal(changes[n].rc, 0);
        object_destroy(&changes[n].object);
    }
    free(changes);
    apply(node);
}

/* Rows are read before what lost: the winner may come in between. */
static void a_loss_while_a_snapshot_is_written_counts_once(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;

    put_both(nodes, SMALL);
    fill_rows(a);
    withhold(a, true);
    atomic_store(&a->journal->compactor.wanted, true);
    for (int i = 0; i < 2; i++) { /* a step writes four chunks: the row that loses is in them */
        assert_true(compact_step(a->journal) || i == 1);
        while (journal_commit_step(a->journal))
            ;
    }
    assert_int_equal(a->journal->compactor.phase, COMPACT_ROWS);
    assert_true(a->journal->compactor.row.begun);
    sync_to(a, nodes->b);
    for (int i = 0; i < 1000 && a->journal->compactor.phase != COMPACT_IDLE; i++) {
        compact_step(a->journal);
        journal_commit_step(a->journal);
        apply(a);
    }
    rebuild(a);
    assert_int_equal(losers(a), 1);
    expect_sound(a, NULL);
    upkeep(a);
    expect_loser(a, 1, SMALL, true);
}

/* What has lost and wins again by another's put is found under its own id, once it is here. */
static void what_wins_again_is_owed_nothing(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;

    put_both(nodes, SMALL);
    rank(nodes->c, 3);
    assert_int_equal(put_bytes(nodes->c, 1, SMALL, 0), 0); /* A's bytes, later than B's others */
    withhold(a, true);
    sync_to(a, nodes->b);
    assert_int_equal(losers(a), 1);
    sync_to(a, nodes->c);
    expect_winner(a, 1, SMALL, false);
    assert_int_equal(hold_bytes(a, 1, SMALL), 0);
    assert_int_equal(losers(a), 0);
    expect_sound(a, NULL);
    withhold(a, false);
    converge(nodes);
    expect_winner(a, 1, SMALL, true);
    expect_none(a, 1, SMALL);
    expect_loser(nodes->b, 2, SMALL, true);
}

/* Damaged on the disk, or refused for now: it is tried again, and meanwhile nothing is freed. */
static void what_cannot_be_read_is_tried_again(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;

    put_both(nodes, SMALL);
    withhold(a, true);
    sync_to(a, nodes->b);
    withhold(a, false);
    a->fault.only = "/log/";
    a->fault.bad_to = UINT64_MAX;
    journal_upkeep_step(a->journal);
    assert_int_equal(atomic_load(&a->journal->reput.in_flight), 0);
    assert_int_equal(losers(a), 1);
    a->fault.bad_to = 0;
    journal_upkeep_step(a->journal); /* not at once */
    assert_int_equal(atomic_load(&a->journal->reput.in_flight), 0);
    a->later_ms += 2000;
    upkeep(a);
    assert_int_equal(losers(a), 0);
    expect_loser(a, 1, SMALL, true);
}

/* Cleaning moves the event of another node's put, but not the copy of what it put, which lies in a
 * later segment: a rebuild then meets the copy first. */
static void a_copy_that_comes_before_its_put_is_found(void **state)
{
    struct nodes *nodes = *state;
    struct node *a = nodes->a;
    struct id128 id = the_id();
    struct object *object;
    char path[160];

    rank(nodes->b, 2);
    assert_int_equal(put_bytes(nodes->b, 1, SMALL, 2), 0);
    sync_to(a, nodes->b);
    make_garbage(a, 100, 45);
    assert_int_equal(hold_bytes(a, 1, SMALL), 0);
    for (unsigned n = 300; n < 310; n++)
        assert_int_equal(put(a, n, 4000), 0);
    apply(a);
    assert_int_equal(find(a, THE, &object), 0);
    struct place place = object->place;

    object_destroy(&object);
    settle(a);
    assert_int_equal(find(a, THE, &object), 0);
    assert_true(place_equal(&object->place, &place));
    object_destroy(&object);
    snprintf(path, sizeof path, "%s/log/00000001.seg", a->files);
    assert_int_equal(access(path, F_OK), -1);
    assert_true(place.volume > 1);
    rebuild(a);
    expect_bytes(a, &id, 1, SMALL, true);
    expect_sound(a, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_copy_that_comes_before_its_put_is_found),
        TEST(a_crash_anywhere_loses_nothing_in_segments),
        TEST(a_crash_anywhere_loses_nothing_in_files),
        TEST(cleaning_takes_along_what_lost),
        TEST(what_is_an_object_of_its_own_leaves_its_old_place_free),
        TEST(cleaning_knows_of_a_loss_that_is_not_applied_yet),
        TEST3(a_segment_with_a_copy_that_lost_stays_for_it),
        TEST3(a_segment_with_the_copy_of_a_file_that_lost_stays),
        TEST(a_damaged_body_that_lost_does_not_move),
        TEST(a_snapshot_has_what_lost_in_segments),
        TEST(a_snapshot_has_what_lost_in_files),
        TEST(a_loss_while_a_snapshot_is_written_counts_once),
        TEST3(what_wins_again_is_owed_nothing),
        TEST(what_cannot_be_read_is_tried_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
