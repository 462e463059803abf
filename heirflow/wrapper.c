#include "wrapper.h"

typedef int wrapper_is_empty;
