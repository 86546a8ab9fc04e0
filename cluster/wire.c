/*
 * Messages as bytes.
 *
 * One msgpack array of five: [version=1, type, tag str, from bin16, members array]. The table
 * `formats` below has a row for each type: how many members it has, who writes and who reads them,
 * and the rules that they keep. As msgpack: numbers are uints, flags bools, ids bin16, a sha256
 * bin32, a hash128 bin16 (low, then high, little-endian), addresses str, lists and data bin, a
 * summary an array of its own, so that it can grow as well.
 *
 * Happy path: wire_encode looks at the rules and writes; wire_decode reads where the bytes lie,
 * steps over what a later build has appended, and looks at the same rules. So a node never sends
 * what its peers would refuse. Lists inside a member (runs, events) are walked once while decoding,
 * with the same iterator that the receiver uses. Failure: one code, nothing allocated, no partial
 * message in OUT.
 */
#include "cluster/wire.h"

#include "base/bytes.h"
#include "base/text.h"
#include "cluster/wire_merge.h"
#include "journal/pack.h"
#include "journal/unpack.h"

#include <assert.h>
#include <string.h>

#define MESSAGE_ARRAY 5
#define SUMMARY_ARRAY 3
#define LENGTH_BYTES  4    /* before each event */
#define REST_BYTES    1024 /* more than all but its one large member takes of a message */

_Static_assert(LIMIT_WIRE_EVENT_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_CHUNK_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_RUNS * WIRE_RUN_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_NOTE_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_MERGE_RUNS * WIRE_MERGE_RUN_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_MERGE_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_PACK_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   3 * LIMIT_WIRE_NOTE_IDS * sizeof(struct id128) + REST_BYTES <=
                       LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_ADOPT * sizeof(struct event_item) + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_ROWS * WIRE_ROW_SUM_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_ROW_BYTES + REST_BYTES <= LIMIT_WIRE_BYTES &&
                   LIMIT_WIRE_TAG_BYTES + 2 * LIMIT_WIRE_ADDR_BYTES + 200 <= REST_BYTES,
               "what keeps the limits of its members fits a message");
_Static_assert(LIMIT_EVENT_BYTES + LENGTH_BYTES <= LIMIT_WIRE_EVENT_BYTES,
               "each event can be sent");

/* ---- Runs and events inside a member ---- */

size_t wire_run_count(struct text runs)
{
    return runs.len / WIRE_RUN_BYTES;
}

struct wire_run wire_run_at(struct text runs, size_t at)
{
    struct wire_run run;

    assert(at < wire_run_count(runs));
    const uint8_t *bytes = (const uint8_t *)runs.ptr + at * WIRE_RUN_BYTES;
    memcpy(run.origin.bytes, bytes, sizeof run.origin.bytes);
    run.seq = get_u64(bytes + sizeof run.origin.bytes);
    return run;
}

void wire_run_add(struct buf *out, const struct wire_run *run)
{
    uint8_t bytes[WIRE_RUN_BYTES];

    assert(run->seq >= 1 && run->seq <= WIRE_SEQ_MAX);
    memcpy(bytes, run->origin.bytes, sizeof run->origin.bytes);
    put_u64(bytes + sizeof run->origin.bytes, run->seq);
    buf_add(out, bytes, sizeof bytes);
}

bool wire_next_event(struct text data, size_t *offset, struct text *event)
{
    assert(*offset <= data.len);
    size_t left = data.len - *offset;

    if (left < LENGTH_BYTES)
        return false;
    uint32_t len = get_u32((const uint8_t *)data.ptr + *offset);
    if (len > left - LENGTH_BYTES)
        return false;
    *event = (struct text){data.ptr + *offset + LENGTH_BYTES, len};
    *offset += LENGTH_BYTES + len;
    return true;
}

void wire_event_add(struct buf *out, const void *event, size_t len)
{
    uint8_t length[LENGTH_BYTES];
    size_t before = out->len;

    assert(len >= 1 && len <= LIMIT_EVENT_BYTES);
    put_u32(length, (uint32_t)len);
    buf_add(out, length, sizeof length);
    buf_add(out, event, len);
    if (out->rc)
        out->len = before; /* whole or not at all */
}

