/*
 * A copy of a node's directories becomes a node of its own: it gets a fresh id, and says what it
 * holds, since what the old id said of copies is the other one's to say. Its rows, bodies and
 * events stay: whatever the copy has taken while it ran under the old id reaches the others from
 * it as from anybody.
 *
 * Happy path: NODE_ID first, then the database, synced; the next run follows no run of the old id;
 * then one hold event for every thousand bodies that are here.
 *
 * Failure: a crash after NODE_ID leaves a database of another id, which no start takes; one after
 * that leaves bodies that nobody is said to hold. Both are mended by doing it again.
 */
#include "journal/journal_internal.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct naming {
    struct journal *journal;
    struct event_item items[LIMIT_EVENT_LIST_ITEMS];
    uint32_t count;
};

/* The last run of the old id is still ours to say again, should it be frozen some day: the copy was
 * made while the original wrote under it. */
static int mark_run(struct db *db, const struct id128 *run)
{
    struct db_restate mark = {.origin = *run, .next = INT64_MAX, .broke = INT64_MAX};

    return db_restate_add(db, &mark);
}

static int take_id(struct journal *journal)
{
    struct applier *a = &journal->applier;
    int rc;

    journal->node = ulid_make(journal->env, env_wall_ms(journal->env));
    if ((rc = journal_save_node(journal)) != 0 || (rc = applier_begin(journal)) != 0)
        return rc;
    if (!id_is_zero(&a->state.last_origin))
        rc = mark_run(a->db, &a->state.last_origin);
    a->state.node = journal->node;
    a->state.last_origin = (struct id128){{0}};
    if (rc == 0)
        rc = applier_commit(journal, a->state.position);
    if (rc)
        applier_rollback(journal);
    else
        rc = applier_checkpoint(journal);
    journal->committer.chain = (struct chain){.seq = 0};
    journal->acked.node = journal->node;
    journal->acked.last_origin = a->state.last_origin;
    return rc;
}

static int look_at(void *arg, const struct object *object)
{
    struct naming *naming = arg;

    if (place_is_none(&object->place))
        return 0;
    struct event_item *item = &naming->items[naming->count++];

    item->id = object->id;
    memcpy(item->sha256, object->sha256, SHA256_BYTES);
    return 0;
}

static void said(struct change *change)
{
    object_destroy(&change->object);
}

static int say_holds(struct naming *naming)
{
    const struct event event = {.kind = EVENT_HOLD,
                                .fields = EVENT_HAS_ITEMS,
                                .items = naming->items,
                                .item_count = naming->count};
    struct change change = {.request.kind = CHANGE_FACT, .fact = &event, .done = said};
    int rc;

    if (naming->count == 0)
        return 0;
    if ((rc = journal_submit(naming->journal, &change)) != 0)
        return rc;
    while (journal_commit_step(naming->journal) || journal_apply_step(naming->journal))
        ;
    naming->count = 0;
    return change.rc;
}

int journal_new_node(struct journal *journal, struct id128 *node)
{
    struct naming *naming = calloc(1, sizeof *naming);
    struct id128 after = {{0}}, last;
    unsigned count = LIMIT_EVENT_LIST_ITEMS;
    int rc = naming ? take_id(journal) : ERR_NO_MEMORY;

    assert(!journal->threaded);
    if (naming)
        naming->journal = journal;
    while (rc == 0 && count == LIMIT_EVENT_LIST_ITEMS) {
        rc = db_each_object(journal->cleaner.reader, &after, LIMIT_EVENT_LIST_ITEMS, look_at,
                            naming, &last, &count);
        after = last;
        if (rc == 0)
            rc = say_holds(naming);
    }
    free(naming);
    *node = journal->node;
    return rc;
}
