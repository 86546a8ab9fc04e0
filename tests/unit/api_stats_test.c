/* Goal: the figures count what happened, in JSON as in Prometheus' text, and both are well-formed;
 * administration does its work over the socket. */
#include "api/stats_cluster.h"
#include "api_fixture.h"
#include "journal/ulid.h"

#include <ctype.h>
#include <jansson.h>
#include <sys/stat.h>

static int setup(void **state)
{
    *state = node_create(0, env_system());
    return 0;
}

static int teardown(void **state)
{
    node_destroy(*state);
    return 0;
}

static json_t *stats(struct node *node)
{
    struct reply reply;

    request(node, &reply, "GET", "/api/v1/stats", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    json_t *json = json_loadb(reply.body, reply.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json)
        fail_msg("not JSON: %s", reply.body);
    reply_free(&reply);
    return json;
}

/* The number at SECTION.KEY; it must be there. */
static json_int_t figure(json_t *json, const char *section, const char *key)
{
    json_t *value = json_object_get(json_object_get(json, section), key);

    if (!json_is_integer(value))
        fail_msg("%s.%s is missing", section, key);
    return json_integer_value(value);
}

static void work(struct node *node)
{
    struct reply reply;
    char id[27], path[64];

    request(node, &reply, "PUT", "/api/v1/put", "X-Meta-ConsistencyLevel: 1\r\n", "12345", 5);
    assert_int_equal(reply.status, 202);
    (void)snprintf(id, sizeof id, "%.26s", value_of(&reply, "X-Meta-Id"));
    reply_free(&reply);
    (void)snprintf(path, sizeof path, "/api/v1/get/%.26s", id);
    for (int i = 0; i < 3; i++) {
        request(node, &reply, "GET", path, NULL, NULL, 0);
        assert_int_equal(reply.status, 200);
        reply_free(&reply);
    }
    request(node, &reply, "POST", "/api/v1/delete/01BRNMMS1DK3CBD4ZZM2TQ8C5B", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    request(node, &reply, "GET", "/nothing", NULL, NULL, 0);
    assert_int_equal(reply.status, 404);
    reply_free(&reply);
}

static void the_document_counts_what_happened(void **state)
{
    struct node *node = *state;

    work(node);
    json_t *json = stats(node);
    static const char *const units[] = {"bytes", "kb", "mb", "gb"};
    for (size_t i = 0; i < 4; i++) {
        char all[16], used[16], unused[16];

        (void)snprintf(all, sizeof all, "%s_all", units[i]);
        (void)snprintf(used, sizeof used, "%s_used", units[i]);
        (void)snprintf(unused, sizeof unused, "%s_free", units[i]);
        json_int_t sum = figure(json, "disk_stats", used) + figure(json, "disk_stats", unused);
        assert_in_range(figure(json, "disk_stats", all), sum, sum + 1);
    }
    assert_true(figure(json, "disk_stats", "bytes_all") > 0);
    json_t *node_json = json_object_get(json, "node");
    assert_string_equal(json_string_value(json_object_get(node_json, "version")), "1.2.3-test");
    assert_string_equal(json_string_value(json_object_get(node_json, "tag")), "a \"tag\"");
    assert_string_equal(json_string_value(json_object_get(node_json, "durability")), "full");
    assert_string_equal(json_string_value(json_object_get(node_json, "health")), "good");
    assert_true(figure(json, "node", "uptime_s") < 600);
    assert_int_equal(figure(json, "objects", "count"), 1);
    assert_int_equal(figure(json, "objects", "deleted"), 1);
    assert_int_equal(figure(json, "objects", "bytes"), 5);
    assert_int_equal(figure(json, "journal", "events"), 2);
    json_t *journal = json_object_get(json, "journal");
    assert_int_equal(json_object_size(json_object_get(journal, "vector")), 1);
    const char *origin = json_object_iter_key(json_object_iter(json_object_get(journal, "vector")));
    struct id128 id;
    assert_int_equal(ulid_parse(&id, origin, strlen(origin)), 0);
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(journal, "vector"), origin)), 2);
    assert_int_equal(strlen(json_string_value(json_object_get(journal, "digest"))), 32);
    assert_true(figure(json, "journal", "position") > 0);
    (void)figure(json, "journal", "durable_position");
    assert_int_equal(figure(json, "commit", "records"), 2);
    assert_int_equal(figure(json, "commit", "batches"), 2);
    assert_int_equal(figure(json, "commit", "syncs"), 2);
    assert_in_range(figure(json, "commit", "pending"), 0, 2);
    assert_int_equal(figure(json, "outbox", "count"), 1);
    assert_int_equal(figure(json, "outbox", "bytes"), 5);
    static const char *const conflicts[] = {"count", "bytes", "done"};
    for (size_t i = 0; i < sizeof conflicts / sizeof *conflicts; i++)
        assert_int_equal(figure(json, "conflicts", conflicts[i]), 0);
    assert_int_equal(figure(json, "memory", "limit_bytes"), 8 * MIB);
    assert_true(figure(json, "memory", "hits") >= 1);
    assert_true(figure(json, "memory", "misses") >= 1);
    assert_int_equal(figure(json_object_get(json, "http"), "requests", "2xx"), 5);
    assert_int_equal(figure(json_object_get(json, "http"), "requests", "4xx"), 1);
    assert_true(figure(json, "http", "connections") >= 1);
    assert_int_equal(figure(json, "http", "in_flight"), 1);
    static const char *const faults[] = {"bad_blocks", "repaired", "lost",
                                         "conflicts",  "clock",    "refused"};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        assert_int_equal(figure(json, "faults", faults[i]), 0);
    json_decref(json);
}

