/* Goal: from a record the committer, recovery and a rebuild arrive at the same entry: the row takes
 * the record's bytes exactly where they are what it names and higher in the log, and the counters
 * move by what the row changed. */
#include "journal/journal_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#define TEXT(s) ((struct text){s, sizeof(s) - 1})

static const struct id128 the_id = {{1, 2, 3}}, self = {{7}}, origin = {{8}}, other = {{9}};

static struct event event_of(uint32_t kind, hlc_time stamp)
{
    return (struct event){
        .kind = kind, .stamp = stamp, .origin = origin, .node = self, .seq = 4, .id = the_id};
}

static struct event put_of(hlc_time stamp, uint8_t sha, uint64_t size)
{
    struct event event = event_of(EVENT_PUT, stamp);

    event.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL;
    event.sha256[31] = sha;
    event.size = size;
    return event;
}

static struct record_header inline_body(uint64_t size)
{
    return (struct record_header){.type = RECORD_EVENT,
                                  .flags = RECORD_HAS_BODY,
                                  .event_bytes = 3,
                                  .blocks = 1,
                                  .body_bytes = (uint32_t)size,
                                  .size = size,
                                  .id = the_id};
}

static struct place place_at(lsn_t lsn)
{
    return (struct place){.volume = (uint32_t)(lsn / 1000 + 1), .offset = lsn % 1000, .lsn = lsn};
}

static struct entry *folded(const struct object *before, const struct event *event,
                            const struct record_header *header, lsn_t lsn)
{
    struct place place = place_at(lsn);
    struct entry *entry = NULL;

    assert_int_equal(fold_event(&entry, before, event, "raw", 3, header, &place, &self), 0);
    assert_non_null(entry);
    return entry;
}

/* The row after it; the entry goes. */
static struct object *row_after(const struct object *before, const struct event *event,
                                const struct record_header *header, lsn_t lsn)
{
    struct entry *entry = folded(before, event, header, lsn);
    struct object *row = entry->object;

    entry->object = NULL;
    entry_destroy(entry);
    assert_non_null(row);
    return row;
}

/* Bytes 5, 100 of them, put at 10 and lying at LSN 5000. */
static struct object *stored(void)
{
    struct event put = put_of(10, 5, 100);
    struct record_header header = inline_body(100);

    return row_after(NULL, &put, &header, 5000);
}

static void a_put_with_its_body_is_the_rows_place(void **state)
{
    struct event put = put_of(10, 5, 100);
    struct record_header header = inline_body(100);
    struct entry *entry = folded(NULL, &put, &header, 5000);
    uint8_t hash[SHA256_BYTES];

    (void)state;
    assert_int_equal(entry->object->flags, OBJECT_PUT | OBJECT_PLAIN);
    assert_int_equal(entry->object->place.lsn, 5000);
    assert_int_equal(entry->object->place.volume, 6);
    assert_int_equal(entry->object->record_bytes, record_bytes(&header));
    assert_true(entry->place_taken && !entry->place_moved);
    assert_int_equal(entry->inline_volume, 6);
    assert_int_equal(entry->inline_bytes, 100);
    assert_int_equal(entry->lsn, 5000);
    assert_int_equal(entry->seq, 4);
    assert_int_equal(entry->stamp, 10);
    assert_true(entry->adds_event && !entry->ends_origin && !entry->is_snapshot);
    assert_true(id_equal(&entry->origin, &origin) && id_equal(&entry->node, &self));
    event_hash("raw", 3, hash);
    assert_memory_equal(entry->hash, hash, sizeof hash);
    assert_int_equal(entry->event_bytes, 3);
    assert_memory_equal(entry->event, "raw", 3);
    assert_int_equal(entry->delta.events, 1);
    assert_int_equal(entry->delta.objects, 1);
    assert_int_equal(entry->delta.bytes, 100);
    entry_destroy(entry);
}

