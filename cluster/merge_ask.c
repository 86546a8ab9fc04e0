/*
 * Taking a peer's rows: all of them with its vector, or those of one range.
 *
 *   WAIT -> VECTOR -> CHUNKS -> LAND -> ADOPT -> over        behind the cut
 *   WAIT -> CHUNKS -> LAND -> WAIT -> …                      a range (merge_repair.c has the rest)
 *
 * Chunks go into the journal as they come, in order; `durable` is the id up to which all of them
 * are on the disk. Credit goes back as they get there, so no more than MERGE_CREDIT_BYTES are ever
 * under way. The vector that is adopted is the one that the peer had *before* its first chunk was
 * read, and only once the last chunk is durable: before that, events that a row not yet merged
 * rests on would count as known.
 *
 * Failure. A message that was lost, a peer that is slow or gone, a batch that did not become
 * durable: the session is dropped, and another one goes on behind `durable`, with the same peer;
 * what is adopted is then what both its vectors know. After some failures another peer is asked,
 * from the first id on. A restart forgets all of it but the rows. What brings nothing again and
 * again is given up, until sync says anew that we are behind.
 */
#include "cluster/merge_internal.h"

#include "journal/snapshot.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

void merge_ask_release(struct merge *core)
{
    free(core->ask.want.runs);
    free(core->ask.pages.runs);
    core->ask.want = core->ask.pages = (struct run_list){0};
}

static bool is_ours(const struct merge *core, const struct id128 *peer, uint64_t session)
{
    return core->ask.session && core->ask.session == session && id_equal(&core->ask.peer, peer);
}

void merge_end_job(struct merge *core, bool done)
{
    struct asking *a = &core->ask;
    struct merge_output *out = merge_emit(core, MERGE_ENDED);
    struct mate *mate = merge_mate(core, &a->peer);

    out->job.peer = a->peer;
    out->job.repair = a->job == JOB_REPAIR;
    out->job.done = done;
    out->job.bytes = a->bytes;
    if (!done && a->job == JOB_ADOPT) /* nothing need be kept for us */
        merge_send_flow(core, &a->peer, WIRE_MERGE_END, merge_random(core, UINT64_MAX) + 1, 0,
                        WIRE_END_CANCEL);
    if (!done)
        core->stats.given_up++;
    else if (a->job == JOB_ADOPT)
        core->stats.adopted++;
    else
        core->stats.repaired++;
    if (a->job == JOB_REPAIR && mate) {
        uint64_t twice = 2 * mate->again_ms;

        mate->differs = 0;
        mate->again_ms = twice < MERGE_AGAIN_MS       ? MERGE_AGAIN_MS
                         : twice > MERGE_AGAIN_MAX_MS ? MERGE_AGAIN_MAX_MS
                                                      : twice;
        mate->again_at = core->now_ms + mate->again_ms / 2 + merge_random(core, mate->again_ms);
    }
    if (a->job == JOB_ADOPT && done)
        core->calm_until = core->now_ms + MERGE_CALM_MS;
    merge_ask_release(core);
    a->job = JOB_NONE;
    a->session = 0;
    a->want_known = a->pulling = false;
    a->adopt_token = 0;
    a->flight_count = a->fence_count = a->fence_next = a->range_count = 0;
}

void merge_ask_wait(struct merge *core, uint64_t delay_ms)
{
    core->ask.phase = PHASE_WAIT;
    core->ask.session = 0;
    core->ask.at_ms = core->now_ms + delay_ms;
}

void merge_ask_retry(struct merge *core)
{
    struct asking *a = &core->ask;

    if (a->session) /* let it not go on in vain; what it was given is still to be adopted */
        merge_send_flow(core, &a->peer, WIRE_MERGE_END, a->session, 0, WIRE_END_UNKNOWN);
    a->same++;
    if (++a->tries >= MERGE_TRIES) {
        merge_end_job(core, false);
        return;
    }
    a->backoff_ms = a->backoff_ms == 0 ? MERGE_BACKOFF_MS : 2 * a->backoff_ms;
    if (a->backoff_ms > MERGE_BACKOFF_MAX_MS)
        a->backoff_ms = MERGE_BACKOFF_MAX_MS;
    merge_ask_wait(core, a->backoff_ms / 2 + merge_random(core, a->backoff_ms));
}