/* ---- The rules that both ends keep ---- */

static bool tag_ok(struct text tag)
{
    return tag.len <= LIMIT_WIRE_TAG_BYTES && utf8_valid(tag.ptr, tag.len) &&
           !text_has_control(tag.ptr, tag.len);
}

static bool address_ok(struct text address)
{
    if (address.len > LIMIT_WIRE_ADDR_BYTES)
        return false;
    for (uint32_t i = 0; i < address.len; i++) {
        if (address.ptr[i] <= ' ' || address.ptr[i] > '~')
            return false;
    }
    return true;
}

bool wire_runs_ok(struct text runs)
{
    struct wire_run before = {.seq = 0}, run;

    if (runs.len % WIRE_RUN_BYTES != 0 || wire_run_count(runs) > LIMIT_WIRE_RUNS)
        return false;
    for (size_t i = 0; i < wire_run_count(runs); i++, before = run) {
        run = wire_run_at(runs, i);
        if (run.seq < 1 || run.seq > WIRE_SEQ_MAX ||
            (i > 0 && id_compare(&before.origin, &run.origin) >= 0))
            return false;
    }
    return true;
}

static bool version_ok(struct text version)
{
    return version.len <= LIMIT_WIRE_VERSION_BYTES && address_ok(version);
}

static bool probe_ok(const struct wire_message *message)
{
    return address_ok(message->probe.address) && message->probe.wall_ms <= WIRE_WALL_MS_MAX &&
           version_ok(message->probe.version);
}

static bool probe_ack_ok(const struct wire_message *message)
{
    return probe_ok(message) && address_ok(message->probe.seen);
}

static bool sync_ask_ok(const struct wire_message *message)
{
    return message->sync_ask.session != 0 && wire_runs_ok(message->sync_ask.runs);
}

static bool sync_vector_ok(const struct wire_message *message)
{
    return message->sync_vector.session != 0 && wire_runs_ok(message->sync_vector.runs);
}

static bool sync_events_ok(const struct wire_message *message)
{
    const struct wire_sync_events *events = &message->sync_events;
    size_t offset = 0;
    uint32_t count = 0;
    struct text event;

    if (events->first < 1 || events->count < 1 || events->first > WIRE_SEQ_MAX ||
        events->count - 1 > WIRE_SEQ_MAX - events->first ||
        events->data.len > LIMIT_WIRE_EVENT_BYTES)
        return false;
    while (wire_next_event(events->data, &offset, &event)) {
        if (event.len < 1 || event.len > LIMIT_EVENT_BYTES)
            return false;
        count++;
    }
    return offset == events->data.len && count == events->count;
}

static bool sync_more_ok(const struct wire_message *message)
{
    return message->flow.session != 0;
}

static bool end_ok(const struct wire_message *message)
{
    return message->flow.end <= WIRE_END_CANCEL;
}

static bool body_ask_ok(const struct wire_message *message)
{
    const struct wire_body_ask *ask = &message->body_ask;

    return ask->length == UINT64_MAX || ask->length <= UINT64_MAX - ask->offset;
}

static bool body_data_ok(const struct wire_message *message)
{
    const struct wire_body_data *data = &message->body_data;

    return data->data.len <= LIMIT_WIRE_CHUNK_BYTES && data->offset <= data->size &&
           data->data.len <= data->size - data->offset;
}

static bool frozen_ok(const struct wire_message *message)
{
    static const struct id128 none;
    struct text runs = message->sync_frozen.runs;

    if (message->sync_frozen.session == 0 || runs.len == 0 || runs.len % WIRE_FROZEN_BYTES != 0 ||
        runs.len > LIMIT_WIRE_FROZEN * WIRE_FROZEN_BYTES)
        return false;
    for (uint32_t at = 0; at < runs.len; at += sizeof none)
        if (memcmp(runs.ptr + at, &none, sizeof none) == 0)
            return false;
    return true;
}

static bool process_ok(const struct wire_message *message)
{
    return !id_is_zero(&message->process.process) && address_ok(message->process.address);
}

