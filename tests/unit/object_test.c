/* Goal: a row keeps what it is made of, and its digest depends on every fact in it and on nothing
 * that is one node's own matter. */
#include "journal/object.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <string.h>

static struct text text(const char *s)
{
    return (struct text){s, (uint32_t)strlen(s)};
}

static struct object *sample(const struct object *like, const char *name, const char *type,
                             const char *user_meta)
{
    struct object *object = object_create(like, text(name), text(type), text(user_meta));

    assert_non_null(object);
    return object;
}

static const struct object base = {
    .id = {{1, 2, 3}},
    .flags = OBJECT_PUT | OBJECT_CLOUD,
    .level = 1,
    .put_at = {.stamp = 1000, .origin = {{9}}},
    .sha256 = {4, 5, 6},
    .size = 70000,
    .name_at = {.stamp = 1001, .origin = {{9}}},
    .user_meta_at = {.stamp = 1002, .origin = {{8}}},
    .expires_at = {.stamp = 1003, .origin = {{7}}},
    .expires_ms = 5,
    .uploaded_at = {.stamp = 1004, .origin = {{6}}},
    .uploaded_sha256 = {7},
    .place = {.disk = 1, .volume = 2, .offset = 512, .lsn = 4096},
    .record_bytes = 900,
};

static struct hash128 digest_of(const struct object *like, const char *name, const char *type,
                                const char *user_meta)
{
    struct object *object = sample(like, name, type, user_meta);
    struct hash128 digest = object_digest(object);

    object_destroy(&object);
    assert_null(object);
    return digest;
}

static bool same(struct hash128 a, struct hash128 b)
{
    return a.low == b.low && a.high == b.high;
}

static void a_row_keeps_its_texts_and_members(void **state)
{
    struct object *object = sample(&base, "a.jpeg", "image/jpeg", "{\"k\":\"v\"}");
    struct object *copy = object_copy(object);

    (void)state;
    assert_non_null(copy);
    assert_int_equal(object_bytes(copy), sizeof *copy + 6 + 10 + 9);
    assert_memory_equal(copy, object, object_bytes(object));
    object_destroy(&object);
    assert_int_equal(object_name(copy).len, 6);
    assert_memory_equal(object_name(copy).ptr, "a.jpeg", 6);
    assert_int_equal(object_type(copy).len, 10);
    assert_memory_equal(object_type(copy).ptr, "image/jpeg", 10);
    assert_int_equal(object_user_meta(copy).len, 9);
    assert_memory_equal(object_user_meta(copy).ptr, "{\"k\":\"v\"}", 9);
    assert_int_equal(copy->size, base.size);
    assert_int_equal(copy->place.offset, base.place.offset);
    object_destroy(&copy);
    object_destroy(&copy);
}

static void a_row_like_nothing_is_all_zero(void **state)
{
    static const struct object zero;
    struct object *object = sample(NULL, "", "", "");

    (void)state;
    assert_memory_equal(object, &zero, sizeof zero);
    assert_true(object_is_partial(object));
    object_destroy(&object);
}

static void every_fact_changes_the_digest(void **state)
{
    struct object rows[17];
    enum { ROWS = sizeof rows / sizeof *rows };
    struct hash128 digests[ROWS + 4];

    (void)state;
    for (size_t i = 0; i < ROWS; i++)
        rows[i] = base;
    rows[1].id.bytes[15] ^= 1;
    rows[2].flags |= OBJECT_UPLOADED;
    rows[3].flags = OBJECT_PUT;
    rows[4].flags |= OBJECT_DELETED;
    rows[5].level = 2;
    rows[6].put_at.stamp++;
    rows[7].put_at.origin.bytes[15] ^= 1;
    rows[8].sha256[31] ^= 1;
    rows[9].size++;
    rows[10].name_at.stamp++;
    rows[11].user_meta_at.stamp++;
    rows[12].expires_at.stamp++;
    rows[13].expires_ms++;
    rows[14].uploaded_at.stamp++;
    rows[15].uploaded_sha256[31] ^= 1;
    rows[16].deleted_at++;
    for (size_t i = 0; i < ROWS; i++)
        digests[i] = digest_of(&rows[i], "name", "type", "meta");
    digests[ROWS] = digest_of(&base, "namE", "type", "meta");
    digests[ROWS + 1] = digest_of(&base, "namet", "ype", "meta");
    digests[ROWS + 2] = digest_of(&base, "name", "typem", "eta");
    digests[ROWS + 3] = digest_of(&base, "name", "type", "meta ");
    for (size_t i = 0; i < ROWS + 4; i++) {
        for (size_t k = 0; k < i; k++)
            assert_false(same(digests[i], digests[k]));
    }
}

