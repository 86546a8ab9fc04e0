/*
 * Goal: bytes that are no message are refused; those that are one hold all their texts and lists
 * inside themselves, and survive being written again: the same message, not more bytes than before,
 * and from then on the same bytes.
 * Input: a message's bytes.
 */
#include "cluster/wire.h"
#include "tests/fuzz/fuzz.h"

static const uint8_t *start, *end; /* of what was decoded last */

static void inside(struct text text)
{
    const uint8_t *at = (const uint8_t *)text.ptr;

    CHECK(at >= start && at <= end && text.len <= (size_t)(end - at));
}

static void check_runs(struct text runs)
{
    size_t count = wire_run_count(runs);

    inside(runs);
    CHECK(count * WIRE_RUN_BYTES == runs.len && count <= LIMIT_WIRE_RUNS);
    for (size_t i = 0; i < count; i++) {
        struct wire_run run = wire_run_at(runs, i);

        CHECK(run.seq >= 1 && run.seq <= WIRE_SEQ_MAX);
        if (i > 0) {
            struct wire_run before = wire_run_at(runs, i - 1);

            CHECK(id_compare(&before.origin, &run.origin) < 0);
        }
    }
}

static void check_pack(struct text data)
{
    size_t offset = 0, count = 0;
    struct text part;

    inside(data);
    CHECK(data.len <= LIMIT_WIRE_PACK_BYTES);
    while (wire_next_event(data, &offset, &part)) {
        inside(part);
        CHECK(part.len >= 1);
        count++;
    }
    CHECK(offset == data.len && count >= 1);
}

static void check_events(const struct wire_sync_events *events)
{
    size_t offset = 0, before = 0;
    uint32_t count = 0;
    struct text event;

    inside(events->data);
    CHECK(events->first >= 1 && events->count >= 1);
    CHECK(events->first + events->count - 1 <= WIRE_SEQ_MAX);
    CHECK(events->data.len <= LIMIT_WIRE_EVENT_BYTES);
    while (wire_next_event(events->data, &offset, &event)) {
        inside(event);
        CHECK(event.len >= 1 && event.len <= LIMIT_EVENT_BYTES);
        CHECK(event.ptr == events->data.ptr + before + 4);
        CHECK(offset == before + 4 + event.len && offset <= events->data.len);
        before = offset;
        count++;
    }
    CHECK(offset == events->data.len && count == events->count);
}

static void check_ids(struct text ids)
{
    inside(ids);
    CHECK(ids.len % 16 == 0 && ids.len <= LIMIT_WIRE_NOTE_IDS * 16);
}

