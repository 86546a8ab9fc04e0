/* Goal: between its decision and SQLite the newest row of an id is here, seen by the committer at
 * once and by readers from its sync on, until it is taken out. */
#include "journal/pending.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/limits.h"

static struct id128 id_of(unsigned n)
{
    struct id128 id = {{0}};

    /* Not hashed by anybody: the time in front is the same, the rest counts. */
    id.bytes[0] = 1;
    id.bytes[13] = (uint8_t)(n >> 16);
    id.bytes[14] = (uint8_t)(n >> 8);
    id.bytes[15] = (uint8_t)n;
    return id;
}

/* An entry whose row tells VERSION by its size. */
static struct entry *entry_of(unsigned n, uint64_t batch, uint64_t version)
{
    struct object like = {.id = id_of(n), .flags = OBJECT_PUT, .size = version};
    struct text name = {"name", 4}, none = {"", 0};
    struct entry *entry = entry_create("event", 5);

    assert_non_null(entry);
    entry->batch = batch;
    entry->object = object_create(&like, name, none, none);
    assert_non_null(entry->object);
    return entry;
}

static void expect(struct pending *pending, unsigned n, bool all, uint64_t version)
{
    struct id128 id = id_of(n);
    struct object *row = NULL;
    int rc = pending_find(pending, &id, all, &row);

    if (version == 0) {
        assert_int_equal(rc, ERR_NOT_FOUND);
        return;
    }
    assert_int_equal(rc, 0);
    assert_true(id_equal(&row->id, &id));
    assert_int_equal(row->size, version);
    assert_int_equal(object_name(row).len, 4);
    object_destroy(&row);
}

static void an_entry_begins_with_its_event_and_nothing_else(void **state)
{
    static const struct entry zero;
    uint8_t event[300];
    struct entry *entry;

    (void)state;
    memset(event, 0xa5, sizeof event);
    /* Memory that was used before. */
    entry = entry_create(event, sizeof event);
    assert_non_null(entry);
    memset(entry, 0xff, sizeof *entry);
    entry->object = entry->loser = NULL;
    entry_destroy(entry);

    entry = entry_create(event, sizeof event);
    assert_int_equal(entry->event_bytes, sizeof event);
    assert_memory_equal(entry->event, event, sizeof event);
    entry->event_bytes = 0;
    assert_memory_equal(entry, &zero, offsetof(struct entry, event));
    entry_destroy(entry);

    entry = entry_create(NULL, 0); /* a move */
    assert_int_equal(entry->event_bytes, 0);
    entry_destroy(entry);
    entry_destroy(NULL);
}

static void a_reader_sees_a_row_from_its_sync_on(void **state)
{
    struct pending *pending;
    struct entry *first = entry_of(1, 1, 10), *second = entry_of(1, 2, 20);

    (void)state;
    assert_int_equal(pending_create(&pending), 0);
    expect(pending, 1, true, 0);
    pending_insert(pending, first);
    expect(pending, 1, true, 10);
    expect(pending, 1, false, 0);
    pending_publish(pending, 1);
    expect(pending, 1, false, 10);
    pending_insert(pending, second);
    expect(pending, 1, true, 20);
    expect(pending, 1, false, 10);
    pending_publish(pending, 1); /* an empty batch in between changes nothing */
    expect(pending, 1, false, 10);
    pending_publish(pending, 2);
    expect(pending, 1, false, 20);
    expect(pending, 2, true, 0);

    pending_remove(pending, first); /* applied in order: the newer one stays */
    expect(pending, 1, false, 20);
    pending_remove(pending, second);
    expect(pending, 1, true, 0);
    pending_destroy(&pending);
    assert_null(pending);
    pending_destroy(&pending);
}

/* A failed batch is taken back from its end. */
static void what_was_taken_back_uncovers_what_was_before(void **state)
{
    struct pending *pending;
    struct entry *first = entry_of(1, 1, 10), *second = entry_of(1, 2, 20);

    (void)state;
    assert_int_equal(pending_create(&pending), 0);
    pending_insert(pending, first);
    pending_publish(pending, 1);
    pending_insert(pending, second);
    pending_remove(pending, second);
    expect(pending, 1, true, 10);
    expect(pending, 1, false, 10);
    pending_destroy(&pending);
}

