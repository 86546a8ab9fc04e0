/*
 * The simulator of a cluster: production code of five nodes over simulated disks, clocks and a
 * simulated network, driven by one seed.
 *
 *   cluster_sim --seeds=A..B --hours=H    runs of H simulated hours each
 *   cluster_sim --seed=N --verbose        one of them, told step by step: how a failure is replayed
 *   --day                                 the cloud is away from the beginning to the last check
 *
 * In each eighth run nothing goes wrong; what is counted there is exact.
 *
 * The same seed gives the same trace (a hash over every step, every frame that arrived and every
 * answer), which --twice checks. node.c has a node's steps, network.c frames, workers.c pools,
 * cloud.c the cloud, clients.c the load, trouble.c what goes wrong, keys.c what clients know,
 * check.c what must hold.
 */
#include "tests/cluster_sim/world.h"

#include "base/hash.h"
#include "base/log.h"

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

#define LIMIT_JOBS  64
#define CHECK_EVERY (90 * MINUTE)

struct world world;
struct world_options options = {.first = 1, .last = 20, .hours_tenths = 50, .jobs = 1};

static struct world_counts *counts;
static const char *program;
static int report_fd = 2;

/* ---- Dice and reports ---- */

uint64_t dice(uint64_t below)
{
    return sim_dice(&world.dice) % below;
}

bool chance(unsigned of_1000)
{
    return of_1000 && dice(1000) < of_1000;
}

uint64_t around(uint64_t mean_ns)
{
    /* The product of two is mostly small and sometimes large. */
    return mean_ns / 1000 * (dice(2000) + 1) / 1000 * (dice(2000) + 1);
}

void note(uint64_t what, uint64_t a, uint64_t b)
{
    uint64_t words[5] = {world.trace, world.now, what, a, b};

    world.trace = xxh64(words, sizeof words, 0);
}

void say(const char *format, ...)
{
    char line[2048];
    va_list args;

    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (write(report_fd, line, len < (int)sizeof line ? (size_t)len : sizeof line - 1) < 0)
        return;
}

static const char *clock_text(char out[32])
{
    uint64_t ms = world.now / MS;

    snprintf(out, 32, "%" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64, ms / 3600000,
             ms / 60000 % 60, ms / 1000 % 60, ms % 1000);
    return out;
}

void tell(const char *format, ...)
{
    char text[512], at[32];
    va_list args;

    if (!options.verbose)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say("%s %s\n", clock_text(at), text);
}

static void say_replay(uint64_t seed)
{
    say("  replay: %s --seed=%" PRIu64 " --hours=%u.%u%s --verbose\n", program, seed,
        options.hours_tenths / 10, options.hours_tenths % 10, options.day ? " --day" : "");
}

void fail(const char *format, ...)
{
    char text[1024], at[32];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    say("FAILED: seed %" PRIu64 " at %s in %s: %s\n", world.seed, clock_text(at), world.doing,
        text);
    say_replay(world.seed);
    _exit(2);
}

/* tests/sim's checks fail here. */
void sim_fail(struct sim *sim, const char *format, ...)
{
    const struct node *node = sim->env.arg;
    char text[800];
    va_list args;

    if (sim->disk->dead)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fail("node %u: %s", node->index, text);
}

/* ---- Time ---- */

static struct node *next_node(uint64_t *at)
{
    struct node *found = NULL;

    *at = NEVER;
    for (unsigned i = 0; i < NODES; i++) {
        uint64_t next = node_next(&world.nodes[i]);

        if (next < *at) {
            *at = next;
            found = &world.nodes[i];
        }
    }
    return found;
}

static void take(struct node *node)
{
    enum step step = STEP_TURN;

    if (!node->up) {
        node_start(node);
        return;
    }
    for (unsigned i = 1; i < STEPS; i++)
        if (node->due[i] < node->due[step])
            step = (enum step)i;
    note(20 + step, node->index, 0);
    node_take(node, step);
}

