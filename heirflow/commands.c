#include "commands.h"

typedef int commands_is_empty;