/* Something came of it. */
static void progress(struct asking *a, uint64_t now_ms)
{
    a->progress_ms = now_ms;
    a->tries = a->same = 0;
    a->backoff_ms = 0;
}

void merge_pull(struct merge *core, const struct id128 *after, const struct id128 *through)
{
    struct asking *a = &core->ask;

    a->pulling = true;
    a->durable = a->received = *after;
    a->through = *through;
    merge_ask_wait(core, 0);
}

void merge_ask_behind(struct merge *core, const struct id128 *peer)
{
    struct asking *a = &core->ask;
    const struct mate *mate = merge_mate(core, peer);

    if (!mate || !mate->alive || a->job == JOB_ADOPT || core->now_ms < core->calm_until)
        return;
    if (a->job == JOB_REPAIR) { /* which this one makes needless */
        if (a->session)
            merge_send_flow(core, &a->peer, WIRE_MERGE_END, a->session, 0, WIRE_END_CANCEL);
        merge_end_job(core, false);
    }
    a->job = JOB_ADOPT;
    a->peer = *peer;
    a->tries = a->same = 0;
    a->backoff_ms = a->bytes = 0;
    a->want_known = false;
    static const struct id128 zero;
    merge_pull(core, &zero, &db_last_id);
    struct merge_output *out = merge_emit(core, MERGE_BEGUN);
    out->job.peer = *peer;
}

/* ---- The vector ---- */

static int list_add(struct run_list *list, const struct wire_merge_run *run)
{
    if (list->count == list->cap) {
        size_t cap = list->cap ? 2 * list->cap : 64;
        struct wire_merge_run *grown =
            cap <= LIMIT_RUNS ? reallocarray(list->runs, cap, sizeof *grown) : NULL;

        if (!grown)
            return ERR_NO_MEMORY;
        list->runs = grown;
        list->cap = cap;
    }
    list->runs[list->count++] = *run;
    return 0;
}

/* What both know: of each run the lower seq, none that one of them lacks. */
static void keep_common(struct run_list *list, const struct run_list *other)
{
    size_t kept = 0, k = 0;

    for (size_t i = 0; i < list->count; i++) {
        while (k < other->count && id_compare(&other->runs[k].origin, &list->runs[i].origin) < 0)
            k++;
        if (k == other->count || !id_equal(&other->runs[k].origin, &list->runs[i].origin))
            continue;
        list->runs[kept++] =
            other->runs[k].seq < list->runs[i].seq ? other->runs[k] : list->runs[i];
    }
    list->count = kept;
}

static void take_page(struct merge *core, const struct wire_merge_vector *page)
{
    struct asking *a = &core->ask;
    struct run_list *pages = &a->pages;
    size_t count = wire_merge_run_count(page->runs);

    if (a->phase != PHASE_VECTOR || page->page != a->page) {
        if (a->phase == PHASE_VECTOR && page->page > a->page)
            merge_ask_retry(core);
        else
            core->stats.ignored++;
        return;
    }
    for (size_t i = 0; i < count; i++) {
        struct wire_merge_run run = wire_merge_run_at(page->runs, i);

        if ((pages->count && id_compare(&pages->runs[pages->count - 1].origin, &run.origin) >= 0) ||
            list_add(pages, &run) != 0) {
            merge_ask_retry(core);
            return;
        }
    }
    a->page++;
    a->progress_ms = core->now_ms;
    a->owed += merge_charge(page->runs.len);
    if (!page->last)
        return;
    a->phase = PHASE_CHUNKS;
    if (a->want_known) {
        keep_common(&a->want, pages);
        return;
    }
    struct run_list swap = a->want;
    a->want = *pages;
    *pages = swap;
    a->want_known = true;
}

