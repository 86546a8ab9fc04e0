/*
 * Two sides, each this node's own database or a member that is asked. The first one sets the pace:
 * it says how far its next rows go, and the second one is asked about the same stretch of ids.
 *
 * Failure: a member that does not answer ends it; which one is told.
 */
#include "cluster/diff.h"

#include "base/bytes.h"
#include "cluster/cluster_internal.h"
#include "journal/db_cluster.h"
#include "journal/row_json.h"

#include <assert.h>

#define STRETCH 4096 /* rows */

_Static_assert(STRETCH <= LIMIT_WIRE_ROWS, "a stretch of the first side is one list");

struct side {
    struct cluster *cluster;
    struct id128 node;
    struct db_reader *reader; /* this node's own; else NULL */
    struct cluster_answer at;
};

static const struct id128 highest = {
    {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};

static int read_range(struct side *side, const struct id128 *after, const struct id128 *until,
                      uint32_t rows, bool list)
{
    struct cluster_answer *at = &side->at;
    struct db_range range = {.complete = false};

    buf_reset(&at->data);
    int rc = db_reader_range(side->reader, after, until, rows, list ? &at->data : NULL, &range);
    at->yes = range.complete;
    at->last = range.last;
    at->count = range.count;
    at->sum = range.sum;
    return rc;
}

static int range(struct side *side, const struct id128 *after, const struct id128 *until,
                 uint32_t rows, bool list)
{
    struct wire_message question = {
        .type = WIRE_RANGE_ASK,
        .inquiry = {.id = *after, .until = *until, .rows = rows, .list = list}};

    assert(rows <= LIMIT_WIRE_ROWS);
    if (side->reader)
        return read_range(side, after, until, rows, list);
    int rc = cluster_ask(side->cluster, &side->node, &question, &side->at);
    if (rc)
        return rc;
    /* What a peer says of where it ends is not to be believed blindly: the walk has to go on. */
    const struct id128 *last = &side->at.last;
    if (id_compare(last, after) <= 0 || id_compare(last, until) > 0 ||
        (side->at.yes && !id_equal(last, until)) ||
        (list && side->at.data.len != side->at.count * WIRE_ROW_SUM_BYTES))
        return ERR_INVALID;
    return 0;
}

static int row(struct side *side, const struct id128 *id)
{
    struct wire_message question = {.type = WIRE_ROW_ASK, .inquiry.id = *id};

    if (!side->reader)
        return cluster_ask(side->cluster, &side->node, &question, &side->at);
    buf_reset(&side->at.data);
    return row_json_read(&side->at.data, side->reader, id);
}

/* The rows of one list, in order of their ids. */
struct list {
    const uint8_t *at, *end;
};

static bool list_id(const struct list *list, const struct id128 *until, struct id128 *out)
{
    if (list->at == list->end)
        return false;
    memcpy(out->bytes, list->at, sizeof out->bytes);
    return id_compare(out, until) <= 0;
}

/* The next id up to UNTIL that the lists differ in; false: there is none. */
static bool next_difference(struct list *a, struct list *b, const struct id128 *until,
                            struct id128 *out)
{
    struct id128 id_a, id_b;
    bool has_a, has_b;

    while (has_a = list_id(a, until, &id_a), has_b = list_id(b, until, &id_b), has_a || has_b) {
        int order = !has_a ? 1 : !has_b ? -1 : id_compare(&id_a, &id_b);
        bool equal = order == 0 && memcmp(a->at, b->at, WIRE_ROW_SUM_BYTES) == 0;

        *out = order <= 0 ? id_a : id_b;
        if (order <= 0)
            a->at += WIRE_ROW_SUM_BYTES;
        if (order >= 0)
            b->at += WIRE_ROW_SUM_BYTES;
        if (!equal)
            return true;
    }
    return false;
}

struct differing {
    struct side a, b;
    unsigned max;
    int (*each)(void *arg, const struct id128 *id, struct text a, struct text b);
    void *arg;
    struct diff_result *out;
    struct id128 *failed;
};

static int blame(struct differing *d, const struct side *side, int rc)
{
    if (rc && d->failed)
        *d->failed = side->node;
    return rc;
}

static struct text text_of(const struct side *side)
{
    return (struct text){side->at.data.data, (uint32_t)side->at.data.len};
}

/* The rows of IDS, as they are now: they may have become equal meanwhile. */
static int show_rows(struct differing *d, const struct id128 *ids, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        int rc = blame(d, &d->a, row(&d->a, &ids[i]));

        if (rc == 0)
            rc = blame(d, &d->b, row(&d->b, &ids[i]));
        if (rc)
            return rc;
        struct text a = text_of(&d->a), b = text_of(&d->b);
        if (a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0))
            continue;
        rc = d->each(d->arg, &ids[i], a, b);
        if (rc)
            return rc;
        d->out->found++;
    }
    return 0;
}

