/* Each rule looks at one picture of the members, as this node sees them. A member that is suspected
 * or about to stop is neither relied upon nor taken for dead. */
#include "cluster/membership.h"

#include <assert.h>

static bool answers(const struct cluster_member *member)
{
    return member->joined == MEMBER_JOINED && member->state == PROBE_ALIVE;
}

void membership_trusted(const struct cluster_member *view, size_t count, uint64_t since_ms,
                        struct db_custody *out)
{
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct cluster_member *m = &view[i];

        if (m->self || !answers(m) || m->draining || m->answered_ms < since_ms)
            continue;
        assert(out->count < sizeof out->nodes / sizeof *out->nodes);
        out->nodes[out->count++] = m->node;
    }
}

void membership_others(const struct cluster_member *view, size_t count, const struct id128 *node,
                       struct db_custody *out)
{
    out->count = 0;
    for (size_t i = 0; i < count; i++) {
        const struct cluster_member *m = &view[i];

        if (m->joined != MEMBER_JOINED || (node && id_equal(&m->node, node)))
            continue;
        assert(out->count < sizeof out->nodes / sizeof *out->nodes);
        out->nodes[out->count++] = m->node;
    }
}

enum forget_verdict membership_forget(const struct cluster_member *view, size_t count,
                                      const struct id128 *node, bool force)
{
    const struct cluster_member *found = NULL;

    for (size_t i = 0; i < count && !found; i++)
        if (id_equal(&view[i].node, node))
            found = &view[i];
    if (!found)
        return FORGET_UNKNOWN;
    if (found->self)
        return FORGET_SELF;
    if (found->joined == MEMBER_FORGOTTEN)
        return FORGET_DONE;
    bool may_live = found->joined == MEMBER_JOINED &&
                    (found->state == PROBE_ALIVE || found->state == PROBE_SUSPECT);
    return may_live && !force ? FORGET_ALIVE : FORGET_MAY;
}

enum upgrade_verdict membership_upgrade(const struct cluster_member *view, size_t count,
                                        uint32_t level, uint32_t *to,
                                        const struct cluster_member **culprit)
{
    uint32_t lowest = UINT32_MAX;

    *culprit = NULL;
    for (size_t i = 0; i < count; i++) {
        const struct cluster_member *m = &view[i];

        if (m->joined != MEMBER_JOINED)
            continue;
        if (!m->self && !answers(m)) {
            *culprit = m;
            return UPGRADE_SILENT;
        }
        if (m->feature < lowest) {
            lowest = m->feature;
            *culprit = m;
        }
    }
    if (*to == 0)
        *to = lowest == UINT32_MAX || lowest < level ? level : lowest;
    if (*to == level)
        return UPGRADE_DONE;
    if (*to < level)
        return UPGRADE_LOWER;
    return *to > lowest ? UPGRADE_NOT_BY : UPGRADE_MAY;
}