static bool note_ok(const struct wire_message *message)
{
    const struct wire_note *note = &message->note;

    return note->data.len <= LIMIT_WIRE_NOTE_BYTES && !id_is_zero(&note->note) &&
           !id_is_zero(&note->author);
}

static bool ids_ok(struct text ids)
{
    return ids.len % sizeof(struct id128) == 0 &&
           ids.len / sizeof(struct id128) <= LIMIT_WIRE_NOTE_IDS;
}

static bool note_ids_ok(const struct wire_message *message)
{
    const struct wire_note_ids *ids = &message->note_ids;

    return ids_ok(ids->offered) && ids_ok(ids->seen) && ids_ok(ids->wanted);
}

static bool pack_ok(const struct wire_message *message)
{
    struct text data = message->pack.data, part;
    size_t offset = 0;

    if (data.len == 0 || data.len > LIMIT_WIRE_PACK_BYTES)
        return false;
    while (wire_next_event(data, &offset, &part)) {
        if (part.len == 0)
            return false;
    }
    return offset == data.len;
}

static bool adopt_ok(const struct wire_message *message)
{
    uint32_t len = message->adopt.items.len;

    return len > 0 && len % sizeof(struct event_item) == 0 &&
           len / sizeof(struct event_item) <= LIMIT_WIRE_ADOPT;
}

static bool known_ask_ok(const struct wire_message *message)
{
    return wire_runs_ok(message->inquiry.runs);
}

static bool range_ask_ok(const struct wire_message *message)
{
    return message->inquiry.rows > 0 &&
           id_compare(&message->inquiry.id, &message->inquiry.until) < 0;
}

static bool range_ok(const struct wire_message *message)
{
    uint32_t len = message->finding.data.len;

    return len % WIRE_ROW_SUM_BYTES == 0 && len / WIRE_ROW_SUM_BYTES <= LIMIT_WIRE_ROWS &&
           (len == 0 || len / WIRE_ROW_SUM_BYTES == message->finding.count);
}

static bool row_ok(const struct wire_message *message)
{
    return message->finding.data.len <= LIMIT_WIRE_ROW_BYTES;
}

static bool is_fine(const struct wire_message *message)
{
    (void)message;
    return true;
}

/* ---- Writing and reading the members ---- */

static void pack_text(struct buf *out, struct text text)
{
    pack_str(out, text.ptr, text.len);
}

static void pack_data(struct buf *out, struct text data)
{
    pack_bin(out, data.ptr, data.len);
}

static void pack_id(struct buf *out, const struct id128 *id)
{
    pack_bin(out, id->bytes, sizeof id->bytes);
}

static void pack_hash(struct buf *out, const struct hash128 *hash)
{
    uint8_t bytes[16];

    put_u64(bytes, hash->low);
    put_u64(bytes + 8, hash->high);
    pack_bin(out, bytes, sizeof bytes);
}

static struct text take_text(struct unpack *in)
{
    struct text text;

    text.ptr = unpack_str(in, &text.len);
    return text;
}

static struct text take_data(struct unpack *in)
{
    struct text data;

    data.ptr = (const char *)unpack_bin(in, &data.len);
    return data;
}

static void take_id(struct unpack *in, struct id128 *id)
{
    unpack_bytes(in, id->bytes, sizeof id->bytes);
}

static struct hash128 take_hash(struct unpack *in)
{
    uint8_t bytes[16];

    unpack_bytes(in, bytes, sizeof bytes);
    return (struct hash128){.low = get_u64(bytes), .high = get_u64(bytes + 8)};
}

/* The head of an array of which this build knows KNOWN elements: how many more there are. */
static uint32_t take_array(struct unpack *in, uint32_t known)
{
    uint32_t elements = unpack_array(in);

    if (elements >= known)
        return elements - known;
    unpack_fail(in);
    return 0;
}

static void skip(struct unpack *in, uint32_t elements)
{
    for (; elements > 0 && !in->failed; elements--)
        unpack_skip(in);
}

