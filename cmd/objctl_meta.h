/* Meta data as it is given on the command line. */
#ifndef CMD_OBJCTL_META_H
#define CMD_OBJCTL_META_H

/* --meta, given any number of times. Zero it; release it. */
struct user_meta {
    void *json;
    char *text;
};

/* KEY=VALUE, or a JSON object of strings. CTL_OK, or CTL_USAGE after saying why. */
int user_meta_add(struct user_meta *meta, const char *argument);
/* All of it as compact JSON in ASCII, owned by META; *OUT is NULL where none was given. */
int user_meta_text(struct user_meta *meta, const char **out);
void user_meta_release(struct user_meta *meta);

/* CTL_OK, or CTL_USAGE after saying why. */
int ctl_check_level(const char *text);
/* TEXT can stand in a header: no control characters. */
int ctl_check_line(const char *option, const char *text);

#endif
