#include "succession.h"

typedef int succession_is_empty;
