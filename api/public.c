/*
 * Routing, and the paths that need no store: id, ping, version, stats, metrics, health.
 *
 * A request is matched to a route, judged by the guard, and handed to its function. A request that
 * holds something (an upload, a cached entry, an open body) gets a struct public_request from its
 * loop's idle list, which on_done gives back; those of the hot paths so never ask the allocator.
 */
#include "api/public_impl.h"
#include "api/stats_cluster.h"

#include "base/text.h"
#include "journal/ulid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_REQUESTS  256
#define KEEP_BUF_BYTES (4 * KIB)
#define MAX_ANSWER     (1 * MIB)

const char *const public_operations[PUBLIC_OPERATIONS] = {
    [OPERATION_GET] = "get",           [OPERATION_META] = "meta",
    [OPERATION_META_SET] = "meta_set", [OPERATION_PUT] = "put",
    [OPERATION_DELETE] = "delete",     [OPERATION_ID] = "id",
    [OPERATION_PING] = "ping",         [OPERATION_VERSION] = "version",
    [OPERATION_STATS] = "stats",       [OPERATION_METRICS] = "metrics",
    [OPERATION_HEALTH] = "health",     [OPERATION_OTHER] = "other",
};

static const char text_head[] = "Content-Type: text/plain; charset=utf-8\r\n"
                                "Cache-Control: no-store\r\n";
static const char json_head[] = "Content-Type: application/json\r\nCache-Control: no-store\r\n";
static const char metrics_head[] = "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                                   "Cache-Control: no-store\r\n";

/* ---- Requests and their memory ---- */

static void shrink(struct buf *buf)
{
    if (buf->cap > KEEP_BUF_BYTES)
        buf_release(buf);
    else
        buf_reset(buf);
}

static void free_request(struct public_request *request)
{
    buf_release(&request->base);
    buf_release(&request->head);
    buf_release(&request->text);
    free(request);
}

struct public_request *public_take(struct public_api *api, struct http_request *http)
{
    struct public_loop *loop = &api->loops[http_request_worker(http)];
    struct public_request *request = loop->idle;

    assert(http_request_worker(http) < api->config.loops);
    if (request) {
        loop->idle = request->next;
        loop->idle_count--;
    } else {
        request = calloc(1, sizeof *request);
        if (!request) {
            public_fail(http, ERR_NO_MEMORY, OPERATION_OTHER, NULL);
            return NULL;
        }
        request->loop = loop;
        request->api = api;
    }
    request->http = http;
    http_request_set_data(http, request);
    return request;
}

static void give_back(struct public_request *request)
{
    struct public_loop *loop = request->loop;

    if (request->entry)
        ram_release(request->api->ram, request->entry);
    request->entry = NULL;
    store_body_close(&request->body);
    store_put_destroy(&request->put);
    store_change_destroy(&request->change);
    peer_body_release(&request->peer_body);
    adoption_release(&request->adoption);
    request->may_fetch = request->is_fetched = request->whole_only = false;
    free(request->order);
    request->order = NULL;
    assert(!request->source);
    if (loop->idle_count == KEEP_REQUESTS) {
        free_request(request);
        return;
    }
    shrink(&request->base);
    shrink(&request->head);
    shrink(&request->text);
    request->next = loop->idle;
    loop->idle = request;
    loop->idle_count++;
}

uint8_t *public_scratch(struct public_request *request)
{
    if (!request->loop->scratch)
        request->loop->scratch = malloc(STORE_SCRATCH_BYTES);
    return request->loop->scratch;
}

/* ---- Refusals ---- */

void public_refuse(struct http_request *http, const struct refusal *refusal)
{
    http_answer_error(http, refusal->status, refusal->code, refusal->message, refusal->head);
}

