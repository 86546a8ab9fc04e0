/* Messages about bodies (cluster/wire.h has their structs): what wire.c's table needs of them.
 * Nobody else includes it. */
#ifndef CLUSTER_WIRE_BODY_H
#define CLUSTER_WIRE_BODY_H

#include "cluster/wire.h"
#include "journal/unpack.h"

bool body_ask_ok(const struct wire_message *message);
void write_body_ask(struct buf *out, const struct wire_message *message);
void read_body_ask(struct unpack *in, struct wire_message *out);

void write_body_ask_more(struct buf *out, const struct wire_message *message);
void read_body_ask_more(struct unpack *in, struct wire_message *out, uint32_t count);

bool body_data_ok(const struct wire_message *message);
void write_body_data(struct buf *out, const struct wire_message *message);
void read_body_data(struct unpack *in, struct wire_message *out);

bool adopt_ok(const struct wire_message *message);
void write_adopt(struct buf *out, const struct wire_message *message);
void read_adopt(struct unpack *in, struct wire_message *out);

#endif
