/*
 * Start-up: finding the log's end and handing over what the database has not applied yet.
 *
 * Two kinds of damage must not be mixed up. A torn tail was never acknowledged: it is cut off, for
 * good, so that no later recovery sees it in another light. Rot hit what was acknowledged: it is
 * skipped, counted and reported, what is whole around it is delivered, and it is never cut. The
 * line between them is the highest position known to have been synced. A batch tells it of all that
 * came before; the last batch with anything to tell is near the end. So recovery goes twice:
 *
 *   survey    from the last segment backwards to the first that holds a batch: the highest
 *             synced_through, and where the batches end
 *   delivery  from FROM forward: below that line everything that is whole, damage or not; above it
 *             batch by batch, each only if all its records, bodies and large files are right, until
 *             the first that is not
 *
 * FROM may lie inside a batch; delivery then begins with that batch and leaves out what is below.
 *
 *   after an unclean start   every file read is synced and dropped from the cache first; what is
 * read is on the disk. All segments are sealed, behind the last batch cut to size. after a clean
 * stop       zeros where the next batch would be are taken for the end; the last segment is written
 * further, an empty one after it is the prepared next.
 *
 * Where the disk refuses to read (ERR_IO) there may be what was acknowledged, to be read another
 * time. So that is neither rot nor a torn tail: recovery fails at the first record that it might
 * cost, unless the caller has given up what cannot be read (skip_unreadable). Bodies that cannot be
 * read harm no start where what was synced is whole without them.
 */
#include "storage/log_internal.h"

#include "base/log.h"

#include <assert.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>

/* Lines written about single rotten places; the rest is in the totals. */
#define ROT_LINES 16

/* What is known of one segment that is being recovered. */
struct seen {
    bool prepared; /* synced, dropped from the cache, size known */
    bool broken;   /* its header cannot be trusted */
    bool has_batches;
    uint64_t size;
    uint64_t start; /* where to begin reading */
    uint64_t end;   /* where its last batch ends */
    bool dirty;     /* something that is no batch, nor zeros, lies behind */
    uint64_t last_checksum;
};

struct recovery {
    struct log *log;
    lsn_t from;
    lsn_t synced; /* all below is known to have been synced */
    bool clean;
    int (*visit)(void *arg, const struct record_view *view, const struct place *place);
    int (*check_large)(void *arg, const struct record_header *header);
    void *arg;
    struct log_recovery *out;
    struct seen *seen; /* for each segment of the log */
    size_t first;      /* the segment that FROM lies in */
    bool unreadable;   /* the disk refused to read something, and where it did so last */
    size_t unreadable_in;
    uint64_t unreadable_at;
    unsigned rot_lines;
};

/* The end of a delivery, as a "return code": a torn tail begins in the present segment. No error is
 * positive, and what a visitor returns is not mistaken for it. */
enum { CUT = INT_MAX };

/* ---- Access ---- */

/* Make sure that what will be read of a segment is what is on the disk. It is held and open. */
static int settle_file(struct recovery *r, const struct segment *segment, struct seen *seen)
{
    struct log *log = r->log;
    struct io_stat stat;

    if (!r->clean) {
        int rc = log->io->fdatasync(log->io, segment->fd);
        if (!rc)
            rc = log->io->drop_cache(log->io, segment->fd);
        if (rc)
            return rc;
    }
    int rc = log->io->stat_fd(log->io, segment->fd, &stat);
    if (rc)
        return rc;
    seen->size = stat.size_bytes;
    return 0;
}