static const struct refusal *of_code(int rc)
{
    static const struct {
        int rc;
        struct refusal refusal;
    } known[] = {
        {ERR_NOT_FOUND, {404, "not_found", "no such object", NULL}},
        {ERR_CONFLICT, {409, "conflict", "other bytes are stored under this id", NULL}},
        {ERR_DELETED, {410, "deleted", "the object was deleted; its id is never used again", NULL}},
        {ERR_PRECONDITION,
         {412, "precondition_failed", "the object is not in the state that the request asks for",
          NULL}},
        {ERR_TOO_BIG, {413, "body_too_large", "the body is larger than this node takes", NULL}},
        {ERR_MISMATCH,
         {400, "digest_mismatch", "the bytes received are not those that were announced", NULL}},
        {ERR_NO_SPACE, {507, "no_space", "the disk is full", NULL}},
        {ERR_FULL, {503, "overloaded", "too much is waiting, try again", "Retry-After: 1\r\n"}},
        {ERR_AGAIN, {503, "overloaded", "too much is waiting, try again", "Retry-After: 1\r\n"}},
        {ERR_NO_MEMORY, {503, "no_memory", "out of memory", "Retry-After: 1\r\n"}},
        {ERR_READ_ONLY,
         {503, "read_only", "this node takes no writes until it is restarted",
          "Retry-After: 30\r\n"}},
        {ERR_DRAINING,
         {503, "draining", "this node is about to leave its cluster and takes no writes",
          "Retry-After: 60\r\n"}},
        {ERR_OUTSIDE,
         {503, "not_a_member",
          "this node has left its cluster, or was forgotten, and takes no writes",
          "Retry-After: 60\r\n"}},
        {ERR_CLOSED, {503, "shutting_down", "this node is shutting down", "Retry-After: 5\r\n"}},
        {ERR_CLOUD,
         {503, "cloud_unavailable", "the cloud, which may have it, does not answer now",
          "Retry-After: 2\r\n"}},
        {ERR_CORRUPT, {500, "body_damaged", "no undamaged copy of the body was found", NULL}},
        {ERR_IO, {500, "io", "the disk failed", NULL}},
    };
    static const struct refusal unknown = {500, "internal", "internal error", NULL};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (known[i].rc == rc)
            return &known[i].refusal;
    }
    return &unknown;
}

void public_fail(struct http_request *http, int rc, enum operation operation,
                 const struct id128 *id)
{
    static const struct refusal lowered = {409, "level_cannot_be_lowered",
                                           "a consistency level is raised, never lowered", NULL};
    struct refusal refusal = *of_code(rc);

    if (rc == ERR_CONFLICT && operation == OPERATION_META_SET)
        refusal = lowered;
    if (rc == ERR_DELETED) {
        char head[] = "X-Meta-Deleted: true\r\nX-Meta-Id: 01234567890123456789012345\r\n";
        char *at = strstr(head, "0123");

        if (operation == OPERATION_GET) {
            refusal.status = 404;
            refusal.message = "the object was deleted";
        }
        ulid_format(at, id);
        at[ULID_TEXT_BYTES] = '\r'; /* over ulid_format's terminator */
        refusal.head = head;
        public_refuse(http, &refusal);
        return;
    }
    public_refuse(http, &refusal);
}

const struct refusal *public_forbids_changes(struct public_api *api)
{
    static const struct refusal clock_skew = {
        503, "clock_skew",
        "this node's clock is more than 60 s off those of the other nodes; it takes no changes "
        "until it is right",
        "Retry-After: 30\r\n"};

    return store_clock_is_skewed(api->store) ? &clock_skew : NULL;
}

/* Cut off from most of its cluster, and told to say nothing that may be outdated then. */
static bool is_isolated(struct public_api *api)
{
    return api->config.refuse_isolated && store_health(api->store) == PROBE_BAD;
}

/* ---- Paths without a store ---- */

static void answer_text(struct http_request *http, unsigned status, const char *head,
                        const char *text, size_t len)
{
    const struct http_answer answer = {
        .status = status, .head = head, .head_len = strlen(head), .body = text, .length = len};

    http_answer(http, &answer);
}

static void fresh_id(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    char text[ULID_TEXT_BYTES + 1];
    struct id128 fresh = ulid_make(api->env, env_wall_ms(api->env));

    (void)id;
    ulid_format(text, &fresh);
    answer_text(http, 200, text_head, text, ULID_TEXT_BYTES);
}

static void ping(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    (void)id;
    answer_text(http, 200, text_head, api->node, strlen(api->node));
}

