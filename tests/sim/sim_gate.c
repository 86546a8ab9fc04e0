/*
 * What happens to a call: it passes, fails, or is the last one of its process; and the children
 * that try each of these out.
 *
 * A child is the run itself, forked inside the call: it finds its disk dead and goes the way that
 * every death goes, or finds the call failed and goes on. So what a replay does, which makes no
 * fork, is the same.
 */
#include "base/hash.h"
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SECONDS 120
#define LIMIT_JOBS    64 /* as in sim.c */

enum fault {
    FAULT_NONE,
    FAULT_IO,
    FAULT_SPACE, /* of writes, new files and names */
    FAULT_SHORT, /* of writes */
    FAULT_INTR,  /* a signal comes in between */
    FAULT_READ,
    FAULTS
};

struct child {
    pid_t pid;
    enum sim_point kind;
    uint64_t point;
};

static struct {
    struct sim *sim;
    bool armed;       /* points are wanted now */
    uint64_t die_at;  /* a death that the run itself wants; 0: none */
    uint64_t fail_at; /* a call that is to fail */
    enum fault fault; /* in this way; FAULT_NONE: none */
    unsigned again;   /* so many more after it */
    struct child children[LIMIT_JOBS];
    unsigned child_count;
    bool failed;
} gate;

int sim_report_fd = 2;
const char *sim_program;

uint64_t sim_mix(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t words[3] = {a, b, c};

    return xxh64(words, sizeof words, 0x51) | 1;
}

uint64_t sim_roll(struct sim *sim, uint64_t below)
{
    return sim_dice(&sim->plan) % below;
}

/* ---- Reports ---- */

void sim_say(const char *format, ...)
{
    char line[2048];
    va_list args;

    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (len >= (int)sizeof line)
        len = sizeof line - 1;
    if (write(sim_report_fd, line, (size_t)len) < 0)
        return;
}

static const char *kind_text(enum sim_point kind)
{
    static const char *const texts[] = {"", " (crash point)", " (failing call)", " (flipped bit)"};

    return texts[kind];
}

void sim_say_replay(uint64_t seed, enum sim_point kind, uint64_t point)
{
    static const char *const names[] = {"", "--at", "--fail-at", "--flip"};
    char how[64] = "--no-points";

    if (kind)
        snprintf(how, sizeof how, "%s=%" PRIu64, names[kind], point);
    sim_say("  replay: %s --seed=%" PRIu64 " --steps=%u %s --verbose\n", sim_program, seed,
            sim_options.steps, how);
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
    sim_say("FAILED: seed %" PRIu64 ", call %" PRIu64 "%s: %s\n", sim->seed,
            sim->point_kind ? sim->point : sim->disk->calls, kind_text(sim->point_kind), text);
    sim_say_replay(sim->seed, sim->point_kind, sim->point);
    if (sim_options.verbose)
        abort();
    _exit(1);
}

/* ---- Children ---- */

static void tell(const struct child *child, int status)
{
    if (!WIFSIGNALED(status))
        return; /* it has said why */
    sim_say("FAILED: seed %" PRIu64 ", call %" PRIu64 "%s: ended by signal %d (%s)\n",
            gate.sim->seed, child->point, kind_text(child->kind), WTERMSIG(status),
            strsignal(WTERMSIG(status)));
    sim_say_replay(gate.sim->seed, child->kind, child->point);
}

/* Wait until there is room for one more, or for ALL. */
static void collect(bool all)
{
    while (gate.child_count > 0 && (all || gate.child_count >= sim_options.jobs)) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        unsigned i = 0;

        if (pid < 0)
            break;
        while (i < gate.child_count && gate.children[i].pid != pid)
            i++;
        if (i == gate.child_count)
            continue;
        struct child child = gate.children[i];

        gate.children[i] = gate.children[--gate.child_count];
        if (status == 0)
            continue;
        atomic_fetch_add(&gate.sim->counts->failures, 1);
        gate.failed = true;
        tell(&child, status);
        if (sim_options.first_only) {
            collect(true);
            _exit(2);
        }
    }
}

/* This process is the one of KIND at POINT: it has dice of its own from here on. */
static void become(struct sim *sim, enum sim_point kind, uint64_t point)
{
    uint64_t dice = sim_mix(sim->seed, point, (uint64_t)kind);

    sim->point_kind = kind;
    sim->point = point;
    gate.armed = false;
    gate.die_at = 0;
    gate.fault = FAULT_NONE;
    sim->disk->kind = dice >> 20 & 1 ? SIM_POWER : SIM_KILL;
    sim->disk->dice = sim_mix(dice, point, 2);
    sim->plan = sim_mix(dice, point, 3);
    sim->random = sim_mix(dice, point, 4);
}

