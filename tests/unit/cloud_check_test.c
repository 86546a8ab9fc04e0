/* Goal: a check does each kind of request once, in an order in which the first failure is the one
 * to mend; it finds what only looks right, says what to do about each kind of failure, leaves
 * nothing behind, and ends when the node stops. */
#include "cluster/cloud_check.h"

#include "storage/cloud_dir.h"
#include "tests/unit/cloud_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct cloud *cloud;
static atomic_bool stop;
static struct cloud_check check;

static int setup(void **state)
{
    (void)state;
    cloud = cloud_memory_create();
    atomic_store(&stop, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cloud_destroy(&cloud);
    return 0;
}

static void run(const char *prefix)
{
    cloud_check_run(&check, cloud, prefix, env_system(), &stop);
}

/* The names of the steps that were done, "!" before those that failed. */
static const char *steps(void)
{
    static char out[256];
    size_t at = 0;

    out[0] = '\0';
    for (size_t i = 0; i < check.count; i++)
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%s%s", i ? " " : "",
                               check.steps[i].rc ? "!" : "", check.steps[i].name);
    return out;
}

/* The one step that failed. */
static const struct cloud_check_step *failed(void)
{
    const struct cloud_check_step *found = NULL;

    for (size_t i = 0; i < check.count; i++) {
        if (check.steps[i].rc) {
            assert_null(found);
            found = &check.steps[i];
        }
    }
    assert_false(check.good);
    if (!found) {
        fail_msg("no step failed");
        return &check.steps[0];
    }
    assert_true(found->message[0] && found->advice[0]);
    return found;
}

static void each_request_is_made_once_and_nothing_stays(void **state)
{
    static const enum cloud_op ops[] = {CLOUD_LIST, CLOUD_PUT, CLOUD_TAGS, CLOUD_DELETE};

    (void)state;
    cloud_memory_set(cloud, "somebody/else", "x", 1, NULL, NULL, 0, NULL, 0);
    run("team/one");
    assert_true(check.good);
    assert_string_equal(steps(), "list put head get range tags delete gone");
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        assert_int_equal(cloud_memory_asked(cloud, ops[i]), 1);
    assert_int_equal(cloud_memory_asked(cloud, CLOUD_HEAD), 2);
    assert_int_equal(cloud_memory_asked(cloud, CLOUD_GET), 2);
    assert_int_equal(cloud_memory_count(cloud), 1);
}

/* What is put lies under the prefix, out of the way of objects. */
static void what_is_put_lies_under_the_prefix(void **state)
{
    static const char *const prefixes[] = {NULL, "", "team/one", "team/one/"};
    static const char *const begins[] = {".check/", ".check/", "team/one/.check/",
                                         "team/one/.check/"};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct cloud_memory_object there;
        char key[64] = "";

        cloud_memory_fail(cloud, CLOUD_DELETE, ERR_PERMISSION, 1, false);
        run(prefixes[i]);
        assert_string_equal(failed()->name, "delete");
        assert_non_null(strstr(failed()->advice, "s3:DeleteObject"));
        assert_int_equal(cloud_memory_count(cloud), 1);
        assert_true(cloud_memory_first(cloud, key, sizeof key));
        assert_int_equal(strncmp(key, begins[i], strlen(begins[i])), 0);
        assert_int_equal(strlen(key), strlen(begins[i]) + 26);
        assert_true(cloud_memory_find(cloud, key, &there));
        cloud_memory_remove(cloud, key);
    }
}

