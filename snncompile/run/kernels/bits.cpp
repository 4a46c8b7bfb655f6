// Bits in common with masks, and bits that all rows share, with no array in between.
#include "bits.hpp"

#include <cstring>

#include "dispatch.hpp"

namespace snn {

void met(const uint64_t *words, size_t rows, size_t size, const uint64_t *masks, size_t many, int64_t *found) {
    static const Kernels *const kernels = available().front();  // counting has one result on all of them
    constexpr size_t together = 128;                            // words that stay in the first cache
    uint64_t common[together];
    for (size_t row = 0; row < rows; ++row, words += size)
        for (size_t mask = 0; mask < many; ++mask) {
            int64_t bits = 0;
            for (size_t first = 0; first < size; first += together) {
                const size_t count = size - first < together ? size - first : together;
                const uint64_t *of = masks + mask * size + first;
                for (size_t word = 0; word < count; ++word) common[word] = words[first + word] & of[word];
                bits += kernels->count(common, count);
            }
            found[mask * rows + row] = bits;
        }
}

void ever_and_always(const uint64_t *words, size_t rows, size_t size, uint64_t *ever, uint64_t *always) {
    std::memset(ever, 0, size * sizeof(uint64_t));
    std::memset(always, 0xff, size * sizeof(uint64_t));
    for (size_t row = 0; row < rows; ++row, words += size)
        for (size_t word = 0; word < size; ++word) {
            ever[word] |= words[word];
            always[word] &= words[word];
        }
}

}  // namespace snn
