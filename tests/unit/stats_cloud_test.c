/* Goal: the cloud's figures are those of its parts, in JSON as in Prometheus' text; what is saved
 * is what was served and did not come from there, never less than nothing, and its price is worked
 * out in whole digits whatever the numbers. */
#include "api/stats_cloud.h"

#include "api_fixture.h"
#include "cloud_memory.h"

#include <jansson.h>
#include <poll.h>
#include <time.h>

/* Each figure another number. */
static struct stats_cloud sample(void)
{
    struct stats_cloud it = {
        .backend = "s3",
        .bucket = "a \"bucket\"",
        .figures = {.bytes_up = 101, .bytes_down = 102, .retries = 103},
        .reads = {.gets = 104,
                  .coalesced = 105,
                  .delegated = 106,
                  .failures = 107,
                  .misses = 108,
                  .wrong = 109,
                  .guard = {.state = BREAKER_OPEN, .opened = 110, .refused = 111, .wait_ms = 1001}},
        .uploads = {.uploads = 112, .failures = 113, .flights = 114},
        .pending = 115,
        .pending_bytes = 116,
        .oldest_s = 117,
        .served_bytes = 118,
        .saved_bytes = 119,
        .price = "0.09",
        .saved = 1234.0000005};

    for (unsigned op = CLOUD_PUT; op <= CLOUD_TAGS; op++)
        it.figures.by_op[op] = (struct cloud_count){.sent = 1000 * op + 7, .failed = 7};
    return it;
}

static json_t *json_of(const struct stats_cloud *it)
{
    struct buf out = {0};

    buf_char(&out, '{');
    stats_cloud_json(&out, it);
    buf_char(&out, '}');
    assert_int_equal(buf_check(&out), 0);
    json_t *json = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json)
        fail_msg("not JSON: %.*s", (int)out.len, out.data);
    buf_release(&out);
    json_t *cloud = json_incref(json_object_get(json, "cloud"));
    json_decref(json);
    assert_non_null(cloud);
    return cloud;
}

static void expect(json_t *json, const char *section, const char *name, json_int_t value)
{
    json_t *of = section ? json_object_get(json, section) : json, *got = json_object_get(of, name);

    if (!json_is_integer(got) || json_integer_value(got) != value)
        fail_msg("%s.%s: %lld", section ? section : "", name, (long long)json_integer_value(got));
}

static void the_document_has_every_figure_in_its_place(void **state)
{
    static const struct {
        const char *section, *name;
        json_int_t value;
    } all[] = {{NULL, "opened", 110},
               {NULL, "refused", 111},
               {NULL, "wait_s", 2}, /* rounded up: not before */
               {NULL, "retries", 103},
               {NULL, "bytes_up", 101},
               {NULL, "bytes_down", 102},
               {NULL, "uploads", 112},
               {NULL, "upload_failures", 113},
               {NULL, "uploading", 114},
               {NULL, "gets", 104},
               {NULL, "coalesced", 105},
               {NULL, "delegated", 106},
               {NULL, "get_failures", 107},
               {NULL, "misses", 108},
               {NULL, "wrong", 109},
               {"outbox", "pending", 115},
               {"outbox", "bytes", 116},
               {"outbox", "oldest_s", 117},
               {"egress", "served_bytes", 118},
               {"egress", "fetched_bytes", 102},
               {"egress", "saved_bytes", 119}};
    static const char *const ops[] = {"put", "get", "head", "delete", "list", "tags"};
    struct stats_cloud it = sample();
    json_t *json = json_of(&it);

    (void)state;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        expect(json, all[i].section, all[i].name, all[i].value);
    json_t *requests = json_object_get(json, "requests");
    assert_int_equal(json_object_size(requests), 6);
    for (unsigned i = 0; i < 6; i++) {
        expect(requests, ops[i], "answered", 1000 * (i + 1));
        expect(requests, ops[i], "failed", 7);
    }
    assert_string_equal(json_string_value(json_object_get(json, "backend")), "s3");
    assert_string_equal(json_string_value(json_object_get(json, "bucket")), "a \"bucket\"");
    assert_string_equal(json_string_value(json_object_get(json, "state")), "open");
    json_t *egress = json_object_get(json, "egress");
    assert_string_equal(json_string_value(json_object_get(egress, "price")), "0.09");
    assert_true(json_is_real(json_object_get(egress, "saved_estimate")));
    json_decref(json);
}

