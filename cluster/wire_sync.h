/* Messages of sync (cluster/wire.h has their structs): what wire.c's table needs of them. Nobody
 * else includes it. */
#ifndef CLUSTER_WIRE_SYNC_H
#define CLUSTER_WIRE_SYNC_H

#include "cluster/wire.h"
#include "journal/unpack.h"

bool sync_ask_ok(const struct wire_message *message);
void write_sync_ask(struct buf *out, const struct wire_message *message);
void read_sync_ask(struct unpack *in, struct wire_message *out);

bool sync_more_ok(const struct wire_message *message);

bool sync_vector_ok(const struct wire_message *message);
void write_sync_vector(struct buf *out, const struct wire_message *message);
void read_sync_vector(struct unpack *in, struct wire_message *out);

bool sync_events_ok(const struct wire_message *message);
void write_sync_events(struct buf *out, const struct wire_message *message);
void read_sync_events(struct unpack *in, struct wire_message *out);

bool frozen_ok(const struct wire_message *message);
void write_frozen(struct buf *out, const struct wire_message *message);
void read_frozen(struct unpack *in, struct wire_message *out);

#endif
