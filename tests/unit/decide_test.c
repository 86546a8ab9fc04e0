/* Goal: what a client asks becomes the one right event, no event, or the right refusal, for every
 * state that an object can be in. */
#include "journal/decide.h"

#include "journal/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

#define TEXT(s) ((struct text){s, sizeof(s) - 1})

static const struct id128 the_id = {{1, 2, 3}};
static const struct place the_place = {.disk = 1, .volume = 2, .offset = 512, .lsn = 4096};

static struct object *live_row(void)
{
    const struct object like = {.id = the_id,
                                .flags = OBJECT_PUT,
                                .level = 1,
                                .put_at = {.stamp = 10},
                                .sha256 = {5},
                                .size = 100,
                                .expires_ms = 77,
                                .place = the_place};
    struct object *row = object_create(&like, TEXT("name"), TEXT("a/b"), TEXT("{}"));

    assert_non_null(row);
    return row;
}

static struct object *tombstone(void)
{
    const struct object like = {.id = the_id, .flags = OBJECT_DELETED, .deleted_at = 10};
    struct object *row = object_create(&like, TEXT(""), TEXT(""), TEXT(""));

    assert_non_null(row);
    return row;
}

static struct object *partial_row(void)
{
    const struct object like = {
        .id = the_id, .flags = OBJECT_CLOUD, .level = 2, .name_at = {.stamp = 3}};
    struct object *row = object_create(&like, TEXT("waits"), TEXT(""), TEXT(""));

    assert_non_null(row);
    return row;
}

static struct request put(void)
{
    return (struct request){.kind = CHANGE_PUT,
                            .id = the_id,
                            .fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL,
                            .sha256 = {5},
                            .size = 100};
}

static struct request request_of(enum change_kind kind)
{
    return (struct request){.kind = kind, .id = the_id};
}

static bool has_text(struct text text, const char *expected)
{
    return text.len == strlen(expected) && memcmp(text.ptr, expected, text.len) == 0;
}

static void unchanged(const struct object *row, const struct request *request)
{
    struct decision d;

    assert_int_equal(decide(&d, row, request), 0);
    assert_int_equal(d.verdict, VERDICT_UNCHANGED);
    assert_false(d.store_body);
}

static void refused(const struct object *row, const struct request *request, int rc)
{
    struct decision d;

    assert_int_equal(decide(&d, row, request), rc);
}

static struct event committed(const struct object *row, const struct request *request,
                              uint32_t kind, bool store_body)
{
    struct decision d;

    assert_int_equal(decide(&d, row, request), 0);
    assert_int_equal(d.verdict, VERDICT_COMMIT);
    assert_int_equal(d.store_body, store_body);
    assert_int_equal(d.event.kind, kind);
    assert_true(id_equal(&d.event.id, &the_id));
    return d.event;
}

static void a_put_of_an_unknown_id_is_stored_as_asked(void **state)
{
    struct request request = put();

    (void)state;
    struct event event = committed(NULL, &request, EVENT_PUT, true);
    assert_int_equal(event.fields, EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL);
    request.fields |=
        EVENT_HAS_NAME | EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES | EVENT_HAS_LEVEL;
    request.level = 2;
    request.name = TEXT("n");
    request.type = TEXT("t/t");
    request.user_meta = TEXT("{\"a\":\"b\"}");
    request.expires_ms = 5;
    event = committed(NULL, &request, EVENT_PUT, true);
    assert_int_equal(event.fields, request.fields);
    assert_memory_equal(event.sha256, request.sha256, SHA256_BYTES);
    assert_int_equal(event.size, 100);
    assert_int_equal(event.level, 2);
    assert_int_equal(event.expires_ms, 5);
    assert_true(has_text(event.name, "n"));
    assert_true(has_text(event.type, "t/t"));
    assert_true(has_text(event.user_meta, "{\"a\":\"b\"}"));
}

static void a_put_that_names_no_level_is_local(void **state)
{
    struct request request = put();

    (void)state;
    request.fields &= ~(uint32_t)EVENT_HAS_LEVEL;
    request.level = 2; /* not said */
    struct event event = committed(NULL, &request, EVENT_PUT, true);
    assert_true(event.fields & EVENT_HAS_LEVEL);
    assert_int_equal(event.level, 0);
}

