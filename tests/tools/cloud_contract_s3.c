/*
 * The contract of storage/cloud.h (tests/unit/cloud_contract.c) for the S3 backend and a real
 * server, which a test in Python has started: tests/integration/test_cloud_contract.py.
 *   usage: cloud_contract ENDPOINT BUCKET PREFIX PART_BYTES DOWNLOAD_PARTS
 * PART_BYTES: bodies above are sent in parts; 0: the default, as DOWNLOAD_PARTS's. Credentials as
 * the backend finds them.
 */
#include "storage/cloud_s3.h"
#include "tests/unit/cloud_contract.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

static struct cloud *create(void *arg)
{
    struct cloud *cloud;
    char message[256];
    int rc = cloud_s3_create(&cloud, arg, message, sizeof message);

    if (rc)
        fail_msg("%s", message);
    return cloud;
}

int main(int argc, char **argv)
{
    struct cloud_s3_config config = {.path_style = true};

    if (argc != 6) {
        (void)fprintf(stderr, "usage: cloud_contract ENDPOINT BUCKET PREFIX PART_BYTES PARTS\n");
        return 64;
    }
    config.endpoint = argv[1];
    config.bucket = argv[2];
    config.part_bytes = strtoull(argv[4], NULL, 10);
    config.download_parts = (unsigned)strtoul(argv[5], NULL, 10);
    const struct cloud_contract contract = {
        .create = create, .arg = &config, .prefix = argv[3], .short_parts = true};

    return cloud_contract_run(&contract);
}
