/* Goal: whatever the order, delay and repetition in which a node hears of events about an object,
 * it arrives at the same row, and that row is what the rules say. */
#include "journal/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(s) ((struct text){s, sizeof(s) - 1})

static const struct id128 the_id = {{1, 2, 3}};

static struct event event_at(uint32_t kind, hlc_time stamp, uint8_t origin)
{
    return (struct event){.kind = kind, .stamp = stamp, .origin = {{origin}}, .id = the_id};
}

static struct event put_at(hlc_time stamp, uint8_t origin, uint8_t sha)
{
    struct event event = event_at(EVENT_PUT, stamp, origin);

    event.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL;
    event.sha256[0] = sha;
    event.size = (uint64_t)sha * 100;
    return event;
}

static struct event name_at(hlc_time stamp, uint8_t origin, struct text name)
{
    struct event event = event_at(EVENT_META, stamp, origin);

    event.fields = EVENT_HAS_NAME;
    event.name = name;
    return event;
}

static struct event cloud_at(hlc_time stamp, uint8_t origin, uint8_t cloud_state, uint8_t sha)
{
    struct event event = event_at(EVENT_CLOUD, stamp, origin);

    event.fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256;
    event.cloud_state = cloud_state;
    event.sha256[0] = sha;
    event.backend = TEXT("s3");
    event.bucket = TEXT("b");
    event.key = TEXT("k/1");
    event.etag = TEXT("e");
    return event;
}

/* *ROW becomes *ROW with EVENT; the one before is freed. */
static void fold(struct object **row, const struct event *event)
{
    struct object *after;

    assert_int_equal(merge_event(&after, *row, event), 0);
    assert_non_null(after);
    object_destroy(row);
    *row = after;
}

static struct object *fold_all(const struct event *events, size_t count)
{
    struct object *row = NULL;

    for (size_t i = 0; i < count; i++)
        fold(&row, &events[i]);
    return row;
}

static bool has_text(struct text text, const char *expected)
{
    return text.len == strlen(expected) &&
           (text.len == 0 || memcmp(text.ptr, expected, text.len) == 0);
}

static bool same_digest(const struct object *a, const struct object *b)
{
    struct hash128 x = object_digest(a), y = object_digest(b);

    return x.low == y.low && x.high == y.high;
}