static void a_partial_row_is_unknown_to_clients(void **state)
{
    struct object *row = partial_row();
    struct request request = put(), meta = request_of(CHANGE_META);

    (void)state;
    struct event event = committed(row, &request, EVENT_PUT, true);
    assert_int_equal(event.fields, EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL);
    refused(row, &meta, ERR_NOT_FOUND);
    meta.kind = CHANGE_DROP;
    refused(row, &meta, ERR_NOT_FOUND);
    meta.kind = CHANGE_DELETE;
    (void)committed(row, &meta, EVENT_DELETE, false);
    object_destroy(&row);
}

static void other_bytes_under_an_id_are_a_conflict(void **state)
{
    struct object *row = live_row();
    struct request request = put();

    (void)state;
    request.sha256[31] = 1;
    request.verified = true;
    request.checked = the_place;
    refused(row, &request, ERR_CONFLICT);
    request.sha256[0] = 4; /* as different, and less */
    refused(row, &request, ERR_CONFLICT);
    request = put();
    request.size++;
    refused(row, &request, ERR_CONFLICT);
    object_destroy(&row);
}

static void a_tombstone_refuses_put_and_meta(void **state)
{
    struct object *row = tombstone();
    struct request request = put(), meta = request_of(CHANGE_META);

    (void)state;
    refused(row, &request, ERR_DELETED);
    refused(row, &meta, ERR_DELETED);
    meta.fields = EVENT_HAS_LEVEL;
    refused(row, &meta, ERR_DELETED);
    object_destroy(&row);
}

static void the_same_bytes_are_no_news_only_with_a_verified_copy(void **state)
{
    struct object *row = live_row();
    struct request request = put();

    (void)state;
    refused(row, &request, ERR_UNVERIFIED);
    request.checked = the_place;
    refused(row, &request, ERR_UNVERIFIED);
    request.verified = true;
    unchanged(row, &request);
    request.checked.offset++; /* cleaning moved it since the look */
    refused(row, &request, ERR_UNVERIFIED);
    request.verified = false;
    request.damaged = true;
    refused(row, &request, ERR_UNVERIFIED);
    object_destroy(&row);
}

static void without_a_good_copy_the_same_bytes_are_stored_again(void **state)
{
    struct object *row = live_row();
    struct request request = put();

    (void)state;
    request.damaged = true;
    request.checked = the_place;
    struct event event = committed(row, &request, EVENT_PUT, true);
    assert_int_equal(event.level, 1); /* the row's: never lowered */
    assert_true(event.fields & EVENT_HAS_TYPE);
    assert_true(has_text(event.type, "a/b"));
    assert_false(event.fields & (EVENT_HAS_NAME | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES));

    row->place = (struct place){0};
    request.damaged = false;
    request.checked = (struct place){0};
    request.level = 2;
    request.fields |= EVENT_HAS_TYPE;
    request.type = TEXT("c/d");
    event = committed(row, &request, EVENT_PUT, true);
    assert_int_equal(event.level, 2);
    assert_true(has_text(event.type, "c/d"));
    /* Nothing is said of a type that neither has. */
    struct object *bare = object_create(row, TEXT("name"), TEXT(""), TEXT(""));
    assert_non_null(bare);
    request.fields &= ~(uint32_t)EVENT_HAS_TYPE;
    event = committed(bare, &request, EVENT_PUT, true);
    assert_false(event.fields & EVENT_HAS_TYPE);
    object_destroy(&bare);
    /* A look at nothing is no look. */
    request.verified = true;
    (void)committed(row, &request, EVENT_PUT, true);
    object_destroy(&row);
}

static void a_put_of_the_same_bytes_changes_what_differs(void **state)
{
    struct object *row = live_row();
    struct request request = put();

    (void)state;
    request.verified = true;
    request.checked = the_place;
    request.fields |= EVENT_HAS_NAME | EVENT_HAS_TYPE | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES;
    request.level = 1;
    request.name = TEXT("name");
    request.type = TEXT("other/type");
    request.user_meta = TEXT("{}");
    request.expires_ms = 77;
    unchanged(row, &request);
    request.level = 0;
    unchanged(row, &request);
    request.level = 2;
    struct event event = committed(row, &request, EVENT_META, false);
    assert_int_equal(event.fields, EVENT_HAS_LEVEL);
    assert_int_equal(event.level, 2);
    request.level = 0;
    request.name = TEXT("namE");
    event = committed(row, &request, EVENT_META, false);
    assert_int_equal(event.fields, EVENT_HAS_NAME);
    assert_true(has_text(event.name, "namE"));
    request.fields &= ~(uint32_t)EVENT_HAS_NAME;
    unchanged(row, &request);
    object_destroy(&row);
}

