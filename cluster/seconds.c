/*
 * A body gets here by seconds_add, when it becomes owed and will not be in the cloud at once; or by
 * a walk through the outbox, which finds what was owed before the cloud went away, what there was
 * no room for, and what lost its second copy meanwhile. Either way it is asked of one member, and
 * of another one where that takes too long.
 *
 * Bodies of level 2 are left alone: all members copy those of themselves.
 *
 * Failure: a database that cannot be read, or nobody who could make copies: it is tried again in
 * the next step.
 */
#include "cluster/seconds.h"

#include "base/log.h"
#include "cluster/drain.h"
#include "cluster/membership.h"
#include "journal/db_peers.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 64

struct seconds {
    struct seconds_config config;
    struct id128 self;
    struct drain *drain;
    struct db_custody targets;
    uint64_t next_ms;
    struct id128 cursor;
    uint64_t walk_ms; /* when the next walk begins */
    uint64_t began_ms;
    bool walking;
    _Atomic uint64_t waiting, made;
};

int seconds_create(struct seconds **out, const struct seconds_config *config)
{
    struct seconds *s = calloc(1, sizeof *s);
    int rc = ERR_NO_MEMORY;

    assert(config->copies == 1 || config->copies == 2);
    if (s) {
        s->config = *config;
        s->self = journal_node(config->journal);
        rc = drain_create(&s->drain);
    }
    if (rc)
        seconds_destroy(&s);
    *out = s;
    return rc;
}

void seconds_destroy(struct seconds **seconds)
{
    if (!*seconds)
        return;
    drain_destroy(&(*seconds)->drain);
    free(*seconds);
    *seconds = NULL;
}

void seconds_members(struct seconds *s, const struct cluster_member *view, size_t count)
{
    struct db_custody before = s->targets;

    membership_trusted(view, count, 0, &s->targets);
    if (before.count != s->targets.count ||
        memcmp(before.nodes, s->targets.nodes, before.count * sizeof *before.nodes) != 0)
        s->walk_ms = s->next_ms = 0;
}

void seconds_figures(const struct seconds *s, uint64_t *waiting, uint64_t *made)
{
    *waiting = atomic_load(&s->waiting);
    *made = atomic_load(&s->made);
}

static bool is_candidate(const struct object *object)
{
    return object_owed_here(object) && object->level == 1;
}

void seconds_add(struct seconds *s, const struct object *object)
{
    struct event_item item = {.id = object->id};

    if (s->config.copies < 2 || s->targets.count == 0 || !is_candidate(object) ||
        !drain_has_room(s->drain))
        return;
    memcpy(item.sha256, object->sha256, SHA256_BYTES);
    drain_add(s->drain, &item, object->size);
    s->next_ms = 0;
}

/* ---- The walk ---- */

struct page {
    struct id128 ids[PAGE];
    size_t count;
};

static int collect(void *arg, const struct db_owed *owed)
{
    struct page *page = arg;

    page->ids[page->count++] = owed->id;
    return 0;
}

/* Whether the body is here alone; else nothing is to be asked for. */
static int is_alone(struct seconds *s, struct db_reader *reader, const struct object *object,
                    bool *alone)
{
    struct db_copies copies;
    int rc = db_reader_copies(reader, object, &s->self, &copies);

    *alone = rc == 0 && copies.held < s->config.copies && copies.held < copies.members;
    return rc;
}

int seconds_look(struct seconds *s, struct db_reader *reader, const struct id128 *id)
{
    struct object *object = NULL;
    bool alone = false;
    int rc = journal_find(s->config.journal, reader, id, &object);

    if (rc == 0 && is_candidate(object))
        rc = is_alone(s, reader, object, &alone);
    if (rc == 0 && alone)
        seconds_add(s, object);
    object_destroy(&object);
    return rc == ERR_NOT_FOUND ? 0 : rc;
}

/* The next page of it. */
static int walk(struct seconds *s, struct db_reader *reader)
{
    struct page page = {.count = 0};
    int rc = db_reader_outbox(reader, OUTBOX_UPLOAD, &s->cursor, PAGE, collect, &page);

    for (size_t i = 0; rc == 0 && i < page.count && drain_has_room(s->drain); i++) {
        rc = seconds_look(s, reader, &page.ids[i]);
        s->cursor = page.ids[i];
    }
    if (rc == 0 && page.count < PAGE && drain_has_room(s->drain)) {
        uint64_t now_ms = env_mono_ms(s->config.env), pause_ms = 9 * (now_ms - s->began_ms);

        s->walking = false;
        s->walk_ms = now_ms + (pause_ms > SECONDS_WALK_MS ? pause_ms : SECONDS_WALK_MS);
    }
    return rc;
}

static int walk_on(struct seconds *s, struct db_reader *reader)
{
    int rc = 0;

    if (!s->walking && env_mono_ms(s->config.env) >= s->walk_ms) {
        s->walking = true;
        s->began_ms = env_mono_ms(s->config.env);
        s->cursor = (struct id128){{0}};
    }
    for (unsigned i = 0; rc == 0 && s->walking && drain_has_room(s->drain) && i < PAGE; i++)
        rc = walk(s, reader);
    return rc;
}

/* ---- Asking ---- */

static int settle(struct seconds *s, struct db_reader *reader)
{
    for (size_t i = drain_count(s->drain); i-- > 0;) {
        const struct event_item *item = drain_at(s->drain, i);
        struct object *object = NULL;
        bool alone = true;
        int rc = journal_find(s->config.journal, reader, &item->id, &object);

        if (rc && rc != ERR_NOT_FOUND)
            return rc;
        bool gone = rc == ERR_NOT_FOUND || !is_candidate(object) ||
                    memcmp(object->sha256, item->sha256, SHA256_BYTES) != 0;
        rc = gone ? 0 : is_alone(s, reader, object, &alone);
        object_destroy(&object);
        if (rc)
            return rc;
        if (gone || !alone)
            drain_settle(s->drain, i, gone);
    }
    return 0;
}

static int ask(struct seconds *s)
{
    struct event_item items[LIMIT_WIRE_ADOPT];
    struct id128 node;
    size_t count;
    int rc = 0;

    while (rc == 0 &&
           (count = drain_next(s->drain, s->targets.nodes, s->targets.count,
                               env_mono_ms(s->config.env), &node, items, LIMIT_WIRE_ADOPT)))
        rc = cluster_adopt(s->config.cluster, &node, items, count);
    return rc;
}

uint64_t seconds_step(struct seconds *s, struct db_reader *reader, bool slow)
{
    uint64_t now_ms = env_mono_ms(s->config.env);
    bool walks = slow && s->config.copies > 1 && s->targets.count > 0;
    int rc = 0;

    if (now_ms < s->next_ms)
        return s->next_ms;
    if (!walks)
        s->walking = false;
    if (drain_count(s->drain))
        rc = settle(s, reader);
    if (rc == 0 && walks)
        rc = walk_on(s, reader);
    if (rc == 0)
        rc = ask(s);
    if (rc)
        log_debug("cloud: second copies are not asked for now: %s", err_text(rc));
    atomic_store(&s->waiting, drain_count(s->drain));
    atomic_store(&s->made, drain_figures(s->drain).moved_objects);
    s->next_ms = now_ms + SECONDS_STEP_MS;
    if (rc || drain_count(s->drain) || s->walking)
        return s->next_ms;
    return walks && s->walk_ms > s->next_ms ? s->walk_ms : UINT64_MAX;
}
