/* The generated part of the corpora: what the files of it share (make fuzz-seeds). */
#ifndef TESTS_FUZZ_FUZZ_SEEDS_H
#define TESTS_FUZZ_FUZZ_SEEDS_H

#include <stddef.h>

/* Write DATA as seed NAME of TARGET. */
void seed(const char *target, const char *name, const void *data, size_t len);
/* HEAD's bytes, then TEXT's. */
void seed_text(const char *target, const char *name, const char *head, size_t head_len,
               const char *text);

/* The targets about the cloud. */
void seed_cloud(void);

#endif