static void meta_writes_what_differs_and_nothing_else(void **state)
{
    struct object *row = live_row();
    struct request meta = request_of(CHANGE_META);

    (void)state;
    unchanged(row, &meta);
    meta.fields = EVENT_HAS_NAME | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES | EVENT_HAS_LEVEL;
    meta.level = 1;
    meta.name = TEXT("name");
    meta.user_meta = TEXT("{}");
    meta.expires_ms = 77;
    unchanged(row, &meta);
    meta.user_meta = TEXT("{\"a\":\"b\"}");
    struct event event = committed(row, &meta, EVENT_META, false);
    assert_int_equal(event.fields, EVENT_HAS_USER_META);
    assert_true(has_text(event.user_meta, "{\"a\":\"b\"}"));
    meta.expires_ms = 0; /* never */
    meta.name = TEXT("");
    event = committed(row, &meta, EVENT_META, false);
    assert_int_equal(event.fields, EVENT_HAS_USER_META | EVENT_HAS_EXPIRES | EVENT_HAS_NAME);
    assert_int_equal(event.expires_ms, 0);
    assert_int_equal(event.name.len, 0);
    object_destroy(&row);
}

static void meta_never_lowers_a_level(void **state)
{
    struct object *row = live_row();
    struct request meta = request_of(CHANGE_META);

    (void)state;
    meta.fields = EVENT_HAS_LEVEL | EVENT_HAS_NAME;
    meta.name = TEXT("new");
    meta.level = 0;
    refused(row, &meta, ERR_CONFLICT); /* all of it, the name too */
    meta.fields = EVENT_HAS_NAME;
    (void)committed(row, &meta, EVENT_META, false); /* no level said */
    refused(NULL, &meta, ERR_NOT_FOUND);
    object_destroy(&row);
}

static void what_needs_a_level_changes_nothing_below_it(void **state)
{
    struct object *row = live_row(); /* of level 1 */
    struct request meta = request_of(CHANGE_META);

    (void)state;
    assert_int_equal(row->level, 1);
    meta.fields = EVENT_HAS_NAME;
    meta.name = TEXT("new");
    meta.needs_level = 2;
    refused(row, &meta, ERR_RANGE);
    refused(NULL, &meta, ERR_NOT_FOUND);
    meta.fields |= EVENT_HAS_LEVEL;
    meta.level = 1;
    refused(row, &meta, ERR_RANGE);
    meta.level = 0;
    refused(row, &meta, ERR_CONFLICT);
    meta.level = 2;
    (void)committed(row, &meta, EVENT_META, false);
    meta.fields = EVENT_HAS_NAME;
    meta.needs_level = 1;
    (void)committed(row, &meta, EVENT_META, false);
    object_destroy(&row);
}

static void a_copy_is_held_of_exactly_what_the_row_names(void **state)
{
    struct object *row = live_row(), *deleted = tombstone(), *partial = partial_row();
    struct request request = put();
    struct decision d;

    (void)state;
    request.kind = CHANGE_HOLD;
    unchanged(row, &request); /* it has one */
    request.damaged = true;
    unchanged(row, &request); /* that is not known to be damaged */
    request.checked = the_place;
    assert_int_equal(decide(&d, row, &request), 0);
    assert_int_equal(d.verdict, VERDICT_COMMIT);
    assert_true(d.store_body);
    request.checked.offset++;
    unchanged(row, &request);
    request.damaged = false;
    refused(NULL, &request, ERR_NOT_FOUND);
    refused(partial, &request, ERR_NOT_FOUND);
    refused(deleted, &request, ERR_DELETED);
    row->place = (struct place){0};
    assert_int_equal(decide(&d, row, &request), 0);
    assert_int_equal(d.verdict, VERDICT_COMMIT);
    assert_true(d.store_body);
    assert_int_equal(d.event.kind, EVENT_HOLD);
    assert_int_equal(d.event.fields, EVENT_HAS_ITEMS);
    assert_int_equal(d.event.item_count, 1);
    assert_true(id_equal(&d.event.items->id, &the_id));
    assert_memory_equal(d.event.items->sha256, put().sha256, SHA256_BYTES);
    for (int less = 0; less < 2; less++) {
        request.sha256[0] = less ? 4 : 6;
        refused(row, &request, ERR_CONFLICT);
        request.sha256[0] = 5;
        request.size = less ? 99 : 101;
        refused(row, &request, ERR_CONFLICT);
        request.size = 100;
    }
    object_destroy(&row);
    object_destroy(&deleted);
    object_destroy(&partial);
}

