#!/usr/bin/env python3
"""Plant bugs one by one into a copy of the source; the simulator has to find each of them.

usage: mutants.py BUILD COMPILE LINK LIBS [NAME]

The simulator runs seeds from 1 on until one fails; the table says which, how many crash points it
took, and what was seen.
"""
import os
import re

import planting

# (name, what is wrong, file, text, its replacement)
MUTANTS = [
    ("drop-log-sync", "the commit log is never synced", "storage/log_write.c",
     "rc = log->io->fdatasync(log->io, segment->fd);",
     "rc = 0;"),
    ("answer-before-sync", "answers before the sync", "journal/commit.c",
     """            rc = write_batch(journal);
            if (rc)
                void_batch(journal, &chain, rc);
            else
                publish_batch(journal);
""",
     """            rc = log_write(journal->log);
            if (rc) {
                void_batch(journal, &chain, rc);
            } else {
                unsigned early = (unsigned)c->decided_count;

                publish_batch(journal);
                answer(c);
                rc = log_sync(journal->log);
                return early;
            }
"""),
    ("no-position", "rows are applied without the log position", "journal/apply.c",
     "    a->state.position = position;\n",
     "    (void)position;\n"),
    ("position-too-high", "the position counts what is not applied yet", "journal/apply.c",
     "rc = applier_commit(journal, last->batch_end);",
     "rc = applier_commit(journal, last->batch_end == 1 ? 1 : log_end(journal->log));"),
    ("free-at-applied", "space is freed at the applied position", "journal/clean.c",
     "lsn_t position = journal->durable_position;",
     "lsn_t position = journal->acked.position;"),
    ("ignore-bad-block", "a block with a wrong checksum is served from a segment",
     "storage/log.c",
     "    return record_verify_body(out);",
     "    (void)record_verify_body(out);\n    return 0;"),
    ("ignore-bad-large-block", "a block with a wrong checksum is served from a large file",
     "storage/large_read.c",
     "    if (sum != block_checksum(buf, bytes, index))\n        return ERR_CORRUPT;",
     "    (void)sum;"),
    ("cut-at-first-bad", "recovery cuts the log at the first bad record", "storage/log_recover.c",
     "    if (r->synced > segment->base)\n        line =",
     "    if (r->synced == LSN_LIMIT)\n        line ="),
    ("skip-dir-sync", "the directory of a renamed file is not synced", "base/io.c",
     "    rc = io->sync_dir(io, parent);\nout:\n    free(temporary);",
     "out:\n    free(temporary);"),
    ("reuse-seq", "a run goes on with the numbers of the one before", "journal/commit.c",
     "            c->chain.follows.seq = o->seq;\n",
     "            c->chain.origin = o->origin;\n            c->chain.seq = o->seq > 1 ? o->seq - 1 : 0;\n"),
    ("move-without-compare", "a move takes effect wherever the body is by now",
     "journal/commit_move.c",
     "                         : place_equal(&before->place, &change->move_from));",
     "                         : change->move_from.volume != 0);"),
    ("apply-before-sync", "recovery applies what it reads from the cache, unsynced",
     "storage/log_recover.c",
     "    if (!r->clean) {\n        int rc = log->io->fdatasync(log->io, segment->fd);",
     "    if (r->clean && seen->broken) {\n        int rc = log->io->fdatasync(log->io, segment->fd);"),
    ("skip-large-sync", "a large file is committed unsynced", "storage/large_write.c",
     "        rc = io->fdatasync(io, writer->fd);",
     "        rc = 0;"),
    ("skip-settle", "large files keep their temporary names, and the start clears them",
     "journal/apply.c",
     "rc = large_settle(journal->large, a->settle, a->settle_count);",
     "rc = 0;"),
    ("leave-failed-write", "a failed write is not undone on the disk", "storage/log_write.c",
     "    int cut = log->io->truncate(log->io, segment->fd, start);",
     "    int cut = 0;"),
    ("retry-sync", "a failed sync is tried again", "storage/log_write.c",
     '            poison(log, "sync", segment->volume, rc);\n',
     '            log_error("sync: %s", err_text(rc));\n'),
    ("claim-synced", "a batch claims that it is synced itself", "storage/log_write.c",
     "        .synced_through = atomic_load(&log->durable),",
     "        .synced_through = segment->base + end,"),
    ("torn-body", "recovery takes an unsynced batch without looking at its bodies",
     "storage/log_recover.c",
     "            rc = record_verify_body(&view);\n        if (!rc && (view",
     "            rc = 0;\n        if (!rc && (view"),
    ("torn-large", "recovery takes an unsynced batch without looking for its large files",
     "storage/log_recover.c",
     "        if (!rc && (view.header.flags & RECORD_LARGE) && r->check_large)",
     "        if (!rc && (view.header.flags & RECORD_LARGE) && !r->check_large)"),
    ("keep-chain", "a voided batch keeps its numbers", "journal/commit.c",
     "    c->first = c->last = NULL;\n    c->chain = *chain;\n",
     "    c->first = c->last = NULL;\n    (void)chain;\n"),
    ("stale-ram", "the RAM tier does not hear of a change", "journal/commit.c",
     "    ram_invalidate(ram, &object->id);\n",
     ""),
    ("vfs-no-sync", "SQLite's syncs do nothing", "journal/vfs.c",
     "    rc = flags & SQLITE_SYNC_DATAONLY ? io->fdatasync(io, file->fd) : io->fsync(io, file->fd);",
     "    (void)flags, (void)io;"),
    ("unlink-early", "a segment goes before its moves are durable", "journal/clean.c",
     """    if (durable_position(journal) < cleaner->moved_through || atomic_load(&journal->holds) ||
        durable_position(journal) < applier_segment_settled(journal, cleaner->volume))
""",
     "    if (!durable_position(journal) || atomic_load(&journal->holds))\n"),
    ("revive", "a put of a deleted id counts", "journal/decide.c",
     "    if (row && row->flags & OBJECT_DELETED)\n        return ERR_DELETED;\n    return condition_holds",
     "    return condition_holds"),
    ("trim-early", "covered events go before the snapshot is complete", "journal/trim.c",
     """                                         : put_cuts(journal->applier.db, &reader);
""",
     """                                         : put_cuts(journal->applier.db, &reader);
    if (rc == 0 && reader.kind == SNAPSHOT_ORIGINS) {
        struct db_snapshot early = {
            .id = reader.snapshot, .position = entry->lsn, .chunks = 1};

        rc = db_snapshot_set(journal->applier.db, &early);
        journal->applier.snapshots_changed = true;
    }
"""),
    ("endless-snapshot", "a snapshot without its end counts as whole", "journal/snapshot_load.c",
     """    if (reader.kind == SNAPSHOT_END)
        noted->has_end |= snapshot_next_end(&reader, &noted->end) == 1;
""",
     """    struct snapshot_begin first;

    if (reader.kind == SNAPSHOT_END)
        noted->has_end |= snapshot_next_end(&reader, &noted->end) == 1;
    else if (reader.kind == SNAPSHOT_BEGIN && snapshot_next_begin(&reader, &first) == 1)
        noted->end.position = first.position, noted->whole = true;
    if (!noted->has_end)
        noted->end.chunks = (uint32_t)noted->count;
"""),
    ("cover-too-much", "a snapshot claims what was written while it was made", "journal/compact.c",
     "        .position = c->position, .previous",
     "        .position = log_end(journal->log), .previous"),
    ("skip-unreadable", "what the disk cannot read now counts as rot", "storage/log.c",
     "    log->refused_offset = scan->window.unreadable;\n    pthread_mutex_unlock(&log->mutex);\n    return ERR_IO;",
     "    log->refused_offset = scan->window.unreadable;\n    pthread_mutex_unlock(&log->mutex);\n    return 0;"),
    ("cloud-delete-forgets", "a delete forgets where the cloud has the copy", "journal/merge.c",
     "                               .uploaded_at = row->uploaded_at,\n",
     ""),
    ("cloud-second-purge", "a purge that a second delete asks for is passed over",
     "journal/decide.c",
     "if (row && row->flags & OBJECT_DELETED && (!request->purge || row->flags & OBJECT_PURGE))",
     "if (row && row->flags & OBJECT_DELETED)"),
    ("cloud-late-upload", "what is uploaded after a purge counts as purged", "journal/merge.c",
     "row->purged_of.stamp > 0 && reg_compare(&row->purged_of, &row->uploaded_at) >= 0;",
     "row->purged_of.stamp > 0;"),
    ("cloud-begun-compacted", "a snapshot leaves out what was begun", "journal/compact.c",
     "        c->phase = COMPACT_BEGUN;\n",
     "        c->phase = COMPACT_GARBAGE;\n"),
    ("cloud-begun-unended", "an upload that ended stays listed as begun", "journal/apply_entry.c",
     "    bool begins = entry->cloud_state == CLOUD_STARTED;\n",
     "    bool begins = entry->cloud_state != CLOUD_PURGED;\n"),
    ("cloud-marks-lost", "a rebuild does not list the marks that a snapshot's rows owe",
     "journal/snapshot_load.c",
     "        {OUTBOX_MARK, object_owes_mark(object)},\n",
     ""),
    ("cloud-uploads-stay", "an upload stays owed after it is done", "journal/fold.c",
     "        owed != entry->owed_after ||",
     "        owed < entry->owed_after ||"),
]



def try_out(program):
    """(caught, seeds, crash points, the first line that told of it)"""
    jobs = str(os.cpu_count() or 2)
    text, failed = planting.run_for([program, "--seeds=1..40", "--first", "--jobs=" + jobs])
    seeds = re.search(r"found it, number (\d+)", text)
    points = re.search(r"(\d+) crash points", text)
    told = re.search(r"^FAILED: .*", text, re.MULTILINE)
    return (failed and told is not None,
            f"{seeds.group(1) if seeds else '-':>2} seeds"
            f" {points.group(1) if points else '-':>6} points",
            told.group(0)[8:] if told else "")


planting.plant("sim-mutants", MUTANTS, ["obj/tests/sim/*.o"], try_out)
