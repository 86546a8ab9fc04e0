/* Single values of messages as msgpack, and the rules of lists and addresses: for the files of the
 * wire codec, nobody else includes it. What is taken points into the message. */
#ifndef CLUSTER_WIRE_FIELDS_H
#define CLUSTER_WIRE_FIELDS_H

#include "cluster/wire.h"
#include "journal/unpack.h"

#define WIRE_LENGTH_BYTES 4 /* before each event of a list */

void wire_put_text(struct buf *out, struct text text);
void wire_put_data(struct buf *out, struct text data);
void wire_put_id(struct buf *out, const struct id128 *id);
void wire_put_hash(struct buf *out, const struct hash128 *hash);

/* With IN's sticky error; what is returned then is not to be used. */
struct text wire_take_text(struct unpack *in);
struct text wire_take_data(struct unpack *in);
void wire_take_id(struct unpack *in, struct id128 *id);
struct hash128 wire_take_hash(struct unpack *in);
/* The head of an array of which this build knows KNOWN elements: how many more there are. */
uint32_t wire_take_array(struct unpack *in, uint32_t known);
/* Step over so many ELEMENTS, which a later build has appended. */
void wire_skip(struct unpack *in, uint32_t elements);

/* Printable ASCII without spaces, at most LIMIT_WIRE_ADDR_BYTES; may be empty. */
bool wire_address_ok(struct text address);
/* Whole runs, strictly by origin, at most LIMIT_WIRE_RUNS. */
bool wire_runs_ok(struct text runs);

#endif
