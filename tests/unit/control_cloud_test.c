/* Goal: administration of the cloud says over the socket what is true: of a check each step and
 * what to do, of the outbox the oldest first and sums of all, of an import how far it is; arguments
 * that make no sense are refused; and a cloud that does not answer keeps nobody else from being
 * served. */
#include "api_fixture.h"
#include "cloud_memory.h"

#include <jansson.h>
#include <poll.h>
#include <time.h>

static struct cloud *cloud;

static int start(void **state, bool joins, bool has_cloud)
{
    struct node *node = node_prepare(0, env_system());

    cloud = has_cloud ? cloud_memory_create() : NULL;
    node->joins = joins;
    node->cloud = cloud;
    node->drain_ms = 100;
    node_start(node);
    *state = node;
    return 0;
}

static int setup(void **state)
{
    return start(state, true, true);
}

static int setup_without_cloud(void **state)
{
    return start(state, true, false);
}

static int setup_alone(void **state)
{
    return start(state, false, false);
}

static int teardown(void **state)
{
    if (cloud) {
        cloud_memory_hold(cloud, false);
        cloud_memory_fail(cloud, 0, ERR_IO, 0, false);
    }
    node_destroy(*state);
    cloud_destroy(&cloud);
    return 0;
}

/* Ask over the control socket. The answer's JSON, to be freed; its status has to be STATUS. */
static json_t *ask(struct node *node, const char *method, const char *path, const char *body,
                   unsigned status)
{
    static char text[8192];
    struct reply reply;
    int fd = dial_control(node);
    int n = snprintf(text, sizeof text,
                     "%s /control/v1/cloud/%s HTTP/1.1\r\nHost: c\r\nContent-Length: %zu\r\n\r\n%s",
                     method, path, strlen(body), body);

    assert_true((size_t)n < sizeof text);
    send_all(fd, text, (size_t)n);
    receive(fd, &reply, true);
    (void)close(fd);
    if (reply.status != status)
        fail_msg("%s %s: %u %s", path, body, reply.status, reply.body);
    json_t *json = json_loadb(reply.body, reply.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    reply_free(&reply);
    return json;
}

static const char *text_at(json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));

    if (!text)
        fail_msg("no %s", name);
    return text;
}

static json_int_t number_at(json_t *json, const char *name)
{
    json_t *value = json_object_get(json, name);

    if (!json_is_integer(value))
        fail_msg("no %s", name);
    return json_integer_value(value);
}

static void refuse(struct node *node, const char *path, const char *body, unsigned status,
                   const char *code)
{
    json_t *json = ask(node, "POST", path, body, status);

    assert_string_equal(text_at(json_object_get(json, "error"), "code"), code);
    assert_true(*text_at(json_object_get(json, "error"), "message"));
    json_decref(json);
}

/* An object of level 1, whose bytes are as many as its NUMBER; its id into ID. */
static void put(struct node *node, unsigned number, char id[27])
{
    struct reply reply;
    char head[160];

    (void)snprintf(head, sizeof head,
                   "X-Meta-ConsistencyLevel: 1\r\nX-Meta-Name: n%u\r\nX-Meta-Timeout: 0\r\n",
                   number);
    request(node, &reply, "PUT", "/api/v1/put", head, "0123456789", number);
    if (reply.status != 202)
        fail_msg("%u %s", reply.status, reply.body);
    (void)snprintf(id, 27, "%.26s", value_of(&reply, "X-Meta-Id"));
    reply_free(&reply);
}

/* ---- Without a cloud ---- */

static void a_node_without_a_cloud_says_so(void **state)
{
    struct node *node = *state;

    refuse(node, "check", "", 409, "no_cloud");
    refuse(node, "import", "", 409, "no_cloud");
    json_decref(ask(node, "GET", "import", "", 409));
    json_t *json = ask(node, "POST", "outbox", "", 200);
    assert_int_equal(number_at(json, "uploads"), 0);
    assert_int_equal(json_array_size(json_object_get(json, "owed")), 0);
    json_decref(json);
}

static void a_node_alone_says_so(void **state)
{
    static const char *const verbs[] = {"check", "outbox", "import"};

    for (size_t i = 0; i < 3; i++)
        refuse(*state, verbs[i], "", 409, "alone");
}

/* ---- Check ---- */

