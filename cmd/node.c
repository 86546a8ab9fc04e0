/*
 * The order of a start is the order of what can be refused without a trace: the address first (the
 * gate answers "starting" there), then the directories, then what lies in them. Only when all of
 * that is well does the gate open.
 *
 *   server + gate ► directories ► RAM tier ► journal (recovers) ► cloud ► cluster (listens) ►
 *   journal and cluster start ► store ► API, control, debug door ► gate opens
 *
 * A stop goes the other way: drain, leave the cluster, commit and apply what is queued, then free.
 * A request that is still waiting for the disk when the drain's patience ends keeps what it needs
 * alive for a few seconds more; if it hangs for good the process ends without freeing, since the
 * journal is closed and the rest is memory.
 *
 * Failure: the exit code tells the operator's tools who is to act (options.h). A fresh store that
 * could not be completed is removed again.
 */
#include "cmd/node.h"

#include "api/control.h"
#include "api/private.h"
#include "api/public.h"
#include "base/budget.h"
#include "base/env.h"
#include "base/io.h"
#include "base/limits.h"
#include "cluster/cluster.h"
#include "cluster/link_address.h"
#include "cmd/common_addr.h"
#include "cmd/common_socket.h"
#include "cmd/gate.h"
#include "cmd/node_cloud.h"
#include "journal/journal.h"
#include "journal/ulid.h"
#include "storage/disk_cache.h"
#include "storage/ram.h"
#include "storage/store_dir.h"

#include <assert.h>
#include <ftw.h>
#include <netdb.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The server's listeners, by the order of their listen calls. */
enum { LISTENER_PUBLIC, LISTENER_CONTROL, LISTENER_DEBUG };

#define LAST_PATIENCE_MS 5000
#define MAX_LOOPS        64u

/* What --memory leaves to slow clients: a quarter, but room for a few bodies in any case. */
#define IN_FLIGHT_SHARE     4
#define IN_FLIGHT_MIN_BYTES (3 * MIB) /* one large body out of the cloud */

struct node {
    const struct options *options;
    struct env *env;
    struct gate gate;
    struct http_server *server;
    struct store_dirs dirs;
    bool dirs_open;
    size_t made_state, made_files; /* first_missing of each, before we came */
    struct budget memory;          /* the part of --memory that slow clients may hold */
    struct ram *ram;
    struct disk_cache *disk_cache; /* NULL: none asked for */
    struct journal *journal;
    struct cloud *cloud; /* NULL: none asked for */
    struct cluster *cluster;
    struct store *store;
    struct public_api *api;
    struct private_api *debug; /* NULL: none asked for */
    struct control *control;
    char control_path[SOCKET_PATH_BYTES];
    int control_fd; /* of the state directory, where its path is long; else -1 */
    atomic_bool displaced;
};

struct refusal_line {
    char *text;
    size_t cap;
};

static int exit_code_of(int rc, int otherwise)
{
    switch (rc) {
    case ERR_LOCKED:
        return EXIT_LOCKED;
    case ERR_WRONG_STORE:
    case ERR_FORMAT:
    case ERR_INVALID:
        return EXIT_CONFIG;
    case ERR_PERMISSION:
    case ERR_EXISTS:
    case ERR_NO_SPACE:
        return EXIT_CANNOT_CREATE;
    case ERR_IN_USE:
        return EXIT_UNAVAILABLE;
    case ERR_IO:
    case ERR_CORRUPT:
        return EXIT_IO;
    default:
        return otherwise;
    }
}

static unsigned loops_for(uint64_t wanted)
{
    cpu_set_t set;
    unsigned cpus = sched_getaffinity(0, sizeof set, &set) ? 1 : (unsigned)CPU_COUNT(&set);
    unsigned loops = wanted ? (unsigned)wanted : cpus;

    return loops > MAX_LOOPS ? MAX_LOOPS : loops;
}

/* The length of the shortest part of PATH that does not exist yet; 0: all of it does. */
static size_t first_missing(const char *path)
{
    char *part = strdup(path);
    size_t len = strlen(path), missing = 0;
    struct stat ignored;

    while (part && len > 0 && lstat(part, &ignored) != 0) {
        missing = len;
        while (len > 0 && part[len - 1] != '/')
            len--;
        while (len > 0 && part[len - 1] == '/')
            len--;
        part[len] = 0;
    }
    free(part);
    return missing;
}