static void a_large_body_lies_in_its_file(void **state)
{
    struct event put = put_of(10, 5, 1 << 20);
    struct record_header header = {
        .type = RECORD_EVENT, .flags = RECORD_LARGE, .file = 77, .size = 1 << 20, .event_bytes = 3};
    struct entry *entry = folded(NULL, &put, &header, 5000);

    (void)state;
    assert_int_equal(entry->object->place.volume, PLACE_LARGE);
    assert_int_equal(entry->object->place.offset, 77);
    assert_int_equal(entry->object->place.lsn, 5000);
    assert_int_equal(entry->object->record_bytes, 0);
    assert_int_equal(entry->object->flags, OBJECT_PUT | OBJECT_PLAIN);
    assert_int_equal(entry->inline_volume, 0);
    assert_int_equal(entry->inline_bytes, 0);
    assert_true(entry->place_taken);
    entry_destroy(entry);
}

static void an_empty_body_has_a_place_too(void **state)
{
    struct event put = put_of(10, 5, 0);
    struct record_header header = inline_body(0);
    struct entry *entry = folded(NULL, &put, &header, 5000);

    (void)state;
    assert_int_equal(entry->object->place.lsn, 5000);
    assert_int_equal(entry->inline_volume, 6);
    assert_int_equal(entry->delta.objects, 1);
    assert_int_equal(entry->delta.bytes, 0);
    entry_destroy(entry);
}

/* Facts without bytes, bytes that the row does not name, bytes without a live row. */
static void other_bytes_are_not_taken(void **state)
{
    struct event put = put_of(10, 5, 100), older = put_of(9, 6, 100), unnamed = put_of(11, 5, 100);
    struct event deleted = event_of(EVENT_DELETE, 12);
    struct record_header header = inline_body(100), without = inline_body(100);
    struct record_header longer = inline_body(101);
    struct object *row, *after, *tombstone;

    (void)state;
    without.flags = 0;
    row = row_after(NULL, &put, &without, 5000);
    assert_true(place_is_none(&row->place));
    assert_int_equal(row->flags, OBJECT_PUT);
    struct entry *entry = folded(NULL, &put, &without, 5000);
    assert_false(entry->place_taken || entry->place_moved);
    assert_int_equal(entry->inline_volume, 0);
    entry_destroy(entry);

    after = row_after(NULL, &put, &longer, 5000); /* not as long as the event says */
    assert_true(place_is_none(&after->place));
    object_destroy(&after);

    after = row_after(row, &older, &header, 6000); /* its put has lost */
    assert_true(place_is_none(&after->place));
    assert_int_equal(after->sha256[31], 5);
    object_destroy(&after);

    unnamed.kind = EVENT_META; /* says nothing of bytes */
    unnamed.fields = 0;
    after = row_after(row, &unnamed, &header, 6000);
    assert_true(place_is_none(&after->place));
    object_destroy(&after);

    tombstone = row_after(row, &deleted, &header, 6000);
    after = row_after(tombstone, &put, &header, 7000);
    assert_true(place_is_none(&after->place));
    assert_int_equal(after->flags, OBJECT_DELETED);
    object_destroy(&after);
    object_destroy(&tombstone);
    object_destroy(&row);
}

static void the_highest_record_of_the_same_bytes_is_the_place(void **state)
{
    struct event put = put_of(10, 5, 100);
    struct record_header move = inline_body(100);
    struct object *before = stored();

    (void)state;
    move.type = RECORD_MOVE;
    move.from = 5000;
    for (lsn_t lsn = 4000; lsn <= 6000; lsn += 1000) {
        struct entry *entry = folded(before, &put, &move, lsn);
        bool higher = lsn > 5000;

        assert_int_equal(entry->object->place.lsn, higher ? lsn : 5000);
        assert_int_equal(entry->place_taken, higher);
        assert_int_equal(entry->place_moved, higher);
        assert_true(entry->object->flags & OBJECT_PLAIN);
        assert_int_equal(entry->delta.objects, 0);
        assert_int_equal(entry->delta.bytes, 0);
        if (higher) {
            assert_int_equal(entry->place_before.lsn, 5000);
            assert_int_equal(entry->size_before, 100);
            assert_int_equal(entry->record_bytes_before, before->record_bytes);
        }
        entry_destroy(entry);
    }
    object_destroy(&before);
}