static void a_delete_of_anything_commits_once(void **state)
{
    struct object *row = live_row(), *deleted = tombstone();
    struct request request = request_of(CHANGE_DELETE);

    (void)state;
    struct event event = committed(NULL, &request, EVENT_DELETE, false);
    assert_int_equal(event.fields, 0);
    event = committed(row, &request, EVENT_DELETE, false);
    assert_int_equal(event.fields, 0);
    unchanged(deleted, &request);
    request.purge = true;
    event = committed(row, &request, EVENT_DELETE, false);
    assert_int_equal(event.fields, EVENT_HAS_PURGE);
    assert_true(event.purge);
    object_destroy(&row);
    object_destroy(&deleted);
}

static void a_tombstone_takes_a_delete_that_asks_for_the_first_purge(void **state)
{
    struct request request = request_of(CHANGE_DELETE);
    struct object *row = tombstone();

    (void)state;
    request.purge = true;
    struct event event = committed(row, &request, EVENT_DELETE, false);
    assert_int_equal(event.fields, EVENT_HAS_PURGE);
    assert_true(event.purge);
    row->flags |= OBJECT_PURGE;
    unchanged(row, &request);
    request.purge = false;
    unchanged(row, &request);
    object_destroy(&row);
}

static void expiry_deletes_only_what_still_expires(void **state)
{
    struct object *row = live_row();
    struct request request = request_of(CHANGE_DELETE);

    (void)state;
    request.reason = DELETE_EXPIRED;
    struct event event = committed(row, &request, EVENT_DELETE, false);
    assert_int_equal(event.fields, EVENT_HAS_REASON);
    assert_int_equal(event.reason, DELETE_EXPIRED);
    request.fields = EVENT_HAS_EXPIRES;
    request.expires_ms = 77;
    (void)committed(row, &request, EVENT_DELETE, false);
    row->expires_ms = 78; /* prolonged meanwhile */
    unchanged(row, &request);
    row->expires_ms = 0;
    unchanged(row, &request);
    request.fields = 0;
    unchanged(row, &request);
    unchanged(NULL, &request);
    object_destroy(&row);
}

static void a_drop_names_the_copy_that_was_found_bad(void **state)
{
    struct object *row = live_row(), *deleted = tombstone();
    struct request request = request_of(CHANGE_DROP);
    struct decision d;

    (void)state;
    request.checked = the_place;
    assert_int_equal(decide(&d, row, &request), 0);
    assert_int_equal(d.verdict, VERDICT_COMMIT);
    assert_int_equal(d.event.kind, EVENT_DROP);
    assert_false(d.store_body);
    assert_int_equal(d.event.fields, EVENT_HAS_ITEMS);
    assert_int_equal(d.event.item_count, 1);
    assert_true(id_equal(&d.event.items[0].id, &the_id));
    assert_memory_equal(d.event.items[0].sha256, put().sha256, SHA256_BYTES);
    refused(NULL, &request, ERR_NOT_FOUND);
    unchanged(deleted, &request);
    request.checked.volume++;
    unchanged(row, &request);
    row->place = request.checked = (struct place){0};
    unchanged(row, &request);
    object_destroy(&row);
    object_destroy(&deleted);
}

static void a_move_is_by_compare_and_set(void **state)
{
    struct object *row = live_row(), *deleted = tombstone();
    struct request request = request_of(CHANGE_MOVE);

    (void)state;
    request.checked = the_place;
    (void)committed(row, &request, 0, true);
    request.checked.offset++;
    unchanged(row, &request);
    unchanged(deleted, &request);
    refused(NULL, &request, ERR_NOT_FOUND);
    object_destroy(&row);
    object_destroy(&deleted);
}

/* ---- Conditions: those that never and always hold for what is there ---- */

static const struct condition absent = {.none_match = {.sent = true, .any = true}};
static const struct condition present = {.match = {.sent = true, .any = true}};
static const struct condition this_tag = {
    .match = {.sent = true, .count = 1, .sha256 = {[0] = {5}}}};
static const struct condition other_tag = {
    .match = {.sent = true, .count = 1, .sha256 = {[0] = {6}}}};

