/*
 * What the applier tells others once it is in SQLite: the cluster of runs that went on, of members
 * and of copies; the janitor of facts that are to be journaled again.
 *
 * Happy path: a transaction has been committed → applier_tell_copies, while its entries are still
 * there → applier_tell, one call for each run that changed and one for the totals →
 * applier_tell_janitor. Nothing is said of what a crash could take back. It cannot fail.
 */
#include "journal/journal_internal.h"

/* What it hears is in SQLite. */
void applier_tell(struct journal *journal)
{
    struct applier *a = &journal->applier;
    struct journal_news news = {.digest = a->state.digest,
                                .events = a->state.events,
                                .event_bytes = a->state.event_bytes,
                                .rows = a->state.objects + a->state.deleted};

    if (!journal->listener)
        return;
    pthread_mutex_lock(&journal->lock);
    struct id128 run = journal->run;
    pthread_mutex_unlock(&journal->lock);
    for (size_t i = 0; i < a->origin_count; i++) {
        struct db_origin *origin = &a->origins[i];

        if (!origin->changed)
            continue;
        origin->changed = false;
        news.origin = origin;
        news.own = id_equal(&origin->origin, &run);
        journal->listener(journal->listener_arg, &news);
    }
    news.origin = NULL;
    news.own = false;
    news.members = a->members_changed;
    a->members_changed = false;
    journal->listener(journal->listener_arg, &news);
}

void applier_count_frozen(struct journal *journal)
{
    const struct applier *a = &journal->applier;
    uint64_t frozen = 0;

    for (size_t i = 0; i < a->origin_count; i++)
        frozen += a->origins[i].frozen;
    atomic_store(&journal->frozen_runs, frozen);
}

void applier_tell_janitor(struct journal *journal)
{
    if (!journal->applier.restate_changed)
        return;
    journal->applier.restate_changed = false;
    applier_count_frozen(journal);
    atomic_store(&journal->restate.due, true);
    pthread_mutex_lock(&journal->lock);
    pthread_cond_broadcast(&journal->upkeep);
    pthread_mutex_unlock(&journal->lock);
}

static bool concerns_copies(const struct entry *entry)
{
    switch (entry->kind) {
    case EVENT_PUT:
    case EVENT_META:
    case EVENT_HOLD:
    case EVENT_DROP:
    case EVENT_DELETE:
    case EVENT_CLOUD:
        return entry->adds_event;
    default:
        return false;
    }
}

static bool owes_more(const struct entry *entry)
{
    return (entry->owed_changed && entry->owed_after) ||
           (entry->mark_changed && entry->mark_after) ||
           (entry->purge_changed && entry->purge_after);
}

void applier_tell_copies(struct journal *journal, const struct entry *first)
{
    bool merged = false;

    if (!journal->copies_listener)
        return;
    for (const struct entry *entry = first; entry; entry = entry->next) {
        merged |= entry->is_merge;
        if (!concerns_copies(entry))
            continue;
        bool wanted = entry->wanted_changed && entry->wanted_after;
        const struct journal_copy_news news = {.event = entry->event,
                                               .len = entry->event_bytes,
                                               .wanted = wanted ? &entry->object->id : NULL,
                                               .owed = owes_more(entry) ? &entry->object->id : NULL,
                                               .kind = entry->kind,
                                               .node = &entry->node,
                                               .row = entry->object};

        journal->copies_listener(journal->copies_arg, &news);
    }
    if (merged)
        journal->copies_listener(journal->copies_arg, &(struct journal_copy_news){.event = NULL});
}