/* ---- Chunks ---- */

static struct chunk_flight *flight_at(struct asking *a, size_t i)
{
    return &a->flights[(a->flight_first + i) % LIMIT_MERGE_FLIGHTS];
}

static void landed(struct asking *a, const struct id128 *through)
{
    if (id_compare(through, &a->durable) > 0)
        a->durable = *through;
}

static void take_chunk(struct merge *core, const struct wire_merge_chunk *chunk)
{
    struct asking *a = &core->ask;
    bool ids = !id_is_zero(&chunk->through);
    bool fits = !ids || (id_compare(&chunk->through, &a->received) > 0 &&
                         id_compare(&chunk->through, &a->through) <= 0);

    if (a->phase != PHASE_CHUNKS || chunk->number < a->number) {
        if (a->phase == PHASE_VECTOR)
            merge_ask_retry(core); /* a page was lost */
        else
            core->stats.ignored++;
        return;
    }
    if (chunk->number > a->number || !fits || a->flight_count == LIMIT_MERGE_FLIGHTS ||
        chunk->last != id_equal(&chunk->through, &a->through)) {
        merge_ask_retry(core);
        return;
    }
    a->number++;
    a->progress_ms = core->now_ms;
    if (ids)
        a->received = chunk->through;
    if (chunk->data.len > 0) {
        struct chunk_flight *flight = flight_at(a, a->flight_count++);
        struct merge_output *out = merge_emit(core, MERGE_COMMIT);

        *flight = (struct chunk_flight){.token = ++core->token,
                                        .charge = merge_charge(chunk->data.len),
                                        .bytes = chunk->data.len,
                                        .rows = merge_row_count(chunk->data),
                                        .through = chunk->through};
        out->commit.token = flight->token;
        out->commit.data = chunk->data;
        out->commit.runs = a->want.runs;
        out->commit.run_count = a->want_known ? a->want.count : 0;
    } else {
        a->owed += merge_charge(0);
        if (a->flight_count)
            flight_at(a, a->flight_count - 1)->through = a->received;
        else if (!a->failed)
            landed(a, &a->received);
    }
    if (chunk->last) {
        a->phase = PHASE_LAND;
        a->session = 0;
    }
}

static void chunk_committed(struct merge *core, int rc)
{
    struct asking *a = &core->ask;
    struct chunk_flight flight = *flight_at(a, 0);

    a->flight_first = (a->flight_first + 1) % LIMIT_MERGE_FLIGHTS;
    a->flight_count--;
    a->owed += flight.charge;
    if (rc) {
        bool first = !a->failed;

        a->failed = true;
        /* It cannot be read, and another peer's can: this one is asked no more. */
        if (rc == ERR_INVALID || rc == ERR_FORMAT || rc == ERR_CONFLICT)
            a->same = MERGE_SAME_PEER;
        if (first && a->phase != PHASE_WAIT)
            merge_ask_retry(core);
        return;
    }
    if (a->failed)
        return;
    landed(a, &flight.through);
    progress(a, core->now_ms);
    a->bytes += flight.bytes;
    core->stats.bytes_in += flight.bytes;
    core->stats.rows_in += flight.rows;
}

void merge_ask_committed(struct merge *core, uint64_t token, int rc)
{
    struct asking *a = &core->ask;

    if (a->job == JOB_NONE || token == 0)
        return;
    if (a->adopt_token == token) {
        a->adopt_token = 0;
        a->progress_ms = core->now_ms;
        if (rc)
            merge_end_job(core, false); /* sync says anew what is missing */
        return;
    }
    if (a->flight_count && flight_at(a, 0)->token == token)
        chunk_committed(core, rc);
}

/* ---- Adopting ---- */

static bool is_news(const struct merge *core, const struct wire_merge_run *run)
{
    const struct vector_run *known = vector_find(core->vector, &run->origin);

    if (id_equal(&run->origin, &core->own) || (known && known->frozen))
        return false;
    return !known || run->seq > known->seq || (run->ended && !known->ended);
}