static void a_check_tells_each_step_and_what_to_do(void **state)
{
    struct node *node = *state;
    json_t *json = ask(node, "POST", "check", "", 200), *steps, *step;
    size_t i;

    assert_string_equal(text_at(json, "backend"), "memory");
    assert_string_equal(text_at(json, "bucket"), "memory");
    assert_true(json_is_true(json_object_get(json, "good")));
    steps = json_object_get(json, "steps");
    assert_int_equal(json_array_size(steps), 8);
    json_array_foreach(steps, i, step)
    {
        assert_true(json_is_true(json_object_get(step, "good")));
        assert_null(json_object_get(step, "error"));
        assert_true(number_at(step, "took_ms") >= 0);
    }
    json_decref(json);

    cloud_memory_fail(cloud, CLOUD_TAGS, ERR_PERMISSION, 1, false);
    json = ask(node, "POST", "check", "", 200);
    assert_true(json_is_false(json_object_get(json, "good")));
    steps = json_object_get(json, "steps");
    step = json_array_get(steps, 5);
    assert_string_equal(text_at(step, "name"), "tags");
    assert_true(json_is_false(json_object_get(step, "good")));
    assert_string_equal(text_at(step, "error"), "permission");
    assert_true(*text_at(step, "message"));
    assert_non_null(strstr(text_at(step, "advice"), "s3:GetObjectTagging"));
    assert_int_equal(json_array_size(steps), 8);
    json_decref(json);
}

/* ---- Outbox ---- */

/* Until so much is owed, as what is committed is in the database a moment later. */
static json_t *await_outbox(struct node *node, int uploads, int marks, int purges)
{
    for (time_t until = time(NULL) + WAIT_S;;) {
        json_t *json = ask(node, "POST", "outbox", "", 200);

        if (number_at(json, "uploads") == uploads && number_at(json, "marks") == marks &&
            number_at(json, "purges") == purges)
            return json;
        json_decref(json);
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 5);
    }
}

static void the_outbox_is_told_oldest_first(void **state)
{
    struct node *node = *state;
    char ids[5][27], path[64], there[27];
    struct reply reply;
    json_t *json, *owed;

    put(node, 9, there);
    json_decref(await_outbox(node, 0, 0, 0));
    cloud_memory_hold(cloud, true);
    for (unsigned i = 0; i < 5; i++) {
        put(node, i, ids[i]);
        (void)poll(NULL, 0, 2); /* another millisecond */
    }
    (void)snprintf(path, sizeof path, "/api/v1/delete/%s", there);
    request(node, &reply, "POST", path, "X-Meta-Purge: 1\r\nX-Meta-Timeout: 0\r\n", NULL, 0);
    assert_in_range(reply.status, 200, 202);
    reply_free(&reply);

    json = await_outbox(node, 5, 1, 1);
    assert_int_equal(number_at(json, "upload_bytes"), 0 + 1 + 2 + 3 + 4);
    owed = json_object_get(json, "owed");
    assert_int_equal(json_array_size(owed), 7);
    for (unsigned i = 0; i < 7; i++) {
        json_t *one = json_array_get(owed, i);
        char name[8];

        assert_in_range(number_at(one, "age_s"), 0, 600);
        (void)snprintf(name, sizeof name, "n%u", i);
        assert_string_equal(text_at(one, "name"), i < 5 ? name : ""); /* deleted: none */
        if (i >= 5) {
            assert_string_equal(text_at(one, "id"), there);
            continue;
        }
        assert_string_equal(text_at(one, "what"), "upload");
        assert_string_equal(text_at(one, "id"), ids[i]);
        assert_int_equal(number_at(one, "size"), i);
    }
    json_decref(json);

    json = ask(node, "POST", "outbox", "{\"limit\":2}", 200);
    owed = json_object_get(json, "owed");
    assert_int_equal(json_array_size(owed), 2);
    assert_string_equal(text_at(json_array_get(owed, 1), "id"), ids[1]);
    assert_int_equal(number_at(json, "uploads"), 5);
    json_decref(json);
}

static void arguments_that_make_no_sense_are_refused(void **state)
{
    static const char *const limits[] = {"{\"limit\":0}", "{\"limit\":1001}", "{\"limit\":-1}",
                                         "{\"limit\":\"5\"}", "{\"limit\":1.5}"};
    static const char *const prefixes[] = {"{\"prefix\":7}", "{\"prefix\":\"a\\u0000b\"}",
                                           "{\"prefix\":null}"};
    struct node *node = *state;
    char body[LIMIT_CLOUD_KEY_BYTES + 32];

    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        refuse(node, "outbox", limits[i], 400, "invalid_argument");
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        json_t *json = ask(node, "POST", "import", prefixes[i], 400);
        json_decref(json);
    }
    (void)snprintf(body, sizeof body, "{\"prefix\":\"%0*d\"}", LIMIT_CLOUD_KEY_BYTES + 1, 0);
    refuse(node, "import", body, 400, "invalid_argument");
    json_t *json = ask(node, "GET", "import", "", 200);
    assert_string_equal(text_at(json, "phase"), "none");
    json_decref(json);
}

