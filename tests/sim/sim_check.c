/* What has to hold, whatever happened: see sim.h. */
#include "journal/journal_internal.h"
#include "storage/log_internal.h"
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Rows and bodies ---- */

static void look(struct sim *sim, unsigned id, struct fact *fact, struct object **object)
{
    struct id128 key = model_id(id);
    int rc = journal_find(sim->journal, sim->reader, &key, object);

    if (rc)
        *object = NULL;
    if (rc && rc != ERR_NOT_FOUND)
        sim_fail(sim, "id %u cannot be looked up: %s", id, err_text(rc));
    if (!model_observe(id, *object, fact))
        sim_fail(sim, "id %u: a row that nobody asked for", id);
}

static bool matches(const struct sim *sim, const struct fact *seen, const struct fact *facts)
{
    (void)sim;
    for (unsigned id = 0; id < SIM_IDS; id++)
        if (!fact_equal(&seen[id], &facts[id]))
            return false;
    return true;
}

/* Whether some of the lost requests from number N on, in their order, make of FACT what is SEEN of
 * id ID. */
static bool some_explain(const struct sim *sim, unsigned n, unsigned id, const struct fact *fact,
                         const struct fact *seen)
{
    struct fact after;

    while (n < sim->lost_count && sim->lost[n].id != id)
        n++;
    if (n == sim->lost_count)
        return fact_equal(fact, seen);
    return some_explain(sim, n + 1, id, fact, seen) ||
           (model_expect(fact, &sim->lost[n], &after) == 0 &&
            some_explain(sim, n + 1, id, &after, seen));
}

/* Where calls failed, one request may have been refused and the next not, before the node died. */
static bool each_explained(const struct sim *sim, const struct fact *seen)
{
    for (unsigned id = 0; id < SIM_IDS; id++)
        if (!some_explain(sim, 0, id, &sim->facts[id], &seen[id]))
            return false;
    return true;
}

/* For whoever replays it: what was known, what was asked, what is there. */
static void tell_lost(const struct sim *sim, const struct fact *seen)
{
    static const char *const kinds[] = {"put", "meta", "delete", "drop", "move"};
    char was[80], is[80];

    if (!sim_options.verbose)
        return;
    for (unsigned n = 0; n < sim->lost_count; n++) {
        const struct wish *wish = &sim->lost[n];

        sim_say("  under way: %s id %u, body %u, level %u (%d), name n%u (%d)%s\n",
                kinds[wish->kind], wish->id, wish->variant, wish->level, wish->has_level,
                wish->name, wish->has_name, wish->verified ? ", verified" : "");
    }
    for (unsigned id = 0; id < SIM_IDS; id++)
        if (!fact_equal(&seen[id], &sim->facts[id]))
            sim_say("  id %u: %s -> %s\n", id, fact_text(&sim->facts[id], was),
                    fact_text(&seen[id], is));
}

void check_outcome(struct sim *sim)
{
    struct fact seen[SIM_IDS], facts[SIM_IDS], after;
    struct object *object;
    char was[80], is[80];

    for (unsigned id = 0; id < SIM_IDS; id++) {
        look(sim, id, &seen[id], &object);
        object_destroy(&object);
    }
    if (sim->disk->dead)
        return;
    /* Requests happen in the order of their submission; the first so many of them have. A put that
     * rests on a verified copy may have been refused if that copy moved. */
    for (int moved = 0; moved < 2; moved++) {
        memcpy(facts, sim->facts, sizeof facts);
        for (unsigned n = 0;; n++) {
            if (matches(sim, seen, facts)) {
                memcpy(sim->facts, facts, sizeof facts);
                sim->lost_count = 0;
                sim->lost_to_faults = false;
                return;
            }
            if (n == sim->lost_count)
                break;
            struct wish wish = sim->lost[n];

            wish.verified &= !moved;
            if (model_expect(&facts[wish.id], &wish, &after) == 0)
                facts[wish.id] = after;
        }
    }
    if (sim->lost_to_faults && each_explained(sim, seen)) {
        memcpy(sim->facts, seen, sizeof seen);
        sim->lost_count = 0;
        sim->lost_to_faults = false;
        return;
    }
    tell_lost(sim, seen);
    for (unsigned id = 0; id < SIM_IDS; id++)
        if (!fact_equal(&seen[id], &sim->facts[id]))
            sim_fail(sim, "id %u was acknowledged as %s and is %s now (%u requests were under way)",
                     id, fact_text(&sim->facts[id], was), fact_text(&seen[id], is),
                     sim->lost_count);
    sim_fail(sim, "no prefix of the requests under way explains what is there");
}

void check_visible(struct sim *sim, bool bodies)
{
    for (unsigned id = 0; id < SIM_IDS && !sim->disk->dead; id++) {
        struct object *object;
        struct fact seen;
        char was[80], is[80];

        look(sim, id, &seen, &object);
        if (!fact_equal(&seen, &sim->facts[id]))
            sim_fail(sim, "id %u was acknowledged as %s and is seen as %s", id,
                     fact_text(&sim->facts[id], was), fact_text(&seen, is));
        if (bodies && object && seen.kind == FACT_LIVE) {
            int rc = node_read(sim, id, object);

            if (rc)
                sim_fail(sim, "id %u at volume %u offset %" PRIu64 " cannot be read: %s", id,
                         object->place.volume, object->place.offset, err_text(rc));
        }
        object_destroy(&object);
    }
}

void check_ram(struct sim *sim)
{
    for (unsigned id = 0; id < SIM_IDS; id++) {
        struct id128 key = model_id(id);
        struct ram_location location;
        struct object *object;
        struct fact seen;

        look(sim, id, &seen, &object);
        bool located = ram_locate(sim->ram, &key, &location) == 0;
        const struct ram_entry *entry = ram_get(sim->ram, &key);

        if ((located || entry) && seen.kind != FACT_LIVE)
            sim_fail(sim, "the RAM tier knows id %u, which is not there", id);
        /* A location may be an older one whose segment is cleaned: then reading says so. Here no
         * reader ran meanwhile, so it has to be the row's. */
        if (located && object && !place_equal(&location.place, &object->place))
            sim_fail(sim, "the RAM tier has id %u at another place than its row", id);
        if (entry) {
            static uint8_t want[SIM_BODY_BYTES];

            model_body(id, seen.variant, want);
            if (entry->body_bytes != model_size(id, seen.variant) ||
                memcmp(entry->body, want, entry->body_bytes) != 0 || entry->head_bytes != 2 ||
                memcmp(entry->head, model_name(seen.name), 2) != 0)
                sim_fail(sim, "the RAM tier has an outdated answer for id %u", id);
            ram_release(sim->ram, entry);
        }
        object_destroy(&object);
    }
}

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
    if (stats.bad_blocks || stats.rotten_bytes || stats.lost)
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
