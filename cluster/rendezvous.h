/*
 * Who of several nodes does what concerns one object: rendezvous hashing (Thaler and Ravishankar,
 * 1998). Each node gives the same answer for the same nodes, and where one goes away only its part
 * moves. Pure.
 */
#ifndef CLUSTER_RENDEZVOUS_H
#define CLUSTER_RENDEZVOUS_H

#include "base/hash.h"
#include "base/id.h"

#include <string.h>

/* The node with the highest score comes first. */
static inline uint64_t rendezvous_score(const struct id128 *object, const struct id128 *node)
{
    uint8_t both[2 * sizeof *object];

    memcpy(both, object->bytes, sizeof *object);
    memcpy(both + sizeof *object, node->bytes, sizeof *node);
    return xxh64(both, sizeof both, 0);
}

/* Sort COUNT nodes for OBJECT; those whose scores are equal by their ids. */
static inline void rendezvous_sort(const struct id128 *object, struct id128 *nodes, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        const struct id128 node = nodes[i];
        uint64_t score = rendezvous_score(object, &node);
        size_t at = i;

        for (; at > 0; at--) {
            uint64_t before = rendezvous_score(object, &nodes[at - 1]);

            if (before > score || (before == score && id_compare(&nodes[at - 1], &node) < 0))
                break;
            nodes[at] = nodes[at - 1];
        }
        nodes[at] = node;
    }
}

#endif
