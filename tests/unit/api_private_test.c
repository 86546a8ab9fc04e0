/* Goal: the debug door serves the ancestor's private paths with the public API's own answers, and
 * nothing else; and what is served there is not served on the public door. */
#include "api/private.h"
#include "api_fixture.h"

#include <jansson.h>

struct fixture {
    struct node *node; /* whose `port` is the debug door's while a test asks there */
    struct private_api *debug;
    unsigned public_port, debug_port;
};

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);

    assert_non_null(fixture);
    fixture->node = node_create(0, env_system());
    const struct private_config config = {.api = fixture->node->api};
    assert_int_equal(private_create(&fixture->debug, &config), 0);
    assert_int_equal(
        http_server_listen(fixture->node->server, "127.0.0.1:0", private_handler(fixture->debug)),
        0);
    fixture->public_port = fixture->node->port;
    fixture->debug_port = http_server_port(fixture->node->server, 2);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    node_destroy(fixture->node);
    private_destroy(&fixture->debug);
    free(fixture);
    return 0;
}

static void ask(struct fixture *fixture, bool debug, struct reply *reply, const char *method,
                const char *path, const char *head, const void *body, size_t len)
{
    fixture->node->port = debug ? fixture->debug_port : fixture->public_port;
    request(fixture->node, reply, method, path, head, body, len);
}

static void expect(struct fixture *fixture, bool debug, const char *method, const char *path,
                   const char *head, unsigned status)
{
    struct reply reply;

    ask(fixture, debug, &reply, method, path, head, "x", 1);
    if (reply.status != status)
        fail_msg("%s %s: %u, not %u: %s", method, path, reply.status, status, reply.body);
    reply_free(&reply);
}

static void the_node_says_who_it_is_and_whom_it_knows(void **state)
{
    struct fixture *fixture = *state;
    struct reply ours, public;

    ask(fixture, true, &ours, "GET", "/private/v1/ping", NULL, NULL, 0);
    ask(fixture, false, &public, "GET", "/api/v1/ping", NULL, NULL, 0);
    assert_int_equal(ours.status, 200);
    assert_int_equal(ours.len, 26);
    assert_string_equal(ours.body, public.body);
    reply_free(&ours);

    ask(fixture, true, &ours, "GET", "/private/v1/nodes", NULL, NULL, 0);
    assert_int_equal(ours.status, 200);
    assert_string_equal(value_of(&ours, "Content-Type"), "application/json");
    json_t *list = json_loadb(ours.body, ours.len, JSON_REJECT_DUPLICATES, NULL);
    assert_int_equal(json_array_size(list), 1);
    json_t *self = json_array_get(list, 0);
    assert_int_equal(json_object_size(self), 3);
    assert_string_equal(json_string_value(json_object_get(self, "id")), public.body);
    assert_string_equal(json_string_value(json_object_get(self, "vaddr")), public.body);
    assert_string_equal(json_string_value(json_object_get(self, "addr")), "");
    json_decref(list);
    reply_free(&ours);
    reply_free(&public);
}

static void put_and_get_and_delete(struct fixture *fixture, size_t size)
{
    char path[64], id[27];
    struct reply reply;
    char *body = malloc(size);

    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (char)(i * 7 + i / 251);
    ask(fixture, true, &reply, "PUT", "/private/v1/put", "X-Meta-Name: a.txt\r\n", body, size);
    assert_int_equal(reply.status, 200);
    (void)snprintf(id, sizeof id, "%.26s", value_of(&reply, "X-Meta-Id"));
    reply_free(&reply);
    for (int debug = 0; debug < 2; debug++) {
        (void)snprintf(path, sizeof path, "/%s/v1/get/%s", debug ? "private" : "api", id);
        ask(fixture, debug, &reply, "GET", path, NULL, NULL, 0);
        assert_int_equal(reply.status, 200);
        assert_string_equal(value_of(&reply, "X-Meta-Name"), "a.txt");
        assert_int_equal(reply.len, size);
        assert_memory_equal(reply.body, body, size);
        reply_free(&reply);
    }
    ask(fixture, true, &reply, "GET", path, "Range: bytes=3-7\r\n", NULL, 0);
    assert_int_equal(reply.status, 206);
    assert_memory_equal(reply.body, body + 3, 5);
    reply_free(&reply);
    free(body);
    (void)snprintf(path, sizeof path, "/private/v1/delete/%s", id);
    expect(fixture, true, "POST", path, NULL, 200);
    (void)snprintf(path, sizeof path, "/private/v1/get/%s", id);
    ask(fixture, true, &reply, "GET", path, NULL, NULL, 0);
    assert_int_equal(reply.status, 404);
    assert_string_equal(value_of(&reply, "X-Meta-Deleted"), "true");
    reply_free(&reply);
}