static const char *member_text(json_t *json, size_t at, const char *name)
{
    json_t *list = json_object_get(json_object_get(json, "cluster"), "members");

    return json_string_value(json_object_get(json_array_get(list, at), name));
}

static void a_node_without_others_says_that_it_is_alone(void **state)
{
    struct node *node = *state;
    struct reply reply;

    json_t *json = stats(node);
    json_t *cluster = json_object_get(json, "cluster");
    assert_string_equal(json_string_value(json_object_get(cluster, "health")), "alone");
    assert_int_equal(json_array_size(json_object_get(cluster, "members")), 1);
    assert_string_equal(member_text(json, 0, "state"), "alive");
    assert_string_equal(member_text(json, 0, "id"),
                        json_string_value(json_object_get(json_object_get(json, "node"), "id")));
    static const char *const sections[] = {"sync",        "merge", "transfer",
                                           "replication", "notes", "link"};
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++) {
        json_t *section = json_object_get(json, sections[i]), *value;
        const char *name;

        assert_true(json_object_size(section) >= 2);
        json_object_foreach(section, name, value)
        {
            assert_int_equal(json_integer_value(value), 0);
        }
    }
    json_decref(json);
    request(node, &reply, "GET", "/readyz", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    assert_non_null(strstr(reply.body, "\"cluster\":\"alone\""));
    reply_free(&reply);
}

