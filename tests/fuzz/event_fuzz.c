/*
 * Goal: bytes that are no event are refused; those that are one survive being written again: the
 * same members, not more bytes than before, and from then on the same bytes. Rows folded from it
 * obey the merge rules: idempotent, and a tombstone hides all else.
 * Input: an event's bytes.
 */
#include "journal/event.h"
#include "journal/merge.h"
#include "tests/fuzz/fuzz.h"

static void same_text(struct text a, struct text b)
{
    CHECK(a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0));
}

static void same_event(const struct event *a, const struct event *b)
{
    CHECK(id_equal(&a->origin, &b->origin) && id_equal(&a->node, &b->node));
    CHECK(id_equal(&a->id, &b->id) && id_equal(&a->subject, &b->subject));
    CHECK(a->seq == b->seq && a->stamp == b->stamp && a->kind == b->kind);
    CHECK(memcmp(a->prev, b->prev, sizeof a->prev) == 0 && a->fields == b->fields);
    CHECK(memcmp(a->sha256, b->sha256, sizeof a->sha256) == 0);
    CHECK(a->size == b->size && a->level == b->level && a->expires_ms == b->expires_ms);
    CHECK(a->reason == b->reason && a->purge == b->purge);
    CHECK(a->cloud_state == b->cloud_state && a->member_state == b->member_state);
    CHECK(id_equal(&a->follows.origin, &b->follows.origin) && a->follows.seq == b->follows.seq);
    CHECK(memcmp(a->follows.hash, b->follows.hash, sizeof a->follows.hash) == 0);
    CHECK(a->item_count == b->item_count);
    CHECK(a->item_count == 0 || memcmp(a->items, b->items, a->item_count * sizeof *a->items) == 0);
    same_text(a->name, b->name);
    same_text(a->type, b->type);
    same_text(a->user_meta, b->user_meta);
    same_text(a->backend, b->backend);
    same_text(a->bucket, b->bucket);
    same_text(a->key, b->key);
    same_text(a->etag, b->etag);
    CHECK(a->removed.stamp == b->removed.stamp && id_equal(&a->removed.origin, &b->removed.origin));
    same_text(a->address, b->address);
    same_text(a->sums, b->sums);
}

static void check_round_trip(const struct event *event, size_t len)
{
    struct buf first = {0}, second = {0};
    struct event again;

    event_encode(&first, event);
    CHECK(buf_check(&first) == 0 && first.len <= len);
    uint8_t *copy = exact_copy(first.data, first.len);
    CHECK(event_decode(&again, copy, first.len) == 0);
    same_event(event, &again);
    event_encode(&second, &again);
    CHECK(buf_check(&second) == 0 && second.len == first.len);
    CHECK(memcmp(first.data, second.data, first.len) == 0);
    free(copy);
    buf_release(&first);
    buf_release(&second);
}

static void check_items(const struct event *event, const uint8_t *data, size_t len)
{
    struct event_item items[4];
    size_t count = event_items(data, len, items, 4);

    CHECK(count == (event->item_count < 4 ? event->item_count : 4));
    CHECK(count == 0 || memcmp(items, event->items, count * sizeof *items) == 0);
}

/* An upload leaves its place in the row, and that is one that other nodes take. */
static void check_place(const struct object *row, const struct event *event)
{
    struct cloud_place place, again;

    if (event->kind != EVENT_CLOUD || event->cloud_state != CLOUD_UPLOADED)
        return;
    CHECK(object_cloud(row, &place));
    same_text(place.backend, event->backend);
    same_text(place.bucket, event->bucket);
    same_text(place.key, event->key);
    same_text(place.etag, event->etag);
    CHECK(cloud_place_read(&again, object_cloud_place(row)));
}

static void check_merge(const struct event *event)
{
    struct event delete = *event;
    struct object *once, *twice, *dead, *revived;

    CHECK(merge_event(&once, NULL, event) == 0);
    CHECK(merge_event(&twice, once, event) == 0);
    struct hash128 a = object_digest(once), b = object_digest(twice);
    CHECK(a.low == b.low && a.high == b.high);
    check_place(once, event);
    delete.kind = EVENT_DELETE;
    delete.fields = 0;
    CHECK(merge_event(&dead, once, &delete) == 0);
    CHECK(dead->flags & OBJECT_DELETED);
    check_place(dead, event);
    CHECK(merge_event(&revived, dead, event) == 0);
    CHECK(revived->flags & OBJECT_DELETED);
    a = object_digest(dead), b = object_digest(revived);
    CHECK(a.low == b.low && a.high == b.high);
    object_destroy(&once);
    object_destroy(&twice);
    object_destroy(&dead);
    object_destroy(&revived);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = exact_copy(data, size);
    struct event event;

    int rc = event_decode(&event, copy, size);
    CHECK(rc == 0 || rc == ERR_INVALID || rc == ERR_UNSUPPORTED);
    CHECK(event_kind_name(event.kind));
    if (rc == 0) {
        struct event cut;
        bool known = strcmp(event_kind_name(event.kind), "unknown") != 0;

        CHECK(event_decode(&cut, copy, size - 1) != 0);
        check_items(&event, copy, size);
        if (known)
            check_round_trip(&event, size);
        if (event.kind == EVENT_PUT || event.kind == EVENT_META || event.kind == EVENT_DELETE ||
            event.kind == EVENT_CLOUD)
            check_merge(&event);
    }
    free(copy);
    return 0;
}
