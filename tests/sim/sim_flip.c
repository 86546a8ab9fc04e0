/*
 * Bit rot: one bit of a stopped node's files is another one than was written.
 *
 * Where it hit: a segment, a large file, the database (also its WAL, where a killed process left
 * one) or one of the small files. What has to follow: no start, no look-up and no read ever tells
 * anything but what was acknowledged or an error; one damaged record takes no other object with it;
 * a database that is damaged is known to be (it does not open, a look-up fails, a body does not lie
 * where its row says, or its check says so), and one made anew from the log has the same digest. A
 * bit that nobody needs (padding, dead bodies, free pages) may well go unnoticed; then all is as it
 * was.
 */
#include "journal/journal_internal.h"
#include "storage/log_internal.h"
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_FILES 512

struct files {
    struct io *io;
    const char *dir;
    char paths[MAX_FILES][96];
    unsigned count;
};

enum target { TARGET_SEGMENT, TARGET_LARGE, TARGET_DATABASE, TARGET_SMALL, TARGET_REPLAY, TARGETS };

static void add_path(struct files *files, const char *path)
{
    (void)snprintf(files->paths[files->count++], sizeof files->paths[0], "%s", path);
}

static int add_file(void *arg, const char *name)
{
    struct files *files = arg;

    if (files->count < MAX_FILES &&
        snprintf(files->paths[files->count], sizeof files->paths[0], "%s/%s", files->dir, name) <
            (int)sizeof files->paths[0])
        files->count++;
    return 0;
}

static void list(struct files *files, const char *dir)
{
    files->dir = dir;
    if (files->io->list(files->io, dir, add_file, files) != 0)
        abort();
}

static void find_files(struct files *files, enum target target)
{
    static const char *const small[] = {SIM_STATE "/STORE", SIM_FILES "/STORE",
                                        SIM_STATE "/NODE_ID"};
    char dir[64];

    files->count = 0;
    if (target == TARGET_SEGMENT)
        list(files, SIM_FILES "/log");
    for (unsigned i = 0; target == TARGET_LARGE && i < 256; i++) {
        snprintf(dir, sizeof dir, "%s/large/%02x", SIM_FILES, i);
        list(files, dir);
    }
    if (target == TARGET_DATABASE) {
        add_path(files, SIM_STATE "/journal.db");
        add_path(files, SIM_STATE "/journal.db-wal");
    }
    for (size_t i = 0; target == TARGET_SMALL && i < sizeof small / sizeof *small; i++)
        add_path(files, small[i]);
}

/* One in twelve is a control: no bit is flipped, and nothing may be found. */
static bool is_control(const struct sim *sim)
{
    return (sim_mix(sim->seed, sim->point, 13) >> 8) % 12 == 0;
}

static bool flip_bit(struct sim *sim, const char *path, uint64_t offset)
{
    unsigned bit = (unsigned)sim_roll(sim, 8);

    return is_control(sim) || sim_disk_flip(sim->disk, path, offset, bit);
}

/* Flip a bit of some file of kind *TARGET; its path, NULL where there is none. */
static const char *flip(struct sim *sim, enum target target, uint64_t *offset)
{
    static struct files files;

    files.io = &sim->disk->io;
    find_files(&files, target);
    for (int i = 0; files.count && i < 20; i++) {
        const char *path = files.paths[sim_roll(sim, files.count)];
        struct io_stat stat;

        if (sim->disk->io.stat(&sim->disk->io, path, &stat) != 0 || stat.size_bytes == 0)
            continue;
        *offset = sim_roll(sim, stat.size_bytes);
        if (flip_bit(sim, path, *offset))
            return path;
    }
    return NULL;
}

/* Every look-up and read tells the truth or fails: the count of objects that cannot be had. *ROWS:
 * how many rows could not be looked up or were false. */
static unsigned check_truth(struct sim *sim, unsigned *rows)
{
    unsigned lost = 0;

    *rows = 0;
    for (unsigned id = 0; id < SIM_IDS; id++) {
        struct id128 key = model_id(id);
        struct object *object = NULL;
        struct fact seen = {.kind = FACT_NONE};
        int rc = journal_find(sim->journal, sim->reader, &key, &object);

        bool known = (!rc || rc == ERR_NOT_FOUND) && model_observe(id, object, &seen);
        seen.begun = sim->facts[id].begun; /* in no row */
        if (!known || !fact_equal(&seen, &sim->facts[id]))
            ++*rows;
        else if (object && seen.kind == FACT_LIVE && node_read(sim, id, object) != 0)
            lost++;
        object_destroy(&object);
    }
    return lost;
}

/* The database is as it was: digest, chains, rows. */
static bool database_is_good(struct sim *sim, const struct journal_stats *before)
{
    struct journal_verify_result result;
    struct journal_stats after;
    char report[512];

    journal_stats(sim->journal, &after);
    return db_check(sim->reader, report, sizeof report) == 0 &&
           journal_verify(sim->reader, &result) == 0 && result.breaks == 0 &&
           after.digest.low == before->digest.low && after.digest.high == before->digest.high &&
           result.events == before->events;
}

/* A damaged database is thrown away. */
static void remake(struct sim *sim, const struct journal_stats *before)
{
    unsigned rows;

    node_abandon(sim);
    sim_disk_restart(sim->disk, SIM_KILL);
    if (sim_rebuild_database(sim) != 0)
        sim_fail(sim, "a damaged database is not rebuilt");
    sim_start(sim);
    if (check_truth(sim, &rows) || rows)
        sim_fail(sim, "objects are missing after the rebuild of a damaged database");
    if (!database_is_good(sim, before))
        sim_fail(sim, "a damaged database was rebuilt as another one");
}