void pass(uint64_t until, bool (*stop)(void))
{
    for (;;) {
        uint64_t at, frames = network_next(), clients = clients_next();
        uint64_t trouble = world.quiet || world.calm ? NEVER : world.trouble_at;
        uint64_t deed = cloud_next();
        struct node *node = next_node(&at);
        uint64_t next = frames < at ? frames : at;

        next = clients < next ? clients : next;
        next = trouble < next ? trouble : next;
        next = deed < next ? deed : next;
        if (next >= until) {
            world.now = until;
            return;
        }
        if (next > world.now)
            world.now = next;
        if (stop && stop())
            return;
        if (next == frames)
            network_deliver();
        else if (next == at)
            take(node);
        else if (next == deed)
            cloud_step();
        else if (next == clients)
            clients_step();
        else
            trouble_step();
    }
}

/* ---- One run ---- */

/* Nothing goes wrong but that the cloud may be away. */
static bool is_calm(uint64_t seed)
{
    return seed % 8 == 2;
}

static bool has_ancestor(uint64_t seed)
{
    return seed % 12 == 11; /* its nodes are wiped at the end, and look for all of it again */
}

static int run_one(uint64_t seed)
{
    static struct sim_counts sim_counts;

    world.seed = seed;
    world.counts = counts;
    world.dice = xxh64(&seed, sizeof seed, 1) | 1;
    world.client_dice = xxh64(&seed, sizeof seed, 2) | 1;
    world.until = options.hours_tenths * (HOUR / 10);
    world.calm = is_calm(seed);
    world.ancestor = has_ancestor(seed);
    world.day = options.day;
    cloud_begin();
    world.doing = "the first start";
    /* SQLite draws the salts of its WAL from a generator of its own. */
    sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)(seed | 1), NULL);
    network_calm();
    for (unsigned i = 0; i < NODES; i++) {
        world.nodes[i].index = i;
        world.nodes[i].sim.counts = &sim_counts;
        node_init(&world.nodes[i]);
        world.nodes[i].start_at = dice(5 * SECOND);
    }
    world.next_request_at = 10 * SECOND;
    world.burst_until = 30 * SECOND;
    world.trouble_at = MINUTE;
    world.doing = "the run";
    while (world.now < world.until) {
        uint64_t next = world.now + CHECK_EVERY / 2 + dice(CHECK_EVERY);

        pass(next < world.until ? next : world.until, NULL);
        check_cluster();
    }
    if (seed % 4 == 3)
        wiped_check();
    for (unsigned i = 0; i < NODES; i++) {
        struct journal_stats stats;

        journal_stats(world.nodes[i].sim.journal, &stats);
        atomic_fetch_add(&counts->events, stats.events);
        node_halt(&world.nodes[i]);
        node_release(&world.nodes[i]);
    }
    network_release();
    cloud_release();
    free(world.keys);
    atomic_fetch_add(&counts->sim_s, world.now / SECOND);
    atomic_fetch_add(&counts->runs, 1);
    atomic_store(&counts->trace, world.trace);
    if (options.verbose || options.only_trace)
        say("seed %" PRIu64 ": trace %016" PRIx64 "\n", seed, world.trace);
    return 0;
}

/* ---- Campaigns ---- */

static struct {
    pid_t pid;
    uint64_t seed;
} children[LIMIT_JOBS];
static unsigned child_count, passed, failed;

static void reap(void)
{
    int status;
    pid_t pid = wait(&status);
    unsigned i = 0;

    if (pid < 0)
        abort();
    while (i < child_count && children[i].pid != pid)
        i++;
    if (i == child_count)
        abort();
    uint64_t seed = children[i].seed;
    children[i] = children[--child_count];
    if (status == 0) {
        passed++;
        return;
    }
    if (WIFSIGNALED(status)) {
        say("FAILED: seed %" PRIu64 ": ended by signal %d (%s)\n", seed, WTERMSIG(status),
            strsignal(WTERMSIG(status)));
        say_replay(seed);
    }
    if (failed++ == 0 && options.first_only)
        say("cluster-sim: seed %" PRIu64 " found it\n", seed);
}

