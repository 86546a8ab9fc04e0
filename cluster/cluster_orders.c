/*
 * Orders: a list that other threads append to under the cluster's lock, and those under way, which
 * are the cluster's thread's own. Also the notes' sink, and what sync tells of one node.
 *
 *   say          note core: delivered here, sent to all                     done at once
 *   read         copied                                                     done at once
 *   announce     a probe to every member                                    done at once
 *   announce at  a seed; it answers (MET, SELF), or ORDER_ANSWER_MS pass: one that was not known
 *                before is then no seed any more
 *   sync         a probe; its summary comes: equal, or sync is told to ask; the session ends
 *
 * Failure: each ends with what is known by its deadline, or with ERR_CLOSED when the node stops.
 */
#include "cluster/cluster_internal.h"
#include "cluster/orders.h"

#include "base/bytes.h"
#include "base/log.h"
#include "journal/ulid.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

int cluster_order(struct cluster *cluster, struct cluster_order *order)
{
    int rc = 0;

    assert(order->done && order->kind >= ORDER_SAY && order->kind <= ORDER_SYNC);
    pthread_mutex_lock(&cluster->lock);
    if (cluster->orders_closed)
        rc = ERR_CLOSED;
    else if (cluster->order_count == LIMIT_ORDERS)
        rc = ERR_FULL;
    if (rc == 0) {
        order->next = cluster->ordered;
        cluster->ordered = order;
        cluster->order_count++;
        link_wake(cluster->link);
    }
    pthread_mutex_unlock(&cluster->lock);
    return rc;
}

/* ORDER is out of any list. */
static void finish(struct cluster *cluster, struct cluster_order *order, int rc)
{
    pthread_mutex_lock(&cluster->lock);
    assert(cluster->order_count > 0);
    cluster->order_count--;
    pthread_mutex_unlock(&cluster->lock);
    order->rc = rc;
    order->done(order);
}

/* ---- Notes ---- */

static void send_message(void *arg, const struct id128 *to, const struct wire_message *message)
{
    peer_send(arg, to, message);
}

static void deliver_note(void *arg, const struct note *note)
{
    char id[ULID_TEXT_BYTES + 1], author[ULID_TEXT_BYTES + 1], echo[ORDER_ECHO_BYTES + 1];
    const struct cluster *cluster = arg;
    uint32_t len = note->data.len < ORDER_ECHO_BYTES ? note->data.len : ORDER_ECHO_BYTES;

    ulid_format(id, &note->id);
    ulid_format(author, &note->author);
    for (uint32_t i = 0; i < len; i++)
        echo[i] = note->data.ptr[i] >= ' ' && note->data.ptr[i] <= '~' ? note->data.ptr[i] : '.';
    echo[len] = '\0';
    log_info("cluster: note %s of %s, %u bytes: %s%s", id,
             id_equal(&note->author, &cluster->self) ? "this node" : author, note->data.len, echo,
             len < note->data.len ? "…" : "");
}

int orders_open(struct cluster *cluster, uint64_t seed)
{
    const struct notes_sink sink = {send_message, deliver_note, cluster};

    return notes_create(&cluster->notes, &cluster->self, seed, &sink);
}

struct notes_times orders_times(struct cluster *cluster)
{
    return (struct notes_times){cluster_now(cluster), env_wall_ms(cluster->env)};
}

static int copy_notes(const struct cluster *cluster, struct buf *out)
{
    for (size_t i = 0; i < notes_count(cluster->notes); i++) {
        struct note note = notes_at(cluster->notes, i);
        uint8_t head[NOTE_RECORD_BYTES];

        memcpy(head, note.id.bytes, sizeof note.id);
        memcpy(head + 16, note.author.bytes, sizeof note.author);
        put_u64(head + 32, note.wall_ms);
        put_u32(head + 40, note.data.len);
        buf_add(out, head, sizeof head);
        if (note.data.len)
            buf_add(out, note.data.ptr, note.data.len);
    }
    return buf_check(out);
}

bool order_next_note(const struct buf *notes, size_t *offset, struct note_read *out)
{
    const uint8_t *head = (const uint8_t *)notes->data + *offset;

    assert(*offset <= notes->len);
    if (notes->len - *offset < NOTE_RECORD_BYTES)
        return false;
    memcpy(out->id.bytes, head, sizeof out->id);
    memcpy(out->author.bytes, head + 16, sizeof out->author);
    out->wall_ms = get_u64(head + 32);
    out->data = (struct text){(const char *)head + NOTE_RECORD_BYTES, get_u32(head + 40)};
    *offset += NOTE_RECORD_BYTES + out->data.len;
    assert(*offset <= notes->len); /* copy_notes wrote it */
    return true;
}

