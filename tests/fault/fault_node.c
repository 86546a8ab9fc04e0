/* The whole node as the daemon runs it, asked over its sockets while something fails below it. */
#include "base/limits.h"
#include "base/log.h"
#include "cmd/node.h"
#include "tests/fault/fault.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#define BODY_MAX   (1 * MIB)
#define WAIT_MS    10000 /* a request that gets no answer in this time hangs … */
#define LOST_MS    300   /* … but where sockets go on failing there may be none */
#define RECOVER_MS 8000
#define META       "{\"a key\":\"a value of more than sixteen characters\"}"

struct under_test {
    struct options options;
    struct node *node;
    char message[512];
};

struct reply {
    unsigned status; /* 0: none */
    char head[4096];
    uint8_t *body;
    size_t len;
    bool complete;
};

/* ---- The client: none of its calls fail ---- */

static void set_deadline(int fd, unsigned ms)
{
    const struct timeval wait = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait);
}

static int dial(const char *unix_path)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)fault_port()),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(unix_path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);

    (void)snprintf(local.sun_path, sizeof local.sun_path, "%s", unix_path ? unix_path : "");
    if (fd < 0 || connect(fd, unix_path ? (struct sockaddr *)&local : (struct sockaddr *)&address,
                          unix_path ? sizeof local : sizeof address) != 0)
        fault_fail("cannot connect: %s", strerror(errno));
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

/* False: nothing came for too long. */
static bool receive(int fd, struct reply *reply, bool has_body)
{
    size_t len = 0, want = 0;
    ssize_t n;

    while (len < 4 || memcmp(reply->head + len - 4, "\r\n\r\n", 4) != 0) {
        n = recv(fd, reply->head + len, 1, 0);
        if (n <= 0)
            return n == 0 || errno == ECONNRESET;
        if (++len >= sizeof reply->head - 1)
            fault_fail("an endless head: %s", reply->head);
    }
    reply->status = (unsigned)atoi(reply->head + 9);
    const char *length = strcasestr(reply->head, "\r\ncontent-length:");
    if (length && has_body)
        want = strtoull(length + 17, NULL, 10);
    if (want > BODY_MAX)
        fault_fail("a body of %zu bytes", want);
    while (reply->len < want) {
        n = recv(fd, reply->body + reply->len, want - reply->len, 0);
        if (n <= 0)
            break;
        reply->len += (size_t)n;
    }
    reply->complete = reply->len == want;
    return reply->complete || n == 0 || errno == ECONNRESET;
}

static void reply_free(struct reply *reply)
{
    fault_spare();
    free(reply->body);
    fault_unspare();
}

static void request(const struct world *world, const char *unix_path, struct reply *reply,
                    const char *method, const char *path, const char *head, const void *body,
                    size_t len)
{
    bool lossy = world->way == FAULT_SOCKET;
    char text[2048];

    fault_spare();
    memset(reply, 0, sizeof *reply);
    reply->body = calloc(1, BODY_MAX + 1);
    int fd = dial(unix_path);
    set_deadline(fd, lossy && world->persistent ? LOST_MS : WAIT_MS);
    int n = snprintf(text, sizeof text,
                     "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%sContent-Length: "
                     "%zu\r\n\r\n",
                     method, path, head, len);
    send_all(fd, text, (size_t)n);
    send_all(fd, body, len);
    if (!receive(fd, reply, strcmp(method, "HEAD") != 0) && !lossy)
        fault_fail("%s %s: no answer", method, path);
    (void)close(fd);
    fault_unspare();
    if (reply->status == 0 && !lossy && world->way != FAULT_ALLOC && world->way != FAULT_FILE_IO)
        fault_fail("%s %s: closed without an answer", method, path);
    if (reply->status >= 400 && reply->status < 500 && reply->status != 404)
        fault_fail("%s %s: %u %s", method, path, reply->status, (char *)reply->body);
    if (reply->status >= 500 && fault_is_harmless(world->way))
        fault_fail("%s %s: %u %s", method, path, reply->status, (char *)reply->body);
}

/* ---- Operations ---- */

