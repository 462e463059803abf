#include "config.h"

typedef int config_is_empty;