static void where_the_copy_lies_does_not_change_the_digest(void **state)
{
    struct object elsewhere = base;

    (void)state;
    memset(&elsewhere.place, 0, sizeof elsewhere.place);
    elsewhere.record_bytes = 0;
    elsewhere.flags |= OBJECT_PLAIN;
    assert_true(same(digest_of(&base, "a", "b", "c"), digest_of(&elsewhere, "a", "b", "c")));
}

/* A change of these numbers is a change of the schema: two nodes of different builds would never
 * agree. */
static void the_digest_is_the_documented_one(void **state)
{
    struct hash128 digest = digest_of(&base, "name", "type", "{}");

    (void)state;
    assert_int_equal(DIGEST_SCHEMA, 1);
    assert_true(digest.low == UINT64_C(0xc10d11ce7a35c878));
    assert_true(digest.high == UINT64_C(0xb8fe1a979f12c9ef));
}

static void nothing_known_is_a_zero_digest(void **state)
{
    struct object row = {.id = {{1}}};
    struct hash128 none = object_digest(NULL);

    (void)state;
    assert_true(none.low == 0 && none.high == 0);
    assert_true(same(digest_of(&row, "", "", ""), none));
    row.level = 1;
    assert_false(same(digest_of(&row, "", "", ""), none));
    row = (struct object){.id = {{1}}, .flags = OBJECT_CLOUD};
    assert_false(same(digest_of(&row, "", "", ""), none));
    row = (struct object){.id = {{1}}, .name_at = {.stamp = 1}};
    assert_false(same(digest_of(&row, "", "", ""), none));
}

static void the_stamp_is_the_highest_of_any_fact(void **state)
{
    struct object row = {0};

    (void)state;
    assert_int_equal(object_stamp(NULL), 0);
    assert_int_equal(object_stamp(&row), 0);
    row.put_at.stamp = 10;
    assert_int_equal(object_stamp(&row), 10);
    row.name_at.stamp = 11;
    assert_int_equal(object_stamp(&row), 11);
    row.user_meta_at.stamp = 12;
    assert_int_equal(object_stamp(&row), 12);
    row.expires_at.stamp = 13;
    assert_int_equal(object_stamp(&row), 13);
    row.uploaded_at.stamp = 14;
    assert_int_equal(object_stamp(&row), 14);
    row.deleted_at = 15;
    assert_int_equal(object_stamp(&row), 15);
    row.put_at.stamp = 16;
    assert_int_equal(object_stamp(&row), 16);
}

static void only_a_live_object_of_level_1_or_2_not_yet_uploaded_is_owed(void **state)
{
    struct object row = {.flags = OBJECT_PUT, .level = 1};

    (void)state;
    assert_true(object_owes_upload(&row));
    row.level = 2;
    assert_true(object_owes_upload(&row));
    row.flags |= OBJECT_CLOUD | OBJECT_PLAIN;
    assert_true(object_owes_upload(&row));
    row.level = 0;
    assert_false(object_owes_upload(&row));
    row.level = 1;
    row.flags = 0;
    assert_false(object_owes_upload(&row));
    row.flags = OBJECT_PUT | OBJECT_UPLOADED;
    assert_false(object_owes_upload(&row));
    row.flags = OBJECT_PUT | OBJECT_DELETED;
    assert_false(object_owes_upload(&row));
    /* By this node, where it has the bytes. */
    row.flags = OBJECT_PUT;
    assert_false(object_owed_here(&row));
    row.place.volume = 1;
    assert_true(object_owed_here(&row));
    row.level = 0;
    assert_false(object_owed_here(&row));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_keeps_its_texts_and_members),
        cmocka_unit_test(a_row_like_nothing_is_all_zero),
        cmocka_unit_test(every_fact_changes_the_digest),
        cmocka_unit_test(where_the_copy_lies_does_not_change_the_digest),
        cmocka_unit_test(the_digest_is_the_documented_one),
        cmocka_unit_test(nothing_known_is_a_zero_digest),
        cmocka_unit_test(the_stamp_is_the_highest_of_any_fact),
        cmocka_unit_test(only_a_live_object_of_level_1_or_2_not_yet_uploaded_is_owed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
