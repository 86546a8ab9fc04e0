/*
 * The applier's side of a merge: who holds what, who is a member, and runs that are adopted. (Rows
 * take the way of all rows.)
 *
 * Adopting a run makes its head what the other node's vector said, with the anchor there: the
 * events up to it are not here, what they said is. A record may be met again, later than events
 * that follow it (cleaning moves it, a rebuild replays it): then only the anchor is raised, where
 * the event that it names is not here.
 */
#include "base/log.h"
#include "journal/db_cluster.h"
#include "journal/db_peers.h"
#include "journal/journal_internal.h"

#include <assert.h>
#include <string.h>

static int put_holders(struct journal *journal, struct snapshot_reader *reader)
{
    struct db *db = journal->applier.db;
    struct snapshot_holder holder;
    int rc;

    while ((rc = snapshot_next_holder(reader, &holder)) == 1) {
        bool deleted;

        rc = db_is_deleted(db, &holder.id, &deleted);
        if (rc == 0 && !deleted)
            rc = db_holder_join(db, &holder);
        if (rc)
            break;
    }
    return rc;
}

static int put_members(struct journal *journal, struct snapshot_reader *reader)
{
    struct snapshot_member member;
    int rc;

    journal->applier.members_changed = true;
    while ((rc = snapshot_next_member(reader, &member)) == 1)
        if ((rc = db_member_join(journal->applier.db, &member)) != 0)
            break;
    return rc;
}

static int put_feature(struct journal *journal, struct snapshot_reader *reader)
{
    uint32_t feature;
    int rc;

    journal->applier.members_changed = true;
    while ((rc = snapshot_next_feature(reader, &feature)) == 1)
        if ((rc = db_feature_raise(journal->applier.db, feature)) != 0)
            break;
    return rc;
}

static void anchor(struct db_origin *origin, const struct snapshot_origin *adopted)
{
    origin->anchor_seq = adopted->seq;
    memcpy(origin->anchor_hash, adopted->hash, SHA256_BYTES);
}

static int adopt(struct journal *journal, const struct snapshot_origin *adopted)
{
    struct applier *a = &journal->applier;
    struct db_origin *origin;
    bool there = true;
    int rc = applier_origin(a, &adopted->origin, &adopted->node, &origin);

    if (rc)
        return rc;
    if (adopted->seq > origin->seq) {
        origin->seq = adopted->seq;
        memcpy(origin->hash, adopted->hash, SHA256_BYTES);
        anchor(origin, adopted);
    } else if (adopted->seq > origin->anchor_seq) {
        rc = db_event_there(a->db, origin->no, adopted->seq, &there);
        if (rc)
            return rc;
        if (!there)
            anchor(origin, adopted);
    }
    origin->ended |= adopted->ended;
    origin->changed = true;
    return db_origin_set(a->db, origin);
}

static int put_origins(struct journal *journal, struct snapshot_reader *reader)
{
    struct snapshot_origin origin;
    int rc;

    while ((rc = snapshot_next_origin(reader, &origin)) == 1)
        if ((rc = adopt(journal, &origin)) != 0)
            break;
    return rc;
}

int applier_put_merge(struct journal *journal, const struct entry *entry)
{
    struct snapshot_reader reader;
    int rc;

    assert(entry->is_merge && !entry->object && entry->event_bytes > 0);
    rc = snapshot_open(&reader, entry->event, entry->event_bytes);
    assert(rc == 0); /* it was read when it became an entry */
    if (reader.kind == SNAPSHOT_HOLDERS)
        return put_holders(journal, &reader);
    if (reader.kind == SNAPSHOT_MEMBERS)
        return put_members(journal, &reader);
    if (reader.kind == SNAPSHOT_FEATURE)
        return put_feature(journal, &reader);
    return put_origins(journal, &reader);
}
