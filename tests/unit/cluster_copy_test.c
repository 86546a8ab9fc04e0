/* Goal: a machine that is copied while it runs, over real sockets: its run is frozen everywhere,
 * each half goes on under a run of its own, exactly one of them has to stop, and nothing that
 * either has taken is lost once that one is a node of its own. */
#define NODES       3
#define PATIENCE_MS 30000
#include "tests/unit/cluster_fixture.h"

#include "cluster/cluster_internal.h"

enum { ORIGINAL, OTHER, COPY };

static void on_displaced(void *arg)
{
    atomic_fetch_add(&((struct member_node *)arg)->displaced, 1);
}

/* Start node I with node SEED's address (-1: none). PROCESS: it is that process, which goes on here
 * as well. */
static void up(int i, int seed, const struct member_node *process)
{
    struct member_node *at = &nodes[i];

    open_node(i, seed,
              (struct cluster_config){.on_displaced = on_displaced, .on_displaced_arg = at});
    if (process) {
        at->node->journal->committer.chain = process->node->journal->committer.chain;
        at->node->journal->run = process->node->journal->run;
        at->cluster->process = process->cluster->process;
        at->cluster->own_run = process->cluster->own_run;
    }
    run_node(i);
}

static bool idle(int i)
{
    struct journal_stats stats;

    journal_stats(nodes[i].node->journal, &stats);
    return stats.pending == 0;
}

static void put_on(int i, unsigned n)
{
    put_as(i, n, 100, 0, false);
}

static bool is_frozen(int i, const struct id128 *run)
{
    struct db_reader *reader;
    struct db_frozen *rows;
    bool found = false;
    size_t count;

    assert_int_equal(journal_reader_open(nodes[i].node->journal, &reader), 0);
    assert_int_equal(db_reader_frozen(reader, &rows, &count), 0);
    for (size_t k = 0; k < count; k++)
        found |= id_equal(&rows[k].origin, run);
    free(rows);
    db_reader_close(&reader);
    return found;
}

/* What the node is after `objctl journal new-node-id`. */
static void make_new_node(int i)
{
    struct node *node = nodes[i].node;
    struct journal_config config = {.dirs = &node->dirs, .sync = true, .new_node = true};
    struct id128 id;

    assert_int_equal(store_dirs_open(&node->dirs, &node->env, node->state, node->files, false,
                                     node->message, sizeof node->message),
                     0);
    assert_int_equal(journal_open(&node->journal, &config, node->message, sizeof node->message), 0);
    assert_int_equal(journal_new_node(node->journal, &id), 0);
    journal_stop(node->journal);
    journal_close(&node->journal);
    store_dirs_close(&node->dirs);
}

static void both_halves_of_a_copied_machine_are_found_out(void **state)
{
    (void)state;
    up(ORIGINAL, -1, NULL);
    up(OTHER, ORIGINAL, NULL);
    put_on(ORIGINAL, 1);
    eventually(knows(OTHER, 1) && equal(ORIGINAL, OTHER));
    eventually(idle(ORIGINAL));
    struct id128 run = nodes[ORIGINAL].node->journal->run;

    shell("rm -rf '%s' && cp -a '%s' '%s'", nodes[COPY].node->root, nodes[ORIGINAL].node->root,
          nodes[COPY].node->root);
    up(COPY, OTHER, &nodes[ORIGINAL]);
    assert_true(id_equal(&nodes[COPY].node->journal->run, &run));
    for (unsigned n = 10; n < 30; n++) {
        put_on(ORIGINAL, n);
        put_on(COPY, 100 + n);
    }
    eventually(atomic_load(&nodes[ORIGINAL].displaced) + atomic_load(&nodes[COPY].displaced) == 1);

    int younger = atomic_load(&nodes[COPY].displaced) ? COPY : ORIGINAL;
    int older = younger == COPY ? ORIGINAL : COPY;
    down(younger);
    put_on(older, 5);
    eventually(knows(OTHER, 5));
    make_new_node(younger);
    up(younger, OTHER, NULL);
    put_on(younger, 6);
    eventually(knows(OTHER, 6) && equal(ORIGINAL, OTHER) && equal(COPY, OTHER));
    for (int i = 0; i < NODES; i++)
        assert_true(is_frozen(i, &run));
    for (unsigned n = 10; n < 30; n++)
        for (int i = 0; i < NODES; i++)
            assert_true(knows(i, n) && knows(i, 100 + n));
    assert_int_equal(atomic_load(&nodes[older].displaced), 0);
    for (int i = 0; i < NODES; i++)
        down(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(both_halves_of_a_copied_machine_are_found_out, setup_nodes,
                                        teardown_nodes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