/* Only a put into nothing says all that its row says. */
static void a_row_is_plain_only_by_the_put_that_made_it(void **state)
{
    struct event put = put_of(10, 5, 100), again = put_of(20, 5, 100);
    struct event cloud = event_of(EVENT_CLOUD, 15), meta = event_of(EVENT_META, 9);
    struct record_header header = inline_body(100), without = inline_body(100);
    struct record_header move = inline_body(100);
    struct object *before = stored(), *partial, *after;

    (void)state;
    without.flags = 0;
    after = row_after(before, &again, &header, 6000);
    assert_int_equal(after->place.lsn, 6000);
    assert_false(after->flags & OBJECT_PLAIN);
    object_destroy(&after);
    /* Stored once more at the same place in time: still no move. */
    after = row_after(before, &put, &header, 6000);
    assert_int_equal(after->place.lsn, 6000);
    assert_false(after->flags & OBJECT_PLAIN);
    object_destroy(&after);

    meta.fields = EVENT_HAS_NAME;
    meta.name = TEXT("n");
    partial = row_after(NULL, &meta, &without, 1000);
    after = row_after(partial, &put, &header, 6000);
    assert_int_equal(after->place.lsn, 6000);
    assert_false(after->flags & OBJECT_PLAIN);
    object_destroy(&after);
    object_destroy(&partial);

    /* A move of another kind of event with the body. */
    move.type = RECORD_MOVE;
    cloud.fields = EVENT_HAS_SHA256 | EVENT_HAS_CLOUD;
    cloud.cloud_state = CLOUD_STARTED;
    cloud.sha256[31] = 5;
    struct object *started = row_after(before, &cloud, &without, 5500);
    started->flags |= OBJECT_PLAIN;
    after = row_after(started, &cloud, &move, 6000);
    assert_int_equal(after->place.lsn, 6000);
    assert_false(after->flags & OBJECT_PLAIN);
    object_destroy(&after);
    object_destroy(&started);
    object_destroy(&before);
}

/* They stay live where they are, as what they were (journal/conflict.h). */
static void bytes_that_are_beaten_are_kept(void **state)
{
    struct event put = put_of(20, 6, 300);
    struct record_header without = inline_body(300);
    struct object *before = stored();

    (void)state;
    without.flags = 0;
    struct entry *entry = folded(before, &put, &without, 6000);
    assert_true(place_is_none(&entry->object->place));
    assert_false(entry->place_moved || entry->place_taken);
    assert_true(entry->conflict && entry->loser && !entry->loser_taken);
    assert_memory_equal(entry->loser, before, object_bytes(before));
    assert_int_equal(entry->delta.objects, 0);
    assert_int_equal(entry->delta.bytes, 200);
    entry_destroy(entry);

    /* Of other bytes that come along with their winner nothing is here. */
    before->place = (struct place){0};
    entry = folded(before, &put, &without, 6000);
    assert_true(entry->conflict && !entry->loser);
    entry_destroy(entry);
    object_destroy(&before);
}

/* As a rebuild meets them that comes to a moved record after its winner's. */
static void bytes_that_lose_as_they_come_are_kept(void **state)
{
    struct event put = put_of(9, 6, 300);
    struct record_header header = inline_body(300);
    struct object *before = stored();

    (void)state;
    header.type = RECORD_MOVE;
    struct entry *entry = folded(before, &put, &header, 6000);
    assert_memory_equal(entry->object, before, object_bytes(before));
    assert_false(entry->place_moved || entry->place_taken || entry->conflict);
    assert_true(entry->loser && entry->loser_taken);
    assert_int_equal(entry->loser->place.lsn, 6000);
    assert_int_equal(entry->loser->record_bytes, record_bytes(&header));
    assert_int_equal(entry->loser->sha256[31], 6);
    assert_int_equal(entry->loser->put_at.stamp, 9);
    entry_destroy(entry);

    header.flags = RECORD_LARGE;
    header.file = 77;
    entry = folded(before, &put, &header, 6000);
    assert_int_equal(entry->loser->place.volume, PLACE_LARGE);
    assert_int_equal(entry->loser->place.offset, 77);
    assert_int_equal(entry->loser->record_bytes, 0);
    entry_destroy(entry);

    header.flags = 0; /* without a body */
    entry = folded(before, &put, &header, 6000);
    assert_null(entry->loser);
    entry_destroy(entry);
    object_destroy(&before);
}

