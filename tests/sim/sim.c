/*
 * The simulator of one node: production code over a simulated disk and clock, driven by one seed.
 *
 *   sim --seeds=A..B     runs of many seeds; for each: at every call that changes the disk, forks a
 *                        child that dies there (its process or its power), restarts, and is
 *                        checked; the parent goes on
 *   sim --seed=N --at=K  one run of seed N that dies at call K, in this process: a replay
 *
 * A run is a list of steps that the seed chooses: requests of clients, commits, applies,
 * checkpoints, upkeep, reads, moves of the clock, deaths, stops, rebuilds, calls that fail. There
 * are no threads; nothing runs that the seed did not choose. The same seed gives the same trace
 * (a hash over all calls to the disk), which --twice checks.
 *
 * A child is the run itself: it finds its disk dead, and goes the way that every death goes
 * (node_abandon, sim_disk_restart, node_open, checks). So what a replay does is the same, without
 * the fork.
 */
#include "tests/sim/sim.h"

#include "base/hash.h"
#include "base/log.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHILD_SECONDS 120
#define LIMIT_JOBS    64

struct options {
    uint64_t first, last;
    uint64_t at;        /* die at this call; 0: fork at every one */
    uint64_t until;     /* stop once so many crash points are passed */
    uint64_t least;     /* fewer crash points than that is a failure */
    unsigned steps, jobs, stride;
    unsigned seconds;   /* begin no further seed after that */
    bool verbose, twice, no_points;
};

static struct options options = {
    .first = 1, .last = 20, .steps = 160, .jobs = 1, .stride = 1};
static const char *program;
static struct sim_counts *counts;
static int report_fd = 2;

/* What the gate knows. */
static struct {
    struct sim *sim;
    bool armed;          /* crash points are wanted now */
    uint64_t die_at;     /* a death that the run itself wants; 0: none */
    uint64_t fail_at;    /* a call that is to fail; 0: none */
    int fail_rc;
    bool fail_short;
    pid_t children[LIMIT_JOBS];
    uint64_t points[LIMIT_JOBS];
    unsigned child_count;
    bool failed;
} gate;

static uint64_t mix(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t words[3] = {a, b, c};

    return xxh64(words, sizeof words, 0x51) | 1;
}

uint64_t sim_roll(struct sim *sim, uint64_t below)
{
    return sim_dice(&sim->plan) % below;
}

/* ---- Failures ---- */

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void say(const char *format, ...)
{
    char line[2048];
    va_list args;

    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (len >= (int)sizeof line)
        len = sizeof line - 1;
    if (write(report_fd, line, (size_t)len) < 0)
        return;
}

static void say_replay(uint64_t seed, uint64_t point)
{
    say("  replay: %s --seed=%" PRIu64 " --steps=%u", program, seed, options.steps);
    if (point)
        say(" --at=%" PRIu64, point);
    else
        say(" --no-points");
    say(" --verbose\n");
}

void sim_fail(struct sim *sim, const char *format, ...)
{
    char text[1024];
    va_list args;

    if (sim->disk->dead)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say("FAILED: seed %" PRIu64 ", call %" PRIu64 "%s: %s\n", sim->seed,
        sim->point ? sim->point : sim->disk->calls, sim->point ? " (crash point)" : "", text);
    say_replay(sim->seed, sim->point);
    if (options.verbose)
        abort();
    _exit(1);
}

/* ---- Clock and dice ---- */

static uint64_t wall_ns(struct env *env)
{
    return ((struct sim *)env->arg)->wall_ns;
}

static uint64_t mono_ns(struct env *env)
{
    return ((struct sim *)env->arg)->mono_ns;
}

static void random_bytes(struct env *env, void *buf, size_t len)
{
    struct sim *sim = env->arg;
    uint8_t *at = buf;

    for (size_t i = 0; i < len; i++)
        at[i] = (uint8_t)sim_dice(&sim->random);
}

