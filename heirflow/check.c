#include "check.h"

typedef int check_is_empty;
