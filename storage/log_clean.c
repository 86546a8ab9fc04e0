/*
 * Going through a sealed segment record by record, for cleaning and verifying. It may stop anywhere
 * and go on there later: *FROM is always the end of what was taken. All of a sealed segment was
 * synced, so whatever is wrong in it is rot: counted, and what is whole around it is handed over.
 */
#include "storage/log_internal.h"

struct cleaning {
    struct log *log;
    const struct segment *segment;
    uint64_t *from;
    int (*visit)(void *arg, const struct record_view *view, const struct place *place);
    void *arg;
    uint64_t *rotten;
};

/* Hand over a record that ends at END, unless an earlier call did. */
static int hand_over(const struct cleaning *c, const struct record_view *view, uint64_t end)
{
    struct place place = {
        .disk = c->segment->disk,
        .volume = c->segment->volume,
        .offset = view->lsn - c->segment->base,
        .lsn = view->lsn,
    };

    if (place.offset < *c->from)
        return 0;
    int rc = c->visit(c->arg, view, &place);
    if (!rc)
        *c->from = end;
    return rc;
}

static void skip_rot(const struct cleaning *c, uint64_t from, uint64_t to)
{
    if (to <= *c->from)
        return;
    *c->rotten += to - (from > *c->from ? from : *c->from);
    *c->from = to;
}

static int clean_batch(const struct cleaning *c, struct scan *scan, const struct scan_item *item)
{
    uint64_t at = item->from + BATCH_HEADER_BYTES;
    struct record_view view;
    int rc;

    for (uint64_t before = at; scan_record(scan, item, &at, &view, &rc); before = at) {
        if (rc && rc != ERR_CORRUPT)
            return rc;
        if (rc) {
            rc = log_refuse_gap(c->log, c->segment, scan);
            if (rc)
                return rc;
            skip_rot(c, before, at);
            continue;
        }
        rc = hand_over(c, &view, at);
        if (rc)
            return rc;
    }
    return 0;
}

static int clean_damage(const struct cleaning *c, struct scan *scan, uint64_t from, uint64_t to)
{
    uint64_t at = from, lost = from;
    struct record_view view;
    int rc;

    while ((rc = scan_salvage(scan, &at, to, &view)) == 1) {
        uint64_t begin = view.lsn - c->segment->base;

        rc = log_refuse_gap(c->log, c->segment, scan);
        if (rc)
            return rc;
        skip_rot(c, lost, begin);
        rc = hand_over(c, &view, at);
        if (rc)
            return rc;
        lost = at;
    }
    if (!rc && to > lost)
        rc = log_refuse_gap(c->log, c->segment, scan);
    if (!rc)
        skip_rot(c, lost, to);
    return rc;
}

int log_scan(struct log *log, uint32_t volume, uint64_t *from,
             int (*visit)(void *arg, const struct record_view *view, const struct place *place),
             void *arg, uint64_t *rotten)
{
    struct cleaning c = {.log = log, .from = from, .visit = visit, .arg = arg, .rotten = rotten};
    struct segment *segment;
    struct scan scan = {0};
    struct io_stat stat;
    int rc = log_take(log, volume, &segment);

    if (rc)
        return rc;
    c.segment = segment;
    rc = segment->sealed ? log_need_file(log, segment) : ERR_INVALID;
    if (!rc)
        rc = log->io->stat_fd(log->io, segment->fd, &stat);
    if (rc)
        goto out;
    if (*from < SEGMENT_HEADER_BYTES)
        *from = SEGMENT_HEADER_BYTES;
    if (segment->exact && stat.size_bytes > segment->end)
        stat.size_bytes = segment->end;
    rc = scan_init(&scan, log->io, segment->fd, stat.size_bytes, segment->base, segment->salt,
                   SEGMENT_HEADER_BYTES);
    scan.window.needed = *from;
    if (!rc && *from > SEGMENT_HEADER_BYTES)
        rc = scan_seek(&scan, *from);
    for (bool more = true; !rc && more;) {
        struct scan_item item;

        rc = scan_next(&scan, &item);
        if (rc)
            break;
        more = item.kind != SCAN_TAIL;
        if (item.kind == SCAN_BATCH)
            rc = clean_batch(&c, &scan, &item);
        else
            rc = clean_damage(&c, &scan, item.from, item.to);
        if (!rc && item.to > *from)
            *from = item.to;
    }
out:
    scan_release(&scan);
    log_give(log, segment);
    return rc;
}
