/* What has to hold of a store at rest, whatever happened and whoever wrote to it: see sim.h. The
 * simulator of whole clusters asks it of each of its nodes. */
#include "journal/journal_internal.h"
#include "storage/log_internal.h"
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- The journal ---- */

void check_journal(struct sim *sim)
{
    struct journal_verify_result result;
    struct journal_stats stats;
    struct db_state state;
    char report[512];
    int rc;

    for (int i = 0; i < 100 && journal_apply_step(sim->journal); i++)
        ;
    if (sim->disk->dead)
        return;
    journal_stats(sim->journal, &stats);
    if (stats.pending) {
        if (!sim->faulted)
            sim_fail(sim, "%" PRIu64 " entries stay pending", stats.pending);
        return;
    }
    rc = journal_verify(sim->reader, &result);
    if (rc || result.breaks)
        sim_fail(sim, "chain: %s", rc ? err_text(rc) : result.message);
    rc = db_check(sim->reader, report, sizeof report);
    if (rc)
        sim_fail(sim, "db_check: %s: %s", err_text(rc), report);
    rc = db_reader_state(sim->reader, &state);
    if (rc)
        sim_fail(sim, "state: %s", err_text(rc));
    if (result.events != stats.events)
        sim_fail(sim, "%" PRIu64 " events acknowledged, %" PRIu64 " there", stats.events,
                 result.events);
    if (state.digest.low != stats.digest.low || state.digest.high != stats.digest.high)
        sim_fail(sim, "the acknowledged digest is not the rows'");
    if (stats.bad_blocks != sim->misfits || stats.rotten_bytes || stats.lost)
        sim_fail(sim, "rot where none is: %" PRIu64 " bytes", stats.rotten_bytes);
    atomic_fetch_add(&sim->counts->checks, 1);
}

/* ---- Files ---- */

struct wanted {
    struct sim *sim;
    const char *dir;
    uint64_t files[4096];
    unsigned count;
};

static void want(struct wanted *wanted, uint64_t file)
{
    if (wanted->count < sizeof wanted->files / sizeof *wanted->files)
        wanted->files[wanted->count++] = file;
}

static int want_object(void *arg, const struct object *object)
{
    if (object->place.volume == PLACE_LARGE)
        want(arg, object->place.offset);
    return 0;
}

static int want_loser(void *arg, const struct db_conflict *conflict)
{
    return want_object(arg, conflict->loser);
}

static int want_garbage(void *arg, uint64_t file, lsn_t freed_at)
{
    (void)freed_at;
    want(arg, file);
    return 0;
}

static bool is_wanted(const struct wanted *wanted, uint64_t file)
{
    for (unsigned i = 0; i < wanted->count; i++)
        if (wanted->files[i] == file)
            return true;
    return false;
}

static int each_large(void *arg, const char *name)
{
    struct wanted *wanted = arg;

    if (!is_wanted(wanted, strtoull(name, NULL, 16)))
        sim_fail(wanted->sim, "leaked: %s/%s", wanted->dir, name);
    return 0;
}

static int each_dir(void *arg, const char *name)
{
    struct wanted *wanted = arg;
    struct io *io = &wanted->sim->disk->io;
    char dir[128];

    snprintf(dir, sizeof dir, "%s/large/%s", SIM_FILES, name);
    wanted->dir = dir;
    return io->list(io, dir, each_large, wanted);
}

static int each_segment(void *arg, const char *name)
{
    struct wanted *wanted = arg;
    char *end;
    uint64_t volume = strtoull(name, &end, 16);
    const struct log *log = wanted->sim->journal->log;

    /* The one being made may have left its temporary file; making it again takes that. */
    if (strcmp(end, ".seg.tmp") == 0 && volume == log->next_volume)
        return 0;
    if (strcmp(end, ".seg") != 0 || !is_wanted(wanted, volume))
        sim_fail(wanted->sim, "leaked: log/%s", name);
    return 0;
}

static int none(void *arg, const char *name)
{
    struct wanted *wanted = arg;

    sim_fail(wanted->sim, "leaked: tmp/%s", name);
    return 0;
}

static int each_state(void *arg, const char *name)
{
    static const char *const known[] = {"STORE", "LOCK", "NODE_ID", "journal.db", "journal.db-wal",
                                        "journal.db.old", "journal.db.old-wal",
                                        /* of a rebuild that did not end; the next one takes it */
                                        "journal.db.rebuild", "journal.db.rebuild-wal",
                                        "journal.db.rebuild-journal"};
    struct wanted *wanted = arg;

    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0)
            return 0;
    sim_fail(wanted->sim, "leaked: state/%s", name);
    return 0;
}

void check_files(struct sim *sim)
{
    struct io *io = &sim->disk->io;
    struct wanted *wanted = calloc(1, sizeof *wanted);
    struct log *log = sim->journal->log;
    struct log_segment *segments;
    struct id128 last;
    unsigned seen;
    size_t count;

    if (!wanted)
        abort();
    wanted->sim = sim;
    int rc = db_each_object(sim->reader, NULL, 4096, want_object, wanted, &last, &seen);
    if (rc == 0)
        rc = db_each_conflict(sim->reader, &(struct db_conflict_cursor){{{0}}, {0}}, 4096,
                              want_loser, wanted, &seen);
    if (rc == 0)
        rc = db_each_garbage(sim->reader, 0, LSN_LIMIT, 4096, want_garbage, wanted);
    if (rc == 0)
        rc = io->list(io, SIM_FILES "/large", each_dir, wanted);
    if (rc == 0)
        rc = io->list(io, SIM_FILES "/tmp", none, wanted);
    if (rc == 0)
        rc = io->list(io, SIM_STATE, each_state, wanted);
    wanted->count = 0;
    if (rc == 0)
        rc = log_segments(log, &segments, &count);
    if (rc)
        sim_fail(sim, "files cannot be listed: %s", err_text(rc));
    if (rc == 0) {
        for (size_t i = 0; i < count; i++)
            want(wanted, segments[i].volume);
        if (log->next)
            want(wanted, log->next->volume);
        free(segments);
        (void)io->list(io, SIM_FILES "/log", each_segment, wanted);
    }
    free(wanted);
}

/* ---- Space ---- */

static int add_body(void *arg, const struct record_view *view, const struct place *place)
{
    uint64_t *bytes = arg;

    (void)place;
    if (view->header.flags & RECORD_HAS_BODY)
        *bytes += view->header.body_bytes;
    return 0;
}

void check_space(struct sim *sim)
{
    struct db_segment *rows;
    size_t count;
    int rc = db_reader_segments(sim->reader, &rows, &count);

    if (rc) {
        sim_fail(sim, "segments: %s", err_text(rc));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t from = 0, rotten = 0, bytes = 0;

        if (!rows[i].log.sealed)
            continue;
        rc = log_scan(sim->journal->log, rows[i].log.volume, &from, add_body, &bytes, &rotten);
        if (rc == ERR_NOT_FOUND)
            continue; /* removed; its row goes with the next transaction */
        if (rc)
            sim_fail(sim, "segment %u cannot be scanned: %s", rows[i].log.volume, err_text(rc));
        if (rotten)
            sim_fail(sim, "segment %u: %" PRIu64 " bytes of rot", rows[i].log.volume, rotten);
        if (bytes != rows[i].body_bytes)
            sim_fail(sim,
                     "segment %u holds %" PRIu64 " bytes of bodies, the database says %" PRIu64,
                     rows[i].log.volume, bytes, rows[i].body_bytes);
    }
    free(rows);
}