static bool same_text(struct text a, struct text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* All of it, what readers see and what is this node's own. */
static bool same_rows(const struct object *a, const struct object *b)
{
    return same_digest(a, b) && a->flags == b->flags && a->level == b->level &&
           reg_compare(&a->put_at, &b->put_at) == 0 &&
           memcmp(a->sha256, b->sha256, SHA256_BYTES) == 0 && a->size == b->size &&
           reg_compare(&a->name_at, &b->name_at) == 0 &&
           reg_compare(&a->user_meta_at, &b->user_meta_at) == 0 &&
           reg_compare(&a->expires_at, &b->expires_at) == 0 && a->expires_ms == b->expires_ms &&
           reg_compare(&a->uploaded_at, &b->uploaded_at) == 0 &&
           memcmp(a->uploaded_sha256, b->uploaded_sha256, SHA256_BYTES) == 0 &&
           reg_compare(&a->purged_of, &b->purged_of) == 0 &&
           same_text(object_cloud_place(a), object_cloud_place(b)) &&
           a->deleted_at == b->deleted_at && place_equal(&a->place, &b->place) &&
           a->place.lsn == b->place.lsn && a->record_bytes == b->record_bytes &&
           same_text(object_name(a), object_name(b)) && same_text(object_type(a), object_type(b)) &&
           same_text(object_user_meta(a), object_user_meta(b));
}

static void a_put_makes_a_live_row(void **state)
{
    struct event put = put_at(10, 1, 5);
    struct object *row;

    (void)state;
    put.fields |= EVENT_HAS_NAME | EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES;
    put.level = 2;
    put.name = TEXT("n");
    put.type = TEXT("t/t");
    put.user_meta = TEXT("{}");
    put.expires_ms = 99;
    row = fold_all(&put, 1);
    assert_true(id_equal(&row->id, &the_id));
    assert_int_equal(row->flags, OBJECT_PUT);
    assert_int_equal(row->sha256[0], 5);
    assert_int_equal(row->size, 500);
    assert_int_equal(row->level, 2);
    assert_int_equal(row->put_at.stamp, 10);
    assert_int_equal(row->put_at.origin.bytes[0], 1);
    assert_int_equal(row->name_at.stamp, 10);
    assert_int_equal(row->user_meta_at.stamp, 10);
    assert_int_equal(row->expires_at.stamp, 10);
    assert_int_equal(row->expires_ms, 99);
    assert_true(has_text(object_name(row), "n"));
    assert_true(has_text(object_type(row), "t/t"));
    assert_true(has_text(object_user_meta(row), "{}"));
    object_destroy(&row);
}

static void what_a_put_does_not_say_it_does_not_touch(void **state)
{
    struct event events[] = {name_at(5, 1, TEXT("kept")), put_at(10, 1, 5)};
    struct object *row = fold_all(events, 2);

    (void)state;
    assert_true(has_text(object_name(row), "kept"));
    assert_int_equal(row->name_at.stamp, 5);
    assert_int_equal(row->user_meta_at.stamp, 0);
    assert_int_equal(row->expires_at.stamp, 0);
    object_destroy(&row);
}

static void facts_before_their_put_wait_in_a_partial_row(void **state)
{
    struct event events[] = {name_at(20, 1, TEXT("later")), cloud_at(21, 1, CLOUD_UPLOADED, 5),
                             put_at(10, 1, 5)};
    struct object *row = fold_all(events, 2);

    (void)state;
    events[2].fields |= EVENT_HAS_NAME;
    events[2].name = TEXT("first");
    assert_true(object_is_partial(row));
    assert_int_equal(row->flags, OBJECT_CLOUD);
    fold(&row, &events[2]);
    assert_false(object_is_partial(row));
    assert_int_equal(row->flags, OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
    assert_true(has_text(object_name(row), "later"));
    object_destroy(&row);
}

static void of_two_puts_the_later_wins_and_the_higher_origin_breaks_ties(void **state)
{
    struct event by_stamp[] = {put_at(10, 9, 1), put_at(11, 1, 2)};
    struct event by_origin[] = {put_at(10, 1, 2), put_at(10, 2, 1)};
    struct object *row;

    (void)state;
    by_stamp[0].fields |= EVENT_HAS_TYPE;
    by_stamp[0].type = TEXT("a/a");
    by_stamp[1].type = TEXT("not said");
    row = fold_all(by_stamp, 2);
    assert_int_equal(row->sha256[0], 2);
    assert_int_equal(row->size, 200);
    assert_true(has_text(object_type(row), "")); /* the winner named none */
    object_destroy(&row);
    row = fold_all(by_origin, 2);
    assert_int_equal(row->sha256[0], 1);
    assert_int_equal(row->put_at.origin.bytes[0], 2);
    object_destroy(&row);
}

static void the_level_is_the_highest_ever_set(void **state)
{
    struct event events[] = {put_at(10, 1, 5), event_at(EVENT_META, 5, 1), put_at(30, 1, 5)};
    struct object *row;

    (void)state;
    events[0].level = 1;
    events[1].fields = EVENT_HAS_LEVEL;
    events[1].level = 2;
    row = fold_all(events, 3);
    assert_int_equal(row->level, 2);
    object_destroy(&row);
    events[1].fields = 0; /* not said */
    row = fold_all(events, 3);
    assert_int_equal(row->level, 1);
    object_destroy(&row);
}

static void name_user_meta_and_expiry_have_a_last_writer_each(void **state)
{
    struct event events[] = {put_at(10, 1, 5), name_at(12, 1, TEXT("new")),
                             event_at(EVENT_META, 11, 1), event_at(EVENT_META, 13, 1)};
    struct object *row;

    (void)state;
    events[2].fields = EVENT_HAS_NAME | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES;
    events[2].name = TEXT("old");
    events[2].user_meta = TEXT("{\"a\":\"b\"}");
    events[2].expires_ms = 7;
    events[3].fields = EVENT_HAS_EXPIRES; /* cleared */
    row = fold_all(events, 4);
    assert_true(has_text(object_name(row), "new"));
    assert_true(has_text(object_user_meta(row), "{\"a\":\"b\"}"));
    assert_int_equal(row->expires_ms, 0);
    assert_int_equal(row->expires_at.stamp, 13);
    object_destroy(&row);
}

static void a_name_can_be_cleared(void **state)
{
    struct event events[] = {name_at(10, 1, TEXT("x")), name_at(11, 1, TEXT(""))};
    struct object *row = fold_all(events, 2);

    (void)state;
    assert_true(has_text(object_name(row), ""));
    assert_int_equal(row->name_at.stamp, 11);
    object_destroy(&row);
}

static void a_delete_wins_for_ever_and_clears_the_row(void **state)
{
    struct event events[] = {put_at(10, 1, 5), cloud_at(11, 1, CLOUD_UPLOADED, 5),
                             event_at(EVENT_DELETE, 3, 1), put_at(50, 1, 5),
                             name_at(51, 1, TEXT("no"))};
    struct object like = {.id = the_id,
                          .flags = OBJECT_DELETED | OBJECT_CLOUD,
                          .uploaded_at = {.stamp = 11, .origin = {{1}}},
                          .uploaded_sha256 = {5},
                          .deleted_at = 3};
    struct object *row, *expected = object_create_placed(&like, TEXT(""), TEXT(""), TEXT(""),
                                                         TEXT("s3\0b\0k/1\0e"));

    (void)state;
    events[0].level = 2;
    row = fold_all(events, 5);
    assert_true(same_rows(row, expected));
    object_destroy(&expected);
    struct event again = event_at(EVENT_DELETE, 40, 2), earlier = event_at(EVENT_DELETE, 2, 2);
    fold(&row, &again);
    fold(&row, &earlier);
    assert_int_equal(row->deleted_at, 40);
    object_destroy(&row);
}

static void a_tombstone_remembers_the_cloud_before_and_after(void **state)
{
    struct event events[] = {event_at(EVENT_DELETE, 3, 1), cloud_at(2, 1, CLOUD_STARTED, 5)};
    struct object *row = fold_all(events, 1);

    (void)state;
    assert_int_equal(row->flags, OBJECT_DELETED);
    fold(&row, &events[1]);
    assert_int_equal(row->flags, OBJECT_DELETED | OBJECT_CLOUD);
    object_destroy(&row);
}

/* Whoever removes the copy has to know where it is, whichever he heard of first. */
static void a_tombstone_knows_where_the_copy_is_whatever_came_first(void **state)
{
    struct event put = put_at(10, 1, 5), gone = event_at(EVENT_DELETE, 12, 1);
    struct event uploaded = cloud_at(11, 2, CLOUD_UPLOADED, 5);
    struct event first[] = {put, uploaded, gone}, last[] = {put, gone, uploaded};
    struct event alone[] = {gone, uploaded};
    struct object *rows[] = {fold_all(first, 3), fold_all(last, 3), fold_all(alone, 2)};
    struct cloud_place place;

    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_true(same_rows(rows[i], rows[0]));
        assert_int_equal(rows[i]->flags, OBJECT_DELETED | OBJECT_CLOUD);
        assert_int_equal(rows[i]->uploaded_sha256[0], 5);
        assert_true(object_cloud(rows[i], &place));
        assert_true(has_text(place.backend, "s3") && has_text(place.bucket, "b"));
        assert_true(has_text(place.key, "k/1") && has_text(place.etag, "e"));
        assert_int_equal(object_name(rows[i]).len + object_type(rows[i]).len, 0);
        assert_true(object_owes_mark(rows[i]) && !object_owes_purge(rows[i]));
    }
    for (int i = 0; i < 3; i++)
        object_destroy(&rows[i]);
}

static struct event purging_delete(hlc_time stamp, uint8_t origin)
{
    struct event event = event_at(EVENT_DELETE, stamp, origin);

    event.fields = EVENT_HAS_PURGE;
    event.purge = true;
    return event;
}

static void one_delete_that_asks_for_it_makes_the_copy_go(void **state)
{
    struct event plain = event_at(EVENT_DELETE, 12, 1), no = purging_delete(13, 1);
    struct event purges[] = {purging_delete(3, 2), purging_delete(40, 2)};
    struct event uploaded = cloud_at(11, 2, CLOUD_UPLOADED, 5);

    (void)state;
    no.purge = false;
    for (int i = 0; i < 2; i++) { /* before the other ones, and after */
        struct event events[] = {plain, no, uploaded};
        struct object *row = fold_all(events, 3);

        assert_false(object_owes_purge(row));
        fold(&row, &purges[i]);
        assert_true(object_owes_purge(row));
        assert_int_equal(row->deleted_at, i ? 40 : 13);
        fold(&row, &plain);
        assert_true(object_owes_purge(row));
        object_destroy(&row);
    }
    struct object *row = fold_all(purges, 1); /* nothing of it was ever in the cloud */
    assert_false(object_owes_purge(row) || object_owes_mark(row));
    fold(&row, &uploaded);
    assert_true(object_owes_purge(row) && object_owes_mark(row));
    object_destroy(&row);
}

/* An upload that was under way while the copy was removed is another one: the stamp of the purge,
 * which is later than both, says nothing about it. */
static void a_purge_is_of_the_uploads_that_were_known(void **state)
{
    struct event events[] = {purging_delete(12, 1), cloud_at(11, 2, CLOUD_UPLOADED, 5),
                             cloud_at(90, 1, CLOUD_PURGED, 5)};
    struct event meanwhile = cloud_at(50, 3, CLOUD_UPLOADED, 5);
    struct event again = cloud_at(91, 1, CLOUD_PURGED, 5), mark = cloud_at(92, 1, CLOUD_MARKED, 5);

    (void)state;
    struct object *row = fold_all(events, 2);
    events[2].removed = object_removes(row);
    fold(&row, &events[2]);
    assert_true(row->flags & OBJECT_PURGED && !object_owes_purge(row));
    fold(&row, &meanwhile);
    assert_true(!(row->flags & OBJECT_PURGED) && object_owes_purge(row));
    again.removed = object_removes(row);
    fold(&row, &again);
    assert_true(row->flags & OBJECT_PURGED && !object_owes_purge(row));
    assert_true(object_owes_mark(row));
    fold(&row, &mark);
    assert_false(object_owes_mark(row));
    object_destroy(&row);

    /* The same where none was known but that one had begun. */
    struct event begun[] = {purging_delete(12, 1), cloud_at(11, 2, CLOUD_STARTED, 5)};
    row = fold_all(begun, 2);
    assert_true(object_owes_purge(row));
    events[2].removed = object_removes(row);
    fold(&row, &events[2]);
    assert_false(object_owes_purge(row));
    fold(&row, &meanwhile);
    assert_true(object_owes_purge(row));
    object_destroy(&row);
}

static void uploaded_is_said_of_bytes_not_of_ids(void **state)
{
    struct event put = put_at(10, 1, 5), other = cloud_at(11, 1, CLOUD_UPLOADED, 6);
    struct event same = cloud_at(12, 1, CLOUD_UPLOADED, 5);
    struct event purged = cloud_at(13, 1, CLOUD_PURGED, 5), newer = put_at(14, 1, 6);
    struct object *row = NULL;

    (void)state;
    put.level = 1;
    fold(&row, &put);
    assert_true(object_owes_upload(row));
    fold(&row, &other);
    assert_int_equal(row->flags, OBJECT_PUT | OBJECT_CLOUD);
    assert_true(object_owes_upload(row));
    fold(&row, &same);
    assert_int_equal(row->flags, OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
    assert_false(object_owes_upload(row));
    struct object *uploaded = object_copy(row);
    assert_non_null(uploaded);
    fold(&row, &purged);
    assert_int_equal(row->flags, OBJECT_PUT | OBJECT_CLOUD | OBJECT_PURGED);
    assert_true(object_owes_upload(row));
    fold(&uploaded, &newer); /* other bytes win: those are not in the cloud */
    assert_int_equal(uploaded->flags, OBJECT_PUT | OBJECT_CLOUD);
    object_destroy(&row);
    object_destroy(&uploaded);
}

/* Without an upload the register is zeros; they are not the name of bytes, whoever claims such a
 * put. */
static void purged_is_not_uploaded_even_of_a_forged_digest(void **state)
{
    struct event events[] = {put_at(10, 1, 0), cloud_at(11, 1, CLOUD_PURGED, 0)};
    struct object *row = fold_all(events, 2);

    (void)state;
    assert_int_equal(row->flags, OBJECT_PUT | OBJECT_CLOUD | OBJECT_PURGED);
    object_destroy(&row);
}

static void a_started_upload_says_nothing_about_what_the_cloud_holds(void **state)
{
    struct event events[] = {put_at(10, 1, 5), cloud_at(11, 1, CLOUD_UPLOADED, 5),
                             cloud_at(12, 1, CLOUD_STARTED, 5)};
    struct object *row = fold_all(events, 3);

    (void)state;
    assert_true(row->flags & OBJECT_UPLOADED);
    assert_int_equal(row->uploaded_at.stamp, 11);
    object_destroy(&row);
}

static struct object *placed(void)
{
    struct event put = put_at(10, 1, 5);
    struct object *row = fold_all(&put, 1);

    row->place = (struct place){.disk = 1, .volume = 2, .offset = 512, .lsn = 4096};
    row->record_bytes = 900;
    row->flags |= OBJECT_PLAIN;
    return row;
}

static void the_place_stays_while_the_bytes_are_the_same(void **state)
{
    struct event same_bytes = put_at(20, 1, 5), loses = put_at(5, 1, 6), wins = put_at(30, 1, 6);
    struct event delete = event_at(EVENT_DELETE, 1, 1), name = name_at(40, 1, TEXT("n"));
    const struct event *const keep[] = {&same_bytes, &loses, &name}, *const lose[] = {&wins,
                                                                                      &delete};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct object *row = placed();
        struct place before = row->place;

        fold(&row, keep[i]);
        assert_memory_equal(&row->place, &before, sizeof before);
        assert_int_equal(row->record_bytes, 900);
        object_destroy(&row);
    }
    for (size_t i = 0; i < 2; i++) {
        struct object *row = placed();

        fold(&row, lose[i]);
        assert_true(place_is_none(&row->place));
        assert_int_equal(row->place.lsn, 0);
        assert_int_equal(row->record_bytes, 0);
        object_destroy(&row);
    }
}

static void an_event_that_changes_nothing_gives_an_equal_row(void **state)
{
    struct event put = put_at(10, 1, 5), old = name_at(3, 1, TEXT("x"));
    struct event hold = event_at(EVENT_HOLD, 90, 1), future = event_at(77, 90, 1);
    struct event empty = event_at(EVENT_META, 90, 1), expires = event_at(EVENT_META, 2, 1);
    const struct event *const idle[] = {&put, &put, &hold, &future, &empty, &old, &expires};
    struct event name = name_at(4, 1, TEXT("name"));
    struct object *row = placed();

    (void)state;
    expires.fields = EVENT_HAS_EXPIRES;
    expires.expires_ms = 5;
    row->expires_at.stamp = 3;
    fold(&row, &name);
    row->flags |= OBJECT_PLAIN;
    for (size_t i = 0; i < sizeof idle / sizeof *idle; i++) {
        struct object *after;

        assert_int_equal(merge_event(&after, row, idle[i]), 0);
        assert_ptr_not_equal(after, row);
        assert_true(same_rows(after, row));
        object_destroy(&after);
    }
    object_destroy(&row);
}

static void whatever_changes_a_row_ends_its_being_plain(void **state)
{
    struct event level = event_at(EVENT_META, 11, 1), name = name_at(11, 1, TEXT("n"));
    struct event user_meta = event_at(EVENT_META, 11, 1), expires = event_at(EVENT_META, 11, 1);
    struct event put = put_at(11, 1, 5), cloud = cloud_at(11, 1, CLOUD_STARTED, 5);
    const struct event *const changes[] = {&level, &name, &user_meta, &expires, &put, &cloud};

    (void)state;
    level.fields = EVENT_HAS_LEVEL;
    level.level = 1;
    user_meta.fields = EVENT_HAS_USER_META;
    expires.fields = EVENT_HAS_EXPIRES;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct object *row = placed();

        fold(&row, changes[i]);
        assert_false(row->flags & OBJECT_PLAIN);
        object_destroy(&row);
    }
}