/* Look at segment I for the first time. */
static int prepare_segment(struct recovery *r, size_t i)
{
    struct seen *seen = &r->seen[i];
    struct segment *segment;

    if (seen->prepared)
        return 0;
    int rc = log_take(r->log, r->log->segments[i]->volume, &segment);
    if (rc)
        return rc;
    seen->start = seen->end = SEGMENT_HEADER_BYTES;
    rc = log_need_file(r->log, segment);
    if (rc == ERR_IO) {
        const struct scan header = {.window = {.unreadable = 0}};

        rc = log_refuse_gap(r->log, segment, &header);
        if (!rc)
            rc = ERR_CORRUPT;
    }
    if (rc == ERR_CORRUPT) {
        log_error("log: segment %08" PRIx32 " has a damaged header; nothing in it can be read",
                  segment->volume);
        /* It was there before the first batch: all that the file holds counts as written, else the
         * log would seem to end before it. */
        seen->broken = true;
        seen->size = segment->filled;
        seen->end = log_align(segment->exact ? segment->end : segment->filled, BATCH_ALIGN);
        rc = 0;
    } else if (!rc) {
        rc = settle_file(r, segment, seen);
    }
    seen->prepared = !rc;
    log_give(r->log, segment);
    return rc;
}

/* Begin to walk along segment I, which is held until end_scan, also after a failure. */
static int begin_scan(struct recovery *r, size_t i, struct scan *scan)
{
    struct log *log = r->log;
    struct segment *segment;

    *scan = (struct scan){.window = {.unreadable = UINT64_MAX}};
    int rc = log_take(log, log->segments[i]->volume, &segment);
    assert(rc == 0);
    rc = log_need_file(log, segment);
    if (rc)
        return rc;
    rc = scan_init(scan, log->io, segment->fd, r->seen[i].size, segment->base, segment->salt,
                   r->seen[i].start);
    scan->trust_zeros = r->clean;
    scan->durable = r->synced;
    if (r->from > segment->base)
        scan->window.needed = r->from - segment->base;
    return rc;
}

static void end_scan(struct recovery *r, size_t i, struct scan *scan)
{
    if (scan->window.unreadable != UINT64_MAX) {
        r->unreadable = true;
        r->unreadable_in = i;
        r->unreadable_at = scan->window.unreadable;
    }
    scan_release(scan);
    log_give(r->log, r->log->segments[i]);
}

/* ---- Survey ---- */

/* Find where the reading of segment I begins: the batch around FROM, or its first one. */
static int find_start(struct recovery *r, size_t i)
{
    const struct segment *segment = r->log->segments[i];
    struct scan scan;

    if (i != r->first || r->from <= segment->base + SEGMENT_HEADER_BYTES)
        return 0;
    int rc = begin_scan(r, i, &scan);
    if (!rc)
        rc = scan_seek(&scan, r->from - segment->base);
    if (!rc)
        r->seen[i].start = scan.offset;
    end_scan(r, i, &scan);
    return rc;
}

static int survey_segment(struct recovery *r, size_t i)
{
    struct seen *seen = &r->seen[i];
    struct scan_item item;
    struct scan scan;

    int rc = prepare_segment(r, i);
    if (rc || seen->broken)
        return rc;
    rc = find_start(r, i);
    if (rc)
        return rc;
    rc = begin_scan(r, i, &scan);
    seen->end = seen->start;
    while (!rc) {
        rc = scan_next(&scan, &item);
        if (rc || item.kind == SCAN_TAIL)
            break;
        if (item.kind == SCAN_DAMAGE)
            continue;
        seen->has_batches = true;
        seen->end = item.to;
        seen->last_checksum = item.header.checksum;
        if (item.header.synced_through > r->synced)
            r->synced = item.header.synced_through;
    }
    if (!rc)
        seen->dirty = item.to > item.from;
    end_scan(r, i, &scan);
    return rc;
}

static int survey(struct recovery *r)
{
    for (size_t i = r->log->count; i-- > r->first;) {
        int rc = survey_segment(r, i);
        if (rc)
            return rc;
        if (r->seen[i].has_batches)
            return 0;
    }
    return 0;
}

/* ---- Delivery ---- */

static int deliver(struct recovery *r, const struct segment *segment,
                   const struct record_view *view)
{
    struct place place = {
        .disk = segment->disk,
        .volume = segment->volume,
        .offset = view->lsn - segment->base,
        .lsn = view->lsn,
    };
    int rc = r->visit(r->arg, view, &place);

    if (!rc)
        r->out->records++;
    return rc;
}

