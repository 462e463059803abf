#include "keeper.h"

typedef int keeper_is_empty;
