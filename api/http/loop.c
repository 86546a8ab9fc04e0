/*
 * A worker's loop: waits for sockets, mail and deadlines, and hands each to its connection.
 *
 * Mail is a stack that any thread pushes onto with one compare-and-swap; the loop takes it whole
 * and turns it round. The bell (an eventfd, edge-triggered, so nobody has to read it) is rung only
 * when the box was empty and the loop may be asleep: it says that it will sleep before it looks
 * into the box for the last time, so one of the two always sees the other.
 */
#include "api/http/http_internal.h"
#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define MAX_SLEEP_MS 60000
#define SLICE_NS     100000

uint64_t clock_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void read_clocks(struct loop *loop)
{
    struct timespec wall;

    loop->now_us = clock_us();
    loop->now_ms = loop->now_us / 1000;
    clock_gettime(CLOCK_REALTIME_COARSE, &wall);
    if ((uint64_t)wall.tv_sec != loop->date_s) {
        loop->date_s = (uint64_t)wall.tv_sec;
        http_date_format(loop->date, loop->date_s);
    }
}

int loop_init(struct loop *loop, struct http_server *server, unsigned index)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = &loop->bell};

    loop->server = server;
    loop->index = index;
    loop->ready_end = &loop->ready;
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->bell.watch = WATCH_MAILBOX;
    loop->bell.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (loop->epoll_fd < 0 || loop->bell.fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->bell.fd, &event))
        return err_from_errno(errno);
    loop->input = malloc(HTTP_READ_STEP_BYTES);
    loop->scratch = aligned_alloc(4096, SOURCE_BYTES);
    loop->piece = malloc(ONE_PIECE_BYTES);
    if (!loop->input || !loop->scratch || !loop->piece)
        return ERR_NO_MEMORY;
    read_clocks(loop);
    wheel_init(&loop->wheel, loop->now_ms);
    return 0;
}

void loop_release(struct loop *loop)
{
    assert(!loop->conns && !loop->dead);
    while (atomic_load_explicit(&loop->posters, memory_order_acquire))
        sched_yield(); /* their mail has been delivered: they are about to return */
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->bell.fd >= 0)
        close(loop->bell.fd);
    free(loop->input);
    free(loop->scratch);
    free(loop->piece);
}

static void ring(struct loop *loop)
{
    uint64_t one = 1;

    /* It can only fail by being full, and then it has been rung. */
    (void)!write(loop->bell.fd, &one, sizeof one);
}

void loop_mail(struct loop *loop, struct mail *mail)
{
    struct mail *head = atomic_load_explicit(&loop->mailbox, memory_order_relaxed);

    atomic_fetch_add_explicit(&loop->posters, 1, memory_order_relaxed);
    do
        mail->next = head;
    while (!atomic_compare_exchange_weak(&loop->mailbox, &head, mail));
    /* MAIL may be gone by now, and the loop, too, were we not counted. */
    if (!head && atomic_load(&loop->sleeping))
        ring(loop);
    atomic_fetch_sub_explicit(&loop->posters, 1, memory_order_release);
}

void loop_order(struct loop *loop, unsigned orders)
{
    atomic_fetch_or(&loop->orders, orders);
    ring(loop);
}

void loop_ready(struct loop *loop, struct conn *conn)
{
    if (conn->in_ready)
        return;
    conn->in_ready = true;
    conn->next_ready = NULL;
    *loop->ready_end = conn;
    loop->ready_end = &conn->next_ready;
}

void loop_bury(struct loop *loop, struct conn *conn)
{
    assert(conn->state == CONN_CLOSED && conn->fd < 0 && !conn->timer.link);
    if (conn->prev)
        conn->prev->next = conn->next;
    else
        loop->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    conn->prev = NULL;
    conn->next = loop->dead;
    loop->dead = conn;
}

bool memory_take(struct loop *loop, size_t len, bool input)
{
    struct budget *memory = loop->server->config.memory;

    if (!memory || budget_take_below(memory, len, input ? memory->limit / 2 : UINT64_MAX))
        return true;
    stat_add(&loop->stats.refused, 1);
    return false;
}

void memory_give(struct loop *loop, size_t len)
{
    if (loop->server->config.memory)
        budget_give(loop->server->config.memory, len);
}

static void free_dead(struct loop *loop)
{
    struct conn **link = &loop->dead;

    while (*link) {
        struct conn *conn = *link;

        if (conn->in_ready) { /* the list of the next round still names it */
            link = &conn->next;
            continue;
        }
        *link = conn->next;
        free(conn->input);
        memory_give(loop, conn->input_cap);
        free(conn);
    }
}

