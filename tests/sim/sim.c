/*
 * The simulator of one node: production code over a simulated disk and clock, driven by one seed.
 *
 *   sim --seeds=A..B           runs of many seeds; for each, at every call that changes the disk a
 *                              child that dies there (its process or its power), restarts, and is
 *                              checked; at some of them another one in which the call fails; at
 *                              the end some that find a bit flipped
 *   sim --seed=N --at=K        a replay: seed N dies at call K, in this process
 *   sim --seed=N --fail-at=K   call K fails;   --flip=I: the I-th flipped bit after the run
 *
 * The same seed gives the same trace (a hash over all calls to the disk, their arguments and what
 * they answered), which --twice checks. sim_steps.c has the steps of a run, sim_gate.c what happens
 * to a call, sim_disk.c the disk, sim_model.c what clients were told, sim_check.c what must hold,
 * sim_node.c the node and its clients, sim_flip.c the flipped bits.
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
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIMIT_JOBS 64

struct sim_options sim_options = {
    .first = 1, .last = 20, .steps = 160, .jobs = 1, .stride = 1, .faults = 5, .flips = 20};
static struct sim_counts *counts;

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

static int run_one(uint64_t seed)
{
    struct sim *sim = calloc(1, sizeof *sim);

    if (!sim)
        abort();
    sim->seed = seed;
    sim->counts = counts;
    sim->wall_ns = UINT64_C(1700000000) * 1000000000;
    sim->mono_ns = 1000000000;
    sim->random = sim_mix(seed, 1, 10);
    sim->plan = sim_mix(seed, 2, 10);
    sim->retry_id = -1;
    sim->disk = sim_disk_create(sim_mix(seed, 3, 10), 1 * GIB);
    sim->env = (struct env){.io = &sim->disk->io,
                            .wall_ns = wall_ns,
                            .mono_ns = mono_ns,
                            .random = random_bytes,
                            .arg = sim};
    /* SQLite draws the salts of its WAL from a generator of its own. */
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed | 1), NULL);
    gate_init(sim);
    sim_run(sim);
    bool passed = gate_finish();
    atomic_fetch_add(&counts->calls, sim->disk->calls);
    atomic_fetch_add(&counts->runs, 1);
    atomic_store(&counts->trace, sim_mix(sim->disk->trace, sim_disk_hash(sim->disk), sim->plan));
    if (sim_options.verbose)
        sim_say("seed %" PRIu64 ": %" PRIu64 " calls, trace %016" PRIx64 "\n", seed,
                sim->disk->calls, (uint64_t)atomic_load(&counts->trace));
    sim_disk_destroy(&sim->disk);
    free(sim);
    return !passed;
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
        sim_say("FAILED: seed %" PRIu64 ": ended by signal %d (%s)\n", seed, WTERMSIG(status),
                strsignal(WTERMSIG(status)));
        sim_say_replay(seed, POINT_NONE, 0);
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
    sim_say("sim: %" PRIu64 " runs, %" PRIu64 " crash points (%" PRIu64 " killed, %" PRIu64
            " without power), %" PRIu64 " more deaths while starting\n",
            COUNT(runs), COUNT(points), COUNT(kills), COUNT(powers), COUNT(nested));
    sim_say("sim: %" PRIu64 " failing calls tried one by one, %" PRIu64
            " more in the runs; %" PRIu64 " flipped bits, %" PRIu64 " found, the others in bytes "
            "that nobody needs\n",
            COUNT(fault_points), COUNT(faults), COUNT(flips), COUNT(flips_found));
    sim_say("sim: %" PRIu64 " calls in the runs, %" PRIu64 " answers, %" PRIu64 " starts, %" PRIu64
            " rebuilds, %" PRIu64 " full checks, %" PRIu64 " slow reads, %" PRIu64
            " records moved, %" PRIu64 " segments cleaned\n",
            COUNT(calls), COUNT(answers), COUNT(restarts), COUNT(rebuilds), COUNT(checks),
            COUNT(slow_reads), COUNT(moved), COUNT(cleaned));
    sim_say("sim: %" PRIu64 " snapshots, %" PRIu64 " events compacted, %" PRIu64
            " bodies that lost put again\n",
            COUNT(snapshots), COUNT(compacted), COUNT(reputs));
    sim_say("sim: %.1f s of simulated time in %.1f s; %" PRIu64 " failures\n",
            (double)COUNT(sim_ms) / 1000, took, COUNT(failures));
#undef COUNT
}

