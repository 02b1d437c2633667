#include "bindings.h"

PYBIND11_MODULE(_core, module, pybind11::mod_gil_not_used()) {
    module.doc() = "Compiled CPU engine of inreach_fast; private: use inreach_fast.kernels.";
    inreach::bind_runtime(module);
    inreach::bind_nearest(module);
    inreach::bind_filter_channels(module);
    inreach::bind_describe(module);
    inreach::bind_linear_map(module);
    inreach::bind_convolution(module);
    inreach::bind_smooth(module);
}
