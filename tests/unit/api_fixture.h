/*
 * For the tests of the doors: a whole node on a temporary directory (journal, RAM tier, store, HTTP
 * server on a free port, control socket), and a client that reads whole answers. Every wait on a
 * socket has a deadline.
 */
#ifndef TESTS_UNIT_API_FIXTURE_H
#define TESTS_UNIT_API_FIXTURE_H

#include "api/control.h"
#include "api/public.h"
#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <ftw.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define UNUSED __attribute__((unused))
#define WAIT_S 20
#define LOOPS  2

struct node {
    char root[64], state[96], files[96], socket[96];
    uint64_t max_body_bytes; /* set before node_start, as are env and cluster */
    struct cluster *cluster; /* NULL: runs alone */
    bool joins;              /* set before node_start: a cluster of its own, not one lent … */
    char seed[64];           /* … that asks there first; "": nobody */
    char address[64];        /* where it listened */
    struct env *env;
    uint64_t segment_bytes; /* 0: the default */
    uint32_t drain_ms;      /* how long node_stop waits for clients */
    struct store_dirs dirs;
    uint64_t disk_cache_bytes; /* set before node_start; 0: none */
    struct disk_cache *disk_cache;
    struct ram *ram;
    struct budget memory;
    uint64_t memory_bytes; /* its limit; set before node_start; 0: 2 MiB */
    bool whole_ranges;     /* set before node_start: store_config's */
    struct cloud *cloud;   /* set before node_start, for one that joins; lent; NULL: none */
    struct journal *journal;
    struct store *store;
    struct http_server *server;
    struct public_api *api;
    struct control *control;
    unsigned port;
};

static void node_open_cluster(struct node *node)
{
    const char *const seeds[] = {node->seed};
    const struct cluster_config config = {.journal = node->journal,
                                          .env = node->env,
                                          .tag = "test",
                                          .private_addr =
                                              *node->address ? node->address : "127.0.0.1:0",
                                          .seeds = seeds,
                                          .seed_count = *node->seed != 0,
                                          .cloud = node->cloud};
    char message[256];

    if (cluster_open(&node->cluster, &config, message, sizeof message) != 0)
        fail_msg("%s", message);
    (void)snprintf(node->address, sizeof node->address, "%s", cluster_address(node->cluster));
}

static void node_forget_copies(void *arg, const struct id128 *id)
{
    disk_cache_forget(arg, id);
}

static void node_start(struct node *node)
{
    const struct http_config http = {
        .workers = LOOPS,
        .operations = public_operations,
        .operation_count = PUBLIC_OPERATIONS,
        .memory = &node->memory,
    };
    char message[512] = "", address[128];

    node->memory.limit = node->memory_bytes ? node->memory_bytes : 2 * MIB;

    int rc = store_dirs_open(&node->dirs, node->env, node->state, node->files, false, message,
                             sizeof message);
    if (rc)
        fail_msg("%s", message);
    assert_int_equal(ram_create(&node->ram, 6 * MIB), 0);
    if (node->disk_cache_bytes) {
        assert_int_equal(
            disk_cache_create(&node->disk_cache, node->env, node->files, node->disk_cache_bytes),
            0);
        ram_watch(node->ram, node_forget_copies, node->disk_cache);
    }
    const struct journal_config journal = {
        .dirs = &node->dirs, .ram = node->ram, .sync = true, .segment_bytes = node->segment_bytes};
    rc = journal_open(&node->journal, &journal, message, sizeof message);
    if (rc)
        fail_msg("%s", message);
    if (node->joins)
        node_open_cluster(node);
    assert_int_equal(journal_start(node->journal), 0);
    if (node->joins)
        assert_int_equal(cluster_start(node->cluster), 0);
    const struct store_config store = {.journal = node->journal,
                                       .cluster = node->cluster,
                                       .ram = node->ram,
                                       .disk_cache = node->disk_cache,
                                       .env = node->env,
                                       .memory = &node->memory,
                                       .max_body_bytes = node->max_body_bytes,
                                       .whole_ranges = node->whole_ranges};
    assert_int_equal(store_create(&node->store, &store), 0);
    assert_int_equal(http_server_create(&node->server, &http), 0);
    const struct public_config api = {
        .stats = {.store = node->store,
                  .cluster = node->cluster,
                  .server = node->server,
                  .version = "1.2.3-test",
                  .tag = "a \"tag\"",
                  .durability = "full",
                  .started_mono_ms = env_mono_ms(node->env),
                  .operations = public_operations,
                  .operation_count = PUBLIC_OPERATIONS},
        .loops = LOOPS,
        .outbox_copies = 2,
    };
    assert_int_equal(public_create(&node->api, &api), 0);
    assert_int_equal(control_create(&node->control, &api.stats), 0);
    assert_int_equal(http_server_listen(node->server, "127.0.0.1:0", public_handler(node->api)), 0);
    (void)snprintf(address, sizeof address, "unix:%s", node->socket);
    assert_int_equal(http_server_listen(node->server, address, control_handler(node->control)), 0);
    node->port = http_server_port(node->server, 0);
}