/* What objctl verify and the scrub would find in the log and the large files. */
static int ignore(void *arg, const struct record_view *view, const struct place *place)
{
    (void)arg, (void)place;
    return record_verify_body(view) == 0 || !(view->header.flags & RECORD_HAS_BODY) ? 0 : 1;
}

static bool log_is_rotten(struct sim *sim)
{
    struct log_segment *segments;
    bool rotten_somewhere = false;
    size_t count;

    if (log_segments(sim->journal->log, &segments, &count) != 0)
        abort();
    for (size_t i = 0; i < count; i++) {
        uint64_t from = 0, rotten = 0;

        if (segments[i].sealed)
            rotten_somewhere |= log_scan(sim->journal->log, segments[i].volume, &from, ignore, NULL,
                                         &rotten) != 0 ||
                                rotten > 0;
    }
    free(segments);
    return rotten_somewhere;
}

/* Leave the node killed, with synced records that the database has not applied, and flip a bit in
 * them: they are rot, and never a torn tail. */
static const char *flip_replayed(struct sim *sim, uint64_t *offset)
{
    static char path[96];
    struct log_segment *segments;
    lsn_t from = log_end(journal_log(sim->journal)), to = from;
    size_t count;

    for (int i = 0; i < 14; i++) {
        struct wish wish = {.kind = i % 3 == 1 ? CHANGE_DELETE : CHANGE_PUT,
                            .id = (unsigned)sim_roll(sim, SIM_IDS)};

        to = log_end(journal_log(sim->journal)); /* the last batch says that this is synced */
        node_submit(sim, &wish);
        while (journal_commit_step(sim->journal))
            ;
        if (sim_roll(sim, 30) == 0)
            break;
    }
    if (log_segments(sim->journal->log, &segments, &count) != 0)
        abort();
    sim->disk->dead = true;
    node_abandon(sim);
    sim_disk_restart(sim->disk, SIM_KILL);
    path[0] = '\0';
    for (int i = 0; to > from && !path[0] && i < 20; i++) {
        lsn_t at = from + sim_roll(sim, to - from);

        for (size_t k = 0; k < count; k++)
            if (at >= segments[k].base + SEGMENT_HEADER_BYTES &&
                at < segments[k].base + segments[k].end_bytes) {
                snprintf(path, sizeof path, "%s/log/%08x.seg", SIM_FILES, segments[k].volume);
                *offset = at - segments[k].base;
            }
    }
    free(segments);
    return path[0] && flip_bit(sim, path, *offset) ? path : NULL;
}

/* What has to hold on a node that has started with the flipped bit; whether anything was found. */
static bool check_started(struct sim *sim, enum target target, const char *path, uint64_t offset,
                          const struct journal_stats *before)
{
    bool is_database = target == TARGET_DATABASE;
    unsigned rows, lost = check_truth(sim, &rows);
    bool good = database_is_good(sim, before);

    if (!is_database && target != TARGET_REPLAY && rows)
        sim_fail(sim, "%s, byte %" PRIu64 ": %u rows are false", path, offset, rows);
    if (is_database && rows && good)
        sim_fail(sim, "%s, byte %" PRIu64 ": %u rows are false, and no check says so", path, offset,
                 rows);
    /* A header that is gone takes its segment along. */
    if (!is_database && rows + lost > 1 &&
        !(target == TARGET_SEGMENT && offset < SEGMENT_HEADER_BYTES))
        sim_fail(sim, "%s, byte %" PRIu64 ": %u objects are lost", path, offset, rows + lost);
    return rows > 0 || lost > 0 || (!good && target != TARGET_REPLAY) || log_is_rotten(sim) ||
           sim->journal->rotten_bytes > 0;
}

void sim_flip(struct sim *sim)
{
    struct journal_stats before = {0};
    enum target target = (enum target)(sim->point % TARGETS);
    const char *path;
    uint64_t offset = 0;
    bool found = true;

    sim_start(sim);
    check_journal(sim);
    if (target == TARGET_REPLAY) {
        path = flip_replayed(sim, &offset);
    } else {
        journal_stats(sim->journal, &before);
        node_stop(sim);
        sim_disk_restart(sim->disk, SIM_KILL);
        path = flip(sim, target, &offset);
    }
    if (!path)
        _exit(0);
    atomic_fetch_add(&sim->counts->flips, !is_control(sim));
    int rc = node_open(sim);
    if (rc == 0)
        found = check_started(sim, target, path, offset, &before);
    else if (target != TARGET_DATABASE && target != TARGET_SMALL)
        sim_fail(sim, "%s, byte %" PRIu64 ": the node does not start: %s", path, offset,
                 sim->message);
    if (is_control(sim) && found)
        sim_fail(sim, "damage is found where no bit was flipped: %s", rc ? sim->message : path);
    atomic_fetch_add(&sim->counts->flips_found, found);
    if (found && target == TARGET_DATABASE)
        remake(sim, &before);
    if (sim_options.replay)
        sim_say("seed %" PRIu64 ": %s, byte %" PRIu64 ": %s\n", sim->seed, path, offset,
                rc      ? sim->message
                : found ? "found"
                        : "nobody needs it");
    _exit(0);
}
