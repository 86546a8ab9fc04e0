/*
 * A bounded queue of pointers between threads: many producers, one consumer that takes everything
 * at once. Full means ERR_FULL for the producer, never a wait.
 */
#ifndef BASE_QUEUE_H
#define BASE_QUEUE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct queue;

int queue_create(struct queue **out, size_t capacity) MUST_CHECK;
void queue_destroy(struct queue **queue);

/* Add ITEM at the end. ERR_FULL where CAPACITY wait already, ERR_CLOSED after queue_close. */
int queue_push(struct queue *queue, void *item) MUST_CHECK;

/* Take up to MAX items in order, at once, without waiting; their count. */
size_t queue_take(struct queue *queue, void **items, size_t max);

/* Wait until there is an item, the queue is closed, queue_wake is called, or TIMEOUT_MS passed (-1:
 * no limit). True where there is an item. */
bool queue_wait(struct queue *queue, int64_t timeout_ms);

/* Make a queue_wait that is under way, or the next one, return. */
void queue_wake(struct queue *queue);

/* Refuse new items from now on; those inside can still be taken. */
void queue_close(struct queue *queue);
bool queue_closed(struct queue *queue);

size_t queue_length(struct queue *queue);

#endif