/* The next runs as a chunk; false where there are none. */
static bool next_runs(struct merge *core, struct buf *out)
{
    static const struct id128 none;
    struct asking *a = &core->ask;
    struct snapshot_writer writer;
    uint32_t len = 0;
    bool any;

    snapshot_writer_init(&writer);
    snapshot_begin_chunk(&writer, SNAPSHOT_ORIGINS);
    for (; a->adopt_next < a->want.count; a->adopt_next++) {
        const struct wire_merge_run *run = &a->want.runs[a->adopt_next];
        struct snapshot_origin origin = {
            .origin = run->origin, .node = run->node, .seq = run->seq, .ended = run->ended};

        memcpy(origin.hash, run->hash, SHA256_BYTES);
        if (is_news(core, run) && snapshot_add_origin(&writer, &origin) != 0)
            break;
    }
    any = writer.count > 0;
    if (any) {
        buf_add(out, &len, sizeof len);
        snapshot_end_chunk(&writer, &none, 0, out);
        len = (uint32_t)(out->len - sizeof len);
        if (buf_check(out) == 0)
            memcpy(out->data, &len, sizeof len);
    }
    snapshot_writer_release(&writer);
    return any;
}

static void adopt_some(struct merge *core)
{
    struct asking *a = &core->ask;
    struct buf *list = a->adopt_token ? NULL : merge_list(core);

    if (!list)
        return;
    if (!next_runs(core, list)) {
        merge_send_flow(core, &a->peer, WIRE_MERGE_END, merge_random(core, UINT64_MAX) + 1, 0,
                        WIRE_END_DONE);
        merge_end_job(core, true);
        return;
    }
    if (buf_check(list) != 0) {
        merge_end_job(core, false);
        return;
    }
    struct merge_output *out = merge_emit(core, MERGE_COMMIT);

    out->commit.token = a->adopt_token = ++core->token;
    out->commit.data = (struct text){list->data, (uint32_t)list->len};
    a->progress_ms = core->now_ms;
}

/* ---- Messages ---- */

bool merge_ask_message(struct merge *core, const struct wire_message *message)
{
    switch (message->type) {
    case WIRE_MERGE_VECTOR:
        if (is_ours(core, &message->from, message->merge_vector.session))
            take_page(core, &message->merge_vector);
        else
            core->stats.ignored++;
        return true;
    case WIRE_MERGE_CHUNK:
        if (is_ours(core, &message->from, message->merge_chunk.session))
            take_chunk(core, &message->merge_chunk);
        else
            core->stats.ignored++;
        return true;
    case WIRE_MERGE_SUMS:
        if (is_ours(core, &message->from, message->merge_sums.session))
            merge_repair_sums(core, &message->merge_sums);
        else
            core->stats.ignored++;
        return true;
    case WIRE_MERGE_END:
        if (!is_ours(core, &message->from, message->flow.session))
            return false;
        core->ask.session = 0; /* it is over there: nothing is to be said */
        merge_ask_retry(core);
        return true;
    default:
        return false;
    }
}

void merge_ask_summed(struct merge *core, const struct merge_summed *summed)
{
    if (core->ask.phase == PHASE_SPLIT && is_ours(core, &core->ask.peer, summed->session))
        merge_repair_split(core, summed);
}

/* ---- Going on ---- */

static struct mate *other_peer(struct merge *core)
{
    struct mate *chosen = NULL;
    uint64_t seen = 0;

    for (size_t i = 0; i < LIMIT_MEMBERS; i++) {
        struct mate *mate = &core->mates[i];

        if (mate->used && mate->alive && !id_equal(&mate->node, &core->ask.peer) &&
            merge_random(core, ++seen) == 0)
            chosen = mate;
    }
    return chosen;
}

