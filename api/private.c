/*
 * The debug door. What it shares with the public API are that API's own functions, called under
 * other paths; so the two cannot drift apart, and uploads, ranges and errors are the same. Only who
 * may ask differs: the operator has named the address, and that is the permission. A page of
 * another site may change nothing through this door either.
 */
#include "api/private.h"

#include "api/figures.h"
#include "api/private_orders.h"
#include "api/public_impl.h"
#include "journal/ulid.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ANSWER (1 * MIB)

struct private_api {
    struct private_config config;
    struct private_orders orders;
    struct http_handler handler;
    const struct http_handler *public; /* what goes on with a request that one of its functions took
                                        */
};

static void answer(struct http_request *http, const char *type, const char *text, size_t len)
{
    char head[128];
    int head_len =
        snprintf(head, sizeof head, "Content-Type: %s\r\nCache-Control: no-store\r\n", type);
    const struct http_answer answer = {
        .status = 200, .head = head, .head_len = (size_t)head_len, .body = text, .length = len};

    assert(head_len > 0 && (size_t)head_len < sizeof head);
    http_answer(http, &answer);
}

static void ping(struct private_api *api, struct http_request *http, const struct id128 *id)
{
    const char *node = api->config.api->node;

    (void)id;
    answer(http, "text/plain; charset=utf-8", node, strlen(node));
}

/* The ancestor's `vaddr` was a name on its own network that outlived a change of the real address;
 * here that is the node's id. */
static void add_node(struct buf *out, const char *id, const char *address)
{
    buf_text(out, out->len > 1 ? ",{" : "{");
    figures_string(out, "id", id);
    figures_string(out, "addr", address);
    figures_string(out, "vaddr", id);
    buf_char(out, '}');
}

static void nodes(struct private_api *api, struct http_request *http, const struct id128 *id)
{
    struct cluster_member members[LIMIT_MEMBERS + 1];
    struct cluster *cluster = api->config.cluster;
    struct buf out;
    size_t count = 0;

    (void)id;
    buf_init(&out, MAX_ANSWER);
    if (cluster)
        count = cluster_members(cluster, members, LIMIT_MEMBERS + 1);
    buf_char(&out, '[');
    if (!cluster)
        add_node(&out, api->config.api->node, "");
    for (size_t i = 0; i < count; i++) {
        const struct cluster_member *m = &members[i];
        char text[ULID_TEXT_BYTES + 1];

        if (m->joined != MEMBER_JOINED && !m->self)
            continue;
        ulid_format(text, &m->node);
        /* Alone, a node need not know yet where others will see it. */
        add_node(&out, text, m->self && !*m->address ? cluster_address(cluster) : m->address);
    }
    buf_text(&out, "]\n");
    if (buf_check(&out))
        public_fail(http, ERR_NO_MEMORY, OPERATION_OTHER, NULL);
    else
        answer(http, "application/json", out.data, out.len);
    buf_release(&out);
}

static void get(struct private_api *api, struct http_request *http, const struct id128 *id)
{
    http_set_operation(http, OPERATION_GET);
    public_get(api->config.api, http, id);
}

static void put(struct private_api *api, struct http_request *http, const struct id128 *id)
{
    http_set_operation(http, OPERATION_PUT);
    public_put(api->config.api, http, id);
}

static void delete (struct private_api *api, struct http_request *http, const struct id128 *id)
{
    http_set_operation(http, OPERATION_DELETE);
    public_delete(api->config.api, http, id);
}

/* ---- What the cluster is told to do ---- */

static void announce(struct private_api *api, struct http_request *http, const struct id128 *id)
{
    (void)id;
    private_announce(&api->orders, http);
}

static void sync_now(struct private_api *api, struct http_request *http, const struct id128 *id)
{
    (void)id;
    private_sync(&api->orders, http);
}

static void message(struct private_api *api, struct http_request *http, const struct id128 *id)
{
    enum http_method method = http_request_method(http);

    (void)id;
    if (method == HTTP_METHOD_POST)
        private_say(&api->orders, http);
    else
        private_read(&api->orders, http);
}

/* ---- Routing ---- */

#define METHOD(name) (1u << HTTP_METHOD_##name)
#define READS        (METHOD(GET) | METHOD(HEAD))

