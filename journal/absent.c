/*
 * What this node is said to hold, and does not; or not to hold, and does. A node that was restored
 * from a backup, or whose disk was copied, gets back events of its own that it does not know: puts,
 * which say that their author has the bytes, and holds. Others would count on copies that are not
 * here. And where a copy of its disk ran as another process of its id, that one said in its name
 * that it lacks what it lacked: nobody would ask this node for what it has.
 *
 * Happy path: the events of a change are looked through before they are taken; what they say that
 * we hold and no row places here becomes one drop event (of up to LIMIT_EVENT_LIST_ITEMS items) in
 * front of them, and what they say that we lack and a row places here one hold event. So there is
 * no moment at which what they say is durable and the answer is not. Each answer is stamped above
 * what it answers. Whoever makes a copy later journals a hold, which is later still.
 *
 * Two processes of one id that both run answer each other, until one of them stops
 * (cluster/twin.h); whichever goes on has the last word, so neither may leave an answer out. The
 * one that holds therefore answers a few times in a while only: past that it takes nothing of what
 * it would have to answer, which comes again.
 *
 * A drop that names its object in `id` is none of that: it takes our copy along (journal/fold.c).
 *
 * Rows that come with a merge say it likewise: what a run of ours has put that is not known here,
 * and what others have heard of our holds.
 *
 * Failure: a drop that was written for events that were then refused says the truth all the same.
 */
#include "journal/journal_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Holds that are journaled as answers: so many events in so long, but all that a change needs. */
#define HOLD_ANSWERS  16
#define HOLD_WHILE_MS 10000

/* Items of one answer. */
struct answer {
    struct event_item *items;
    uint32_t count;
    hlc_time latest; /* of what says otherwise */
};

struct absent {
    struct journal *journal;
    struct answer drops, holds;
};

static int flush(struct absent *absent, struct answer *answer)
{
    struct committer *c = &absent->journal->committer;
    struct change change = {.request.kind = CHANGE_FACT};
    struct decision d = {.event = {.kind = answer == &absent->holds ? EVENT_HOLD : EVENT_DROP,
                                   .fields = EVENT_HAS_ITEMS,
                                   .items = answer->items,
                                   .item_count = answer->count}};

    if (answer->count == 0)
        return 0;
    d.event.stamp = hlc_stamp(&c->clock, env_wall_ms(absent->journal->env), answer->latest);
    answer->count = 0;
    answer->latest = 0;
    int rc = committer_event(absent->journal, &change, &d, NULL);

    c->hold_answers += rc == 0 && answer == &absent->holds;
    return rc;
}

/* The answers that are left; RC: how the looking ended. */
static int finish(struct absent *absent, int rc)
{
    if (rc == 0)
        rc = flush(absent, &absent->drops);
    if (rc == 0)
        rc = flush(absent, &absent->holds);
    free(absent->drops.items);
    free(absent->holds.items);
    return rc;
}

static int add(struct absent *absent, struct answer *answer, const struct id128 *id,
               const uint8_t *sha256, hlc_time said)
{
    if (!answer->items && !(answer->items = malloc(LIMIT_EVENT_LIST_ITEMS * sizeof *answer->items)))
        return ERR_NO_MEMORY;
    struct event_item *item = &answer->items[answer->count++];

    item->id = *id;
    memcpy(item->sha256, sha256, SHA256_BYTES);
    if (said > answer->latest)
        answer->latest = said;
    return answer->count == LIMIT_EVENT_LIST_ITEMS ? flush(absent, answer) : 0;
}

/* Whether an answer that we hold something may be begun now; what is begun is ended. */
static bool may_hold(struct absent *absent)
{
    struct committer *c = &absent->journal->committer;
    uint64_t now_ms = env_mono_ms(absent->journal->env);

    if (absent->holds.items)
        return true;
    if (c->hold_answers == 0 || now_ms >= c->hold_answers_ms + HOLD_WHILE_MS) {
        c->hold_answers = 0;
        c->hold_answers_ms = now_ms;
    }
    return c->hold_answers < HOLD_ANSWERS;
}

