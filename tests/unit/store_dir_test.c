/* Goal: a node starts only on two directories that belong together and to nobody else, and a start
 * that is refused, or fails at any call, leaves them as they were and says why. */
#include "storage/store_dir.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "tests/unit/faulty_io.h"

struct fixture {
    char dir[64], state[96], files[128];
    struct faulty faulty;
    struct store_dirs dirs;
    char message[512];
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    strcpy(fixture->dir, "/tmp/store_dir_test.XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    (void)snprintf(fixture->state, sizeof fixture->state, "%s/a/state", fixture->dir);
    (void)snprintf(fixture->files, sizeof fixture->files, "%s/b/files", fixture->dir);
    faulty_init(&fixture->faulty);
    *state = fixture;
    return 0;
}

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int run(const char *format, ...)
{
    char command[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(command, sizeof command, format, args);
    va_end(args);
    return system(command);
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    int rc = run("rm -rf '%s'", fixture->dir);

    free(fixture);
    return rc;
}

static int open_with(struct fixture *fixture, bool accept_loss)
{
    int rc = store_dirs_open(&fixture->dirs, &fixture->faulty.env, fixture->state, fixture->files,
                             accept_loss, fixture->message, sizeof fixture->message);

    /* One line that names a path, exactly where something is wrong. */
    assert_true((rc == 0) == (fixture->message[0] == 0));
    assert_null(strchr(fixture->message, '\n'));
    if (rc && rc != ERR_NO_MEMORY)
        assert_non_null(strstr(fixture->message, fixture->dir));
    if (rc == 0 && !fixture->dirs.fresh && (rc = store_dirs_begin(&fixture->dirs)) != 0)
        store_dirs_close(&fixture->dirs);
    return rc;
}

/* Open and close again; the generation, or an error. */
static int start(struct fixture *fixture)
{
    int rc = open_with(fixture, false);

    if (rc)
        return rc;
    int generation = (int)fixture->dirs.generation;
    store_dirs_close(&fixture->dirs);
    return generation;
}

static void starts(struct fixture *fixture, int times)
{
    for (int i = 0; i < times; i++)
        assert_true(start(fixture) > 0);
}

static bool exists(const char *dir, const char *name)
{
    char path[256];

    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

/* All that is below the fixture's directory, with contents, as one number. */
static uint64_t picture(const struct fixture *fixture)
{
    char command[256], text[8192];

    (void)snprintf(command, sizeof command,
                   "cd '%s' && find . | sort && find . -type f | sort | xargs -r md5sum",
                   fixture->dir);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t len = fread(text, 1, sizeof text, pipe);
    assert_int_equal(pclose(pipe), 0);
    assert_true(len < sizeof text);
    return xxh64(text, len, 0);
}

static void refuses(struct fixture *fixture, int expected)
{
    uint64_t before = picture(fixture);

    assert_int_equal(open_with(fixture, false), expected);
    assert_true(picture(fixture) == before);
}

static void a_fresh_store_counts_its_starts_and_keeps_its_name(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(open_with(fixture, false), 0);
    assert_true(fixture->dirs.fresh);
    assert_false(fixture->dirs.files_behind);
    assert_int_equal(fixture->dirs.generation, 1);
    assert_false(id_is_zero(&fixture->dirs.store));
    struct id128 store = fixture->dirs.store;
    store_dirs_close(&fixture->dirs);

    for (unsigned generation = 2; generation < 5; generation++) {
        assert_int_equal(open_with(fixture, false), 0);
        assert_false(fixture->dirs.fresh);
        assert_int_equal(fixture->dirs.generation, generation);
        assert_true(id_equal(&fixture->dirs.store, &store));
        store_dirs_close(&fixture->dirs);
    }
}

static void a_second_node_on_either_directory_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct store_dirs other;
    char elsewhere[128], message[256];

    (void)snprintf(elsewhere, sizeof elsewhere, "%s/c", fixture->dir);
    assert_int_equal(open_with(fixture, false), 0);
    assert_int_equal(store_dirs_open(&other, &fixture->faulty.env, fixture->state, fixture->files,
                                     false, message, sizeof message),
                     ERR_LOCKED);
    assert_non_null(strstr(message, fixture->state));
    assert_int_equal(store_dirs_open(&other, &fixture->faulty.env, elsewhere, fixture->files, false,
                                     message, sizeof message),
                     ERR_LOCKED);
    assert_non_null(strstr(message, fixture->files));
    assert_int_equal(store_dirs_open(&other, &fixture->faulty.env, fixture->state, elsewhere, false,
                                     message, sizeof message),
                     ERR_LOCKED);
    assert_int_equal(store_dirs_inspect(&other, &fixture->faulty.env, fixture->state,
                                        fixture->files, message, sizeof message),
                     ERR_LOCKED);
    assert_int_equal(access(elsewhere, F_OK), -1);
    store_dirs_close(&other); /* after a failed open: nothing to do */
    store_dirs_close(&fixture->dirs);
    assert_int_equal(start(fixture), 2);
}

static void a_directory_with_other_files_is_left_alone(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(
        run("mkdir -p '%s' && echo hello > '%s/letter'", fixture->files, fixture->files), 0);
    refuses(fixture, ERR_WRONG_STORE);
    assert_non_null(strstr(fixture->message, fixture->files));
    assert_int_equal(run("rm -r '%s' && mkdir -p '%s' && touch '%s/journal.db'", fixture->files,
                         fixture->state, fixture->state),
                     0);
    refuses(fixture, ERR_WRONG_STORE);
    assert_non_null(strstr(fixture->message, fixture->state));
}

static void what_is_found_in_new_directories_is_no_foreign_file(void **state)
{
    struct fixture *fixture = *state;

    assert_int_equal(run("mkdir -p '%s/lost+found' && touch '%s/LOCK' '%s/STORE.tmp'",
                         fixture->files, fixture->files, fixture->files),
                     0);
    assert_int_equal(start(fixture), 1);
    assert_true(exists(fixture->files, "lost+found"));
}

static void one_directory_may_lie_in_the_other(void **state)
{
    struct fixture *fixture = *state;

    (void)snprintf(fixture->files, sizeof fixture->files, "%s/files/1/", fixture->state);
    assert_int_equal(run("mkdir -p '%s'", fixture->files), 0);
    assert_int_equal(start(fixture), 1);
    assert_int_equal(start(fixture), 2);
}

static void one_directory_cannot_be_both(void **state)
{
    struct fixture *fixture = *state;

    (void)snprintf(fixture->files, sizeof fixture->files, "%s//", fixture->state);
    refuses(fixture, ERR_INVALID);
}

static void directories_of_different_stores_are_told_apart(void **state)
{
    struct fixture *fixture = *state;
    char files[128];

    starts(fixture, 1);
    memcpy(files, fixture->files, sizeof files);
    (void)snprintf(fixture->state, sizeof fixture->state, "%s/c", fixture->dir);
    (void)snprintf(fixture->files, sizeof fixture->files, "%s/d", fixture->dir);
    starts(fixture, 1);
    memcpy(fixture->files, files, sizeof files);
    refuses(fixture, ERR_WRONG_STORE);
    assert_int_equal(open_with(fixture, true), ERR_WRONG_STORE);

    (void)snprintf(fixture->files, sizeof fixture->files, "%s/c", fixture->dir);
    (void)snprintf(fixture->state, sizeof fixture->state, "%s/d", fixture->dir);
    refuses(fixture, ERR_INVALID);
    assert_non_null(strstr(fixture->message, "swapped"));
}

static void a_lost_side_is_noticed_and_lost_files_can_be_accepted(void **state)
{
    struct fixture *fixture = *state;

    starts(fixture, 2);
    struct id128 store = fixture->dirs.store;
    assert_int_equal(run("mv '%s' '%s/kept'", fixture->state, fixture->dir), 0);
    refuses(fixture, ERR_WRONG_STORE);
    assert_int_equal(open_with(fixture, true), ERR_WRONG_STORE);
    assert_int_equal(
        run("mv '%s/kept' '%s' && rm -r '%s'", fixture->dir, fixture->state, fixture->files), 0);
    refuses(fixture, ERR_WRONG_STORE);

    assert_int_equal(open_with(fixture, true), 0);
    assert_true(fixture->dirs.files_behind);
    assert_false(fixture->dirs.fresh);
    assert_true(id_equal(&fixture->dirs.store, &store));
    assert_int_equal(fixture->dirs.generation, 3);
    store_dirs_close(&fixture->dirs);
    assert_int_equal(start(fixture), 4);
}

/* Ended between its two STORE files, by a crash or a disk that failed even the clean-up, the very
 * first start is made again; what may have held data is never taken for that. */
static void a_first_start_that_never_ended_is_made_again(void **state)
{
    struct fixture *fixture = *state;

    starts(fixture, 1);
    assert_int_equal(run("rm '%s'/STORE", fixture->state), 0);
    assert_int_equal(open_with(fixture, false), 0);
    assert_true(fixture->dirs.fresh);
    assert_int_equal(fixture->dirs.generation, 1);
    store_dirs_close(&fixture->dirs);

    assert_int_equal(run("rm '%s'/STORE && mkdir '%s'/log", fixture->state, fixture->files), 0);
    refuses(fixture, ERR_WRONG_STORE); /* it has had a log */
    assert_int_equal(run("rmdir '%s'/log", fixture->files), 0);
    starts(fixture, 2);
    assert_int_equal(run("rm '%s'/STORE", fixture->state), 0);
    refuses(fixture, ERR_WRONG_STORE); /* it has started before */
}

static void an_older_side_is_noticed(void **state)
{
    struct fixture *fixture = *state;

    starts(fixture, 1);
    assert_int_equal(run("cp -r '%s/a' '%s/a1' && cp -r '%s/b' '%s/b1'", fixture->dir, fixture->dir,
                         fixture->dir, fixture->dir),
                     0);
    starts(fixture, 2);
    assert_int_equal(run("cd '%s' && mv b b3 && cp -r b1 b", fixture->dir), 0);
    refuses(fixture, ERR_WRONG_STORE);
    assert_non_null(strstr(fixture->message, "older"));
    assert_int_equal(open_with(fixture, true), 0);
    assert_true(fixture->dirs.files_behind);
    assert_int_equal(fixture->dirs.generation, 4);
    store_dirs_close(&fixture->dirs);

    /* The state of generation 1 with files of 3; then with files of 2, as a crash leaves them. */
    assert_int_equal(run("cd '%s' && rm -r a b && cp -r a1 a && cp -r b3 b", fixture->dir), 0);
    refuses(fixture, ERR_WRONG_STORE);
    assert_int_equal(open_with(fixture, true), ERR_WRONG_STORE);
    assert_int_equal(run("cd '%s' && rm -r a b && cp -r a1 a && cp -r b1 b", fixture->dir), 0);
    starts(fixture, 1);
    assert_int_equal(run("cd '%s' && rm -r a && cp -r a1 a", fixture->dir), 0);
    assert_int_equal(start(fixture), 2);
}

static void a_damaged_or_newer_file_is_refused(void **state)
{
    struct fixture *fixture = *state;
    struct io *io = io_system();
    char path[128];
    uint8_t good[64], bad[65] = {0};
    size_t len;
    char *data;

    starts(fixture, 1);
    (void)snprintf(path, sizeof path, "%s/STORE", fixture->state);
    assert_int_equal(io_read_all(io, path, 1000, &data, &len), 0);
    assert_int_equal(len, sizeof good);
    memcpy(good, data, sizeof good);
    free(data);
    for (size_t i = 0; i < sizeof good; i++) {
        memcpy(bad, good, sizeof good);
        bad[i] ^= 1;
        assert_int_equal(io_replace(io, path, bad, sizeof good), 0);
        assert_int_equal(open_with(fixture, false), ERR_CORRUPT);
    }
    assert_int_equal(io_replace(io, path, good, sizeof good - 1), 0);
    refuses(fixture, ERR_CORRUPT);
    assert_int_equal(io_replace(io, path, bad, sizeof bad), 0);
    refuses(fixture, ERR_CORRUPT);
    assert_int_equal(io_replace(io, path, bad, 0), 0);
    refuses(fixture, ERR_CORRUPT);

    for (size_t field = 8; field < 24; field += 4) {
        memcpy(bad, good, sizeof good);
        put_u32(bad + field, 2);
        put_u64(bad + 56, xxh64(bad, 56, 0));
        assert_int_equal(io_replace(io, path, bad, sizeof good), 0);
        if (field == 12) /* an unknown compat bit is none of our business */
            starts(fixture, 1);
        else
            refuses(fixture, ERR_FORMAT);
    }
}

static void deny_files(struct faulty *faulty, const char *path)
{
    const struct fixture *fixture = faulty->arg;
    char parent[128];

    (void)snprintf(parent, sizeof parent, "%s/b/", fixture->dir);
    if (strncmp(path, parent, strlen(parent)) == 0)
        faulty_arm(faulty, 1, ERR_PERMISSION);
}

/* As the system's open, but nothing below B can be written. */
static int denying_open(struct io *io, const char *path, unsigned flags)
{
    struct faulty *faulty = faulty_of(io);

    faulty_arm(faulty, 0, 0);
    if (flags & IO_CREATE)
        deny_files(faulty, path);
    return faulty_open(io, path, flags);
}

static void an_unwritable_place_leaves_the_other_side_unmade(void **state)
{
    struct fixture *fixture = *state;

    /* A file where a directory should be, on either side. */
    assert_int_equal(run("touch '%s/b'", fixture->dir), 0);
    refuses(fixture, ERR_PERMISSION);
    assert_int_equal(run("rm '%s/b' && touch '%s/a'", fixture->dir, fixture->dir), 0);
    refuses(fixture, ERR_PERMISSION);
    assert_int_equal(run("cd '%s' && rm a && mkdir -p b && touch b/files", fixture->dir), 0);
    refuses(fixture, ERR_PERMISSION);

    /* A directory in which nothing can be made, whether it is there or its parent. */
    fixture->faulty.arg = fixture;
    fixture->faulty.io.open = denying_open;
    assert_int_equal(run("rm '%s'", fixture->files), 0);
    refuses(fixture, ERR_PERMISSION);
    assert_int_equal(run("mkdir -p '%s'", fixture->files), 0);
    assert_int_equal(open_with(fixture, false), ERR_PERMISSION);
    assert_false(exists(fixture->state, "LOCK"));
    assert_false(exists(fixture->files, "LOCK"));
}

static void a_fresh_start_that_fails_at_any_call_leaves_no_file(void **state)
{
    struct fixture *fixture = *state;
    long k = 1;

    for (;; k++) {
        faulty_arm(&fixture->faulty, k, ERR_NO_SPACE);
        int rc = open_with(fixture, false);
        bool struck = faulty_struck(&fixture->faulty);
        faulty_arm(&fixture->faulty, 0, 0);
        if (!struck || rc == 0) { /* a failed close of a file that was only read is no failure */
            assert_int_equal(rc, 0);
            store_dirs_close(&fixture->dirs);
            break;
        }
        assert_int_equal(rc, ERR_NO_SPACE);
        char files[256];
        (void)snprintf(files, sizeof files, "test -z \"$(find '%s' -type f)\"", fixture->dir);
        assert_int_equal(system(files), 0);
        /* What did stay behind is no obstacle. */
        if (k % 2) {
            assert_int_equal(start(fixture), 1);
            assert_int_equal(run("cd '%s' && rm -rf a b", fixture->dir), 0);
        }
    }
    assert_true(k > 20);
}

static void a_later_start_that_fails_at_any_call_does_not_spoil_the_next(void **state)
{
    struct fixture *fixture = *state;
    int generation = start(fixture);

    assert_int_equal(generation, 1);
    for (long k = 1;; k++) {
        faulty_arm(&fixture->faulty, k, ERR_IO);
        int rc = open_with(fixture, false);
        bool struck = faulty_struck(&fixture->faulty);
        faulty_arm(&fixture->faulty, 0, 0);
        if (rc == 0)
            store_dirs_close(&fixture->dirs);
        if (!struck)
            break;
        int next = start(fixture);
        assert_true(next > generation);
        generation = next;
        assert_true(k < 200);
    }
}

static void an_accepted_loss_is_not_forgotten_by_a_failed_start(void **state)
{
    struct fixture *fixture = *state;
    unsigned failures = 0;

    /* Files lost, then files that are older. */
    for (int older = 0; older < 2; older++) {
        for (long k = 1;; k++) {
            assert_int_equal(run("cd '%s' && rm -rf a b b1", fixture->dir), 0);
            starts(fixture, 1);
            assert_int_equal(run("cd '%s' && cp -r b b1", fixture->dir), 0);
            starts(fixture, 2);
            assert_int_equal(run("cd '%s' && rm -r b", fixture->dir), 0);
            if (older)
                assert_int_equal(run("cd '%s' && mv b1 b", fixture->dir), 0);
            faulty_arm(&fixture->faulty, k, ERR_IO);
            int rc = open_with(fixture, true);
            bool struck = faulty_struck(&fixture->faulty);
            faulty_arm(&fixture->faulty, 0, 0);
            if (rc == 0) {
                assert_true(fixture->dirs.files_behind);
                store_dirs_close(&fixture->dirs);
            } else {
                int next = start(fixture);

                failures++;
                /* 5: all was written when the last sync failed; the loss had been journaled by
                 * then. */
                if (next != ERR_WRONG_STORE && next != 5)
                    fail_msg("older %d, call %ld: %d", older, k, next);
            }
            if (!struck)
                break;
            assert_true(k < 200);
        }
    }
    assert_true(failures > 20);
}

static void a_start_that_ends_before_it_began_leaves_the_generation(void **state)
{
    struct fixture *fixture = *state;
    struct store_dirs dirs;

    starts(fixture, 1);
    uint64_t before = picture(fixture);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(store_dirs_open(&dirs, env_system(), fixture->state, fixture->files, false,
                                         fixture->message, sizeof fixture->message),
                         0);
        assert_int_equal(dirs.generation, 2);
        store_dirs_close(&dirs);
    }
    assert_true(picture(fixture) == before);
    starts(fixture, 2);
}

static void start_meanwhile(struct faulty *faulty, const char *path)
{
    struct fixture *fixture = faulty->arg;
    struct store_dirs other;
    char message[256];

    if (!strstr(path, "/LOCK") || !exists(fixture->state, ""))
        return;
    faulty->on_open = NULL;
    assert_int_equal(store_dirs_open(&other, env_system(), fixture->state, fixture->files, false,
                                     message, sizeof message),
                     0);
    assert_true(other.fresh);
    fixture->dirs.store = other.store;
    store_dirs_close(&other);
}

static void a_node_that_began_and_ended_meanwhile_is_not_overwritten(void **state)
{
    struct fixture *fixture = *state;
    struct store_dirs dirs;

    /* After our look, which finds nothing, and before our lock. */
    fixture->faulty.arg = fixture;
    fixture->faulty.on_open = start_meanwhile;
    assert_int_equal(store_dirs_open(&dirs, &fixture->faulty.env, fixture->state, fixture->files,
                                     false, fixture->message, sizeof fixture->message),
                     0);
    assert_null(fixture->faulty.on_open);
    assert_false(dirs.fresh);
    assert_int_equal(dirs.generation, 2);
    assert_true(id_equal(&dirs.store, &fixture->dirs.store));
    store_dirs_close(&dirs);
}

static void a_tool_looks_without_changing_anything(void **state)
{
    struct fixture *fixture = *state;
    struct store_dirs tool;

    assert_int_equal(store_dirs_inspect(&tool, &fixture->faulty.env, fixture->state, fixture->files,
                                        fixture->message, sizeof fixture->message),
                     ERR_WRONG_STORE);
    assert_int_equal(access(fixture->state, F_OK), -1);
    starts(fixture, 3);
    struct id128 store = fixture->dirs.store;
    uint64_t before = picture(fixture);
    assert_int_equal(store_dirs_inspect(&tool, &fixture->faulty.env, fixture->state, fixture->files,
                                        fixture->message, sizeof fixture->message),
                     0);
    assert_int_equal(tool.generation, 3);
    assert_true(id_equal(&tool.store, &store));
    assert_int_equal(start(fixture), ERR_LOCKED);
    store_dirs_close(&tool);
    assert_true(picture(fixture) == before);
    assert_int_equal(start(fixture), 4);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_fresh_store_counts_its_starts_and_keeps_its_name),
        TEST(a_second_node_on_either_directory_is_refused),
        TEST(a_directory_with_other_files_is_left_alone),
        TEST(what_is_found_in_new_directories_is_no_foreign_file),
        TEST(one_directory_may_lie_in_the_other),
        TEST(one_directory_cannot_be_both),
        TEST(directories_of_different_stores_are_told_apart),
        TEST(a_lost_side_is_noticed_and_lost_files_can_be_accepted),
        TEST(a_first_start_that_never_ended_is_made_again),
        TEST(an_older_side_is_noticed),
        TEST(a_start_that_ends_before_it_began_leaves_the_generation),
        TEST(a_damaged_or_newer_file_is_refused),
        TEST(an_unwritable_place_leaves_the_other_side_unmade),
        TEST(a_fresh_start_that_fails_at_any_call_leaves_no_file),
        TEST(a_later_start_that_fails_at_any_call_does_not_spoil_the_next),
        TEST(an_accepted_loss_is_not_forgotten_by_a_failed_start),
        TEST(a_node_that_began_and_ended_meanwhile_is_not_overwritten),
        TEST(a_tool_looks_without_changing_anything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
