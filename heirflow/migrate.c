#include "migrate.h"

typedef int migrate_is_empty;