static void write_probe(struct buf *out, const struct wire_message *message)
{
    const struct wire_probe *probe = &message->probe;

    pack_uint(out, probe->nonce);
    pack_id(out, &probe->to);
    pack_text(out, probe->address);
    pack_uint(out, probe->wall_ms);
    pack_uint(out, probe->feature);
    pack_bool(out, probe->leaving);
    pack_array(out, SUMMARY_ARRAY);
    pack_hash(out, &probe->summary.vector);
    pack_hash(out, &probe->summary.digest);
    pack_uint(out, probe->summary.events);
    if (message->type == WIRE_PROBE_ACK)
        pack_text(out, probe->seen);
}

static void read_probe(struct unpack *in, struct wire_message *out)
{
    struct wire_probe *probe = &out->probe;

    probe->nonce = unpack_uint(in, UINT64_MAX);
    take_id(in, &probe->to);
    probe->address = take_text(in);
    probe->wall_ms = unpack_uint(in, UINT64_MAX);
    probe->feature = (uint32_t)unpack_uint(in, UINT32_MAX);
    probe->leaving = unpack_bool(in);
    uint32_t more = take_array(in, SUMMARY_ARRAY);
    probe->summary.vector = take_hash(in);
    probe->summary.digest = take_hash(in);
    probe->summary.events = unpack_uint(in, UINT64_MAX);
    skip(in, more);
    if (out->type == WIRE_PROBE_ACK)
        probe->seen = take_text(in);
}

static void write_probe_for(struct buf *out, const struct wire_message *message)
{
    pack_uint(out, message->probe_for.nonce);
    pack_id(out, &message->probe_for.subject);
    if (message->type == WIRE_PROBE_SAW)
        pack_bool(out, message->probe_for.answered);
}

static void read_probe_for(struct unpack *in, struct wire_message *out)
{
    out->probe_for.nonce = unpack_uint(in, UINT64_MAX);
    take_id(in, &out->probe_for.subject);
    if (out->type == WIRE_PROBE_SAW)
        out->probe_for.answered = unpack_bool(in);
}

static void write_sync_ask(struct buf *out, const struct wire_message *message)
{
    const struct wire_sync_ask *ask = &message->sync_ask;

    pack_uint(out, ask->session);
    pack_hash(out, &ask->ended);
    pack_uint(out, ask->ended_count);
    pack_uint(out, ask->credit_bytes);
    pack_data(out, ask->runs);
}

static void read_sync_ask(struct unpack *in, struct wire_message *out)
{
    struct wire_sync_ask *ask = &out->sync_ask;

    ask->session = unpack_uint(in, UINT64_MAX);
    ask->ended = take_hash(in);
    ask->ended_count = unpack_uint(in, UINT64_MAX);
    ask->credit_bytes = unpack_uint(in, UINT64_MAX);
    ask->runs = take_data(in);
}

static void write_sync_vector(struct buf *out, const struct wire_message *message)
{
    const struct wire_sync_vector *vector = &message->sync_vector;

    pack_uint(out, vector->session);
    pack_uint(out, vector->page);
    pack_bool(out, vector->last);
    pack_data(out, vector->runs);
}

static void read_sync_vector(struct unpack *in, struct wire_message *out)
{
    struct wire_sync_vector *vector = &out->sync_vector;

    vector->session = unpack_uint(in, UINT64_MAX);
    vector->page = (uint32_t)unpack_uint(in, UINT32_MAX);
    vector->last = unpack_bool(in);
    vector->runs = take_data(in);
}

static void write_sync_events(struct buf *out, const struct wire_message *message)
{
    const struct wire_sync_events *events = &message->sync_events;

    pack_uint(out, events->session);
    pack_id(out, &events->origin);
    pack_uint(out, events->first);
    pack_uint(out, events->count);
    pack_data(out, events->data);
}

static void read_sync_events(struct unpack *in, struct wire_message *out)
{
    struct wire_sync_events *events = &out->sync_events;

    events->session = unpack_uint(in, UINT64_MAX);
    take_id(in, &events->origin);
    events->first = unpack_uint(in, WIRE_SEQ_MAX);
    events->count = (uint32_t)unpack_uint(in, UINT32_MAX);
    events->data = take_data(in);
}