/* Ends what is running, in the order that its users need. */
static void free_node(struct node **node_ptr)
{
    struct node *node = *node_ptr;

    if (node->control)
        control_stop(node->control);
    cluster_stop(node->cluster);
    if (node->journal)
        journal_stop(node->journal);
    http_server_destroy(&node->server);
    control_destroy(&node->control);
    private_destroy(&node->debug);
    public_destroy(&node->api);
    store_destroy(&node->store);
    cluster_close(&node->cluster);
    cloud_destroy(&node->cloud);
    journal_close(&node->journal);
    ram_destroy(&node->ram);
    disk_cache_destroy(&node->disk_cache);
    assert(budget_used(&node->memory) == 0);
    if (node->dirs_open)
        store_dirs_close(&node->dirs);
    if (node->control_fd >= 0)
        (void)close(node->control_fd);
    free(node);
    *node_ptr = NULL;
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *at)
{
    (void)stat;
    (void)kind;
    return at->level > 0 ? remove(path) : 0;
}

/* Remove what is in PATH, which was empty when we came, and PATH down to its first MADE bytes where
 * we made that. The only place that does not go through base/io: it knows no rmdir, since nothing
 * else ever needs one. */
static void remove_fresh(const char *path, size_t made)
{
    char *part = strdup(path);

    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    while (part && made > 0 && strlen(part) >= made && rmdir(part) == 0) {
        char *slash = strrchr(part, '/');

        *(slash ? slash : part) = 0;
    }
    free(part);
}

/* Undo a start that failed. */
static void give_up(struct node **node)
{
    const struct options *options = (*node)->options;
    bool fresh = (*node)->dirs_open && (*node)->dirs.fresh;
    size_t made_state = (*node)->made_state, made_files = (*node)->made_files;

    free_node(node);
    if (fresh) {
        remove_fresh(options->files_dir, made_files);
        remove_fresh(options->state_dir, made_state);
    }
}

/* ---- Starting ---- */

static int listen_public(struct node *node, unsigned loops, struct refusal_line *line)
{
    uint32_t deadline_ms = (uint32_t)node->options->http_deadline_ms;
    const struct http_config config = {.workers = loops,
                                       .header_timeout_ms = deadline_ms,
                                       .idle_timeout_ms = deadline_ms,
                                       .body_grace_ms = deadline_ms,
                                       .write_stall_ms = deadline_ms,
                                       .access_log = node->options->access_log,
                                       .operations = public_operations,
                                       .operation_count = PUBLIC_OPERATIONS,
                                       .memory = &node->memory};

    int rc = http_server_create(&node->server, &config);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot start the HTTP server: %s", err_text(rc));
        return exit_code_of(rc, EXIT_IO);
    }
    gate_init(&node->gate);
    rc = http_server_listen(node->server, node->options->public_addr, &node->gate.handler);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot listen on %s: %s", node->options->public_addr,
                       rc == ERR_INVALID ? "no such address here" : err_text(rc));
        return EXIT_UNAVAILABLE;
    }
    return 0;
}

/* HOST_PORT with a number for its name, as the link between nodes wants it: it asks no resolver. A
 * port alone is every address. ERR_INVALID: the name is nobody's. */
static int numeric_address(char out[ADDR_HOST_BYTES + 16], const char *host_port)
{
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    struct addr addr;

    int rc = addr_parse(&addr, host_port, 0);
    if (rc)
        return rc;
    if (!*addr.host)
        (void)snprintf(addr.host, sizeof addr.host, "0.0.0.0");
    /* localhost is ::1 first on most machines, but others look for it at 127.0.0.1. */
    rc = getaddrinfo(addr.host, NULL, &hints, &found);
    if (rc) {
        hints.ai_family = AF_UNSPEC;
        rc = getaddrinfo(addr.host, NULL, &hints, &found);
    }
    if (rc)
        return ERR_INVALID;
    rc = getnameinfo(found->ai_addr, found->ai_addrlen, addr.host, sizeof addr.host, NULL, 0,
                     NI_NUMERICHOST)
             ? ERR_INVALID
             : 0;
    freeaddrinfo(found);
    if (rc == 0)
        addr_format(out, ADDR_HOST_BYTES + 16, &addr);
    return rc;
}

/* A wrong secret, a secret that others can read, an address that needs one: all of them are
 * settings. */