/* What a receiver relies on. */
static void check_rules(const struct wire_message *m)
{
    inside(m->tag);
    CHECK(m->tag.len <= LIMIT_WIRE_TAG_BYTES && !id_is_zero(&m->from));
    CHECK(strcmp(wire_type_name(m->type), "unknown") != 0);
    switch (m->type) {
    case WIRE_PROBE:
    case WIRE_PROBE_ACK:
        inside(m->probe.address);
        if (m->type == WIRE_PROBE_ACK)
            inside(m->probe.seen);
        CHECK(m->probe.address.len <= LIMIT_WIRE_ADDR_BYTES);
        CHECK(m->probe.seen.len <= LIMIT_WIRE_ADDR_BYTES && m->probe.leaving <= 1);
        for (uint32_t i = 0; i < m->probe.address.len; i++)
            CHECK(m->probe.address.ptr[i] > ' ' && m->probe.address.ptr[i] < 0x7f);
        inside(m->probe.version);
        CHECK(m->probe.version.len <= LIMIT_WIRE_VERSION_BYTES && m->probe.draining <= 1);
        break;
    case WIRE_SYNC_ASK:
        check_runs(m->sync_ask.runs);
        CHECK(m->sync_ask.session != 0);
        break;
    case WIRE_SYNC_VECTOR:
        check_runs(m->sync_vector.runs);
        CHECK(m->sync_vector.session != 0);
        break;
    case WIRE_SYNC_EVENTS:
        check_events(&m->sync_events);
        break;
    case WIRE_BODY_ASK:
        CHECK(m->body_ask.length == UINT64_MAX ||
              m->body_ask.offset + m->body_ask.length >= m->body_ask.offset);
        break;
    case WIRE_BODY_DATA:
        inside(m->body_data.data);
        CHECK(m->body_data.data.len <= LIMIT_WIRE_CHUNK_BYTES);
        CHECK(m->body_data.offset <= m->body_data.size);
        CHECK(m->body_data.data.len <= m->body_data.size - m->body_data.offset);
        break;
    case WIRE_PACK:
        check_pack(m->pack.data);
        break;
    case WIRE_NOTE:
        inside(m->note.data);
        CHECK(m->note.data.len <= LIMIT_WIRE_NOTE_BYTES);
        CHECK(!id_is_zero(&m->note.note) && !id_is_zero(&m->note.author));
        break;
    case WIRE_NOTE_IDS:
        check_ids(m->note_ids.offered);
        check_ids(m->note_ids.seen);
        check_ids(m->note_ids.wanted);
        break;
    case WIRE_MERGE_ASK:
        CHECK(m->merge_ask.session != 0);
        CHECK(id_compare(&m->merge_ask.after, &m->merge_ask.through) < 0);
        break;
    case WIRE_MERGE_VECTOR:
        inside(m->merge_vector.runs);
        for (size_t i = 0; i < wire_merge_run_count(m->merge_vector.runs); i++) {
            struct wire_merge_run run = wire_merge_run_at(m->merge_vector.runs, i);

            CHECK(run.seq >= 1 && run.seq <= WIRE_SEQ_MAX && run.ended <= 1);
        }
        break;
    case WIRE_MERGE_CHUNK:
        inside(m->merge_chunk.data);
        CHECK(m->merge_chunk.data.len <= LIMIT_WIRE_MERGE_BYTES);
        break;
    case WIRE_MERGE_SUMS_ASK:
        inside(m->merge_sums_ask.fences);
        CHECK(wire_fence_count(m->merge_sums_ask.fences) <= LIMIT_WIRE_FENCES);
        break;
    case WIRE_MERGE_SUMS:
        inside(m->merge_sums.sums);
        CHECK(m->merge_sums.first + wire_sum_count(m->merge_sums.sums) <= LIMIT_WIRE_FENCES);
        break;
    case WIRE_MERGE_CUT_ASK:
        check_runs(m->merge_cut.runs);
        break;
    case WIRE_MERGE_CUT_KNOWN:
        break;
    case WIRE_ADOPT:
        inside(m->adopt.items);
        CHECK(m->adopt.items.len > 0 && m->adopt.items.len % sizeof(struct event_item) == 0);
        CHECK(m->adopt.items.len / sizeof(struct event_item) <= LIMIT_WIRE_ADOPT);
        break;
    case WIRE_KNOWN_ASK:
        check_runs(m->inquiry.runs);
        break;
    case WIRE_RANGE_ASK:
        CHECK(m->inquiry.rows > 0 && id_compare(&m->inquiry.id, &m->inquiry.until) < 0);
        break;
    case WIRE_RANGE:
        inside(m->finding.data);
        CHECK(m->finding.data.len <= LIMIT_WIRE_ROWS * WIRE_ROW_SUM_BYTES);
        CHECK(m->finding.data.len == 0 ||
              m->finding.data.len == m->finding.count * WIRE_ROW_SUM_BYTES);
        break;
    case WIRE_ROW:
        inside(m->finding.data);
        CHECK(m->finding.data.len <= LIMIT_WIRE_ROW_BYTES);
        break;
    case WIRE_KNOWN:
    case WIRE_ROW_ASK:
        break;
    case WIRE_SYNC_FROZEN:
        inside(m->sync_frozen.runs);
        CHECK(m->sync_frozen.runs.len % WIRE_FROZEN_BYTES == 0 && m->sync_frozen.session != 0);
        CHECK(m->sync_frozen.runs.len <= LIMIT_WIRE_FROZEN * WIRE_FROZEN_BYTES);
        break;
    case WIRE_PROCESS:
    case WIRE_TWIN:
        inside(m->process.address);
        CHECK(!id_is_zero(&m->process.process));
        CHECK(m->process.address.len <= LIMIT_WIRE_ADDR_BYTES);
        break;
    default:
        CHECK(m->type == WIRE_PROBE_FOR || m->type == WIRE_PROBE_SAW ||
              m->flow.end <= WIRE_END_CANCEL);
    }
}

static void same_text(struct text a, struct text b)
{
    CHECK(a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0));
}

static void same_hash(struct hash128 a, struct hash128 b)
{
    CHECK(a.low == b.low && a.high == b.high);
}

static void same_probe(const struct wire_probe *a, const struct wire_probe *b)
{
    CHECK(a->nonce == b->nonce && id_equal(&a->to, &b->to) && a->wall_ms == b->wall_ms);
    CHECK(a->feature == b->feature && a->leaving == b->leaving);
    CHECK(a->summary.events == b->summary.events);
    same_hash(a->summary.vector, b->summary.vector);
    same_hash(a->summary.digest, b->summary.digest);
    same_text(a->address, b->address);
    same_text(a->seen, b->seen);
    same_text(a->version, b->version);
    CHECK(a->level == b->level && a->draining == b->draining);
}

