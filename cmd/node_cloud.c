/* Which cloud a node has: the options' words, and the backends that they mean. */
#include "cmd/node_cloud.h"

#include "base/log.h"
#include "storage/cloud_dir.h"

#include <assert.h>
#include <string.h>

int node_cloud_open(struct cloud **out, struct env *env, const struct options *options,
                    char *message, size_t cap)
{
    *out = NULL;
    switch (options_cloud(options)) {
    case CLOUD_NONE:
        return 0;
    case CLOUD_DIRECTORY: {
        const struct cloud_dir_config config = {.env = env,
                                                .path = options_cloud_directory(options)};

        return cloud_dir_create(out, &config, message, cap);
    }
    case CLOUD_S3:
        break;
    }
    return 0;
}

void node_cloud_welcome(const struct cloud *cloud, const struct options *options)
{
    const char *prefix = options->cloud_prefix;

    if (cloud)
        log_info("cloud: %s %s%s%s", cloud->backend->name, cloud->bucket,
                 *prefix ? ", keys below " : "", prefix);
    else if (options_cloud(options) == CLOUD_S3)
        log_warn("option bucket has no effect in this version, which knows no S3");
    else
        log_info("cloud: none, so bodies of levels 1 and 2 stay in the cluster");
}
