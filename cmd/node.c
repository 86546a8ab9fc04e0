/*
 * The order of a start is the order of what can be refused without a trace: the address first (the
 * gate answers "starting" there), then the directories, then what lies in them. Only when all of
 * that is well does the gate open.
 *
 *   server + gate ► directories ► RAM tier ► journal (recovers, starts) ► store ► API ► gate opens
 *
 * A stop goes the other way: drain, commit and apply what is queued, then free. A request that is
 * still waiting for the disk when the drain's patience ends keeps what it needs alive for a few
 * seconds more; if it hangs for good the process ends without freeing, since the journal is closed
 * and the rest is memory.
 *
 * Failure: the exit code tells the operator's tools who is to act (options.h). A fresh store that
 * could not be completed is removed again.
 */
#include "cmd/node.h"

#include "api/control.h"
#include "api/public.h"
#include "base/env.h"
#include "base/io.h"
#include "base/limits.h"
#include "cmd/common_addr.h"
#include "cmd/gate.h"
#include "journal/journal.h"
#include "journal/ulid.h"
#include "storage/ram.h"
#include "storage/store_dir.h"

#include <assert.h>
#include <ftw.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LAST_PATIENCE_MS 5000
#define MAX_LOOPS        64u

struct node {
    const struct options *options;
    struct env *env;
    struct gate gate;
    struct http_server *server;
    struct store_dirs dirs;
    bool dirs_open, made_state, made_files;
    struct ram *ram;
    struct journal *journal;
    struct store *store;
    struct public_api *api;
    struct control *control;
    char *control_path;
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

static bool exists(const char *path)
{
    struct stat ignored;

    return lstat(path, &ignored) == 0;
}

/* ---- Starting ---- */

static int listen_public(struct node *node, unsigned loops, struct refusal_line *line)
{
    const struct http_config config = {.workers = loops,
                                       .access_log = node->options->access_log,
                                       .operations = public_operations,
                                       .operation_count = PUBLIC_OPERATIONS};

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

static int open_store(struct node *node, struct refusal_line *line)
{
    const struct options *options = node->options;

    node->made_state = !exists(options->state_dir);
    node->made_files = !exists(options->files_dir);
    int rc = store_dirs_open(&node->dirs, node->env, options->state_dir, options->files_dir,
                             options->accept_data_loss, line->text, line->cap);
    if (rc)
        return exit_code_of(rc, EXIT_CANNOT_CREATE);
    node->dirs_open = true;

    rc = ram_create(&node->ram, options->memory_bytes);
    if (rc) {
        (void)snprintf(line->text, line->cap, "cannot make the memory tier: %s", err_text(rc));
        return EXIT_IO;
    }
    const struct journal_config config = {.dirs = &node->dirs,
                                          .ram = node->ram,
                                          .sync = options->durability == DURABILITY_FULL,
                                          .segment_bytes = options->segment_bytes,
                                          .scrub_interval_ms = options->scrub_interval_ms};
    rc = journal_open(&node->journal, &config, line->text, line->cap);
    if (rc)
        return exit_code_of(rc, EXIT_IO);
    rc = journal_start(node->journal);
    if (rc)
        (void)snprintf(line->text, line->cap, "cannot start the journal: %s", err_text(rc));
    return rc ? EXIT_IO : 0;
}

/* A path that fits a socket's address, whatever the directory's name is long: through its fd. */
static char *socket_path(const char *state_dir)
{
    char *path = io_join(state_dir, "control.sock");

    return path;
}

static int open_doors(struct node *node, unsigned loops, uint64_t started_ms,
                      struct refusal_line *line)
{
    const struct options *options = node->options;
    const struct store_config store = {.journal = node->journal,
                                       .ram = node->ram,
                                       .env = node->env,
                                       .max_body_bytes = options->max_body_bytes};

    int rc = store_create(&node->store, &store);
    if (rc)
        goto failed;
    const struct public_config api = {
        .stats = {.store = node->store,
                  .server = node->server,
                  .version = OBJSTORE_VERSION,
                  .tag = options->tag,
                  .durability = options->durability == DURABILITY_FULL ? "full" : "async",
                  .started_mono_ms = started_ms,
                  .operations = public_operations,
                  .operation_count = PUBLIC_OPERATIONS},
        .anonymous = (enum anonymous)options->anonymous,
        .loops = loops};
    rc = public_create(&node->api, &api);
    if (rc)
        goto failed;
    (void)socket_path;
    return 0;
failed:
    (void)snprintf(line->text, line->cap, "cannot start serving: %s", err_text(rc));
    return exit_code_of(rc, EXIT_IO);
}