static void a_condition_on_an_unknown_id_holds_where_it_asks_for_none(void **state)
{
    struct object *partial = partial_row();
    const struct object *rows[] = {NULL, partial};
    struct request request = put(), delete = request_of(CHANGE_DELETE);
    struct request meta = request_of(CHANGE_META);

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        request.condition = delete.condition = meta.condition = &present;
        refused(rows[i], &request, ERR_PRECONDITION);
        refused(rows[i], &delete, ERR_PRECONDITION);
        refused(rows[i], &meta, ERR_NOT_FOUND); /* that comes first */
        request.condition = delete.condition = &this_tag;
        refused(rows[i], &request, ERR_PRECONDITION);
        refused(rows[i], &delete, ERR_PRECONDITION);
        request.condition = delete.condition = meta.condition = &absent;
        (void)committed(rows[i], &request, EVENT_PUT, true);
        (void)committed(rows[i], &delete, EVENT_DELETE, false);
        refused(rows[i], &meta, ERR_NOT_FOUND);
    }
    object_destroy(&partial);
}

static void a_conditional_put_of_a_live_id_is_judged_before_its_bytes(void **state)
{
    struct object *row = live_row();
    struct request request = put(), other = put();

    (void)state;
    other.sha256[0] = 9;
    request.condition = other.condition = &absent;
    refused(row, &other, ERR_PRECONDITION);   /* not CONFLICT */
    refused(row, &request, ERR_PRECONDITION); /* not UNVERIFIED */
    request.verified = true;
    request.checked = the_place;
    refused(row, &request, ERR_PRECONDITION); /* not unchanged */
    request.condition = other.condition = &other_tag;
    refused(row, &request, ERR_PRECONDITION);
    refused(row, &other, ERR_PRECONDITION);
    request.condition = other.condition = &this_tag;
    refused(row, &other, ERR_CONFLICT);
    unchanged(row, &request);
    request.fields |= EVENT_HAS_NAME;
    request.name = TEXT("new");
    (void)committed(row, &request, EVENT_META, false);
    request.verified = false;
    refused(row, &request, ERR_UNVERIFIED);
    object_destroy(&row);
}

static void a_conditional_meta_is_judged_after_what_refuses_it_anyway(void **state)
{
    struct object *row = live_row();
    struct request meta = request_of(CHANGE_META);

    (void)state;
    meta.fields = EVENT_HAS_NAME;
    meta.name = TEXT("new");
    meta.condition = &other_tag;
    refused(row, &meta, ERR_PRECONDITION);
    meta.name = TEXT("name"); /* no news, but a lie if it were granted */
    refused(row, &meta, ERR_PRECONDITION);
    meta.condition = &absent;
    refused(row, &meta, ERR_PRECONDITION);
    meta.condition = &this_tag;
    unchanged(row, &meta);
    meta.name = TEXT("new");
    (void)committed(row, &meta, EVENT_META, false);
    meta.fields |= EVENT_HAS_LEVEL;
    refused(row, &meta, ERR_CONFLICT);
    meta.condition = &other_tag;
    refused(row, &meta, ERR_CONFLICT);
    object_destroy(&row);
}

static void a_conditional_delete_hits_only_what_was_meant(void **state)
{
    struct object *row = live_row(), *deleted = tombstone();
    struct request request = request_of(CHANGE_DELETE);

    (void)state;
    request.condition = &other_tag;
    refused(row, &request, ERR_PRECONDITION);
    refused(deleted, &request, ERR_PRECONDITION);
    request.condition = &absent;
    refused(row, &request, ERR_PRECONDITION);
    unchanged(deleted, &request);
    request.condition = &this_tag;
    (void)committed(row, &request, EVENT_DELETE, false);
    refused(deleted, &request, ERR_PRECONDITION);
    object_destroy(&row);
    object_destroy(&deleted);
}

static void a_tombstone_refuses_put_and_meta_whatever_the_condition(void **state)
{
    static const struct condition *const all[] = {&absent, &present, &this_tag, &other_tag};
    struct object *deleted = tombstone();
    struct request request = put(), meta = request_of(CHANGE_META);

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        request.condition = meta.condition = all[i];
        refused(deleted, &request, ERR_DELETED);
        refused(deleted, &meta, ERR_DELETED);
        assert_int_equal(decide_early(deleted, &request), ERR_DELETED);
    }
    object_destroy(&deleted);
}