static void a_delete_leaves_the_old_place_and_keeps_nothing(void **state)
{
    struct event gone = event_of(EVENT_DELETE, 20);
    struct record_header without = {.type = RECORD_EVENT, .event_bytes = 3, .id = the_id};
    struct object *before = stored();

    (void)state;
    struct entry *entry = folded(before, &gone, &without, 6000);
    assert_true(entry->place_moved && !entry->loser && !entry->conflict);
    assert_int_equal(entry->place_before.lsn, 5000);
    assert_int_equal(entry->size_before, 100);
    entry_destroy(entry);
    object_destroy(&before);
}

/* ---- Drops ---- */

enum drop { OURS, OF_ANOTHER_NODE, OF_OTHER_BYTES, OF_ANOTHER_ID, A_HOLD, DROPS };

static void encode_drop(struct buf *raw, struct event *event, enum drop which)
{
    struct event_item item = {.id = the_id};

    item.sha256[31] = which == OF_OTHER_BYTES ? 6 : 5;
    if (which == OF_ANOTHER_ID)
        item.id = other;
    *event = event_of(which == A_HOLD ? EVENT_HOLD : EVENT_DROP, 20);
    if (which == OF_ANOTHER_NODE)
        event->node = other;
    event->fields = EVENT_HAS_ITEMS;
    event->items = &item;
    event->item_count = 1;
    event->prev[0] = 1;
    buf_reset(raw);
    event_encode(raw, event);
    assert_int_equal(buf_check(raw), 0);
    event->items = NULL;
}

static void only_our_own_statement_about_these_bytes_drops_them(void **state)
{
    struct record_header header = {.type = RECORD_EVENT, .id = the_id};
    struct object *before = stored();
    struct place place = place_at(6000);
    struct event event;
    struct buf raw;

    (void)state;
    buf_init(&raw, LIMIT_EVENT_BYTES);
    for (enum drop which = OURS; which < DROPS; which++) {
        struct entry *entry;

        encode_drop(&raw, &event, which);
        assert_int_equal(
            fold_event(&entry, before, &event, raw.data, raw.len, &header, &place, &self), 0);
        if (which == OURS) {
            assert_true(place_is_none(&entry->object->place));
            assert_int_equal(entry->object->record_bytes, 0);
            assert_int_equal(entry->object->flags, OBJECT_PUT);
            assert_true(entry->place_moved && !entry->place_taken);
        } else if (which == OF_ANOTHER_NODE) {
            assert_null(entry->object); /* not of our row at all */
        } else {
            assert_int_equal(entry->object->place.lsn, 5000);
            assert_int_equal(entry->object->record_bytes, before->record_bytes);
            assert_true(entry->object->flags & OBJECT_PLAIN);
            assert_false(entry->place_moved || entry->place_taken);
        }
        entry_destroy(entry);
    }
    buf_release(&raw);
    object_destroy(&before);
}

/* A drop speaks of copies below where it was first written, wherever it lies by now. */
static void a_drop_speaks_of_what_lay_below_it(void **state)
{
    static const struct {
        uint8_t type;
        lsn_t from, lsn;
        bool drops;
    } cases[] = {
        {RECORD_EVENT, 0, 4000, false},    {RECORD_EVENT, 0, 5000, false},
        {RECORD_EVENT, 0, 5001, true},     {RECORD_MOVE, 4000, 6000, false},
        {RECORD_MOVE, 5000, 6000, false},  {RECORD_MOVE, 5001, 6000, true},
        {RECORD_EVENT, 9999, 4000, false},
    };
    struct object *before = stored();
    struct event event;
    struct buf raw;

    (void)state;
    buf_init(&raw, LIMIT_EVENT_BYTES);
    encode_drop(&raw, &event, OURS);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct record_header header = {.type = cases[i].type, .from = cases[i].from, .id = the_id};
        struct place place = place_at(cases[i].lsn);
        struct entry *entry;

        assert_int_equal(
            fold_event(&entry, before, &event, raw.data, raw.len, &header, &place, &self), 0);
        if (place_is_none(&entry->object->place) != cases[i].drops)
            fail_msg("case %zu", i);
        entry_destroy(entry);
    }
    buf_release(&raw);
    object_destroy(&before);
}

