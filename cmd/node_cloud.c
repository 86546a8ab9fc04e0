/* Which cloud a node has: the options' words, and the backends that they mean. */
#include "cmd/node_cloud.h"

#include "base/io.h"
#include "base/log.h"
#include "storage/cloud_dir.h"
#include "storage/cloud_s3.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int node_cloud_open(struct cloud **out, struct env *env, const struct options *options,
                    char *message, size_t cap)
{
    *out = NULL;
    switch (options_cloud(options)) {
    case CLOUD_NONE:
        return 0;
    case CLOUD_DIRECTORY: {
        char *memory = io_join(options->state_dir, "CLOUD");
        const struct cloud_dir_config config = {
            .env = env, .path = options_cloud_directory(options), .memory = memory};

        int rc = memory ? cloud_dir_create(out, &config, message, cap) : ERR_NO_MEMORY;
        free(memory);
        return rc;
    }
    case CLOUD_S3: {
        /* What nobody set is the backend's to find: it knows Amazon's variables and profiles. */
        const struct cloud_s3_config config = {
            .env = env,
            .region = options_given(options, "region") ? options->region : NULL,
            .bucket = options->bucket,
            .endpoint = *options->s3_endpoint ? options->s3_endpoint : NULL,
            .path_style = options->s3_path_style != 0,
            .ca_file = *options->s3_ca_file ? options->s3_ca_file : NULL,
            .download_parts = (unsigned)options->s3_download_concurrency};

        return cloud_s3_create(out, &config, message, cap);
    }
    }
    assert(!"a kind of cloud");
    return ERR_INVALID;
}

void node_cloud_welcome(const struct cloud *cloud, const struct options *options)
{
    const char *prefix = options->cloud_prefix;

    if (cloud)
        log_info("cloud: %s %s%s%s", cloud->backend->name, cloud->bucket,
                 *prefix ? ", keys below " : "", prefix);
    else
        log_info("cloud: none, so bodies of levels 1 and 2 stay in the cluster");
}
