/* The two ways in which figures are written; stats.c and its like say which there are. */
#include "api/figures.h"

#include "api/document.h"

#include <stdio.h>
#include <string.h>

/* ---- JSON ---- */

void figures_key(struct buf *out, const char *name)
{
    if (out->len && out->data[out->len - 1] != '{')
        buf_char(out, ',');
    buf_char(out, '"');
    buf_text(out, name);
    buf_text(out, "\":");
}

void figures_number(struct buf *out, const char *name, uint64_t value)
{
    figures_key(out, name);
    document_number(out, value);
}

void figures_string(struct buf *out, const char *name, const char *value)
{
    figures_key(out, name);
    buf_json(out, value, strlen(value));
}

void figures_boolean(struct buf *out, const char *name, bool value)
{
    figures_key(out, name);
    buf_text(out, value ? "true" : "false");
}

void figures_begin(struct buf *out, const char *name)
{
    figures_key(out, name);
    buf_char(out, '{');
}

void figures_end(struct buf *out)
{
    buf_char(out, '}');
}

/* ---- Prometheus ---- */

void figures_head(struct buf *out, const char *name, const char *help, const char *type)
{
    buf_text(out, "# HELP ");
    buf_text(out, name);
    buf_char(out, ' ');
    buf_text(out, help);
    buf_text(out, "\n# TYPE ");
    buf_text(out, name);
    buf_char(out, ' ');
    buf_text(out, type);
    buf_char(out, '\n');
}

void figures_metrics(struct buf *out, const struct figure *figures, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct figure *m = &figures[i];

        figures_head(out, m->name, m->help, m->type == FIGURE_GAUGE ? "gauge" : "counter");
        buf_text(out, m->name);
        buf_char(out, ' ');
        document_number(out, m->value);
        buf_char(out, '\n');
    }
}

/* Of the value: backslash, quote and newline escaped (text format 0.0.4). */
void figures_label(struct buf *out, const char *name, const char *value)
{
    buf_text(out, name);
    buf_text(out, "=\"");
    for (; *value; value++) {
        if (*value == '\n') {
            buf_text(out, "\\n");
            continue;
        }
        if (*value == '\\' || *value == '"')
            buf_char(out, '\\');
        buf_char(out, *value);
    }
    buf_char(out, '"');
}

void figures_seconds(struct buf *out, uint64_t us)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%llu.%06llu", (unsigned long long)(us / 1000000),
                       (unsigned long long)(us % 1000000));

    while (text[len - 1] == '0' && text[len - 2] != '.')
        len--;
    buf_add(out, text, (size_t)len);
}