static void count_rot(struct recovery *r, const struct segment *segment, uint64_t from,
                      uint64_t bytes, uint64_t records)
{
    r->out->rotten_bytes += bytes;
    r->out->rotten_records += records;
    if (r->rot_lines++ < ROT_LINES)
        log_error("log: segment %08" PRIx32 ": %" PRIu64 " bytes from %" PRIu64
                  " on were durable and are damaged now",
                  segment->volume, bytes, from);
}

/* [FROM, TO) of SEGMENT is damaged and was synced; what claims to begin there has CLAIMED records.
 * Deliver those that are still whole. */
static int take_rot(struct recovery *r, struct scan *scan, const struct segment *segment,
                    uint64_t from, uint64_t to, uint32_t claimed)
{
    uint64_t at = from, found = 0, saved_bytes = 0;
    struct record_view view;
    int rc;

    if (segment->base + to <= r->from)
        return 0;
    while ((rc = scan_salvage(scan, &at, to, &view)) == 1) {
        found++;
        if (view.lsn < r->from)
            continue;
        /* What was written after the last sync may have been voided. */
        if (view.lsn >= r->synced)
            break;
        rc = log_refuse_gap(r->log, segment, scan);
        if (rc)
            return rc;
        saved_bytes += record_bytes(&view.header);
        rc = deliver(r, segment, &view);
        if (rc)
            return rc;
    }
    if (rc < 0)
        return rc;
    rc = log_refuse_gap(r->log, segment, scan);
    if (rc)
        return rc;
    if (segment->base + from < r->from)
        from = r->from - segment->base;
    assert(saved_bytes <= to - from);
    /* Without a header to ask, somebody's record was there, unless others were found. */
    uint64_t lost = claimed > found ? claimed - found : claimed == 0 && found == 0;
    count_rot(r, segment, from, to - from - saved_bytes, lost);
    return 0;
}

/* Whether all of an unsynced batch is there: 0, CUT, or an error. */
static int check_batch(struct recovery *r, struct scan *scan, const struct scan_item *item)
{
    uint64_t at = item->from + BATCH_HEADER_BYTES;
    struct record_view view;
    int rc;

    if (item->chain_broken)
        return CUT;
    while (scan_record(scan, item, &at, &view, &rc)) {
        if (!rc)
            rc = record_verify_body(&view);
        if (!rc && (view.header.flags & RECORD_LARGE) && r->check_large)
            rc = r->check_large(r->arg, &view.header);
        if (rc == ERR_CORRUPT || rc == ERR_NOT_FOUND)
            return CUT;
        if (rc)
            return rc;
    }
    return 0;
}

static int take_batch(struct recovery *r, struct scan *scan, const struct segment *segment,
                      const struct scan_item *item)
{
    uint64_t at = item->from + BATCH_HEADER_BYTES;
    struct record_view view;
    int rc;

    if (item->header.hlc > r->out->hlc)
        r->out->hlc = item->header.hlc;
    if (item->header.lsn + item->header.length_bytes <= r->from)
        return 0;
    if (item->header.lsn >= r->synced) {
        rc = check_batch(r, scan, item);
        if (rc)
            return rc;
    }
    r->out->batches++;
    for (uint64_t before = at; scan_record(scan, item, &at, &view, &rc); before = at) {
        if (rc && rc != ERR_CORRUPT)
            return rc;
        if (segment->base + before < r->from)
            continue;
        if (rc) {
            rc = log_refuse_gap(r->log, segment, scan);
            if (rc)
                return rc;
            count_rot(r, segment, before, at - before, 1);
            continue;
        }
        rc = deliver(r, segment, &view);
        if (rc)
            return rc;
    }
    return 0;
}

/* Where segment I must have ended, as others tell: 0 where nobody does. */
static int told_end(struct recovery *r, size_t i, uint64_t *out)
{
    const struct segment *segment = r->log->segments[i];
    struct scan_item item;
    struct scan scan;

    *out = segment->exact ? segment->end : 0;
    if (segment->exact || i + 1 == r->log->count)
        return 0;
    int rc = prepare_segment(r, i + 1);
    if (rc || r->seen[i + 1].broken)
        return rc;
    /* The first batch of a segment is written once all before it is synced. */
    rc = begin_scan(r, i + 1, &scan);
    scan.trust_zeros = true;
    scan.durable = 0;
    if (!rc)
        rc = scan_next(&scan, &item);
    if (!rc && item.kind == SCAN_BATCH && item.header.synced_through > segment->base &&
        item.header.synced_through - segment->base <= r->seen[i].size)
        *out = item.header.synced_through - segment->base;
    else if (!rc && item.kind != SCAN_BATCH)
        rc = log_refuse_gap(r->log, r->log->segments[i + 1], &scan);
    end_scan(r, i + 1, &scan);
    return rc;
}

