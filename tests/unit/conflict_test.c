/* Goal: where two puts of different bytes met under one id, every node comes to the same id for the
 * bytes that lost, and to the same opinion on what is still owed to them. */
#include "journal/conflict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static struct id128 id = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}};

static void an_id_follows_from_the_time_and_the_bytes(void **state)
{
    uint8_t both[48], hash[SHA256_BYTES], sha[SHA256_BYTES], other[SHA256_BYTES];

    (void)state;
    sha256("lost", 4, sha);
    sha256("also lost", 9, other);
    struct id128 made = conflict_id(&id, sha), again = conflict_id(&id, sha);

    memcpy(both, id.bytes, 16);
    memcpy(both + 16, sha, 32);
    sha256(both, 48, hash);
    assert_memory_equal(made.bytes, id.bytes, 6);
    assert_memory_equal(made.bytes + 6, hash, 10);
    assert_true(id_equal(&made, &again));
    made = conflict_id(&id, other);
    assert_false(id_equal(&made, &again));
    made = conflict_id(&again, sha);
    assert_false(id_equal(&made, &again));
}

static void what_is_owed_follows_from_the_row_under_that_id(void **state)
{
    struct object row = {.id = id, .flags = OBJECT_PUT};
    uint8_t sha[SHA256_BYTES], other[SHA256_BYTES];

    (void)state;
    sha256("lost", 4, sha);
    sha256("another's", 9, other);
    assert_int_equal(conflict_fate(sha, NULL), CONFLICT_OWED);
    memcpy(row.sha256, sha, sizeof sha);
    assert_int_equal(conflict_fate(sha, &row), CONFLICT_OWED); /* put by another node alone */
    row.place.volume = 3;
    assert_int_equal(conflict_fate(sha, &row), CONFLICT_SETTLED);
    assert_int_equal(conflict_fate(other, &row), CONFLICT_TAKEN);
    row.flags = OBJECT_CLOUD; /* a fact came before its put */
    assert_int_equal(conflict_fate(other, &row), CONFLICT_OWED);
    row.flags = OBJECT_DELETED;
    assert_int_equal(conflict_fate(other, &row), CONFLICT_SETTLED);
}

static void only_bytes_that_are_here_are_kept(void **state)
{
    struct object before = {.id = id, .flags = OBJECT_PUT, .place = {.volume = 1}};
    struct object after = {.id = id, .flags = OBJECT_PUT};
    struct event event = {.kind = EVENT_PUT, .id = id};

    (void)state;
    after.sha256[0] = event.sha256[0] = 1;
    assert_true(conflict_is(&before, &event));
    assert_true(conflict_beats(&before, &after));
    assert_false(conflict_loses(&event, &after));
    assert_true(conflict_loses(&event, &before));
    assert_false(conflict_is(NULL, &event));
    assert_false(conflict_beats(NULL, &after));

    before.place.volume = 0;
    assert_true(conflict_is(&before, &event));
    assert_false(conflict_beats(&before, &after));
    before.place.volume = 1;
    after.flags = OBJECT_DELETED;
    assert_false(conflict_beats(&before, &after)); /* delete wins over all */
    assert_false(conflict_loses(&event, &after));
    after.flags = before.flags = OBJECT_PUT;
    before.sha256[0] = 1;
    assert_false(conflict_is(&before, &event)); /* equal bytes are no conflict */
    assert_false(conflict_beats(&before, &after));
    event.kind = EVENT_META;
    before.sha256[0] = 2;
    assert_false(conflict_is(&before, &event));
    assert_false(conflict_loses(&event, &after));
}

static void a_loser_is_what_its_put_said(void **state)
{
    struct event event = {.kind = EVENT_PUT,
                          .id = id,
                          .origin = {{9}},
                          .stamp = 77 << 16,
                          .fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL |
                                    EVENT_HAS_NAME | EVENT_HAS_TYPE | EVENT_HAS_EXPIRES,
                          .size = 5,
                          .level = 2,
                          .name = {"n.txt", 5},
                          .type = {"text/css", 8},
                          .user_meta = {"not present", 11},
                          .expires_ms = 4};
    struct place place = {.volume = 4, .offset = 8, .lsn = 12};
    struct object *loser;

    (void)state;
    event.sha256[5] = 5;
    assert_int_equal(conflict_loser(&loser, &event, &place, 300), 0);
    assert_true(id_equal(&loser->id, &id));
    assert_int_equal(loser->flags, OBJECT_PUT);
    assert_int_equal(loser->level, 2);
    assert_int_equal(loser->put_at.stamp, 77 << 16);
    assert_memory_equal(loser->sha256, event.sha256, SHA256_BYTES);
    assert_int_equal(loser->size, 5);
    assert_int_equal(loser->expires_ms, 4);
    assert_true(place_equal(&loser->place, &place));
    assert_int_equal(loser->record_bytes, 300);
    assert_int_equal(loser->name_len, 5);
    assert_memory_equal(object_name(loser).ptr, "n.txt", 5);
    assert_memory_equal(object_type(loser).ptr, "text/css", 8);
    assert_int_equal(loser->user_meta_len, 0);
    object_destroy(&loser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_id_follows_from_the_time_and_the_bytes),
        cmocka_unit_test(what_is_owed_follows_from_the_row_under_that_id),
        cmocka_unit_test(only_bytes_that_are_here_are_kept),
        cmocka_unit_test(a_loser_is_what_its_put_said),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
