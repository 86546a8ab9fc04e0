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

#include "base/text.h"
#include "cluster/wire_body.h"
#include "cluster/wire_fields.h"
#include "cluster/wire_inquiry.h"
#include "cluster/wire_merge.h"
#include "cluster/wire_probe.h"
#include "cluster/wire_sync.h"
#include "journal/pack.h"

#include <assert.h>
#include <string.h>

#define MESSAGE_ARRAY 5
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
_Static_assert(LIMIT_EVENT_BYTES + WIRE_LENGTH_BYTES <= LIMIT_WIRE_EVENT_BYTES,
               "each event can be sent");

/* ---- The flow of what is streamed ---- */

static bool end_ok(const struct wire_message *message)
{
    return message->flow.end <= WIRE_END_CANCEL;
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

/* ---- Notes and packs ---- */

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

static void write_note(struct buf *out, const struct wire_message *message)
{
    wire_put_id(out, &message->note.note);
    wire_put_data(out, message->note.data);
    wire_put_id(out, &message->note.author);
    pack_uint(out, message->note.age_ms);
}

static void read_note(struct unpack *in, struct wire_message *out)
{
    wire_take_id(in, &out->note.note);
    out->note.data = wire_take_data(in);
    wire_take_id(in, &out->note.author);
    out->note.age_ms = (uint32_t)unpack_uint(in, UINT32_MAX);
}

static void write_note_ids(struct buf *out, const struct wire_message *message)
{
    wire_put_data(out, message->note_ids.offered);
    wire_put_data(out, message->note_ids.seen);
    wire_put_data(out, message->note_ids.wanted);
}

static void read_note_ids(struct unpack *in, struct wire_message *out)
{
    out->note_ids.offered = wire_take_data(in);
    out->note_ids.seen = wire_take_data(in);
    out->note_ids.wanted = wire_take_data(in);
}

static void write_pack(struct buf *out, const struct wire_message *message)
{
    wire_put_data(out, message->pack.data);
}

static void read_pack(struct unpack *in, struct wire_message *out)
{
    out->pack.data = wire_take_data(in);
}

/* ---- Messages ---- */

static bool is_fine(const struct wire_message *message)
{
    (void)message;
    return true;
}

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

static bool tag_ok(struct text tag)
{
    return tag.len <= LIMIT_WIRE_TAG_BYTES && utf8_valid(tag.ptr, tag.len) &&
           !text_has_control(tag.ptr, tag.len);
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
    wire_put_text(out, message->tag);
    wire_put_id(out, &message->from);
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
    out->tag = wire_take_text(&in);
    wire_take_id(&in, &out->from);
    uint32_t more = wire_take_array(&in, formats[type].members);
    formats[type].read(&in, out);
    if (formats[type].appended) {
        uint32_t count = more < formats[type].appended ? more : formats[type].appended;

        formats[type].read_more(&in, out, count);
        more -= count;
    }
    wire_skip(&in, more);
    if (unpack_done(&in) != 0 || !message_ok(out))
        return ERR_INVALID;
    return 0;
}