static void pass_time(struct sim *sim, uint64_t ms)
{
    sim->wall_ns += ms * 1000000;
    sim->mono_ns += ms * 1000000;
    atomic_fetch_add(&sim->counts->sim_ms, sim->child ? 0 : ms);
}

/* ---- Crash points ---- */

static void collect(bool all)
{
    while (gate.child_count > 0 && (all || gate.child_count >= options.jobs)) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        unsigned i = 0;

        if (pid < 0)
            break;
        while (i < gate.child_count && gate.children[i] != pid)
            i++;
        if (i == gate.child_count)
            continue;
        uint64_t point = gate.points[i];
        gate.children[i] = gate.children[--gate.child_count];
        gate.points[i] = gate.points[gate.child_count];
        if (status == 0)
            continue;
        atomic_fetch_add(&counts->failures, 1);
        gate.failed = true;
        if (WIFSIGNALED(status)) {
            say("FAILED: seed %" PRIu64 ", call %" PRIu64 " (crash point): ended by signal %d (%s)\n",
                gate.sim->seed, point, WTERMSIG(status), strsignal(WTERMSIG(status)));
            say_replay(gate.sim->seed, point);
        }
    }
}

/* This process is the one that dies at call POINT. */
static void begin_point(struct sim *sim, uint64_t point)
{
    uint64_t dice = mix(sim->seed, point, 1);

    sim->point = point;
    sim->child = true;
    gate.armed = false;
    gate.die_at = gate.fail_at = 0;
    sim->disk->kind = dice >> 20 & 1 ? SIM_POWER : SIM_KILL;
    sim->disk->dice = mix(dice, point, 2);
    sim->plan = mix(dice, point, 3);
    sim->random = mix(dice, point, 4);
}

static bool is_point(struct sim *sim, enum sim_op op, const char *path, uint64_t call)
{
    if (!gate.armed || call % options.stride != 0)
        return false;
    /* 256 directories of the first start: a few of them will do. */
    return op != SIM_MKDIR || !strstr(path, "/large/") || mix(sim->seed, call, 5) % 16 == 0;
}

static enum sim_fate at_call(struct sim_disk *disk, enum sim_op op, const char *path, int *rc)
{
    struct sim *sim = disk->arg;
    uint64_t call = disk->calls;

    if (gate.fail_at && call >= gate.fail_at) {
        if (gate.fail_short && op == SIM_WRITE) {
            gate.fail_at = 0;
            return SIM_SHORT;
        }
        if (!gate.fail_short && (gate.fail_rc == ERR_IO || op == SIM_WRITE || op == SIM_CREATE)) {
            gate.fail_at = 0;
            sim->faulted = true;
            atomic_fetch_add(&sim->counts->faults, !sim->child);
            *rc = gate.fail_rc;
            return SIM_FAIL;
        }
    }
    if (options.at && gate.armed && call == options.at) {
        begin_point(sim, call);
        return SIM_DIE;
    }
    if (gate.die_at && call >= gate.die_at) {
        gate.die_at = 0;
        return SIM_DIE;
    }
    if (options.at || !is_point(sim, op, path, call))
        return SIM_PASS;
    collect(false);
    pid_t pid = fork();
    if (pid < 0)
        abort();
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        begin_point(sim, call);
        atomic_fetch_add(&counts->points, 1);
        atomic_fetch_add(disk->kind == SIM_KILL ? &counts->kills : &counts->powers, 1);
        return SIM_DIE;
    }
    gate.children[gate.child_count] = pid;
    gate.points[gate.child_count++] = call;
    return SIM_PASS;
}

/* ---- Dying and coming back ---- */

static void check_all(struct sim *sim)
{
    check_outcome(sim);
    check_files(sim);
    check_visible(sim, true);
    check_journal(sim);
}

