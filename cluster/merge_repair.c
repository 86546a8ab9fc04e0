/*
 * Finding which rows differ, where two nodes know the same events and have unequal digests.
 *
 * All ids are one range to begin with. A range is cut into ranges of about as many rows of ours
 * each (SPLIT: our own pool reads and sums them), the peer is asked for its sums between the same
 * ids (COMPARE), and those that differ are looked at more closely: a small one is taken as it is
 * (merge_ask.c), a large one is cut again. So the cost is one scan of each side and some kilobytes
 * for each row that differs. What the peer lacks it takes from us, by itself, as it sees the same
 * difference.
 *
 *   next range -> SPLIT -> COMPARE -> next range …      a leaf -> pull it -> next range …
 *
 * Rows that change meanwhile make a range or two differ that would not: they are joined in vain.
 */
#include "cluster/merge_internal.h"

#include <assert.h>

static void push_range(struct merge *core, const struct range *range)
{
    struct asking *a = &core->ask;
    struct range *top = a->range_count ? &a->ranges[a->range_count - 1] : NULL;

    /* Neighbours that are taken whole are taken together; so are all where there are too many. */
    if (top && id_equal(&top->through, &range->after) && top->leaf && range->leaf) {
        top->through = range->through;
        top->rows += range->rows;
        return;
    }
    if (a->range_count == LIMIT_MERGE_RANGES) { /* with what lies between: the price of a mess */
        if (id_compare(&range->after, &top->after) < 0)
            top->after = range->after;
        if (id_compare(&range->through, &top->through) > 0)
            top->through = range->through;
        top->leaf = true;
        return;
    }
    a->ranges[a->range_count++] = *range;
}

void merge_repair_begin(struct merge *core)
{
    static const struct id128 zero;
    struct asking *a = &core->ask;
    struct mate *worst = NULL;

    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct mate *mate = &core->mates[i];

        if (mate->used && mate->alive && mate->differs >= 2 && core->now_ms >= mate->again_at &&
            core->now_ms - mate->since_ms >= MERGE_DIFFERS_MS &&
            (!worst || mate->since_ms < worst->since_ms))
            worst = mate;
    }
    if (!worst)
        return;
    a->job = JOB_REPAIR;
    a->peer = worst->node;
    a->tries = a->same = 0;
    a->backoff_ms = a->bytes = 0;
    a->pulling = false;
    a->range_count = a->fence_count = a->fence_next = 0;
    push_range(core, &(struct range){.after = zero, .through = db_last_id, .rows = core->rows});
    merge_ask_wait(core, 0);
    struct merge_output *out = merge_emit(core, MERGE_BEGUN);
    out->job.peer = worst->node;
    out->job.repair = true;
}

static void compare(struct merge *core)
{
    struct asking *a = &core->ask;
    struct buf *list = merge_list(core);
    struct id128 after = a->fence_next ? a->fences[a->fence_next - 1].id : a->split.after;

    if (!list) {
        merge_ask_wait(core, 0); /* in the next step */
        return;
    }
    for (size_t i = a->fence_next; i < a->fence_count; i++)
        buf_add(list, a->fences[i].id.bytes, sizeof a->fences[i].id.bytes);
    if (buf_check(list) != 0) {
        merge_ask_retry(core);
        return;
    }
    struct wire_message *message = merge_send(core, &a->peer, WIRE_MERGE_SUMS_ASK);

    message->merge_sums_ask =
        (struct wire_merge_sums_ask){a->session, after, {list->data, (uint32_t)list->len}};
    a->number = 0; /* of the first sum */
    a->phase = PHASE_COMPARE;
}

static void split(struct merge *core)
{
    struct asking *a = &core->ask;
    uint64_t rows = a->split.rows / LIMIT_WIRE_FENCES;
    struct merge_sum *sum = &merge_emit(core, MERGE_SUM)->sum;

    if (rows < MERGE_LEAF_ROWS / 2)
        rows = MERGE_LEAF_ROWS / 2;
    if (rows > MERGE_FENCE_ROWS)
        rows = MERGE_FENCE_ROWS;
    *sum = (struct merge_sum){
        .session = a->session, .after = a->split.after, .through = a->split.through, .rows = rows};
    a->phase = PHASE_SPLIT;
}

void merge_repair_go_on(struct merge *core)
{
    struct asking *a = &core->ask;

    if (a->fence_next < a->fence_count) {
        compare(core);
        return;
    }
    if (a->range_count == 0) {
        merge_end_job(core, true);
        return;
    }
    a->split = a->ranges[--a->range_count];
    a->fence_count = a->fence_next = 0;
    if (a->split.leaf)
        merge_pull(core, &a->split.after, &a->split.through);
    else
        split(core);
    core->more = true;
}

void merge_repair_split(struct merge *core, const struct merge_summed *summed)
{
    struct asking *a = &core->ask;

    if (summed->rc || summed->count == 0 || summed->count > LIMIT_WIRE_FENCES) {
        push_range(core, &a->split); /* once more, later */
        merge_ask_retry(core);
        return;
    }
    uint64_t seen = 0;

    for (size_t i = 0; i < summed->count; i++) {
        a->fences[i] = summed->fences[i];
        seen += summed->fences[i].count;
    }
    a->fence_count = summed->count;
    a->fence_next = 0;
    a->progress_ms = core->now_ms;
    const struct id128 *end = &a->fences[a->fence_count - 1].id;
    if (!id_equal(end, &a->split.through)) { /* the scan ended before */
        struct range rest = {.after = *end,
                             .through = a->split.through,
                             .rows = a->split.rows > seen ? a->split.rows - seen : 0};

        a->split.through = *end;
        push_range(core, &rest);
    }
    compare(core);
}

/* What the range between two fences is to us, when the peer has SUM there. */
static void judge(struct merge *core, const struct id128 *after, const struct db_fence *ours,
                  const struct wire_sum *sum)
{
    bool few = ours->count <= MERGE_LEAF_ROWS || sum->count <= MERGE_LEAF_ROWS;

    if (sum->count == 0 || (sum->count == ours->count && sum->sum.low == ours->sum.low &&
                            sum->sum.high == ours->sum.high))
        return; /* equal; or nothing is there that we could lack */
    push_range(core, &(struct range){
                         .after = *after, .through = ours->id, .rows = ours->count, .leaf = few});
}

void merge_repair_sums(struct merge *core, const struct wire_merge_sums *sums)
{
    struct asking *a = &core->ask;
    size_t count = wire_sum_count(sums->sums);

    /* They begin with the first fence that was asked about in this session. */
    if (a->phase != PHASE_COMPARE || count > a->fence_count - a->fence_next ||
        sums->first != a->number) {
        if (a->phase == PHASE_COMPARE && sums->first > a->number)
            merge_ask_retry(core);
        else
            core->stats.ignored++;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        const struct db_fence *ours = &a->fences[a->fence_next];
        struct wire_sum sum = wire_sum_at(sums->sums, i);

        judge(core, a->fence_next ? &a->fences[a->fence_next - 1].id : &a->split.after, ours, &sum);
        a->fence_next++;
    }
    a->number += count;
    a->progress_ms = core->now_ms;
    a->tries = 0;
    a->backoff_ms = 0;
    if (a->fence_next == a->fence_count) {
        merge_ask_wait(core, 0);
        core->more = true;
    }
}