/* ---- Import ---- */

/* Until the import is over. */
static json_t *settled(struct node *node)
{
    for (time_t until = time(NULL) + WAIT_S;;) {
        json_t *json = ask(node, "GET", "import", "", 200);

        if (strcmp(text_at(json, "phase"), "running") != 0)
            return json;
        json_decref(json);
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 5);
    }
}

static void an_import_tells_how_far_it_is(void **state)
{
    struct node *node = *state;

    cloud_memory_set(cloud, "a/one", "1", 1, NULL, NULL, 0, NULL, 0);
    cloud_memory_set(cloud, "a/two", "22", 2, NULL, NULL, 0, NULL, 0);
    cloud_memory_set(cloud, "b/three", "333", 3, NULL, NULL, 0, NULL, 0);
    json_decref(ask(node, "POST", "import", "{\"prefix\":\"a/\",\"dry_run\":true}", 200));
    json_t *json = settled(node);
    assert_string_equal(text_at(json, "phase"), "done");
    assert_true(json_is_true(json_object_get(json, "dry_run")));
    assert_int_equal(number_at(json, "listed"), 2);
    assert_int_equal(number_at(json, "adopted"), 2);
    json_decref(json);

    json_decref(ask(node, "POST", "import", "{}", 200));
    json = settled(node);
    assert_true(json_is_false(json_object_get(json, "dry_run")));
    assert_int_equal(number_at(json, "adopted"), 3);
    assert_int_equal(number_at(json, "adopted_bytes"), 6);
    assert_int_equal(number_at(json, "read"), 3);
    assert_int_equal(number_at(json, "read_bytes"), 6);
    assert_int_equal(number_at(json, "refused"), 0);
    assert_string_equal(text_at(json, "key"), "b/three");
    json_decref(json);
    json_decref(ask(node, "POST", "import", "", 200));
    json = settled(node);
    assert_int_equal(number_at(json, "known"), 3);
    json_decref(json);
}

static void one_import_runs_at_a_time_and_can_be_ended(void **state)
{
    struct node *node = *state;
    struct reply reply;

    cloud_memory_hold(cloud, true);
    json_t *json = ask(node, "POST", "import", "", 200);
    assert_string_equal(text_at(json, "phase"), "running");
    json_decref(json);
    cloud_memory_wait(cloud, CLOUD_LIST, 1);
    refuse(node, "import", "", 409, "running");
    request(node, &reply, "GET", "/api/v1/stats", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    json_decref(ask(node, "POST", "import", "{\"cancel\":true}", 200));
    json = settled(node);
    assert_string_equal(text_at(json, "phase"), "cancelled");
    json_decref(json);
    cloud_memory_hold(cloud, false);
    json_decref(ask(node, "POST", "import", "", 200));
    json = settled(node);
    assert_string_equal(text_at(json, "phase"), "done");
    json_decref(json);
}

static void a_refused_import_says_why(void **state)
{
    struct node *node = *state;

    cloud_memory_fail(cloud, CLOUD_LIST, ERR_PERMISSION, 1, false);
    json_decref(ask(node, "POST", "import", "", 200));
    json_t *json = settled(node);
    assert_string_equal(text_at(json, "phase"), "failed");
    assert_non_null(strstr(text_at(json, "message"), "memory: "));
    json_decref(json);
}

int main(void)
{
#define NODE_TEST(name, with) cmocka_unit_test_setup_teardown(name, with, teardown)
    const struct CMUnitTest tests[] = {
        NODE_TEST(a_node_without_a_cloud_says_so, setup_without_cloud),
        NODE_TEST(a_node_alone_says_so, setup_alone),
        NODE_TEST(a_check_tells_each_step_and_what_to_do, setup),
        NODE_TEST(the_outbox_is_told_oldest_first, setup),
        NODE_TEST(arguments_that_make_no_sense_are_refused, setup),
        NODE_TEST(an_import_tells_how_far_it_is, setup),
        NODE_TEST(one_import_runs_at_a_time_and_can_be_ended, setup),
        NODE_TEST(a_refused_import_says_why, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
