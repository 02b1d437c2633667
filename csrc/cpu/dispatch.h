// Which instruction set runs: the one place where a kernel table is chosen.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace inreach {

// The table in force. First use reads INREACH_ISA (scalar, avx2, avx512 or neon); without it the best that
// the processor and the operating system support.
const KernelTable& kernels();

// Names of the tables that this machine can run, best first.
std::vector<std::string> isa_levels();

// Forces one of isa_levels() ("auto" for the best) for the whole process; std::invalid_argument otherwise.
void set_isa(const std::string& name);

}  // namespace inreach
