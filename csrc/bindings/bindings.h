// One function for each group of operations; module.cpp calls them all.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace inreach {

void bind_runtime(pybind11::module_& module);
void bind_nearest(pybind11::module_& module);
void bind_filter_channels(pybind11::module_& module);
void bind_describe(pybind11::module_& module);

}  // namespace inreach
