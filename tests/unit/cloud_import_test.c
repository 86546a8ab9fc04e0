/* Goal: an import finds out what each key is, leaves what was deleted deleted, however many marks
 * there are, gives a key the same id each time, survives a cloud that fails now and then, gives up
 * on one that stays away and can be begun again; and bytes that are not what they should be get in
 * nowhere. */
#include "cluster/cloud_import.h"

#include "base/text.h"
#include "tests/unit/cloud_memory.h"
#include "tests/unit/journal_fixture.h"

#include <time.h>

static struct text text_of(const char *text)
{
    return (struct text){text, (uint32_t)strlen(text)};
}

/* ---- Pure ---- */

#define ID "01KAHVCZ9V0123456789ABCDEF"

static void keys_are_told_apart(void **state)
{
    static const struct {
        const char *key;
        uint64_t size;
        enum import_kind kind;
        size_t folder;
    } cases[] = {{ID, 5, IMPORT_OBJECT, 0},
                 {"a/b/" ID, 5, IMPORT_OBJECT, 4},
                 {".deleted/" ID, 0, IMPORT_MARK, 9},
                 {"a/.deleted/" ID, 0, IMPORT_MARK, 11},
                 {"a.deleted/" ID, 0, IMPORT_OBJECT, 10},
                 {ID ".usermeta", 9, IMPORT_SIDECAR, 0},
                 {"notes.usermeta", 9, IMPORT_OTHER, 0},
                 {"photos/", 0, IMPORT_FOLDER, 7},
                 {"photos/", 3, IMPORT_OTHER, 7},
                 {"photos/a.jpg", 0, IMPORT_OTHER, 7},
                 {"01kahvcz9v0123456789abcdef", 5, IMPORT_OTHER, 0}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct id128 id;
        size_t folder;

        assert_int_equal(cloud_import_kind(&id, &folder, text_of(cases[i].key), cases[i].size),
                         cases[i].kind);
        assert_int_equal(folder, cases[i].folder);
    }
}

static void a_key_has_the_same_id_each_time_and_no_others(void **state)
{
    struct id128 id = cloud_import_id(text_of("a.jpg"), text_of("e1"), 1600000000);
    struct id128 same = cloud_import_id(text_of("a.jpg"), text_of("e1"), 1600000000);
    struct id128 other[] = {cloud_import_id(text_of("b.jpg"), text_of("e1"), 1600000000),
                            cloud_import_id(text_of("a.jpg"), text_of("e2"), 1600000000),
                            cloud_import_id(text_of("a.jp"), text_of("ge1"), 1600000000)};

    (void)state;
    assert_memory_equal(&id, &same, sizeof id);
    assert_int_equal(ulid_time_ms(&id), UINT64_C(1600000000000));
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        assert_memory_not_equal(&id, &other[i], sizeof id);
    static const int64_t odd[] = {0, -5, 1, INT64_MAX / 2000};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        id = cloud_import_id(text_of("a"), text_of(""), odd[i]);
        assert_int_equal(ulid_check_time(&id), 0);
    }
}

/* ---- With a journal and a cloud ---- */

struct world {
    struct node *node; /* what journal_fixture's setup made */
    struct cloud *cloud;
    struct cloud_import *import;
};

static int begin(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    void *node;

    assert_int_equal(setup(&node), 0);
    world->node = node;
    node_open(world->node, true);
    world->cloud = cloud_memory_create();
    assert_int_equal(
        cloud_import_create(&world->import, world->node->journal, world->cloud, env_system()), 0);
    *state = world;
    return 0;
}

static int end(void **state)
{
    struct world *world = *state;
    void *node = world->node;

    cloud_import_destroy(&world->import);
    cloud_destroy(&world->cloud);
    node_close(world->node, true);
    free(world);
    return teardown(&node);
}

static struct cloud_import_status settled(struct world *world)
{
    struct cloud_import_status status;
    const struct timespec pause = {0, 2000000};

    for (unsigned i = 0; i < 30000; i++) {
        cloud_import_status(world->import, &status);
        if (status.phase != IMPORT_RUNNING)
            return status;
        (void)nanosleep(&pause, NULL);
    }
    fail_msg("the import does not end");
    return status;
}

