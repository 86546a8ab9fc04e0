/*
 * ack       waits for                                             200 where
 * local     nothing                                               always
 * one …     copies_need of that name                              there are as many
 * cloud     while an upload of a level 2 body is owed: that it    the cloud has it
 *           lies on two nodes
 * none      as cloud, for what owes an upload                     no upload is owed
 */
#include "api/public_ack.h"

static bool counts_copies(enum ack ack)
{
    return ack == ACK_ONE || ack == ACK_QUORUM || ack == ACK_ALL;
}

enum copies_need ack_need(enum ack ack, const struct object *object, bool raises)
{
    switch (ack) {
    case ACK_LOCAL:
        return COPIES_LOOK;
    case ACK_ONE:
        return COPIES_ONE;
    case ACK_QUORUM:
        return COPIES_QUORUM;
    case ACK_ALL:
        return COPIES_ALL;
    case ACK_DEFAULT:
    case ACK_CLOUD:
        break;
    }
    if (ack == ACK_DEFAULT && !raises)
        return COPIES_LOOK;
    /* Of level 1 nobody makes a second copy. */
    return object_owes_upload(object) && object->level == 2 ? COPIES_SECOND : COPIES_LOOK;
}

unsigned ack_status(enum ack ack, const struct object *object, bool raises,
                    const struct db_copies *copies, bool counted)
{
    if (counts_copies(ack)) {
        /* Not counted, one's own copy is still one. */
        bool knows = counted || ack == ACK_ONE;

        return knows && copies_enough(ack_need(ack, object, raises), copies, true) ? 200 : 202;
    }
    if (ack == ACK_CLOUD)
        return object->flags & OBJECT_UPLOADED ? 200 : 202;
    return ack == ACK_DEFAULT && raises && object_owes_upload(object) ? 202 : 200;
}
