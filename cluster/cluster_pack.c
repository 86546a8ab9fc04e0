/*
 * Small messages to one peer travel together.
 *
 * A frame costs ZeroMQ and the cipher some microseconds whatever its length, and bodies of 1 KiB
 * are asked for and given by the thousand. So what one turn of the cluster's thread says to a peer
 * is collected, and sent as one pack when the turn ends; a message that is alone goes as it is.
 * Nothing waits for others to come: on an idle node a turn is one message.
 *
 * The order in which messages were given is kept: a large one, which travels alone, sends what
 * waits before it. Without memory a message goes alone, too. A pack that gets lost takes all of its
 * messages with it, which every part of the protocol reckons with.
 */
#include "cluster/cluster_internal.h"

#include <assert.h>
#include <string.h>

#define LENGTH_BYTES 4 /* before each message of a pack */

void pack_flush(struct cluster *cluster, struct peer *peer)
{
    unsigned count = peer->packed;
    struct buf *pack = &peer->pack;

    assert(buf_check(pack) == 0 && (count > 0) == (pack->len > 0));
    peer->packed = 0;
    if (count == 1) {
        peer_transmit(cluster, peer, (const char *)pack->data + LENGTH_BYTES,
                      pack->len - LENGTH_BYTES);
    } else if (count > 1) {
        const struct wire_message message = {.type = WIRE_PACK,
                                             .tag = {cluster->tag, (uint32_t)strlen(cluster->tag)},
                                             .from = cluster->self,
                                             .pack.data = {pack->data, (uint32_t)pack->len}};
        struct buf *frame = &cluster->pack_frame;

        buf_reset(frame);
        wire_encode(frame, &message);
        if (buf_check(frame) == 0)
            peer_transmit(cluster, peer, frame->data, frame->len);
        else
            cluster->undelivered += count;
    }
    buf_reset(pack);
}

void pack_flush_all(struct cluster *cluster)
{
    for (size_t i = 0; i < cluster->peer_count; i++)
        pack_flush(cluster, &cluster->peers[i]);
}

void pack_send(struct cluster *cluster, struct peer *peer, const struct buf *frame)
{
    bool small = frame->len <= PACK_MESSAGE_BYTES;

    if (!small || peer->pack.len + LENGTH_BYTES + frame->len > LIMIT_WIRE_PACK_BYTES)
        pack_flush(cluster, peer);
    if (small) {
        wire_event_add(&peer->pack, frame->data, frame->len);
        if (buf_check(&peer->pack) == 0) {
            peer->packed++;
            return;
        }
        peer->pack.rc = 0; /* nothing of it is in there */
        pack_flush(cluster, peer);
    }
    peer_transmit(cluster, peer, frame->data, frame->len);
}