static void what_is_known_before_the_bytes_is_what_is_decided(void **state)
{
    struct object *row = live_row();
    struct request request = put();

    (void)state;
    assert_int_equal(decide_early(NULL, &request), 0);
    assert_int_equal(decide_early(row, &request), 0);
    request.condition = &absent;
    assert_int_equal(decide_early(NULL, &request), 0);
    assert_int_equal(decide_early(row, &request), ERR_PRECONDITION);
    request.condition = &other_tag;
    assert_int_equal(decide_early(NULL, &request), ERR_PRECONDITION);
    assert_int_equal(decide_early(row, &request), ERR_PRECONDITION);
    request.condition = &this_tag;
    request.sha256[0] = 9; /* not known yet */
    assert_int_equal(decide_early(row, &request), 0);
    object_destroy(&row);
}

/* Decide, merge, decide again: what was just done is no news. */
static void what_was_just_done_is_unchanged(void **state)
{
    struct request requests[] = {put(), request_of(CHANGE_META), request_of(CHANGE_DELETE)};
    struct object *row = NULL;

    (void)state;
    requests[0].fields |= EVENT_HAS_NAME;
    requests[0].name = TEXT("n");
    requests[0].verified = true;
    requests[0].checked = the_place;
    requests[1].fields = EVENT_HAS_LEVEL | EVENT_HAS_USER_META | EVENT_HAS_EXPIRES;
    requests[1].level = 2;
    requests[1].user_meta = TEXT("{\"a\":\"b\"}");
    requests[1].expires_ms = 9;
    for (size_t i = 0; i < sizeof requests / sizeof *requests; i++) {
        struct object *after;
        struct decision d;

        assert_int_equal(decide(&d, row, &requests[i]), 0);
        assert_int_equal(d.verdict, VERDICT_COMMIT);
        d.event.stamp = 10 + i;
        d.event.origin.bytes[0] = 1;
        assert_int_equal(merge_event(&after, row, &d.event), 0);
        if (d.store_body)
            after->place = the_place;
        unchanged(after, &requests[i]);
        object_destroy(&row);
        row = after;
    }
    assert_int_equal(row->flags, OBJECT_DELETED);
    object_destroy(&row);
}

/* ---- The cloud ---- */

static struct request cloud_request(enum change_kind kind, uint8_t cloud_state)
{
    struct request request = put();

    request.kind = kind;
    request.fields = EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_CLOUD;
    request.cloud_state = cloud_state;
    request.backend = TEXT("s3");
    request.bucket = TEXT("b");
    request.key = TEXT("k");
    request.etag = TEXT("e");
    return request;
}

static struct object *uploaded_row(void)
{
    struct object *live = live_row();

    live->flags |= OBJECT_CLOUD | OBJECT_UPLOADED;
    live->uploaded_at = (struct reg){12, {{7}}};
    live->uploaded_sha256[0] = 5;
    struct object *row = object_create_placed(live, object_name(live), object_type(live),
                                              object_user_meta(live), TEXT("s3\0b\0k\0e"));

    assert_non_null(row);
    object_destroy(&live);
    return row;
}

static void what_became_of_a_copy_is_journaled_as_it_was(void **state)
{
    struct object *live = live_row(), *dead = tombstone(), *partial = partial_row();
    const struct object *const rows[] = {live, dead, partial};

    (void)state;
    for (int say = CLOUD_STARTED; say <= CLOUD_MARKED; say++) {
        struct request request = cloud_request(CHANGE_CLOUD, (uint8_t)say);

        refused(NULL, &request, ERR_NOT_FOUND);
        for (int i = 0; i < 3; i++) {
            bool fits = say == CLOUD_STARTED ? i != 1 : say != CLOUD_MARKED || i == 1;

            if (!fits) {
                refused(rows[i], &request, say == CLOUD_STARTED ? ERR_DELETED : ERR_CONFLICT);
                continue;
            }
            struct event event = committed(rows[i], &request, EVENT_CLOUD, false);
            assert_int_equal(event.fields, EVENT_HAS_CLOUD | EVENT_HAS_SHA256);
            assert_int_equal(event.cloud_state, say);
            assert_true(has_text(event.backend, "s3") && has_text(event.bucket, "b"));
            assert_true(has_text(event.key, "k") && has_text(event.etag, "e"));
            assert_int_equal(event.sha256[0], 5);
            assert_int_equal(event.stamp, 0);
            assert_int_equal(event.removed.stamp, say == CLOUD_PURGED ? OBJECT_NO_UPLOAD : 0);
        }
    }
    object_destroy(&live);
    object_destroy(&dead);
    object_destroy(&partial);
}

