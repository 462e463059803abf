#include "seat.h"

typedef int seat_is_empty;