static int cluster_exit_code(int rc)
{
    switch (rc) {
    case ERR_IN_USE:
        return EXIT_UNAVAILABLE;
    case ERR_PERMISSION:
    case ERR_NOT_FOUND:
    case ERR_TOO_BIG:
    case ERR_RANGE:
    case ERR_UNSUPPORTED:
        return EXIT_CONFIG;
    default:
        return exit_code_of(rc, EXIT_IO);
    }
}

/* On the cluster's thread: end as if we were told to, but for the exit code. */
static void displaced(void *arg)
{
    struct node *node = arg;

    atomic_store(&node->displaced, true);
    (void)kill(getpid(), SIGTERM);
}

static int open_cluster(struct node *node, struct refusal_line *line)
{
    const struct options *options = node->options;
    char address[ADDR_HOST_BYTES + 16];

    int rc = numeric_address(address, options->private_addr);
    if (rc) {
        (void)snprintf(line->text, line->cap, "--private-addr: '%s' names no address",
                       options->private_addr);
        return EXIT_CONFIG;
    }
    struct id128 replaces;
    if (*options->replace) {
        rc = ulid_parse(&replaces, options->replace, strlen(options->replace));
        assert(rc == 0); /* checked when it was read */
    }
    const struct cluster_config config = {
        .journal = node->journal,
        .state_dir = options->state_dir,
        .replaces = *options->replace ? &replaces : NULL,
        .env = node->env,
        .tag = options->tag,
        .private_addr = address,
        .advertise_addr = *options->advertise_addr ? options->advertise_addr : NULL,
        .secret_file = *options->cluster_secret_file ? options->cluster_secret_file : NULL,
        .seeds = (const char *const *)options->nodes,
        .seed_count = options->node_count,
        .on_displaced = displaced,
        .on_displaced_arg = node,
        .cloud = node->cloud,
        .cloud_prefix = *options->cloud_prefix ? options->cloud_prefix : NULL,
        .outbox_copies = (unsigned)options->outbox_copies,
        .writeback = options->commit == COMMIT_WRITEBACK};
    rc = cluster_open(&node->cluster, &config, line->text, line->cap);
    if (rc && !*line->text)
        (void)snprintf(line->text, line->cap, "cannot listen on %s for the cluster: %s", address,
                       err_text(rc));
    return rc ? cluster_exit_code(rc) : 0;
}

/* What the operator can mend is a setting; the rest of the errors are this machine's. */
static int open_cloud(struct node *node, struct refusal_line *line)
{
    int rc = node_cloud_open(&node->cloud, node->env, node->options, line->text, line->cap);

    if (rc == 0)
        return 0;
    if (!*line->text)
        (void)snprintf(line->text, line->cap, "cannot use the cloud: %s", err_text(rc));
    return rc == ERR_NO_MEMORY ? EXIT_IO : EXIT_CONFIG;
}

/* The journal, and between its two steps the cluster, which listens to it. */
static int open_journal(struct node *node, struct refusal_line *line)
{
    const struct options *options = node->options;
    const struct journal_config config = {.dirs = &node->dirs,
                                          .ram = node->ram,
                                          .sync = options->durability == DURABILITY_FULL,
                                          .segment_bytes = options->segment_bytes,
                                          .scrub_interval_ms = options->scrub_interval_ms};

    int rc = journal_open(&node->journal, &config, line->text, line->cap);
    if (rc)
        return exit_code_of(rc, EXIT_IO);
    rc = open_cloud(node, line);
    if (rc == 0)
        rc = open_cluster(node, line);
    if (rc)
        return rc;
    rc = journal_start(node->journal);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot start the journal: %s", err_text(rc));
        return EXIT_IO;
    }
    rc = cluster_start(node->cluster);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot start the cluster: %s", err_text(rc));
        return EXIT_IO;
    }
    return 0;
}

static void forget_copies(void *arg, const struct id128 *id)
{
    disk_cache_forget(arg, id);
}

/* Copies are told apart by what the RAM tier is told: before the journal writes to it. */
static int open_disk_cache(struct node *node, struct refusal_line *line)
{
    const struct options *options = node->options;

    if (options->disk_cache_bytes == 0)
        return 0;
    int rc = disk_cache_create(&node->disk_cache, node->env, options->files_dir,
                               options->disk_cache_bytes);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot make the disk cache in %s: %s",
                       options->files_dir, err_text(rc));
        return exit_code_of(rc, EXIT_IO);
    }
    ram_watch(node->ram, forget_copies, node->disk_cache);
    return 0;
}