/* ---- Making the node known ---- */

static int add_seed(struct cluster *cluster, struct cluster_order *order)
{
    size_t before = probe_seeds(cluster->probe);
    struct probe_input input = {.kind = PROBE_SEED,
                                .seed = {order->address, (uint32_t)strlen(order->address)}};
    int rc = peer_probe(cluster, &input);

    order->added = rc == 0 && probe_seeds(cluster->probe) > before;
    return rc;
}

static void drop_seed(struct cluster *cluster, const struct cluster_order *order)
{
    struct probe_input input = {.kind = PROBE_SEED_DROP,
                                .seed = {order->address, (uint32_t)strlen(order->address)}};
    int rc = order->added ? peer_probe(cluster, &input) : 0;

    assert(rc == 0);
    (void)rc;
}

void orders_met(struct cluster *cluster, struct text address, const struct id128 *node)
{
    struct cluster_order **link = &cluster->orders;

    while (*link) {
        struct cluster_order *order = *link;

        if (order->kind != ORDER_ANNOUNCE_AT || strlen(order->address) != address.len ||
            memcmp(order->address, address.ptr, address.len) != 0) {
            link = &order->next;
            continue;
        }
        *link = order->next;
        order->node = *node;
        finish(cluster, order, id_equal(node, &cluster->self) ? ERR_EXISTS : 0);
    }
}

static void probe_now(struct cluster *cluster, const struct id128 *node)
{
    struct probe_input input = {.kind = PROBE_NOW, .now = *node};
    int rc = peer_probe(cluster, &input);

    assert(rc == 0);
    (void)rc;
}

/* ---- Sync ---- */

static int begin_sync(struct cluster *cluster, struct cluster_order *order)
{
    static const struct id128 nobody;
    bool all = id_is_zero(&order->node);

    order->count = 0;
    for (size_t i = 0; i < members_count(cluster->members); i++) {
        const struct member *row = members_at(cluster->members, i);
        struct sync_asked asked;

        if (row->state != MEMBER_JOINED || id_equal(&row->node, &cluster->self) ||
            (!all && !id_equal(&row->node, &order->node)) || order->count == LIMIT_MEMBERS)
            continue;
        sync_asked(cluster->sync, &row->node, &asked);
        order->outcomes[order->count++] = (struct sync_outcome){
            .node = row->node, .sessions_before = asked.ended, .events_before = asked.events};
    }
    if (order->count == 0)
        return all ? 0 : ERR_NOT_FOUND;
    probe_now(cluster, all ? &nobody : &order->node);
    return ERR_AGAIN;
}

static enum sync_result result_of(enum wire_end end)
{
    switch (end) {
    case WIRE_END_DONE:
        return SYNC_RESULT_SYNCED;
    case WIRE_END_BUSY:
    case WIRE_END_CANCEL:
        return SYNC_RESULT_BUSY;
    case WIRE_END_BEHIND:
        return SYNC_RESULT_BEHIND;
    default:
        return SYNC_RESULT_FAILED;
    }
}

/* It has told what it knows: is there something to ask for, and what did that come to? */
static enum sync_result judge(struct cluster *cluster, struct sync_outcome *outcome)
{
    struct sync_asked asked;

    sync_asked(cluster->sync, &outcome->node, &asked);
    outcome->events = asked.events - outcome->events_before;
    if (!asked.alive)
        return SYNC_RESULT_SILENT;
    if (asked.ended > outcome->sessions_before)
        return result_of(asked.end);
    if (asked.wished)
        return (enum sync_result)0;
    if (asked.equal)
        return SYNC_RESULT_EQUAL;
    if (outcome->asked)
        return SYNC_RESULT_AHEAD;
    struct sync_input input = {.kind = SYNC_WISH, .wish = outcome->node};
    outcome->asked = true;
    cluster_sync(cluster, &input);
    return (enum sync_result)0;
}

/* Only an answer to a probe that went out since then tells of now: what was said before may have
 * been on its way. */
