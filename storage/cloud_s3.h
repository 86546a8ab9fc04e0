/*
 * The cloud as a bucket of S3, or of anything that speaks its protocol: libcurl's multi interface
 * on a thread of its own; every request is signed (storage/sigv4.h), TLS is verified.
 */
#ifndef STORAGE_CLOUD_S3_H
#define STORAGE_CLOUD_S3_H

#include "base/env.h"
#include "storage/cloud.h"

#define LIMIT_CLOUD_DOWNLOAD_PARTS 16

/* All texts are copied. Zero means the default throughout. */
struct cloud_s3_config {
    struct env *env;    /* lent; NULL: the system's. Time, dice, and the files with credentials */
    const char *region; /* NULL: from the environment or profile, else us-east-1 */
    const char *bucket;
    const char *endpoint;    /* http[s]://host[:port]; NULL: AWS's for the region */
    bool path_style;         /* endpoint/bucket/key rather than bucket.endpoint/key */
    const char *ca_file;     /* PEM; NULL: the system's */
    unsigned download_parts; /* at once for one large GET; 0 or 1: one stream */
    /* For tests: */
    unsigned tries;              /* of one HTTP request; 4 */
    uint32_t connect_timeout_ms; /* 10000, TLS included */
    uint32_t stall_timeout_ms;   /* no byte either way; 30000 */
    uint64_t part_bytes; /* of a multipart upload at least, and the largest single PUT; 16 MiB */
};

/* Nothing is asked of the cloud yet, but credentials are looked for; where only the metadata
 * service of an instance is left it is asked, for seconds at most. ERR_INVALID with MESSAGE (CAP
 * bytes): an option makes no sense, or there are no credentials anywhere. */
int cloud_s3_create(struct cloud **out, const struct cloud_s3_config *config, char *message,
                    size_t cap) MUST_CHECK;

#endif
