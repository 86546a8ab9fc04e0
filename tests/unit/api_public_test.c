/* Goal: what the public API promises, over a real socket on a real journal: what was put is read
 * back byte by byte, is refused where it must be, and no damaged byte ever leaves. */
#include "api_fixture.h"

#include "base/text.h"
#include "journal/ulid.h"

#include <jansson.h>
#include <fcntl.h>
#include <sys/stat.h>

#define ID  "01BRNMMS1DK3CBD4ZZM2TQ8C5B"
#define ID2 "01BRNMMS1DK3CBD4ZZM2TQ8C5C"

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

/* A body of SIZE bytes that depends on SEED; the caller frees it. */
static uint8_t *make_body(size_t size, unsigned seed)
{
    uint8_t *body = malloc(size + 1);

    assert_non_null(body);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(seed * 131 + i * 7 + (i >> 8) + (i >> 16) * 3);
    return body;
}

static json_t *parse(const struct reply *reply)
{
    json_t *json = json_loadb(reply->body, reply->len, JSON_REJECT_DUPLICATES, NULL);

    if (!json)
        fail_msg("not JSON: %s", reply->body);
    return json;
}

static void expect_error(const struct reply *reply, unsigned status, const char *code)
{
    json_t *json = parse(reply);
    const char *got = json_string_value(json_object_get(json_object_get(json, "error"), "code"));

    if (reply->status != status || !got || strcmp(got, code) != 0)
        fail_msg("%u %s, not %u %s", reply->status, got ? got : reply->body, status, code);
    json_decref(json);
}

static void expect_header(const struct reply *reply, const char *name, const char *value)
{
    const char *got = value_of(reply, name);

    if (!got || strcmp(got, value) != 0)
        fail_msg("%s is \"%s\", not \"%s\"", name, got ? got : "(missing)", value);
}

/* Put and give back the id in ID (27 bytes). */
static void put(struct node *node, const char *head, const void *body, size_t len, unsigned status,
                char *id)
{
    struct reply reply;

    request(node, &reply, "PUT", "/api/v1/put", head, body, len);
    if (reply.status != status)
        fail_msg("%u %s", reply.status, reply.body);
    if (id) {
        json_t *json = parse(&reply);

        (void)snprintf(id, 27, "%s", json_string_value(json_object_get(json, "id")));
        json_decref(json);
    }
    reply_free(&reply);
}

static void get(struct node *node, struct reply *reply, const char *id, const char *head)
{
    char path[64];

    (void)snprintf(path, sizeof path, "/api/v1/get/%.26s", id);
    request(node, reply, "GET", path, head, NULL, 0);
}

static void expect_body(struct node *node, const char *id, const void *body, size_t len)
{
    struct reply reply;

    get(node, &reply, id, NULL);
    if (reply.status != 200)
        fail_msg("%u %s", reply.status, reply.body);
    assert_true(reply.complete);
    assert_int_equal(reply.len, len);
    assert_memory_equal(reply.body, body, len);
    reply_free(&reply);
}

/* ---- Put and get ---- */