static void the_first_failure_is_told_with_what_to_do(void **state)
{
    static const struct {
        enum cloud_op op;
        int rc;
        const char *steps, *advice;
    } cases[] = {
        {CLOUD_LIST, ERR_NOT_FOUND, "!list", "--bucket"},
        {CLOUD_LIST, ERR_CLOSED, "!list", "--s3-endpoint"},
        {CLOUD_LIST, ERR_TIMEOUT, "!list", "--s3-ca-file"},
        {CLOUD_LIST, ERR_INVALID, "!list", "--s3-path-style"},
        /* A key that may not list may be good for all the rest. */
        {CLOUD_LIST, ERR_PERMISSION, "!list put head get range tags delete gone", "s3:ListBucket"},
        {CLOUD_PUT, ERR_PERMISSION, "list !put", "s3:PutObject"},
        {CLOUD_PUT, ERR_NO_SPACE, "list !put", "room"},
        {CLOUD_PUT, ERR_MISMATCH, "list !put", "between"},
        {CLOUD_HEAD, ERR_PERMISSION, "list put !head get range tags delete gone", "s3:GetObject"},
        {CLOUD_GET, ERR_AGAIN, "list put head !get range tags delete gone", "--s3-endpoint"},
        {CLOUD_TAGS, ERR_PERMISSION, "list put head get range !tags delete gone",
         "s3:GetObjectTagging"},
        {CLOUD_DELETE, ERR_PERMISSION, "list put head get range tags !delete", "s3:DeleteObject"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char key[64];

        cloud_memory_fail(cloud, cases[i].op, cases[i].rc, 1, false);
        run(NULL);
        assert_string_equal(steps(), cases[i].steps);
        assert_int_equal(failed()->rc, cases[i].rc);
        if (!strstr(failed()->advice, cases[i].advice))
            fail_msg("case %zu: %s", i, failed()->advice);
        assert_non_null(strstr(failed()->message, "memory: "));
        while (cloud_memory_first(cloud, key, sizeof key)) /* where it could not be removed */
            cloud_memory_remove(cloud, key);
    }
}

static void bytes_that_came_back_changed_are_noticed(void **state)
{
    (void)state;
    for (uint64_t at = 0; at < 50; at += 7) {
        cloud_memory_damage(cloud, at);
        run(NULL);
        assert_string_equal(failed()->name, "get");
        assert_int_equal(failed()->rc, ERR_MISMATCH);
    }
    assert_int_equal(cloud_memory_count(cloud), 0);
}

/* A cloud that passes everything on but what one request brings. */
struct forgetful {
    struct cloud cloud; /* first */
    struct cloud *behind;
    enum cloud_op op; /* its pairs are lost; DELETE: it does nothing */
    int (*head)(struct cloud_request *request, const struct cloud_head *head);
};

static struct forgetful forgetful;

static int on_head(struct cloud_request *request, const struct cloud_head *head)
{
    struct cloud_head empty = *head;

    empty.pair_count = 0;
    return forgetful.head(request, &empty);
}

static int forgetful_start(struct cloud *base, struct cloud_request *request)
{
    (void)base;
    if (request->op == forgetful.op && request->head) {
        forgetful.head = request->head;
        request->head = on_head;
    }
    if (request->op == forgetful.op && request->op == CLOUD_DELETE)
        request->op = CLOUD_HEAD;
    return cloud_start(forgetful.behind, request);
}

static void forgetful_consumed(struct cloud *base, struct cloud_request *request, uint64_t bytes)
{
    (void)base;
    cloud_consumed(forgetful.behind, request, bytes);
}

static void forgetful_cancel(struct cloud *base, struct cloud_request *request)
{
    (void)base;
    cloud_cancel(forgetful.behind, request);
}

static void what_is_not_kept_is_noticed(void **state)
{
    static const struct cloud_backend backend = {.name = "s3",
                                                 .start = forgetful_start,
                                                 .consumed = forgetful_consumed,
                                                 .cancel = forgetful_cancel};
    static const struct {
        enum cloud_op op;
        const char *steps, *message;
    } cases[] = {
        {CLOUD_HEAD, "list put !head get range tags delete gone", "metadata"},
        {CLOUD_TAGS, "list put head get range !tags delete gone", "tag"},
        {CLOUD_DELETE, "list put head get range tags delete !gone", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        forgetful = (struct forgetful){
            .cloud = {.backend = &backend, .bucket = "b"}, .behind = cloud, .op = cases[i].op};
        cloud_check_run(&check, &forgetful.cloud, NULL, env_system(), &stop);
        assert_string_equal(steps(), cases[i].steps);
        assert_int_equal(failed()->rc, ERR_MISMATCH);
        assert_non_null(strstr(failed()->message, cases[i].message));
    }
}

static void a_directory_has_advice_of_its_own(void **state)
{
    char parent[] = "/tmp/cloud_check_test.XXXXXX", root[64], away[64], message[256], command[160];
    struct cloud_dir_config config = {.env = env_system(), .path = root};
    struct cloud *dir;

    (void)state;
    assert_non_null(mkdtemp(parent));
    (void)snprintf(root, sizeof root, "%s/cloud", parent);
    (void)snprintf(away, sizeof away, "%s/away", parent);
    assert_int_equal(cloud_dir_create(&dir, &config, message, sizeof message), 0);
    cloud_check_run(&check, dir, "p", env_system(), &stop);
    assert_true(check.good);
    assert_int_equal(rename(root, away), 0);
    cloud_check_run(&check, dir, "p", env_system(), &stop);
    assert_string_equal(steps(), "!list");
    assert_non_null(strstr(failed()->advice, "mounted"));
    assert_null(strstr(failed()->advice, "--s3"));
    cloud_destroy(&dir);
    (void)snprintf(command, sizeof command, "rm -r %s", parent);
    assert_int_equal(system(command), 0);
}

static void *stop_it(void *arg)
{
    (void)arg;
    cloud_memory_wait(cloud, CLOUD_LIST, 1);
    atomic_store(&stop, true);
    return NULL;
}

static void a_node_that_stops_does_not_wait_for_the_cloud(void **state)
{
    pthread_t thread;

    (void)state;
    cloud_memory_hold(cloud, true);
    assert_int_equal(pthread_create(&thread, NULL, stop_it, NULL), 0);
    run(NULL);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(steps(), "!list");
    assert_int_equal(failed()->rc, ERR_CLOSED);
}

int main(void)
{
#define CLOUD_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CLOUD_TEST(each_request_is_made_once_and_nothing_stays),
        CLOUD_TEST(what_is_put_lies_under_the_prefix),
        CLOUD_TEST(the_first_failure_is_told_with_what_to_do),
        CLOUD_TEST(bytes_that_came_back_changed_are_noticed),
        CLOUD_TEST(what_is_not_kept_is_noticed),
        CLOUD_TEST(a_directory_has_advice_of_its_own),
        CLOUD_TEST(a_node_that_stops_does_not_wait_for_the_cloud),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