/* What objctl journal rebuild does; the node is stopped. */
static int rebuild_database(struct sim *sim)
{
    uint64_t events = 0, objects = 0;

    sim->rebuilding = true;
    int rc = store_dirs_inspect(&sim->dirs, &sim->env, SIM_STATE, SIM_FILES, sim->message,
                                sizeof sim->message);
    if (rc == 0)
        rc = journal_rebuild(&sim->dirs, &events, &objects, sim->message, sizeof sim->message);
    store_dirs_close(&sim->dirs);
    if (rc && !sim->faulted)
        sim_fail(sim, "rebuild: %s", sim->message);
    if (rc == 0 && !sim->disk->dead)
        sim_disk_restart(sim->disk, SIM_KILL);
    return rc;
}

static void empty_disk(struct sim *sim)
{
    struct sim_disk *old = sim->disk;

    sim->disk = sim_disk_create(mix(sim->seed, old->calls, 11), old->total_bytes);
    sim->disk->gate = old->gate;
    sim->disk->arg = sim;
    sim->disk->calls = old->calls;
    sim->env.io = &sim->disk->io;
    sim_disk_destroy(&old);
}

/* Start, however often the node dies on the way. */
static void start(struct sim *sim)
{
    for (int deaths = 0, errors = 0;;) {
        int rc = node_open(sim);

        if (rc == 0 && !sim->disk->dead) {
            sim->rebuilding = false;
            sim->served = true;
            return;
        }
        if (sim->disk->dead) {
            if (++deaths > 20)
                abort();
            atomic_fetch_add(&counts->nested, 1);
            node_abandon(sim);
            sim_disk_restart(sim->disk, sim->disk->kind);
            sim->disk->kind = sim_roll(sim, 2) ? SIM_POWER : SIM_KILL;
            continue;
        }
        if (!sim->served && rc == ERR_WRONG_STORE) {
            /* The very first start died between its two STORE files. The node refuses to guess;
             * the operator, who has stored nothing yet, empties both directories. */
            atomic_fetch_add(&counts->emptied, 1);
            node_abandon(sim);
            empty_disk(sim);
            continue;
        }
        if (sim->rebuilding && (rc == ERR_NOT_FOUND || rc == ERR_CORRUPT) && ++errors < 20) {
            node_abandon(sim); /* as the message says: the rebuild that died is begun again */
            sim_disk_restart(sim->disk, SIM_KILL);
            (void)rebuild_database(sim);
            continue;
        }
        if (!sim->faulted || ++errors > 3)
            sim_fail(sim, "the node does not start: %s (%s)", sim->message, err_text(rc));
        node_abandon(sim);
        sim->disk->dead = true; /* no further call of a process that has gone */
        sim_disk_restart(sim->disk, SIM_KILL);
        sim->faulted = false;
        gate.fail_at = 0;
    }
}

/* The disk is dead: a new process starts on what is left, and must find all that was said. */
static void come_back(struct sim *sim)
{
    do {
        node_abandon(sim);
        sim_disk_restart(sim->disk, sim->disk->kind);
        sim->faulted = false;
        pass_time(sim, 10 + sim_roll(sim, 2000));
        /* One start in three does not survive itself. */
        sim->disk->kind = sim_roll(sim, 2) ? SIM_POWER : SIM_KILL;
        gate.die_at = sim_roll(sim, 3) == 0 ? sim->disk->calls + 1 + sim_roll(sim, 40) : 0;
        start(sim);
        if (gate.die_at && sim_roll(sim, 2))
            gate.die_at = 0; /* else it dies while it is being checked, or later */
        check_all(sim);
    } while (sim->disk->dead);
}

/* Die now, between two calls. */
static void die(struct sim *sim)
{
    sim->disk->dead = true;
    sim->disk->kind = sim_roll(sim, 2) ? SIM_POWER : SIM_KILL;
    come_back(sim);
}

static void stop_and_start(struct sim *sim)
{
    node_stop(sim);
    if (sim->disk->dead)
        return;
    sim_disk_restart(sim->disk, SIM_KILL);
    sim->faulted = false;
    pass_time(sim, sim_roll(sim, 5000));
    start(sim);
}