static void the_ancestors_tour_works(void **state)
{
    struct node *node = *state;
    struct reply reply;

    request(node, &reply, "POST", "/api/v1/put",
            "X-Meta-ConsistencyLevel: 2\r\nX-Meta-Name: test.txt\r\nX-Meta-ID: " ID "\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            "X-Meta-UserMeta: {\"by\": \"me\"}\r\n",
            "It works!", 9);
    assert_int_equal(reply.status, 202);
    expect_header(&reply, "X-Meta-Id", ID);
    expect_header(&reply, "X-Meta-Replicas", "1/2");
    reply_free(&reply);

    get(node, &reply, ID, NULL);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body, "It works!");
    expect_header(&reply, "Accept-Ranges", "bytes");
    expect_header(&reply, "Content-Type", "text/plain; charset=utf-8");
    expect_header(&reply, "X-Meta-ConsistencyLevel", "2");
    expect_header(&reply, "X-Meta-Id", ID);
    expect_header(&reply, "X-Meta-Name", "test.txt");
    expect_header(&reply, "X-Meta-UserMeta", "{\"by\":\"me\"}");
    expect_header(&reply, "X-Content-Type-Options", "nosniff");
    expect_header(&reply, "Content-Security-Policy", "sandbox");
    assert_non_null(value_of(&reply, "Last-Modified"));
    reply_free(&reply);

    get(node, &reply, "01brnmms1dk3cbd4zzm2tq8c5b", NULL);
    assert_int_equal(reply.status, 200);
    expect_header(&reply, "X-Meta-Id", ID);
    reply_free(&reply);

    request(node, &reply, "GET", "/api/v1/meta/" ID, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    json_t *json = parse(&reply);
    assert_string_equal(json_string_value(json_object_get(json, "name")), "test.txt");
    assert_int_equal(json_integer_value(json_object_get(json, "size")), 9);
    assert_int_equal(json_integer_value(json_object_get(json, "level")), 2);
    json_decref(json);
    reply_free(&reply);
}

static void bodies_of_every_size_come_back(void **state)
{
    static const size_t sizes[] = {0,
                                   1,
                                   4096,
                                   4097,
                                   BLOCK_BYTES - 1,
                                   BLOCK_BYTES,
                                   BLOCK_BYTES + 1,
                                   LIMIT_INLINE_BODY_BYTES - 1,
                                   LIMIT_INLINE_BODY_BYTES,
                                   LIMIT_INLINE_BODY_BYTES + 1,
                                   3 * MIB + 17};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    struct node *node = *state;
    char ids[COUNT][27];

    for (size_t i = 0; i < COUNT; i++) {
        uint8_t *body = make_body(sizes[i], (unsigned)i);

        put(node, NULL, body, sizes[i], 200, ids[i]);
        /* Cold or just placed, from memory, and then again. */
        for (int round = 0; round < 3; round++)
            expect_body(node, ids[i], body, sizes[i]);
        free(body);
    }
    node_stop(node);
    node_start(node);
    for (size_t i = 0; i < COUNT; i++) {
        uint8_t *body = make_body(sizes[i], (unsigned)i);

        expect_body(node, ids[i], body, sizes[i]);
        expect_body(node, ids[i], body, sizes[i]);
        free(body);
    }
}

static void a_chunked_upload_has_its_real_size(void **state)
{
    static const size_t sizes[] = {0, 5000, LIMIT_INLINE_BODY_BYTES, LIMIT_INLINE_BODY_BYTES + 1,
                                   MIB};
    struct node *node = *state;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        static const char head[] = "POST /api/v1/put HTTP/1.1\r\nHost: t\r\n"
                                   "Transfer-Encoding: chunked\r\n\r\n";
        uint8_t *body = make_body(sizes[i], (unsigned)i);
        struct reply reply;
        char line[32];
        int fd = dial(node);

        send_all(fd, head, sizeof head - 1);
        for (size_t at = 0; at < sizes[i];) {
            size_t len = sizes[i] - at < 3001 ? sizes[i] - at : 3001;

            send_all(fd, line, (size_t)snprintf(line, sizeof line, "%zx\r\n", len));
            send_all(fd, body + at, len);
            send_all(fd, "\r\n", 2);
            at += len;
        }
        send_all(fd, "0\r\n\r\n", 5);
        receive(fd, &reply, true);
        (void)close(fd);
        assert_int_equal(reply.status, 200);
        json_t *json = parse(&reply);
        assert_int_equal(json_integer_value(json_object_get(json, "size")), sizes[i]);
        expect_body(node, json_string_value(json_object_get(json, "id")), body, sizes[i]);
        json_decref(json);
        reply_free(&reply);
        free(body);
    }
}

static void the_same_put_again_changes_nothing(void **state)
{
    static const size_t sizes[] = {100, LIMIT_INLINE_BODY_BYTES + 100};
    static const char *const heads[] = {"X-Meta-ID: " ID "\r\nX-Meta-Name: a\r\n",
                                        "X-Meta-ID: " ID2 "\r\nX-Meta-Name: a\r\n"};
    struct node *node = *state;
    struct journal_stats before, after;

    for (int i = 0; i < 2; i++) {
        uint8_t *body = make_body(sizes[i], 5);
        struct reply reply;

        put(node, heads[i], body, sizes[i], 200, NULL);
        journal_stats(node->journal, &before);
        put(node, heads[i], body, sizes[i], 200, NULL);
        journal_stats(node->journal, &after);
        assert_int_equal(after.events, before.events);

        body[7] ^= 1;
        request(node, &reply, "PUT", "/api/v1/put", heads[i], body, sizes[i]);
        expect_error(&reply, 409, "conflict");
        reply_free(&reply);
        body[7] ^= 1;
        expect_body(node, i ? ID2 : ID, body, sizes[i]);
        free(body);
    }
    /* Another name is a fact of its own. */
    uint8_t *body = make_body(100, 5);
    put(node, "X-Meta-ID: " ID "\r\nX-Meta-Name: b\r\nX-Meta-ConsistencyLevel: s3\r\n", body, 100,
        202, NULL);
    journal_stats(node->journal, &after);
    assert_int_equal(after.events, before.events + 1);
    free(body);
}

static void what_is_refused_leaves_nothing(void **state)
{
    static const struct {
        const char *head, *code;
    } cases[] = {
        {"X-Meta-ID: nonsense\r\n", "invalid_id"},
        {"X-Meta-ID: 00000000000000000000000000\r\n", "id_time_out_of_range"},
        {"X-Meta-ConsistencyLevel: 9\r\n", "invalid_level"},
        {"X-Meta-UserMeta: [1]\r\n", "invalid_user_meta"},
        {"X-Meta-Name: \xff\r\n", "invalid_name"},
        {"X-Meta-Ack: quorum\r\n", "ack_needs_level_2"},
        {"Content-MD5: nonsense\r\n", "invalid_digest"},
        {"Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==\r\n", "digest_mismatch"},
        {"Digest: SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\r\n", "digest_mismatch"},
    };
    static const size_t sizes[] = {10, LIMIT_INLINE_BODY_BYTES + 10};
    struct node *node = *state;
    struct journal_stats stats;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int s = 0; s < 2; s++) {
            uint8_t *body = make_body(sizes[s], 1);
            struct reply reply;

            request(node, &reply, "PUT", "/api/v1/put", cases[i].head, body, sizes[s]);
            expect_error(&reply, 400, cases[i].code);
            reply_free(&reply);
            free(body);
        }
    }
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.events, 0);
    node_stop(node); /* waits for the removals */
    char tmp[128];
    struct stat info;
    (void)snprintf(tmp, sizeof tmp, "%s/tmp", node->files);
    assert_int_equal(stat(tmp, &info), 0);
    assert_int_equal(rmdir(tmp), 0);
    node_start(node);
}