static void same_inquiry(const struct wire_inquiry *a, const struct wire_inquiry *b)
{
    CHECK(a->nonce == b->nonce && a->rows == b->rows && a->list == b->list);
    CHECK(id_equal(&a->id, &b->id) && id_equal(&a->until, &b->until));
    same_text(a->runs, b->runs);
}

static void same_finding(const struct wire_finding *a, const struct wire_finding *b)
{
    CHECK(a->nonce == b->nonce && a->yes == b->yes && a->count == b->count);
    CHECK(id_equal(&a->last, &b->last));
    same_hash(a->sum, b->sum);
    same_text(a->data, b->data);
}

static void same_sync(const struct wire_message *a, const struct wire_message *b)
{
    if (a->type == WIRE_SYNC_ASK) {
        const struct wire_sync_ask *x = &a->sync_ask, *y = &b->sync_ask;

        CHECK(x->session == y->session && x->ended_count == y->ended_count);
        CHECK(x->credit_bytes == y->credit_bytes);
        same_hash(x->ended, y->ended);
        same_text(x->runs, y->runs);
    } else if (a->type == WIRE_SYNC_VECTOR) {
        const struct wire_sync_vector *x = &a->sync_vector, *y = &b->sync_vector;

        CHECK(x->session == y->session && x->page == y->page && x->last == y->last);
        same_text(x->runs, y->runs);
    } else {
        const struct wire_sync_events *x = &a->sync_events, *y = &b->sync_events;

        CHECK(x->session == y->session && id_equal(&x->origin, &y->origin));
        CHECK(x->first == y->first && x->count == y->count);
        same_text(x->data, y->data);
    }
}

static void same_body(const struct wire_message *a, const struct wire_message *b)
{
    if (a->type == WIRE_BODY_ASK) {
        const struct wire_body_ask *x = &a->body_ask, *y = &b->body_ask;

        CHECK(x->transfer == y->transfer && id_equal(&x->id, &y->id));
        CHECK(memcmp(x->sha256, y->sha256, sizeof x->sha256) == 0);
        CHECK(x->offset == y->offset && x->length == y->length);
        CHECK(x->credit_bytes == y->credit_bytes && x->background == y->background);
        CHECK(x->delegated == y->delegated);
    } else {
        const struct wire_body_data *x = &a->body_data, *y = &b->body_data;

        CHECK(x->transfer == y->transfer && x->offset == y->offset);
        CHECK(x->size == y->size && x->sum == y->sum);
        same_text(x->data, y->data);
    }
}

static void same_merge(const struct wire_message *a, const struct wire_message *b)
{
    if (a->type == WIRE_MERGE_ASK) {
        const struct wire_merge_ask *x = &a->merge_ask, *y = &b->merge_ask;

        CHECK(x->session == y->session && x->whole == y->whole);
        CHECK(id_equal(&x->after, &y->after) && id_equal(&x->through, &y->through));
        CHECK(x->credit_bytes == y->credit_bytes);
    } else if (a->type == WIRE_MERGE_VECTOR) {
        const struct wire_merge_vector *x = &a->merge_vector, *y = &b->merge_vector;

        CHECK(x->session == y->session && x->page == y->page && x->last == y->last);
        same_text(x->runs, y->runs);
    } else if (a->type == WIRE_MERGE_CHUNK) {
        const struct wire_merge_chunk *x = &a->merge_chunk, *y = &b->merge_chunk;

        CHECK(x->session == y->session && x->number == y->number && x->last == y->last);
        CHECK(id_equal(&x->through, &y->through));
        same_text(x->data, y->data);
    } else if (a->type == WIRE_MERGE_SUMS_ASK) {
        CHECK(a->merge_sums_ask.session == b->merge_sums_ask.session);
        CHECK(id_equal(&a->merge_sums_ask.after, &b->merge_sums_ask.after));
        same_text(a->merge_sums_ask.fences, b->merge_sums_ask.fences);
    } else if (a->type == WIRE_MERGE_SUMS) {
        CHECK(a->merge_sums.session == b->merge_sums.session);
        CHECK(a->merge_sums.first == b->merge_sums.first);
        same_text(a->merge_sums.sums, b->merge_sums.sums);
    } else {
        CHECK(a->merge_cut.nonce == b->merge_cut.nonce);
        CHECK(a->merge_cut.known == b->merge_cut.known);
        same_text(a->merge_cut.runs, b->merge_cut.runs);
    }
}