static struct cloud_import_status import(struct world *world, const char *prefix, bool dry)
{
    assert_int_equal(cloud_import_begin(world->import, prefix, dry), 0);
    return settled(world);
}

/* An object of id N as a node would have put it; its SHA-256 is WRONG's, if that is not NULL. */
static void put_one(struct world *world, unsigned n, const char *body, const char *size)
{
    char key[ULID_TEXT_BYTES + 1], sha[2 * SHA256_BYTES + 1];
    struct id128 id = make_id(n);
    uint8_t digest[SHA256_BYTES];

    ulid_format(key, &id);
    sha256(body, strlen(body), digest);
    hex_encode(sha, digest, sizeof digest);
    const struct cloud_pair pairs[] = {{{"sha256", 6}, {sha, 64}},
                                       {{"size", 4}, {size, (uint32_t)strlen(size)}},
                                       {{"consistency", 11}, {"2", 1}}};
    cloud_memory_set(world->cloud, key, body, strlen(body), NULL, pairs, 3, NULL, 0);
}

static void mark(struct world *world, unsigned n)
{
    char key[64] = ".deleted/";
    struct id128 id = make_id(n);

    ulid_format(key + strlen(key), &id);
    cloud_memory_set(world->cloud, key, "", 0, NULL, NULL, 0, NULL, 0);
}

static struct object *row_of(struct world *world, const struct id128 *id)
{
    struct db_reader *reader;
    struct object *object = NULL;

    assert_int_equal(journal_reader_open(world->node->journal, &reader), 0);
    int rc = journal_find(world->node->journal, reader, id, &object);
    assert_true(rc == 0 || rc == ERR_NOT_FOUND);
    db_reader_close(&reader);
    return object;
}

static void what_is_marked_stays_deleted_over_many_pages(void **state)
{
    enum { OBJECTS = 2300 };
    struct world *world = *state;
    unsigned live = 0;

    /* Marks of ids that are there and of ids that are not, in runs longer than a page. */
    for (unsigned n = 0; n < OBJECTS; n++) {
        bool marked = n < 1200 || n % 3 == 0;

        if (n % 2 == 0 || n > 2200)
            put_one(world, n, "body", "4");
        if (marked)
            mark(world, n);
        live += (n % 2 == 0 || n > 2200) && !marked;
    }
    struct cloud_import_status status = import(world, "", false);
    assert_int_equal(status.phase, IMPORT_DONE);
    assert_int_equal(status.adopted, live);
    assert_int_equal(status.refused, 0);
    for (unsigned n = 0; n < OBJECTS; n++) {
        struct id128 id = make_id(n);
        struct object *object = row_of(world, &id);
        bool marked = n < 1200 || n % 3 == 0;

        assert_int_equal(object != NULL, (n % 2 == 0 || n > 2200) && !marked);
        if (object)
            assert_int_equal(object->level, 2);
        object_destroy(&object);
    }
    assert_int_equal(cloud_memory_asked(world->cloud, CLOUD_GET), 0);
    unsigned heads = cloud_memory_asked(world->cloud, CLOUD_HEAD);
    status = import(world, "", false);
    assert_int_equal(status.adopted, 0);
    assert_int_equal(status.known, live);
    assert_int_equal(cloud_memory_asked(world->cloud, CLOUD_HEAD), heads);
}

static void a_deleted_row_is_not_adopted_again(void **state)
{
    struct world *world = *state;
    struct id128 id = make_id(1);

    put_one(world, 1, "body", "4");
    struct change change = {.request = {.kind = CHANGE_DELETE, .id = id}, .done = done};
    assert_int_equal(journal_submit(world->node->journal, &change), 0);
    struct object *object = NULL;
    for (unsigned i = 0; i < 30000 && !object; i++) {
        const struct timespec pause = {0, 1000000};
        object = row_of(world, &id);
        (void)nanosleep(&pause, NULL);
    }
    assert_non_null(object);
    object_destroy(&object);
    struct cloud_import_status status = import(world, "", false);
    assert_int_equal(status.adopted, 0);
    assert_int_equal(status.deleted, 1);
    object_destroy(&change.object);
}

