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

#define PLACE "s3\0bucket\0some/key\0etag"

static struct hash128 digest_in_cloud(const struct object *like, const char *place, size_t len)
{
    struct object *object = object_create_placed(like, text("a"), text("b"), text("c"),
                                                 (struct text){place, (uint32_t)len});
    assert_non_null(object);
    struct hash128 digest = object_digest(object);

    object_destroy(&object);
    return digest;
}

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

/* … of what is in the cloud. */
static void every_fact_about_the_cloud_changes_the_digest(void **state)
{
    struct object rows[8];
    enum { ROWS = sizeof rows / sizeof *rows };
    struct hash128 digests[ROWS + 3];

    (void)state;
    for (size_t i = 0; i < ROWS; i++)
        rows[i] = base;
    rows[1].flags |= OBJECT_PURGE;
    rows[2].flags |= OBJECT_MARKED;
    rows[3].flags |= OBJECT_PURGED;
    rows[4].purged_of.stamp = 5;
    rows[5].purged_of = (struct reg){5, {{1}}};
    rows[6].uploaded_at.stamp++;
    rows[7].uploaded_sha256[0]++;
    for (size_t i = 0; i < ROWS; i++)
        digests[i] = digest_in_cloud(&rows[i], PLACE, sizeof PLACE - 1);
    digests[ROWS] = digest_in_cloud(&base, NULL, 0);
    digests[ROWS + 1] = digest_in_cloud(&base, PLACE, sizeof PLACE - 2);
    digests[ROWS + 2] = digest_in_cloud(&base, PLACE "2", sizeof PLACE);
    for (size_t i = 0; i < ROWS + 3; i++) {
        for (size_t k = 0; k < i; k++)
            assert_false(same(digests[i], digests[k]));
    }
}

/* Nodes that were brought up to date have not kept what old deletes asked for. */
static void a_purge_of_what_was_never_in_the_cloud_is_in_no_digest(void **state)
{
    struct object row = {.id = {{1}}, .flags = OBJECT_DELETED, .deleted_at = 9}, purge = row;

    (void)state;
    purge.flags |= OBJECT_PURGE;
    assert_true(same(digest_of(&row, "", "", ""), digest_of(&purge, "", "", "")));
    row.flags |= OBJECT_CLOUD;
    purge.flags |= OBJECT_CLOUD;
    assert_false(same(digest_of(&row, "", "", ""), digest_of(&purge, "", "", "")));
}

static void a_place_in_the_cloud_is_written_and_taken_apart(void **state)
{
    const struct cloud_place in = {text("dir"), text(""), text("a/b c"), text("")};
    char bytes[LIMIT_CLOUD_PLACE_BYTES];
    uint32_t len = cloud_place_write(bytes, &in);
    struct cloud_place out;

    (void)state;
    assert_int_equal(len, 11);
    assert_memory_equal(bytes, "dir\0\0a/b c\0", 11);
    struct object *object =
        object_create_placed(&base, text("n"), text("t"), text("{}"), (struct text){bytes, len});
    assert_non_null(object);
    assert_int_equal(object_bytes(object), sizeof *object + 4 + 11);
    struct object *copy = object_copy(object);
    object_destroy(&object);
    assert_memory_equal(object_user_meta(copy).ptr, "{}", 2);
    assert_true(object_cloud(copy, &out));
    assert_int_equal(out.backend.len, 3);
    assert_memory_equal(out.backend.ptr, "dir", 3);
    assert_int_equal(out.bucket.len, 0);
    assert_int_equal(out.key.len, 5);
    assert_memory_equal(out.key.ptr, "a/b c", 5);
    assert_int_equal(out.etag.len, 0);
    object_destroy(&copy);
    object = sample(&base, "n", "t", "{}");
    assert_false(object_cloud(object, &out));
    assert_int_equal(out.key.len, 0);
    object_destroy(&object);
}

#define READS(bytes) cloud_place_read(&place, (struct text){bytes, sizeof bytes - 1})