/* Six nodes, one for each state that differs; ids 1 to 6 in the first byte. */
static void make_cluster(struct stats_cluster *it)
{
    static const struct {
        enum member_state joined;
        enum probe_state state;
        int64_t rtt_ms;
        bool equal;
    } members[] = {
        {MEMBER_JOINED, PROBE_ALIVE, -1, true},   {MEMBER_JOINED, PROBE_ALIVE, 17, false},
        {MEMBER_JOINED, PROBE_SUSPECT, 3, false}, {MEMBER_JOINED, PROBE_FAILED, -1, false},
        {MEMBER_JOINED, PROBE_LEFT, 2, true},     {MEMBER_LEFT, PROBE_LEFT, -1, false},
    };

    memset(it, 0, sizeof *it);
    it->count = sizeof members / sizeof *members;
    for (size_t i = 0; i < it->count; i++) {
        struct cluster_member *m = &it->members[i];

        m->node.bytes[0] = (uint8_t)(i + 1);
        m->self = i == 0;
        m->joined = members[i].joined;
        m->state = members[i].state;
        m->rtt_ms = members[i].rtt_ms;
        m->digest_equal = members[i].equal;
        m->feature = 1;
        (void)snprintf(m->address, sizeof m->address, "10.0.0.%zu:11999", i + 1);
    }
    it->figures = (struct cluster_stats){.health = PROBE_DEGRADED,
                                         .events_in = 1001,
                                         .bytes_in = 1002,
                                         .events_out = 1003,
                                         .bytes_out = 1004,
                                         .sessions = 1005,
                                         .timeouts = 1006,
                                         .fetches = 1007,
                                         .fetch_bytes = 1008,
                                         .fetch_failures = 1009,
                                         .served_bytes = 1010,
                                         .wanted = 1011,
                                         .replicated = 1012,
                                         .frames_in = 1013,
                                         .frames_out = 1014,
                                         .malformed = 1015,
                                         .other_tag = 1016,
                                         .refused = 1017,
                                         .link_bytes_in = 1018,
                                         .link_bytes_out = 1019,
                                         .notes_said = 1020,
                                         .notes_received = 1021,
                                         .notes_refused = 1022,
                                         .rows_in = 1023,
                                         .row_bytes_in = 1024,
                                         .rows_out = 1025,
                                         .row_bytes_out = 1026,
                                         .merges_adopted = 1027,
                                         .merges_repaired = 1028,
                                         .merges_given_up = 1029,
                                         .merges_served = 1030,
                                         .merge_timeouts = 1031};
}

