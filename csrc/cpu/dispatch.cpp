#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace inreach {

#define INREACH_DECLARE_KERNELS(isa)                                                                       \
    namespace isa {                                                                                        \
    double sq_distance(const float* a, const float* b, size_t dim);                                        \
    float sq_distance32(const float* a, const float* b, size_t dim);                                       \
    double standardize(const float* row, const double* centre, double scale, size_t dim, float* out);      \
    void dot_tile(const float* block, size_t depth, const float* rows, size_t stride, size_t count,        \
                  const float* init, float* out);                                                          \
    void dot_panels(const float* strips, const float* panels, size_t depth, size_t count, size_t width,    \
                    const float* init, bool add, const float* limits, float* out, uint64_t* pass);         \
    uint64_t scan_block(const float* block, size_t depth, const float* row, float threshold,               \
                        const float* init, float* out);                                                    \
    void add_to_sums(const float* values, size_t count, double* sums);                                     \
    uint64_t at_least(const float* values, const float* thresholds, float shift);                          \
    void code_distances(const int8_t* codes, size_t stride, const uint8_t* places, size_t count,           \
                        const float* row, const float* centre, const float* steps, size_t groups,          \
                        float* out);                                                                       \
    Quantized quantize(const float* row, const float* centre, int8_t* codes);                              \
    uint64_t scan_codes(const uint8_t* block, const int8_t* row, int32_t row_sum, float scale, float tail, \
                        const float* tails, const float* halves, float threshold, float* out);             \
    size_t collect_in_reach(const float* dots, const float* radius, size_t count, float sq_norm,           \
                            float reach, uint32_t* out);                                                   \
    void map_rows(const float* rows, size_t stride, size_t count, const float* matrix, size_t width,       \
                  size_t depth, bool resume, float* out);                                                  \
    void transpose(const float* src, ptrdiff_t src_stride, float* dst, ptrdiff_t dst_stride, size_t rows,  \
                   size_t columns);                                                                        \
    void sum_taps(const float* src, const int32_t* offset, const float* weight, size_t taps, bool resume,  \
                  float* dst, size_t n);                                                                   \
    void blend(const float* a, const float* b, float wa, float wb, float* dst, size_t n);                  \
    void winograd_input2(const float* const* pixels, size_t channels, float* out, size_t step);            \
    void winograd_input4(const float* const* pixels, size_t channels, float* out, size_t step);            \
    void winograd_output2(const float* sums, size_t step, const float* bias, const float* const* others,   \
                          Activation activation, size_t channels, float* const* pixels);                   \
    void winograd_output4(const float* sums, size_t step, const float* bias, const float* const* others,   \
                          Activation activation, size_t channels, float* const* pixels);                   \
    void winograd_multiply(const float* rows, size_t stride, size_t count, const float* strips,            \
                           size_t depth, size_t width, float* out, size_t out_stride);                     \
    }

INREACH_DECLARE_KERNELS(scalar)
#if defined(__x86_64__)
INREACH_DECLARE_KERNELS(avx2)
INREACH_DECLARE_KERNELS(avx512)
namespace avx512vnni {
uint64_t scan_codes(const uint8_t* block, const int8_t* row, int32_t row_sum, float scale, float tail,
                    const float* tails, const float* halves, float threshold, float* out);
}
#endif
#if defined(__aarch64__)
INREACH_DECLARE_KERNELS(neon)
#endif

#define INREACH_TABLE(isa)                                                                            \
    {                                                                                                 \
        #isa, isa::sq_distance, isa::sq_distance32, isa::standardize, isa::dot_tile, isa::dot_panels, \
            isa::scan_block, isa::add_to_sums, isa::at_least, isa::code_distances, isa::quantize,     \
            isa::scan_codes, isa::collect_in_reach, isa::map_rows,                                    \
            {isa::transpose, isa::sum_taps, isa::blend}, {                                            \
            isa::winograd_input2, isa::winograd_input4, isa::winograd_output2, isa::winograd_output4, \
                isa::winograd_multiply                                                                \
        }                                                                                             \
    }

namespace {

const KernelTable kScalar = INREACH_TABLE(scalar);
#if defined(__x86_64__)
const KernelTable kAvx2 = INREACH_TABLE(avx2);
const KernelTable kAvx512 = INREACH_TABLE(avx512);

// AVX-512 and its instructions for sums of 8-bit products, where they serve.
KernelTable with_vnni() {
    KernelTable table = kAvx512;
    table.name = "avx512vnni";
    table.scan_codes = avx512vnni::scan_codes;
    return table;
}
const KernelTable kAvx512Vnni = with_vnni();

// The processor having an instruction is not enough: the operating system must also save its registers,
// which XCR0 tells.
struct X86Features {
    bool avx2 = false;
    bool avx512 = false;
    bool avx512vnni = false;

    X86Features() {
        unsigned a = 0, b = 0, c = 0, d = 0;
        if (!__get_cpuid(1, &a, &b, &c, &d)) return;
        const bool fma = c & (1u << 12), osxsave = c & (1u << 27), avx = c & (1u << 28);
        if (!(osxsave && avx)) return;
        unsigned xcr0_low = 0, xcr0_high = 0;
        __asm__ volatile("xgetbv" : "=a"(xcr0_low), "=d"(xcr0_high) : "c"(0));
        const bool ymm_saved = (xcr0_low & 0x06) == 0x06;
        const bool zmm_saved = (xcr0_low & 0xe6) == 0xe6;
        if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
        avx2 = ymm_saved && fma && (b & (1u << 5));
        avx512 =
            avx2 && zmm_saved && (b & (1u << 16)) && (b & (1u << 17)) && (b & (1u << 30)) && (b & (1u << 31));
        avx512vnni = avx512 && (c & (1u << 11));
    }
};
#endif
#if defined(__aarch64__)
const KernelTable kNeon = INREACH_TABLE(neon);
#endif

std::vector<const KernelTable*> usable_tables() {
    std::vector<const KernelTable*> tables;
#if defined(__x86_64__)
    static const X86Features features;
    if (features.avx512vnni) tables.push_back(&kAvx512Vnni);
    if (features.avx512) tables.push_back(&kAvx512);
    if (features.avx2) tables.push_back(&kAvx2);
#endif
#if defined(__aarch64__)
    tables.push_back(&kNeon);
#endif
    tables.push_back(&kScalar);
    return tables;
}

const KernelTable* find_table(const std::string& name) {
    const auto tables = usable_tables();
    if (name.empty() || name == "auto") return tables.front();
    std::string known;
    for (const KernelTable* table : tables) {
        if (name == table->name) return table;
        known += (known.empty() ? "" : ", ") + std::string(table->name);
    }
    throw std::invalid_argument("INREACH_ISA: this machine cannot run '" + name + "'; it can run: " + known +
                                " (or 'auto')");
}

std::atomic<const KernelTable*> active{nullptr};

}  // namespace

const KernelTable& kernels() {
    const KernelTable* table = active.load(std::memory_order_acquire);
    if (table == nullptr) {
        const char* wanted = std::getenv("INREACH_ISA");
        table = find_table(wanted == nullptr ? "" : wanted);
        active.store(table, std::memory_order_release);
    }
    return *table;
}

std::vector<std::string> isa_levels() {
    std::vector<std::string> names;
    for (const KernelTable* table : usable_tables()) names.emplace_back(table->name);
    return names;
}

void set_isa(const std::string& name) { active.store(find_table(name), std::memory_order_release); }

}  // namespace inreach
