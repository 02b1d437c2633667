// Rows that lie in a mapped file: what was touched counts as this process's memory until it is given back.
#pragma once

#include <cstddef>

#include "inreach/nearest.h"

namespace inreach {

// Gives the pages of a file mapping back to the system; they are read again when touched. Never call it for
// memory that is not a shared mapping of a file: it would be lost.
void drop_pages(const void* data, size_t bytes);

// Called now and then while rows are read: gives a large mapping's pages back once about a quarter gigabyte
// of files has come into memory. Does nothing for rows in memory, or for mappings that are not large.
void limit_resident(const RowSet& rows);

}  // namespace inreach