static void bodies_go_in_and_out_as_on_the_public_door(void **state)
{
    struct fixture *fixture = *state;

    put_and_get_and_delete(fixture, 10);
    put_and_get_and_delete(fixture, LIMIT_INLINE_BODY_BYTES + 12345);
}

static void what_is_not_served_is_refused(void **state)
{
    struct fixture *fixture = *state;

    expect(fixture, true, "GET", "/api/v1/id", NULL, 404);
    expect(fixture, true, "GET", "/private/v1/", NULL, 404);
    expect(fixture, true, "GET", "/private/v1/pingpong", NULL, 404);
    expect(fixture, true, "POST", "/private/v1/ping", NULL, 405);
    expect(fixture, true, "GET", "/private/v1/put", NULL, 405);
    expect(fixture, true, "POST", "/private/v1/get/01BRNMMS1DK3CBD4ZZM2TQ8C5B", NULL, 405);
    expect(fixture, true, "GET", "/private/v1/get/nonsense", NULL, 400);
    expect(fixture, true, "PUT", "/private/v1/put", "X-Meta-ID: nonsense\r\n", 400);
    expect(fixture, true, "PUT", "/private/v1/put", "Sec-Fetch-Site: cross-site\r\n", 403);
    expect(fixture, false, "GET", "/private/v1/ping", NULL, 404);
    expect(fixture, false, "GET", "/private/v1/nodes", NULL, 404);
}

/* A message of the most bytes is read whole before that is said. */
static void without_a_cluster_it_is_told_nothing(void **state)
{
    struct fixture *fixture = *state;
    static char note[LIMIT_WIRE_NOTE_BYTES];
    struct reply reply;

    memset(note, 'x', sizeof note);
    for (int i = 0; i < 2; i++) {
        ask(fixture, true, &reply, "POST", "/private/v1/message", NULL, note, sizeof note);
        assert_int_equal(reply.status, 503);
        assert_non_null(strstr(reply.body, "no_cluster"));
        reply_free(&reply);
    }
    expect(fixture, true, "GET", "/private/v1/message", NULL, 503);
    expect(fixture, true, "POST", "/private/v1/sync", NULL, 503);
    expect(fixture, true, "POST", "/private/v1/announce", NULL, 503);
    expect(fixture, true, "GET", "/private/v1/sync", NULL, 405);
    expect(fixture, true, "POST", "/private/v1/announce?addr=a%20b", NULL, 400);
    expect(fixture, true, "POST", "/private/v1/announce?address=a", NULL, 400);
    expect(fixture, true, "POST", "/private/v1/sync?node=nonsense", NULL, 400);
    expect(fixture, true, "POST", "/private/v1/message", "Sec-Fetch-Site: cross-site\r\n", 403);
}

int main(void)
{
#define DOOR_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        DOOR_TEST(the_node_says_who_it_is_and_whom_it_knows),
        DOOR_TEST(bodies_go_in_and_out_as_on_the_public_door),
        DOOR_TEST(what_is_not_served_is_refused),
        DOOR_TEST(without_a_cluster_it_is_told_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