static void of_nothing_and_no_fact_comes_a_row_that_says_nothing(void **state)
{
    struct event hold = event_at(EVENT_HOLD, 9, 1);
    struct object *row = fold_all(&hold, 1);

    (void)state;
    assert_true(object_is_partial(row));
    assert_true(same_digest(row, NULL));
    object_destroy(&row);
}

static void writes_compare_by_stamp_then_origin(void **state)
{
    const struct reg a = {.stamp = 1, .origin = {{9}}}, b = {.stamp = 2, .origin = {{1}}},
                     c = {.stamp = 2, .origin = {{1, 1}}};

    (void)state;
    assert_int_equal(reg_compare(&a, &b), -1);
    assert_int_equal(reg_compare(&b, &a), 1);
    assert_int_equal(reg_compare(&b, &c), -1);
    assert_int_equal(reg_compare(&c, &b), 1);
    assert_int_equal(reg_compare(&c, &c), 0);
}

/* ---- Any order gives the same row ---- */

enum { SEEDS = 400, SHUFFLES = 12, MOST_EVENTS = 14 };

/* Few stamps and origins, so that ties are common; even whole (stamp, origin) ties, which only a
 * cloned node writes. */
static struct event random_event(bool may_delete)
{
    static const struct text names[] = {{"", 0}, {"a", 1}, {"ab", 2}, {"b", 1}};
    static const uint32_t kinds[] = {EVENT_PUT,  EVENT_PUT,   EVENT_META,  EVENT_META,
                                     EVENT_META, EVENT_CLOUD, EVENT_CLOUD, EVENT_CLOUD,
                                     EVENT_HOLD, EVENT_DELETE};
    uint32_t kind = kinds[(size_t)rand() % (may_delete ? 10 : 9)];
    struct event event = event_at(kind, 1 + (hlc_time)(rand() % 6), (uint8_t)(1 + rand() % 3));

