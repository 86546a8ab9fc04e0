/*
 * The cluster's secret: whoever knows it is a member. From each line of the secret's file come one
 * CURVE key pair for the server's side of a connection and one for the client's, by HKDF-SHA256
 * (RFC 5869, no salt); nothing else of the line is kept.
 *
 * The file has one line, or two while the secret is being changed: the first is the one that this
 * node asks of those who come to it, both are tried on those it goes to. A node reaches another
 * exactly where the other's first line is one of its own two. So a change takes three rounds, each
 * over all nodes, one after the other, before the next begins, and no pair of nodes loses sight of
 * each other at any moment:
 *
 *     1. old        →  old, new      append the new secret as second line
 *     2. old, new   →  new, old      swap the lines
 *     3. new, old   →  new           remove the old one
 *
 * HKDF stretches nothing: a secret that can be guessed stays one. `objctl cluster secret` prints
 * one that cannot.
 */
#ifndef CLUSTER_SECRET_H
#define CLUSTER_SECRET_H

#include "base/env.h"
#include "base/err.h"

#define SECRET_LINES      2
#define SECRET_MIN_BYTES  16
#define SECRET_MAX_BYTES  256
#define SECRET_KEY_BYTES  32
#define SECRET_TEXT_BYTES 44 /* of a made one, with its terminator */

/* Curve25519, raw. */
struct secret_keys {
    uint8_t server_public[SECRET_KEY_BYTES], server_private[SECRET_KEY_BYTES];
    uint8_t client_public[SECRET_KEY_BYTES], client_private[SECRET_KEY_BYTES];
};

/* Embedded in its owner; never logged. All zero holds no keys. */
struct secret {
    size_t count; /* 1 or 2 */
    struct secret_keys lines[SECRET_LINES];
};

/*
 * Derive the keys of the LEN bytes of a secret's file: one or two lines, each SECRET_MIN_BYTES to
 * SECRET_MAX_BYTES of printable ASCII that neither begins nor ends with a blank; a CR before a line
 * end and the last line's end are no part of it. ERR_INVALID otherwise, ERR_NO_MEMORY where OpenSSL
 * has none; MESSAGE (CAP bytes) then says what is wrong, without any of the text.
 */
int secret_parse(struct secret *out, const char *text, size_t len, char *message,
                 size_t cap) MUST_CHECK;

/*
 * Read and parse the file PATH. Besides parse's errors: ERR_PERMISSION where group or others may
 * read, write or run it, ERR_TOO_BIG, and what opening and reading can say. MESSAGE names the path.
 * Blocks on the disk.
 */
int secret_load(struct secret *out, struct io *io, const char *path, char *message,
                size_t cap) MUST_CHECK;

/* Wipe the keys. All zero before is fine. */
void secret_release(struct secret *secret);

/* A fresh line: 256 random bits as base64url, with a terminator. */
void secret_make(struct env *env, char out[SECRET_TEXT_BYTES]);

#endif
