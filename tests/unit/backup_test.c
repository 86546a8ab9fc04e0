/* Goal: whatever fails in the middle of a backup, nothing that it made stays, what was there before
 * does, the store goes on, and the same call succeeds once the disk does. */
#include "tests/unit/journal_fixture.h"

#include <dirent.h>

#define MOST_FAULTS 400

static bool exists(const char *path)
{
    struct stat stat_buf;

    return stat(path, &stat_buf) == 0;
}

static int entries(const char *path)
{
    DIR *dir = opendir(path);
    int count = -2; /* . and .. */

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    (void)closedir(dir);
    return count;
}

static int backup(struct node *node, const char *dir)
{
    return journal_backup(node->journal, dir, node->message, sizeof node->message);
}

static void fill(struct node *node)
{
    node->fault.skip_sync = true;
    node_open(node, false);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(put(node, n, 3000), 0);
    assert_int_equal(put_large(node, 50, 300 * 1024), 0);
    assert_int_equal(put_large(node, 51, 300 * 1024), 0);
    while (journal_apply_step(node->journal))
        ;
}

/* The k-th write or sync below the backup fails, for every k there is. */
static void fail_each(struct node *node, _Atomic int *countdown)
{
    char dir[128], parent[128];
    int k = 1, rc = ERR_IO;

    (void)snprintf(parent, sizeof parent, "%s/a", node->root);
    (void)snprintf(dir, sizeof dir, "%s/a/b/backup", node->root);
    node->fault.only = "/backup";
    for (; rc && k < MOST_FAULTS; k++) {
        atomic_store(countdown, k);
        rc = backup(node, dir);
        if (rc && exists(parent))
            fail_msg("fault %d left something", k);
        if (rc)
            assert_true(strlen(node->message) > strlen(dir));
    }
    atomic_store(countdown, 0);
    node->fault.only = NULL;
    assert_int_equal(rc, 0);
    assert_true(k > 4);
    assert_int_equal(put(node, 60, 3000), 0);
    expect_body(node, 50, 300 * 1024);
    assert_int_equal(delete (node, 60), 0);
    node_close(node, true);
    (void)snprintf(node->state, sizeof node->state, "%.70s/state", dir);
    (void)snprintf(node->files, sizeof node->files, "%.70s/files", dir);
    node_open(node, false);
    for (unsigned n = 0; n < 20; n++)
        expect_body(node, n, 3000);
    expect_body(node, 51, 300 * 1024);
    node_close(node, true);
}

static void nothing_stays_when_any_write_fails(void **state)
{
    struct node *node = *state;

    fill(node);
    fail_each(node, &node->fault.fail_write);
}

static void nothing_stays_when_any_sync_fails(void **state)
{
    struct node *node = *state;

    fill(node);
    fail_each(node, &node->fault.fail_sync);
}

static void what_was_there_stays(void **state)
{
    struct node *node = *state;
    char dir[128], file[160];

    fill(node);
    (void)snprintf(dir, sizeof dir, "%s/backup", node->root);
    (void)snprintf(file, sizeof file, "%s/other", dir);
    assert_int_equal(mkdir(dir, 0700), 0);
    node->fault.only = "/backup";
    atomic_store(&node->fault.fail_write, 3);
    assert_int_equal(backup(node, dir), ERR_IO);
    node->fault.only = NULL;
    assert_true(exists(dir));
    assert_int_equal(entries(dir), 0);

    shell("touch '%s'", file);
    assert_int_equal(backup(node, dir), ERR_EXISTS);
    assert_int_equal(backup(node, file), ERR_EXISTS);
    assert_int_equal(entries(dir), 1);
    assert_int_equal(unlink(file), 0);
    assert_int_equal(backup(node, dir), 0);
    assert_int_equal(entries(dir), 3);
    assert_int_equal(backup(node, dir), ERR_EXISTS);
    assert_int_equal(entries(dir), 3);
    node_close(node, true);
}

static void directories_without_files_are_not_made(void **state)
{
    struct node *node = *state;
    char dir[128], path[160];

    fill(node);
    (void)snprintf(dir, sizeof dir, "%s/backup", node->root);
    assert_int_equal(backup(node, dir), 0);
    (void)snprintf(path, sizeof path, "%s/files/large", dir);
    assert_int_equal(entries(path), 2);
    (void)snprintf(path, sizeof path, "%s/files/tmp", dir);
    assert_false(exists(path));
    node_close(node, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_stays_when_any_write_fails),
        TEST(nothing_stays_when_any_sync_fails),
        TEST(what_was_there_stays),
        TEST(directories_without_files_are_not_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