static int open_store(struct node *node, struct refusal_line *line)
{
    const struct options *options = node->options;

    node->made_state = first_missing(options->state_dir);
    node->made_files = first_missing(options->files_dir);
    int rc = store_dirs_open(&node->dirs, node->env, options->state_dir, options->files_dir,
                             options->accept_data_loss, line->text, line->cap);
    if (rc)
        return exit_code_of(rc, EXIT_CANNOT_CREATE);
    node->dirs_open = true;

    /* With very little of it what is in flight takes more than its share, and the sum is more. */
    uint64_t in_flight = options->memory_bytes / IN_FLIGHT_SHARE;
    if (options->memory_bytes > 2 * node->memory.limit)
        in_flight = node->memory.limit;
    rc = ram_create(&node->ram, options->memory_bytes - in_flight);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot make the memory tier: %s", err_text(rc));
        return EXIT_IO;
    }
    rc = open_disk_cache(node, line);
    return rc ? rc : open_journal(node, line);
}

static int open_control(struct node *node, const struct stats_source *stats,
                        struct refusal_line *line)
{
    char address[SOCKET_PATH_BYTES + 8];
    const char *dir = node->options->state_dir;

    int rc = control_create(&node->control, stats);
    if (rc == 0)
        rc = control_socket_path(node->control_path, dir, &node->control_fd);
    if (rc == 0) {
        (void)snprintf(address, sizeof address, "unix:%s", node->control_path);
        rc = http_server_listen(node->server, address, control_handler(node->control));
    }
    if (rc)
        (void)snprintf(line->text, line->cap, "cannot open the control socket in %s: %s", dir,
                       err_text(rc));
    return rc ? EXIT_CANNOT_CREATE : 0;
}

/* The private API, which nobody gets unasked. A port alone means this machine alone. */
static int open_debug(struct node *node, struct refusal_line *line)
{
    char address[ADDR_HOST_BYTES + 16];
    const char *asked = node->options->debug_addr;
    struct addr addr;

    if (!*asked)
        return 0;
    int rc = addr_parse(&addr, asked, 0);
    assert(rc == 0);
    const struct private_config config = {
        .api = node->api, .cluster = node->cluster, .everyone = *addr.host != 0};
    if (!*addr.host)
        (void)snprintf(addr.host, sizeof addr.host, "127.0.0.1");
    addr_format(address, sizeof address, &addr);
    rc = private_create(&node->debug, &config);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot open the private API: %s", err_text(rc));
        return EXIT_IO;
    }
    rc = http_server_listen(node->server, address, private_handler(node->debug));
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot listen on %s for --debug-addr: %s", address,
                       rc == ERR_INVALID ? "no such address here" : err_text(rc));
        return EXIT_UNAVAILABLE;
    }
    addr.port = http_server_port(node->server, LISTENER_DEBUG);
    addr_format(address, sizeof address, &addr);
    log_info("private API: listening on %s", address);
    if (config.everyone && !link_ip_is_loopback(addr.host))
        log_warn("private API: whoever reaches %s may read, write and delete", address);
    return 0;
}

static int open_doors(struct node *node, unsigned loops, uint64_t started_ms,
                      struct refusal_line *line)
{
    const struct options *options = node->options;
    const struct store_config store = {.journal = node->journal,
                                       .cluster = node->cluster,
                                       .ram = node->ram,
                                       .disk_cache = node->disk_cache,
                                       .env = node->env,
                                       .memory = &node->memory,
                                       .max_body_bytes = options->max_body_bytes,
                                       .whole_ranges = options->range_cache == RANGE_CACHE_OFF};

    int rc = store_create(&node->store, &store);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot open the store: %s", err_text(rc));
        return EXIT_IO;
    }
    const struct public_config api = {
        .stats = {.store = node->store,
                  .cluster = node->cluster,
                  .server = node->server,
                  .version = OBJSTORE_VERSION,
                  .tag = options->tag,
                  .durability = options->durability == DURABILITY_FULL ? "full" : "async",
                  .started_mono_ms = started_ms,
                  .operations = public_operations,
                  .operation_count = PUBLIC_OPERATIONS,
                  .egress_price = options->egress_price},
        .anonymous = (enum anonymous)options->anonymous,
        .refuse_isolated = options->isolated == ISOLATED_REFUSE,
        .loops = loops,
        .cloud = node->cloud != NULL,
        .writeback = options->commit == COMMIT_WRITEBACK,
        .outbox_copies = (unsigned)options->outbox_copies};
    rc = public_create(&node->api, &api);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot open the public API: %s", err_text(rc));
        return EXIT_IO;
    }
    rc = open_control(node, &api.stats, line);
    return rc ? rc : open_debug(node, line);
}

