/* Standard input, output and error. */
#pragma once

/* Opens /dev/null for those that are closed, or the next descriptor, of a server perhaps, would take their place. First
 * thing in a program. */
void streams_open_missing(void);