static void an_upload_that_has_lost_its_sense_is_not_begun(void **state)
{
    struct request request = cloud_request(CHANGE_CLOUD, CLOUD_STARTED);
    struct object *row = uploaded_row();

    (void)state;
    unchanged(row, &request);
    row->flags &= ~(uint32_t)OBJECT_UPLOADED;
    (void)committed(row, &request, EVENT_CLOUD, false);
    request.sha256[31] ^= 1;
    refused(row, &request, ERR_CONFLICT);
    request.cloud_state = CLOUD_UPLOADED; /* but what was done is said */
    struct event event = committed(row, &request, EVENT_CLOUD, false);
    assert_int_equal(event.sha256[31], 1);
    object_destroy(&row);
}

static void a_purge_names_what_it_has_removed(void **state)
{
    struct request request = cloud_request(CHANGE_CLOUD, CLOUD_PURGED);
    struct object *row = tombstone();

    (void)state;
    row->uploaded_at = (struct reg){12, {{7}}};
    struct event event = committed(row, &request, EVENT_CLOUD, false);
    assert_int_equal(event.removed.stamp, 12);
    assert_int_equal(event.removed.origin.bytes[0], 7);
    request.removed = (struct reg){11, {{6}}}; /* as it was when the cloud was asked */
    event = committed(row, &request, EVENT_CLOUD, false);
    assert_int_equal(event.removed.stamp, 11);
    assert_int_equal(event.removed.origin.bytes[0], 6);
    request.cloud_state = CLOUD_MARKED;
    event = committed(row, &request, EVENT_CLOUD, false);
    assert_int_equal(event.removed.stamp, 0);
    row->flags |= OBJECT_MARKED;
    unchanged(row, &request);
    object_destroy(&row);
}

static void what_is_adopted_is_a_put_without_its_body(void **state)
{
    struct request request = cloud_request(CHANGE_ADOPT, 0);
    struct object *live = live_row(), *dead = tombstone(), *partial = partial_row();

    (void)state;
    request.stamp = 77;
    const struct object *const unknown[] = {NULL, partial};
    for (int i = 0; i < 2; i++) {
        struct event event = committed(unknown[i], &request, EVENT_PUT, false);

        assert_int_equal(event.stamp, 77);
        assert_int_equal(event.level, 1);
        assert_int_equal(event.size, 100);
        assert_int_equal(event.fields, EVENT_HAS_SHA256 | EVENT_HAS_SIZE | EVENT_HAS_LEVEL);
    }
    request.fields |= EVENT_HAS_LEVEL;
    request.level = 2;
    assert_int_equal(committed(NULL, &request, EVENT_PUT, false).level, 2);
    unchanged(live, &request);
    refused(dead, &request, ERR_DELETED);
    request.size++;
    refused(live, &request, ERR_CONFLICT);
    live->place = (struct place){0}; /* known, and not here: nothing comes of it either */
    request.size--;
    unchanged(live, &request);
    object_destroy(&live);
    object_destroy(&dead);
    object_destroy(&partial);
}

static void bytes_from_the_cloud_are_a_put_or_a_copy(void **state)
{
    struct request request = put();
    struct object *live = live_row(), *dead = tombstone();

    (void)state;
    request.from_cloud = true;
    request.stamp = 77;
    struct event event = committed(NULL, &request, EVENT_PUT, true);
    assert_int_equal(event.stamp, 77);
    assert_int_equal(event.level, 1);
    request.stamp = 0;
    assert_int_equal(committed(NULL, &request, EVENT_PUT, true).stamp, 0);
    unchanged(live, &request); /* there is a copy; whether it is good is not asked here */
    live->place = (struct place){0};
    (void)committed(live, &request, EVENT_HOLD, true);
    request.sha256[0] ^= 1;
    refused(live, &request, ERR_CONFLICT);
    refused(dead, &request, ERR_DELETED);
    object_destroy(&live);
    object_destroy(&dead);
}

