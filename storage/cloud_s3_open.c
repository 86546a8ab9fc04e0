/*
 * Making the S3 backend: what its options say, the credentials, its thread. Everything that makes
 * no sense is said here, in a line that names the option; what only the cloud can know (whether the
 * bucket exists, whether the key may write) is not asked: a node starts without its cloud.
 */
#include "storage/cloud_s3_internal.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool host_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._:[]%", c) != NULL);
}

/* "http[s]://host[:port]", without what people put behind it. */
static int take_endpoint(struct s3 *s3, const char *endpoint)
{
    size_t scheme = strncmp(endpoint, "https://", 8) == 0  ? 8
                    : strncmp(endpoint, "http://", 7) == 0 ? 7
                                                           : 0;
    size_t len = strlen(endpoint);

    if (scheme > 0 && len > scheme && endpoint[len - 1] == '/')
        len--;
    if (scheme == 0 || len == scheme || len >= sizeof s3->endpoint)
        return ERR_INVALID;
    for (size_t i = scheme; i < len; i++) {
        if (!host_byte(endpoint[i]))
            return ERR_INVALID;
    }
    memcpy(s3->endpoint, endpoint, len);
    return 0;
}

static bool bucket_fine(const char *bucket)
{
    size_t len = bucket ? strlen(bucket) : 0;

    for (size_t i = 0; i < len; i++) {
        if (!host_byte(bucket[i]) || strchr(":[]%", bucket[i]))
            return false;
    }
    return len > 0 && len <= LIMIT_CLOUD_BUCKET_BYTES;
}

static int configure(struct s3 *s3, const struct cloud_s3_config *config, char *message, size_t cap)
{
    if (!bucket_fine(config->bucket)) {
        (void)snprintf(message, cap, "the name of the bucket is missing or malformed");
        return ERR_INVALID;
    }
    if (config->endpoint && take_endpoint(s3, config->endpoint)) {
        (void)snprintf(message, cap, "the endpoint of S3 has to be http[s]://host[:port]");
        return ERR_INVALID;
    }
    if (config->download_parts > LIMIT_CLOUD_DOWNLOAD_PARTS) {
        (void)snprintf(message, cap, "at most %d parts of a download at once",
                       LIMIT_CLOUD_DOWNLOAD_PARTS);
        return ERR_INVALID;
    }
    s3->env = config->env ? config->env : env_system();
    s3->path_style = config->path_style;
    s3->download_parts = config->download_parts ? config->download_parts : 1;
    s3->tries = config->tries ? config->tries : S3_TRIES;
    s3->connect_ms = config->connect_timeout_ms ? config->connect_timeout_ms : S3_CONNECT_MS;
    s3->stall_ms = config->stall_timeout_ms ? config->stall_timeout_ms : S3_STALL_MS;
    s3->part_bytes = config->part_bytes ? config->part_bytes : S3_PART_BYTES;
    s3->bucket_name = strdup(config->bucket);
    s3->ca_file = config->ca_file ? strdup(config->ca_file) : NULL;
    if (!s3->bucket_name || (config->ca_file && !s3->ca_file))
        return ERR_NO_MEMORY;
    s3->cloud.bucket = s3->bucket_name;
    int rc = s3_keys_find(s3, message, cap);
    if (rc)
        return rc;
    const char *region = config->region && config->region[0] ? config->region
                         : s3->keys.plan.region[0]           ? s3->keys.plan.region
                                                             : "us-east-1";
    if (!s3_region_fine(region)) {
        (void)snprintf(message, cap, "the region is malformed");
        return ERR_INVALID;
    }
    (void)snprintf(s3->region, sizeof s3->region, "%s", region);
    return 0;
}

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;
static CURLcode curl_begun;

static void begin_curl(void)
{
    curl_begun = curl_global_init(CURL_GLOBAL_DEFAULT);
}

int cloud_s3_create(struct cloud **out, const struct cloud_s3_config *config, char *message,
                    size_t cap)
{
    *out = NULL;
    (void)snprintf(message, cap, "no memory for the cloud");

    (void)pthread_once(&curl_once, begin_curl);
    struct s3 *s3 = calloc(1, sizeof *s3);
    if (!s3 || curl_begun) {
        free(s3);
        return ERR_NO_MEMORY;
    }
    s3->cloud.backend = &s3_backend;
    s3->inbox_end = &s3->inbox;
    TAILQ_INIT(&s3->feeding);
    TAILQ_INIT(&s3->waiting);
    TAILQ_INIT(&s3->sent);
    TAILQ_INIT(&s3->resting);
    (void)pthread_mutex_init(&s3->lock, NULL);
    int rc = configure(s3, config, message, cap);
    if (rc)
        goto out;
    s3->multi = curl_multi_init();
    if (!s3->multi) {
        rc = ERR_NO_MEMORY;
        goto out;
    }
    (void)curl_multi_setopt(s3->multi, CURLMOPT_MAXCONNECTS, (long)S3_CONNECTIONS);
    rc = pool_start(&s3->pool, "cloud-disk", S3_POOL_THREADS,
                    (size_t)LIMIT_CLOUD_REQUESTS * (S3_PARTS_AT_ONCE + 2), NULL);
    if (rc)
        goto out;
    rc = s3_begin_thread(s3);
out:
    if (rc)
        s3_backend.destroy(&s3->cloud);
    else
        *out = &s3->cloud;
    return rc;
}