static const char *path_of(const char *verb, unsigned n)
{
    static char path[64];
    char id[27];

    world_id(id, n);
    (void)snprintf(path, sizeof path, "/api/v1/%s/%s", verb, id);
    return path;
}

static unsigned put(struct world *world, unsigned n)
{
    static uint8_t body[BODY_MAX];
    struct reply reply;
    char head[256], id[27];
    size_t size = world_size(n);

    world_id(id, n);
    world_body(body, size, n);
    (void)snprintf(head, sizeof head,
                   "X-Meta-ID: %s\r\nX-Meta-Name: old\r\nX-Meta-UserMeta: " META "\r\n", id);
    request(world, NULL, &reply, "PUT", "/api/v1/put", head, body, size);
    world_put_done(world, n, reply.status == 200);
    reply_free(&reply);
    return reply.status;
}

static unsigned delete_one(struct world *world, unsigned n)
{
    struct reply reply;

    request(world, NULL, &reply, "POST", path_of("delete", n), "", NULL, 0);
    world_delete_done(world, n, reply.status == 200);
    reply_free(&reply);
    return reply.status;
}

static unsigned rename_one(struct world *world, unsigned n)
{
    struct reply reply;

    request(world, NULL, &reply, "POST", path_of("meta", n), "X-Meta-Name: new\r\n", NULL, 0);
    world_rename_done(world, n, reply.status == 200);
    reply_free(&reply);
    return reply.status;
}

/* What is served of object N is right, or it says that it failed. */
static unsigned get(const struct world *world, unsigned n, const char *verb, const char *head)
{
    static uint8_t want[BODY_MAX];
    size_t size = world_size(n), from = 0;
    struct reply reply;

    world_body(want, size, n);
    request(world, NULL, &reply, strcmp(head, "") == 0 || *head == 'R' ? "GET" : "HEAD",
            path_of(verb, n), *head == 'R' ? head : "", NULL, 0);
    unsigned may = world->may[n];
    if (reply.status == 404 &&
        !(strcasestr(reply.head, "x-meta-deleted: true") ? may & IS_DELETED : may & IS_ABSENT))
        fault_fail("object %u is not found", n);
    if ((reply.status == 200 || reply.status == 206) && strcmp(verb, "get") == 0) {
        if (!(may & IS_PRESENT))
            fault_fail("object %u is served", n);
        if (reply.status == 206) {
            from = 100;
            size = size > 900 ? 800 : size - 100;
        }
        if (reply.complete && *head != 'H' && reply.len != size)
            fault_fail("object %u: %zu bytes are served", n, reply.len);
        if (reply.len > size || memcmp(reply.body, want + from, reply.len) != 0)
            fault_fail("object %u: wrong bytes are served", n);
    }
    if (reply.status == 200 && n >= 8 && !strstr(reply.head, META) && strcmp(verb, "get") == 0)
        fault_fail("object %u: wrong meta is served: %s", n, reply.head);
    if (!reply.complete && reply.status)
        reply.status = 0;
    reply_free(&reply);
    return reply.status;
}

static void stats(const struct world *world, const char *path)
{
    struct reply reply;

    request(world, NULL, &reply, "GET", path, "", NULL, 0);
    if (reply.status == 404)
        fault_fail("%s: 404", path);
    reply_free(&reply);
}

/* ---- The node ---- */

static void read_options(struct under_test *it, const struct world *world)
{
    char program[] = "objstore", address[] = "--public-addr=127.0.0.1:0",
         private[] = "--private-addr=127.0.0.1:0", memory[] = "--memory=4MiB",
         workers[] = "--workers=1", segments[] = "--segment-bytes=262144", state[160], files[160];
    char *argv[] = {program, state, files, address, private, memory, workers, segments, NULL};
    char *none[] = {NULL};

    (void)snprintf(state, sizeof state, "--state-dir=%s", world->state);
    (void)snprintf(files, sizeof files, "--files-dir=%s", world->files);
    fault_spare();
    memset(it, 0, sizeof *it);
    if (options_read(&it->options, 8, argv, none, it->message, sizeof it->message))
        fault_fail("options: %s", it->message);
    fault_unspare();
}