/* ---- Copies ---- */

/* A body that came as a copy lies where its record lies, whichever id this node had then: it moves,
 * and is found again, when it has another one. Without a body another node's copy is its own. */
static void a_copy_lies_where_its_record_lies(void **state)
{
    struct record_header header = inline_body(100), without = {.type = RECORD_EVENT, .id = the_id};
    struct object *before = stored();
    struct place place = place_at(7000);
    struct entry *entry;
    struct event event;
    struct buf raw;

    (void)state;
    buf_init(&raw, LIMIT_EVENT_BYTES);
    encode_drop(&raw, &event, A_HOLD);
    for (int moved = 0; moved < 2; moved++) {
        header.type = moved ? RECORD_MOVE : RECORD_EVENT;
        for (int old = 0; old < 2; old++) {
            event.node = old ? other : self;
            assert_true(fold_is_copy_here(&event, &header, &self));
            assert_int_equal(
                fold_event(&entry, before, &event, raw.data, raw.len, &header, &place, &self), 0);
            assert_non_null(entry->object);
            assert_int_equal(entry->object->place.lsn, 7000);
            assert_true(entry->place_taken && entry->place_moved);
            entry_destroy(entry);
        }
    }
    assert_false(fold_is_copy_here(&event, &without, &self));
    assert_int_equal(fold_event(&entry, before, &event, raw.data, raw.len, &without, &place, &self),
                     0);
    assert_null(entry->object);
    entry_destroy(entry);
    buf_release(&raw);
    object_destroy(&before);
}

/* ---- What the applier needs besides ---- */

static void a_run_ends_by_the_first_event_of_the_next(void **state)
{
    struct event first = put_of(10, 5, 100), freeze = event_of(EVENT_FREEZE, 11);
    struct record_header header = inline_body(100);

    (void)state;
    first.fields |= EVENT_HAS_FOLLOWS;
    first.follows = (struct event_ref){.origin = other, .seq = 3};
    struct entry *entry = folded(NULL, &first, &header, 5000);
    assert_true(entry->ends_origin);
    assert_true(id_equal(&entry->ended, &other));
    entry_destroy(entry);

    /* A freeze has a `follows` that means something else, … */
    freeze.fields = EVENT_HAS_FOLLOWS;
    freeze.follows = first.follows;
    entry = folded(NULL, &freeze, &header, 5000);
    assert_false(entry->ends_origin);
    assert_null(entry->object);
    assert_int_equal(entry->delta.events, 1);
    entry_destroy(entry);

    /* … and another name for it. */
    freeze.fields = EVENT_HAS_FOLLOWS | EVENT_HAS_AFTER;
    freeze.after = first.follows;
    entry = folded(NULL, &freeze, &header, 5000);
    assert_true(entry->ends_origin);
    assert_true(id_equal(&entry->ended, &other));
    entry_destroy(entry);
}

static void the_kinds_that_are_in_rows(void **state)
{
    static const bool in_rows[16] = {
        [EVENT_PUT] = true,   [EVENT_META] = true, [EVENT_DELETE] = true,
        [EVENT_CLOUD] = true, [EVENT_HOLD] = true, [EVENT_DROP] = true};

    (void)state;
    for (uint32_t kind = 0; kind < 16; kind++) {
        struct event event = event_of(kind, 10);

        bool copies = kind == EVENT_HOLD || kind == EVENT_DROP;

        assert_int_equal(fold_concerns_row(&event), in_rows[kind]);
        assert_int_equal(fold_is_covered(&event),
                         in_rows[kind] || kind == EVENT_MEMBER || kind == EVENT_FEATURE);
        assert_int_equal(fold_needs_row(&event, &event.node), in_rows[kind]);
        assert_int_equal(fold_needs_row(&event, &other), in_rows[kind] && !copies);
        event.id = (struct id128){{0}}; /* copies of many: nobody's row */
        assert_int_equal(fold_concerns_row(&event), in_rows[kind] && !copies);
    }
}

