#!/usr/bin/env python3
"""Plant bugs one by one into a copy of the source; the simulated cluster has to find each of them.

usage: mutants.py BUILD COMPILE LINK LIBS [NAME]

The simulator runs seeds from 1 on, of five hours each, until one fails; the table says which, how
many hours it took in all, and what was seen.
"""
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../sim"))
import planting  # noqa: E402

# (name, what is wrong, file, text, its replacement)
MUTANTS = [
    ("hold-by-id", "a copy counts for whatever bytes are wanted under the id", "journal/decide.c",
     "        return ERR_CONFLICT;\n"
     "    if (!place_is_none(&row->place) && !(is_checked(row, request) && request->damaged))\n",
     "        out->store_body = true;\n"
     "    if (!place_is_none(&row->place) && !(is_checked(row, request) && request->damaged))\n"),
    ("hold-of-deleted", "a copy is committed without a look at the tombstone", "journal/decide.c",
     "    if (row->flags & OBJECT_DELETED)\n        return ERR_DELETED;\n"
     "    if (memcmp(row->sha256, request->sha256",
     "    if (row->flags & OBJECT_DELETED) {\n"
     "        start_event(out, request, EVENT_HOLD);\n        one_item(out, row);\n"
     "        memcpy(out->item.sha256, request->sha256, SHA256_BYTES);\n"
     "        out->store_body = true;\n        return 0;\n    }\n"
     "    if (memcmp(row->sha256, request->sha256"),
    ("drift-refusal", "events from a clock too far ahead are refused", "journal/commit_peer.c",
     "    struct head *head = heads_get(&c->heads, &event.origin);\n",
     "    if (hlc_wall_ms(event.stamp) > env_wall_ms(journal->env) + 60000)\n"
     "        return ERR_AGAIN;\n"
     "    struct head *head = heads_get(&c->heads, &event.origin);\n"),
    ("commit-of-a-gap", "events are taken though earlier ones are missing", "journal/heads.c",
     "    if (seq > head->seq + 1)\n        return ERR_AGAIN;\n",
     "    if (seq > head->seq + 1)\n        return 0;\n",
     "cluster/sync_ask.c",
     "    if (events->first > from) {",
     "    if (events->first > from && events->first == 0) {"),
    ("duplicate-applied", "an event that is here is committed once more", "journal/heads.c",
     "    if (seq < head->seq)\n        return ERR_RANGE;\n",
     "    if (seq <= head->seq)\n        return 0;\n",
     "cluster/sync_ask.c",
     "    for (uint64_t seq = events->first; seq < from; seq++) {",
     "    for (uint64_t seq = from; seq < from; seq++) {"),
    ("wrong-tie-break", "of two puts the one that comes last here wins", "journal/merge.c",
     "    if (order <= 0)\n        return changed;\n    row->flags |= OBJECT_PUT;",
     "    if (order == 0)\n        return changed;\n    row->flags |= OBJECT_PUT;"),
    ("level-of-the-last", "the level is the last writer's, not the highest", "journal/merge.c",
     "event->level > draft->row.level)",
     "event->level != draft->row.level)"),
    ("revive", "a put that comes after a delete counts", "journal/merge.c",
     "        return !deleted && fold_put(draft, event);",
     "        if (deleted)\n            draft->row.flags &= ~OBJECT_DELETED;\n"
     "        return fold_put(draft, event);"),
    ("forget-delete-of-unknown", "a delete of an id that is not known yet is dropped",
     "journal/merge.c",
     "    case EVENT_DELETE:\n        return fold_delete(draft, event);",
     "    case EVENT_DELETE:\n"
     "        return draft->row.flags & (OBJECT_PUT | OBJECT_DELETED) && fold_delete(draft, event);"),
    ("answer-before-sync", "what is synced is found out only when idle", "journal/commit.c",
     "    rc = log_sync(journal->log);\n    if (rc)\n        stop_writing",
     "    rc = c->decided_count ? 0 : log_sync(journal->log);\n    if (rc)\n        stop_writing"),
    ("copy-before-sync", "a large copy is announced before its file is synced", "storage/large_write.c",
     "        rc = io->fdatasync(io, writer->fd);",
     "        rc = 0;"),
    ("unverified-copy", "a copy's bytes are not compared with the hash they were asked by",
     "cluster/cluster_bodies.c",
     "        memcmp(object->sha256, read->sha256, SHA256_BYTES) != 0 || place_is_none(&object->place))",
     "        place_is_none(&object->place))"),
    ("lost-credit", "bytes that a copy has written give no credit back", "cluster/replica.c",
     "        cluster_fetch_consumed(r->host->cluster, &r->reader, taken);\n",
     ""),
    ("push-before-sync", "events go to peers before they are synced", "journal/commit.c",
     "            rc = write_batch(journal);\n            if (rc)\n"
     "                void_batch(journal, &chain, rc);\n            else\n"
     "                publish_batch(journal);\n",
     "            static struct journal *late;\n\n"
     "            rc = late == journal ? write_batch(journal) : log_write(journal->log);\n"
     "            late = late == journal ? NULL : journal;\n            if (rc)\n"
     "                void_batch(journal, &chain, rc);\n            else\n"
     "                publish_batch(journal);\n"),
    ("no-repair", "who fell out of step is never asked", "cluster/sync_ask.c",
     "    return peer->has_summary && !sync_was_ours(core, &peer->summary);",
     "    return peer->has_summary && peer->backoff_ms == 1 && !sync_was_ours(core, &peer->summary);"),
    ("stale-link", "a node that has moved is talked to at its old address",
     "cluster/cluster_peers.c",
     "    memcpy(peer->address, text, sizeof peer->address);\n    drop_link(cluster, peer);\n",
     "    memcpy(peer->address, text, sizeof peer->address);\n"),
    ("frozen-applied", "runs go on with old numbers, and events of frozen runs are taken", "journal/commit.c",
     "            c->chain.follows.seq = o->seq;\n",
     "            c->chain.origin = o->origin;\n            c->chain.seq = o->seq;\n"
     "            memcpy(c->chain.hash, o->hash, SHA256_BYTES);\n"
     "            c->chain.follows.seq = o->seq;\n",
     "journal/freeze.c",
     "    if (head->frozen)\n        return refuse(journal, head);\n    if (own) {",
     "    if (own) {"),
    # Cleaning itself looks whether the segment is empty before it is removed; so that goes, too.
    ("clean-on-a-hold", "cleaning leaves behind what every node should have",
     "journal/commit_move.c",
     "                         : place_equal(&before->place, &change->move_from));",
     "                         : place_equal(&before->place, &change->move_from) &&\n"
     "                               before->level < 2);",
     "journal/clean.c",
     "        rc = applier_segment_empty(journal, cleaner->volume)\n",
     "        rc = applier_segment_empty(journal, cleaner->volume) || !cleaner->unlinked\n"),
    ("tombstone-not-given", "who merges with a node does not hear of its deletes",
     "journal/db_merge.c",
     "    return snapshot_add_row(&f->rows, row);",
     "    return row->flags & OBJECT_DELETED ? 0 : snapshot_add_row(&f->rows, row);"),
    ("adopt-early", "a vector is adopted before the rows that it stands for", "cluster/merge_ask.c",
     "    a->phase = PHASE_CHUNKS;\n    if (a->want_known)",
     "    a->phase = PHASE_ADOPT;\n    a->adopt_next = 0;\n    if (a->want_known)"),
    ("wrong-resume", "the next holder is asked from a little further on", "cluster/fetch.c",
     "        fetches->stats.gaps++;\n        leave_holder",
     "        fetches->stats.gaps++;\n        fetch->at = data->offset;\n        leave_holder"),
    ("cloud-takeover-at-once", "nobody waits for whoever comes before him", "cluster/owed.c",
     "        if (node && until_ms > now_ms) {",
     "        if (node && until_ms > now_ms + (1u << 30)) {"),
    ("cloud-no-takeover", "what an absent node owes is left to it", "cluster/owed.c",
     "        if (node && until_ms > now_ms) {",
     "        if (node) {"),
    ("cloud-own-copies", "who copies a body takes its upload for his own", "cluster/cluster_journal.c",
     "put = news->kind == EVENT_PUT && own;",
     "put = own;"),
    ("cloud-unknown-is-done", "an upload without an answer counts as done", "cluster/upload.c",
     "    if (rc)\n        return end(u, OWED_FAILED, rc);\n    if (u->kind == OUTBOX_MARK) {",
     "    if (rc && rc != ERR_TIMEOUT && rc != ERR_AGAIN)\n        return end(u, OWED_FAILED, rc);\n"
     "    if (u->kind == OUTBOX_MARK) {"),
    ("cloud-mark-unwritten", "a mark that failed is noted as written", "cluster/upload.c",
     "    if (rc)\n        return end(u, OWED_FAILED, rc);\n    if (u->kind == OUTBOX_MARK) {",
     "    if (rc && u->kind != OUTBOX_MARK)\n        return end(u, OWED_FAILED, rc);\n"
     "    if (u->kind == OUTBOX_MARK) {"),
    ("cloud-purge-unheard", "a removal without an answer counts as done", "cluster/upload.c",
     "        return rc ? end(u, OWED_FAILED, rc) : REMOVE_SIDECAR;",
     "        return rc && rc != ERR_TIMEOUT ? end(u, OWED_FAILED, rc) : REMOVE_SIDECAR;"),
    ("cloud-purge-of-all", "a purge also speaks for what was uploaded meanwhile", "journal/decide.c",
     "out->event.removed = request->removed.stamp ? request->removed : object_removes(row);",
     "out->event.removed = object_removes(row);"),
    ("cloud-not-started", "that an upload starts is not journaled", "cluster/upload.c",
     "[OUTBOX_UPLOAD] = START,",
     "[OUTBOX_UPLOAD] = PUT,"),
    ("cloud-clash", "two uploads of different bytes under one id are as good as one",
     "journal/apply_entry.c",
     "    if (!entry->doubt.stamp)\n        return 0;\n    if (is_own(",
     "    return 0;\n    if (is_own("),
    ("cloud-head-is-enough", "whatever lies under the key is taken for the body", "cluster/upload.c",
     "        return same && u->found_size == object->size ?",
     "        return u->found && u->found_size == object->size ?"),
    ("cloud-doubt-forgotten", "what a crash left in doubt is never looked at", "cluster/owed.c",
     "OUTBOX_PURGE, OUTBOX_MARK, OUTBOX_BEGUN};",
     "OUTBOX_PURGE, OUTBOX_MARK};"),
    ("cloud-breaker-stuck", "a cloud that was given up once is never asked again",
     "cluster/breaker.c",
     "    breaker->until_ms = now_ms + told + breaker_backoff_ms(breaker->delays, dice);",
     "    breaker->until_ms = UINT64_MAX;"),
    ("cloud-each-asks", "each node takes itself for the one that fetches for all",
     "cluster/cluster_pull.c",
     "        if (its > best) {",
     "        if (its > best && count == 0) {"),
    ("cloud-before-members", "the cloud is asked before the members that have it",
     "cluster/cluster_pull.c",
     "            rc = ask->fetch.cloud ? ask_members(cluster, ask, false) : ERR_NOT_FOUND;",
     "            rc = ERR_NOT_FOUND;"),
    ("cloud-nobody-lends", "who fetches for all gives only what is whole there",
     "cluster/cluster_lend.c",
     "    if (!lender.open)",
     "    if (lender.open)"),
    ("cloud-lent-and-lost", "what was fetched for others is not kept for the next of them",
     "api/lender.c",
     "    if (buf_check(&head) == 0)\n        ram_fill(",
     "    if (buf_check(&head) != 0)\n        ram_fill(",
     "api/peer_body.c",
     "    if (body->rc || !body->reader.from_cloud",
     "    if (body->rc <= 0 || !body->reader.from_cloud"),
    ("cloud-small-each", "each client of a small body has it fetched", "api/peer_body.c",
     "    struct peer_body **link = link_of(bodies, &origin->id, origin->sha256);\n"
     "    *out = *link;\n    if (!*link) {",
     "    struct peer_body **link = link_of(bodies, &origin->id, origin->sha256), *none = NULL;\n"
     "    if (*link)\n        link = &none;\n    *out = *link;\n    if (!*link) {"),
    ("cloud-adopt-deleted", "an id whose mark says that it was deleted is found again",
     "cluster/cloud_look.c",
     "    if (look->mark.len && look->mark_rc == 0)\n        rc = ERR_DELETED;\n    else if",
     "    if"),
    ("cloud-seek-each", "what the ancestor put is read by every node that is asked for it",
     "api/adoption.c",
     "    if (!adoption->delegated)", "    if (!adoption)"),
]


def try_out(program):
    """(caught, what it took, the first line that told of it)"""
    jobs = str(os.cpu_count() or 2)
    text, failed = planting.run_for([program, "--seeds=1..40", "--first", "--jobs=" + jobs])
    seed = re.search(r"^FAILED: seed (\d+)", text, re.MULTILINE)
    told = re.search(r"^FAILED: .*", text, re.MULTILINE)
    return (failed and told is not None, f"seed {seed.group(1) if seed else '-':>2}",
            told.group(0)[8:] if told else "")


planting.plant("cluster-sim-mutants", MUTANTS,
               ["obj/tests/cluster_sim/*.o", "obj/tests/sim/sim_disk.o", "obj/tests/sim/sim_inode.o",
                "obj/tests/sim/sim_check_store.o"], try_out)
