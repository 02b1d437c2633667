// One function for each group of operations; module.cpp calls them all.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <functional>

namespace inreach {

// Runs `work` with the GIL released. About every 50 ms the main thread runs the handlers of signals that have
// arrived; where one raises, as Ctrl-C does, the engine stops and the exception continues.
void without_gil(const std::function<void()>& work);

void bind_runtime(pybind11::module_& module);
void bind_nearest(pybind11::module_& module);
void bind_filter_channels(pybind11::module_& module);
void bind_describe(pybind11::module_& module);
void bind_linear_map(pybind11::module_& module);
void bind_convolution(pybind11::module_& module);
void bind_smooth(pybind11::module_& module);

}  // namespace inreach