static void rebuild(struct sim *sim)
{
    struct journal_stats before, after;
    struct db_state state;

    if (log_end(journal_log(sim->journal)) == 0)
        return; /* of nothing: it says so and refuses */

    while (journal_commit_step(sim->journal))
        ; /* a stop would do that */
    check_journal(sim);
    journal_stats(sim->journal, &before);
    bool whole = before.pending == 0 && !before.read_only;

    /* Of a node that stopped, or of one that died: its WAL is full then. */
    if (sim_roll(sim, 2)) {
        node_stop(sim);
    } else {
        sim->disk->dead = true;
        node_abandon(sim);
        sim_disk_restart(sim->disk, SIM_KILL);
    }
    if (sim->disk->dead)
        return;
    sim_disk_restart(sim->disk, SIM_KILL);
    int rc = rebuild_database(sim);
    if (sim->disk->dead)
        return;
    sim->faulted &= rc != 0;
    start(sim);
    journal_stats(sim->journal, &after);
    if (!rc && whole && sim->lost_count == 0) {
        if (after.digest.low != before.digest.low || after.digest.high != before.digest.high)
            sim_fail(sim, "the rebuilt digest is another one");
        if (after.events != before.events || after.objects != before.objects)
            sim_fail(sim, "rebuilt: %" PRIu64 " events and %" PRIu64 " objects of %" PRIu64
                     " and %" PRIu64, after.events, after.objects, before.events, before.objects);
    }
    if (db_reader_state(sim->reader, &state) == 0)
        atomic_fetch_add(&counts->rebuilds, 1);
    check_all(sim);
    check_space(sim);
}

/* ---- Steps ---- */

static void step_put(struct sim *sim)
{
    struct wish wish = {.kind = CHANGE_PUT,
                        .id = (unsigned)sim_roll(sim, SIM_IDS),
                        .variant = sim_roll(sim, 8) == 0,
                        .level = (unsigned)sim_roll(sim, 4) % 3,
                        .name = (unsigned)sim_roll(sim, 8)};

    /* Most ids at hand are taken after a while: look for one that is not. */
    for (int i = 0; i < 6 && sim->facts[wish.id].kind != FACT_NONE; i++)
        wish.id = (unsigned)sim_roll(sim, SIM_IDS);
    if (memcmp(model_sha256(wish.id, 0), model_sha256(wish.id, 1), SHA256_BYTES) == 0)
        wish.variant = 0;
    if (journal_room(sim->journal, model_size(wish.id, wish.variant)) == 0)
        node_submit(sim, &wish);
}

static void step_meta(struct sim *sim)
{
    struct wish wish = {.kind = CHANGE_META,
                        .id = (unsigned)sim_roll(sim, SIM_IDS),
                        .level = (unsigned)sim_roll(sim, 3),
                        .name = (unsigned)sim_roll(sim, 8),
                        .has_level = sim_roll(sim, 2)};

    wish.has_name = !wish.has_level || sim_roll(sim, 2);
    node_submit(sim, &wish);
}

static void step_delete(struct sim *sim)
{
    struct wish wish = {.kind = CHANGE_DELETE, .id = (unsigned)sim_roll(sim, SIM_IDS)};

    for (int i = 0; i < 3 && sim->facts[wish.id].kind != FACT_LIVE; i++)
        wish.id = (unsigned)sim_roll(sim, SIM_IDS);
    node_submit(sim, &wish);
}

/* As a GET fills the RAM tier: token, look-up, read, fill. */
static void step_fill(struct sim *sim)
{
    unsigned id = (unsigned)sim_roll(sim, SIM_IDS);
    struct id128 key = model_id(id);
    uint64_t token = ram_token(sim->ram, &key);
    struct object *object;
    struct fact fact;

    if (journal_find(sim->journal, sim->reader, &key, &object) != 0)
        return;
    if (sim_roll(sim, 4) == 0)
        (void)journal_commit_step(sim->journal); /* a change in between voids the fill */
    if (!(object->flags & OBJECT_DELETED) && model_observe(id, object, &fact) &&
        object->size < 8192 && node_read(sim, id, object) == 0) {
        static uint8_t body[SIM_BODY_BYTES];

        model_body(id, fact.variant, body);
        ram_fill(sim->ram, token, &key, model_name(fact.name), 2, body, object->size, 0, 0,
                 "\"etag\"");
    }
    object_destroy(&object);
}