static void version(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    const char *text = api->config.stats.version;

    (void)id;
    answer_text(http, 200, text_head, text, strlen(text));
}

static void answer_rendered(struct public_api *api, struct http_request *http, const char *head,
                            void (*render)(struct buf *out, const struct stats_source *source))
{
    struct buf out;

    buf_init(&out, MAX_ANSWER);
    render(&out, &api->config.stats);
    if (buf_check(&out))
        public_fail(http, ERR_NO_MEMORY, OPERATION_STATS, NULL);
    else
        answer_text(http, 200, head, out.data, out.len);
    buf_release(&out);
}

static void stats(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    (void)id;
    answer_rendered(api, http, json_head, stats_json);
}

static void metrics(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    (void)id;
    answer_rendered(api, http, metrics_head, stats_metrics);
}

static void live(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    (void)api;
    (void)id;
    answer_text(http, 200, text_head, "ok\n", 3);
}

static void ready(struct public_api *api, struct http_request *http, const struct id128 *id)
{
    struct journal_stats journal;
    char text[160];

    (void)id;
    journal_stats(store_journal(api->store), &journal);
    bool serves = !journal.read_only && !is_isolated(api);
    int len = snprintf(text, sizeof text,
                       "{\"ready\":%s,\"health\":\"%s\",\"cluster\":\"%s\","
                       "\"read_only\":%s,\"disk_full\":%s}\n",
                       serves ? "true" : "false", stats_health(&journal),
                       stats_cluster_health(api->config.stats.cluster),
                       journal.read_only ? "true" : "false", journal.full ? "true" : "false");
    assert(len > 0 && (size_t)len < sizeof text);
    answer_text(http, serves ? 200 : 503, json_head, text, (size_t)len);
}

/* ---- Routing ---- */

#define METHOD(name) (1u << HTTP_METHOD_##name)
#define READS        (METHOD(GET) | METHOD(HEAD))

struct route {
    const char *path; /* ends in '/': an id follows */
    unsigned methods;
    const char *allow;
    enum operation operation;
    enum { OF_NODE, OF_OBJECTS, OF_PROBES } kind;
    void (*run)(struct public_api *api, struct http_request *http, const struct id128 *id);
};

#define ALLOW_READS "Allow: GET, HEAD\r\n"

static const struct route routes[] = {
    {"/api/v1/get/", READS, ALLOW_READS, OPERATION_GET, OF_OBJECTS, public_get},
    {"/api/v1/put", METHOD(POST) | METHOD(PUT), "Allow: POST, PUT\r\n", OPERATION_PUT, OF_OBJECTS,
     public_put},
    {"/api/v1/meta/", READS, "Allow: GET, HEAD, POST\r\n", OPERATION_META, OF_OBJECTS, public_meta},
    {"/api/v1/meta/", METHOD(POST), "Allow: GET, HEAD, POST\r\n", OPERATION_META_SET, OF_OBJECTS,
     public_meta_set},
    {"/api/v1/delete/", METHOD(POST) | METHOD(DELETE), "Allow: POST, DELETE\r\n", OPERATION_DELETE,
     OF_OBJECTS, public_delete},
    {"/api/v1/id", READS, ALLOW_READS, OPERATION_ID, OF_NODE, fresh_id},
    {"/api/v1/ping", READS, ALLOW_READS, OPERATION_PING, OF_NODE, ping},
    {"/api/v1/version", READS, ALLOW_READS, OPERATION_VERSION, OF_NODE, version},
    {"/api/v1/stats", READS, ALLOW_READS, OPERATION_STATS, OF_NODE, stats},
    {"/metrics", READS, ALLOW_READS, OPERATION_METRICS, OF_NODE, metrics},
    {"/healthz", READS, ALLOW_READS, OPERATION_HEALTH, OF_PROBES, live},
    {"/readyz", READS, ALLOW_READS, OPERATION_HEALTH, OF_PROBES, ready},
};

static bool matches(const struct route *route, struct slice path)
{
    size_t len = strlen(route->path);
    bool takes_id = route->path[len - 1] == '/';

    return (takes_id ? path.len >= len : path.len == len) &&
           memcmp(path.ptr, route->path, len) == 0;
}

