/* What has to hold, whatever happened: see sim.h. */
#include "journal/journal_internal.h"
#include "storage/log_internal.h"
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- Rows and bodies ---- */

static int seen_begun(void *arg, const struct db_owed *owed)
{
    struct id128 *id = arg;

    *id = owed->id;
    return 0;
}

/* Whether an upload of ID is listed as begun; as acknowledged where not all is applied. */
static bool is_begun(struct sim *sim, unsigned id)
{
    struct id128 key = model_id(id), before = key, found = {{0}};
    struct journal_stats stats;

    journal_stats(sim->journal, &stats);
    if (stats.pending)
        return sim->facts[id].begun;
    before.bytes[15]--; /* ids end in a number above 0, or in a zero that borrows */
    if (key.bytes[15] == 0)
        before.bytes[14] = 0xff, before.bytes[6]--;
    int rc = db_reader_outbox(sim->reader, OUTBOX_BEGUN, &before, 1, seen_begun, &found);
    if (rc)
        sim_fail(sim, "the outbox cannot be read: %s", err_text(rc));
    if (sim->facts[id].purged && !sim->facts[id].begun)
        return false; /* a rebuild may list again what cleaning has moved: it is looked at once more
                       */
    return id_equal(&found, &key);
}

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
    fact->begun = is_begun(sim, id);
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
    static const char *const kinds[] = {[CHANGE_PUT] = "put",
                                        [CHANGE_META] = "meta",
                                        [CHANGE_DELETE] = "delete",
                                        [CHANGE_CLOUD] = "cloud"};
    char was[80], is[80];

    if (!sim_options.verbose)
        return;
    for (unsigned n = 0; n < sim->lost_count; n++) {
        const struct wish *wish = &sim->lost[n];

        sim_say("  under way: %s%u id %u, body %u, level %u (%d), name n%u (%d)%s%s\n",
                kinds[wish->kind], wish->cloud_state, wish->id, wish->variant, wish->level,
                wish->has_level, wish->name, wish->has_name, wish->verified ? ", verified" : "",
                wish->purge ? ", purge" : "");
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