static void step_upkeep(struct sim *sim)
{
    for (uint64_t i = sim_roll(sim, 6); i < 6 && !sim->disk->dead; i++)
        (void)journal_upkeep_step(sim->journal);
}

/* One call in the near future fails. */
static void step_fault(struct sim *sim)
{
    if (sim->seed % 2 == 0 || gate.fail_at || gate.die_at)
        return;
    gate.fail_at = sim->disk->calls + 1 + sim_roll(sim, 12);
    gate.fail_short = sim_roll(sim, 3) == 0;
    gate.fail_rc = sim_roll(sim, 2) ? ERR_IO : ERR_NO_SPACE;
}

static void step_death(struct sim *sim)
{
    uint64_t how = sim_roll(sim, 4);

    if (how == 0) {
        die(sim);
    } else if (how == 1) {
        stop_and_start(sim);
    } else if (how == 2 && sim_roll(sim, 2)) {
        rebuild(sim);
    } else {
        gate.die_at = sim->disk->calls + 1 + sim_roll(sim, 30);
        sim->disk->kind = sim_roll(sim, 2) ? SIM_POWER : SIM_KILL;
    }
}

static void step_clock(struct sim *sim)
{
    pass_time(sim, sim_roll(sim, 8) == 0 ? 4000 : sim_roll(sim, 300));
    if (sim_roll(sim, 10) == 0)
        sim->wall_ns += (sim_roll(sim, 2) ? 1 : -1) * (int64_t)(sim_roll(sim, 100000) * 1000000);
}

static void step_check(struct sim *sim)
{
    check_visible(sim, sim_roll(sim, 3) == 0);
    check_ram(sim);
}

/* Restart a node that takes no more writes, as an operator would. */
static void help_read_only(struct sim *sim)
{
    if (atomic_load(&sim->journal->read_only) && sim_roll(sim, 4) == 0)
        die(sim);
}

static const struct step {
    unsigned weight;
    void (*take)(struct sim *sim);
} steps[] = {
    {30, step_put}, {8, step_meta}, {22, step_delete}, {20, step_upkeep}, {6, step_fill},
    {6, step_clock}, {4, step_check}, {2, step_fault}, {2, step_death}, {4, help_read_only},
};

enum { COMMIT_WEIGHT = 30, APPLY_WEIGHT = 14, CHECKPOINT_WEIGHT = 6, MARK_WEIGHT = 4 };

static void take_step(struct sim *sim)
{
    uint64_t total = COMMIT_WEIGHT + APPLY_WEIGHT + CHECKPOINT_WEIGHT + MARK_WEIGHT, dice;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        total += steps[i].weight;
    dice = sim_roll(sim, total);
    pass_time(sim, 1 + sim_roll(sim, 10));
    if (sim->retry_id >= 0)
        node_retry(sim);
    if (dice < COMMIT_WEIGHT || sim->open_requests >= SIM_OPEN_REQUESTS / 2) {
        (void)journal_commit_step(sim->journal);
        return;
    }
    dice -= COMMIT_WEIGHT;
    if (dice < APPLY_WEIGHT) {
        (void)journal_apply_step(sim->journal);
        return;
    }
    dice -= APPLY_WEIGHT;
    if (dice < CHECKPOINT_WEIGHT) {
        (void)applier_checkpoint(sim->journal);
        return;
    }
    dice -= CHECKPOINT_WEIGHT;
    if (dice < MARK_WEIGHT) {
        committer_mark(sim->journal);
        return;
    }
    dice -= MARK_WEIGHT;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        if (dice < steps[i].weight) {
            steps[i].take(sim);
            return;
        }
        dice -= steps[i].weight;
    }
    abort();
}