static void write_results(unsigned passed, unsigned failed)
{
    FILE *file = sim_options.results ? fopen(sim_options.results, "w") : NULL;

    if (!file)
        return;
    fprintf(file, "%u %u 0\n", passed, failed);
    fclose(file);
}

/* The same seed gives the same trace, also where no children are made. */
static bool same_trace(uint64_t seed)
{
    uint64_t trace = atomic_load(&counts->trace);
    bool no_points = sim_options.no_points;

    sim_options.no_points = true;
    bool passed = run_process(seed);
    sim_options.no_points = no_points;
    if (passed && atomic_load(&counts->trace) == trace)
        return true;
    sim_say("FAILED: seed %" PRIu64 ": two runs, two traces\n", seed);
    atomic_fetch_add(&counts->failures, 1);
    return false;
}

/* All seeds in turn: how many failed. */
static unsigned campaign(double began, unsigned *passed)
{
    unsigned failed = 0;

    *passed = 0;
    for (uint64_t seed = sim_options.first; seed <= sim_options.last; seed++) {
        if ((sim_options.until && atomic_load(&counts->points) >= sim_options.until) ||
            (sim_options.seconds && seconds() - began > sim_options.seconds))
            break;
        if (run_process(seed) && (!sim_options.twice || same_trace(seed)))
            ++*passed;
        else
            failed++;
        if (failed && sim_options.first_only) {
            sim_say("sim: seed %" PRIu64 " found it, number %" PRIu64 "\n", seed,
                    seed - sim_options.first + 1);
            break;
        }
    }
    return failed;
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

    if (number(arg, "--seeds", &sim_options.first)) {
        const char *dots = strstr(arg, "..");

        sim_options.last = dots ? strtoull(dots + 2, NULL, 0) : sim_options.first;
        return true;
    }
    if (number(arg, "--seed", &sim_options.first)) {
        sim_options.last = sim_options.first;
        return true;
    }
    static const char *const points[] = {"--at", "--fail-at", "--flip"};

    for (int i = 0; i < 3; i++)
        if (number(arg, points[i], &sim_options.at)) {
            sim_options.replay = (enum sim_point)(POINT_DEATH + i);
            return true;
        }
    if (number(arg, "--until", &sim_options.until) || number(arg, "--least", &sim_options.least))
        return true;
    if (number(arg, "--steps", &value))
        sim_options.steps = (unsigned)value;
    else if (number(arg, "--jobs", &value) && value >= 1 && value <= LIMIT_JOBS)
        sim_options.jobs = (unsigned)value;
    else if (number(arg, "--stride", &value) && value >= 1)
        sim_options.stride = (unsigned)value;
    else if (number(arg, "--faults", &value))
        sim_options.faults = (unsigned)value;
    else if (number(arg, "--flips", &value))
        sim_options.flips = (unsigned)value;
    else if (number(arg, "--seconds", &value))
        sim_options.seconds = (unsigned)value;
    else if (strncmp(arg, "--results=", 10) == 0)
        sim_options.results = arg + 10;
    else if (strcmp(arg, "--first") == 0)
        sim_options.first_only = true;
    else if (strcmp(arg, "--verbose") == 0)
        sim_options.verbose = true;
    else if (strcmp(arg, "--no-points") == 0)
        sim_options.no_points = true;
    else if (strcmp(arg, "--twice") == 0)
        sim_options.twice = true;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    double began = seconds();

    sim_program = argv[0];
    for (int i = 1; i < argc; i++)
        if (!parse(argv[i])) {
            fprintf(
                stderr,
                "usage: %s [--seeds=A..B | --seed=N [--at=CALL | --fail-at=CALL | --flip=I]]\n"
                "       [--steps=N] [--jobs=N] [--stride=N] [--faults=N] [--flips=N] [--twice]\n"
                "       [--until=POINTS] [--least=POINTS] [--seconds=N] [--first] [--no-points]\n"
                "       [--results=FILE] [--verbose]\n",
                sim_program);
            return 64;
        }
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        return 1;
    if (!sim_options.verbose) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        sim_report_fd = fcntl(2, F_DUPFD_CLOEXEC, 3);
        if (null < 0 || sim_report_fd < 0 || dup2(null, 2) < 0)
            return 1;
        close(null);
        log_configure(LOG_ERROR, LOG_TEXT);
    }
    if (sim_options.replay)
        return run_one(sim_options.first);
    unsigned passed, failed = campaign(began, &passed);

    report(seconds() - began);
    if (atomic_load(&counts->points) < sim_options.least) {
        sim_say("FAILED: fewer than %" PRIu64 " crash points\n", sim_options.least);
        failed++;
    }
    write_results(passed, failed);
    return failed != 0;
}