static void right_digests_are_accepted(void **state)
{
    struct node *node = *state;

    put(node,
        "Content-MD5: kAFQmDzST7DWlj99KOF/cg==\r\n"
        "Digest: SHA-256=ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=\r\n",
        "abc", 3, 200, NULL);

    size_t size = LIMIT_INLINE_BODY_BYTES * 2;
    uint8_t *body = make_body(size, 4), digest[SHA256_BYTES], md5[MD5_BYTES];
    struct digest *context;
    char head[256], sha_text[64], md5_text[64];
    sha256(body, size, digest);
    assert_int_equal(digest_create(&context, DIGEST_MD5), 0);
    digest_update(context, body, size);
    digest_final(context, md5);
    digest_destroy(&context);
    base64_encode(sha_text, digest, sizeof digest);
    base64_encode(md5_text, md5, sizeof md5);
    (void)snprintf(head, sizeof head, "X-Amz-Checksum-Sha256: %s\r\nContent-MD5: %s\r\n", sha_text,
                   md5_text);
    put(node, head, body, size, 200, NULL);
    free(body);
}

static void acks_say_what_was_reached(void **state)
{
    struct node *node = *state;

    put(node, "X-Meta-ConsistencyLevel: 1\r\n", "a", 1, 202, NULL);
    put(node, "X-Meta-ConsistencyLevel: 1\r\nX-Meta-Ack: local\r\n", "a", 1, 200, NULL);
    put(node, "X-Meta-ConsistencyLevel: 1\r\nX-Meta-Ack: cloud\r\n", "a", 1, 202, NULL);
    put(node, "X-Meta-ConsistencyLevel: 2\r\nX-Meta-Ack: all\r\n", "a", 1, 200, NULL);
    put(node, "X-Meta-ConsistencyLevel: full\r\n", "a", 1, 202, NULL);
}

static void an_upload_over_the_limit_is_refused(void **state)
{
    struct node *node = node_create(1000, env_system());
    uint8_t *body = make_body(2000, 1);
    struct reply reply;

    (void)state;
    put(node, NULL, body, 1000, 200, NULL);
    request(node, &reply, "PUT", "/api/v1/put", NULL, body, 1001);
    expect_error(&reply, 413, "body_too_large");
    reply_free(&reply);
    free(body);
    node_destroy(node);
}

static void a_client_that_goes_away_leaves_nothing(void **state)
{
    static const char head[] = "PUT /api/v1/put HTTP/1.1\r\nHost: t\r\n"
                               "Content-Length: 1000000\r\n\r\n";
    struct node *node = *state;
    uint8_t *body = make_body(600000, 1);
    struct journal_stats stats;

    for (int i = 0; i < 5; i++) {
        int fd = dial(node);

        send_all(fd, head, sizeof head - 1);
        send_all(fd, body, 600000);
        (void)close(fd);
    }
    put(node, NULL, "x", 1, 200, NULL);
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.objects, 1);
    free(body);
}

/* ---- Conditional and range ---- */

static void conditions_are_obeyed_cold_and_hot(void **state)
{
    struct node *node = *state;
    struct reply reply;
    char etag[80], modified[64], head[256];

    put(node, "X-Meta-ID: " ID "\r\n", "0123456789", 10, 200, NULL);
    put(node, "X-Meta-ID: " ID2 "\r\n", "0123456789", 10, 200, NULL);
    get(node, &reply, ID, NULL);
    (void)snprintf(etag, sizeof etag, "%s", value_of(&reply, "ETag"));
    (void)snprintf(modified, sizeof modified, "%s", value_of(&reply, "Last-Modified"));
    reply_free(&reply);
    for (int round = 0; round < 3; round++) {
        const char *id = round == 0 ? ID2 : ID;

        (void)snprintf(head, sizeof head, "If-None-Match: \"x\", %s\r\n", etag);
        get(node, &reply, id, head);
        assert_int_equal(reply.status, 304);
        assert_int_equal(reply.len, 0);
        expect_header(&reply, "ETag", etag);
        reply_free(&reply);
        (void)snprintf(head, sizeof head, "If-Modified-Since: %s\r\n", modified);
        get(node, &reply, id, head);
        assert_int_equal(reply.status, 304);
        reply_free(&reply);
        get(node, &reply, id, "If-Match: \"x\"\r\n");
        expect_error(&reply, 412, "precondition_failed");
        reply_free(&reply);
        (void)snprintf(head, sizeof head, "If-Range: %s\r\nRange: bytes=2-3\r\n", etag);
        get(node, &reply, id, head);
        assert_int_equal(reply.status, 206);
        assert_string_equal(reply.body, "23");
        expect_header(&reply, "Content-Range", "bytes 2-3/10");
        reply_free(&reply);
        get(node, &reply, id, "If-Range: \"x\"\r\nRange: bytes=2-3\r\n");
        assert_int_equal(reply.status, 200);
        reply_free(&reply);
        get(node, &reply, id, "Range: bytes=20-\r\n");
        expect_error(&reply, 416, "range_not_satisfiable");
        expect_header(&reply, "Content-Range", "bytes */10");
        reply_free(&reply);
    }
}

