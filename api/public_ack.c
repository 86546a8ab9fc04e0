/*
 * ack       waits for                                             200 where
 * local     nothing                                               always
 * one …     copies_need of that name                              there are as many
 * cloud     while an upload is owed: that the cloud has it, or,   the cloud has it
 *           while that cannot be reached, that it lies on two
 *           nodes. Without a cloud: that of level 2 it does
 * none      as cloud, for what owes an upload; with write-back    no upload is owed
 *           that it lies on two nodes
 */
#include "api/public_ack.h"

static bool counts_copies(enum ack ack)
{
    return ack == ACK_ONE || ack == ACK_QUORUM || ack == ACK_ALL;
}

static enum copies_need named_need(enum ack ack)
{
    return ack == ACK_ONE ? COPIES_ONE : ack == ACK_QUORUM ? COPIES_QUORUM : COPIES_ALL;
}

enum copies_need ack_need(enum ack ack, const struct object *object, bool raises,
                          const struct ack_policy *policy)
{
    if (counts_copies(ack))
        return named_need(ack);
    if (ack == ACK_LOCAL || (ack == ACK_DEFAULT && !raises) || !object_owes_upload(object))
        return COPIES_LOOK;
    if (!policy->cloud) /* of level 1 nobody makes a second copy, then */
        return object->level == 2 ? COPIES_SECOND : COPIES_LOOK;
    return ack == ACK_DEFAULT && policy->writeback ? COPIES_SECOND : COPIES_CLOUD;
}

unsigned ack_status(enum ack ack, const struct object *object, bool raises,
                    const struct db_copies *copies, bool counted)
{
    bool uploaded = copies->uploaded || object->flags & OBJECT_UPLOADED;

    if (counts_copies(ack)) {
        static const struct copies_chance any = {.others_answer = true, .outbox_copies = 2};
        /* Not counted, one's own copy is still one. */
        bool knows = counted || ack == ACK_ONE;

        return knows && copies_enough(named_need(ack), copies, &any) ? 200 : 202;
    }
    if (ack == ACK_CLOUD)
        return uploaded ? 200 : 202;
    return ack == ACK_DEFAULT && raises && object_owes_upload(object) && !uploaded ? 202 : 200;
}
