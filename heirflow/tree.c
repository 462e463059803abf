#include "tree.h"

typedef int tree_is_empty;
