/*
 * The steps of a run, and what follows a death: a new process, which has to find all that was said.
 *
 * A run is a list of steps that the seed chooses: requests of clients, commits, applies,
 * checkpoints, upkeep, reads that take their time, moves of the clock, deaths, stops, rebuilds,
 * calls that fail. There are no threads; nothing runs that the seed did not choose.
 */
#include "base/hash.h"
#include "journal/journal_internal.h"
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void sim_pass_time(struct sim *sim, uint64_t ms)
{
    sim->wall_ns += ms * 1000000;
    sim->mono_ns += ms * 1000000;
    atomic_fetch_add(&sim->counts->sim_ms, sim->point_kind ? 0 : ms);
}

/* ---- Dying and coming back ---- */

static void check_all(struct sim *sim)
{
    sim->calm++;
    check_outcome(sim);
    conflict_settle_outcome(sim);
    check_files(sim);
    check_visible(sim, true);
    check_journal(sim);
    conflict_check(sim, true);
    sim->calm--;
}

/* What objctl journal rebuild does; the node is stopped. */
int sim_rebuild_database(struct sim *sim)
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

    sim->disk = sim_disk_create(sim_mix(sim->seed, old->calls, 11), old->total_bytes);
    sim->disk->gate = old->gate;
    sim->disk->arg = sim;
    sim->disk->calls = old->calls;
    sim->env.io = &sim->disk->io;
    sim_disk_destroy(&old);
}

/* Start, however often the node dies on the way. */
void sim_start(struct sim *sim)
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
            atomic_fetch_add(&sim->counts->nested, 1);
            node_abandon(sim);
            sim_disk_restart(sim->disk, sim->disk->kind);
            sim->disk->kind = sim_roll(sim, 2) ? SIM_POWER : SIM_KILL;
            continue;
        }
        if (!sim->served && rc == ERR_WRONG_STORE) {
            /* The very first start died between its two STORE files. The node refuses to guess;
             * the operator, who has stored nothing yet, empties both directories. */
            atomic_fetch_add(&sim->counts->emptied, 1);
            node_abandon(sim);
            empty_disk(sim);
            continue;
        }
        if (sim->rebuilding && (rc == ERR_NOT_FOUND || rc == ERR_CORRUPT) && ++errors < 20) {
            node_abandon(sim); /* as the message says: the rebuild that died is begun again */
            sim_disk_restart(sim->disk, SIM_KILL);
            (void)sim_rebuild_database(sim);
            continue;
        }
        if (!sim->faulted || ++errors > 3)
            sim_fail(sim, "the node does not start: %s (%s)", sim->message, err_text(rc));
        node_abandon(sim);
        sim->disk->dead = true; /* no further call of a process that has gone */
        sim_disk_restart(sim->disk, SIM_KILL);
        sim->faulted = false;
        gate_no_faults();
    }
}

