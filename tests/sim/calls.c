/* Carries out calls read from standard input on the simulated database, one a line, and prints each reply as JSON.
 * Owns the reading and writing only; see test_differential.py for who asks. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "database.h"

static struct database database, saved, marked;
static uint64_t seed;

/* Incarnations are numbers here; "" is a vacant throne's. */
static void write_number(char *buffer, size_t size, int64_t number)
{
    buffer[0] = '\0';
    if (number)
        (void)snprintf(buffer, size, "%" PRId64, number);
}

static json_t *describe(const struct succession_observation *seen)
{
    static const char *const asked[] = {"", "switchover", "retire"};
    return json_pack("{s:s, s:I, s:s, s:I, s:I, s:b, s:I, s:I, s:I, s:b, s:b, s:b, s:I, s:I, s:b, s:b, s:b, s:b, s:s, s:s}",
                     "identity", seen->throne.identity, "heir", (json_int_t)seen->throne.heir, "heir_incarnation",
                     seen->throne.incarnation, "term", (json_int_t)seen->throne.term, "beat", (json_int_t)seen->throne.beat,
                     "home", seen->home, "lease_ms", (json_int_t)seen->lease_ms, "accession_lease_ms",
                     (json_int_t)seen->accession_lease_ms, "wait_ms", (json_int_t)seen->wait_ms, "paused", seen->paused,
                     "last_seat", seen->last_seat, "known", seen->known, "member_id", (json_int_t)seen->member_id, "rank",
                     (json_int_t)seen->rank, "eldest", seen->eldest, "named", seen->named, "held_back", seen->held_back,
                     "retired", seen->retired, "asked", asked[seen->asked], "incarnation", seen->incarnation);
}

static void print_reply(const struct database_reply *reply)
{
    json_t *json = reply->observed ? describe(&reply->observation) : json_object();
    (void)json_object_set_new(json, "granted", json_boolean(reply->granted));
    (void)json_object_set_new(json, "refused", json_string(reply->refusal ? reply->refusal : ""));
    (void)json_dumpf(json, stdout, JSON_COMPACT);
    json_decref(json);
}

/* call KIND SEAT MEMBER INCARNATION GENERATION LEASE HIGHEST ELIGIBLE RENEW TERM OWNER OWNER_INCARNATION
 *      HOME HEIR HEIR_INCARNATION SEEN_TERM SEEN_BEAT YIELDS; whatever a kind does not need is 0 */
static void call(const int64_t *n)
{
    struct database_caller caller = {.seat = (int)n[1],
                                     .member_id = n[2],
                                     .incarnation = n[3],
                                     .generation = n[4],
                                     .lease_ms = n[5],
                                     .highest_term = n[6],
                                     .eligible = n[7] != 0};
    struct order order = {.type = ORDER_SEND,
                          .request = (enum succession_request)n[0],
                          .highest_term = n[6],
                          .renew = n[8] != 0,
                          .term = n[9],
                          .member_id = n[10],
                          .seen = {.heir = n[13], .term = n[15], .beat = n[16]},
                          .seniority_yields = n[17] != 0};
    write_number(order.incarnation, sizeof order.incarnation, n[11]);
    write_number(order.seen.incarnation, sizeof order.seen.incarnation, n[14]);
    (void)snprintf(order.seen.identity, sizeof order.seen.identity, "server-%" PRId64, n[12]);
    struct database_reply reply = database_call(&database, &caller, &order);
    print_reply(&reply);
}

static void print_bool(bool accepted)
{
    (void)fputs(accepted ? "true" : "false", stdout);
}

static void restore(void)
{
    int64_t now_ms = database.now_ms, identity = database.identity;
    database = saved;
    database.now_ms = now_ms;
    database.identity = identity;
}

static bool carry_out(const char *what, const int64_t *n)
{
    if (strcmp(what, "begin") == 0)
        database = saved = (struct database){.identity = 1, .now_ms = n[0], .random = &seed};
    else if (strcmp(what, "time") == 0)
        database.now_ms = n[0];
    else if (strcmp(what, "identity") == 0)
        database.identity = n[0];
    else if (strcmp(what, "term") == 0)
        database.throne.term = n[0];
    else if (strcmp(what, "ids") == 0)
        database.last_member_id = n[0];
    else if (strcmp(what, "mark") == 0)
        marked = database;
    else if (strcmp(what, "back") == 0)
        database = marked;
    else if (strcmp(what, "save") == 0)
        saved = database;
    else if (strcmp(what, "restore") == 0)
        restore();
    else if (strcmp(what, "switchover") == 0)
        print_bool(database_switchover(&database, (int)n[0]));
    else if (strcmp(what, "pause") == 0)
        print_bool(database_pause(&database, n[0] != 0));
    else if (strcmp(what, "retire") == 0)
        print_bool(database_retire(&database, (int)n[0], n[1] != 0));
    else if (strcmp(what, "lease") == 0)
        print_bool(database_set_lease(&database, n[0]));
    else if (strcmp(what, "call") == 0)
        call(n);
    else
        return false;
    return true;
}

int main(void)
{
    char line[1024];
    while (fgets(line, sizeof line, stdin)) {
        int64_t numbers[18] = {0};
        char *rest = line, *what = strsep(&rest, " \n");
        for (int i = 0; i < 18 && rest && *rest; i++)
            numbers[i] = strtoll(rest, &rest, 10);
        if (!carry_out(what, numbers)) {
            fprintf(stderr, "unknown call: %s\n", what);
            return 2;
        }
        putchar('\n');
        (void)fflush(stdout);
    }
    return 0;
}