static bool has_credit(enum wire_type type)
{
    return type == WIRE_SYNC_CREDIT || type == WIRE_BODY_CREDIT || type == WIRE_MERGE_CREDIT;
}

static bool has_end(enum wire_type type)
{
    return type == WIRE_SYNC_END || type == WIRE_BODY_END || type == WIRE_MERGE_END;
}

static void write_flow(struct buf *out, const struct wire_message *message)
{
    pack_uint(out, message->flow.session);
    if (has_credit(message->type))
        pack_uint(out, message->flow.bytes);
    if (has_end(message->type))
        pack_uint(out, message->flow.end);
}

static void read_flow(struct unpack *in, struct wire_message *out)
{
    out->flow.session = unpack_uint(in, UINT64_MAX);
    if (has_credit(out->type))
        out->flow.bytes = unpack_uint(in, UINT64_MAX);
    if (has_end(out->type))
        out->flow.end = (uint8_t)unpack_uint(in, UINT8_MAX);
}

static void write_body_ask(struct buf *out, const struct wire_message *message)
{
    const struct wire_body_ask *ask = &message->body_ask;

    pack_uint(out, ask->transfer);
    pack_id(out, &ask->id);
    pack_bin(out, ask->sha256, sizeof ask->sha256);
    pack_uint(out, ask->offset);
    pack_uint(out, ask->length);
    pack_uint(out, ask->credit_bytes);
    pack_bool(out, ask->background);
}

static void read_body_ask(struct unpack *in, struct wire_message *out)
{
    struct wire_body_ask *ask = &out->body_ask;

    ask->transfer = unpack_uint(in, UINT64_MAX);
    take_id(in, &ask->id);
    unpack_bytes(in, ask->sha256, sizeof ask->sha256);
    ask->offset = unpack_uint(in, UINT64_MAX);
    ask->length = unpack_uint(in, UINT64_MAX);
    ask->credit_bytes = unpack_uint(in, UINT64_MAX);
    ask->background = unpack_bool(in);
}

static void write_body_ask_more(struct buf *out, const struct wire_message *message)
{
    pack_bool(out, message->body_ask.delegated);
}

static void read_body_ask_more(struct unpack *in, struct wire_message *out, uint32_t count)
{
    if (count > 0)
        out->body_ask.delegated = unpack_bool(in);
}

static void write_body_data(struct buf *out, const struct wire_message *message)
{
    const struct wire_body_data *data = &message->body_data;

    pack_uint(out, data->transfer);
    pack_uint(out, data->offset);
    pack_uint(out, data->size);
    pack_uint(out, data->sum);
    pack_data(out, data->data);
}

static void read_body_data(struct unpack *in, struct wire_message *out)
{
    struct wire_body_data *data = &out->body_data;

    data->transfer = unpack_uint(in, UINT64_MAX);
    data->offset = unpack_uint(in, UINT64_MAX);
    data->size = unpack_uint(in, UINT64_MAX);
    data->sum = unpack_uint(in, UINT64_MAX);
    data->data = take_data(in);
}

static void write_note(struct buf *out, const struct wire_message *message)
{
    pack_id(out, &message->note.note);
    pack_data(out, message->note.data);
    pack_id(out, &message->note.author);
    pack_uint(out, message->note.age_ms);
}

static void read_note(struct unpack *in, struct wire_message *out)
{
    take_id(in, &out->note.note);
    out->note.data = take_data(in);
    take_id(in, &out->note.author);
    out->note.age_ms = (uint32_t)unpack_uint(in, UINT32_MAX);
}

static void write_note_ids(struct buf *out, const struct wire_message *message)
{
    pack_data(out, message->note_ids.offered);
    pack_data(out, message->note_ids.seen);
    pack_data(out, message->note_ids.wanted);
}

static void read_note_ids(struct unpack *in, struct wire_message *out)
{
    out->note_ids.offered = take_data(in);
    out->note_ids.seen = take_data(in);
    out->note_ids.wanted = take_data(in);
}

static void write_pack(struct buf *out, const struct wire_message *message)
{
    pack_data(out, message->pack.data);
}

static void read_pack(struct unpack *in, struct wire_message *out)
{
    out->pack.data = take_data(in);
}