/* ---- Runs ---- */

/* After a crash point: is the node as good as any other? */
static void live_on(struct sim *sim)
{
    check_space(sim);
    for (unsigned i = 0; i < 12 && !sim->disk->dead; i++)
        take_step(sim);
    if (sim->disk->dead)
        come_back(sim);
    if (sim_roll(sim, 2))
        die(sim);
    else
        rebuild(sim);
    if (sim->disk->dead)
        come_back(sim);
}

static void end_child(struct sim *sim)
{
    if (options.at)
        say("seed %" PRIu64 ", call %" PRIu64 ": survived\n", sim->seed, sim->point);
    _exit(0);
}

/* Come back where a step has ended in a death; a child ends here. */
static void survive(struct sim *sim)
{
    if (sim->disk->dead)
        come_back(sim);
    else if (sim->child) /* it died in a start that was part of the step */
        check_all(sim);
    if (!sim->child)
        return;
    if (mix(sim->seed, sim->point, 6) % 6 == 0)
        live_on(sim);
    end_child(sim);
}

static void run_seed(struct sim *sim)
{
    bool points = !options.no_points;

    /* The first start is the same for all seeds but for its dice: a few of them die in it. */
    gate.armed = points && sim->seed % 10 == 0;
    start(sim);
    gate.armed = points;
    if (sim->child)
        survive(sim);
    check_outcome(sim);
    for (unsigned i = 0; i < options.steps; i++) {
        take_step(sim);
        survive(sim);
    }
    gate.die_at = gate.fail_at = 0;
    rebuild(sim);
    survive(sim);
    check_all(sim);
    survive(sim);
    gate.armed = false;
    collect(true);
    node_stop(sim);
}

static int run_one(uint64_t seed)
{
    struct sim *sim = calloc(1, sizeof *sim);

    if (!sim)
        abort();
    sim->seed = seed;
    sim->counts = counts;
    sim->wall_ns = UINT64_C(1700000000) * 1000000000;
    sim->mono_ns = 1000000000;
    sim->random = mix(seed, 1, 10);
    sim->plan = mix(seed, 2, 10);
    sim->retry_id = -1;
    sim->disk = sim_disk_create(mix(seed, 3, 10), 1 * GIB);
    sim->disk->gate = at_call;
    sim->disk->arg = sim;
    sim->env = (struct env){.io = &sim->disk->io,
                            .wall_ns = wall_ns,
                            .mono_ns = mono_ns,
                            .random = random_bytes,
                            .arg = sim};
    memset(&gate, 0, sizeof gate);
    gate.sim = sim;
    run_seed(sim);
    atomic_fetch_add(&counts->calls, sim->disk->calls);
    atomic_fetch_add(&counts->runs, 1);
    atomic_store(&counts->trace, mix(sim->disk->trace, sim_disk_hash(sim->disk), sim->plan));
    if (options.verbose)
        say("seed %" PRIu64 ": %" PRIu64 " calls, trace %016" PRIx64 "\n", seed, sim->disk->calls,
            (uint64_t)atomic_load(&counts->trace));
    sim_disk_destroy(&sim->disk);
    free(sim);
    return gate.failed;
}

