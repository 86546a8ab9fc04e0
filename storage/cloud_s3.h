/*
 * The cloud as a bucket of S3, or of anything that speaks its protocol: libcurl's multi interface
 * on a thread of its own; every request is signed (storage/sigv4.h), TLS is verified.
 */
#ifndef STORAGE_CLOUD_S3_H
#define STORAGE_CLOUD_S3_H

#include "storage/cloud.h"

/* All texts are copied. */
struct cloud_s3_config {
    const char *region; /* NULL: from the environment or profile, else us-east-1 */
    const char *bucket;
    const char *endpoint;    /* http[s]://host[:port]; NULL: AWS's for the region */
    bool path_style;         /* endpoint/bucket/key rather than bucket.endpoint/key */
    const char *ca_file;     /* PEM; NULL: the system's */
    unsigned download_parts; /* at once for one large GET; 0 or 1: one stream */
};

/* Nothing is asked of the cloud yet, but credentials are looked for. ERR_INVALID with MESSAGE (CAP
 * bytes): an option makes no sense, or there are no credentials anywhere. */
int cloud_s3_create(struct cloud **out, const struct cloud_s3_config *config, char *message,
                    size_t cap) MUST_CHECK;

#endif