static void what_is_owed_to_the_cloud_follows_the_row(void **state)
{
    struct event put = put_of(10, 5, 100), uploaded = event_of(EVENT_CLOUD, 20);
    struct record_header header = inline_body(100), without = inline_body(0);

    (void)state;
    put.level = 1;
    without.flags = 0;
    struct entry *entry = folded(NULL, &put, &header, 5000);
    assert_true(entry->owed_changed && entry->owed_after);
    assert_int_equal(entry->delta.outbox, 1);
    assert_int_equal(entry->delta.outbox_bytes, 100);

    uploaded.fields = EVENT_HAS_CLOUD | EVENT_HAS_SHA256;
    uploaded.cloud_state = CLOUD_UPLOADED;
    uploaded.sha256[31] = 5;
    struct entry *after = folded(entry->object, &uploaded, &without, 6000);
    assert_true(after->owed_changed && !after->owed_after);
    assert_int_equal(after->delta.outbox, -1);
    assert_int_equal(after->delta.outbox_bytes, -100);
    assert_int_equal(after->delta.objects, 0);
    entry_destroy(after);
    entry_destroy(entry);
}

/* ---- Counters ---- */

enum { UNKNOWN, PARTIAL, LIVE, OWED, ELSEWHERE, TOMBSTONE, TO_MARK, TO_PURGE, ROWS };

/* The counters are sums over rows: whatever way leads from one set of rows to another, the steps
 * add up to the difference. */
static void steps_between_rows_add_up(void **state)
{
    static const struct delta sums[ROWS] = {
        [LIVE] = {.objects = 1, .bytes = 100},
        [OWED] = {.objects = 1, .bytes = 70, .outbox = 1, .outbox_bytes = 70},
        [ELSEWHERE] = {.objects = 1, .bytes = 60}, /* owed by who has the bytes */
        [TOMBSTONE] = {.deleted = 1},
        [TO_MARK] = {.deleted = 1, .marks = 1},
        [TO_PURGE] = {.deleted = 1, .purges = 1},
    };
    struct object rows[ROWS] = {
        [PARTIAL] = {.id = the_id, .flags = OBJECT_CLOUD, .size = 9},
        [LIVE] = {.id = the_id, .flags = OBJECT_PUT, .size = 100, .put_at.stamp = 10},
        [OWED] = {.id = the_id,
                  .flags = OBJECT_PUT,
                  .size = 70,
                  .level = 1,
                  .put_at.stamp = 11,
                  .place = {.volume = 1, .offset = 512, .lsn = 600}},
        [ELSEWHERE] =
            {.id = the_id, .flags = OBJECT_PUT, .size = 60, .level = 1, .put_at.stamp = 11},
        [TOMBSTONE] = {.id = the_id, .flags = OBJECT_DELETED, .size = 9, .deleted_at = 12},
        [TO_MARK] = {.id = the_id, .flags = OBJECT_DELETED | OBJECT_CLOUD, .deleted_at = 12},
        [TO_PURGE] = {.id = the_id,
                      .flags = OBJECT_DELETED | OBJECT_CLOUD | OBJECT_MARKED | OBJECT_PURGE,
                      .deleted_at = 12},
    };

    (void)state;
    for (int a = 0; a < ROWS; a++) {
        for (int b = 0; b < ROWS; b++) {
            const struct object *before = a == UNKNOWN ? NULL : &rows[a];
            const struct object *after = b == UNKNOWN ? NULL : &rows[b];
            struct hash128 from = object_digest(before), to = object_digest(after);
            struct delta d = {0};

            fold_delta(&d, before, after);
            assert_int_equal(d.events, 0);
            assert_int_equal(d.objects, sums[b].objects - sums[a].objects);
            assert_int_equal(d.bytes, sums[b].bytes - sums[a].bytes);
            assert_int_equal(d.deleted, sums[b].deleted - sums[a].deleted);
            assert_int_equal(d.outbox, sums[b].outbox - sums[a].outbox);
            assert_int_equal(d.outbox_bytes, sums[b].outbox_bytes - sums[a].outbox_bytes);
            assert_int_equal(d.marks, sums[b].marks - sums[a].marks);
            assert_int_equal(d.purges, sums[b].purges - sums[a].purges);
            assert_int_equal(from.low + d.digest.low, to.low);
            assert_int_equal(from.high + d.digest.high, to.high);
        }
    }
}

