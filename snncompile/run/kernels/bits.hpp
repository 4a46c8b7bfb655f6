// Rows of bits in words of 64: what run/bits.py counts.
#pragma once

#include <cstddef>
#include <cstdint>

namespace snn {

// How many bits each of ``rows`` rows of ``size`` words has in common with each of ``many`` masks: [mask][row].
void met(const uint64_t *words, size_t rows, size_t size, const uint64_t *masks, size_t many, int64_t *found);

// Which bits are set in any row, and which in all of them: [size] each.
void ever_and_always(const uint64_t *words, size_t rows, size_t size, uint64_t *ever, uint64_t *always);

}  // namespace snn
