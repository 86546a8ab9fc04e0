/*
 * Stands in for libFuzzer's main where the corpus is only replayed: feeds each file named on the
 * command line, and each file of a directory named there, to the target once; then, of each, every
 * prefix and the file with each single byte changed, up to a bound, which costs little and finds
 * what a seed alone would not. Ends with the number of runs; a broken property aborts.
 */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <sys/stat.h>

#define MAX_FILE_BYTES (1u << 20)
#define MAX_VARIANTS   64

static const char *current = "";
static unsigned long runs, files;

/* Named by the sanitizers' reports, too: which input it was. */
static void run(const uint8_t *data, size_t len)
{
    uint8_t *copy = exact_copy(data, len);

    runs++;
    (void)LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static void run_variants(uint8_t *data, size_t len)
{
    size_t step = len / MAX_VARIANTS + 1;

    for (size_t at = 0; at < len; at += step)
        run(data, at);
    for (size_t at = 0; at < len; at += step) {
        data[at] ^= (uint8_t)(1u << at % 8);
        run(data, len);
        data[at] ^= (uint8_t)(1u << at % 8);
    }
}

static void run_file(const char *path)
{
    uint8_t *data = malloc(MAX_FILE_BYTES);
    FILE *file = fopen(path, "rb");

    current = path;
    CHECK(data && file);
    size_t len = fread(data, 1, MAX_FILE_BYTES, file);
    CHECK(!ferror(file));
    (void)fclose(file);
    files++;
    run(data, len);
    run_variants(data, len);
    free(data);
}

static void run_directory(const char *path)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);

    CHECK(count >= 0);
    for (int i = 0; i < count; i++) {
        char name[4096];

        (void)snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.')
            run_file(name);
        free(entries[i]);
    }
    free(entries);
}

#ifdef __SANITIZE_ADDRESS__
void __sanitizer_set_death_callback(void (*callback)(void));

static void name_input(void)
{
    (void)fprintf(stderr, "while replaying %s, or a variant of it\n", current);
}
#endif

int main(int argc, char **argv)
{
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_death_callback(name_input);
#endif
    for (int i = 1; i < argc; i++) {
        struct stat stat_of;

        CHECK(stat(argv[i], &stat_of) == 0);
        if (S_ISDIR(stat_of.st_mode))
            run_directory(argv[i]);
        else
            run_file(argv[i]);
    }
    (void)printf("%lu files, %lu runs\n", files, runs);
    CHECK(files > 0);
    return 0;
}