static void every_counter_is_added(void **state)
{
    struct delta a = {1, 2, 3, 4, 5, 6, 11, 12, 13, 14, {7, 8}};
    const struct delta b = {
        100, 200, 300, -400, 500, 600, 1100, 1200, 1300, 1400, {700, UINT64_MAX}};
    struct db_state sums = {.events = 1,
                            .objects = 2,
                            .deleted = 3,
                            .bytes = 1000,
                            .outbox = 5,
                            .outbox_bytes = 6,
                            .wanted = 11,
                            .wanted_bytes = 12,
                            .marks = 13,
                            .purges = 14,
                            .digest = {7, 8},
                            .position = 9,
                            .event_bytes = 10};

    (void)state;
    delta_add(&a, &b);
    assert_int_equal(a.events, 101);
    assert_int_equal(a.objects, 202);
    assert_int_equal(a.deleted, 303);
    assert_int_equal(a.bytes, -396);
    assert_int_equal(a.outbox, 505);
    assert_int_equal(a.outbox_bytes, 606);
    assert_int_equal(a.wanted, 1111);
    assert_int_equal(a.wanted_bytes, 1212);
    assert_int_equal(a.marks, 1313);
    assert_int_equal(a.purges, 1414);
    assert_int_equal(a.digest.low, 707);
    assert_int_equal(a.digest.high, 7); /* it wraps */

    state_add(&sums, &b);
    assert_int_equal(sums.events, 101);
    assert_int_equal(sums.objects, 202);
    assert_int_equal(sums.deleted, 303);
    assert_int_equal(sums.bytes, 600);
    assert_int_equal(sums.outbox, 505);
    assert_int_equal(sums.outbox_bytes, 606);
    assert_int_equal(sums.wanted, 1111);
    assert_int_equal(sums.wanted_bytes, 1212);
    assert_int_equal(sums.marks, 1313);
    assert_int_equal(sums.purges, 1414);
    assert_int_equal(sums.digest.low, 707);
    assert_int_equal(sums.digest.high, 7);
    assert_int_equal(sums.position, 9);
    assert_int_equal(sums.event_bytes, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_with_its_body_is_the_rows_place),
        cmocka_unit_test(a_large_body_lies_in_its_file),
        cmocka_unit_test(an_empty_body_has_a_place_too),
        cmocka_unit_test(other_bytes_are_not_taken),
        cmocka_unit_test(the_highest_record_of_the_same_bytes_is_the_place),
        cmocka_unit_test(a_row_is_plain_only_by_the_put_that_made_it),
        cmocka_unit_test(bytes_that_are_beaten_are_kept),
        cmocka_unit_test(bytes_that_lose_as_they_come_are_kept),
        cmocka_unit_test(a_delete_leaves_the_old_place_and_keeps_nothing),
        cmocka_unit_test(only_our_own_statement_about_these_bytes_drops_them),
        cmocka_unit_test(a_drop_speaks_of_what_lay_below_it),
        cmocka_unit_test(a_copy_lies_where_its_record_lies),
        cmocka_unit_test(a_run_ends_by_the_first_event_of_the_next),
        cmocka_unit_test(the_kinds_that_are_in_rows),
        cmocka_unit_test(what_is_owed_to_the_cloud_follows_the_row),
        cmocka_unit_test(steps_between_rows_add_up),
        cmocka_unit_test(every_counter_is_added),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
