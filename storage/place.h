/* Where a body lies on this node. */
#ifndef STORAGE_PLACE_H
#define STORAGE_PLACE_H

#include <stdbool.h>
#include <stdint.h>

/* volume of a body in a large file; offset is then the file's number. */
#define PLACE_LARGE UINT32_MAX

struct place {
    uint32_t disk;
    uint32_t volume; /* 0: nowhere */
    uint64_t offset; /* of the record in its segment */
    uint64_t lsn;    /* of the record that put it there: decides between two places */
};

static inline bool place_is_none(const struct place *place)
{
    return place->volume == 0;
}

static inline bool place_equal(const struct place *a, const struct place *b)
{
    return a->disk == b->disk && a->volume == b->volume && a->offset == b->offset;
}

#endif