    event.level = (uint8_t)(rand() % 3);
    event.name = names[rand() % 4];
    event.user_meta = names[rand() % 4];
    event.type = names[rand() % 4];
    event.expires_ms = (uint64_t)(rand() % 3);
    event.sha256[rand() % 2 * 31] = (uint8_t)(1 + rand() % 2);
    event.size = (uint64_t)(rand() % 2);
    event.cloud_state = (uint8_t)(1 + rand() % 4);
    if (kind == EVENT_CLOUD) {
        event.fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256;
        event.backend = TEXT("s3");
        event.bucket = names[rand() % 4];
        event.key = rand() % 2 ? TEXT("k") : TEXT("key");
        event.etag = names[rand() % 4];
        event.removed.stamp = (hlc_time)(rand() % 6);
        event.removed.origin.bytes[15] = (uint8_t)(1 + rand() % 3);
    }
    if (kind == EVENT_DELETE && rand() % 4) {
        event.fields = EVENT_HAS_PURGE;
        event.purge = rand() % 4;
    }
    if (kind == EVENT_PUT)
        event.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL;
    if (kind == EVENT_PUT && rand() % 2)
        event.fields |= EVENT_HAS_TYPE;
    if (kind == EVENT_META && rand() % 2)
        event.fields |= EVENT_HAS_LEVEL;
    if (kind == EVENT_PUT || kind == EVENT_META) {
        event.fields |= rand() % 2 ? EVENT_HAS_NAME : 0;
        event.fields |= rand() % 2 ? EVENT_HAS_USER_META : 0;
        event.fields |= rand() % 2 ? EVENT_HAS_EXPIRES : 0;
    }
    return event;
}