static void expect_line(const char *text, const char *line)
{
    char whole[256];

    (void)snprintf(whole, sizeof whole, "\n%s\n", line);
    if (!strstr(text, whole))
        fail_msg("no line %s in %s", line, text);
}

static void the_metrics_say_the_same(void **state)
{
    static const char *const lines[] = {
        "objstore_cloud_info{backend=\"s3\",bucket=\"a \\\"bucket\\\"\",state=\"open\"} 1",
        "objstore_cloud_requests_total{op=\"put\",result=\"answered\"} 1000",
        "objstore_cloud_requests_total{op=\"tags\",result=\"failed\"} 7",
        "objstore_cloud_opened_total 110",
        "objstore_cloud_refused_total 111",
        "objstore_cloud_wait_seconds 2",
        "objstore_cloud_retries_total 103",
        "objstore_cloud_up_bytes_total 101",
        "objstore_cloud_down_bytes_total 102",
        "objstore_cloud_uploads_total 112",
        "objstore_cloud_upload_failures_total 113",
        "objstore_cloud_uploading 114",
        "objstore_cloud_gets_total 104",
        "objstore_cloud_coalesced_total 105",
        "objstore_cloud_delegated_total 106",
        "objstore_cloud_get_failures_total 107",
        "objstore_cloud_misses_total 108",
        "objstore_cloud_wrong_total 109",
        "objstore_cloud_outbox_oldest_seconds 117",
        "objstore_cloud_served_bytes_total 118",
        "objstore_cloud_saved_bytes 119",
        "objstore_cloud_saved_estimate 1234.000001"};
    struct stats_cloud it = sample();
    struct buf out = {0};

    (void)state;
    stats_cloud_metrics(&out, &it);
    buf_char(&out, '\0');
    assert_int_equal(buf_check(&out), 0);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        expect_line(out.data, lines[i]);
    buf_release(&out);
}