/* It was said at SAID that we hold (HELD) these bytes, or that we do not. */
static int look(struct absent *absent, const struct id128 *id, const uint8_t *sha256, hlc_time said,
                bool held)
{
    struct object *row;
    int rc = committer_row(absent->journal, id, &row);

    if (rc)
        return rc;
    bool here =
        row && !place_is_none(&row->place) && memcmp(row->sha256, sha256, SHA256_BYTES) == 0;
    bool matters = here != held && !(row && row->flags & OBJECT_DELETED);

    object_destroy(&row);
    if (!matters)
        return 0;
    if (held)
        return add(absent, &absent->drops, id, sha256, said);
    return may_hold(absent) ? add(absent, &absent->holds, id, sha256, said) : ERR_AGAIN;
}

/* One event that may be news; its run's head is looked up once for all of them. */
static int look_at(struct absent *absent, const struct event *event)
{
    int rc = 0;

    if (event->kind == EVENT_PUT)
        return look(absent, &event->id, event->sha256, event->stamp, true);
    if (event->kind != EVENT_HOLD && (event->kind != EVENT_DROP || fold_concerns_row(event)))
        return 0;
    for (uint32_t i = 0; rc == 0 && i < event->item_count; i++)
        rc = look(absent, &event->items[i].id, event->items[i].sha256, event->stamp,
                  event->kind == EVENT_HOLD);
    return rc;
}

/* Whether one of the runs that this node has lost put ROW's bytes. */
static bool is_lost_put(const struct change *change, const struct object *row)
{
    bool lost = false;

    for (size_t i = 0; row->flags & OBJECT_PUT && i < change->lost_run_count && !lost; i++)
        lost = id_equal(&change->lost_runs[i], &row->put_at.origin);
    return lost;
}

int absent_answer_chunk(struct journal *journal, const struct change *change, const uint8_t *chunk,
                        size_t len)
{
    struct absent absent = {.journal = journal};
    struct snapshot_reader reader;
    struct snapshot_holder holder;
    struct object *row = NULL;
    int rc = snapshot_open(&reader, chunk, len), next = 1;

    if (rc)
        return 0; /* found out, and refused, by whoever takes it */
    while (rc == 0 && next == 1 && reader.kind == SNAPSHOT_ROWS && change->lost_run_count) {
        next = snapshot_next_row(&reader, &row);
        if (next == 1 && is_lost_put(change, row))
            rc = look(&absent, &row->id, row->sha256, row->put_at.stamp, true);
        object_destroy(&row);
    }
    while (rc == 0 && next == 1 && reader.kind == SNAPSHOT_HOLDERS) {
        next = snapshot_next_holder(&reader, &holder);
        if (next == 1 && id_equal(&holder.node, &journal->node))
            rc = look(&absent, &holder.id, holder.sha256, holder.at.stamp, holder.held);
    }
    return finish(&absent, rc);
}

int absent_answer_of(struct journal *journal, const struct event *event)
{
    struct absent absent = {.journal = journal};

    /* What of ours came after a drop of ours counts. */
    return finish(&absent, event->kind == EVENT_DROP ? 0 : look_at(&absent, event));
}

int absent_answer(struct journal *journal, const struct change *change)
{
    struct absent absent = {.journal = journal};
    int rc = 0;

    for (size_t at = change->events_done; rc == 0 && at < change->events_bytes;) {
        struct event event;
        uint32_t len;

        if (change->events_bytes - at < sizeof len)
            break; /* found out, and refused, when it is its turn */
        memcpy(&len, change->events + at, sizeof len);
        at += sizeof len;
        if (len > change->events_bytes - at || event_decode(&event, change->events + at, len) != 0)
            break;
        at += len;
        if (!id_equal(&event.node, &journal->node))
            break; /* events come run by run, and a run has one author */
        const struct head *head = heads_get(&journal->committer.heads, &event.origin);
        bool own = journal->committer.chain.seq > 0 &&
                   id_equal(&event.origin, &journal->committer.chain.origin);

        if (!head)
            rc = ERR_NO_MEMORY;
        else if (!own && !head->frozen && event.seq > head->seq)
            rc = look_at(&absent, &event);
    }
    return finish(&absent, rc);
}
