/*
 * A sorted array of rows: members are few, looked up often and changed hardly ever.
 *
 * Each row is one last-writer-wins register that holds state and address together: an address
 * without the state that it was said with could bring a node back that has left. Two facts of one
 * (stamp, origin), which only a broken or cloned node can write, are ordered by what they say, so
 * that even then all nodes agree.
 *
 * Failure: no memory, or more nodes than there is room for; the table is then as before.
 */
#include "cluster/members.h"

#include "base/limits.h"
#include "journal/merge.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_ROWS 16

struct members {
    struct member *rows; /* by node id */
    size_t count, room;
    size_t joined;
};

int members_create(struct members **out)
{
    struct members *members = calloc(1, sizeof *members);

    if (!members)
        return ERR_NO_MEMORY;
    *out = members;
    return 0;
}

void members_destroy(struct members **members)
{
    if (!*members)
        return;
    free((*members)->rows);
    free(*members);
    *members = NULL;
}

/* Where NODE's row is, or where it would have to be put. */
static size_t find_place(const struct members *members, const struct id128 *node, bool *found)
{
    size_t low = 0, high = members->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (id_compare(&members->rows[middle].node, node) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *found = low < members->count && id_equal(&members->rows[low].node, node);
    return low;
}

static int grow(struct members *members)
{
    size_t room = members->room ? 2 * members->room : FIRST_ROWS;

    assert(members->count <= members->room);
    if (members->count < members->room)
        return 0;
    if (members->count >= LIMIT_MEMBER_ROWS)
        return ERR_FULL;
    if (room > LIMIT_MEMBER_ROWS)
        room = LIMIT_MEMBER_ROWS;
    struct member *rows = realloc(members->rows, room * sizeof *rows);
    if (!rows)
        return ERR_NO_MEMORY;
    members->rows = rows;
    members->room = room;
    return 0;
}

static int row_compare(const struct member *a, const struct member *b)
{
    int order = reg_compare(&a->at, &b->at);

    if (order == 0)
        order = (a->state > b->state) - (a->state < b->state);
    return order ? order : strcmp(a->address, b->address);
}

static bool row_valid(const struct member *row)
{
    return !id_is_zero(&row->node) && row->state >= MEMBER_JOINED &&
           row->state <= MEMBER_FORGOTTEN && memchr(row->address, 0, sizeof row->address);
}

int members_set(struct members *members, const struct member *row, bool *changed)
{
    bool found;
    size_t at = find_place(members, &row->node, &found);

    if (changed)
        *changed = false;
    if (!row_valid(row))
        return ERR_INVALID;
    if (found && row_compare(row, &members->rows[at]) <= 0)
        return 0;
    if (!found) {
        int rc = grow(members);

        if (rc)
            return rc;
        memmove(&members->rows[at + 1], &members->rows[at],
                (members->count - at) * sizeof *members->rows);
        members->count++;
    } else if (members->rows[at].state == MEMBER_JOINED) {
        assert(members->joined > 0);
        members->joined--;
    }
    members->joined += row->state == MEMBER_JOINED;
    members->rows[at] = *row;
    if (changed)
        *changed = true;
    return 0;
}

int members_fold(struct members *members, const struct event *event, bool *changed)
{
    struct member row = {.node = event->subject,
                         .at = {.stamp = event->stamp, .origin = event->origin},
                         .state = (enum member_state)event->member_state};

    if (changed)
        *changed = false;
    if (event->kind != EVENT_MEMBER || id_is_zero(&event->subject))
        return 0;
    if (event->address.len > MEMBER_ADDRESS_BYTES)
        return ERR_INVALID;
    if (event->address.len)
        memcpy(row.address, event->address.ptr, event->address.len);
    return members_set(members, &row, changed);
}

const struct member *members_find(const struct members *members, const struct id128 *node)
{
    bool found;
    size_t at = find_place(members, node, &found);

    return found ? &members->rows[at] : NULL;
}

size_t members_count(const struct members *members)
{
    return members->count;
}

const struct member *members_at(const struct members *members, size_t at)
{
    assert(at < members->count);
    return &members->rows[at];
}

size_t members_joined(const struct members *members)
{
    return members->joined;
}

const char *member_state_name(uint32_t state)
{
    switch (state) {
    case MEMBER_JOINED:
        return "joined";
    case MEMBER_LEFT:
        return "left";
    case MEMBER_FORGOTTEN:
        return "forgotten";
    default:
        return "unknown";
    }
}