static void failures_now_and_then_are_tried_again(void **state)
{
    static const enum cloud_op ops[] = {CLOUD_LIST, CLOUD_HEAD, CLOUD_GET};
    struct world *world = *state;

    cloud_memory_set(world->cloud, "a.txt", "hello", 5, "text/plain", NULL, 0, NULL, 0);
    for (size_t i = 0; i < 3; i++)
        cloud_memory_fail(world->cloud, ops[i], i == 1 ? ERR_AGAIN : ERR_TIMEOUT, 1, false);
    struct cloud_import_status status = import(world, "", false);
    assert_int_equal(status.phase, IMPORT_DONE);
    assert_int_equal(status.adopted, 1);
    assert_int_equal(status.read, 1);
    assert_int_equal(status.read_bytes, 5);
}

static void a_refusal_ends_it_and_it_can_be_begun_again(void **state)
{
    struct world *world = *state;

    cloud_memory_set(world->cloud, "a.txt", "hello", 5, NULL, NULL, 0, NULL, 0);
    cloud_memory_fail(world->cloud, CLOUD_LIST, ERR_PERMISSION, 1, false);
    struct cloud_import_status status = import(world, "", false);
    assert_int_equal(status.phase, IMPORT_FAILED);
    assert_true(*status.message);
    cloud_memory_fail(world->cloud, CLOUD_HEAD, ERR_PERMISSION, 1, false);
    status = import(world, "", false);
    assert_int_equal(status.phase, IMPORT_FAILED);
    assert_int_equal(status.adopted, 0);
    status = import(world, "", false);
    assert_int_equal(status.phase, IMPORT_DONE);
    assert_int_equal(status.adopted, 1);
}

static void a_stop_ends_one_that_waits(void **state)
{
    struct world *world = *state;

    cloud_memory_set(world->cloud, "a.txt", "hello", 5, NULL, NULL, 0, NULL, 0);
    cloud_memory_fail(world->cloud, CLOUD_LIST, ERR_TIMEOUT, 1000, false);
    assert_int_equal(cloud_import_begin(world->import, "", false), 0);
    assert_int_equal(cloud_import_begin(world->import, "", false), ERR_EXISTS);
    cloud_memory_wait(world->cloud, CLOUD_LIST, 1);
    cloud_import_cancel(world->import);
    assert_int_equal(settled(world).phase, IMPORT_CANCELLED);
    assert_int_equal(cloud_import_begin(world->import, "", false), 0);
    cloud_import_stop(world->import);
}

static void what_contradicts_itself_is_refused(void **state)
{
    struct world *world = *state;
    struct id128 id = make_id(1);

    put_one(world, 1, "body", "5"); /* says that it has a byte more */
    put_one(world, 2, "good", "4");
    struct cloud_import_status status = import(world, "", false);
    assert_int_equal(status.phase, IMPORT_DONE);
    assert_int_equal(status.adopted, 1);
    assert_int_equal(status.refused, 1);
    assert_non_null(strstr(status.refusal, "contradicts"));
    assert_null(row_of(world, &id));
}

static void a_dry_run_changes_nothing(void **state)
{
    struct world *world = *state;
    struct id128 id = make_id(1);

    put_one(world, 1, "body", "4");
    cloud_memory_set(world->cloud, "a.txt", "hello", 5, NULL, NULL, 0, NULL, 0);
    struct cloud_import_status status = import(world, "", true);
    assert_int_equal(status.adopted, 2);
    assert_int_equal(status.adopted_bytes, 9);
    assert_int_equal(status.read_bytes, 5);
    assert_null(row_of(world, &id));
    assert_int_equal(cloud_memory_asked(world->cloud, CLOUD_GET), 0);
    assert_int_equal(cloud_memory_asked(world->cloud, CLOUD_PUT), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_told_apart),
        cmocka_unit_test(a_key_has_the_same_id_each_time_and_no_others),
        TEST(what_is_marked_stays_deleted_over_many_pages),
        TEST(a_deleted_row_is_not_adopted_again),
        TEST(failures_now_and_then_are_tried_again),
        TEST(a_refusal_ends_it_and_it_can_be_begun_again),
        TEST(a_stop_ends_one_that_waits),
        TEST(what_contradicts_itself_is_refused),
        TEST(a_dry_run_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