/* The disk is dead: a new process starts on what is left, and must find all that was said. */
static void come_back(struct sim *sim)
{
    do {
        node_abandon(sim);
        sim_disk_restart(sim->disk, sim->disk->kind);
        sim->faulted = false;
        sim_pass_time(sim, 10 + sim_roll(sim, 2000));
        /* One start in three does not survive itself. */
        sim->disk->kind = sim_roll(sim, 2) ? SIM_POWER : SIM_KILL;
        gate_die_in(sim, sim_roll(sim, 3) == 0 ? 1 + sim_roll(sim, 40) : 0);
        sim_start(sim);
        if (gate_is_dying() && sim_roll(sim, 2))
            gate_die_in(sim, 0); /* else it dies while it is being checked, or later */
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
    sim_pass_time(sim, sim_roll(sim, 5000));
    sim_start(sim);
    /* What a failed sync, or a failed undo of a failed write, has left open is settled now. */
    sim->calm++;
    check_outcome(sim);
    conflict_settle_outcome(sim);
    sim->calm--;
}

void sim_rebuild(struct sim *sim)
{
    struct journal_stats before, after;
    struct db_state state;

    if (log_end(journal_log(sim->journal)) == 0)
        return; /* of nothing: it says so and refuses */

    while (journal_commit_step(sim->journal))
        ; /* a stop would do that */
    sim->calm++;
    check_journal(sim);
    sim->calm--;
    journal_stats(sim->journal, &before);
    bool whole = before.pending == 0 && !before.read_only;
    /* A rebuild brings back no event that the snapshot covers. */
    bool trimmed = !atomic_load(&sim->journal->trimming);

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
    int rc = sim_rebuild_database(sim);
    if (sim->disk->dead)
        return;
    sim->faulted &= rc != 0;
    sim_start(sim);
    journal_stats(sim->journal, &after);
    if (!rc && whole && sim->lost_count == 0) {
        if (after.digest.low != before.digest.low || after.digest.high != before.digest.high)
            sim_fail(sim, "the rebuilt digest is another one");
        if ((trimmed && after.events != before.events) || after.objects != before.objects)
            sim_fail(sim,
                     "rebuilt: %" PRIu64 " events and %" PRIu64 " objects of %" PRIu64
                     " and %" PRIu64,
                     after.events, after.objects, before.events, before.objects);
    }
    if (db_reader_state(sim->reader, &state) == 0)
        atomic_fetch_add(&sim->counts->rebuilds, 1);
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
    struct wish wish = {.kind = CHANGE_DELETE,
                        .id = (unsigned)sim_roll(sim, SIM_IDS),
                        .purge = sim_roll(sim, 3) == 0};

    for (int i = 0; i < 3 && sim->facts[wish.id].kind != FACT_LIVE; i++)
        wish.id = (unsigned)sim_roll(sim, SIM_IDS);
    node_submit(sim, &wish);
}

/* What became of the copy in the cloud, as whoever uploads says it. */
static void step_cloud(struct sim *sim)
{
    struct wish wish = {.kind = CHANGE_CLOUD,
                        .id = (unsigned)sim_roll(sim, SIM_IDS),
                        .variant = sim_roll(sim, 8) == 0,
                        .cloud_state = CLOUD_STARTED};

    if (sim_roll(sim, 2))
        wish.cloud_state += (unsigned)sim_roll(sim, 4);
    /* What is live is soon deleted: begin while it is. */
    for (int i = 0; i < 6 && sim->facts[wish.id].kind != FACT_LIVE; i++)
        wish.id = (unsigned)sim_roll(sim, SIM_IDS);
    if (memcmp(model_sha256(wish.id, 0), model_sha256(wish.id, 1), SHA256_BYTES) == 0)
        wish.variant = 0;
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
    if (sim_roll(sim, 16) == 0)
        atomic_store(&sim->journal->compactor.wanted, true); /* an operator asks for a snapshot */
    for (uint64_t i = sim_roll(sim, 6); i < 10 && !sim->disk->dead; i++)
        (void)journal_upkeep_step(sim->journal);
}

/* One call in the near future fails. */
static void step_fault(struct sim *sim)
{
    uint64_t offset = 1 + sim_roll(sim, 12), dice = sim_roll(sim, 1000);

    if (sim->seed % 2 && !gate_is_failing() && !gate_is_dying())
        gate_fail_in(sim, offset, dice);
}

static void step_death(struct sim *sim)
{
    uint64_t how = sim_roll(sim, 4);

    if (how == 0) {
        die(sim);
    } else if (how == 1) {
        stop_and_start(sim);
    } else if (how == 2 && sim_roll(sim, 2)) {
        sim_rebuild(sim);
    } else {
        gate_die_in(sim, 1 + sim_roll(sim, 30));
        sim->disk->kind = sim_roll(sim, 2) ? SIM_POWER : SIM_KILL;
    }
}

static void step_clock(struct sim *sim)
{
    sim_pass_time(sim, sim_roll(sim, 8) == 0 ? 4000 : sim_roll(sim, 300));
    if (sim_roll(sim, 10) == 0)
        sim->wall_ns += (sim_roll(sim, 2) ? 1 : -1) * (int64_t)(sim_roll(sim, 100000) * 1000000);
}

static void step_check(struct sim *sim)
{
    sim->calm++;
    check_visible(sim, sim_roll(sim, 3) == 0);
    check_ram(sim);
    sim->calm--;
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
    {30, step_put},   {8, step_meta},  {22, step_delete},   {20, step_upkeep},
    {6, step_fill},   {6, step_clock}, {4, step_check},     {14, node_read_slowly},
    {3, step_fault},  {2, step_death}, {4, help_read_only}, {16, conflict_step},
    {14, step_cloud},
};

enum { COMMIT_WEIGHT = 30, APPLY_WEIGHT = 14, CHECKPOINT_WEIGHT = 6, MARK_WEIGHT = 4 };

static void take_step(struct sim *sim)
{
    uint64_t total = COMMIT_WEIGHT + APPLY_WEIGHT + CHECKPOINT_WEIGHT + MARK_WEIGHT, dice;

    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        total += steps[i].weight;
    dice = sim_roll(sim, total);
    sim_pass_time(sim, 1 + sim_roll(sim, 10));
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
        sim_rebuild(sim);
    if (sim->disk->dead)
        come_back(sim);
}

static void end_child(struct sim *sim)
{
    if (sim_options.replay)
        sim_say("seed %" PRIu64 ", call %" PRIu64 ": survived\n", sim->seed, sim->point);
    _exit(0);
}

/* Come back where a step has ended in a death; a child ends here. */
static void survive(struct sim *sim)
{
    bool live = sim_mix(sim->seed, sim->point, 6) % 6 == 0;

    if (sim->point_kind == POINT_FAULT) {
        for (unsigned i = 0; i < 8 && !sim->disk->dead; i++)
            take_step(sim);
        if (!sim->disk->dead)
            die(sim);
    }
    if (sim->disk->dead)
        come_back(sim);
    else if (sim->point_kind == POINT_DEATH) /* it died in a start that was part of the step */
        check_all(sim);
    if (!sim->point_kind)
        return;
    if (live)
        live_on(sim);
    end_child(sim);
}

void sim_run(struct sim *sim)
{
    bool points = !sim_options.no_points;

    /* The first start is the same for all seeds but for its dice: a few of them die in it. */
    gate_arm(points && sim->seed % 10 == 0);
    sim_start(sim);
    gate_arm(points);
    if (sim->point_kind)
        survive(sim);
    check_outcome(sim);
    for (unsigned i = 0; i < sim_options.steps; i++) {
        take_step(sim);
        survive(sim);
    }
    gate_die_in(sim, 0);
    gate_no_faults();
    sim_rebuild(sim);
    survive(sim);
    check_all(sim);
    survive(sim);
    gate_arm(false);
    conflict_check_end(sim);
    node_stop(sim);
    for (unsigned i = 1; points && i <= sim_options.flips; i++)
        if (gate_branch(sim, POINT_FLIP, i))
            sim_flip(sim);
}
