/* Whether a file may hold a secret. */
#pragma once

#include <stdbool.h>

/* Every user of the host can open it. False for what is no file, such as a pipe, or cannot be looked at. */
bool secrecy_is_open(const char *path);