static void start(uint64_t seed)
{
    pid_t pid = fork();

    if (pid < 0)
        abort();
    if (pid == 0)
        exit(run_one(seed));
    children[child_count].pid = pid;
    children[child_count++].seed = seed;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The same seed again, to the same trace. */
static void compare(uint64_t seed)
{
    start(seed);
    reap();
    uint64_t trace = atomic_load(&counts->trace);
    start(seed);
    reap();
    if (atomic_load(&counts->trace) == trace)
        return;
    say("FAILED: seed %" PRIu64 ": two runs, two traces\n", seed);
    failed++;
}

static void campaign(void)
{
    double began = seconds();

    if (options.twice)
        compare(options.first);
    for (uint64_t seed = options.first; seed <= options.last; seed++) {
        if ((options.seconds && seconds() - began > options.seconds) ||
            (failed && options.first_only))
            break;
        if (child_count == options.jobs)
            reap();
        start(seed);
    }
    while (child_count)
        reap();
}

static void report(double took)
{
#define COUNT(name) (uint64_t) atomic_load(&counts->name)
    say("cluster-sim: %" PRIu64 " runs, %.1f simulated hours of %d nodes in %.1f s\n", COUNT(runs),
        (double)COUNT(sim_s) / 3600, NODES, took);
    say("cluster-sim: %" PRIu64 " puts, %" PRIu64 " deletes, %" PRIu64 " metas (%" PRIu64
        " refused), %" PRIu64 " reads, %" PRIu64 " from peers (%" PRIu64 " in vain), %" PRIu64
        " events\n",
        COUNT(puts), COUNT(deletes), COUNT(metas), COUNT(refused), COUNT(reads), COUNT(peer_reads),
        COUNT(peer_read_failures), COUNT(events));
    say("cluster-sim: %" PRIu64 " frames, %" PRIu64 " lost, %" PRIu64 " doubled; %" PRIu64
        " turns\n",
        COUNT(frames), COUNT(lost), COUNT(doubled), COUNT(turns));
    say("cluster-sim: %" PRIu64 " killed, %" PRIu64 " without power, %" PRIu64 " stopped, %" PRIu64
        " stalled, %" PRIu64 " disks lost, %" PRIu64 " backups restored, %" PRIu64
        " partitions, %" PRIu64 " clocks moved, %" PRIu64 " calls failed\n",
        COUNT(kills), COUNT(powers), COUNT(stops), COUNT(stalls), COUNT(wipes), COUNT(restores),
        COUNT(cuts), COUNT(jumps), COUNT(faults));
    say("cluster-sim: %" PRIu64 " checks of %" PRIu64 " ids, %" PRIu64 " bodies, %" PRIu64
        " reads from peers, %" PRIu64 " conflict copies; %u passed, %u failed\n",
        COUNT(checks), COUNT(key_checks), COUNT(body_checks), COUNT(must_reads), COUNT(conflicts),
        passed, failed);
    say("cluster-sim: the cloud was asked %" PRIu64 " times, got %" PRIu64 " bodies and marks, "
        "gave %" PRIu64 ", removed %" PRIu64 ", was away %" PRIu64 " times; %" PRIu64
        " of its objects, %" PRIu64 " promised and %" PRIu64 " marks checked, %" PRIu64
        " that nobody can know of; %" PRIu64 " purges, %" PRIu64 " levels raised\n",
        COUNT(cloud_asked), COUNT(cloud_puts), COUNT(cloud_gets), COUNT(cloud_deletes),
        COUNT(cloud_outages), COUNT(cloud_checks), COUNT(cloud_promised), COUNT(cloud_marks),
        COUNT(cloud_orphans), COUNT(purges), COUNT(raises));
    say("cluster-sim: %" PRIu64 " clients at once had the cloud asked %" PRIu64
        " times, and %" PRIu64 " of what a member had never; of %" PRIu64
        " objects from before %" PRIu64 " times one was adopted, %" PRIu64
        " found again by a wiped cluster, %" PRIu64
        " not for the mark of a delete that only a lost disk knew\n",
        COUNT(shared_reads), COUNT(shared_gets), COUNT(near_reads), COUNT(planted), COUNT(adopted),
        COUNT(refound), COUNT(outlived));
#undef COUNT
}

/* A day without the cloud is one with all of this. */
static void judge_day(void)
{
    const struct {
        const char *what;
        uint64_t count;
    } parts[] = {
        {"put", atomic_load(&counts->puts)},
        {"delete", atomic_load(&counts->deletes)},
        {"purge", atomic_load(&counts->purges)},
        {"raised level", atomic_load(&counts->raises)},
        {"killed process", atomic_load(&counts->kills)},
        {"loss of power", atomic_load(&counts->powers)},
        {"lost disk", atomic_load(&counts->wipes)},
        {"upload", atomic_load(&counts->cloud_puts)},
        {"promise", atomic_load(&counts->cloud_promised)},
        {"mark", atomic_load(&counts->cloud_marks)},
    };

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!parts[i].count) {
            say("FAILED: a day without a %s\n", parts[i].what);
            failed++;
        }
}

