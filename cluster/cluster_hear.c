/*
 * What comes from other nodes, frame by frame: taken apart, its tag looked at, and handed to the
 * part that it concerns.
 *
 * A node of another tag is told ours, so that both sides can say why they do not join. What is
 * malformed, or of somebody whom we do not know and who does not probe, is counted and dropped.
 */
#include "cluster/cluster_internal.h"

#include "base/log.h"

#include <string.h>

static void refuse_tag(struct cluster *cluster, const struct link_from *from,
                       const struct wire_message *message)
{
    cluster->other_tag++;
    if (peer_may_complain(cluster))
        log_warn(
            "cluster: a node at %s has the tag \"%.*s\", not \"%s\": it is not of this cluster",
            from->ip, (int)message->tag.len, message->tag.ptr, cluster->tag);
    /* It shall know, too. Acks are not answered, so this ends here. */
    if (message->type == WIRE_PROBE) {
        const struct wire_message answer = {.type = WIRE_PROBE_ACK,
                                            .probe = {.nonce = message->probe.nonce,
                                                      .to = message->from,
                                                      .wall_ms = env_wall_ms(cluster->env)}};

        peer_reply(cluster, &answer);
    }
}

static bool is_probe(enum wire_type type)
{
    return type == WIRE_PROBE || type == WIRE_PROBE_ACK || type == WIRE_PROBE_FOR ||
           type == WIRE_PROBE_SAW;
}

/* A probe, or an answer to one: it may be the first word of a node. */
static void take_probe(struct cluster *cluster, const struct link_from *from,
                       const struct wire_message *message)
{
    struct probe_input input = {
        .kind = PROBE_MESSAGE,
        .message = {.message = message, .peer = {from->ip, (uint32_t)strlen(from->ip)}}};

    cluster->unfit = !say_fits(cluster, message);
    /* Before the answer, which goes back over `from` in any case. */
    if (message->type == WIRE_PROBE && !id_equal(&message->from, &cluster->self))
        peer_welcome(cluster, &message->from, message->probe.address, &message->probe.summary);
    else if (message->type == WIRE_PROBE_ACK && peer_find(cluster, &message->from))
        peer_welcome(cluster, &message->from, (struct text){NULL, 0}, &message->probe.summary);
    struct peer *peer = peer_find(cluster, &message->from);
    if (peer && from->peer == 0) {
        peer->back = *from;
        peer->has_back = true;
    }
    peer_probe(cluster, &input);
    cluster->unfit = false;
}

/* What PEER says, to the part that it concerns. */
static void hand_out(struct cluster *cluster, const struct peer *peer,
                     const struct wire_message *message)
{
    switch (message->type) {
    case WIRE_SYNC_ASK:
    case WIRE_SYNC_MORE:
    case WIRE_SYNC_VECTOR:
    case WIRE_SYNC_EVENTS:
    case WIRE_SYNC_CREDIT:
    case WIRE_SYNC_FROZEN:
    case WIRE_SYNC_END: {
        struct sync_input input = {.kind = SYNC_MESSAGE, .message = *message};

        cluster_sync(cluster, &input);
        return;
    }
    case WIRE_BODY_ASK:
    case WIRE_BODY_CREDIT:
    case WIRE_BODY_DATA:
    case WIRE_BODY_COMING:
    case WIRE_BODY_END:
        bodies_message(cluster, message);
        return;
    case WIRE_MERGE_ASK:
    case WIRE_MERGE_VECTOR:
    case WIRE_MERGE_CHUNK:
    case WIRE_MERGE_CREDIT:
    case WIRE_MERGE_SUMS_ASK:
    case WIRE_MERGE_SUMS:
    case WIRE_MERGE_END: {
        struct merge_input input = {.kind = MERGE_MESSAGE, .message = *message};

        cluster_merge(cluster, &input);
        return;
    }
    case WIRE_MERGE_CUT_ASK:
    case WIRE_MERGE_CUT_KNOWN:
        cluster_cut_message(cluster, message);
        return;
    case WIRE_NOTE:
    case WIRE_NOTE_IDS:
        notes_message(cluster->notes, message, orders_times(cluster));
        return;
    case WIRE_ADOPT:
        if (peer->member)
            operate_adopt(cluster, message);
        return;
    case WIRE_KNOWN_ASK:
    case WIRE_KNOWN:
    case WIRE_RANGE_ASK:
    case WIRE_RANGE:
    case WIRE_ROW_ASK:
    case WIRE_ROW:
        inquiry_receive(cluster, message);
        return;
    default:
        cluster->refused++;
        return;
    }
}

static void dispatch(struct cluster *cluster, const struct link_from *from,
                     const struct wire_message *message)
{
    if (cluster->displaced)
        return; /* the other process speaks for this node */
    if (is_probe(message->type)) {
        take_probe(cluster, from, message);
        return;
    }
    if (twin_message(cluster, message))
        return;
    struct peer *peer = peer_find(cluster, &message->from);
    if (cluster->leaving)
        return; /* nothing new begins */
    if (!peer) {
        cluster->refused++; /* nobody we know: it has to probe first */
        return;
    }
    peer->heard_ms = cluster_now(cluster);
    if (peer->member) {
        struct probe_input input = {.kind = PROBE_HEARD, .heard = message->from};

        peer_probe(cluster, &input);
    }
    hand_out(cluster, peer, message);
}

/* A wrong secret is the operator's to mend; told once until the connection's state changes. */
void peer_link_changed(void *arg, link_peer peer, enum link_state state)
{
    const struct cluster *cluster = arg;

    if (state == LINK_REFUSED)
        log_warn("cluster: %s lets nobody in without its secret, and this node has %s",
                 link_peer_address(cluster->link, peer),
                 cluster->secret.count ? "another one" : "none");
}

/* One message; PACKED: out of a pack, which holds no packs. */
static void receive(struct cluster *cluster, const struct link_from *from, const void *data,
                    size_t len, bool packed)
{
    struct wire_message message;

    if (wire_decode(&message, data, len) != 0 || (packed && message.type == WIRE_PACK)) {
        cluster->malformed++;
        return;
    }
    if (message.tag.len != strlen(cluster->tag) ||
        memcmp(message.tag.ptr, cluster->tag, message.tag.len) != 0) {
        refuse_tag(cluster, from, &message);
        return;
    }
    if (message.type != WIRE_PACK) {
        dispatch(cluster, from, &message);
        return;
    }
    struct text part;
    size_t offset = 0;
    while (wire_next_event(message.pack.data, &offset, &part))
        receive(cluster, from, part.ptr, part.len, true);
}

void peer_receive(void *arg, const struct link_from *from, const uint8_t *data, size_t len)
{
    struct cluster *cluster = arg;

    cluster->current = from;
    receive(cluster, from, data, len, false);
    cluster->current = NULL;
}