/* Each run in a process of its own, so that whatever happens in it is told with its seed. */
static bool run_process(uint64_t seed)
{
    pid_t pid = fork();
    int status;

    if (pid < 0)
        abort();
    if (pid == 0)
        exit(run_one(seed) ? 2 : 0);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFSIGNALED(status)) {
        say("FAILED: seed %" PRIu64 ": ended by signal %d (%s)\n", seed, WTERMSIG(status),
            strsignal(WTERMSIG(status)));
        say_replay(seed, 0);
    }
    if (status && !(WIFEXITED(status) && WEXITSTATUS(status) == 2))
        atomic_fetch_add(&counts->failures, 1); /* 2: its points were counted one by one */
    return status == 0;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void report(double took)
{
#define COUNT(name) (uint64_t) atomic_load(&counts->name)
    say("sim: %" PRIu64 " runs, %" PRIu64 " crash points (%" PRIu64 " killed, %" PRIu64
        " without power), %" PRIu64 " more deaths while starting\n",
        COUNT(runs), COUNT(points), COUNT(kills), COUNT(powers), COUNT(nested));
    say("sim: %" PRIu64 " calls in the runs, %" PRIu64 " starts, %" PRIu64 " rebuilds, %" PRIu64
        " full checks, %" PRIu64 " failed calls, %" PRIu64 " records moved, %" PRIu64
        " segments cleaned\n",
        COUNT(calls), COUNT(restarts), COUNT(rebuilds), COUNT(checks), COUNT(faults),
        COUNT(moved), COUNT(cleaned));
    say("sim: %.1f s of simulated time in %.1f s; %" PRIu64 " failures\n",
        (double)COUNT(sim_ms) / 1000, took, COUNT(failures));
#undef COUNT
}

static bool number(const char *arg, const char *name, uint64_t *out)
{
    size_t len = strlen(name);

    if (strncmp(arg, name, len) != 0 || arg[len] != '=')
        return false;
    *out = strtoull(arg + len + 1, NULL, 0);
    return true;
}

static bool parse(const char *arg)
{
    uint64_t value;

    if (number(arg, "--seeds", &options.first)) {
        const char *dots = strstr(arg, "..");

        options.last = dots ? strtoull(dots + 2, NULL, 0) : options.first;
        return true;
    }
    if (number(arg, "--seed", &options.first)) {
        options.last = options.first;
        return true;
    }
    if (number(arg, "--at", &options.at) || number(arg, "--until", &options.until) ||
        number(arg, "--least", &options.least))
        return true;
    if (number(arg, "--steps", &value))
        options.steps = (unsigned)value;
    else if (number(arg, "--jobs", &value) && value >= 1 && value <= LIMIT_JOBS)
        options.jobs = (unsigned)value;
    else if (number(arg, "--stride", &value) && value >= 1)
        options.stride = (unsigned)value;
    else if (number(arg, "--seconds", &value))
        options.seconds = (unsigned)value;
    else if (strcmp(arg, "--verbose") == 0)
        options.verbose = true;
    else if (strcmp(arg, "--no-points") == 0)
        options.no_points = true;
    else if (strcmp(arg, "--twice") == 0)
        options.twice = true;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    double began = seconds();

    program = argv[0];
    for (int i = 1; i < argc; i++)
        if (!parse(argv[i])) {
            fprintf(stderr,
                    "usage: %s [--seeds=A..B | --seed=N [--at=CALL]] [--steps=N] [--jobs=N]\n"
                    "       [--stride=N] [--until=POINTS] [--least=POINTS] [--seconds=N] [--twice]\n"
                    "       [--no-points] [--verbose]\n",
                    program);
            return 64;
        }
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        return 1;
    if (!options.verbose) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        report_fd = fcntl(2, F_DUPFD_CLOEXEC, 3);
        if (null < 0 || report_fd < 0 || dup2(null, 2) < 0)
            return 1;
        close(null);
        log_configure(LOG_ERROR, LOG_TEXT);
    }
    if (options.at)
        return run_one(options.first);
    for (uint64_t seed = options.first; seed <= options.last; seed++) {
        if ((options.until && atomic_load(&counts->points) >= options.until) ||
            (options.seconds && seconds() - began > options.seconds))
            break;
        if (!run_process(seed))
            continue;
        uint64_t trace = atomic_load(&counts->trace);
        if (options.twice && run_process(seed) && atomic_load(&counts->trace) != trace) {
            say("FAILED: seed %" PRIu64 ": two runs, two traces\n", seed);
            atomic_fetch_add(&counts->failures, 1);
        }
    }
    report(seconds() - began);
    if (atomic_load(&counts->points) < options.least) {
        say("FAILED: fewer than %" PRIu64 " crash points\n", options.least);
        return 1;
    }
    return atomic_load(&counts->failures) != 0;
}