static void write_results(void)
{
    FILE *file = options.results ? fopen(options.results, "w") : NULL;

    if (!file)
        return;
    fprintf(file, "%u %u 0\n", passed, failed);
    fclose(file);
}

static const char *value_of(const char *arg, const char *name)
{
    size_t len = strlen(name);

    return strncmp(arg, name, len) == 0 && arg[len] == '=' ? arg + len + 1 : NULL;
}

static bool parse(const char *arg)
{
    const char *value;

    if ((value = value_of(arg, "--seeds"))) {
        const char *dots = strstr(value, "..");

        options.first = strtoull(value, NULL, 0);
        options.last = dots ? strtoull(dots + 2, NULL, 0) : options.first;
    } else if ((value = value_of(arg, "--seed"))) {
        options.first = options.last = strtoull(value, NULL, 0);
    } else if ((value = value_of(arg, "--hours"))) {
        options.hours_tenths = (unsigned)(strtod(value, NULL) * 10 + 0.5);
    } else if ((value = value_of(arg, "--least"))) {
        options.hours = strtod(value, NULL);
    } else if ((value = value_of(arg, "--jobs"))) {
        options.jobs = (unsigned)strtoul(value, NULL, 0);
    } else if ((value = value_of(arg, "--seconds"))) {
        options.seconds = (unsigned)strtoul(value, NULL, 0);
    } else if ((value = value_of(arg, "--results"))) {
        options.results = value;
    } else if (strcmp(arg, "--verbose") == 0) {
        options.verbose = true;
    } else if (strcmp(arg, "--day") == 0) {
        options.day = true;
    } else if (strcmp(arg, "--twice") == 0) {
        options.twice = true;
    } else if (strcmp(arg, "--first") == 0) {
        options.first_only = true;
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    double began = seconds();

    program = argv[0];
    for (int i = 1; i < argc; i++)
        if (!parse(argv[i])) {
            fprintf(stderr,
                    "usage: %s [--seeds=A..B | --seed=N] [--hours=H] [--least=HOURS] [--jobs=N]\n"
                    "    [--seconds=N] [--day] [--twice] [--first] [--verbose] [--results=FILE]\n",
                    argv[0]);
            return 64;
        }
    if (options.jobs < 1 || options.jobs > LIMIT_JOBS)
        options.jobs = 1;
    counts = mmap(NULL, sizeof *counts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        abort();
    if (!options.verbose) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);

        report_fd = fcntl(2, F_DUPFD_CLOEXEC, 3);
        if (null < 0 || report_fd < 0 || dup2(null, 2) < 0)
            abort();
        log_configure(LOG_ERROR, LOG_TEXT);
    }
    campaign();
    report(seconds() - began);
    if ((double)atomic_load(&counts->sim_s) / 3600 < options.hours && !failed) {
        say("FAILED: too few hours\n");
        failed++;
    }
    if (options.day && !(options.first == options.last && is_calm(options.first)))
        judge_day();
    write_results();
    return failed ? 1 : 0;
}
