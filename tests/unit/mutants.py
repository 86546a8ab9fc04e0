#!/usr/bin/env python3
"""Plant bugs one by one into what the simulators cannot run (threads that wait, doors); the unit
test that is named for each has to find it.

usage: mutants.py BUILD COMPILE LINK LIBS [NAME]
"""
import glob
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../sim"))
import planting  # noqa: E402

# (test, (name, what is wrong, file, text, its replacement))
MUTANTS = [
    ("cloud_import", ("import-deleted", "a mark does not keep a key from being adopted",
     "cluster/cloud_import.c",
     "    if (marked) {\n        import_add(import",
     "    if (marked && entry->size == 0) {\n        import_add(import")),
    ("cloud_import", ("import-first-marks", "only the first page of marks is looked at",
     "cluster/cloud_import_list.c",
     "    int rc = here ? 0 : turn_to(import, entry, folder);",
     "    int rc = here || marks->open ? 0 : turn_to(import, entry, folder);")),
    ("cloud_import", ("import-first-page", "only the first page of keys is taken",
     "cluster/cloud_import.c",
     "        more = page->wait.request.more && page->count > 0;",
     "        more = page->wait.request.more && page->count == 0;")),
    ("cloud_import", ("import-id-of-the-key", "other bytes under a key get the id of those before",
     "cluster/cloud_import_list.c",
     "    if (etag_len)\n        memcpy(text + key.len + 1, etag.ptr, etag_len);",
     "    etag_len = 0;")),
    ("cloud_import", ("import-level", "what was for every node comes back as the cloud's alone",
     "cluster/cloud_import_object.c",
     "                                .level = facts->level,",
     "                                .level = 1,")),
    ("cloud_import", ("import-unchecked", "a size that contradicts itself is no matter",
     "cluster/cloud_look.c",
     "    if (rc == 0 && look->facts.fields & CLOUD_FACTS_SIZE && look->facts.size != look->size)\n"
     "        rc = ERR_CORRUPT;\n",
     "")),
    ("cloud_import", ("import-again", "what was adopted already is looked at again each time",
     "cluster/cloud_import_object.c",
     "        rc = ERR_EXISTS;\n    object_destroy(&object);",
     "        rc = 0;\n    object_destroy(&object);")),
    ("cloud_import", ("import-gives-up", "a key that did not answer once is refused",
     "cluster/cloud_import_object.c",
     "        if (!import_may_pass(rc) || tries == CLOUD_IMPORT_TRIES || !import_rest(import, tries))",
     "        if (!import_may_pass(rc) || tries == 0 || !import_rest(import, tries))")),
    ("cloud_import", ("import-dry", "a dry run journals what it finds", "cluster/cloud_import_object.c",
     "    if (rc == 0 && !dry)\n        rc = adopt_once",
     "    if (rc == 0)\n        rc = adopt_once")),
    ("api_cloud", ("adopt-deleted", "the mark of a deleted id is not heeded",
     "cluster/cloud_look.c",
     "    if (look->mark.len && look->mark_rc == 0)\n        rc = ERR_DELETED;\n    else if",
     "    if")),
    ("api_cloud", ("adopt-each", "each client that looks for an id has the cloud asked",
     "api/adoption.c",
     "    while (adoption && !id_equal(&adoption->id, id))\n        adoption = adoption->next;\n"
     "    if (!adoption && table",
     "    adoption = NULL;\n    if (!adoption && table")),
    ("journal_cloud", ("adopt-as-news", "what is read back from the cloud is newer than anything",
     "journal/decide.c",
     "    out->event.stamp = request->stamp;\n    if (out->event.level == 0)",
     "    if (out->event.level == 0)")),
    ("peer_fill", ("coalesce-fills", "each client of a large body has it fetched",
     "api/peer_fill.c",
     "    *out = find(fills, origin, name);\n    if (!*out) {",
     "    *out = NULL;\n    if (!*out) {")),
    ("peer_fill", ("coalesce-poisoned", "who leaves ends the fill of the others",
     "api/peer_fill.c",
     "    bool cancel = comes && fill->followers == 0 && !is_worth_its_end(fill);",
     "    bool cancel = comes && !is_worth_its_end(fill);")),
    ("peer_fill", ("coalesce-whole-is-lost", "what all have left is given up though it is here",
     "api/peer_fill.c",
     "    bool comes = fill->rc == 0 && fill->came < fill->size;",
     "    bool comes = fill->rc == 0 && !fill->fetched;")),
    ("api_cloud", ("coalesce-paid-for", "what all have left is given up though it is nearly here",
     "api/peer_fill.c",
     "    return fill->pinned || (fill->origin.has_cloud",
     "    return fill->pinned || (false && fill->origin.has_cloud")),
    ("peer_fill", ("coalesce-unverified", "the last block is sent before the SHA-256 is known",
     "api/peer_fill.c",
     "    int rc = taken == fill->size ? verify(fill) : 0;\n"
     "    if (rc)\n        return rc;\n"
     "    lock(fill);\n    fill->readable = taken;\n    unlock(fill);\n    post_waiters(fill);\n"
     "    rc = disk_copy_write(fill->copy, bytes, len);\n    if (rc)",
     "    lock(fill);\n    fill->readable = taken;\n    unlock(fill);\n    post_waiters(fill);\n"
     "    int rc = taken == fill->size ? verify(fill) : 0;\n"
     "    if (rc == 0)\n        rc = disk_copy_write(fill->copy, bytes, len);\n    if (rc)")),
    ("api_cloud", ("coalesce-nobody-lends", "who fetches for all gives only what is whole here",
     "cluster/cluster_lend.c",
     "    if (!lender.open)",
     "    if (lender.open)")),
    ("api_cloud", ("coalesce-each-node", "each node takes itself for the one that fetches for all",
     "cluster/cluster_pull.c",
     "        if (its > best) {",
     "        if (its > best && count == 0) {")),
    ("api_cloud", ("coalesce-parts", "each node asks the cloud for a part by itself",
     "cluster/cluster_pull.c",
     "    if (ask->fetch.delegated || (!is_whole(ask) && !is_part(ask)))",
     "    if (ask->fetch.delegated || !is_whole(ask) || (false && is_part(ask)))")),
    ("api_cloud", ("coalesce-copies", "who fetches for all fetches its own copy besides",
     "cluster/cluster_pull.c",
     "    if (ask->own && !is_background(ask))",
     "    if (ask->own)")),
    ("api_cloud", ("coalesce-late-row", "who has not heard of an object does not wait to hear of it",
     "cluster/cluster_lend.c",
     "    if (!cluster->cloud || cluster_now",
     "    if (cluster->cloud || cluster_now")),
    ("cluster_pull", ("coalesce-cloud-first", "the cloud is asked before the members that have it",
     "cluster/cluster_pull.c",
     "            rc = ask->fetch.cloud ? ask_members(cluster, ask, false) : ERR_NOT_FOUND;",
     "            rc = ERR_NOT_FOUND;")),
]

TESTS = {mutant[0]: test for test, mutant in MUTANTS}


def objects_of(mutant):
    """Its test's own, and what the unit tests share."""
    shared = [source for source in glob.glob("tests/unit/*.c") if not source.endswith("_test.c")]
    return ["obj/" + source[:-1] + "o"
            for source in shared + [f"tests/unit/{TESTS[mutant[0]]}_test.c"]]


def try_out(program):
    """(caught, by which test, what it said)"""
    text, failed = planting.run_for([program])
    told = re.search(r"^\[  FAILED  \] (?:tests: )?(\w+)", text, re.MULTILINE)
    said = re.search(r"^(?:\[  ERROR   \] --- |.*Assertion )(.*)", text, re.MULTILINE)
    test = TESTS[os.path.basename(program)]
    return failed, f"{test:13}", f"{told.group(1) if told else ''}: {said.group(1) if said else ''}"


planting.plant("unit-mutants", [mutant for _, mutant in MUTANTS], objects_of, try_out)