/* ---- Conditional changes ---- */

static void change(struct node *node, const char *method, const char *path, const char *head,
                   const char *body, unsigned status, const char *code)
{
    struct reply reply;

    request(node, &reply, method, path, head, body, body ? strlen(body) : 0);
    if (reply.status != status)
        fail_msg("%s %s %s: %u %s", method, path, head, reply.status, reply.body);
    if (code)
        expect_error(&reply, status, code);
    reply_free(&reply);
}

#define ABC      "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\""
#define PUT      "/api/v1/put"
#define AS_ID    "X-Meta-ID: " ID "\r\n"
#define LONG_AGO "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
#define STALE    412, "precondition_failed"

static void a_conditional_put_happens_only_where_the_condition_holds(void **state)
{
    struct node *node = *state;

    change(node, "PUT", PUT, "If-Match: *\r\n", "abc", STALE); /* a fresh id */
    change(node, "PUT", PUT, "If-None-Match: *\r\n" LONG_AGO, "abc", 200, NULL);
    change(node, "PUT", PUT, AS_ID "If-Match: *\r\n", "abc", STALE);
    change(node, "PUT", PUT, AS_ID "If-Match: " ABC "\r\n", "abc", STALE);
    change(node, "PUT", PUT, AS_ID "If-None-Match: nonsense\r\n", "abc", 400,
           "invalid_precondition");
    change(node, "GET", "/api/v1/get/" ID, NULL, NULL, 404, "not_found");
    change(node, "PUT", PUT, AS_ID "If-None-Match: *\r\n", "abc", 200, NULL);
    change(node, "PUT", PUT, AS_ID "If-None-Match: *\r\n", "abc", STALE);
    change(node, "POST", PUT, AS_ID "If-None-Match: *\r\n", "abcd", STALE); /* not 409 */
    change(node, "PUT", PUT, AS_ID "If-None-Match: W/" ABC "\r\n", "abc", STALE);
    change(node, "PUT", PUT, AS_ID "If-Match: W/" ABC "\r\n", "abc", STALE);
    change(node, "PUT", PUT, AS_ID LONG_AGO, "abc", STALE);
    change(node, "PUT", PUT, AS_ID "If-Match: \"x\", " ABC "\r\n" LONG_AGO, "abc", 200, NULL);
    change(node, "PUT", PUT, AS_ID "If-Match: " ABC "\r\n", "abcd", 409, "conflict");
    change(node, "PUT", PUT, AS_ID "If-Modified-Since: Sun, 06 Nov 2094 08:49:37 GMT\r\n", "abc",
           200, NULL);
    expect_body(node, ID, "abc", 3);
}

static void a_conditional_change_happens_only_where_the_condition_holds(void **state)
{
    static const char meta[] = "/api/v1/meta/" ID, delete[] = "/api/v1/delete/" ID;
    static const char name[] = "X-Meta-Name: new\r\nIf-Match: \"x\"\r\n";
    struct node *node = *state;
    struct reply reply;

    change(node, "POST", meta, name, NULL, 404, "not_found");
    change(node, "POST", delete, "If-Match: *\r\n", NULL, STALE);
    change(node, "GET", meta, NULL, NULL, 404, "not_found"); /* no tombstone either */
    put(node, AS_ID "X-Meta-Name: old\r\nX-Meta-ConsistencyLevel: 1\r\n", "abc", 3, 202, NULL);
    change(node, "POST", meta, name, NULL, STALE);
    change(node, "POST", meta, "X-Meta-Name: new\r\nIf-None-Match: *\r\n", NULL, STALE);
    change(node, "POST", meta, "X-Meta-Name: new\r\n" LONG_AGO, NULL, STALE);
    change(node, "POST", meta, "X-Meta-ConsistencyLevel: 0\r\nIf-Match: \"x\"\r\n", NULL, 409,
           "level_cannot_be_lowered");
    get(node, &reply, ID, NULL);
    expect_header(&reply, "X-Meta-Name", "old");
    char date[64];
    (void)snprintf(date, sizeof date, "X-Meta-Name: new\r\nIf-Unmodified-Since: %s\r\n",
                   value_of(&reply, "Last-Modified"));
    reply_free(&reply);
    change(node, "POST", meta, date, NULL, 200, NULL);
    get(node, &reply, ID, NULL);
    expect_header(&reply, "X-Meta-Name", "new");
    reply_free(&reply);

    change(node, "POST", delete, "If-Match: \"x\"\r\n", NULL, STALE);
    change(node, "DELETE", delete, "If-Match: \"x\"\r\n", NULL, STALE);
    change(node, "DELETE", delete, "If-None-Match: " ABC "\r\n", NULL, STALE);
    change(node, "DELETE", delete, LONG_AGO, NULL, STALE);
    expect_body(node, ID, "abc", 3);
    change(node, "DELETE", delete, "If-Match: " ABC "\r\n", NULL, 200, NULL);
    change(node, "DELETE", delete, "If-Match: " ABC "\r\n", NULL, STALE);
    change(node, "POST", delete, NULL, NULL, 200, NULL);
    change(node, "POST", meta, name, NULL, 410, "deleted");
    change(node, "PUT", PUT, AS_ID "If-None-Match: *\r\n", "abc", 410, "deleted");
}