/* What later builds have appended to a probe, behind `seen` in an answer. */
static void write_probe_more(struct buf *out, const struct wire_message *message)
{
    pack_text(out, message->probe.version);
    pack_uint(out, message->probe.level);
    pack_bool(out, message->probe.draining);
}

static void read_probe_more(struct unpack *in, struct wire_message *out, uint32_t count)
{
    if (count > 0)
        out->probe.version = take_text(in);
    if (count > 1)
        out->probe.level = (uint32_t)unpack_uint(in, UINT32_MAX);
    if (count > 2)
        out->probe.draining = unpack_bool(in);
}

static void write_adopt(struct buf *out, const struct wire_message *message)
{
    pack_data(out, message->adopt.items);
}

static void read_adopt(struct unpack *in, struct wire_message *out)
{
    out->adopt.items = take_data(in);
}

static void write_inquiry(struct buf *out, const struct wire_message *message)
{
    const struct wire_inquiry *inquiry = &message->inquiry;

    pack_uint(out, inquiry->nonce);
    if (message->type == WIRE_KNOWN_ASK) {
        pack_data(out, inquiry->runs);
        return;
    }
    pack_id(out, &inquiry->id);
    if (message->type == WIRE_ROW_ASK)
        return;
    pack_id(out, &inquiry->until);
    pack_uint(out, inquiry->rows);
    pack_bool(out, inquiry->list);
}

static void read_inquiry(struct unpack *in, struct wire_message *out)
{
    struct wire_inquiry *inquiry = &out->inquiry;

    inquiry->nonce = unpack_uint(in, UINT64_MAX);
    if (out->type == WIRE_KNOWN_ASK) {
        inquiry->runs = take_data(in);
        return;
    }
    take_id(in, &inquiry->id);
    if (out->type == WIRE_ROW_ASK)
        return;
    take_id(in, &inquiry->until);
    inquiry->rows = (uint32_t)unpack_uint(in, UINT32_MAX);
    inquiry->list = unpack_bool(in);
}

static void write_finding(struct buf *out, const struct wire_message *message)
{
    const struct wire_finding *finding = &message->finding;

    pack_uint(out, finding->nonce);
    if (message->type != WIRE_ROW)
        pack_bool(out, finding->yes);
    if (message->type == WIRE_RANGE) {
        pack_id(out, &finding->last);
        pack_uint(out, finding->count);
        pack_hash(out, &finding->sum);
    }
    if (message->type != WIRE_KNOWN)
        pack_data(out, finding->data);
}

static void read_finding(struct unpack *in, struct wire_message *out)
{
    struct wire_finding *finding = &out->finding;

    finding->nonce = unpack_uint(in, UINT64_MAX);
    if (out->type != WIRE_ROW)
        finding->yes = unpack_bool(in);
    if (out->type == WIRE_RANGE) {
        take_id(in, &finding->last);
        finding->count = unpack_uint(in, UINT64_MAX);
        finding->sum = take_hash(in);
    }
    if (out->type != WIRE_KNOWN)
        finding->data = take_data(in);
}

static void write_process(struct buf *out, const struct wire_message *message)
{
    pack_id(out, &message->process.process);
    pack_text(out, message->process.address);
}

static void read_process(struct unpack *in, struct wire_message *out)
{
    take_id(in, &out->process.process);
    out->process.address = take_text(in);
}

static void write_frozen(struct buf *out, const struct wire_message *message)
{
    pack_uint(out, message->sync_frozen.session);
    pack_data(out, message->sync_frozen.runs);
}

static void read_frozen(struct unpack *in, struct wire_message *out)
{
    out->sync_frozen.session = unpack_uint(in, UINT64_MAX);
    out->sync_frozen.runs = take_data(in);
}

/* ---- Messages ---- */

