/* `heirflow run`: owns the loop; turns callbacks into events and carries out the orders of succession.c. */
#pragma once

#include "config.h"

int wrapper_run(const struct config *config); /* returns the exit code */