static void entries_without_a_row_count_and_are_not_found(void **state)
{
    struct pending *pending;
    struct entry *hold = entry_create("hold", 4), *put = entry_of(0, 1, 10);
    uint64_t put_bytes = sizeof *put + 5 + object_bytes(put->object);

    (void)state;
    assert_int_equal(pending_create(&pending), 0);
    assert_int_equal(pending_count(pending), 0);
    assert_int_equal(pending_bytes(pending), 0);
    pending_insert(pending, hold);
    assert_int_equal(pending_count(pending), 1);
    assert_int_equal(pending_bytes(pending), sizeof *hold + 4);
    expect(pending, 0, true, 0);
    pending_insert(pending, put);
    assert_int_equal(pending_count(pending), 2);
    assert_int_equal(pending_bytes(pending), sizeof *hold + 4 + put_bytes);
    expect(pending, 0, true, 10);
    pending_remove(pending, hold);
    assert_int_equal(pending_count(pending), 1);
    assert_int_equal(pending_bytes(pending), put_bytes);
    pending_remove(pending, put);
    assert_int_equal(pending_count(pending), 0);
    assert_int_equal(pending_bytes(pending), 0);
    pending_destroy(&pending);
}

/* As many as there may be, taken out in their order; a chain holds many ids. */
static void a_full_table_agrees_with_a_model(void **state)
{
    enum { EACH = 2, IDS = LIMIT_PENDING_ENTRIES / EACH, STEP = 1997 };
    struct pending *pending;
    struct entry **entries = calloc((size_t)IDS * EACH, sizeof *entries);

    (void)state;
    assert_non_null(entries);
    assert_int_equal(pending_create(&pending), 0);
    for (unsigned i = 0; i < IDS * EACH; i++) {
        entries[i] = entry_of(i % IDS, 1 + i / IDS, 1 + i);
        pending_insert(pending, entries[i]);
    }
    assert_int_equal(pending_count(pending), IDS * EACH);
    pending_publish(pending, 1);
    for (unsigned n = 0; n < IDS; n++) {
        expect(pending, n, true, 1 + IDS + n);
        expect(pending, n, false, 1 + n);
    }
    pending_publish(pending, 2);
    for (unsigned i = 0; i < IDS * EACH; i++) {
        pending_remove(pending, entries[i]);
        if (i % STEP == 0) {
            for (unsigned n = 0; n < IDS; n += 7)
                expect(pending, n, false, i >= IDS && n <= i - IDS ? 0 : 1 + IDS + n);
        }
    }
    assert_int_equal(pending_count(pending), 0);
    assert_int_equal(pending_bytes(pending), 0);
    pending_destroy(&pending);
    free(entries);
}

/* Ids that share their first or their last half are not mistaken for one another. */
static void an_id_is_all_of_its_bytes(void **state)
{
    struct pending *pending;
    struct entry *entry = entry_of(1, 1, 10);
    struct id128 id = id_of(1);
    struct object *row;

    (void)state;
    assert_int_equal(pending_create(&pending), 0);
    pending_insert(pending, entry);
    for (size_t i = 0; i < sizeof id.bytes; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            id.bytes[i] ^= (uint8_t)(1u << bit);
            assert_int_equal(pending_find(pending, &id, true, &row), ERR_NOT_FOUND);
            id.bytes[i] ^= (uint8_t)(1u << bit);
        }
    }
    pending_destroy(&pending);
}

/* What is taken out, or destroyed with the table, leaves no memory behind. (Under ASan mallinfo
 * knows nothing, and LeakSanitizer looks instead.) */
static void nothing_is_left_of_a_table(void **state)
{
    enum { ENTRIES = 20000 };
    struct pending *pending;
    size_t before = mallinfo2().uordblks;

    (void)state;
    assert_int_equal(pending_create(&pending), 0);
    for (unsigned n = 0; n < ENTRIES; n++)
        pending_insert(pending, entry_of(n % (ENTRIES / 2), 1, 1 + n));
    pending_destroy(&pending);
    assert_in_range(mallinfo2().uordblks, 0, before + ENTRIES);
    assert_int_equal(pending_create(&pending), 0);
    for (unsigned n = 0; n < ENTRIES; n++) {
        struct entry *entry = entry_of(n, 1, 1);

        pending_insert(pending, entry);
        pending_remove(pending, entry);
    }
    pending_destroy(&pending);
    assert_in_range(mallinfo2().uordblks, 0, before + ENTRIES);
}