static void members_are_listed_with_the_state_that_this_node_sees(void **state)
{
    static const char *const states[] = {"alive", "alive", "suspect", "failed", "left", "left"};
    static struct stats_cluster it;
    struct buf out;

    (void)state;
    make_cluster(&it);
    buf_init(&out, MIB);
    buf_char(&out, '{');
    stats_cluster_json(&out, &it);
    buf_char(&out, '}');
    assert_int_equal(buf_check(&out), 0);
    json_t *json = json_loadb(out.data, out.len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(json);
    json_t *cluster = json_object_get(json, "cluster");
    json_t *members = json_object_get(cluster, "members");
    assert_string_equal(json_string_value(json_object_get(cluster, "health")), "degraded");
    assert_int_equal(figure(json, "cluster", "joined"), 5);
    assert_int_equal(figure(json, "cluster", "alive"), 2);
    assert_int_equal(figure(json, "cluster", "unequal"), 1);
    assert_int_equal(json_array_size(members), 6);
    for (size_t i = 0; i < 6; i++) {
        json_t *m = json_array_get(members, i);
        char address[24];

        (void)snprintf(address, sizeof address, "10.0.0.%zu:11999", i + 1);
        assert_string_equal(member_text(json, i, "state"), states[i]);
        assert_string_equal(member_text(json, i, "addr"), address);
        assert_int_equal(json_is_true(json_object_get(m, "self")), i == 0);
        assert_int_equal(json_is_true(json_object_get(m, "joined")), i < 5);
        assert_int_equal(json_is_true(json_object_get(m, "digest_equal")), i == 0 || i == 4);
        assert_int_equal(json_is_null(json_object_get(m, "rtt_ms")), i == 0 || i == 3 || i == 5);
    }
    assert_int_equal(json_integer_value(json_object_get(json_array_get(members, 1), "rtt_ms")), 17);
    static const struct {
        const char *section, *key;
    } figures[] = {
        {"sync", "events_in"},     {"sync", "bytes_in"},       {"sync", "events_out"},
        {"sync", "bytes_out"},     {"sync", "rounds"},         {"sync", "timeouts"},
        {"transfer", "fetches"},   {"transfer", "bytes_in"},   {"transfer", "failures"},
        {"transfer", "bytes_out"}, {"replication", "pending"}, {"replication", "copied"},
        {"link", "frames_in"},     {"link", "frames_out"},     {"link", "malformed"},
        {"link", "other_tag"},     {"link", "refused"},        {"link", "bytes_in"},
        {"link", "bytes_out"},     {"notes", "said"},          {"notes", "received"},
        {"notes", "refused"},      {"merge", "rows_in"},       {"merge", "bytes_in"},
        {"merge", "rows_out"},     {"merge", "bytes_out"},     {"merge", "adopted"},
        {"merge", "repaired"},     {"merge", "given_up"},      {"merge", "served"},
        {"merge", "timeouts"},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        assert_int_equal(figure(json, figures[i].section, figures[i].key), 1001 + i);
    json_decref(json);
    buf_release(&out);
}

/* The value of the sample NAME (with its labels), which must be there exactly once. */
static double sample(const char *text, const char *name)
{
    size_t len = strlen(name);
    double value = -1;
    int count = 0;

    for (const char *at = text; at && *at; at = strchr(at, '\n'), at = at ? at + 1 : NULL) {
        if (strncmp(at, name, len) == 0 && at[len] == ' ') {
            value = strtod(at + len + 1, NULL);
            count++;
        }
    }
    if (count != 1)
        fail_msg("%s is there %d times", name, count);
    return value;
}

/* Every line is a comment of two kinds or a sample whose family was announced. */
static void expect_well_formed(char *text)
{
    char family[128] = "";
    char *save = NULL;

    assert_int_equal(text[strlen(text) - 1], '\n');
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char name[128], type[32], *end;

        if (sscanf(line, "# TYPE %127s %31s", name, type) == 2) {
            if (strcmp(name, family) != 0)
                fail_msg("TYPE without its HELP: %s", line);
            assert_true(strcmp(type, "gauge") == 0 || strcmp(type, "counter") == 0 ||
                        strcmp(type, "histogram") == 0);
        } else if (sscanf(line, "# HELP %127s", name) == 1) {
            (void)snprintf(family, sizeof family, "%s", name);
            assert_true(strlen(line) > strlen("# HELP ") + strlen(name) + 1);
        } else {
            if (strncmp(line, family, strlen(family)) != 0)
                fail_msg("a sample without its family: %s", line);
            const char *value = strrchr(line, ' ');
            assert_non_null(value);
            (void)strtod(value + 1, &end);
            assert_int_equal(*end, 0);
        }
    }
}

static void the_metrics_say_the_same(void **state)
{
    struct node *node = *state;
    struct reply reply;

    work(node);
    request(node, &reply, "GET", "/metrics", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    assert_string_equal(value_of(&reply, "Content-Type"),
                        "text/plain; version=0.0.4; charset=utf-8");
    const char *text = reply.body;
    assert_true(sample(text, "objstore_objects") == 1);
    assert_true(sample(text, "objstore_objects_bytes") == 5);
    assert_true(sample(text, "objstore_commit_syncs_total") == 2);
    assert_true(sample(text, "objstore_outbox") == 1);
    assert_true(sample(text, "objstore_http_requests_total{class=\"2xx\"}") == 5);
    assert_non_null(strstr(text, "tag=\"a \\\"tag\\\"\""));
    /* Three reads, each in some bucket; the last bucket is the count. */
#define LATENCY "objstore_http_request_duration_seconds"
    assert_true(sample(text, LATENCY "_count{operation=\"get\"}") == 3);
    assert_true(sample(text, LATENCY "_bucket{operation=\"get\",le=\"+Inf\"}") == 3);
    assert_true(sample(text, LATENCY "_sum{operation=\"get\"}") > 0);
    assert_true(sample(text, LATENCY "_count{operation=\"put\"}") == 1);
    assert_true(sample(text, LATENCY "_count{operation=\"delete\"}") == 1);
    expect_well_formed(reply.body);
    reply_free(&reply);
}

static void collectors_see_the_same_cluster(void **state)
{
    static struct stats_cluster it;
    struct buf out;

    (void)state;
    make_cluster(&it);
    (void)snprintf(it.members[1].address, sizeof it.members[1].address, "a\"b:1");
    buf_init(&out, MIB);
    stats_cluster_metrics(&out, &it);
    buf_char(&out, 0);
    assert_int_equal(buf_check(&out), 0);
    const char *text = out.data;
    assert_true(sample(text, "objstore_cluster_info{health=\"degraded\"}") == 1);
    assert_true(sample(text, "objstore_cluster_members{state=\"alive\"}") == 2);
    assert_true(sample(text, "objstore_cluster_members{state=\"suspect\"}") == 1);
    assert_true(sample(text, "objstore_cluster_members{state=\"failed\"}") == 1);
    assert_true(sample(text, "objstore_cluster_members{state=\"left\"}") == 2);
    assert_true(sample(text, "objstore_cluster_joined") == 5);
    assert_true(sample(text, "objstore_cluster_unequal") == 1);
    assert_true(sample(text, "objstore_sync_received_events_total") == 1001);
    assert_true(sample(text, "objstore_replication_pending") == 1011);
    assert_true(sample(text, "objstore_link_refused_total") == 1017);
    char name[128], id[ULID_TEXT_BYTES + 1];
    ulid_format(id, &it.members[1].node);
    (void)snprintf(name, sizeof name, "objstore_cluster_member_rtt_seconds{id=\"%s\"}", id);
    assert_true(sample(text, name) == 0.017);
    assert_non_null(strstr(text, "addr=\"a\\\"b:1\",state=\"alive\",self=\"false\""));
    /* Who left for good has no samples of its own. */
    assert_null(strstr(text, "10.0.0.6"));
    expect_well_formed(out.data);
    buf_release(&out);
}

static void control(struct node *node, struct reply *reply, const char *method, const char *path,
                    const char *body)
{
    char text[1024];
    int fd = dial_control(node);
    int n =
        snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: c\r\nContent-Length: %zu\r\n\r\n%s",
                 method, path, strlen(body), body);

    send_all(fd, text, (size_t)n);
    receive(fd, reply, true);
    (void)close(fd);
}

static void administration_answers_over_the_socket(void **state)
{
    static const struct {
        const char *method, *path, *body;
        unsigned status;
    } cases[] = {
        {"GET", "/control/v1/stats", "", 200},
        {"POST", "/control/v1/stats", "", 405},
        {"GET", "/control/v1/backup", "", 405},
        {"GET", "/api/v1/id", "", 404},
        {"POST", "/control/v1/backup", "", 400},
        {"POST", "/control/v1/backup", "{\"dir\":\"relative\"}", 400},
        {"POST", "/control/v1/backup", "{\"dir\":7}", 400},
        {"POST", "/control/v1/backup", "{\"dir\":", 400},
    };
    struct node *node = *state;
    struct reply reply;

    work(node);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        control(node, &reply, cases[i].method, cases[i].path, cases[i].body);
        if (reply.status != cases[i].status)
            fail_msg("%s %s: %u", cases[i].method, cases[i].path, reply.status);
        reply_free(&reply);
    }
    control(node, &reply, "POST", "/control/v1/journal/verify", "");
    assert_int_equal(reply.status, 200);
    json_t *json = json_loadb(reply.body, reply.len, 0, NULL);
    assert_non_null(json);
    assert_int_equal(json_integer_value(json_object_get(json, "breaks")), 0);
    json_decref(json);
    reply_free(&reply);
}

