// Rows in a mapped file: pages that were read count as this process's memory until they are released.
#pragma once

#include <cstdint>

#include "inreach/nearest.h"

namespace inreach {

// Called now and then while rows are read: releases a large mapping's pages once about 256 MiB of files have
// become resident. Does nothing for rows in memory and for small mappings. Returns after how many more rows
// to call it again.
uint64_t limit_resident(const RowSet& rows);

}  // namespace inreach
