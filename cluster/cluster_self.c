/*
 * What this node, as one that asks for a body, says to itself as the delegate for it
 * (cluster_pull.c): the same messages as between two nodes, by the same cores on both sides. They
 * go through the codec and wait for the next turn, as those of others do, since the cores must not
 * be called from within their own steps.
 *
 * Failure: without memory a message is lost, which is what the cores' deadlines are for.
 */
#include "cluster/cluster_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct own_message {
    struct delivery delivery;
    size_t len;
    uint8_t frame[];
};

static void arrive(struct cluster *cluster, struct delivery *delivery)
{
    struct own_message *it = container_of(delivery, struct own_message, delivery);
    struct wire_message message;
    int rc = wire_decode(&message, it->frame, it->len);

    assert(rc == 0 && id_equal(&message.from, &cluster->self));
    if (rc == 0 && !cluster->leaving)
        bodies_message(cluster, &message);
    free(it);
    cluster_end(cluster);
}

void self_send(struct cluster *cluster, const struct wire_message *message)
{
    struct buf *frame = &cluster->frame; /* of one message that is just being sent */
    struct wire_message whole = *message;

    whole.tag = (struct text){cluster->tag, (uint32_t)strlen(cluster->tag)};
    whole.from = cluster->self;
    buf_reset(frame);
    wire_encode(frame, &whole);
    struct own_message *it = buf_check(frame) ? NULL : malloc(sizeof *it + frame->len);
    if (!it) {
        cluster->undelivered++;
        return;
    }
    it->delivery.run = arrive;
    it->len = frame->len;
    memcpy(it->frame, frame->data, frame->len);
    cluster_begin(cluster);
    cluster_deliver(cluster, &it->delivery);
}