static void shuffle(struct event *events, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t k = (size_t)rand() % i;
        struct event swap = events[i - 1];

        events[i - 1] = events[k];
        events[k] = swap;
    }
}

static void any_order_and_repetition_gives_the_same_row(void **state)
{
    unsigned live = 0, deleted = 0, uploaded = 0, partial = 0, purged = 0, to_purge = 0, marked = 0;

    (void)state;
    for (unsigned seed = 1; seed <= SEEDS; seed++) {
        struct event events[MOST_EVENTS];

        srand(seed);
        size_t count = 1 + (size_t)rand() % MOST_EVENTS;
        for (size_t i = 0; i < count; i++)
            events[i] = random_event(seed % 4 == 0);
        struct object *expected = fold_all(events, count);
        live += (expected->flags & OBJECT_PUT) != 0;
        deleted += (expected->flags & OBJECT_DELETED) != 0;
        uploaded += (expected->flags & OBJECT_UPLOADED) != 0;
        partial += object_is_partial(expected);
        purged += (expected->flags & OBJECT_PURGED) != 0;
        to_purge += object_owes_purge(expected);
        marked += (expected->flags & OBJECT_MARKED) != 0;
        for (int round = 0; round < SHUFFLES; round++) {
            struct event heard[2 * MOST_EVENTS];
            size_t total = count + (size_t)rand() % (count + 1);

            for (size_t i = 0; i < total; i++)
                heard[i] = events[i < count ? i : (size_t)rand() % count];
            shuffle(heard, total);
            struct object *row = fold_all(heard, total);
            if (!same_rows(row, expected))
                fail_msg("seed %u: two orders of the same events give different rows", seed);
            object_destroy(&row);
        }
        object_destroy(&expected);
    }
    /* The dice reached all corners. */
    assert_true(live > 50 && deleted > 30 && uploaded > 20 && partial > 5);
    assert_true(purged > 50 && to_purge > 2 && marked > 50);
}

