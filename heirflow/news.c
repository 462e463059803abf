#include "news.h"

typedef int news_is_empty;