/* The route of PATH for METHOD, or one of the path that does not take METHOD, or NULL. */
static const struct route *find_route(struct slice path, unsigned method)
{
    const struct route *found = NULL;

    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!matches(&routes[i], path))
            continue;
        found = &routes[i];
        if (found->methods & 1u << method)
            break;
    }
    return found;
}

static bool guarded(struct public_api *api, struct http_request *http, const struct route *route)
{
    enum http_method method = http_request_method(http);
    struct slice fetch_site = {NULL, 0};
    enum guard_access access = GUARD_READ;

    if (method != HTTP_METHOD_GET && method != HTTP_METHOD_HEAD) {
        access = GUARD_CHANGE;
        fetch_site = http_request_header(http, "sec-fetch-site", NULL);
    } else if (route && route->kind == OF_PROBES) {
        access = GUARD_PROBE;
    }
    const struct refusal *refusal =
        guard_check(api->config.anonymous, access, http_request_from_loopback(http), fetch_site);
    if (refusal)
        public_refuse(http, refusal);
    return refusal != NULL;
}

static void on_request(void *arg, struct http_request *http)
{
    static const struct refusal bad_id = {400, "invalid_id", "an id is a ULID of 26 characters",
                                          NULL};
    static const struct refusal isolated = {
        503, "isolated",
        "this node hears less than half of its cluster, and what it knows may be outdated",
        "Retry-After: 5\r\n"};
    struct public_api *api = arg;
    struct slice path = http_request_path(http);
    unsigned method = http_request_method(http);
    const struct route *route = find_route(path, method);
    struct id128 id;

    http_set_operation(http, route ? route->operation : OPERATION_OTHER);
    if (guarded(api, http, route))
        return;
    if (!route) {
        http_answer_error(http, 404, "no_such_path", "nothing is served under this path", NULL);
        return;
    }
    if (!(route->methods & 1u << method)) {
        http_answer_error(http, 405, "method_not_allowed", "this path does not take the method",
                          route->allow);
        return;
    }
    size_t len = strlen(route->path);
    if (route->path[len - 1] == '/' && ulid_parse(&id, path.ptr + len, path.len - len) != 0) {
        public_refuse(http, &bad_id);
        return;
    }
    if (route->kind == OF_OBJECTS && is_isolated(api))
        public_refuse(http, &isolated);
    else
        route->run(api, http, &id);
}

static void on_body(void *arg, struct http_request *http, const uint8_t *data, size_t len)
{
    (void)arg;
    public_put_body(http_request_data(http), data, len);
}

static void on_body_end(void *arg, struct http_request *http)
{
    (void)arg;
    public_put_end(http_request_data(http));
}

static void on_done(void *arg, struct http_request *http)
{
    struct public_request *request = http_request_data(http);

    (void)arg;
    if (request)
        give_back(request);
}

/* ---- Life ---- */

int public_create(struct public_api **out, const struct public_config *config)
{
    assert(config->loops > 0 && config->stats.store && config->stats.server);
    *out = NULL;

    size_t bytes = sizeof(struct public_api) + config->loops * sizeof(struct public_loop);
    struct public_api *api = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!api)
        return ERR_NO_MEMORY;
    memset(api, 0, bytes);
    api->config = *config;
    api->config.stats.operations = public_operations;
    api->config.stats.operation_count = PUBLIC_OPERATIONS;
    api->store = config->stats.store;
    api->ram = store_ram(api->store);
    api->env = store_env(api->store);
    api->handler = (struct http_handler){on_request, on_body, on_body_end, on_done, api};
    struct id128 node = journal_node(store_journal(api->store));
    ulid_format(api->node, &node);
    *out = api;
    return 0;
}

const struct http_handler *public_handler(const struct public_api *api)
{
    return &api->handler;
}

void public_destroy(struct public_api **api)
{
    struct public_api *it = *api;

    if (!it)
        return;
    for (unsigned i = 0; i < it->config.loops; i++) {
        struct public_loop *loop = &it->loops[i];

        while (loop->idle) {
            struct public_request *request = loop->idle;

            loop->idle = request->next;
            free_request(request);
        }
        free(loop->scratch);
    }
    free(it);
    *api = NULL;
}
