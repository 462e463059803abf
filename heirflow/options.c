#include "options.h"

typedef int options_is_empty;
