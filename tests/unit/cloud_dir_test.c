/* Goal: the directory keeps what storage/cloud.h promises; no key leads out of it or into its own
 * files; files that others put there are objects as they are; a crash or an I/O error at any call
 * leaves the old object or the new one; and a directory that is not there is not an empty one. */
#include "storage/cloud_dir.h"

#include "storage/cloud_dir_name.h"
#include "storage/cloud_dir_trailer.h"
#include "tests/unit/cloud_contract.h"
#include "tests/unit/faulty_io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char parent[64], root[80];
static struct faulty faulty;

static struct cloud *create_in(struct env *env)
{
    const struct cloud_dir_config config = {.env = env, .path = root};
    struct cloud *cloud = NULL;
    char message[256];

    int rc = cloud_dir_create(&cloud, &config, message, sizeof message);
    if (rc)
        fail_msg("%s", message);
    return cloud;
}

static struct cloud *create(void *arg)
{
    (void)arg;
    return create_in(env_system());
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
    (void)stat;
    (void)kind;
    (void)at;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    (void)snprintf(parent, sizeof parent, "/tmp/cloud_dir_test.XXXXXX");
    assert_non_null(mkdtemp(parent));
    (void)snprintf(root, sizeof root, "%s/cloud", parent);
    faulty_init(&faulty);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return nftw(parent, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int put_into(struct cloud *cloud, const char *key, const char *body)
{
    struct cloud_call call;

    cloud_call_init(&call, cloud, CLOUD_PUT, "", key);
    cloud_call_body(&call, body, strlen(body));
    return cloud_call_do(&call);
}

/* The body of KEY as text, "" and its error where there is none. */
static const char *get_from(struct cloud *cloud, const char *key, int *rc)
{
    static char text[4096];
    struct cloud_call call;

    cloud_call_init(&call, cloud, CLOUD_GET, "", key);
    *rc = cloud_call_do(&call);
    (void)snprintf(text, sizeof text, "%.*s", *rc ? 0 : (int)call.len, (const char *)call.bytes);
    cloud_call_free(&call);
    return text;
}

static char *at(const char *name)
{
    static char path[4096];

    (void)snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

/* ---- Names ---- */

static void keys_become_paths_that_stay_inside(void **state)
{
    static const struct {
        const char *key, *path;
    } cases[] = {{"01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
                 {"a/b.txt", "a/b.txt"},
                 {"/a", "%00/a"},
                 {"a//b/", "a/%00/b/%00"},
                 {".", "%2E"},
                 {"../../etc/passwd", "%2E./%2E./etc/passwd"},
                 {"a/./..", "a/%2E/%2E."},
                 {"...", "..."},
                 {".hidden", ".hidden"},
                 {".objstore-cloud/tmp/x", "%2Eobjstore-cloud/tmp/x"},
                 {"a/.objstore-cloud", "a/%2Eobjstore-cloud"},
                 {"100%", "100%"},
                 {"100%.txt", "100%.txt"},
                 {"%00", "%2500"},
                 {"%2E", "%252E"},
                 {"a%_", "a%25_"},
                 {"a\nb\x7f", "a%0Ab%7F"},
                 {"\xc3\xa9", "\xc3\xa9"}};
    char path[CLOUD_DIR_PATH_BYTES];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(cloud_dir_path(path, sizeof path, cases[i].key, strlen(cases[i].key)), 0);
        assert_string_equal(path, cases[i].path);
    }
    assert_int_equal(cloud_dir_path(path, sizeof path, "a\0b", 3), ERR_INVALID);
    assert_int_equal(cloud_dir_path(path, 4, "abcd", 4), ERR_TOO_BIG);
    assert_int_equal(cloud_dir_path(path, 5, "abcd", 4), 0);
}

/* Undo a path as the list does: names put together until one does not go on. */
static size_t undo(char *key, char *path)
{
    size_t len = 0;
    bool goes_on = false, first = true;

    for (char *name = strtok(path, "/"); name; name = strtok(NULL, "/")) {
        size_t got;

        assert_true(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
        assert_true(strcmp(name, CLOUD_DIR_OWN) != 0);
        assert_true(strlen(name) <= 255);
        if (!first && !goes_on)
            key[len++] = '/';
        assert_int_equal(cloud_dir_name(key + len, &got, &goes_on, name), 0);
        len += got;
        first = false;
    }
    assert_false(goes_on);
    return len;
}

static void every_key_has_a_path_of_its_own(void **state)
{
    static const char letters[] = "aE02%_./\n\x7f-";
    char key[1024], path[CLOUD_DIR_PATH_BYTES], copy[CLOUD_DIR_PATH_BYTES], back[4096];

    (void)state;
    srand(5);
    for (int i = 0; i < 200000; i++) {
        size_t len = 1 + (size_t)rand() % (i % 50 ? 12 : sizeof key);
        int kinds = 1 + rand() % (int)(sizeof letters - 1);

        for (size_t k = 0; k < len; k++)
            key[k] = letters[rand() % kinds];
        if (cloud_dir_path(path, sizeof path, key, len)) {
            assert_true(len > 256);
            continue;
        }
        memcpy(copy, path, sizeof copy);
        assert_int_equal(undo(back, copy), len);
        assert_memory_equal(back, key, len);
    }
}

static void names_that_nobody_writes_are_none(void **state)
{
    static const char *const names[] = {"%0", "%G1", "a%00", "%_x", "%4", "%00%_"};
    char out[256];
    size_t len;
    bool goes_on;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int rc = cloud_dir_name(out, &len, &goes_on, names[i]);
        assert_int_equal(rc, i == 1 ? 0 : ERR_INVALID);
    }
}

/* ---- Files ---- */

static void the_body_is_what_ordinary_tools_see_first(void **state)
{
    struct cloud *cloud = create(NULL);
    static const char expected[] = "Dear reader\n{\"meta\":{},\"tags\":{},\"type\":\"\"}\n"
                                   "objstore-cloud 1 00000000000000000011 ";
    char text[4096] = "";

    (void)state;
    assert_int_equal(put_into(cloud, "docs/letter.txt", "Dear reader"), 0);
    FILE *file = fopen(at("docs/letter.txt"), "r");
    assert_non_null(file);
    assert_true(fread(text, 1, sizeof text - 1, file) > 11);
    (void)fclose(file);
    assert_int_equal(strncmp(text, expected, strlen(expected)), 0);
    cloud_destroy(&cloud);
}

static void files_of_others_are_objects_as_they_are(void **state)
{
    struct cloud *cloud = create(NULL);
    struct cloud_call call;
    char etag[128];
    int rc;

    (void)state;
    assert_int_equal(mkdir(at("photos"), 0700), 0);
    write_file(at("photos/100%.jpg"), "not really a picture");
    write_file(at("photos/%2F"), "nobody's");
    assert_string_equal(get_from(cloud, "photos/100%.jpg", &rc), "not really a picture");
    cloud_call_init(&call, cloud, CLOUD_LIST, "", "photos/");
    assert_int_equal(cloud_call_do(&call), 0);
    assert_string_equal(call.keys, "photos/100%.jpg:20\n");
    cloud_call_init(&call, cloud, CLOUD_HEAD, "", "photos/100%.jpg");
    assert_int_equal(cloud_call_do(&call), 0);
    assert_int_equal(call.size, 20);
    assert_string_equal(call.pairs, "");
    memcpy(etag, call.etag, sizeof etag);
    assert_true(*etag);
    write_file(at("photos/100%.jpg"), "not really a picturf");
    cloud_call_init(&call, cloud, CLOUD_GET, "", "photos/100%.jpg");
    call.request.if_match = (struct cloud_text){etag, (uint32_t)strlen(etag)};
    assert_int_equal(cloud_call_do(&call), ERR_PRECONDITION);
    cloud_destroy(&cloud);
}

static void a_damaged_trailer_is_noticed(void **state)
{
    struct cloud *cloud = create(NULL);
    struct cloud_call call;

    (void)state;
    assert_int_equal(put_into(cloud, "k", "body"), 0);
    int fd = open(at("k"), O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "M", 1, 7), 1); /* in "meta" */
    assert_int_equal(close(fd), 0);
    cloud_call_init(&call, cloud, CLOUD_HEAD, "", "k");
    assert_int_equal(cloud_call_do(&call), ERR_MISMATCH);
    assert_true(*call.request.message);
    cloud_destroy(&cloud);
}

static void an_object_and_keys_below_it_exclude_each_other(void **state)
{
    struct cloud *cloud = create(NULL);
    int rc;

    (void)state;
    assert_int_equal(put_into(cloud, "a", "file"), 0);
    assert_int_equal(put_into(cloud, "a/b", "below"), ERR_INVALID);
    assert_string_equal(get_from(cloud, "a", &rc), "file");
    (void)get_from(cloud, "a/b", &rc);
    assert_int_equal(rc, ERR_NOT_FOUND);
    assert_int_equal(put_into(cloud, "d/e", "below"), 0);
    assert_int_equal(put_into(cloud, "d", "file"), ERR_INVALID);
    (void)get_from(cloud, "d", &rc);
    assert_int_equal(rc, ERR_NOT_FOUND);
    cloud_destroy(&cloud);
}

static void a_directory_that_is_not_there_is_not_an_empty_one(void **state)
{
    struct cloud *cloud = create(NULL);
    char away[96];
    struct cloud_call call;
    struct stat stat_buf;
    int rc;

    (void)state;
    assert_int_equal(put_into(cloud, "k", "body"), 0);
    (void)snprintf(away, sizeof away, "%s.away", root);
    assert_int_equal(rename(root, away), 0);
    for (int empty = 0; empty < 2; empty++) {
        if (empty)
            assert_int_equal(mkdir(root, 0700), 0); /* a mount point with nothing on it */
        (void)get_from(cloud, "k", &rc);
        assert_int_equal(rc, ERR_AGAIN);
        assert_int_equal(put_into(cloud, "k2", "body"), ERR_AGAIN);
        cloud_call_init(&call, cloud, CLOUD_DELETE, "", "k");
        assert_int_equal(cloud_call_do(&call), ERR_AGAIN);
        cloud_call_init(&call, cloud, CLOUD_LIST, "", "");
        assert_int_equal(cloud_call_do(&call), ERR_AGAIN);
        assert_non_null(strstr(call.request.message, "not there"));
    }
    assert_int_not_equal(stat(at("k2"), &stat_buf), 0);
    assert_int_equal(rmdir(root), 0);
    assert_int_equal(rename(away, root), 0);
    assert_string_equal(get_from(cloud, "k", &rc), "body");
    cloud_destroy(&cloud);
}

/* Another directory under the same path, with objects of its own: it is not the one that was used,
 * for a cloud that runs and for one that is made with the same memory; a fresh memory takes it. */
static void another_directory_is_not_taken_for_this_one(void **state)
{
    char message[256], away[96], memory[96];
    struct cloud_dir_config config = {.env = env_system(), .path = root, .memory = memory};
    struct cloud *cloud, *again;
    int rc;

    (void)state;
    (void)snprintf(away, sizeof away, "%s.away", root);
    (void)snprintf(memory, sizeof memory, "%s/memory", parent);
    assert_int_equal(cloud_dir_create(&cloud, &config, message, sizeof message), 0);
    assert_int_equal(put_into(cloud, "k", "ours"), 0);
    assert_int_equal(rename(root, away), 0);
    struct cloud *other = create(NULL); /* makes it anew, as it remembers nothing */
    assert_int_equal(put_into(other, "k", "theirs"), 0);
    cloud_destroy(&other);

    assert_int_equal(cloud_dir_create(&again, &config, message, sizeof message), 0);
    struct cloud *const both[] = {cloud, again};
    for (int i = 0; i < 2; i++) {
        (void)get_from(both[i], "k", &rc);
        assert_int_equal(rc, ERR_AGAIN);
        assert_int_equal(put_into(both[i], "k", "ours"), ERR_AGAIN);
    }
    assert_int_equal(nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    assert_int_equal(rename(away, root), 0);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(get_from(both[i], "k", &rc), "ours");
        assert_int_equal(put_into(both[i], "k2", "ours"), 0);
    }
    cloud_destroy(&cloud);
    cloud_destroy(&again);
}

static void what_cannot_be_a_directory_is_refused(void **state)
{
    struct cloud_dir_config config = {.env = env_system(), .path = at("no/such/parent")};
    struct cloud *cloud;
    char message[256], long_path[400];

    (void)state;
    assert_int_equal(cloud_dir_create(&cloud, &config, message, sizeof message), ERR_NOT_FOUND);
    assert_null(cloud);
    assert_non_null(strstr(message, "parent"));
    write_file(root, "a file");
    config.path = root;
    assert_int_equal(cloud_dir_create(&cloud, &config, message, sizeof message), ERR_EXISTS);
    memset(long_path, 'x', sizeof long_path);
    long_path[sizeof long_path - 1] = 0;
    config.path = long_path;
    assert_int_equal(cloud_dir_create(&cloud, &config, message, sizeof message), ERR_INVALID);
}

static void what_a_crash_left_goes_when_it_is_old(void **state)
{
    struct cloud *cloud = create(NULL);
    const struct timespec old[2] = {{.tv_sec = 1000000}, {.tv_sec = 1000000}};

    (void)state;
    cloud_destroy(&cloud);
    write_file(at(".objstore-cloud/tmp/old"), "x");
    write_file(at(".objstore-cloud/tmp/new"), "x");
    assert_int_equal(utimensat(AT_FDCWD, at(".objstore-cloud/tmp/old"), old, 0), 0);
    cloud = create(NULL);
    assert_int_equal(access(at(".objstore-cloud/tmp/new"), F_OK), 0);
    assert_int_not_equal(access(at(".objstore-cloud/tmp/old"), F_OK), 0);
    cloud_destroy(&cloud);
}

static int count_one(void *arg, const char *name)
{
    (void)name;
    ++*(int *)arg;
    return 0;
}

/* One call after the other fails: the put says so, and the key has the old object or the new. */
static void an_error_at_any_call_leaves_a_whole_object(void **state)
{
    struct cloud *cloud = create_in(&faulty.env);
    bool struck = true, failed = false;

    (void)state;
    for (long k = 1; struck; k++) {
        char key[32];
        int rc, left = 0;

        (void)snprintf(key, sizeof key, "sub%ld/key", k);
        assert_int_equal(put_into(cloud, key, "old body"), 0);
        faulty_arm(&faulty, k, k % 2 ? ERR_IO : ERR_NO_SPACE);
        rc = put_into(cloud, key, "the new body, a longer one");
        struck = faulty_struck(&faulty);
        faulty_arm(&faulty, 0, 0);
        failed |= rc != 0;
        if (!struck)
            assert_int_equal(rc, 0);
        int got;
        const char *body = get_from(cloud, key, &got);
        assert_int_equal(got, 0);
        assert_true(strcmp(body, "the new body, a longer one") == 0 ||
                    (rc != 0 && strcmp(body, "old body") == 0));
        assert_int_equal(
            io_system()->list(io_system(), at(".objstore-cloud/tmp"), count_one, &left), 0);
        assert_int_equal(left, 0);
        assert_true(k < 200);
    }
    assert_true(failed);
    cloud_destroy(&cloud);
}

static void reads_that_fail_say_so(void **state)
{
    struct cloud *cloud = create_in(&faulty.env);
    int rc;

    (void)state;
    assert_int_equal(put_into(cloud, "k", "body"), 0);
    bool struck = true;
    for (long k = 1; struck;
         k++) { /* open, stat, line, then which directory it is, metadata, body */
        faulty_arm(&faulty, k, ERR_IO);
        const char *body = get_from(cloud, "k", &rc);
        struck = faulty_struck(&faulty);
        faulty_arm(&faulty, 0, 0);
        assert_true(rc == ERR_IO || (k > 3 && rc == ERR_AGAIN) || (k > 6 && rc == 0));
        if (rc == 0)
            assert_string_equal(body, "body"); /* a file that was only read could not be closed */
        assert_string_equal(get_from(cloud, "k", &rc), "body");
    }
    cloud_destroy(&cloud);
}

/* A key that cannot be looked at is not one that is not there. */
static void lists_that_cannot_be_read_say_so(void **state)
{
    struct cloud *cloud = create_in(&faulty.env);
    struct cloud_call call;
    bool struck = true, failed = false;

    (void)state;
    assert_int_equal(put_into(cloud, "a/b", "1"), 0);
    assert_int_equal(put_into(cloud, "a/c/d", "22"), 0);
    assert_int_equal(put_into(cloud, "e", "333"), 0);
    for (long k = 1; struck; k++) {
        faulty_arm(&faulty, k, ERR_IO);
        cloud_call_init(&call, cloud, CLOUD_LIST, "", "");
        int rc = cloud_call_do(&call);
        struck = faulty_struck(&faulty);
        faulty_arm(&faulty, 0, 0);
        failed |= rc != 0;
        if (rc == 0)
            assert_string_equal(call.keys, "a/b:1\na/c/d:2\ne:3\n");
        else
            assert_true(*call.request.message);
        assert_true(k < 200);
    }
    assert_true(failed);
    cloud_destroy(&cloud);
}

/* More names in one directory than one pass keeps. */
static void many_keys_are_listed_in_bounded_passes(void **state)
{
    enum { KEYS = 2500 };
    struct cloud *cloud = create(NULL);
    char after[32] = "";
    unsigned seen = 0, pages = 0;
    struct cloud_call *call = malloc(sizeof *call);

    (void)state;
    for (int i = 0; i < KEYS; i++) {
        char name[32];

        (void)snprintf(name, sizeof name, "k%05d", i * 7 % KEYS);
        write_file(at(name), "x");
    }
    do {
        cloud_call_init(call, cloud, CLOUD_LIST, "", "k");
        call->request.max = 900;
        call->request.after = (struct cloud_text){after, (uint32_t)strlen(after)};
        assert_int_equal(cloud_call_do(call), 0);
        for (char *line = strtok(call->keys, "\n"); line; line = strtok(NULL, "\n")) {
            char expected[32];

            (void)snprintf(expected, sizeof expected, "k%05u:1", seen++);
            assert_string_equal(line, expected);
        }
        (void)snprintf(after, sizeof after, "k%05u", seen - 1);
        pages++;
    } while (call->request.more);
    assert_int_equal(seen, KEYS);
    assert_int_equal(pages, 3);
    free(call);
    cloud_destroy(&cloud);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_become_paths_that_stay_inside),
        cmocka_unit_test(every_key_has_a_path_of_its_own),
        cmocka_unit_test(names_that_nobody_writes_are_none),
        cmocka_unit_test_setup_teardown(the_body_is_what_ordinary_tools_see_first, setup, teardown),
        cmocka_unit_test_setup_teardown(files_of_others_are_objects_as_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_trailer_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_object_and_keys_below_it_exclude_each_other, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_directory_that_is_not_there_is_not_an_empty_one, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(another_directory_is_not_taken_for_this_one, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_a_directory_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_crash_left_goes_when_it_is_old, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_at_any_call_leaves_a_whole_object, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(reads_that_fail_say_so, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_that_cannot_be_read_say_so, setup, teardown),
        cmocka_unit_test_setup_teardown(many_keys_are_listed_in_bounded_passes, setup, teardown),
    };
    const struct cloud_contract contract = {.create = create, .prefix = "contract/x/"};

    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)setup(NULL);
    failed += cloud_contract_run(&contract);
    (void)teardown(NULL);
    return failed;
}