/* What comes before any byte of the body was sent; then the body, and the answer. */
static void ask_first(struct node *node, const char *head, size_t size, unsigned first,
                      unsigned last)
{
    uint8_t *body = make_body(size, 1);
    struct reply reply;
    char text[512];
    int fd = dial(node);
    int n = snprintf(text, sizeof text,
                     "PUT /api/v1/put HTTP/1.1\r\nHost: test\r\nContent-Length: %zu\r\n%s\r\n",
                     size, head);

    send_all(fd, text, (size_t)n);
    receive(fd, &reply, true);
    assert_int_equal(reply.status, first);
    reply_free(&reply);
    if (first == 100) {
        send_all(fd, body, size);
        receive(fd, &reply, true);
        assert_int_equal(reply.status, last);
        reply_free(&reply);
    }
    (void)close(fd);
    free(body);
}

static void a_large_put_is_refused_before_its_body(void **state)
{
    const size_t large = LIMIT_INLINE_BODY_BYTES + 1;
    struct node *node = *state;
    struct journal_stats before, after;

    ask_first(node, AS_ID "If-Match: *\r\n", large, 412, 0);
    ask_first(node, "If-Match: *\r\n", large, 412, 0);
    ask_first(node, AS_ID "If-None-Match: *\r\nExpect: 100-continue\r\n", large, 100, 200);
    journal_stats(node->journal, &before);
    ask_first(node, AS_ID "If-None-Match: *\r\nExpect: 100-continue\r\n", large, 412, 0);
    ask_first(node, AS_ID "If-None-Match: *\r\nExpect: 100-continue\r\n", 3, 412, 0);
    ask_first(node, AS_ID "If-None-Match: *\r\n", large, 412, 0);
    ask_first(node, AS_ID "If-Match: \"x\"\r\n", 100 * MIB, 412, 0);
    ask_first(node, AS_ID "If-Match: *\r\nExpect: 100-continue\r\n", large, 100, 200);
    ask_first(node, AS_ID "If-Match: *\r\nExpect: 100-continue\r\n", large + 1, 100, 409);
    journal_stats(node->journal, &after);
    assert_int_equal(after.events, before.events);
    change(node, "POST", "/api/v1/delete/" ID, NULL, NULL, 200, NULL);
    ask_first(node, AS_ID "If-Match: *\r\nExpect: 100-continue\r\n", large, 410, 0);
}

static void ranges_are_cut_exactly(void **state)
{
    static const size_t sizes[] = {100000, 3 * MIB + 5};
    struct node *node = *state;

    for (int s = 0; s < 2; s++) {
        uint8_t *body = make_body(sizes[s], 9);
        char id[27], head[64];
        struct reply reply;

        put(node, NULL, body, sizes[s], 200, id);
        const struct {
            size_t first, last;
        } cases[] = {{0, 0},
                     {0, sizes[s] - 1},
                     {65535, 65536},
                     {sizes[s] - 1, sizes[s] - 1},
                     {1, sizes[s] - 2}};
        for (int round = 0; round < 2; round++) {
            for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                size_t len = cases[i].last - cases[i].first + 1;

                (void)snprintf(head, sizeof head, "Range: bytes=%zu-%zu\r\n", cases[i].first,
                               cases[i].last);
                get(node, &reply, id, head);
                assert_int_equal(reply.status, 206);
                assert_int_equal(reply.len, len);
                assert_memory_equal(reply.body, body + cases[i].first, len);
                reply_free(&reply);
            }
        }
        free(body);
    }
}

