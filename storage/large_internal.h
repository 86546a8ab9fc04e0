/* What the files of large bodies share; nobody else includes it. large.h is the contract. */
#ifndef STORAGE_LARGE_INTERNAL_H
#define STORAGE_LARGE_INTERNAL_H

#include "storage/large.h"

#include <stdatomic.h>

#define HEADER_BYTES 4096
#define FRAME_BYTES  24
#define SUM_BYTES    8
#define COUNTER_BITS 40
#define LIMIT_SIZE   (UINT64_C(1) << 62)

struct large_store {
    struct env *env;
    char *tmp_dir, *large_dir;
    struct id128 store;
    uint64_t generation;
    _Atomic uint64_t counter;
    bool sync;
};

/* Fresh strings, or NULL: no memory. */
char *large_tmp_path(const struct large_store *store, uint64_t number, const char *suffix);
char *large_final_path(const struct large_store *store, uint64_t number);

/* magic 8 | version 4 | compat 4 | ro_compat 4 | incompat 4 | store 16 | number 8 | zeros |
 * checksum of all before 8 */
void large_encode_header(uint8_t out[HEADER_BYTES], const struct id128 *store, uint64_t number);
/* ERR_CORRUPT: not the header of NUMBER in STORE; ERR_FORMAT: of a version that is not known. */
int large_check_header(const uint8_t in[HEADER_BYTES], const struct id128 *store,
                       uint64_t number) MUST_CHECK;
void large_encode_frame(uint8_t out[FRAME_BYTES], uint64_t size);

/* Where in the file of a body of SIZE bytes that ends, its checksums begin, its frame begins. */
uint64_t large_body_end(uint64_t size);
uint64_t large_sums_offset(uint64_t size);
uint64_t large_frame_offset(uint64_t size);

#endif
