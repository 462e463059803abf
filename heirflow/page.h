/* The status page, as heirflow/page/embed has put it together. */
#pragma once

#include <stddef.h>

extern const unsigned char page_html[];
extern const size_t page_html_size;
extern const char page_policy[]; /* Content-Security-Policy: this page's own style and script, and nothing else */