/* ---- Rows of other nodes ---- */

static struct object *join(const struct object *a, const struct object *b, bool *changed)
{
    struct object *after;

    if (!b)
        return a ? object_copy(a) : NULL;
    assert_int_equal(merge_rows(&after, a, b, changed), 0);
    return after;
}

/* What a node's own row has beyond facts is its own matter. */
static bool same_facts(const struct object *a, const struct object *b)
{
    if (!a || !b)
        return same_digest(a, b);
    return same_digest(a, b) && object_is_partial(a) == object_is_partial(b) &&
           same_text(object_name(a), object_name(b)) && same_text(object_type(a), object_type(b)) &&
           same_text(object_cloud_place(a), object_cloud_place(b)) &&
           ((a->flags ^ b->flags) & ~(uint32_t)OBJECT_PLAIN) == 0;
}

static struct object *fold_some(const struct event *events, size_t count, unsigned mask)
{
    struct object *row = NULL;

    for (size_t i = 0; i < count; i++)
        if (mask & 1u << i)
            fold(&row, &events[i]);
    return row;
}

/* Three nodes that each heard of some events: whoever merges whose rows in whatever order has the
 * row of all of them; and says so exactly where it learned something. */
static void joined_rows_are_those_of_all_events(void **state)
{
    unsigned changes = 0, unchanged = 0;

    (void)state;
    for (unsigned seed = 1; seed <= 2000; seed++) {
        struct event events[MOST_EVENTS];
        bool ab_changed = false, ignored;

        srand(seed);
        size_t count = 1 + (size_t)rand() % MOST_EVENTS;
        bool may_delete = rand() % 2;
        for (size_t i = 0; i < count; i++)
            events[i] = random_event(may_delete);
        unsigned all = (1u << count) - 1, of_a = (unsigned)rand() & all,
                 of_b = (unsigned)rand() & all;
        struct object *a = fold_some(events, count, of_a), *b = fold_some(events, count, of_b);
        struct object *c = fold_some(events, count, all & ~of_a);
        struct object *want = fold_some(events, count, of_a | of_b);
        struct object *whole = fold_some(events, count, all);
        struct object *ab = join(a, b, &ab_changed), *ba = join(b, a, &ignored);
        struct object *ab_c = join(ab, c, &ignored), *bc = join(b, c, &ignored);
        struct object *a_bc = join(a, bc, &ignored);
        if (!same_facts(ab, want) || !same_facts(ba, want) || !same_facts(ab_c, whole) ||
            !same_facts(a_bc, whole))
            fail_msg("seed %u: joined rows are not those of all events", seed);
        if (b && ab_changed == same_facts(ab, a))
            fail_msg("seed %u: changed is %d", seed, ab_changed);
        changes += ab_changed;
        unchanged += !ab_changed;
        struct object *again = join(ab, b, &ab_changed);
        if (b && (ab_changed || !same_rows(again, ab)))
            fail_msg("seed %u: a second time changes something", seed);
        struct object *rows[] = {a, b, c, want, whole, ab, ba, ab_c, bc, a_bc, again};
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            object_destroy(&rows[i]);
    }
    assert_true(changes > 500 && unchanged > 200);
}