/* Whom to ask now; false: nobody, for now. */
static bool choose_peer(struct merge *core)
{
    static const struct id128 zero;
    struct asking *a = &core->ask;
    const struct mate *mate = merge_mate(core, &a->peer);
    bool alive = mate && mate->alive;
    struct mate *other =
        a->job == JOB_ADOPT && (!alive || a->same >= MERGE_SAME_PEER) ? other_peer(core) : NULL;

    if (!other)
        return alive;
    if (alive) /* it need not keep anything for us */
        merge_send_flow(core, &a->peer, WIRE_MERGE_END, merge_random(core, UINT64_MAX) + 1, 0,
                        WIRE_END_CANCEL);
    a->peer = other->node;
    a->same = 0;
    a->durable = zero; /* another's vector: all of its chunks */
    a->want_known = false;
    return true;
}

static void begin_session(struct merge *core)
{
    struct asking *a = &core->ask;

    if (!choose_peer(core)) {
        if (a->job == JOB_REPAIR)
            merge_end_job(core, false);
        else
            merge_ask_retry(core);
        return;
    }
    a->session = merge_random(core, UINT64_MAX) + 1;
    a->progress_ms = core->now_ms;
    if (!a->pulling) {
        merge_repair_go_on(core);
        return;
    }
    struct wire_message *message = merge_send(core, &a->peer, WIRE_MERGE_ASK);

    a->received = a->durable;
    a->number = a->owed = a->page = 0;
    a->failed = false;
    a->pages.count = 0;
    a->phase = a->job == JOB_ADOPT ? PHASE_VECTOR : PHASE_CHUNKS;
    message->merge_ask = (struct wire_merge_ask){.session = a->session,
                                                 .whole = a->job == JOB_ADOPT,
                                                 .after = a->durable,
                                                 .through = a->through,
                                                 .credit_bytes = MERGE_CREDIT_BYTES};
}

static void give_credit(struct merge *core)
{
    struct asking *a = &core->ask;

    if (a->owed < MERGE_CREDIT_BYTES / 4)
        return;
    merge_send_flow(core, &a->peer, WIRE_MERGE_CREDIT, a->session, a->owed, WIRE_END_DONE);
    a->owed = 0;
}

static void land(struct merge *core)
{
    struct asking *a = &core->ask;

    if (a->flight_count)
        return;
    assert(!a->failed && id_equal(&a->durable, &a->through));
    a->pulling = false;
    if (a->job == JOB_ADOPT) {
        a->phase = PHASE_ADOPT;
        a->adopt_next = 0;
        core->more = true;
    } else {
        merge_ask_wait(core, 0);
        core->more = true;
    }
}

static bool is_late(const struct merge *core)
{
    const struct asking *a = &core->ask;
    /* Our own reads and writes are slower than messages now and then. */
    uint64_t patience =
        a->phase == PHASE_VECTOR || a->phase == PHASE_CHUNKS || a->phase == PHASE_COMPARE
            ? MERGE_DEADLINE_MS
            : 6 * MERGE_DEADLINE_MS;

    return core->now_ms - a->progress_ms >= patience;
}

void merge_ask_pump(struct merge *core)
{
    struct asking *a = &core->ask;

    if (!merge_room(core))
        return;
    if (a->job == JOB_NONE)
        merge_repair_begin(core);
    if (a->job == JOB_NONE)
        return;
    if (a->phase != PHASE_WAIT && is_late(core)) {
        core->stats.timeouts++;
        if (a->phase == PHASE_ADOPT || a->phase == PHASE_LAND)
            merge_end_job(core, false); /* the journal has lost something of ours */
        else
            merge_ask_retry(core);
        return;
    }
    switch (a->phase) {
    case PHASE_WAIT:
        if (core->now_ms >= a->at_ms && a->flight_count == 0)
            begin_session(core);
        else if (a->flight_count && core->now_ms - a->progress_ms >= 6 * MERGE_DEADLINE_MS)
            merge_end_job(core, false);
        break;
    case PHASE_VECTOR:
    case PHASE_CHUNKS:
        give_credit(core);
        break;
    case PHASE_LAND:
        land(core);
        break;
    case PHASE_ADOPT:
        adopt_some(core);
        break;
    case PHASE_SPLIT:
    case PHASE_COMPARE:
        break;
    }
}