/* [FROM, TO) of segment I is damaged; what claims to begin there has CLAIMED records. It is rot as
 * far as it is known to have been synced, a torn tail beyond. */
static int take_damage(struct recovery *r, struct scan *scan, size_t i, uint64_t from, uint64_t to,
                       uint32_t claimed)
{
    const struct segment *segment = r->log->segments[i];
    uint64_t line = 0;

    if (r->synced > segment->base)
        line = log_align(r->synced - segment->base, BATCH_ALIGN);
    if (from < line) {
        int rc = take_rot(r, scan, segment, from, to < line ? to : line, claimed);
        if (rc)
            return rc;
    }
    if (to <= line)
        return 0;
    r->seen[i].end = from < line ? line : from;
    return CUT;
}

/* The rest of segment I, from ITEM on, holds no batch: 0, CUT, or an error. */
static int take_tail(struct recovery *r, struct scan *scan, size_t i, const struct scan_item *item)
{
    struct seen *seen = &r->seen[i];
    uint64_t used = item->to, told;
    int rc = told_end(r, i, &told);

    if (rc)
        return rc;
    if (told > used)
        used = told;
    seen->end = item->from;
    seen->dirty = used > item->from;
    if (!seen->dirty)
        return 0;
    rc = take_damage(r, scan, i, item->from, used, item->header.records);
    if (!rc)
        seen->end = log_align(used, BATCH_ALIGN);
    return rc;
}

/* Deliver segment I: 0, CUT with seen->end set to where, or an error. */
static int take_segment(struct recovery *r, size_t i)
{
    struct segment *segment = r->log->segments[i];
    struct seen *seen = &r->seen[i];
    struct scan_item item;
    struct scan scan;

    int rc = prepare_segment(r, i);
    if (rc)
        return rc;
    if (seen->broken) {
        if (seen->size > SEGMENT_HEADER_BYTES) {
            count_rot(r, segment, 0, seen->size, 1);
            seen->dirty = true;
        }
        return 0;
    }
    if (i == r->first && seen->start == SEGMENT_HEADER_BYTES)
        rc = find_start(r, i);
    if (rc)
        return rc;
    rc = begin_scan(r, i, &scan);
    while (!rc) {
        rc = scan_next(&scan, &item);
        if (rc)
            break;
        if (item.kind == SCAN_TAIL) {
            rc = take_tail(r, &scan, i, &item);
            break;
        }
        if (item.kind == SCAN_BATCH) {
            rc = take_batch(r, &scan, segment, &item);
            seen->has_batches = true;
            seen->last_checksum = item.header.checksum;
            if (rc == CUT)
                seen->end = item.from;
        } else {
            rc = take_damage(r, &scan, i, item.from, item.to, item.header.records);
        }
    }
    end_scan(r, i, &scan);
    return rc;
}

/* ---- The log's new shape ---- */

/* Cut the file of segment I to END bytes, durably, unless it is not longer. */
static int cut_segment(struct recovery *r, size_t i, uint64_t end)
{
    struct log *log = r->log;

    if (r->seen[i].size <= end)
        return 0;
    if (log->segments[i]->read_only)
        return ERR_FORMAT;
    char *path = log_path(log, log->segments[i]->volume);
    if (!path)
        return ERR_NO_MEMORY;
    int fd = io_open(log->io, path, IO_WRITE);
    free(path);
    if (fd < 0)
        return fd;
    int rc = log->io->truncate(log->io, fd, end);
    if (!rc)
        rc = log->io->fsync(log->io, fd);
    int closed = io_close(log->io, &fd);
    if (!rc)
        r->seen[i].size = end;
    return rc ? rc : closed;
}