static void deliver_mail(struct loop *loop)
{
    struct mail *mail, *turned = NULL;

    if (!atomic_load_explicit(&loop->mailbox, memory_order_relaxed))
        return;
    mail = atomic_exchange(&loop->mailbox, NULL);
    while (mail) {
        struct mail *next = mail->next;

        mail->next = turned;
        turned = mail;
        mail = next;
    }
    while (turned) {
        mail = turned;
        turned = mail->next;
        mail->deliver(mail);
    }
}

static void run_ready(struct loop *loop)
{
    struct conn *conn = loop->ready, *next;

    loop->ready = NULL;
    loop->ready_end = &loop->ready;
    for (; conn; conn = next) {
        next = conn->next_ready;
        conn->in_ready = false;
        conn_continue(conn);
    }
}

static void on_timer(struct wheel_timer *timer, void *arg)
{
    (void)arg;
    conn_timeout(CONTAINER_OF(timer, struct conn, timer));
}

static void follow_orders(struct loop *loop)
{
    unsigned orders = atomic_load(&loop->orders) & ~loop->orders_done;
    unsigned cut = 0;
    struct conn *conn, *next;

    if (!orders)
        return;
    loop->orders_done |= orders;
    if (orders & LOOP_DRAIN && loop->index == 0)
        server_end_listeners(loop->server);
    for (conn = orders & (LOOP_DRAIN | LOOP_CUT) ? loop->conns : NULL; conn; conn = next) {
        next = conn->next;
        if (orders & LOOP_DRAIN)
            conn_drain(conn);
        if (orders & LOOP_CUT && conn->fd >= 0) {
            cut++;
            conn_cut(conn);
        }
    }
    server_ack(loop->server, orders, cut);
}

static int sleep_ms(struct loop *loop)
{
    uint64_t ms = wheel_wait_ms(&loop->wheel, loop->now_ms, MAX_SLEEP_MS);
    uint64_t again = loop->index == 0 ? loop->server->accept_again_ms : 0;

    if (loop->ready || atomic_load(&loop->mailbox) ||
        atomic_load(&loop->orders) != loop->orders_done)
        return 0;
    if (again)
        ms = again <= loop->now_ms ? 0 : again - loop->now_ms < ms ? again - loop->now_ms : ms;
    return (int)ms;
}

static void wait_for_events(struct loop *loop, struct epoll_event *events)
{
    int n;

    atomic_store(&loop->sleeping, true);
    n = epoll_wait(loop->epoll_fd, events, MAX_EVENTS, sleep_ms(loop));
    atomic_store_explicit(&loop->sleeping, false, memory_order_relaxed);
    read_clocks(loop);
    if (n < 0 && errno != EINTR)
        log_error("http: epoll_wait: %s", strerror(errno));
    for (int i = 0; i < n; i++) {
        const enum watch_kind *watch = events[i].data.ptr;

        if (*watch == WATCH_CONNECTION)
            conn_event(events[i].data.ptr, events[i].events);
        else if (*watch == WATCH_LISTENER)
            server_accept(events[i].data.ptr);
    }
}

/*
 * Ask for short slices: where processors are busy, with other threads of this node above all, a
 * thread that wakes up is let in at once if its slice is the shorter one. Beside three busy
 * processes the p99 of hot GETs was a third of what it was. Linux before 6.12 pays no heed, and
 * where it is forbidden we are no worse off.
 */
static void ask_for_short_slices(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof attributes, .nice = getpriority(PRIO_PROCESS, 0)};

    if (sched_getscheduler(0) != SCHED_OTHER)
        return; /* somebody has chosen */
    attributes.runtime = SLICE_NS;
    (void)syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *run(void *arg)
{
    struct loop *loop = arg;
    struct epoll_event events[MAX_EVENTS];
    char name[16];

    snprintf(name, sizeof name, "http-%u", loop->index);
    pthread_setname_np(pthread_self(), name);
    ask_for_short_slices();
    while (!(loop->orders_done & LOOP_STOP) || atomic_load(&loop->mailbox)) {
        wait_for_events(loop, events);
        deliver_mail(loop);
        follow_orders(loop);
        run_ready(loop);
        wheel_advance(&loop->wheel, loop->now_ms, on_timer, NULL);
        if (loop->index == 0)
            server_accept_again(loop->server);
        free_dead(loop);
    }
    run_ready(loop);
    free_dead(loop);
    return NULL;
}

int loop_start(struct loop *loop)
{
    sigset_t all, before;
    int error;

    /* Signals are for the thread that started us. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&loop->thread, NULL, run, loop);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    loop->started = !error;
    return err_from_errno(error);
}