/* Take the multipart answer apart; the parts must be FIRST … LAST of BODY. */
static void expect_parts(const struct reply *reply, const uint8_t *body, size_t size,
                         const size_t (*parts)[2], size_t count)
{
    char boundary[128];
    const char *at = reply->body, *end = reply->body + reply->len;
    const char *type = value_of(reply, "Content-Type");

    assert_non_null(type);
    assert_int_equal(sscanf(type, "multipart/byteranges; boundary=%100s", boundary), 1);
    for (size_t i = 0; i < count; i++) {
        char want[512];
        size_t len = parts[i][1] - parts[i][0] + 1;
        int n = snprintf(want, sizeof want,
                         "%s--%s\r\nContent-Type: image/png\r\nContent-Range: bytes "
                         "%zu-%zu/%zu\r\n\r\n",
                         i ? "\r\n" : "", boundary, parts[i][0], parts[i][1], size);

        assert_true(end - at > n + (ptrdiff_t)len);
        assert_memory_equal(at, want, (size_t)n);
        at += n;
        assert_memory_equal(at, body + parts[i][0], len);
        at += len;
    }
    char want[160];
    int n = snprintf(want, sizeof want, "\r\n--%s--\r\n", boundary);
    assert_int_equal(end - at, n);
    assert_memory_equal(at, want, (size_t)n);
}

static void several_ranges_come_as_parts(void **state)
{
    static const size_t sizes[] = {250000, 3 * MIB + 5};
    static const size_t parts[][2] = {{200000, 249999}, {0, 9}, {66000, 130000}};
    struct node *node = *state;

    for (int s = 0; s < 2; s++) {
        uint8_t *body = make_body(sizes[s], 9);
        struct reply reply;
        char id[27];

        put(node, "X-Meta-Name: a.png\r\n", body, sizes[s], 200, id);
        for (int round = 0; round < 3; round++) {
            get(node, &reply, id, "Range: bytes=200000-249999, 0-9,66000-130000\r\n");
            assert_int_equal(reply.status, 206);
            assert_true(reply.complete);
            expect_parts(&reply, body, sizes[s], parts, 3);
            reply_free(&reply);
        }
        free(body);
    }
}

static void a_head_has_a_gets_headers_alone(void **state)
{
    static const size_t sizes[] = {10, MIB};
    struct node *node = *state;

    for (int s = 0; s < 2; s++) {
        uint8_t *body = make_body(sizes[s], 9);
        char id[27], path[64], length[32];
        struct reply reply;

        put(node, NULL, body, sizes[s], 200, id);
        (void)snprintf(path, sizeof path, "/api/v1/get/%.26s", id);
        (void)snprintf(length, sizeof length, "%zu", sizes[s]);
        for (int round = 0; round < 3; round++) {
            request(node, &reply, "HEAD", path, round == 1 ? "Range: bytes=0-1\r\n" : NULL, NULL,
                    0);
            assert_int_equal(reply.status, 200);
            expect_header(&reply, "Content-Length", length);
            assert_non_null(value_of(&reply, "ETag"));
            reply_free(&reply);
            expect_body(node, id, body, sizes[s]);
        }
        free(body);
    }
}

/* ---- Meta and delete ---- */

