// Breaks the floor plan on purpose: the test of the test.
#include <hdf5.h>

#include "weights/model_file.h"
