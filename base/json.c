/*
 * jansson says "invalid" where memory was short, and its lexer drops a character whose buffer could
 * not grow without saying anything, as does what writes objects by their keys. So its allocations
 * are watched: a text in whose reading or writing one failed has not been read or written.
 */
#include "base/json.h"

#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

static pthread_once_t watched = PTHREAD_ONCE_INIT;
static _Thread_local bool was_short;

static void *watch_malloc(size_t size)
{
    void *memory = malloc(size);

    was_short |= !memory;
    return memory;
}

static void watch(void)
{
    json_set_alloc_funcs(watch_malloc, free);
}

int json_read(json_t **out, const char *text, size_t len, size_t flags)
{
    assert(text || len == 0);
    (void)pthread_once(&watched, watch);
    was_short = false;
    *out = json_loadb(text ? text : "", len, flags, NULL);
    if (*out && !was_short)
        return 0;
    json_decref(*out);
    *out = NULL;
    return was_short ? ERR_NO_MEMORY : ERR_INVALID;
}

int json_write(char **out, const json_t *json, size_t flags)
{
    (void)pthread_once(&watched, watch);
    was_short = false;
    *out = json_dumps(json, flags);
    if (*out && !was_short)
        return 0;
    bool none = !*out && !was_short;
    free(*out);
    *out = NULL;
    return none ? ERR_INVALID : ERR_NO_MEMORY;
}