bool gate_branch(struct sim *sim, enum sim_point kind, uint64_t point)
{
    if (sim_options.replay) {
        if (sim_options.replay != kind || sim_options.at != point)
            return false;
        become(sim, kind, point);
        return true;
    }
    collect(false);
    pid_t pid = fork();
    if (pid < 0)
        abort();
    if (pid == 0) {
        alarm(CHILD_SECONDS);
        gate.child_count = 0;
        become(sim, kind, point);
        return true;
    }
    gate.children[gate.child_count++] = (struct child){pid, kind, point};
    return false;
}

bool gate_finish(void)
{
    collect(true);
    return !gate.failed;
}

/* ---- Calls ---- */

static bool suits(enum fault fault, enum sim_op op)
{
    switch (fault) {
    case FAULT_IO:
        return op != SIM_READ;
    case FAULT_INTR:
        return op == SIM_WRITE || op == SIM_FDATASYNC || op == SIM_FSYNC || op == SIM_TRUNCATE;
    case FAULT_SPACE:
        return op == SIM_WRITE || op == SIM_CREATE || op == SIM_MKDIR || op == SIM_LINK ||
               op == SIM_RENAME;
    case FAULT_SHORT:
        return op == SIM_WRITE;
    case FAULT_READ:
        return op == SIM_READ;
    default:
        return false;
    }
}

/* The fault that is due, if OP can have it. */
static enum sim_fate fail(struct sim *sim, int *rc)
{
    enum fault fault = gate.fault;

    if (gate.again)
        gate.again--;
    else
        gate.fault = FAULT_NONE;
    if (!sim->point_kind)
        atomic_fetch_add(&sim->counts->faults, 1);
    if (fault == FAULT_SHORT)
        return SIM_SHORT;
    if (fault == FAULT_INTR)
        return SIM_INTERRUPTED;
    sim->faulted = true;
    *rc = fault == FAULT_SPACE ? ERR_NO_SPACE : ERR_IO;
    return SIM_FAIL;
}

static bool is_point(struct sim *sim, enum sim_op op, const char *path, uint64_t call)
{
    if (!gate.armed || op == SIM_READ || call % sim_options.stride != 0)
        return false;
    /* 256 directories of the first start: a few of them will do. */
    return op != SIM_MKDIR || !strstr(path, "/large/") || sim_mix(sim->seed, call, 5) % 16 == 0;
}

static void choose_fault(struct sim *sim, enum sim_op op, uint64_t dice)
{
    do {
        gate.fault = (enum fault)(1 + dice % (FAULTS - 1));
        dice = sim_mix(dice, op, 12) >> 8;
    } while (gate.fault != FAULT_READ && op != SIM_OPS && !suits(gate.fault, op));
    gate.fail_at = sim->disk->calls;
    /* A full disk stays full for a while, a broken one broken. */
    gate.again = dice % 3 == 0 ? (unsigned)(dice >> 4) % 12 : 0;
    if (gate.fault == FAULT_READ)
        gate.again *= 4; /* recovery asks several times for each small piece */
}

static enum sim_fate at_call(struct sim_disk *disk, enum sim_op op, const char *path, int *rc)
{
    struct sim *sim = disk->arg;
    uint64_t call = disk->calls;

    if (is_point(sim, op, path, call)) {
        if (gate_branch(sim, POINT_DEATH, call)) {
            atomic_fetch_add(&sim->counts->points, 1);
            atomic_fetch_add(disk->kind == SIM_KILL ? &sim->counts->kills : &sim->counts->powers,
                             1);
            return SIM_DIE;
        }
        if (!gate.fault && sim_options.faults &&
            (sim_mix(sim->seed, call, 8) >> 8) % sim_options.faults == 0 &&
            gate_branch(sim, POINT_FAULT, call)) {
            atomic_fetch_add(&sim->counts->fault_points, 1);
            choose_fault(sim, op, sim_mix(sim->seed, call, 9) >> 8);
        }
    }
    if (gate.fault && !sim->calm && call >= gate.fail_at && suits(gate.fault, op))
        return fail(sim, rc);
    if (gate.die_at && op != SIM_READ && call >= gate.die_at) {
        gate.die_at = 0;
        return SIM_DIE;
    }
    return SIM_PASS;
}

/* ---- What a run wants ---- */

void gate_init(struct sim *sim)
{
    memset(&gate, 0, sizeof gate);
    gate.sim = sim;
    sim->disk->gate = at_call;
    sim->disk->arg = sim;
}

void gate_arm(bool armed)
{
    gate.armed = armed && !gate.sim->point_kind;
}

void gate_die_in(struct sim *sim, uint64_t offset)
{
    gate.die_at = offset ? sim->disk->calls + offset : 0;
}

bool gate_is_dying(void)
{
    return gate.die_at != 0;
}

void gate_fail_in(struct sim *sim, uint64_t offset, uint64_t dice)
{
    choose_fault(sim, SIM_OPS, dice);
    gate.fail_at = sim->disk->calls + offset;
}

bool gate_is_failing(void)
{
    return gate.fault != FAULT_NONE;
}

void gate_no_faults(void)
{
    gate.fault = FAULT_NONE;
}
