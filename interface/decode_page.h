/* JSON from the database -> pages to look through. Texts are cleaned on the way. */
#pragma once

#include <stdbool.h>

#include "desk.h"

/* What member_details() returned; "null" for a member that is gone. `group` is that of its events. */
void decode_details(const char *json, const char *group, struct page *ret_page);

/* What groups() returned; `current` is where the choice begins. */
void decode_groups(const char *json, const char *current, struct desk *desk);