static void a_backup_is_a_store_of_its_own(void **state)
{
    struct node *node = *state;
    struct reply reply;
    char body[256], path[160];
    struct stat info;

    work(node);
    (void)snprintf(path, sizeof path, "%s/backup", node->root);
    (void)snprintf(body, sizeof body, "{\"dir\":\"%s\"}", path);
    control(node, &reply, "POST", "/control/v1/backup", body);
    if (reply.status != 200)
        fail_msg("%u %s", reply.status, reply.body);
    reply_free(&reply);
    (void)snprintf(path, sizeof path, "%s/backup/state/journal.db", node->root);
    assert_int_equal(stat(path, &info), 0);
    /* The directory must be a fresh one. */
    control(node, &reply, "POST", "/control/v1/backup", body);
    assert_int_equal(reply.status, 409);
    reply_free(&reply);
}

int main(void)
{
#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        NODE_TEST(the_document_counts_what_happened),
        NODE_TEST(the_metrics_say_the_same),
        NODE_TEST(a_node_without_others_says_that_it_is_alone),
        cmocka_unit_test(members_are_listed_with_the_state_that_this_node_sees),
        cmocka_unit_test(collectors_see_the_same_cluster),
        NODE_TEST(administration_answers_over_the_socket),
        NODE_TEST(a_backup_is_a_store_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