static void same_message(const struct wire_message *a, const struct wire_message *b)
{
    CHECK(a->type == b->type && id_equal(&a->from, &b->from));
    same_text(a->tag, b->tag);
    switch (a->type) {
    case WIRE_PROBE:
    case WIRE_PROBE_ACK:
        same_probe(&a->probe, &b->probe);
        break;
    case WIRE_PROBE_FOR:
    case WIRE_PROBE_SAW:
        CHECK(a->probe_for.nonce == b->probe_for.nonce);
        CHECK(id_equal(&a->probe_for.subject, &b->probe_for.subject));
        CHECK(a->probe_for.answered == b->probe_for.answered);
        break;
    case WIRE_SYNC_ASK:
    case WIRE_SYNC_VECTOR:
    case WIRE_SYNC_EVENTS:
        same_sync(a, b);
        break;
    case WIRE_BODY_ASK:
    case WIRE_BODY_DATA:
        same_body(a, b);
        break;
    case WIRE_NOTE:
        CHECK(id_equal(&a->note.note, &b->note.note));
        same_text(a->note.data, b->note.data);
        CHECK(id_equal(&a->note.author, &b->note.author) && a->note.age_ms == b->note.age_ms);
        break;
    case WIRE_NOTE_IDS:
        same_text(a->note_ids.offered, b->note_ids.offered);
        same_text(a->note_ids.seen, b->note_ids.seen);
        same_text(a->note_ids.wanted, b->note_ids.wanted);
        break;
    case WIRE_MERGE_ASK:
    case WIRE_MERGE_VECTOR:
    case WIRE_MERGE_CHUNK:
    case WIRE_MERGE_SUMS_ASK:
    case WIRE_MERGE_SUMS:
    case WIRE_MERGE_CUT_ASK:
    case WIRE_MERGE_CUT_KNOWN:
        same_merge(a, b);
        break;
    case WIRE_PACK:
        same_text(a->pack.data, b->pack.data);
        break;
    case WIRE_ADOPT:
        same_text(a->adopt.items, b->adopt.items);
        break;
    case WIRE_KNOWN_ASK:
    case WIRE_RANGE_ASK:
    case WIRE_ROW_ASK:
        same_inquiry(&a->inquiry, &b->inquiry);
        break;
    case WIRE_KNOWN:
    case WIRE_RANGE:
    case WIRE_ROW:
        same_finding(&a->finding, &b->finding);
        break;
    case WIRE_SYNC_FROZEN:
        CHECK(a->sync_frozen.session == b->sync_frozen.session);
        same_text(a->sync_frozen.runs, b->sync_frozen.runs);
        break;
    case WIRE_PROCESS:
    case WIRE_TWIN:
        CHECK(id_equal(&a->process.process, &b->process.process));
        same_text(a->process.address, b->process.address);
        break;
    default:
        CHECK(a->flow.session == b->flow.session && a->flow.bytes == b->flow.bytes);
        CHECK(a->flow.end == b->flow.end);
    }
}

static void check_round_trip(const struct wire_message *message, size_t len)
{
    struct buf first = {0}, second = {0};
    struct wire_message again;

    /* What was appended since to probes, and to questions for a body, is written in any case. */
    size_t more = message->type == WIRE_PROBE || message->type == WIRE_PROBE_ACK ? 3
                  : message->type == WIRE_BODY_ASK                               ? 1
                                                                                 : 0;

    wire_encode(&first, message);
    CHECK(buf_check(&first) == 0 && first.len <= len + more);
    uint8_t *copy = exact_copy(first.data, first.len);
    CHECK(wire_decode(&again, copy, first.len) == 0);
    same_message(message, &again);
    wire_encode(&second, &again);
    CHECK(buf_check(&second) == 0 && second.len == first.len);
    CHECK(memcmp(first.data, second.data, first.len) == 0);
    free(copy);
    buf_release(&first);
    buf_release(&second);
}

/* The iterator by itself: any bytes, any lengths in them. */
static void check_iterator(const uint8_t *data, size_t len)
{
    struct text all = {(const char *)data, (uint32_t)len}, event;
    size_t offset = 0;

    while (wire_next_event(all, &offset, &event)) {
        inside(event);
        CHECK(event.ptr + event.len == all.ptr + offset);
    }
    CHECK(offset <= len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = exact_copy(data, size);
    struct wire_message message, cut;

    start = copy;
    end = copy + size;
    int rc = wire_decode(&message, copy, size);
    CHECK(rc == 0 || rc == ERR_INVALID || rc == ERR_UNSUPPORTED || rc == ERR_TOO_BIG);
    CHECK((rc == ERR_TOO_BIG) == (size > LIMIT_WIRE_BYTES));
    if (rc == 0) {
        CHECK(wire_decode(&cut, copy, size - 1) == ERR_INVALID);
        check_rules(&message);
        check_round_trip(&message, size);
    }
    check_iterator(copy, size);
    free(copy);
    return 0;
}
