/* The SQL calls of a member: one order in, one reply out. Knows what the functions are called and how their replies read.
 */
#pragma once

#include <jansson.h>

#include "postgres.h"
#include "succession.h"

struct roster_reply {
    uint32_t number;
    enum succession_request request;
    bool granted;
    bool fence;    /* accede: other terms' schedulers are to be fenced off before the start */
    bool unable;   /* accede: refused for what this member lacks */
    bool observed; /* not for abdicate and leave */
    struct succession_observation observation;
    char heir_node[256]; /* "" while vacant */
    char successor[256]; /* abdicate: whom it named, or "" */
    char refusal[64];    /* accede: why not */
    int64_t unpublished; /* news not yet relayed */
};

/* reply is NULL if the request failed; error says why. The reply is only valid during the call. */
typedef void roster_reply_cb(void *data, uint32_t number, const struct roster_reply *reply, const struct error *error);

struct roster {
    struct postgres *postgres;
    const char *group, *node, *seat;         /* borrowed */
    int64_t generation, member_id, lease_ms; /* lease: founds a new group */
    char incarnation[SUCCESSION_UUID];
    roster_reply_cb *on_reply;
    void *data;

    uint32_t number; /* of the call under way */
    enum succession_request request;
    bool renew;
};

/* Sends what the ORDER_SEND asks for. `self_json` is what the member says of itself, `news` an array of events it tells
 * (heartbeat and abdicate carry them). A WARNING on a renewal or an accession is reported as failure: the commit may not be
 * what it claims to be. The connection must not be busy. */
void roster_send(struct roster *self, const struct order *order, json_t *self_json, json_t *news);
