#include "postgres.h"

typedef int postgres_is_empty;
