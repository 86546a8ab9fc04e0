/* Probes, and which process answers them (cluster/wire.h has their structs): what wire.c's table
 * needs of them. Nobody else includes it. */
#ifndef CLUSTER_WIRE_PROBE_H
#define CLUSTER_WIRE_PROBE_H

#include "cluster/wire.h"
#include "journal/unpack.h"

bool probe_ok(const struct wire_message *message);
void write_probe(struct buf *out, const struct wire_message *message);
void read_probe(struct unpack *in, struct wire_message *out);

bool probe_ack_ok(const struct wire_message *message);

void write_probe_more(struct buf *out, const struct wire_message *message);
void read_probe_more(struct unpack *in, struct wire_message *out, uint32_t count);

void write_probe_for(struct buf *out, const struct wire_message *message);
void read_probe_for(struct unpack *in, struct wire_message *out);

bool process_ok(const struct wire_message *message);
void write_process(struct buf *out, const struct wire_message *message);
void read_process(struct unpack *in, struct wire_message *out);

#endif
