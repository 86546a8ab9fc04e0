/*
 * The log of the process: one line per event on stderr, UTC with milliseconds, as text
 *     2026-01-31T12:34:56.789Z INFO  message
 * or as one JSON object per line ({"time","level","message"}). Control characters in a message are
 * escaped, so that nobody outside can forge a line. Thread-safe; a line is one write(2).
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_TEXT, LOG_JSON };

/* Set before threads start; the default is LOG_INFO as LOG_TEXT. */
void log_configure(enum log_level level, enum log_format format);

/* Whether a line of this level would be written: guards costly arguments. */
bool log_enabled(enum log_level level);

/* Write one line; longer than 2 KiB is cut and ends in "...". errno is preserved. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_INFO, __VA_ARGS__)
#define log_debug(...) (log_enabled(LOG_DEBUG) ? log_line(LOG_DEBUG, __VA_ARGS__) : (void)0)

#endif
