/* What the stress programs check: the first thing that is not true ends them. */
#ifndef MODELYARD_CHECK_H
#define MODELYARD_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                  \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition);           \
      exit(1);                                                                            \
    }                                                                                     \
  } while (0)

#endif
