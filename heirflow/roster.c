#include "roster.h"

typedef int roster_is_empty;