/* The torn tail begins in segment LAST: nothing from there on shall ever be seen again. */
static int cut_tail(struct recovery *r, size_t last)
{
    struct log *log = r->log;

    r->out->cut = true;
    if (r->unreadable)
        log_error("log: from byte %" PRIu64 " of segment %08" PRIx32
                  " on it cannot be read; given up and cut off",
                  r->seen[last].end, log->segments[last]->volume);
    else
        log_warn("log: the tail from byte %" PRIu64 " of segment %08" PRIx32
                 " on was being written when the node died, and was never acknowledged: cut off",
                 r->seen[last].end, log->segments[last]->volume);
    for (size_t i = last + 1; i < log->count; i++) {
        int rc = prepare_segment(r, i);
        if (rc)
            return rc;
        r->seen[i].end = SEGMENT_HEADER_BYTES;
    }
    return 0;
}

/* Every segment read is complete. From segment LAST on the files are cut to their end: it takes off
 * a torn tail, or gives back the zeros that were written ahead. Backwards, so that a crash in
 * between leaves a torn tail that is found again. */
static int seal_all(struct recovery *r, size_t last)
{
    struct log *log = r->log;

    for (size_t i = log->count; i-- > r->first;) {
        const struct seen *seen = &r->seen[i];
        struct segment *segment = log->segments[i];

        if (seen->broken || segment == log->active)
            continue;
        if (i >= last && (r->out->cut || !segment->read_only)) {
            int rc = cut_segment(r, i, seen->end);
            if (rc)
                return rc;
        }
        segment->end = seen->end;
        segment->exact = true;
    }
    return 0;
}

/* Open segment I for writing in place of its reading descriptor. */
static int open_to_write(struct log *log, struct segment *segment)
{
    char *path = log_path(log, segment->volume);
    if (!path)
        return ERR_NO_MEMORY;
    int fd = io_open(log->io, path, IO_WRITE);
    free(path);
    if (fd < 0)
        return fd;
    log->open_files += segment->fd < 0;
    (void)io_close(log->io, &segment->fd); /* it only read */
    segment->fd = fd;
    segment->sealed = false;
    segment->exact = false;
    return 0;
}

/* Go on writing segment LAST; an empty segment right after it is the next one. */
static int continue_last(struct recovery *r, size_t last)
{
    struct log *log = r->log;
    struct segment *segment = log->segments[last];
    const struct seen *seen = &r->seen[last];

    int rc = open_to_write(log, segment);
    if (rc)
        return rc;
    segment->end = seen->end;
    segment->filled = seen->size > seen->end ? seen->size : seen->end;
    log->previous = seen->has_batches ? seen->last_checksum : 0;
    log->active = segment;
    log_hold(log, segment);
    if (last + 2 == log->count &&
        log->segments[last + 1]->base >= segment->base + log->limit_bytes) {
        struct segment *next = log->segments[last + 1];

        rc = open_to_write(log, next);
        if (rc)
            return rc;
        next->end = SEGMENT_HEADER_BYTES;
        next->filled = r->seen[last + 1].size;
        log->next = next;
        log->count--;
        log->open_files--;
    }
    return seal_all(r, log->count);
}

/* Whether the log can be continued where it ended. */
static bool can_continue(const struct recovery *r, size_t last, lsn_t floor)
{
    const struct segment *segment = r->log->segments[last];
    const struct seen *seen = &r->seen[last];

    /* One prepared when segments were smaller: writing on would reach into its positions. */
    if (last + 1 < r->log->count &&
        r->log->segments[last + 1]->base < segment->base + r->log->limit_bytes)
        return false;
    return r->clean && !segment->read_only && !r->out->cut && !r->unreadable && !seen->broken &&
           !seen->dirty && !segment->exact && seen->end % BATCH_ALIGN == 0 &&
           segment->base + seen->end >= floor && seen->end <= r->log->segment_bytes;
}

/* The last segment that holds anything; the first one read where none does. */
static size_t last_used(const struct recovery *r)
{
    size_t last = r->first;

    for (size_t i = r->first; i < r->log->count; i++)
        if (r->seen[i].has_batches || r->seen[i].dirty)
            last = i;
    return last;
}

