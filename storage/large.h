/*
 * Large bodies: one file each, under a number that is never used again.
 *
 *   file = header (4096 bytes: magic, version, features, store UUID, number, checksum) | body |
 *          pad to 8 | trailer: one checksum (8 bytes) per 64 KiB block | size, count, magic (24 B)
 *
 * A file is written as FILES/tmp/NUMBER and becomes FILES/large/XX/NUMBER (XX: its lowest byte in
 * hex) when its record has been applied; readers try the final name, then the first. The log record
 * carries the XXH3 of the trailer, so a file is known to be whole without reading its body.
 */
#ifndef STORAGE_LARGE_H
#define STORAGE_LARGE_H

#include "base/env.h"
#include "storage/segment.h"

struct large_store;
struct large_writer;
struct large_reader;

/* FILES_DIR exists; makes tmp/ and large/00…ff in it where they are missing. GENERATION: this
 * process run's (higher at each start): numbers are GENERATION << 40 | counter. */
int large_open(struct large_store **out, struct env *env, const char *files_dir,
               const struct id128 *store, uint64_t generation, bool sync) MUST_CHECK;
void large_close(struct large_store **store);

/* ---- Writing: one thread at a time per writer ---- */

int large_create(struct large_writer **out, struct large_store *store) MUST_CHECK;
/* Append, to the page cache. Copies DATA only as far as it must to fill blocks for their checksum.
 * ERR_NO_SPACE, ERR_IO. */
int large_write(struct large_writer *writer, const void *data, size_t len) MUST_CHECK;
uint64_t large_size(const struct large_writer *writer);
/* So much was written since the last large_write_back that it is time for one: a writer that runs
 * ahead of the disk makes every other sync on it wait. */
bool large_due(const struct large_writer *writer);
/* What was written since then: it is not due again. */
struct large_span {
    uint64_t offset, len; /* bytes of the file */
};
struct large_span large_take_due(struct large_writer *writer);
/* The byte of the body that follows SPAN. */
uint64_t large_span_end(struct large_span span);
/* LEN bytes of the body from byte OFFSET on, all of them written before, into BUF; on any thread,
 * while more is written. ERR_IO. */
int large_read_back(const struct large_writer *writer, void *buf, size_t len,
                    uint64_t offset) MUST_CHECK;
/* Have the disk take SPAN, and WAIT for it or not; on any thread, while more is written. Blocks;
 * promises no durability. */
int large_hand_over(const struct large_writer *writer, struct large_span span,
                    bool wait) MUST_CHECK;
/* Take what is due, and wait for the disk. */
int large_write_back(struct large_writer *writer) MUST_CHECK;
/* Write the trailer, make file and directory entry durable. Blocks on the disk. */
int large_finish(struct large_writer *writer, uint64_t *number, uint64_t *size,
                 uint64_t *trailer) MUST_CHECK;
/* Where number NUMBER lies once it is settled, below the files directory: "large/xx/…" into OUT. */
#define LARGE_NAME_BYTES 32
void large_name(char out[LARGE_NAME_BYTES], uint64_t number);
/* Free the writer. Without a successful large_finish, or with DISCARD, the file goes too. */
void large_writer_destroy(struct large_writer **writer, bool discard);

/* ---- The applier and recovery ---- */

/* Give COUNT files their final names and sync the directories concerned. A file that has it already
 * is fine. ERR_NOT_FOUND where a file is under neither name (the others are done all the same). */
int large_settle(struct large_store *store, const uint64_t *numbers, size_t count) MUST_CHECK;
/* Remove a file under either name; missing is fine. Not synced: a crash may bring it back. */
int large_remove(struct large_store *store, uint64_t number) MUST_CHECK;
/* Make the removal of COUNT files durable: now they may be forgotten. */
int large_sync_removed(struct large_store *store, const uint64_t *numbers, size_t count) MUST_CHECK;
/* Whether the file is there, of SIZE bytes, with this trailer; with BODY also every block. */
int large_check(struct large_store *store, uint64_t number, uint64_t size, uint64_t trailer,
                bool body) MUST_CHECK;
/* Remove every file in tmp/: called after recovery has settled all that the journal knows. */
int large_clean_tmp(struct large_store *store) MUST_CHECK;

/* ---- Reading: any thread, one at a time per reader ---- */

/* ERR_NOT_FOUND, ERR_CORRUPT (header, size or trailer frame wrong), ERR_FORMAT (of a version this
 * build does not know). Blocks on the disk. */
int large_reader_open(struct large_reader **out, struct large_store *store, uint64_t number,
                      uint64_t size) MUST_CHECK;
void large_reader_close(struct large_reader **reader);
/* Read block INDEX (the last one may be short: *LEN) into BUF (BLOCK_BYTES) and verify it.
 * ERR_AGAIN with NOWAIT where the disk would be asked; ERR_CORRUPT. Keeps at most 4 KiB of
 * checksums in memory. */
int large_read_block(struct large_reader *reader, uint64_t index, uint8_t *buf, size_t *len,
                     bool nowait) MUST_CHECK;

#endif