static const struct route {
    const char *path; /* ends in '/': an id follows */
    unsigned methods;
    const char *allow;
    void (*run)(struct private_api *api, struct http_request *http, const struct id128 *id);
} routes[] = {
    {"/private/v1/ping", READS, "Allow: GET, HEAD\r\n", ping},
    {"/private/v1/nodes", READS, "Allow: GET, HEAD\r\n", nodes},
    {"/private/v1/get/", READS, "Allow: GET, HEAD\r\n", get},
    {"/private/v1/announce", METHOD(POST), "Allow: POST\r\n", announce},
    {"/private/v1/sync", METHOD(POST), "Allow: POST\r\n", sync_now},
    {"/private/v1/message", READS | METHOD(POST), "Allow: GET, HEAD, POST\r\n", message},
    {"/private/v1/put", METHOD(POST) | METHOD(PUT), "Allow: POST, PUT\r\n", put},
    {"/private/v1/delete/", METHOD(POST) | METHOD(DELETE), "Allow: POST, DELETE\r\n", delete},
};

static bool takes_id(const struct route *route)
{
    return route->path[strlen(route->path) - 1] == '/';
}

static const struct route *find_route(struct slice path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        size_t len = strlen(routes[i].path);

        if ((takes_id(&routes[i]) ? path.len >= len : path.len == len) &&
            memcmp(path.ptr, routes[i].path, len) == 0)
            return &routes[i];
    }
    return NULL;
}

static bool guarded(const struct private_api *api, struct http_request *http)
{
    enum http_method method = http_request_method(http);
    bool reads = method == HTTP_METHOD_GET || method == HTTP_METHOD_HEAD;
    struct slice fetch_site = {NULL, 0};

    if (!reads)
        fetch_site = http_request_header(http, "sec-fetch-site", NULL);
    const struct refusal *refusal = guard_check(
        api->config.everyone ? ANONYMOUS_WRITE : ANONYMOUS_NONE, reads ? GUARD_READ : GUARD_CHANGE,
        http_request_from_loopback(http), fetch_site);
    if (refusal)
        public_refuse(http, refusal);
    return refusal != NULL;
}

static void on_request(void *arg, struct http_request *http)
{
    static const struct refusal bad_id = {400, "invalid_id", "an id is a ULID of 26 characters",
                                          NULL};
    struct private_api *api = arg;
    struct slice path = http_request_path(http);
    const struct route *route = find_route(path);
    struct id128 id = {{0}};

    http_set_operation(http, OPERATION_OTHER);
    if (guarded(api, http))
        return;
    if (!route) {
        http_answer_error(http, 404, "no_such_path", "nothing is served under this path", NULL);
        return;
    }
    if (!(route->methods & 1u << http_request_method(http))) {
        http_answer_error(http, 405, "method_not_allowed", "this path does not take the method",
                          route->allow);
        return;
    }
    size_t len = strlen(route->path);
    if (takes_id(route) && ulid_parse(&id, path.ptr + len, path.len - len) != 0) {
        public_refuse(http, &bad_id);
        return;
    }
    route->run(api, http, &id);
}

static void on_body(void *arg, struct http_request *http, const uint8_t *data, size_t len)
{
    const struct private_api *api = arg;

    if (private_is_note(http))
        private_note_body(http, data, len);
    else
        api->public->on_body(api->public->arg, http, data, len);
}

static void on_body_end(void *arg, struct http_request *http)
{
    const struct private_api *api = arg;

    if (private_is_note(http))
        private_note_end(&api->orders, http);
    else
        api->public->on_body_end(api->public->arg, http);
}

static void on_done(void *arg, struct http_request *http)
{
    const struct private_api *api = arg;

    api->public->on_done(api->public->arg, http);
}

int private_create(struct private_api **out, const struct private_config *config)
{
    struct private_api *api = calloc(1, sizeof *api);

    assert(config->api);
    *out = api;
    if (!api)
        return ERR_NO_MEMORY;
    api->config = *config;
    api->orders = (struct private_orders){config->cluster, config->api};
    api->public = public_handler(config->api);
    api->handler = (struct http_handler){on_request, on_body, on_body_end, on_done, api};
    return 0;
}

const struct http_handler *private_handler(const struct private_api *api)
{
    return &api->handler;
}

void private_destroy(struct private_api **api)
{
    free(*api);
    *api = NULL;
}