static void meta_is_changed_without_the_body(void **state)
{
    struct node *node = *state;
    struct reply reply;

    put(node, "X-Meta-ID: " ID "\r\nX-Meta-Name: a.txt\r\n", "abc", 3, 200, NULL);
    get(node, &reply, ID, NULL);
    reply_free(&reply);
    get(node, &reply, ID, NULL); /* the answer is in memory now */
    reply_free(&reply);
    request(node, &reply, "POST", "/api/v1/meta/" ID,
            "X-Meta-Name*: UTF-8''b%C3%BC.png\r\nX-Meta-UserMeta: {\"k\":\"v\"}\r\n", NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    get(node, &reply, ID, NULL);
    expect_header(&reply, "Content-Type", "image/png");
    expect_header(&reply, "X-Meta-Name", "b\xc3\xbc.png");
    expect_header(&reply, "X-Meta-UserMeta", "{\"k\":\"v\"}");
    assert_string_equal(reply.body, "abc");
    reply_free(&reply);

    request(node, &reply, "POST", "/api/v1/meta/" ID, "X-Meta-UserMeta: {}\r\n", NULL, 0);
    assert_int_equal(reply.status, 200);
    assert_null(value_of(&reply, "X-Meta-UserMeta"));
    reply_free(&reply);
    request(node, &reply, "POST", "/api/v1/meta/" ID, "X-Meta-ConsistencyLevel: 1\r\n", NULL, 0);
    assert_int_equal(reply.status, 202);
    reply_free(&reply);
    request(node, &reply, "POST", "/api/v1/meta/" ID, "X-Meta-ConsistencyLevel: 0\r\n", NULL, 0);
    expect_error(&reply, 409, "level_cannot_be_lowered");
    reply_free(&reply);
    request(node, &reply, "POST", "/api/v1/meta/" ID, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    request(node, &reply, "POST", "/api/v1/meta/" ID2, "X-Meta-Name: x\r\n", NULL, 0);
    expect_error(&reply, 404, "not_found");
    reply_free(&reply);
}

static void a_delete_is_for_ever(void **state)
{
    struct node *node = *state;
    struct reply reply;

    put(node, "X-Meta-ID: " ID "\r\nX-Meta-Name: a.txt\r\n", "abc", 3, 200, NULL);
    for (int i = 0; i < 2; i++) {
        get(node, &reply, ID, NULL);
        reply_free(&reply);
    }
    for (int i = 0; i < 2; i++) {
        request(node, &reply, "POST", "/api/v1/delete/" ID, NULL, NULL, 0);
        assert_int_equal(reply.status, 200);
        expect_header(&reply, "X-Meta-Deleted", "true");
        reply_free(&reply);
        get(node, &reply, ID, "X-Meta-Fetch: 1\r\n");
        expect_error(&reply, 404, "deleted");
        expect_header(&reply, "X-Meta-Deleted", "true");
        expect_header(&reply, "X-Meta-Id", ID);
        reply_free(&reply);
    }
    request(node, &reply, "GET", "/api/v1/meta/" ID, NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    json_t *json = parse(&reply);
    assert_true(json_is_true(json_object_get(json, "is_deleted")));
    json_decref(json);
    reply_free(&reply);
    request(node, &reply, "PUT", "/api/v1/put", "X-Meta-ID: " ID "\r\n", "abc", 3);
    expect_error(&reply, 410, "deleted");
    reply_free(&reply);
    request(node, &reply, "POST", "/api/v1/meta/" ID, "X-Meta-Name: x\r\n", NULL, 0);
    expect_error(&reply, 410, "deleted");
    reply_free(&reply);
    request(node, &reply, "DELETE", "/api/v1/delete/" ID2, "X-Meta-Purge: 1\r\n", NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    request(node, &reply, "POST", "/api/v1/delete/00000000000000000000000000", NULL, NULL, 0);
    expect_error(&reply, 400, "id_time_out_of_range");
    reply_free(&reply);
}

/* ---- Damage ---- */

static void flip(const char *path, uint64_t offset)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;

    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
    byte ^= 0x40;
    assert_int_equal(pwrite(fd, &byte, 1, (off_t)offset), 1);
    assert_int_equal(close(fd), 0);
}

/* Where the store keeps ID. */
static struct place place_of(struct node *node, const char *text)
{
    struct db_reader *reader;
    struct object *object;
    struct id128 id;

    assert_int_equal(ulid_parse(&id, text, 26), 0);
    assert_int_equal(journal_reader_open(node->journal, &reader), 0);
    assert_int_equal(journal_find(node->journal, reader, &id, &object), 0);
    struct place place = object->place;
    object_destroy(&object);
    db_reader_close(&reader);
    return place;
}

static void a_damaged_small_body_is_never_served_and_a_put_repairs_it(void **state)
{
    struct node *node = *state;
    uint8_t *body = make_body(70000, 2);
    struct journal_stats stats;
    struct reply reply;
    char path[160];

    put(node, "X-Meta-ID: " ID "\r\n", body, 70000, 200, NULL);
    struct place place = place_of(node, ID);
    (void)snprintf(path, sizeof path, "%s/log/%08x.seg", node->files, place.volume);
    flip(path, place.offset + 60000);
    for (int i = 0; i < 2; i++) {
        get(node, &reply, ID, NULL);
        expect_error(&reply, 500, "body_damaged");
        reply_free(&reply);
    }
    journal_stats(node->journal, &stats);
    assert_true(stats.bad_blocks >= 1);
    put(node, "X-Meta-ID: " ID "\r\n", body, 70000, 200, NULL);
    expect_body(node, ID, body, 70000);
    journal_stats(node->journal, &stats);
    assert_int_equal(stats.repaired, 1);
    free(body);
}

static void a_damaged_large_body_is_refused_or_cut_and_a_put_repairs_it(void **state)
{
    struct node *node = *state;
    size_t size = 2 * MIB;
    uint8_t *body = make_body(size, 2);
    struct reply reply;
    char path[160];

    put(node, "X-Meta-ID: " ID "\r\n", body, size, 200, NULL);
    /* Applied, so that the file has its final name. */
    node_stop(node);
    node_start(node);
    struct place place = place_of(node, ID);
    assert_int_equal(place.volume, PLACE_LARGE);
    (void)snprintf(path, sizeof path, "%s/large/%02x/%016llx", node->files,
                   (unsigned)(place.offset & 0xff), (unsigned long long)place.offset);
    if (access(path, F_OK) != 0)
        fail_msg("%s is not there", path);
    flip(path, 4096 + MIB + 100);
    get(node, &reply, ID, NULL);
    assert_int_equal(reply.status, 200);
    assert_false(reply.complete);
    assert_true(reply.len <= MIB);
    assert_memory_equal(reply.body, body, reply.len);
    reply_free(&reply);
    get(node, &reply, ID, "Range: bytes=1048577-\r\n");
    expect_error(&reply, 500, "body_damaged");
    reply_free(&reply);
    get(node, &reply, ID, "Range: bytes=0-99999\r\n");
    assert_int_equal(reply.status, 206);
    assert_memory_equal(reply.body, body, 100000);
    reply_free(&reply);
    flip(path, 4096 + 5);
    get(node, &reply, ID, NULL);
    expect_error(&reply, 500, "body_damaged");
    reply_free(&reply);
    put(node, "X-Meta-ID: " ID "\r\n", body, size, 200, NULL);
    expect_body(node, ID, body, size);
    free(body);
}

/* ---- The rest ---- */

static void small_paths_answer_plainly(void **state)
{
    struct node *node = *state;
    struct reply reply;
    struct id128 id;

    request(node, &reply, "GET", "/api/v1/id", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    assert_int_equal(reply.len, 26);
    assert_int_equal(ulid_parse(&id, reply.body, 26), 0);
    assert_int_equal(ulid_check_time(&id), 0);
    reply_free(&reply);
    request(node, &reply, "GET", "/api/v1/ping", NULL, NULL, 0);
    struct id128 node_id = journal_node(node->journal);
    assert_int_equal(ulid_parse(&id, reply.body, reply.len), 0);
    assert_true(id_equal(&id, &node_id));
    reply_free(&reply);
    request(node, &reply, "GET", "/api/v1/version", NULL, NULL, 0);
    assert_string_equal(reply.body, "1.2.3-test");
    reply_free(&reply);
    request(node, &reply, "GET", "/healthz", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
    request(node, &reply, "GET", "/readyz", NULL, NULL, 0);
    assert_int_equal(reply.status, 200);
    json_t *json = parse(&reply);
    assert_true(json_is_true(json_object_get(json, "ready")));
    json_decref(json);
    reply_free(&reply);
}

static void wrong_paths_and_methods_are_told(void **state)
{
    static const struct {
        const char *method, *path;
        unsigned status;
        const char *code, *allow;
    } cases[] = {
        {"GET", "/", 404, "no_such_path", NULL},
        {"GET", "/api/v1/get", 404, "no_such_path", NULL},
        {"GET", "/api/v1/ids", 404, "no_such_path", NULL},
        {"GET", "/api/v1/get/", 400, "invalid_id", NULL},
        {"GET", "/api/v1/get/" ID "/", 400, "invalid_id", NULL},
        {"GET",
         "/api/v1/get/%30"
         "1BRNMMS1DK3CBD4ZZM2TQ8C5B",
         400, "invalid_id", NULL},
        {"GET", "/api/v1/get/" ID, 404, "not_found", NULL},
        {"GET", "/api/v1/meta/" ID, 404, "not_found", NULL},
        {"GET", "/api/v1/put", 405, "method_not_allowed", "POST, PUT"},
        {"POST", "/api/v1/get/" ID, 405, "method_not_allowed", "GET, HEAD"},
        {"PUT", "/api/v1/meta/" ID, 405, "method_not_allowed", "GET, HEAD, POST"},
        {"GET", "/api/v1/delete/" ID, 405, "method_not_allowed", "POST, DELETE"},
        {"OPTIONS", "/metrics", 405, "method_not_allowed", "GET, HEAD"},
    };
    struct node *node = *state;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct reply reply;

        request(node, &reply, cases[i].method, cases[i].path, NULL, NULL, 0);
        expect_error(&reply, cases[i].status, cases[i].code);
        if (cases[i].allow)
            expect_header(&reply, "Allow", cases[i].allow);
        reply_free(&reply);
    }
}

static void a_foreign_pages_request_changes_nothing(void **state)
{
    struct node *node = *state;
    struct reply reply;

    request(node, &reply, "POST", "/api/v1/put", "Sec-Fetch-Site: cross-site\r\n", "x", 1);
    expect_error(&reply, 403, "cross_site");
    reply_free(&reply);
    request(node, &reply, "GET", "/api/v1/id", "Sec-Fetch-Site: cross-site\r\n", NULL, 0);
    assert_int_equal(reply.status, 200);
    reply_free(&reply);
}

int main(void)
{
#define NODE_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        NODE_TEST(the_ancestors_tour_works),
        NODE_TEST(bodies_of_every_size_come_back),
        NODE_TEST(a_chunked_upload_has_its_real_size),
        NODE_TEST(the_same_put_again_changes_nothing),
        NODE_TEST(what_is_refused_leaves_nothing),
        NODE_TEST(right_digests_are_accepted),
        NODE_TEST(acks_say_what_was_reached),
        cmocka_unit_test(an_upload_over_the_limit_is_refused),
        NODE_TEST(a_client_that_goes_away_leaves_nothing),
        NODE_TEST(conditions_are_obeyed_cold_and_hot),
        NODE_TEST(a_conditional_put_happens_only_where_the_condition_holds),
        NODE_TEST(a_conditional_change_happens_only_where_the_condition_holds),
        NODE_TEST(a_large_put_is_refused_before_its_body),
        NODE_TEST(ranges_are_cut_exactly),
        NODE_TEST(several_ranges_come_as_parts),
        NODE_TEST(a_head_has_a_gets_headers_alone),
        NODE_TEST(meta_is_changed_without_the_body),
        NODE_TEST(a_delete_is_for_ever),
        NODE_TEST(a_damaged_small_body_is_never_served_and_a_put_repairs_it),
        NODE_TEST(a_damaged_large_body_is_refused_or_cut_and_a_put_repairs_it),
        NODE_TEST(small_paths_answer_plainly),
        NODE_TEST(wrong_paths_and_methods_are_told),
        NODE_TEST(a_foreign_pages_request_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