static void node_stop(struct node *node)
{
    (void)http_server_drain(node->server, node->drain_ms);
    control_stop(node->control);
    if (node->cluster)
        cluster_stop(node->cluster); /* its fetches end, and so do the requests that wait */
    http_server_destroy(&node->server);
    control_destroy(&node->control);
    public_destroy(&node->api);
    store_destroy(&node->store);
    journal_stop(node->journal);
    if (node->joins)
        cluster_close(&node->cluster);
    journal_close(&node->journal);
    ram_destroy(&node->ram);
    disk_cache_destroy(&node->disk_cache);
    assert_int_equal(budget_used(&node->memory), 0);
    store_dirs_close(&node->dirs);
}

/* One that is not started yet. */
static struct node *node_prepare(uint64_t max_body_bytes, struct env *env)
{
    struct node *node = calloc(1, sizeof *node);

    assert_non_null(node);
    log_configure(getenv("TEST_LOG") ? LOG_DEBUG : LOG_ERROR, LOG_TEXT);
    (void)snprintf(node->root, sizeof node->root, "/tmp/api-test-XXXXXX");
    assert_non_null(mkdtemp(node->root));
    (void)snprintf(node->state, sizeof node->state, "%s/state", node->root);
    (void)snprintf(node->files, sizeof node->files, "%s/files", node->root);
    (void)snprintf(node->socket, sizeof node->socket, "%s/control.sock", node->root);
    node->max_body_bytes = max_body_bytes;
    node->env = env;
    node->drain_ms = 5000;
    return node;
}

UNUSED static struct node *node_create(uint64_t max_body_bytes, struct env *env)
{
    struct node *node = node_prepare(max_body_bytes, env);

    node_start(node);
    return node;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
    (void)info;
    (void)type;
    (void)ftw;
    return remove(path);
}

static void node_destroy(struct node *node)
{
    node_stop(node);
    assert_int_equal(nftw(node->root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
    free(node);
}

/* ---- The client ---- */

struct reply {
    unsigned status;
    char head[32 * 1024];
    char *body; /* with a zero behind it */
    size_t len;
    bool complete; /* as many bytes as announced */
};

static void set_deadline(int fd)
{
    const struct timeval wait = {.tv_sec = WAIT_S};

    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait), 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait), 0);
}

static int dial(const struct node *node)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)node->port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    set_deadline(fd);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

UNUSED static int dial_control(const struct node *node)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    assert_true(fd >= 0);
    set_deadline(fd);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", node->socket);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void send_all(int fd, const void *data, size_t len)
{
    const char *at = data;

    while (len) {
        ssize_t n = send(fd, at, len, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* refused early: the answer tells */
        at += n;
        len -= (size_t)n;
    }
}

/* A header's value, to the end of its line, in a buffer of the thread; NULL where there is none. */
UNUSED static const char *value_of(const struct reply *reply, const char *name)
{
    static __thread char value[16 * 1024];
    const char *at = reply->head;

    while ((at = strstr(at, "\r\n")) && at[2]) {
        at += 2;
        size_t len = strlen(name);
        if (strncasecmp(at, name, len) == 0 && at[len] == ':') {
            const char *end = strstr(at, "\r\n");

            at += len + 2;
            (void)snprintf(value, sizeof value, "%.*s", (int)(end - at), at);
            return value;
        }
    }
    return NULL;
}

static void receive(int fd, struct reply *reply, bool has_body)
{
    size_t len = 0;

    memset(reply, 0, sizeof *reply);
    while (len < 4 || memcmp(reply->head + len - 4, "\r\n\r\n", 4) != 0) {
        ssize_t n = recv(fd, reply->head + len, 1, 0);

        if (n <= 0)
            fail_msg("no answer: \"%s\"", reply->head);
        len++;
        assert_true(len < sizeof reply->head - 1);
    }
    reply->status = (unsigned)atoi(reply->head + 9);
    const char *length = value_of(reply, "content-length");
    size_t want = length && has_body && reply->status != 304 ? strtoull(length, NULL, 10) : 0;
    reply->body = calloc(1, want + 1);
    assert_non_null(reply->body);
    while (reply->len < want) {
        ssize_t n = recv(fd, reply->body + reply->len, want - reply->len, 0);

        if (n <= 0)
            break;
        reply->len += (size_t)n;
    }
    reply->complete = reply->len == want;
}

static void reply_free(struct reply *reply)
{
    free(reply->body);
    reply->body = NULL;
}

/* One request on a connection of its own. HEAD: further lines, each with its CRLF. */
static void request(const struct node *node, struct reply *reply, const char *method,
                    const char *path, const char *head, const void *body, size_t len)
{
    char text[16 * 1024];
    int fd = dial(node);
    bool sends = strcmp(method, "PUT") == 0 || strcmp(method, "POST") == 0;
    int n = snprintf(text, sizeof text, "%s %s HTTP/1.1\r\nHost: test\r\n%s", method, path,
                     head ? head : "");

    assert_true(n > 0 && (size_t)n < sizeof text - 64);
    if (sends)
        n += snprintf(text + n, sizeof text - (size_t)n, "Content-Length: %zu\r\n", len);
    n += snprintf(text + n, sizeof text - (size_t)n, "\r\n");
    send_all(fd, text, (size_t)n);
    send_all(fd, body, len);
    receive(fd, reply, strcmp(method, "HEAD") != 0);
    (void)close(fd);
}

#endif