void orders_summary(struct cluster *cluster, const struct id128 *node)
{
    struct probe_peer peer;

    if (!probe_peer(cluster->probe, node, &peer))
        return;
    for (struct cluster_order *order = cluster->orders; order; order = order->next)
        for (size_t i = 0; order->kind == ORDER_SYNC && i < order->count; i++)
            if (id_equal(&order->outcomes[i].node, node) && peer.answered_ms >= order->begun_ms)
                order->outcomes[i].told = true;
}

/* Whether all of ORDER's nodes are done with. */
static bool watch(struct cluster *cluster, struct cluster_order *order, uint64_t age_ms)
{
    bool over = true;

    for (size_t i = 0; i < order->count; i++) {
        struct sync_outcome *outcome = &order->outcomes[i];

        if (outcome->result == 0 && outcome->told)
            outcome->result = judge(cluster, outcome);
        if (outcome->result == 0 && !outcome->told && age_ms >= ORDER_ANSWER_MS)
            outcome->result = SYNC_RESULT_SILENT;
        if (outcome->result == 0 && age_ms >= ORDER_SYNC_MS)
            outcome->result = SYNC_RESULT_LATE;
        over = over && outcome->result != 0;
    }
    return over;
}

const char *sync_result_name(uint32_t result)
{
    static const char *const names[] = {"unknown", "equal",  "synced", "ahead", "busy",
                                        "behind",  "failed", "silent", "late"};

    return names[result < sizeof names / sizeof *names ? result : 0];
}

/* ---- All of them ---- */

/* ERR_AGAIN: it goes on. */
static int begin(struct cluster *cluster, struct cluster_order *order)
{
    static const struct id128 nobody;

    switch (order->kind) {
    case ORDER_SAY:
        order->note = ulid_make(cluster->env, env_wall_ms(cluster->env));
        return notes_say(cluster->notes, &order->note, order->data, orders_times(cluster));
    case ORDER_READ:
        return copy_notes(cluster, &order->notes);
    case ORDER_ANNOUNCE:
        order->count = probe_members(cluster->probe);
        probe_now(cluster, &nobody);
        return 0;
    case ORDER_ANNOUNCE_AT: {
        int rc = add_seed(cluster, order);

        return rc ? rc : ERR_AGAIN;
    }
    case ORDER_SYNC:
        return begin_sync(cluster, order);
    }
    return ERR_UNSUPPORTED;
}

static struct cluster_order *take_ordered(struct cluster *cluster)
{
    struct cluster_order *list = NULL;

    pthread_mutex_lock(&cluster->lock);
    while (cluster->ordered) { /* the last one is the first in the list */
        struct cluster_order *order = cluster->ordered;

        cluster->ordered = order->next;
        order->next = list;
        list = order;
    }
    pthread_mutex_unlock(&cluster->lock);
    return list;
}

void orders_take(struct cluster *cluster)
{
    for (struct cluster_order *next, *order = take_ordered(cluster); order; order = next) {
        next = order->next;
        order->begun_ms = cluster_now(cluster);
        int rc = begin(cluster, order);

        if (rc != ERR_AGAIN) {
            finish(cluster, order, rc);
            continue;
        }
        order->next = cluster->orders;
        cluster->orders = order;
    }
}

void orders_tick(struct cluster *cluster, uint64_t now_ms)
{
    struct cluster_order **link = &cluster->orders;

    notes_tick(cluster->notes, now_ms);
    while (*link) {
        struct cluster_order *order = *link;
        uint64_t age_ms = now_ms - order->begun_ms;
        bool sync = order->kind == ORDER_SYNC;

        if (sync ? !watch(cluster, order, age_ms) : age_ms < ORDER_ANSWER_MS) {
            link = &order->next;
            continue;
        }
        *link = order->next;
        if (!sync)
            drop_seed(cluster, order);
        finish(cluster, order, sync ? 0 : ERR_TIMEOUT);
    }
}

void orders_close(struct cluster *cluster)
{
    pthread_mutex_lock(&cluster->lock);
    cluster->orders_closed = true;
    pthread_mutex_unlock(&cluster->lock);
    struct cluster_order *lists[] = {take_ordered(cluster), cluster->orders};

    cluster->orders = NULL;
    for (size_t i = 0; i < 2; i++)
        for (struct cluster_order *next; lists[i]; lists[i] = next) {
            next = lists[i]->next;
            finish(cluster, lists[i], ERR_CLOSED);
        }
}