/* With faults it may refuse, and then says why. */
static bool start(struct under_test *it, const struct world *world)
{
    read_options(it, world);
    int rc = node_start(&it->node, &it->options, it->message, sizeof it->message);
    if (rc && !*it->message)
        fault_fail("the start failed with %d and did not say why", rc);
    if (rc && fault_is_harmless(world->way))
        fault_fail("the start failed: %s", it->message);
    return rc == 0;
}

static void must_start(struct under_test *it, const struct world *world)
{
    if (!start(it, world))
        fault_fail("a start without faults: %s", it->message);
}

/* Without faults the node works again at once; only a disk that failed, or is full, may have left
 * it read-only. */
static void expect_well(struct world *world)
{
    struct timespec pause = {.tv_nsec = 20000000};
    bool may_stay = world->way == FAULT_FILE_IO || world->way == FAULT_FILE_FULL;

    fault_disarm();
    for (int waited = 0;; waited += 20) {
        unsigned status = put(world, OBJECTS - 2);

        if (get(world, 0, "get", "") != 200)
            fault_fail("reading does not work any more");
        if (status == 200 || (may_stay && status == 503))
            return;
        if (waited > RECOVER_MS)
            fault_fail("writing does not work any more: %u", status);
        (void)nanosleep(&pause, NULL);
    }
}

static void stop(struct under_test *it)
{
    node_stop(&it->node, 2000);
    fault_spare();
    options_release(&it->options);
    fault_unspare();
}

void node_start_stop(struct world *world)
{
    struct under_test it;

    world_arm(world);
    bool started = start(&it, world);
    fault_disarm();
    if (!started) {
        options_release(&it.options);
        must_start(&it, world);
    }
    put(world, 0);
    expect_well(world);
    stop(&it);
}

static void run(struct world *world, void (*act)(struct world *world))
{
    struct under_test it;

    must_start(&it, world);
    world_arm(world);
    act(world);
    expect_well(world);
    stop(&it);
}

static void put_small(struct world *world)
{
    put(world, 8);
    put(world, 13);
    get(world, 8, "get", "");
}

static void put_large(struct world *world)
{
    put(world, 15);
    get(world, 15, "get", "");
}

static void get_all(struct world *world)
{
    get(world, 0, "get", "");
    get(world, 0, "get", ""); /* from RAM */
    get(world, 6, "get", "");
    get(world, 7, "get", "");
    get(world, 7, "get", "Range: bytes=100-899\r\n");
    get(world, 6, "get", "Range: bytes=100-899\r\n");
    get(world, 4, "get", "HEAD");
    get(world, 1, "get", "");
    get(world, 9, "get", "");
    get(world, 2, "meta", "");
}

static void rename_some(struct world *world)
{
    rename_one(world, 0);
    rename_one(world, 7);
    get(world, 0, "get", "");
}

static void delete_some(struct world *world)
{
    delete_one(world, 3);
    delete_one(world, 7);
    get(world, 3, "get", "");
}

static void all_stats(struct world *world)
{
    stats(world, "/api/v1/stats");
    stats(world, "/metrics");
    stats(world, "/readyz");
    stats(world, "/healthz");
    stats(world, "/api/v1/id");
}

void node_put_small(struct world *world)
{
    run(world, put_small);
}

void node_put_large(struct world *world)
{
    run(world, put_large);
}

void node_get(struct world *world)
{
    run(world, get_all);
}

void node_meta(struct world *world)
{
    run(world, rename_some);
}

void node_delete(struct world *world)
{
    run(world, delete_some);
}

void node_stats(struct world *world)
{
    run(world, all_stats);
}

void node_backup(struct world *world)
{
    struct under_test it;
    struct reply reply;
    char body[256];

    must_start(&it, world);
    world_arm(world);
    int len = snprintf(body, sizeof body, "{\"dir\":\"%s\"}", world->backup);
    request(world, node_control_path(it.node), &reply, "POST", "/control/v1/backup", "", body,
            (size_t)len);
    reply_free(&reply);
    expect_well(world);
    stop(&it);
}

void node_stopping(struct world *world)
{
    struct under_test it;

    must_start(&it, world);
    put(world, 8);
    put(world, 15);
    delete_one(world, 3);
    world_arm(world);
    stop(&it);
}
