/* The bytes of one file of the simulated disk; nobody but sim_disk.c includes this. */
#ifndef TESTS_SIM_INODE_H
#define TESTS_SIM_INODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE     4096u
#define SECTOR   512u
#define NO_FLOOR UINT64_MAX

struct buffer {
    unsigned shares;
    uint8_t bytes[PAGE];
};

struct page {
    struct buffer *now, *disk;
    bool dirty;
};

struct sim_inode {
    bool is_dir;
    uint64_t size, disk_size, floor;
    struct page *pages;
    size_t page_count;
    int lock;        /* descriptor that holds it, or -1 */
    unsigned errors; /* syncs that failed: each open descriptor is told once */
};

/* Set *BUFFER to NULL, or to FROM; what it was is freed with its last share. */
void buffer_drop(struct buffer **buffer);
void buffer_share(struct buffer **to, struct buffer *from);
/* The bytes of a buffer of one's own at *AT. */
uint8_t *buffer_own(struct buffer **at);
/* The bytes to read; NULL is zeros. */
const uint8_t *buffer_bytes(const struct buffer *buffer);

/* There are pages for BYTES bytes. */
void inode_need_pages(struct sim_inode *inode, uint64_t bytes);
/* The same bytes, now and on the disk, as a file of its own. */
struct sim_inode *inode_copy(const struct sim_inode *inode);
/* Free what it holds. */
void inode_release(struct sim_inode *inode);
/* A sync: ALL, or what fdatasync promises. */
void inode_sync(struct sim_inode *inode, bool all);
/* Some of what is dirty reaches the disk, with nobody asking. */
void inode_write_some_back(struct sim_inode *inode, uint64_t *dice);
/* A sync that fails: some sectors made it, the others are not dirty any more. */
void inode_fail_sync(struct sim_inode *inode, uint64_t *dice);
/* The cache is gone, after any part of it reached the disk. */
void inode_lose_power(struct sim_inode *inode, uint64_t *dice);

#endif