static void what_is_no_place_is_refused(void **state)
{
    static char many[LIMIT_CLOUD_PLACE_BYTES + 1];
    struct cloud_place place;

    (void)state;
    assert_true(READS(PLACE));
    assert_false(READS(""));
    assert_false(READS("s3\0b\0k"));           /* too few parts */
    assert_false(READS("s3\0b\0k\0e\0"));      /* too many */
    assert_false(READS("\0b\0k\0e"));          /* no backend */
    assert_false(READS("s3\0b\0\0e"));         /* no key */
    assert_false(READS("s3\0b\0\xff\0e"));     /* not UTF-8 */
    assert_false(READS("s\n3\0b\0k\0e"));      /* not printable */
    assert_true(READS("s3\0b\0k\xc3\xa4\0e")); /* UTF-8 */
    memset(many, 'k', sizeof many);
    memcpy(many, "s3\0\0", 4);
    many[4 + 1024] = 0;
    assert_true(cloud_place_read(&place, (struct text){many, 4 + 1024 + 1 + 255}));
    assert_int_equal(place.key.len, 1024);
    assert_false(cloud_place_read(&place, (struct text){many, 4 + 1024 + 1 + 256}));
    many[4 + 1024] = 'k';
    many[4 + 1025] = 0;
    assert_false(cloud_place_read(&place, (struct text){many, 4 + 1025 + 1}));
    assert_false(cloud_place_read(&place, (struct text){many, sizeof many}));
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
    struct object removed = base;
    removed.flags = OBJECT_DELETED | OBJECT_CLOUD | OBJECT_PURGE | OBJECT_MARKED;
    removed.purged_of = (struct reg){.stamp = 1003, .origin = {{5}}};
    digest = digest_in_cloud(&removed, PLACE, sizeof PLACE - 1);
    assert_true(digest.low == UINT64_C(0x28641268f7cf0043));
    assert_true(digest.high == UINT64_C(0x4ed3c9ce8fe1457f));
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
    row.purged_of.stamp = 16;
    assert_int_equal(object_stamp(&row), 16);
    row.put_at.stamp = 17;
    assert_int_equal(object_stamp(&row), 17);
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

static void a_mark_and_a_purge_are_owed_of_what_is_deleted_and_may_be_in_the_cloud(void **state)
{
    const uint32_t dead = OBJECT_DELETED | OBJECT_CLOUD, live = OBJECT_PUT | OBJECT_CLOUD;
    const struct {
        uint32_t flags;
        bool mark, purge;
    } cases[] = {
        {dead, true, false},
        {dead | OBJECT_PURGE, true, true},
        {dead | OBJECT_MARKED, false, false},
        {dead | OBJECT_MARKED | OBJECT_PURGE, false, true},
        {dead | OBJECT_PURGE | OBJECT_PURGED, true, false},
        {OBJECT_DELETED | OBJECT_PURGE, false, false},
        {live | OBJECT_PURGED, false, false},
        {live | OBJECT_UPLOADED, false, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct object row = {.flags = cases[i].flags};

        assert_int_equal(object_owes_mark(&row), cases[i].mark);
        assert_int_equal(object_owes_purge(&row), cases[i].purge);
    }
    struct object row = {.flags = dead};
    assert_int_equal(object_removes(&row).stamp, OBJECT_NO_UPLOAD);
    row.uploaded_at = (struct reg){7, {{8}}};
    assert_int_equal(object_removes(&row).stamp, 7);
    assert_int_equal(object_removes(&row).origin.bytes[0], 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_keeps_its_texts_and_members),
        cmocka_unit_test(a_row_like_nothing_is_all_zero),
        cmocka_unit_test(every_fact_changes_the_digest),
        cmocka_unit_test(where_the_copy_lies_does_not_change_the_digest),
        cmocka_unit_test(every_fact_about_the_cloud_changes_the_digest),
        cmocka_unit_test(a_purge_of_what_was_never_in_the_cloud_is_in_no_digest),
        cmocka_unit_test(a_place_in_the_cloud_is_written_and_taken_apart),
        cmocka_unit_test(what_is_no_place_is_refused),
        cmocka_unit_test(a_mark_and_a_purge_are_owed_of_what_is_deleted_and_may_be_in_the_cloud),
        cmocka_unit_test(the_digest_is_the_documented_one),
        cmocka_unit_test(nothing_known_is_a_zero_digest),
        cmocka_unit_test(the_stamp_is_the_highest_of_any_fact),
        cmocka_unit_test(only_a_live_object_of_level_1_or_2_not_yet_uploaded_is_owed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