static const struct {
    const char *name;
    uint32_t members;
    void (*write)(struct buf *out, const struct wire_message *message);
    void (*read)(struct unpack *in, struct wire_message *out);
    bool (*ok)(const struct wire_message *message);
    /* Members that came later: written always; the first COUNT of them read, where they are. */
    uint32_t appended;
    void (*write_more)(struct buf *out, const struct wire_message *message);
    void (*read_more)(struct unpack *in, struct wire_message *out, uint32_t count);
} formats[] = {
    [WIRE_PROBE] = {"probe", 7, write_probe, read_probe, probe_ok, 3, write_probe_more,
                    read_probe_more},
    [WIRE_PROBE_ACK] = {"probe-ack", 8, write_probe, read_probe, probe_ack_ok, 3, write_probe_more,
                        read_probe_more},
    [WIRE_PROBE_FOR] = {"probe-for", 2, write_probe_for, read_probe_for, is_fine, 0, NULL, NULL},
    [WIRE_PROBE_SAW] = {"probe-saw", 3, write_probe_for, read_probe_for, is_fine, 0, NULL, NULL},
    [WIRE_SYNC_ASK] = {"sync-ask", 5, write_sync_ask, read_sync_ask, sync_ask_ok, 0, NULL, NULL},
    [WIRE_SYNC_MORE] = {"sync-more", 1, write_flow, read_flow, sync_more_ok, 0, NULL, NULL},
    [WIRE_SYNC_VECTOR] = {"sync-vector", 4, write_sync_vector, read_sync_vector, sync_vector_ok, 0,
                          NULL, NULL},
    [WIRE_SYNC_EVENTS] = {"sync-events", 5, write_sync_events, read_sync_events, sync_events_ok, 0,
                          NULL, NULL},
    [WIRE_SYNC_CREDIT] = {"sync-credit", 2, write_flow, read_flow, is_fine, 0, NULL, NULL},
    [WIRE_SYNC_END] = {"sync-end", 2, write_flow, read_flow, end_ok, 0, NULL, NULL},
    [WIRE_BODY_ASK] = {"body-ask", 7, write_body_ask, read_body_ask, body_ask_ok, 1,
                       write_body_ask_more, read_body_ask_more},
    [WIRE_BODY_DATA] = {"body-data", 5, write_body_data, read_body_data, body_data_ok, 0, NULL,
                        NULL},
    [WIRE_BODY_CREDIT] = {"body-credit", 2, write_flow, read_flow, is_fine, 0, NULL, NULL},
    [WIRE_BODY_END] = {"body-end", 2, write_flow, read_flow, end_ok, 0, NULL, NULL},
    [WIRE_BODY_COMING] = {"body-coming", 1, write_flow, read_flow, is_fine, 0, NULL, NULL},
    [WIRE_NOTE] = {"note", 4, write_note, read_note, note_ok, 0, NULL, NULL},
    [WIRE_NOTE_IDS] = {"note-ids", 3, write_note_ids, read_note_ids, note_ids_ok, 0, NULL, NULL},
    [WIRE_PACK] = {"pack", 1, write_pack, read_pack, pack_ok, 0, NULL, NULL},
    [WIRE_ADOPT] = {"adopt", 1, write_adopt, read_adopt, adopt_ok, 0, NULL, NULL},
    [WIRE_KNOWN_ASK] = {"known-ask", 2, write_inquiry, read_inquiry, known_ask_ok, 0, NULL, NULL},
    [WIRE_KNOWN] = {"known", 2, write_finding, read_finding, is_fine, 0, NULL, NULL},
    [WIRE_RANGE_ASK] = {"range-ask", 5, write_inquiry, read_inquiry, range_ask_ok, 0, NULL, NULL},
    [WIRE_RANGE] = {"range", 6, write_finding, read_finding, range_ok, 0, NULL, NULL},
    [WIRE_ROW_ASK] = {"row-ask", 2, write_inquiry, read_inquiry, is_fine, 0, NULL, NULL},
    [WIRE_ROW] = {"row", 2, write_finding, read_finding, row_ok, 0, NULL, NULL},
    [WIRE_PROCESS] = {"process", 2, write_process, read_process, process_ok, 0, NULL, NULL},
    [WIRE_TWIN] = {"twin", 2, write_process, read_process, process_ok, 0, NULL, NULL},
    [WIRE_SYNC_FROZEN] = {"sync-frozen", 2, write_frozen, read_frozen, frozen_ok, 0, NULL, NULL},
    [WIRE_MERGE_ASK] = {"merge-ask", 5, write_merge_ask, read_merge_ask, merge_ask_ok, 0, NULL,
                        NULL},
    [WIRE_MERGE_VECTOR] = {"merge-vector", 4, write_merge_vector, read_merge_vector,
                           merge_vector_ok, 0, NULL, NULL},
    [WIRE_MERGE_CHUNK] = {"merge-chunk", 5, write_merge_chunk, read_merge_chunk, merge_chunk_ok, 0,
                          NULL, NULL},
    [WIRE_MERGE_CREDIT] = {"merge-credit", 2, write_flow, read_flow, is_fine, 0, NULL, NULL},
    [WIRE_MERGE_SUMS_ASK] = {"merge-sums-ask", 3, write_merge_sums_ask, read_merge_sums_ask,
                             merge_sums_ask_ok, 0, NULL, NULL},
    [WIRE_MERGE_SUMS] = {"merge-sums", 3, write_merge_sums, read_merge_sums, merge_sums_ok, 0, NULL,
                         NULL},
    [WIRE_MERGE_END] = {"merge-end", 2, write_flow, read_flow, end_ok, 0, NULL, NULL},
    [WIRE_MERGE_CUT_ASK] = {"merge-cut-ask", 2, write_merge_cut, read_merge_cut, merge_cut_ok, 0,
                            NULL, NULL},
    [WIRE_MERGE_CUT_KNOWN] = {"merge-cut-known", 2, write_merge_cut, read_merge_cut, merge_cut_ok,
                              0, NULL, NULL},
};