/* ---- Threads ---- */

enum { SHARED_IDS = 8, CYCLES = 40000 };

static _Atomic bool finished;

/* Every row that is found is whole: of its id, and one that was inserted. */
static void *look(void *arg)
{
    struct pending *pending = arg;
    uintptr_t wrong = 0;

    for (unsigned i = 0; !atomic_load(&finished); i++) {
        struct id128 id = id_of(i % SHARED_IDS);
        struct object *row;

        if (pending_find(pending, &id, i % 2, &row) != 0)
            continue;
        wrong += !id_equal(&row->id, &id) || row->size % SHARED_IDS != i % SHARED_IDS ||
                 row->name_len != 4 || memcmp(row->text, "name", 4) != 0;
        object_destroy(&row);
    }
    return (void *)wrong;
}

/* Nothing is visible: so it goes through all entries of the id, to the one that goes. */
static void *look_in_vain(void *arg)
{
    struct pending *pending = arg;
    struct id128 id = id_of(1);
    struct object *row;
    uintptr_t wrong = 0;

    while (!atomic_load(&finished))
        wrong += pending_find(pending, &id, false, &row) != ERR_NOT_FOUND;
    return (void *)wrong;
}

static void readers_pass_over_what_they_must_not_see_while_it_goes(void **state)
{
    enum { READERS = 2, AHEAD = 200 };
    struct entry *entries[AHEAD] = {NULL};
    pthread_t readers[READERS];
    struct pending *pending;

    (void)state;
    atomic_store(&finished, false);
    assert_int_equal(pending_create(&pending), 0);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, look_in_vain, pending), 0);
    for (unsigned i = 0; i < CYCLES; i++) {
        struct entry *entry = entry_of(1, 1, i);

        pending_insert(pending, entry);
        if (entries[i % AHEAD])
            pending_remove(pending, entries[i % AHEAD]);
        entries[i % AHEAD] = entry;
    }
    atomic_store(&finished, true);
    for (int i = 0; i < READERS; i++) {
        void *wrong;

        assert_int_equal(pthread_join(readers[i], &wrong), 0);
        assert_null(wrong);
    }
    pending_destroy(&pending);
}

static void readers_see_whole_rows_while_they_come_and_go(void **state)
{
    enum { READERS = 2, AHEAD = 20 };
    struct entry *entries[AHEAD] = {NULL};
    pthread_t readers[READERS];
    struct pending *pending;

    (void)state;
    atomic_store(&finished, false);
    assert_int_equal(pending_create(&pending), 0);
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, look, pending), 0);
    for (unsigned i = 0; i < CYCLES; i++) {
        struct entry *entry = entry_of(i % SHARED_IDS, i + 1, i);

        pending_insert(pending, entry);
        pending_publish(pending, i + 1);
        if (entries[i % AHEAD])
            pending_remove(pending, entries[i % AHEAD]);
        entries[i % AHEAD] = entry;
    }
    atomic_store(&finished, true);
    for (int i = 0; i < READERS; i++) {
        void *wrong;

        assert_int_equal(pthread_join(readers[i], &wrong), 0);
        assert_null(wrong);
    }
    assert_int_equal(pending_count(pending), AHEAD);
    pending_destroy(&pending);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_entry_begins_with_its_event_and_nothing_else),
        cmocka_unit_test(a_reader_sees_a_row_from_its_sync_on),
        cmocka_unit_test(what_was_taken_back_uncovers_what_was_before),
        cmocka_unit_test(entries_without_a_row_count_and_are_not_found),
        cmocka_unit_test(a_full_table_agrees_with_a_model),
        cmocka_unit_test(an_id_is_all_of_its_bytes),
        cmocka_unit_test(nothing_is_left_of_a_table),
        cmocka_unit_test(readers_see_whole_rows_while_they_come_and_go),
        cmocka_unit_test(readers_pass_over_what_they_must_not_see_while_it_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