/* As the ancestor says it, and what it would not have said. */
static void say_welcome(const struct node *node)
{
    const struct options *options = node->options;
    char id[ULID_TEXT_BYTES + 1], where[ADDR_HOST_BYTES + 16];
    struct id128 self = journal_node(node->journal);
    struct addr addr;

    ulid_format(id, &self);
    log_info("node ID: %s", id);
    if (addr_parse(&addr, options->public_addr, 0) == 0) {
        addr.port = http_server_port(node->server, LISTENER_PUBLIC);
        if (!*addr.host)
            (void)snprintf(addr.host, sizeof addr.host, "::");
        addr_format(where, sizeof where, &addr);
        log_info("listening on %s", where);
    }
    log_info("cluster: listening on %s", cluster_address(node->cluster));
    if (!*options->cluster_secret_file)
        log_info("cluster: without --cluster-secret-file nodes on this machine alone are let in");
    for (unsigned i = 0; i < options->node_count; i++)
        log_info("joining the cluster at %s", options->nodes[i]);
    if (options->node_count == 0 && cluster_is_alone(node->cluster))
        log_warn("no additional cluster nodes specified, current node starts solo");
    if (options->durability == DURABILITY_ASYNC)
        log_warn("durability=async: a crash of the machine loses what was answered last");
    node_cloud_welcome(node->cloud, options);
}

int node_start(struct node **out, const struct options *options, char *message, size_t cap)
{
    struct refusal_line line = {message, cap};
    unsigned loops = loops_for(options->workers);

    assert(cap > 0);
    *out = NULL;
    *message = 0;
    struct node *node = calloc(1, sizeof *node);
    if (!node) {
        (void)snprintf(message, cap, "out of memory");
        return EXIT_IO;
    }
    node->options = options;
    node->env = env_system();
    node->control_fd = -1;
    node->memory.limit = options->memory_bytes / IN_FLIGHT_SHARE;
    if (node->memory.limit < IN_FLIGHT_MIN_BYTES)
        node->memory.limit = IN_FLIGHT_MIN_BYTES;
    uint64_t started_ms = env_mono_ms(node->env);

    int rc = listen_public(node, loops, &line);
    if (rc == 0)
        rc = open_store(node, &line);
    if (rc == 0)
        rc = open_doors(node, loops, started_ms, &line);
    if (rc) {
        if (!*message)
            (void)snprintf(message, cap, "cannot start");
        give_up(&node);
        return rc;
    }
    gate_open(&node->gate, public_handler(node->api));
    say_welcome(node);
    *out = node;
    return 0;
}

/* ---- Stopping ---- */

/* Wait until no request is inside any more; false where one does not come to an end. */
static bool settle(struct node *node)
{
    uint64_t until = env_mono_ms(node->env) + LAST_PATIENCE_MS;
    const struct timespec rest = {0, 5000000};
    struct http_stats stats;

    for (;;) {
        http_server_stats(node->server, &stats);
        if (stats.in_flight == 0)
            return true;
        if (env_mono_ms(node->env) >= until)
            return false;
        (void)nanosleep(&rest, NULL);
    }
}

void node_stop(struct node **node_ptr, unsigned drain_ms)
{
    struct node *node = *node_ptr;

    assert(node && node->server);
    unsigned cut = http_server_drain(node->server, drain_ms);
    if (cut > 0)
        log_warn("%u connections were cut", cut);
    control_stop(node->control);
    cluster_stop(node->cluster);
    journal_stop(node->journal);
    if (!settle(node)) {
        /* The journal is closed in order; what hangs is in memory alone. */
        log_error("requests that wait for the disk do not come back, ending without them");
        _exit(EXIT_IO);
    }
    free_node(node_ptr);
}

bool node_displaced(const struct node *node)
{
    return atomic_load(&node->displaced);
}

const char *node_control_path(const struct node *node)
{
    return node->control_path;
}
