/* Questions that one answer answers (cluster/wire.h has their structs): what wire.c's table needs
 * of them. Nobody else includes it. */
#ifndef CLUSTER_WIRE_INQUIRY_H
#define CLUSTER_WIRE_INQUIRY_H

#include "cluster/wire.h"
#include "journal/unpack.h"

bool known_ask_ok(const struct wire_message *message);

bool range_ask_ok(const struct wire_message *message);

void write_inquiry(struct buf *out, const struct wire_message *message);
void read_inquiry(struct unpack *in, struct wire_message *out);

bool range_ok(const struct wire_message *message);

bool row_ok(const struct wire_message *message);

void write_finding(struct buf *out, const struct wire_message *message);
void read_finding(struct unpack *in, struct wire_message *out);

#endif
