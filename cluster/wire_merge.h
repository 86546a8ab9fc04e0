/* Messages of merging with another node (cluster/wire.h has their structs): what wire.c's table
 * needs of them. Nobody else includes it. */
#ifndef CLUSTER_WIRE_MERGE_H
#define CLUSTER_WIRE_MERGE_H

#include "cluster/wire.h"
#include "journal/unpack.h"

void write_merge_ask(struct buf *out, const struct wire_message *message);
void read_merge_ask(struct unpack *in, struct wire_message *out);
bool merge_ask_ok(const struct wire_message *message);

void write_merge_vector(struct buf *out, const struct wire_message *message);
void read_merge_vector(struct unpack *in, struct wire_message *out);
bool merge_vector_ok(const struct wire_message *message);

void write_merge_chunk(struct buf *out, const struct wire_message *message);
void read_merge_chunk(struct unpack *in, struct wire_message *out);
bool merge_chunk_ok(const struct wire_message *message);

void write_merge_sums_ask(struct buf *out, const struct wire_message *message);
void read_merge_sums_ask(struct unpack *in, struct wire_message *out);
bool merge_sums_ask_ok(const struct wire_message *message);

void write_merge_sums(struct buf *out, const struct wire_message *message);
void read_merge_sums(struct unpack *in, struct wire_message *out);
bool merge_sums_ok(const struct wire_message *message);

void write_merge_cut(struct buf *out, const struct wire_message *message);
void read_merge_cut(struct unpack *in, struct wire_message *out);
bool merge_cut_ok(const struct wire_message *message);

#endif