static bool is_known(uint64_t type)
{
    return type < sizeof formats / sizeof *formats && formats[type].name;
}

const char *wire_type_name(uint32_t type)
{
    return is_known(type) ? formats[type].name : "unknown";
}

static bool message_ok(const struct wire_message *message)
{
    return tag_ok(message->tag) && !id_is_zero(&message->from) &&
           formats[message->type].ok(message);
}

void wire_encode(struct buf *out, const struct wire_message *message)
{
    size_t before = out->len;

    assert(is_known(message->type));
    if (out->rc)
        return;
    if (!message_ok(message)) {
        out->rc = ERR_INVALID;
        return;
    }
    pack_array(out, MESSAGE_ARRAY);
    pack_uint(out, WIRE_VERSION);
    pack_uint(out, message->type);
    pack_text(out, message->tag);
    pack_id(out, &message->from);
    pack_array(out, formats[message->type].members + formats[message->type].appended);
    formats[message->type].write(out, message);
    if (formats[message->type].appended)
        formats[message->type].write_more(out, message);
    assert(out->rc || out->len - before <= LIMIT_WIRE_BYTES);
    if (out->rc)
        out->len = before;
}

int wire_decode(struct wire_message *out, const uint8_t *data, size_t len)
{
    struct unpack in;

    memset(out, 0, sizeof *out);
    if (len > LIMIT_WIRE_BYTES)
        return ERR_TOO_BIG;
    unpack_init(&in, data, len);
    uint32_t elements = unpack_array(&in);
    uint64_t version = unpack_uint(&in, UINT64_MAX);
    if (!in.failed && version > WIRE_VERSION)
        return ERR_UNSUPPORTED; /* which may be laid out in another way from here on */
    uint64_t type = unpack_uint(&in, UINT64_MAX);
    if (in.failed || version != WIRE_VERSION || elements != MESSAGE_ARRAY)
        return ERR_INVALID;
    if (!is_known(type))
        return ERR_UNSUPPORTED;
    out->type = (enum wire_type)type;
    out->tag = take_text(&in);
    take_id(&in, &out->from);
    uint32_t more = take_array(&in, formats[type].members);
    formats[type].read(&in, out);
    if (formats[type].appended) {
        uint32_t count = more < formats[type].appended ? more : formats[type].appended;

        formats[type].read_more(&in, out, count);
        more -= count;
    }
    skip(&in, more);
    if (unpack_done(&in) != 0 || !message_ok(out))
        return ERR_INVALID;
    return 0;
}
