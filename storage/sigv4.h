/*
 * AWS Signature Version 4, as S3 uses it: who sends a request, and that nobody changed it on its
 * way. Pure: the date, the key and the request come in, the header's value comes out.
 *
 * The path and the query are signed as they are sent, so both are made here: sigv4_encode and
 * sigv4_query. (Other services of AWS encode the path twice and take "." and ".." out of it; S3
 * does neither, its keys may contain them.)
 * Source: AWS, "Signature Version 4 signing process"; its test suite is in the unit test.
 */
#ifndef STORAGE_SIGV4_H
#define STORAGE_SIGV4_H

#include "base/buf.h"
#include "storage/cloud.h"

#define SIGV4_DATE_BYTES    17 /* "20150830T123600Z" and its end */
#define SIGV4_HEX_BYTES     65
#define LIMIT_SIGV4_HEADERS 96
#define LIMIT_SIGV4_QUERY   16

/* What is signed for whom. All texts are lent. */
struct sigv4_key {
    const char *access_key, *secret_key;
    const char *region, *service;
    const char *date; /* as sigv4_date writes it, and the header x-amz-date bears */
};

struct sigv4_request {
    const char *method;
    const char *path;               /* encoded, begins with '/' */
    const struct cloud_pair *query; /* not encoded, in any order */
    size_t query_count;
    const struct cloud_pair *headers; /* those that are signed: any order, any case, not trimmed */
    size_t header_count;
    const char *payload; /* SHA-256 of the body as hex, or what S3 allows in its place */
};

/* The moment as "YYYYMMDDTHHMMSSZ", UTC. */
void sigv4_date(char out[SIGV4_DATE_BYTES], int64_t unix_s);

/* Percent-encode all but letters, digits, "-._~", and with SLASHES also '/'. */
void sigv4_encode(struct buf *out, struct cloud_text text, bool slashes);

/* The query string, encoded and in the order in which it is signed and sent; without '?'. */
void sigv4_query(struct buf *out, const struct cloud_pair *query, size_t count);

/* The steps one by one; errors stick to OUT (ERR_TOO_BIG: too many headers or queries). */
void sigv4_canonical(struct buf *out, const struct sigv4_request *request);
void sigv4_to_sign(struct buf *out, const struct sigv4_key *key, struct cloud_text canonical);
/* ERR_NO_MEMORY. Leaves no copy of the secret behind. */
int sigv4_signature(char out[SIGV4_HEX_BYTES], const struct sigv4_key *key,
                    struct cloud_text to_sign) MUST_CHECK;

/* All of them: the value of the header Authorization. ERR_NO_MEMORY, ERR_TOO_BIG. */
int sigv4_authorize(struct buf *out, const struct sigv4_key *key,
                    const struct sigv4_request *request) MUST_CHECK;

#endif
