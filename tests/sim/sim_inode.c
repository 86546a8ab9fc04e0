/*
 * One file of the simulated disk: what of its bytes the cache has, and what the disk.
 *
 * A file is an array of pages of 4 KiB, each with what the cache has (now) and what the disk has
 * (disk); NULL stands for zeros, and both share one buffer while they are equal. A shorter file is
 * remembered as the lowest size since (floor): what lies behind it on the disk goes when the cut
 * becomes durable, which must be before anything is written there.
 */
#include "tests/sim/sim_inode.h"

#include "tests/sim/sim_disk.h"

#include <stdlib.h>
#include <string.h>

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

static uint64_t roll(uint64_t *dice, uint64_t below)
{
    return sim_dice(dice) % below;
}

/* ---- Buffers ---- */

void buffer_drop(struct buffer **buffer)
{
    if (*buffer && --(*buffer)->shares == 0)
        free(*buffer);
    *buffer = NULL;
}

void buffer_share(struct buffer **to, struct buffer *from)
{
    if (*to == from)
        return;
    if (from)
        from->shares++;
    buffer_drop(to);
    *to = from;
}

uint8_t *buffer_own(struct buffer **at)
{
    struct buffer *buffer = *at;

    if (buffer && buffer->shares == 1)
        return buffer->bytes;
    struct buffer *fresh = must(calloc(1, sizeof *fresh));
    fresh->shares = 1;
    if (buffer)
        memcpy(fresh->bytes, buffer->bytes, PAGE);
    buffer_drop(at);
    *at = fresh;
    return fresh->bytes;
}

const uint8_t *buffer_bytes(const struct buffer *buffer)
{
    static const uint8_t zeros[PAGE];

    return buffer ? buffer->bytes : zeros;
}

/* ---- Inodes ---- */

void inode_need_pages(struct sim_inode *inode, uint64_t bytes)
{
    size_t wanted = (size_t)((bytes + PAGE - 1) / PAGE);

    if (wanted <= inode->page_count)
        return;
    inode->pages = must(realloc(inode->pages, wanted * sizeof *inode->pages));
    memset(inode->pages + inode->page_count, 0,
           (wanted - inode->page_count) * sizeof *inode->pages);
    inode->page_count = wanted;
}

void inode_release(struct sim_inode *inode)
{
    for (size_t i = 0; i < inode->page_count; i++) {
        buffer_drop(&inode->pages[i].now);
        buffer_drop(&inode->pages[i].disk);
    }
    free(inode->pages);
    inode->pages = NULL;
    inode->page_count = 0;
}

struct sim_inode *inode_copy(const struct sim_inode *inode)
{
    struct sim_inode *copy = must(calloc(1, sizeof *copy));

    *copy = *inode;
    copy->pages = must(calloc(inode->page_count ? inode->page_count : 1, sizeof *copy->pages));
    for (size_t i = 0; i < inode->page_count; i++) {
        copy->pages[i].dirty = inode->pages[i].dirty;
        buffer_share(&copy->pages[i].now, inode->pages[i].now);
        buffer_share(&copy->pages[i].disk, inode->pages[i].disk);
    }
    return copy;
}

/* That the file became shorter reaches the disk. */
static void settle_floor(struct sim_inode *inode)
{
    uint64_t floor = inode->floor;

    if (floor == NO_FLOOR)
        return;
    inode->floor = NO_FLOOR;
    if (inode->disk_size > floor)
        inode->disk_size = floor;
    for (size_t i = (size_t)(floor / PAGE); i < inode->page_count; i++) {
        struct page *page = &inode->pages[i];
        size_t keep = i == floor / PAGE ? (size_t)(floor % PAGE) : 0;

        if (!page->disk)
            continue;
        if (keep == 0)
            buffer_drop(&page->disk);
        else
            memset(buffer_own(&page->disk) + keep, 0, PAGE - keep);
    }
}

/* The sectors of page I that MASK names reach the disk. */
static void write_back(struct sim_inode *inode, size_t i, unsigned mask)
{
    struct page *page = &inode->pages[i];
    const uint8_t *now = buffer_bytes(page->now);

    if (inode->floor != NO_FLOOR && (i + 1) * PAGE > inode->floor)
        settle_floor(inode);
    if (mask == 0xff) {
        buffer_share(&page->disk, page->now);
        return;
    }
    for (unsigned s = 0; s < PAGE / SECTOR; s++)
        if (mask & 1u << s &&
            memcmp(now + s * SECTOR, buffer_bytes(page->disk) + s * SECTOR, SECTOR) != 0)
            memcpy(buffer_own(&page->disk) + s * SECTOR, now + s * SECTOR, SECTOR);
}

void inode_sync(struct sim_inode *inode, bool all)
{
    for (size_t i = 0; i < inode->page_count; i++)
        if (inode->pages[i].dirty) {
            write_back(inode, i, 0xff);
            inode->pages[i].dirty = false;
        }
    if (all || inode->size > inode->floor)
        settle_floor(inode);
    if (inode->size > inode->disk_size || inode->floor == NO_FLOOR)
        inode->disk_size = inode->size;
}

void inode_write_some_back(struct sim_inode *inode, uint64_t *dice)
{
    bool grow = roll(dice, 2);

    for (size_t i = 0; i < inode->page_count; i++)
        if (inode->pages[i].dirty && roll(dice, 2))
            write_back(inode, i, (unsigned)roll(dice, 256));
    if (grow && inode->floor == NO_FLOOR && inode->size > inode->disk_size)
        inode->disk_size = inode->size;
}

void inode_fail_sync(struct sim_inode *inode, uint64_t *dice)
{
    inode_write_some_back(inode, dice);
    for (size_t i = 0; i < inode->page_count; i++)
        inode->pages[i].dirty = false;
}

void inode_lose_power(struct sim_inode *inode, uint64_t *dice)
{
    uint64_t how = roll(dice, 4); /* 0: nothing more reached the disk, 1: everything, else some */
    uint64_t size = inode->size;

    if (how == 1) {
        inode_sync(inode, true);
    } else if (how > 1) {
        if (inode->floor != NO_FLOOR && roll(dice, 2))
            settle_floor(inode);
        for (size_t i = 0; i < inode->page_count; i++) {
            uint64_t page = roll(dice, 4);

            if (inode->pages[i].dirty && page)
                write_back(inode, i, page == 1 ? 0xff : (unsigned)roll(dice, 256));
        }
        if (inode->floor == NO_FLOOR && size > inode->disk_size) {
            uint64_t grown = roll(dice, 3);

            if (grown == 1)
                inode->disk_size = size;
            else if (grown == 2)
                inode->disk_size += roll(dice, size - inode->disk_size);
        }
    }
    /* What reached the disk behind the file's end is not part of it. */
    inode->floor = inode->disk_size;
    uint64_t end = inode->disk_size;
    settle_floor(inode);
    inode->size = inode->disk_size = end;
    for (size_t i = 0; i < inode->page_count; i++) {
        buffer_share(&inode->pages[i].now, inode->pages[i].disk);
        inode->pages[i].dirty = false;
    }
}