/* More failed than were sent, as the two are not read at one moment: none was answered. */
static void odd_numbers_stay_numbers(void **state)
{
    static const struct {
        double saved;
        const char *text;
    } cases[] = {
        {0, "0.000000"},         {0.0000004, "0.000000"},       {0.0000005, "0.000001"},
        {0.9999996, "1.000000"}, {1e11, "100000000000.000000"}, {1e30, "1000000000000.000000"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct stats_cloud it = sample();
        struct buf out = {0};
        char line[80];

        it.saved = cases[i].saved;
        it.figures.by_op[CLOUD_PUT] = (struct cloud_count){.sent = 1, .failed = 2};
        json_t *json = json_of(&it);
        expect(json_object_get(json, "requests"), "put", "answered", 0);
        json_decref(json);
        stats_cloud_metrics(&out, &it);
        buf_char(&out, '\0');
        (void)snprintf(line, sizeof line, "objstore_cloud_saved_estimate %s", cases[i].text);
        expect_line(out.data, line);
        buf_release(&out);
    }
}

/* ---- Taken from a node ---- */

static struct cloud *cloud;

static int setup(void **state)
{
    struct node *node = node_prepare(0, env_system());

    cloud = cloud_memory_create();
    node->joins = true;
    node->cloud = cloud;
    node->drain_ms = 100;
    node_start(node);
    *state = node;
    return 0;
}

static int teardown(void **state)
{
    cloud_memory_hold(cloud, false);
    node_destroy(*state);
    cloud_destroy(&cloud);
    return 0;
}

static struct stats_cloud taken(struct node *node, const char *price)
{
    const struct stats_source source = {
        .store = node->store, .cluster = node->cluster, .egress_price = price};
    struct journal_stats journal;
    struct cluster_stats stats;
    struct stats_cloud it;

    journal_stats(node->journal, &journal);
    cluster_stats(node->cluster, &stats);
    stats_cloud_take(&it, &source, &stats.cloud, &journal);
    return it;
}

static void put(struct node *node, const char *level, char path[64])
{
    static const char body[1000];
    struct reply reply;
    char head[96];

    (void)snprintf(head, sizeof head, "X-Meta-ConsistencyLevel: %s\r\nX-Meta-Timeout: 0\r\n",
                   level);
    request(node, &reply, "PUT", "/api/v1/put", head, body, sizeof body);
    assert_int_equal(reply.status, *level == '0' ? 200 : 202);
    (void)snprintf(path, 64, "/api/v1/get/%.26s", value_of(&reply, "X-Meta-Id"));
    reply_free(&reply);
}

static void get(struct node *node, const char *path)
{
    struct reply reply;

    request(node, &reply, "GET", path, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
}

static void what_was_served_and_not_fetched_is_saved(void **state)
{
    struct node *node = *state;
    char path[64], local[64];

    struct stats_cloud it = taken(node, NULL);
    assert_string_equal(it.backend, "memory");
    assert_string_equal(it.bucket, "memory");
    assert_string_equal(it.price, "0");
    assert_int_equal(it.saved_bytes, 0);
    put(node, "1", path);
    put(node, "0", local);
    for (time_t until = time(NULL) + WAIT_S; it.uploads.uploads == 0 || it.pending;) {
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 5);
        it = taken(node, NULL);
    }
    for (int i = 0; i < 3; i++)
        get(node, path);
    get(node, local);
    it = taken(node, "0.5");
    assert_int_equal(it.served_bytes, 3000);
    assert_int_equal(it.saved_bytes, 3000);
    assert_string_equal(it.price, "0.5");
    assert_true(it.saved > 1.4999e-6 && it.saved < 1.5001e-6);
    assert_int_equal(it.uploads.uploads, 1);
    assert_int_equal(it.figures.by_op[CLOUD_PUT].sent, 1);
    assert_int_equal(it.pending, 0);
    assert_int_equal(it.oldest_s, 0);
}

static void what_is_owed_is_counted_with_its_age(void **state)
{
    struct node *node = *state;
    char path[64];
    struct stats_cloud it;

    cloud_memory_hold(cloud, true);
    put(node, "1", path);
    put(node, "1", path);
    for (time_t until = time(NULL) + WAIT_S;;) {
        it = taken(node, "1");
        if (it.oldest_s >= 1 && it.pending == 2)
            break;
        assert_true(time(NULL) <= until);
        (void)poll(NULL, 0, 5);
    }
    assert_int_equal(it.pending_bytes, 2000);
    assert_int_equal(it.uploads.uploads, 0);
    assert_true(it.uploads.flights > 0);
}

static void a_node_without_a_cloud_has_figures_all_the_same(void **state)
{
    struct node *node = node_create(0, env_system());
    const struct stats_source source = {.store = node->store};
    const struct cluster_cloud_stats reads = {0};
    struct journal_stats journal;
    struct stats_cloud it;

    (void)state;
    journal_stats(node->journal, &journal);
    stats_cloud_take(&it, &source, &reads, &journal);
    json_t *json = json_of(&it);
    assert_string_equal(json_string_value(json_object_get(json, "backend")), "none");
    assert_string_equal(json_string_value(json_object_get(json, "bucket")), "");
    assert_string_equal(json_string_value(json_object_get(json, "state")), "closed");
    expect(json, "egress", "saved_bytes", 0);
    json_decref(json);
    node_destroy(node);
}

int main(void)
{
#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_document_has_every_figure_in_its_place),
        cmocka_unit_test(the_metrics_say_the_same),
        cmocka_unit_test(odd_numbers_stay_numbers),
        NODE_TEST(what_was_served_and_not_fetched_is_saved),
        NODE_TEST(what_is_owed_is_counted_with_its_age),
        cmocka_unit_test(a_node_without_a_cloud_has_figures_all_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