/* Where the next new segment may begin: above all that any earlier one might have used. */
static lsn_t base_above(const struct recovery *r, lsn_t floor)
{
    const struct log *log = r->log;
    lsn_t above = floor;

    for (size_t i = 0; i < log->count; i++) {
        uint64_t span = log->limit_bytes;

        if (r->seen[i].size > span)
            span = r->seen[i].size;
        if (log->segments[i]->filled > span)
            span = log->segments[i]->filled;
        if (log->segments[i]->base + span > above)
            above = log->segments[i]->base + span;
    }
    return log_align(above, SEGMENT_HEADER_BYTES);
}

static int settle(struct recovery *r, size_t last, lsn_t floor)
{
    struct log *log = r->log;
    int rc;

    /* A node that stopped cleanly knows where the log ended; trust nothing if it did not. */
    if (can_continue(r, last, floor))
        rc = continue_last(r, last);
    else
        rc = seal_all(r, r->unreadable && !r->out->cut ? log->count : last);
    return rc;
}

/* Deliver everything: *LAST is the segment in which the log ends. */
static int run(struct recovery *r, size_t *last)
{
    int rc = survey(r);

    for (size_t i = r->first; !rc && i < r->log->count; i++) {
        *last = i;
        rc = take_segment(r, i);
    }
    if (rc == CUT) {
        /* Found by the survey or behind: the end may be further up. */
        if (r->unreadable && !r->log->skip_unreadable) {
            const struct scan gap = {.window = {.unreadable = r->unreadable_at}};

            return log_refuse_gap(r->log, r->log->segments[r->unreadable_in], &gap);
        }
        return cut_tail(r, *last);
    }
    if (!rc)
        *last = last_used(r);
    return rc;
}

/* The segment that FROM lies in: the last that begins at or below it. */
static size_t segment_of(const struct log *log, lsn_t from)
{
    size_t first = 0;

    while (first + 1 < log->count && log->segments[first + 1]->base <= from)
        first++;
    return first;
}

int log_recover(struct log *log, lsn_t from, lsn_t synced, bool clean,
                int (*visit)(void *arg, const struct record_view *view, const struct place *place),
                int (*check_large)(void *arg, const struct record_header *header), void *arg,
                struct log_recovery *out)
{
    struct recovery r = {
        .log = log,
        .from = from,
        .synced = synced > from ? synced : from,
        .clean = clean,
        .visit = visit,
        .check_large = check_large,
        .arg = arg,
        .out = out,
        .seen = calloc(log->count + 1, sizeof *r.seen),
    };
    size_t last = 0;
    lsn_t floor = r.synced;
    int rc;

    assert(!log->ready && !log->active && !log->next);
    *out = (struct log_recovery){0};
    if (!r.seen)
        return ERR_NO_MEMORY;
    if (r.synced >= LSN_LIMIT) {
        rc = ERR_RANGE;
        goto out;
    }
    r.first = segment_of(log, from);
    for (size_t i = 0; i < log->count; i++)
        if (log->segments[i]->exact && log->segments[i]->base + log->segments[i]->end > r.synced)
            r.synced = log->segments[i]->base + log->segments[i]->end;
    rc = run(&r, &last);
    if (rc)
        goto out;
    if (log->count > 0) {
        out->end = log->segments[last]->base + r.seen[last].end;
        log->next_base = base_above(&r, floor);
        rc = settle(&r, last, floor);
        if (rc)
            goto out;
    } else {
        log->next_base = log_align(floor, SEGMENT_HEADER_BYTES);
    }
    if (out->rotten_bytes > 0)
        log_error("log: %" PRIu64 " bytes of the log are rotten, %" PRIu64
                  " records are known to be lost here",
                  out->rotten_bytes, out->rotten_records);
    if (floor < out->end)
        floor = out->end;
    atomic_store(&log->end, floor);
    atomic_store(&log->synced, floor);
    atomic_store(&log->durable, floor);
    log->ready = true;
out:
    free(r.seen);
    return rc;
}