static void where_it_lies_is_said_once(void **state)
{
    struct request request = cloud_request(CHANGE_ADOPT, 0);
    struct object *row = uploaded_row(), *dead = tombstone(), *partial = partial_row();
    struct decision d;

    (void)state;
    assert_true(decide_uploaded(&d, NULL, &request));
    assert_int_equal(d.verdict, VERDICT_COMMIT);
    assert_int_equal(d.event.kind, EVENT_CLOUD);
    assert_int_equal(d.event.cloud_state, CLOUD_UPLOADED);
    assert_int_equal(d.event.fields, EVENT_HAS_CLOUD | EVENT_HAS_SHA256);
    assert_true(decide_uploaded(&d, partial, &request));
    assert_false(decide_uploaded(&d, dead, &request));
    assert_false(decide_uploaded(&d, row, &request));
    struct text *const parts[] = {&request.backend, &request.bucket, &request.key, &request.etag};
    for (int i = 0; i < 4; i++) {
        struct text was = *parts[i];

        *parts[i] = TEXT("other");
        assert_true(decide_uploaded(&d, row, &request));
        *parts[i] = was;
    }
    row->flags |= OBJECT_PURGED;
    assert_true(decide_uploaded(&d, row, &request));
    row->flags &= ~(uint32_t)OBJECT_PURGED;
    row->uploaded_sha256[0] ^= 1;
    assert_true(decide_uploaded(&d, row, &request));
    request.size++; /* it will be refused */
    assert_false(decide_uploaded(&d, row, &request));
    request.size--;
    request.sha256[0] ^= 1;
    assert_false(decide_uploaded(&d, row, &request));
    request.sha256[0] ^= 1;
    request.kind = CHANGE_PUT;
    assert_true(decide_uploaded(&d, row, &request));
    request.fields &= ~(uint32_t)EVENT_HAS_CLOUD;
    assert_false(decide_uploaded(&d, row, &request));
    request = cloud_request(CHANGE_CLOUD, CLOUD_STARTED);
    assert_false(decide_uploaded(&d, row, &request));
    object_destroy(&row);
    object_destroy(&dead);
    object_destroy(&partial);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_of_an_unknown_id_is_stored_as_asked),
        cmocka_unit_test(a_put_that_names_no_level_is_local),
        cmocka_unit_test(a_partial_row_is_unknown_to_clients),
        cmocka_unit_test(other_bytes_under_an_id_are_a_conflict),
        cmocka_unit_test(a_tombstone_refuses_put_and_meta),
        cmocka_unit_test(the_same_bytes_are_no_news_only_with_a_verified_copy),
        cmocka_unit_test(without_a_good_copy_the_same_bytes_are_stored_again),
        cmocka_unit_test(a_put_of_the_same_bytes_changes_what_differs),
        cmocka_unit_test(meta_writes_what_differs_and_nothing_else),
        cmocka_unit_test(meta_never_lowers_a_level),
        cmocka_unit_test(what_needs_a_level_changes_nothing_below_it),
        cmocka_unit_test(a_copy_is_held_of_exactly_what_the_row_names),
        cmocka_unit_test(a_delete_of_anything_commits_once),
        cmocka_unit_test(a_tombstone_takes_a_delete_that_asks_for_the_first_purge),
        cmocka_unit_test(expiry_deletes_only_what_still_expires),
        cmocka_unit_test(a_drop_names_the_copy_that_was_found_bad),
        cmocka_unit_test(a_move_is_by_compare_and_set),
        cmocka_unit_test(a_condition_on_an_unknown_id_holds_where_it_asks_for_none),
        cmocka_unit_test(a_conditional_put_of_a_live_id_is_judged_before_its_bytes),
        cmocka_unit_test(a_conditional_meta_is_judged_after_what_refuses_it_anyway),
        cmocka_unit_test(a_conditional_delete_hits_only_what_was_meant),
        cmocka_unit_test(a_tombstone_refuses_put_and_meta_whatever_the_condition),
        cmocka_unit_test(what_is_known_before_the_bytes_is_what_is_decided),
        cmocka_unit_test(what_was_just_done_is_unchanged),
        cmocka_unit_test(what_became_of_a_copy_is_journaled_as_it_was),
        cmocka_unit_test(an_upload_that_has_lost_its_sense_is_not_begun),
        cmocka_unit_test(a_purge_names_what_it_has_removed),
        cmocka_unit_test(what_is_adopted_is_a_put_without_its_body),
        cmocka_unit_test(bytes_from_the_cloud_are_a_put_or_a_copy),
        cmocka_unit_test(where_it_lies_is_said_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
