/* The page at /, programs/serve_page.html, as the build embeds it. */
#ifndef SERVE_PAGE_H
#define SERVE_PAGE_H

#include <stddef.h>

extern const unsigned char serve_page[];
extern const size_t serve_page_size; /* bytes */

#endif