/* Where bytes lie is said by nobody else. */
static void a_joined_row_keeps_the_place_of_the_same_bytes_alone(void **state)
{
    struct event put = put_at(10, 1, 5), other = put_at(11, 1, 6), name = name_at(12, 1, TEXT("x"));
    struct object *mine = fold_all(&put, 1), *theirs = fold_all(&put, 1), *after;
    bool changed;

    (void)state;
    mine->place = (struct place){.volume = 7, .offset = 64, .lsn = 100};
    mine->record_bytes = 99;
    mine->flags |= OBJECT_PLAIN;
    theirs->place = (struct place){.volume = 9, .lsn = 200};
    assert_int_equal(merge_rows(&after, mine, theirs, &changed), 0);
    assert_false(changed);
    assert_true(same_rows(after, mine));
    object_destroy(&after);
    fold(&theirs, &name);
    assert_int_equal(merge_rows(&after, mine, theirs, &changed), 0);
    assert_true(changed);
    assert_true(place_equal(&after->place, &mine->place) && after->record_bytes == 99);
    assert_int_equal(after->flags, OBJECT_PUT);
    object_destroy(&after);
    fold(&theirs, &other);
    assert_int_equal(merge_rows(&after, mine, theirs, &changed), 0);
    assert_true(place_is_none(&after->place) && after->record_bytes == 0);
    object_destroy(&after);
    theirs->flags |= OBJECT_PLAIN;
    assert_int_equal(merge_rows(&after, NULL, theirs, &changed), 0);
    assert_true(changed && place_is_none(&after->place) && after->flags == OBJECT_PUT);
    object_destroy(&after);
    object_destroy(&mine);
    object_destroy(&theirs);
}