/* The stretch behind AFTER up to *UNTIL, whose sums differ, row by row; *UNTIL may come nearer. */
static int look_closer(struct differing *d, const struct id128 *after, struct id128 *until)
{
    struct id128 ids[DIFF_MAX];
    unsigned count = 0, room = d->max - (unsigned)d->out->found;
    int rc = blame(d, &d->a, range(&d->a, after, until, LIMIT_WIRE_ROWS, true));

    if (rc == 0)
        *until = d->a.at.last;
    if (rc == 0)
        rc = blame(d, &d->b, range(&d->b, after, until, LIMIT_WIRE_ROWS, true));
    if (rc)
        return rc;
    *until = d->b.at.last;
    struct list a = {(const uint8_t *)d->a.at.data.data,
                     (const uint8_t *)d->a.at.data.data + d->a.at.data.len};
    struct list b = {(const uint8_t *)d->b.at.data.data,
                     (const uint8_t *)d->b.at.data.data + d->b.at.data.len};
    while (next_difference(&a, &b, until, &ids[count])) {
        if (++count == room) {
            *until = ids[count - 1];
            break;
        }
    }
    return show_rows(d, ids, count);
}

static int compare(struct differing *d)
{
    struct id128 after = {{0}};
    int rc = 0;

    while (rc == 0 && !id_equal(&after, &highest)) {
        if (d->out->found >= d->max) {
            d->out->more = true;
            break;
        }
        rc = blame(d, &d->a, range(&d->a, &after, &highest, STRETCH, false));
        if (rc)
            break;
        struct id128 until = d->a.at.last;
        d->out->compared += d->a.at.count;
        rc = blame(d, &d->b, range(&d->b, &after, &until, LIMIT_WIRE_ROWS, false));
        if (rc)
            break;
        const struct cluster_answer *a = &d->a.at, *b = &d->b.at;
        bool equal = b->yes && a->count == b->count && a->sum.low == b->sum.low &&
                     a->sum.high == b->sum.high;
        if (!equal)
            rc = look_closer(d, &after, &until);
        after = until;
    }
    return rc;
}

static int open_side(struct side *side, struct cluster *cluster, const struct id128 *node)
{
    *side = (struct side){.cluster = cluster, .node = *node};
    buf_init(&side->at.data, LIMIT_WIRE_BYTES);
    return id_equal(node, &cluster->self) ? journal_reader_open(cluster->journal, &side->reader)
                                          : 0;
}

static void close_side(struct side *side)
{
    buf_release(&side->at.data);
    db_reader_close(&side->reader);
}

int cluster_diff(struct cluster *cluster, const struct id128 *a, const struct id128 *b,
                 unsigned max,
                 int (*each)(void *arg, const struct id128 *id, struct text a, struct text b),
                 void *arg, struct diff_result *out, struct id128 *failed)
{
    struct differing d = {.max = max, .each = each, .arg = arg, .out = out, .failed = failed};

    assert(max >= 1 && max <= DIFF_MAX);
    *out = (struct diff_result){0};
    int rc = open_side(&d.a, cluster, a);
    int rc_b = open_side(&d.b, cluster, b);
    if (rc == 0)
        rc = rc_b;
    if (rc == 0)
        rc = compare(&d);
    close_side(&d.a);
    close_side(&d.b);
    return rc;
}