/* For few events every order is tried, against what the rules say in so many words. */
static void every_order_of_a_life_gives_its_end(void **state)
{
    struct event events[] = {put_at(10, 1, 5), put_at(10, 2, 6), name_at(9, 1, TEXT("early")),
                             cloud_at(12, 3, CLOUD_UPLOADED, 6), cloud_at(13, 3, CLOUD_STARTED, 5)};
    enum { COUNT = sizeof events / sizeof *events };
    unsigned orders = 0;

    (void)state;
    events[0].fields |= EVENT_HAS_NAME;
    events[0].name = TEXT("first");
    events[0].level = 2;
    for (unsigned code = 0; code < 3125; code++) { /* all of 5^5 that are permutations */
        struct event order[COUNT];
        unsigned used = 0, rest = code;

        for (size_t i = 0; i < COUNT; i++, rest /= COUNT) {
            order[i] = events[rest % COUNT];
            used |= 1u << rest % COUNT;
        }
        if (used != (1u << COUNT) - 1)
            continue;
        orders++;
        struct object *row = fold_all(order, COUNT);
        assert_int_equal(row->flags, OBJECT_PUT | OBJECT_CLOUD | OBJECT_UPLOADED);
        assert_int_equal(row->sha256[0], 6);
        assert_int_equal(row->level, 2);
        assert_true(has_text(object_name(row), "first"));
        assert_int_equal(row->uploaded_at.stamp, 12);
        object_destroy(&row);
    }
    assert_int_equal(orders, 120);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_makes_a_live_row),
        cmocka_unit_test(what_a_put_does_not_say_it_does_not_touch),
        cmocka_unit_test(facts_before_their_put_wait_in_a_partial_row),
        cmocka_unit_test(of_two_puts_the_later_wins_and_the_higher_origin_breaks_ties),
        cmocka_unit_test(the_level_is_the_highest_ever_set),
        cmocka_unit_test(name_user_meta_and_expiry_have_a_last_writer_each),
        cmocka_unit_test(a_name_can_be_cleared),
        cmocka_unit_test(a_delete_wins_for_ever_and_clears_the_row),
        cmocka_unit_test(a_tombstone_remembers_the_cloud_before_and_after),
        cmocka_unit_test(a_tombstone_knows_where_the_copy_is_whatever_came_first),
        cmocka_unit_test(one_delete_that_asks_for_it_makes_the_copy_go),
        cmocka_unit_test(a_purge_is_of_the_uploads_that_were_known),
        cmocka_unit_test(uploaded_is_said_of_bytes_not_of_ids),
        cmocka_unit_test(purged_is_not_uploaded_even_of_a_forged_digest),
        cmocka_unit_test(a_started_upload_says_nothing_about_what_the_cloud_holds),
        cmocka_unit_test(the_place_stays_while_the_bytes_are_the_same),
        cmocka_unit_test(an_event_that_changes_nothing_gives_an_equal_row),
        cmocka_unit_test(whatever_changes_a_row_ends_its_being_plain),
        cmocka_unit_test(of_nothing_and_no_fact_comes_a_row_that_says_nothing),
        cmocka_unit_test(writes_compare_by_stamp_then_origin),
        cmocka_unit_test(any_order_and_repetition_gives_the_same_row),
        cmocka_unit_test(joined_rows_are_those_of_all_events),
        cmocka_unit_test(a_joined_row_keeps_the_place_of_the_same_bytes_alone),
        cmocka_unit_test(every_order_of_a_life_gives_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
